//! Groups of upstreams, and which of them answers for a name: split horizon and the fallback.
//!
//! A suffix is found label by label from the root down, so a look-up takes as many steps as the longest suffix that the name
//! shares, and allocates nothing. Who is asked within a group, and when the fallback is, are the plan's business.

use std::{fmt, sync::Arc};

use hashbrown::HashTable;

use crate::{
    config::{DEFAULT_GROUP, DnsConfig},
    message::{hash_parts, name_from_text},
};

/// What is wrong with the groups of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupFault {
    /// A route names a group that no upstream belongs to.
    UnknownRoute {
        /// Its place in [`DnsConfig::routes`].
        route: usize,
        /// The group.
        group: Arc<str>,
    },
    /// The fallback names a group that no upstream belongs to.
    UnknownFallback {
        /// The group.
        group: Arc<str>,
    },
    /// A suffix is no valid name.
    BadSuffix {
        /// The route's place in [`DnsConfig::routes`].
        route: usize,
        /// The suffix' place in its route.
        suffix: usize,
    },
    /// A suffix stands in the routes twice, in whatever case.
    TwiceSuffix {
        /// The place in [`DnsConfig::routes`] of the later one.
        route: usize,
        /// The suffix' place in its route.
        suffix: usize,
        /// The same of the earlier one: route and suffix.
        first: (usize, usize),
    },
    /// There are upstreams, but none in [`DEFAULT_GROUP`] and no fallback: names without a route cannot be answered.
    NoDefault,
}

impl fmt::Display for GroupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupFault::UnknownRoute { route, group } => {
                write!(f, "route {}: no upstream belongs to the group `{group}`", route + 1)
            }
            GroupFault::UnknownFallback { group } => write!(f, "fallback: no upstream belongs to the group `{group}`"),
            GroupFault::BadSuffix { route, suffix } => {
                write!(f, "route {}: suffix {} is not a name", route + 1, suffix + 1)
            }
            GroupFault::TwiceSuffix { route, suffix, first } => write!(
                f,
                "route {}: suffix {} is suffix {} of route {} again",
                route + 1,
                suffix + 1,
                first.1 + 1,
                first.0 + 1
            ),
            GroupFault::NoDefault => {
                write!(f, "no upstream belongs to the group `{DEFAULT_GROUP}`, and there is no fallback")
            }
        }
    }
}

/// Everything that is wrong with the groups, routes and fallback of a config, in the order of the config; empty when all is
/// well.
pub fn check_groups(config: &DnsConfig) -> Vec<GroupFault> {
    Groups::build(config).1
}

/// The groups of a server.
#[derive(Debug)]
pub struct Groups {
    groups: Vec<Group>,
    suffixes: Vec<Suffix>,
    /// For each node the suffix that ends there; node 0 is the root.
    nodes: Vec<Option<u16>>,
    edges: HashTable<Edge>,
    fallback: Option<usize>,
    /// Names are not routed, and there is no fallback: all queries go to all upstreams.
    plain: bool,
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    members: Vec<usize>,
}

#[derive(Debug)]
struct Suffix {
    text: Arc<str>,
    group: usize,
    place: (usize, usize),
}

#[derive(Debug)]
struct Edge {
    parent: u32,
    /// In lower case.
    label: Box<[u8]>,
    node: u32,
}

/// Who answers for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The group's number: its place in the order in which groups appear in the config.
    pub group: usize,
    /// Its name.
    pub name: &'a Arc<str>,
    /// Its upstreams: places in the config, in that order. Empty where none belongs to it.
    pub members: &'a [usize],
    /// The suffix that led there, as the config has it; `None` for a name without a route.
    pub suffix: Option<&'a Arc<str>>,
}

impl Groups {
    /// The groups of this config.
    ///
    /// # Errors
    /// The first of [`check_groups`]' faults. [`GroupFault::NoDefault`] is none here: a server may answer for its routes alone.
    pub fn new(config: &DnsConfig) -> Result<Groups, GroupFault> {
        let (groups, faults) = Groups::build(config);
        match faults.into_iter().find(|fault| *fault != GroupFault::NoDefault) {
            Some(fault) => Err(fault),
            None => Ok(groups),
        }
    }

