//! All records that are answered here, by name.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
};

use super::{
    hosts::{Hosts, TYPE_PTR},
    record::Record,
    rule::Rule,
};
use crate::message::{TYPE_CNAME, name_to_text, wire::NAME_MAX};

/// Records by name. A look-up costs one step, and one more a label where there are wildcards.
#[derive(Debug, Default)]
pub struct Table {
    nodes: HashMap<Box<[u8]>, Node>,
    wildcards: bool,
}

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct Node {
    sets: Vec<Set>,
    /// There is a wildcard right below it.
    wildcard: bool,
    /// It exists although it has no records: below a wildcard's parent, and names with records are below it (RFC 4592
    /// section 2.2.2).
    between: bool,
    /// It is known from a hosts file.
    from_hosts: bool,
}

/// Records of one name and type.
#[derive(Debug)]
pub(super) struct Set {
    rtype: u16,
    ttl: u32,
    /// Each with its length before it.
    data: Vec<u8>,
}

/// Records that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableError {
    owner: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = &self.owner;
        write!(
            f,
            "the records of {owner} contradict each other: a name with a CNAME record has no other (RFC 1034 section 3.6.2)"
        )
    }
}

impl std::error::Error for TableError {}

/// What there is for a name.
pub(super) enum Found<'a> {
    /// The name exists, or a wildcard stands for it.
    Node(&'a Node),
    /// It does not exist (RFC 4592): a wildcard's parent that begins there in it covers it, and no wildcard stands for it.
    Missing { apex: usize, ttl: u32 },
    /// Nothing is known here.
    Nothing,
}

impl Table {
    /// The records of the config, and what hosts files say. A name of the config's hides the same name of hosts files.
    ///
    /// # Errors
    /// When a name has a CNAME record and others, or two.
    pub fn new(records: &[Record], hosts: &[Hosts]) -> Result<Table, TableError> {
        let mut table = Table::default();
        for record in records {
            table.add(record);
        }
        for (owner, node) in &table.nodes {
            let alias = node.set(TYPE_CNAME);
            if alias.is_some_and(|set| node.sets.len() > 1 || set.data().count() > 1) {
                let mut text = String::new();
                let _ = name_to_text(owner, 0, &mut text);
                return Err(TableError { owner: text });
            }
        }
        let own: HashSet<Box<[u8]>> = table.nodes.keys().cloned().collect();
        for record in hosts.iter().flat_map(|hosts| &hosts.records) {
            let known = |node: &Node| node.set(TYPE_PTR).is_some();
            // An address is called one thing: what is said of it first.
            let called = record.rtype == TYPE_PTR && table.nodes.get(&*record.owner).is_some_and(known);
            if !called && !own.contains(&*record.owner) {
                table.add(record).from_hosts = true;
            }
        }
        table.mark_wildcards();
        Ok(table)
    }

