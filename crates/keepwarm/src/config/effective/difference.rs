//! What changes between two configs.

use keepwarm_control::rows::DifferenceRow;
use serde::Serialize;

use super::{Effective, Entry, Node, Origin, walk::JOBS};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key; or a section or list, of which some were added, removed or put in another order.
    pub path: String,
    /// The value before, as TOML and without secrets; `None`: there was none.
    pub from: Option<String>,
    /// The value from now on.
    pub to: Option<String>,
}

impl From<Difference> for DifferenceRow {
    fn from(Difference { path, from, to }: Difference) -> DifferenceRow {
        DifferenceRow { path, from, to }
    }
}

pub(super) fn difference(old: &Effective, new: &Effective) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare("", &old.nodes, &new.nodes, &mut differences);
    differences
}

type Nodes = [(String, Node)];

fn compare(path: &str, old: &Nodes, new: &Nodes, differences: &mut Vec<Difference>) {
    for key in keys(old, new) {
        let at = join(path, key);
        let (before, after) = (find(old, key), find(new, key));
        if before.is_none() != after.is_none() && JOBS.contains(&at.as_str()) {
            let there = |node: Option<&Node>| node.map(|_| format!("[{at}]"));
            differences.push(Difference { path: at.clone(), from: there(before), to: there(after) });
        }
        match (before, after) {
            (Some(Node::Value(before)), Some(Node::Value(after))) => value(Some(before), Some(after), differences),
            (before, after) => {
                // A switch that got keys, or lost them, is a value on one side and a section on the other.
                let (was, is) = (before.and_then(as_value), after.and_then(as_value));
                value(was, is, differences);
                lists(&at, before, after, differences);
                compare(&at, below(before), below(after), differences);
            }
        }
    }
}

fn value(old: Option<&Entry>, new: Option<&Entry>, differences: &mut Vec<Difference>) {
    let (Some(one), other) = (new.or(old), old.and(new)) else { return };
    let is_same = match other {
        Some(_) => old.map(|entry| &entry.value) == new.map(|entry| &entry.value),
        None => one.origin == Origin::Default,
    };
    if !is_same {
        let shown = |entry: Option<&Entry>| entry.map(|entry| entry.value().to_owned());
        differences.push(Difference { path: one.path.clone(), from: shown(old), to: shown(new) });
    }
}

/// Compares the entries of lists, by what they are called, and their order.
fn lists(path: &str, old: Option<&Node>, new: Option<&Node>, differences: &mut Vec<Difference>) {
    let (old, new) = (entries(old), entries(new));
    let names = |list: &[(String, Vec<(String, Node)>)], other: &[(String, Vec<(String, Node)>)]| -> Vec<String> {
        let is_common = |name: &String| other.iter().any(|(id, _)| id == name);
        list.iter().map(|(name, _)| name.clone()).filter(is_common).collect()
    };
    let (before, after) = (names(old, new), names(new, old));
    if before != after {
        let shown = |names: Vec<String>| Some(names.join(", "));
        differences.push(Difference { path: path.to_owned(), from: shown(before), to: shown(after) });
    }
    let all = old
        .iter()
        .map(|(name, _)| name)
        .chain(new.iter().map(|(name, _)| name).filter(|name| !old.iter().any(|(id, _)| id == *name)));
    for name in all {
        let nodes = |list: &'_ [(String, Vec<(String, Node)>)]| {
            list.iter().find(|(id, _)| id == name).map(|(_, nodes)| nodes.clone()).unwrap_or_default()
        };
        compare(&join(path, &super::walk::key_text(name)), &nodes(old), &nodes(new), differences);
    }
}

fn keys<'n>(old: &'n Nodes, new: &'n Nodes) -> Vec<&'n str> {
    let mut keys: Vec<&str> = old.iter().map(|(key, _)| key.as_str()).collect();
    for (key, _) in new {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    keys
}

fn find<'n>(nodes: &'n Nodes, key: &str) -> Option<&'n Node> {
    nodes.iter().find(|(known, _)| known == key).map(|(_, node)| node)
}

fn as_value(node: &Node) -> Option<&Entry> {
    match node {
        Node::Value(entry) => Some(entry),
        _ => None,
    }
}

fn below(node: Option<&Node>) -> &Nodes {
    match node {
        Some(Node::Section(nodes)) => nodes,
        _ => &[],
    }
}

fn entries(node: Option<&Node>) -> &[(String, Vec<(String, Node)>)] {
    match node {
        Some(Node::List(list)) => list,
        _ => &[],
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
