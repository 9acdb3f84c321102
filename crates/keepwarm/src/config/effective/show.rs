//! The config in force as a TOML file that means the same, but for its secrets.

use std::fmt::Write as _;

use super::{
    Effective, Entry, Node, Origin,
    walk::{JOBS, key_text},
};

/// What [`Effective::to_toml`] writes beside the keys that somebody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Show {
    /// Also the keys that are at their defaults.
    pub defaults: bool,
    /// Behind each key where its value is from.
    pub origins: bool,
}

impl Effective {
    /// The keys as TOML, without secrets.
    pub fn to_toml(&self, show: Show) -> String {
        let mut lines = Lines { show, text: String::new() };
        lines.nodes(&self.nodes, "", "");
        lines.text
    }
}

struct Lines {
    show: Show,
    text: String,
}

impl Lines {
    /// The values first: what follows a header belongs to it.
    fn nodes(&mut self, nodes: &[(String, Node)], path: &str, header: &str) {
        let values: Vec<(&str, &Entry)> = nodes
            .iter()
            .filter_map(|(key, node)| match node {
                Node::Value(entry) if self.show.defaults || entry.origin != Origin::Default => Some((&**key, entry)),
                _ => None,
            })
            .collect();
        // An empty section may mean something: [tunnel] alone is a tunnel.
        let is_entry = header.starts_with("[[");
        let stands_alone = JOBS.contains(&path) && nodes.iter().all(|(_, node)| !self.is_shown(node));
        if !header.is_empty() && (is_entry || !values.is_empty() || stands_alone) {
            let gap = if self.text.is_empty() { "" } else { "\n" };
            let _ = writeln!(self.text, "{gap}{header}");
        }
        let lines = values.iter().map(|(key, entry)| format!("{} = {}", key_text(key), entry.value()));
        let lines: Vec<String> = lines.collect();
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default().min(COLUMN_MAX);
        for (line, (_, entry)) in lines.iter().zip(&values) {
            let _ = match self.show.origins {
                true => writeln!(self.text, "{line:width$}  # {}", entry.origin),
                false => writeln!(self.text, "{line}"),
            };
        }
        for (key, node) in nodes {
            let path = if path.is_empty() { key_text(key) } else { format!("{path}.{}", key_text(key)) };
            match node {
                Node::Value(_) => {}
                Node::Section(nodes) => self.nodes(nodes, &path, &format!("[{path}]")),
                Node::List(list) => {
                    for (_, nodes) in list {
                        if nodes.iter().any(|(_, node)| self.is_shown(node)) {
                            self.nodes(nodes, &path, &format!("[[{path}]]"));
                        }
                    }
                }
            }
        }
    }

    fn is_shown(&self, node: &Node) -> bool {
        match node {
            Node::Value(entry) => self.show.defaults || entry.origin != Origin::Default,
            Node::Section(nodes) => nodes.iter().any(|(_, node)| self.is_shown(node)),
            Node::List(list) => list.iter().flat_map(|(_, nodes)| nodes).any(|(_, node)| self.is_shown(node)),
        }
    }
}

/// Origins stand in a column up to here.
const COLUMN_MAX: usize = 60;
