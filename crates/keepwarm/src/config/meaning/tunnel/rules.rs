//! The rules: what each matches, that it can match at all, and that nothing is opened ahead where the server speaks first.

use std::{collections::HashMap, ops::Range};

use ipnet::IpNet;
use keepwarm_tunnel::config::{HostMatch, Match, Rule, Via};

use super::{Check, Names, count};
use crate::config::{
    fault::Fault,
    read::{At, List, Section as _},
    spec::RuleSpec,
    tunnel::{covers, show_pattern},
    value::{Count, Pattern},
};

const RULES_MAX: usize = 1000;
const PATTERNS_MAX: usize = 10_000;

/// Ports at which the server speaks first, or that many servers of such protocols use: what it says to a connection that is opened ahead
/// is meant for a client that is there.
const SERVER_FIRST: [(u16, u16, &str); 26] = [
    (13, 13, "daytime"),
    (17, 17, "quotd"),
    (19, 19, "chargen"),
    (21, 21, "FTP"),
    (22, 22, "SSH"),
    (23, 23, "telnet"),
    (24, 24, "LMTP"),
    (25, 25, "SMTP"),
    (37, 37, "time"),
    (105, 106, "mail password"),
    (109, 110, "POP3"),
    (119, 119, "NNTP"),
    (143, 143, "IMAP"),
    (194, 194, "IRC"),
    (587, 587, "SMTP submission"),
    (873, 873, "rsync"),
    (2000, 2000, "sieve"),
    (2222, 2222, "SSH"),
    (2525, 2525, "SMTP"),
    (3306, 3306, "MySQL"),
    (3690, 3690, "Subversion"),
    (4190, 4190, "sieve"),
    (5900, 5999, "VNC"),
    (6600, 6600, "MPD"),
    (6660, 6669, "IRC"),
    (33060, 33060, "MySQL X"),
];

impl Check<'_> {
    pub(super) fn tunnel_rules(&mut self, list: &At<List<RuleSpec>>, names: &Names<'_>) -> Vec<Rule> {
        self.not_too_many("tunnel.rule", list, RULES_MAX);
        let mut earlier = Earlier::default();
        let mut rules = Vec::new();
        for rule in &list.value {
            let read = self.tunnel_rule(rule, names);
            if let Some(patterns) = &rule.value.r#match {
                self.can_match(patterns, &earlier);
                earlier.add(patterns);
            }
            rules.extend(read);
        }
        rules
    }

    fn tunnel_rule(&mut self, rule: &At<RuleSpec>, names: &Names<'_>) -> Option<Rule> {
        let At { value: spec, span } = rule;
        for (key, what) in [
            ("match", "hosts or networks, such as match = [\"*.internal.example\", \"10.0.0.0/8\"]"),
            ("via", "where to, such as via = \"direct\", via = \"reject\" or an upstream's name"),
        ] {
            if !spec.has(key) {
                let title = format!("`tunnel.rule.{key}` is missing");
                self.faults.push(Fault::error(span.clone(), title).help(format!("add {what}")));
            }
        }
        if let Some(list) = &spec.r#match {
            self.not_empty_list("tunnel.rule.match", list, PATTERNS_MAX, "at least one pattern; \"*\" is every host");
        }
        let via = spec.via.as_ref().and_then(|at| self.via("tunnel.rule.via", at, names));
        if let (Some(at), Some(list)) = (spec.speculate.as_ref().filter(|at| at.value.0 > 0), &spec.r#match) {
            self.client_speaks_first(at, list);
            if via == Some(Via::Reject) {
                self.faults.push(
                    Fault::error(at.span.clone(), "`tunnel.rule.speculate` has no meaning where tunnels are refused")
                        .help("remove it"),
                );
            }
        }
        let matches = spec.r#match.as_ref()?.value.iter().map(|pattern| pattern.value.0.clone()).collect();
        Some(Rule { matches, via: via?, speculate: count(spec.speculate.as_ref(), 0) })
    }

    fn client_speaks_first(&mut self, speculate: &At<Count<0, 16>>, patterns: &At<List<Pattern>>) {
        for pattern in &patterns.value {
            let shown = show_pattern(&pattern.value.0);
            let fault = match &pattern.value.0.ports {
                None => Fault::error(speculate.span.clone(), format!("`tunnel.rule.speculate` needs ports, and \"{shown}\" names none"))
                    .also(pattern.span.clone(), "every port")
                    .help("name the ports at which the client speaks first, such as 443: where the server does, what it says would be lost or late"),
                Some(ports) => {
                    let met = SERVER_FIRST.iter().find(|(from, to, _)| from <= ports.end() && ports.start() <= to);
                    let Some((from, _, protocol)) = met else { continue };
                    let port = from.max(ports.start());
                    Fault::error(speculate.span.clone(), format!("`tunnel.rule.speculate` has no place at port {port}, where the server speaks first"))
                        .also(pattern.span.clone(), *protocol)
                        .help("write a rule of its own for the ports at which the client speaks first, such as 443")
                }
            };
            self.faults.push(fault);
            return;
        }
    }

    /// Warns of a rule each pattern of which is within one of an earlier rule.
    fn can_match(&mut self, patterns: &At<List<Pattern>>, earlier: &Earlier) {
        let covering: Option<Vec<_>> =
            patterns.value.iter().map(|pattern| earlier.covering(&pattern.value.0)).collect();
        let was_refused = || self.faults.iter().any(|fault| super::super::section_of(&patterns.span, fault));
        let Some(covering) = covering.filter(|list| !list.is_empty() && !was_refused()) else { return };
        let (pattern, place) = &covering[0];
        self.faults.push(
            Fault::warning(patterns.span.clone(), "this `tunnel.rule` never matches: an earlier one takes all of it")
                .also(place.clone(), format!("\"{}\" comes first", show_pattern(pattern)))
                .help("move it before the other, or remove it"),
        );
    }
}

