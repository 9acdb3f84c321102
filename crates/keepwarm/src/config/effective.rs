//! The config in force as text: each key, its value and where that is from. For people, the status API and what a reload tells.
//!
//! Values are as TOML writes them. Secrets are in it only so that a change of one is seen: nothing that leaves this module has them.
//! What a password file holds is not here, so an empty difference does not say that nothing changed.

use std::{fmt, sync::Arc};

use keepwarm_control::rows::ConfigValue;
use serde::{Serialize, Serializer};
use toml::de::DeTable;

use super::{Config, fault::Faults, layers::BUILT_IN};

mod derived;
mod difference;
mod show;
mod walk;

pub use difference::Difference;
pub use show::Show;

/// Every key that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    nodes: Vec<(String, Node)>,
}

/// A key's value, or what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Value(Entry),
    Section(Vec<(String, Node)>),
    /// The entries of a list, each with what it is called.
    List(Vec<(String, Vec<(String, Node)>)>),
}

/// A key, its value and where that is from.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    path: String,
    value: String,
    /// What is shown where the value has a secret.
    redacted: Option<String>,
    origin: Origin,
}

/// Where a value is from; a later one stands over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody says it.
    Default,
    /// A file.
    File {
        /// As it was named.
        name: Arc<str>,
        /// From 1.
        line: usize,
    },
    /// The variable of this name.
    Environment(Arc<str>),
    /// The flag of this name, such as `--set`.
    Flag(Arc<str>),
}

impl Effective {
    /// What a file, and what stands over it, comes to. `faults` knows the texts, and which parts are secret.
    pub(super) fn of(tree: &DeTable<'_>, faults: &Faults, config: &Config) -> Effective {
        let mut effective = walk::Walk::new(faults).run(tree);
        derived::fill(&mut effective, config);
        effective
    }

    /// Every key, in the order of `keepwarm config example`; the keys of lists entry by entry.
    pub fn entries(&self) -> Vec<&Entry> {
        let mut entries = Vec::new();
        collect(&self.nodes, &mut entries);
        entries
    }

    /// The key at a path such as `dns.timeout` or `dns.upstream.quad9.weight`.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries().into_iter().find(|entry| entry.path == path)
    }

    /// What changes from `old` to `new`, in the order of the keys. What one of them does not have at all, and the other by default, is
    /// no change of its own: an upstream that is added is told by the keys that it sets. Secrets are shown as `"<redacted>"` on both sides.
    pub fn difference(old: &Effective, new: &Effective) -> Vec<Difference> {
        difference::difference(old, new)
    }
}

fn collect<'e>(nodes: &'e [(String, Node)], entries: &mut Vec<&'e Entry>) {
    for (_, node) in nodes {
        match node {
            Node::Value(entry) => entries.push(entry),
            Node::Section(nodes) => collect(nodes, entries),
            Node::List(list) => list.iter().for_each(|(_, nodes)| collect(nodes, entries)),
        }
    }
}

impl Entry {
    /// The key, such as `dns.timeout`; within a list by the entry's name, `https.origin."tiles.example.com".warm`, as `--set` takes it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value as TOML, without secrets.
    pub fn value(&self) -> &str {
        self.redacted.as_deref().unwrap_or(&self.value)
    }

    /// Where it is from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether parts of the value are not shown.
    pub fn is_secret(&self) -> bool {
        self.redacted.is_some()
    }
}

/// Without the secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} # {}", self.path, self.value(), self.origin)
    }
}

impl From<&Entry> for ConfigValue {
    fn from(entry: &Entry) -> ConfigValue {
        let (path, value) = (entry.path.clone(), entry.value().to_owned());
        ConfigValue { path, value, origin: entry.origin.to_string() }
    }
}

/// `path`, `value`, `origin` and `secret`.
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut entry = serializer.serialize_struct("Entry", 4)?;
        entry.serialize_field("path", &self.path)?;
        entry.serialize_field("value", self.value())?;
        entry.serialize_field("origin", &self.origin.to_string())?;
        entry.serialize_field("secret", &self.is_secret())?;
        entry.end()
    }
}

/// A list of the entries.
impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.entries())
    }
}

/// `keepwarm.toml:12`, `environment KEEPWARM_DNS__TIMEOUT`, `flag --set`, `default`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, .. } if &**name == BUILT_IN => f.write_str(BUILT_IN),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What stands for a secret.
const REDACTED: &str = "<redacted>";

#[cfg(test)]
mod tests;