    fn add(&mut self, record: &Record) -> &mut Node {
        let node = match self.nodes.entry(record.owner.as_slice().into()) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => place.insert(Node::default()),
        };
        node.add(record);
        node
    }

    /// Where it is known from what is answered for a name in wire form and lower case.
    pub(super) fn rule(&self, name: &[u8]) -> Option<Rule> {
        match (self.nodes.get(name), self.find(name)) {
            (_, Found::Nothing) => None,
            (_, Found::Missing { .. }) => Some(Rule::Covered),
            (Some(node), _) if node.exists() => Some(match (node.sets.is_empty(), node.from_hosts) {
                (true, _) => Rule::Covered,
                (false, true) => Rule::Hosts,
                (false, false) => Rule::Record,
            }),
            (_, Found::Node(_)) => Some(Rule::Wildcard),
        }
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Tells the parents of wildcards, and the names between them and the names below them.
    fn mark_wildcards(&mut self) {
        let owners: Vec<Box<[u8]>> = self.nodes.keys().cloned().collect();
        for parent in owners.iter().filter_map(|owner| owner.strip_prefix(WILDCARD)) {
            self.nodes.entry(parent.into()).or_default().wildcard = true;
            self.wildcards = true;
        }
        if !self.wildcards {
            return;
        }
        for owner in &owners {
            let places: Vec<usize> = ancestors(owner).collect();
            let covered = places.iter().rposition(|at| self.nodes.get(&owner[*at..]).is_some_and(|node| node.wildcard));
            for at in &places[..covered.unwrap_or(0)] {
                self.nodes.entry(owner[*at..].into()).or_default().between = true;
            }
        }
    }

    /// Looks a name up that is in wire form and lower case.
    pub(super) fn find(&self, name: &[u8]) -> Found<'_> {
        match self.nodes.get(name) {
            Some(node) if node.exists() => Found::Node(node),
            _ if self.wildcards => self.find_wildcard(name),
            _ => Found::Nothing,
        }
    }

    /// The wildcard at the closest encloser (RFC 4592 section 3.3.1).
    fn find_wildcard(&self, name: &[u8]) -> Found<'_> {
        let mut blocked = false;
        for at in ancestors(name) {
            let Some(node) = self.nodes.get(&name[at..]) else { continue };
            if node.wildcard {
                let mut key = [0; NAME_MAX];
                // The label before is at least as long as the asterisk's.
                let length = WILDCARD.len() + name.len() - at;
                key[..WILDCARD.len()].copy_from_slice(WILDCARD);
                key[WILDCARD.len()..length].copy_from_slice(&name[at..]);
                let Some(wildcard) = self.nodes.get(&key[..length]) else { return Found::Nothing };
                return if blocked { Found::Missing { apex: at, ttl: wildcard.ttl() } } else { Found::Node(wildcard) };
            }
            blocked |= node.exists();
        }
        Found::Nothing
    }
}

/// Where the names above this one begin in it, the nearest first, the root last.
fn ancestors(name: &[u8]) -> impl Iterator<Item = usize> {
    let next = |at: usize| name.get(at).filter(|length| **length > 0).map(|length| at + 1 + usize::from(*length));
    std::iter::successors(next(0), move |at| next(*at))
}

impl Node {
    fn exists(&self) -> bool {
        self.between || !self.sets.is_empty()
    }

    fn add(&mut self, record: &Record) {
        let Some(set) = self.sets.iter_mut().find(|set| set.rtype == record.rtype) else {
            let mut set = Set { rtype: record.rtype, ttl: record.ttl, data: Vec::new() };
            set.add(&record.data);
            return self.sets.push(set);
        };
        // RFC 2181 section 5.2: the records of a set share one TTL.
        set.ttl = set.ttl.min(record.ttl);
        if set.data.len() < SET_MAX && !set.data().any(|data| data == record.data) {
            set.add(&record.data);
        }
    }

    /// The records of this type.
    pub(super) fn set(&self, rtype: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// The records of one type.
    pub(super) fn first(&self) -> Option<&Set> {
        self.sets.first()
    }

    /// For how long it may be believed what types there are, in seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.sets.iter().map(|set| set.ttl).min().unwrap_or(TTL_BETWEEN)
    }
}

impl Set {
    pub(super) fn rtype(&self) -> u16 {
        self.rtype
    }

    pub(super) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The data of its records.
    pub(super) fn data(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.data.as_slice();
        std::iter::from_fn(move || {
            let (length, rest) = left.split_first_chunk()?;
            let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            left = rest;
            Some(data)
        })
    }

    fn add(&mut self, data: &[u8]) {
        let length = u16::try_from(data.len()).expect("records have limits");
        self.data.extend_from_slice(&length.to_be_bytes());
        self.data.extend_from_slice(data);
    }
}

/// The first label of a wildcard.
const WILDCARD: &[u8] = b"\x01*";

/// Bytes of the records of one name and type: more than a message holds would never be seen.
const SET_MAX: usize = 65_535;

/// TTL of an empty answer for a name between others, in seconds.
const TTL_BETWEEN: u32 = 60;