/// The patterns of earlier rules, by their hosts.
#[derive(Default)]
struct Earlier(HashMap<Host, Vec<(Match, Range<usize>)>>);

#[derive(PartialEq, Eq, Hash)]
enum Host {
    Any,
    /// Names, suffixes and what is below: told apart by [`covers`].
    Name(String),
    Net(IpNet),
}

impl Earlier {
    fn add(&mut self, patterns: &At<List<Pattern>>) {
        for pattern in &patterns.value {
            let host = match &pattern.value.0.host {
                HostMatch::Any => Host::Any,
                HostMatch::Name(name) | HostMatch::Suffix(name) | HostMatch::Below(name) => Host::Name(name.clone()),
                HostMatch::Net(net) => Host::Net(*net),
            };
            let same = self.0.entry(host).or_default();
            // Somebody who writes more of one host gets no warning from the rest.
            if same.len() < SAME_HOST_MAX {
                same.push((pattern.value.0.clone(), pattern.span.clone()));
            }
        }
    }

    /// A pattern that leaves nothing for this one, and its place.
    fn covering(&self, pattern: &Match) -> Option<(&Match, Range<usize>)> {
        let hosts: Vec<Host> = match &pattern.host {
            HostMatch::Any => Vec::new(),
            HostMatch::Name(name) | HostMatch::Suffix(name) | HostMatch::Below(name) => {
                let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
                std::iter::once(name.as_str()).chain(parents).map(|name| Host::Name(name.to_owned())).collect()
            }
            HostMatch::Net(net) => std::iter::successors(Some(*net), IpNet::supernet).map(Host::Net).collect(),
        };
        let candidates = std::iter::once(Host::Any).chain(hosts).filter_map(|host| self.0.get(&host)).flatten();
        candidates.map(|(known, place)| (known, place.clone())).find(|(known, _)| covers(known, pattern))
    }
}

const SAME_HOST_MAX: usize = 64;