    fn build(config: &DnsConfig) -> (Groups, Vec<GroupFault>) {
        let mut groups = Groups {
            groups: vec![Group { name: DEFAULT_GROUP.into(), members: Vec::new() }],
            suffixes: Vec::new(),
            nodes: vec![None],
            edges: HashTable::new(),
            fallback: None,
            plain: false,
        };
        let mut faults = Vec::new();
        for (index, upstream) in config.upstreams.iter().enumerate() {
            let group = groups.find(&upstream.group).unwrap_or_else(|| {
                groups.groups.push(Group { name: upstream.group.clone(), members: Vec::new() });
                groups.groups.len() - 1
            });
            groups.groups[group].members.push(index);
        }
        for (number, route) in config.routes.iter().enumerate() {
            let group = groups.find(&route.group).filter(|group| !groups.groups[*group].members.is_empty());
            if group.is_none() {
                faults.push(GroupFault::UnknownRoute { route: number, group: route.group.clone() });
            }
            for (place, text) in route.suffixes.iter().enumerate() {
                faults.extend(groups.add(text, group.unwrap_or(0), (number, place)).err());
            }
        }
        if let Some(name) = &config.fallback {
            groups.fallback = groups.find(name).filter(|group| !groups.groups[*group].members.is_empty());
            if groups.fallback.is_none() {
                faults.push(GroupFault::UnknownFallback { group: name.clone() });
            }
        }
        if !config.upstreams.is_empty() && groups.groups[0].members.is_empty() && config.fallback.is_none() {
            faults.push(GroupFault::NoDefault);
        }
        groups.plain = config.routes.is_empty() && config.fallback.is_none() && groups.groups.len() == 1;
        (groups, faults)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|group| *group.name == *name)
    }

    fn add(&mut self, text: &Arc<str>, group: usize, place: (usize, usize)) -> Result<(), GroupFault> {
        let bad = GroupFault::BadSuffix { route: place.0, suffix: place.1 };
        let name = name_from_text(text).ok_or(bad.clone())?;
        let number = u16::try_from(self.suffixes.len()).map_err(|_| bad)?;
        let mut node = 0;
        for label in Labels::of(&name).root_first() {
            node = match self.child(node, label) {
                Some(child) => child,
                None => self.grow(node, label),
            };
        }
        if let Some(known) = self.nodes[node as usize] {
            let first = self.suffixes[usize::from(known)].place;
            return Err(GroupFault::TwiceSuffix { route: place.0, suffix: place.1, first });
        }
        self.nodes[node as usize] = Some(number);
        self.suffixes.push(Suffix { text: text.clone(), group, place });
        Ok(())
    }

    fn grow(&mut self, parent: u32, label: &[u8]) -> u32 {
        let node = u32::try_from(self.nodes.len()).expect("fewer nodes than 65,536 suffixes of 127 labels have");
        self.nodes.push(None);
        let edge = Edge { parent, label: label.to_ascii_lowercase().into(), node };
        self.edges.insert_unique(hash(parent, label), edge, |edge| hash(edge.parent, &edge.label));
        node
    }

    fn child(&self, parent: u32, label: &[u8]) -> Option<u32> {
        let same = |edge: &Edge| edge.parent == parent && edge.label.eq_ignore_ascii_case(label);
        self.edges.find(hash(parent, label), same).map(|edge| edge.node)
    }

    /// Whether every query goes to every upstream: no groups, no routes and no fallback.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// Who answers for `name`, in wire form and any case. The longest suffix wins, [`DEFAULT_GROUP`] where none fits. Allocates
    /// nothing.
    ///
    /// A DS query goes where the name above goes: those records are the parent zone's (RFC 4035 section 3.1.4.1), and the
    /// servers of a route are those of the child. For names below a suffix that makes no difference.
    pub fn route(&self, name: &[u8], qtype: u16) -> Chosen<'_> {
        let suffix = self.suffix(name, qtype).map(|number| &self.suffixes[usize::from(number)]);
        Chosen { suffix: suffix.map(|suffix| &suffix.text), ..self.group(suffix.map_or(0, |suffix| suffix.group)) }
    }

    fn suffix(&self, name: &[u8], qtype: u16) -> Option<u16> {
        if self.suffixes.is_empty() {
            return None;
        }
        let name = match name.first() {
            Some(&length) if qtype == TYPE_DS && length > 0 => name.get(1 + usize::from(length)..).unwrap_or_default(),
            _ => name,
        };
        let (mut node, mut found) = (0, self.nodes[0]);
        for label in Labels::of(name).root_first() {
            let Some(child) = self.child(node, label) else { break };
            node = child;
            found = self.nodes[node as usize].or(found);
        }
        found
    }

    /// The group that is asked when all upstreams of another have failed.
    pub fn fallback(&self) -> Option<Chosen<'_>> {
        self.fallback.map(|group| self.group(group))
    }

    fn group(&self, number: usize) -> Chosen<'_> {
        let Group { name, members } = &self.groups[number];
        Chosen { group: number, name, members, suffix: None }
    }
}

fn hash(parent: u32, label: &[u8]) -> u64 {
    // The table holds what the config says alone, so nobody can fill it with labels that collide.
    hash_parts(label, parent.into(), &[], 0)
}

/// Where the labels of a name in wire form are.
struct Labels<'a> {
    name: &'a [u8],
    starts: [u8; LABELS_MAX],
    len: usize,
}

impl<'a> Labels<'a> {
    /// Whatever is no name ends where it stops being one.
    fn of(name: &'a [u8]) -> Labels<'a> {
        let mut labels = Labels { name, starts: [0; LABELS_MAX], len: 0 };
        let mut at = 0;
        while let Some(&length) = name.get(at)
            && (1..64).contains(&length)
            && at + usize::from(length) < name.len()
            && let (Ok(start), true) = (u8::try_from(at), labels.len < LABELS_MAX)
        {
            labels.starts[labels.len] = start;
            labels.len += 1;
            at += 1 + usize::from(length);
        }
        labels
    }

    fn root_first(&self) -> impl Iterator<Item = &'a [u8]> {
        let name = self.name;
        self.starts[..self.len].iter().rev().map(move |&start| {
            let start = usize::from(start);
            &name[start + 1..start + 1 + usize::from(name[start])]
        })
    }
}

/// Labels of the longest name: 127 of one letter (RFC 1035 section 2.3.4).
const LABELS_MAX: usize = 127;

const TYPE_DS: u16 = 43;

#[cfg(test)]
mod tests;
