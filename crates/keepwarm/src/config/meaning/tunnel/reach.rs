//! What leads where: names of upstreams and groups that are told apart, that what leads to one finds it, and that each is led to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use keepwarm_tunnel::config::Via;

use super::Check;
use crate::config::{
    fault::Fault,
    read::{At, Section as _, nearest},
    spec::TunnelSpec,
    value::{Name, Through},
};

/// The group of upstreams that name none.
const DEFAULT_GROUP: &str = "default";
const DIRECT: &str = "direct";
const REJECT: &str = "reject";

/// Upstreams and groups, and where the file names them first.
pub(super) struct Names<'s> {
    upstreams: BTreeMap<&'s str, &'s Range<usize>>,
    groups: BTreeMap<&'s str, &'s Range<usize>>,
    /// None of them was refused, so that no other can be meant.
    complete: bool,
}

impl<'s> Names<'s> {
    pub(super) fn of(spec: &'s TunnelSpec) -> Names<'s> {
        let mut names = Names {
            upstreams: BTreeMap::new(),
            groups: BTreeMap::new(),
            complete: !spec.refused("upstream", spec.upstream.as_ref()),
        };
        for upstream in spec.upstream.iter().flat_map(|list| &list.value) {
            let At { value: upstream, span } = upstream;
            if let Some(name) = &upstream.name {
                names.upstreams.entry(&name.value.0).or_insert(&name.span);
            }
            let (group, place) = match &upstream.group {
                Some(at) => (&*at.value.0, &at.span),
                None => (DEFAULT_GROUP, span),
            };
            names.complete &= upstream.name.is_some() && !upstream.refused("group", upstream.group.as_ref());
            names.groups.entry(group).or_insert(place);
        }
        names
    }

    fn find(&self, name: &At<Name>) -> Option<Via> {
        let name = &name.value.0;
        match &**name {
            DIRECT => Some(Via::Direct),
            REJECT => Some(Via::Reject),
            known if self.upstreams.contains_key(known) => Some(Via::Upstream(name.clone())),
            known if self.groups.contains_key(known) => Some(Via::Group(name.clone())),
            _ => None,
        }
    }
}

impl Check<'_> {
    /// A word after `via` must mean one thing.
    pub(super) fn tunnel_names(&mut self, names: &Names<'_>) {
        for (kind, known) in [("upstream", &names.upstreams), ("group", &names.groups)] {
            for (name, span) in known.iter().filter(|(name, _)| is_reserved(name)) {
                let title = format!("no {kind} can be named \"{name}\", which has a meaning of its own after `via`");
                self.faults.push(Fault::error((*span).clone(), title).help("give it another name"));
            }
        }
        for (name, span) in &names.upstreams {
            if let Some(group) = names.groups.get(name) {
                self.faults.push(
                    Fault::error((*span).clone(), format!("\"{name}\" is the name of an upstream and of a group"))
                        .also((*group).clone(), "the group")
                        .help("rename one of them: `via` could mean either"),
                );
            }
        }
    }

    /// What a word after `via` means; a fault where it means nothing.
    pub(super) fn via(&mut self, key: &str, at: &At<Name>, names: &Names<'_>) -> Option<Via> {
        let found = names.find(at);
        if found.is_none() && names.complete {
            let name = &*at.value.0;
            let all: BTreeSet<&str> = names.upstreams.keys().chain(names.groups.keys()).copied().collect();
            let all: Vec<&str> = all.into_iter().filter(|name| !is_reserved(name)).chain([DIRECT, REJECT]).collect();
            let near = nearest(name, all.iter().copied());
            let known = all.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            self.faults.push(
                Fault::error(
                    at.span.clone(),
                    format!("`{key}` names \"{name}\", which is neither an upstream nor a group"),
                )
                .label(near.map_or_else(String::new, |near| format!("did you mean \"{near}\"?")))
                .help(format!("accepted: {known}")),
            );
        }
        found
    }

    /// Where destinations without a rule go.
    pub(super) fn tunnel_default(
        &mut self,
        spec: &TunnelSpec,
        names: &Names<'_>,
        section: Range<usize>,
    ) -> Option<Via> {
        if let Some(at) = &spec.default {
            return self.via("tunnel.default", at, names);
        }
        if spec.has("default") || !names.complete {
            return None;
        }
        if names.groups.contains_key(DEFAULT_GROUP) {
            return Some(Via::Group(DEFAULT_GROUP.into()));
        }
        let Some((group, _)) = names.groups.first_key_value() else {
            return Some(Via::Direct);
        };
        self.faults.push(
            Fault::error(section, "`tunnel.default` is missing, and no upstream is in the group \"default\"")
                .label("nothing says where destinations go that no rule matches")
                .help(format!("add default = \"{group}\" to [tunnel], or \"direct\", or \"reject\"")),
        );
        None
    }

    /// Warns of upstreams that nothing leads to.
    pub(super) fn unused_upstreams(&mut self, spec: &TunnelSpec, names: &Names<'_>, otherwise: Option<&Via>) {
        let rules = spec.rule.iter().flat_map(|list| &list.value).map(|rule| rule.value.via.as_ref());
        let vias: Option<Vec<Via>> = rules.map(|via| names.find(via?)).collect();
        // What leads where is not known as long as a target is missing or misspelt.
        let (Some(mut vias), Some(otherwise)) = (vias, otherwise) else { return };
        let is_clear = !names.upstreams.keys().any(|name| is_reserved(name) || names.groups.contains_key(name));
        if !is_clear || !names.complete || spec.refused("rule", spec.rule.as_ref()) {
            return;
        }
        vias.push(otherwise.clone());
        let upstreams = || spec.upstream.iter().flat_map(|list| &list.value).map(|upstream| &upstream.value);
        let before: BTreeSet<&str> = upstreams()
            .filter_map(|upstream| match &upstream.through.as_ref()?.value {
                Through::Name(name) => Some(&**name),
                Through::Url(_) => None,
            })
            .collect();
        for upstream in upstreams() {
            let (Some(name), group) = (&upstream.name, upstream.group.as_ref()) else { continue };
            let group = group.map_or(DEFAULT_GROUP, |at| &*at.value.0);
            let leads_here = |via: &Via| match via {
                Via::Upstream(known) => *known == name.value.0,
                Via::Group(known) => **known == *group,
                Via::Direct | Via::Reject => false,
            };
            if !vias.iter().any(leads_here) && !before.contains(&*name.value.0) {
                let name_words = &name.value.0;
                self.faults.push(
                    Fault::warning(name.span.clone(), format!("nothing leads to the upstream \"{name_words}\""))
                        .label(format!("its group is \"{group}\""))
                        .help(format!(
                            "add a [[tunnel.rule]] with via = \"{name_words}\" or via = \"{group}\", or default = \"{group}\" to [tunnel]"
                        )),
                );
            }
        }
    }
}

fn is_reserved(name: &str) -> bool {
    [DIRECT, REJECT].contains(&name)
}
