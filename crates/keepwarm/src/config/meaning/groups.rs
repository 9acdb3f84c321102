//! Groups of upstreams: that what leads to a group finds one, and that each group is led to.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use keepwarm_dns::config::{DEFAULT_GROUP, RouteConfig};

use super::Check;
use crate::config::{
    fault::Fault,
    read::{At, List, Section as _, nearest},
    spec::{DnsSpec, RouteSpec, UpstreamSpec},
    value::Name,
};

const ROUTES_MAX: usize = 1000;
const SUFFIXES_MAX: usize = 10_000;

impl Check<'_> {
    pub(super) fn routes(&mut self, routes: Option<&At<List<RouteSpec>>>) -> Vec<RouteConfig> {
        let Some(routes) = routes else {
            return Vec::new();
        };
        self.not_too_many("dns.route", routes, ROUTES_MAX);
        let mut suffixes: HashMap<Arc<str>, Range<usize>> = HashMap::new();
        routes.value.iter().filter_map(|route| self.route(route, &mut suffixes)).collect()
    }

    fn route(&mut self, route: &At<RouteSpec>, known: &mut HashMap<Arc<str>, Range<usize>>) -> Option<RouteConfig> {
        let At { value: spec, span } = route;
        for (key, what) in [
            ("match", "names, such as match = [\"corp.example\"]"),
            ("via", "a group of upstreams, such as via = \"corp\""),
        ] {
            if !spec.has(key) {
                self.faults.push(
                    Fault::error(span.clone(), format!("`dns.route.{key}` is missing")).help(format!("add {what}")),
                );
            }
        }
        let list = spec.r#match.as_ref()?;
        self.not_empty_list("dns.route.match", list, SUFFIXES_MAX, "at least one name, such as \"corp.example\"");
        for suffix in &list.value {
            match known.get(&suffix.value.0) {
                Some(first) => self.faults.push(
                    Fault::error(suffix.span.clone(), format!("`dns.route` has \"{}\" twice", suffix.value.0))
                        .also(first.clone(), "first here")
                        .help("remove one of them: a name goes to one group"),
                ),
                None => {
                    known.insert(suffix.value.0.clone(), suffix.span.clone());
                }
            }
        }
        let suffixes = list.value.iter().map(|suffix| suffix.value.0.clone()).collect();
        Some(RouteConfig { suffixes, group: spec.via.as_ref()?.value.0.clone() })
    }

    /// Holds groups, routes and fallback against one another, when the upstreams can be read as far as that.
    pub(super) fn groups(&mut self, spec: &DnsSpec) {
        let Some(upstreams) = spec.upstream.as_ref().filter(|list| !list.value.is_empty()) else {
            return;
        };
        if upstreams.value.iter().any(|upstream| upstream.value.refused("group", upstream.value.group.as_ref())) {
            return;
        }
        let groups = groups_of(&upstreams.value);
        let routes = spec.route.iter().flat_map(|list| &list.value);
        let vias: Vec<&At<Name>> = routes.filter_map(|route| route.value.via.as_ref()).collect();
        let mut unknown = false;
        for (key, at) in
            vias.iter().map(|at| ("dns.route.via", *at)).chain(spec.fallback.iter().map(|at| ("dns.fallback", at)))
        {
            unknown |= self.is_unknown(key, at, &groups);
        }
        // With a fallback, names without a route have somewhere to go.
        if !groups.contains_key(DEFAULT_GROUP) && !spec.has("fallback") {
            let (_, first) = groups.first_key_value().expect("there is an upstream, so there is a group");
            self.faults.push(
                Fault::error(first.clone(), format!("no upstream is in the group \"{DEFAULT_GROUP}\""))
                    .label("every upstream is in a group of its own choice")
                    .help(format!("remove `group` from the upstreams that answer names without a route, which are in \"{DEFAULT_GROUP}\" then")),
            );
        }
        if unknown
            || spec.route.as_ref().is_some_and(|list| vias.len() < list.value.len())
            || spec.refused("fallback", spec.fallback.as_ref())
            || spec.refused("route", spec.route.as_ref())
        {
            // What leads where is not known as long as a target is missing or misspelt.
            return;
        }
        let leads_to = |group: &str| {
            group == DEFAULT_GROUP || vias.iter().copied().chain(&spec.fallback).any(|at| &*at.value.0 == group)
        };
        for (group, span) in groups.iter().filter(|(group, _)| !leads_to(group)) {
            self.faults.push(
                Fault::warning(span.clone(), format!("nothing leads to the group \"{group}\""))
                    .label("its upstreams are never asked")
                    .help(format!("add a [[dns.route]] with via = \"{group}\", or fallback = \"{group}\" in [dns]")),
            );
        }
        if let Some(fallback) = spec
            .fallback
            .as_ref()
            .filter(|at| &*at.value.0 == DEFAULT_GROUP && vias.iter().all(|via| &*via.value.0 == DEFAULT_GROUP))
        {
            self.faults.push(
                Fault::warning(fallback.span.clone(), "`dns.fallback` is the group that every query goes to already")
                    .help("name another group, or remove it"),
            );
        }
    }

    /// Notes a group in which there is no upstream.
    fn is_unknown(&mut self, key: &str, at: &At<Name>, groups: &BTreeMap<&str, Range<usize>>) -> bool {
        let name = &*at.value.0;
        if groups.contains_key(name) {
            return false;
        }
        let near =
            nearest(name, groups.keys().copied()).map_or_else(String::new, |near| format!("did you mean \"{near}\"?"));
        let known = groups.keys().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ");
        self.faults.push(
            Fault::error(at.span.clone(), format!("`{key}` names the group \"{name}\", in which there is no upstream"))
                .label(near)
                .help(format!("accepted: {known}; or add group = \"{name}\" to an upstream")),
        );
        true
    }
}

/// Each group, and where the file first says so: at the upstream's `group`, or the upstream itself without one.
fn groups_of(upstreams: &[At<UpstreamSpec>]) -> BTreeMap<&str, Range<usize>> {
    let mut groups = BTreeMap::new();
    for upstream in upstreams {
        let (group, span) = match &upstream.value.group {
            Some(at) => (&*at.value.0, &at.span),
            None => (DEFAULT_GROUP, &upstream.span),
        };
        groups.entry(group).or_insert_with(|| span.clone());
    }
    groups
}
