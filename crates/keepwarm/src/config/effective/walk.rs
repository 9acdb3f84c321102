//! From the tree of a config that was accepted, with what the schema knows of keys that are not in it, to the keys in force.

use std::ops::Range;

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Effective, Entry, Node, Origin, REDACTED};
use crate::config::{
    example::every_key,
    fault::Faults,
    layers::Text,
    shape::{Kind, Shape, identity},
};

pub(super) struct Walk<'f> {
    text: &'f Text,
    secrets: &'f [Range<usize>],
}

/// Where the walk is: the key as it is shown, and the section as the format declares it.
#[derive(Clone, Default)]
struct Place {
    shown: String,
    declared: Vec<&'static str>,
}

impl Place {
    fn key(&self, key: &'static str) -> Place {
        let mut declared = self.declared.clone();
        declared.push(key);
        Place { declared, ..self.below(key) }
    }

    /// A name of the author's choice.
    fn below(&self, name: &str) -> Place {
        let name = key_text(name);
        let shown = if self.shown.is_empty() { name } else { format!("{}.{name}", self.shown) };
        Place { shown, declared: self.declared.clone() }
    }
}

impl<'f> Walk<'f> {
    pub(super) fn new(faults: &'f Faults) -> Walk<'f> {
        let (text, secrets) = faults.text();
        Walk { text, secrets }
    }

    pub(super) fn run(&self, tree: &DeTable<'_>) -> Effective {
        Effective { nodes: self.section(Shape::root(), Some(tree), &Place::default()) }
    }

    fn section(&self, shape: Shape, table: Option<&DeTable<'_>>, at: &Place) -> Vec<(String, Node)> {
        let mut nodes = Vec::new();
        for key in shape.keys(&at.declared) {
            let place = at.key(key);
            let Some(below) = shape.key(key) else { continue };
            let node = match table.and_then(|table| table.get(key)) {
                Some(value) => Some(self.present(below, value, &place)),
                None if !means_something(&place.declared, table) => None,
                None => self.absent(below, &place),
            };
            nodes.extend(node.map(|node| (key.to_owned(), node)));
        }
        nodes
    }

    fn present(&self, shape: Shape, value: &Spanned<DeValue<'_>>, at: &Place) -> Node {
        match (shape.kind(), value.get_ref()) {
            // Without keys it is on, all the same.
            (Kind::Switch, DeValue::Table(table)) if table.is_empty() => {
                self.value(&Spanned::new(value.span(), DeValue::Boolean(true)), at)
            }
            (Kind::Section | Kind::Switch, DeValue::Table(table)) => {
                Node::Section(self.section(shape, Some(table), at))
            }
            (Kind::Free, DeValue::Table(table)) => Node::Section(
                table
                    .iter()
                    .map(|(name, value)| {
                        let name = name.get_ref().as_ref();
                        (name.to_owned(), self.value(value, &at.below(name)))
                    })
                    .collect(),
            ),
            (Kind::Entries, DeValue::Array(entries)) => self.entries(shape.entry(), entries.iter(), at),
            _ => self.value(value, at),
        }
    }

    fn entries<'v>(&self, shape: Shape, entries: impl Iterator<Item = &'v Spanned<DeValue<'v>>>, at: &Place) -> Node {
        let mut list: Vec<(String, Vec<(String, Node)>)> = Vec::new();
        for table in entries.filter_map(|entry| entry.get_ref().as_table()) {
            let called = identity(table).map_or_else(String::new, |(_, id)| id);
            let same = list.iter().filter(|(id, _)| id.split(" #").next() == Some(&called)).count();
            // Rules may be there twice; the second one is of no use, and still there.
            let called = if same > 0 { format!("{called} #{}", same + 1) } else { called };
            let nodes = self.section(shape, Some(table), &at.below(&called));
            list.push((called, nodes));
        }
        Node::List(list)
    }

    fn absent(&self, shape: Shape, at: &Place) -> Option<Node> {
        if let Some(default) = shape.default() {
            return Some(default_node(&at.shown, default));
        }
        if at.declared.last() == Some(&"verdicts") {
            return Some(default_list(shape.entry(), at, &every_key()["https"]["origin"][0]["verdicts"]));
        }
        let is_job = at.declared.len() == 1 && JOBS.contains(&at.shown.as_str());
        if is_job || shape.kind() != Kind::Section {
            return None;
        }
        let nodes = self.section(shape, None, at);
        (!nodes.is_empty()).then_some(Node::Section(nodes))
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, at: &Place) -> Node {
        let plain = toml_of(value, &mut |_| None);
        let mut is_secret = false;
        let is_url = at.declared.last().is_some_and(|key| URLS.contains(key));
        let redacted = toml_of(value, &mut |scalar| {
            let redacted = self.redacted(scalar, is_url);
            is_secret |= redacted.is_some();
            redacted
        });
        Node::Value(Entry {
            path: at.shown.clone(),
            value: plain,
            redacted: is_secret.then_some(redacted),
            origin: self.text.origin(value.span().start),
        })
    }

    /// What is shown of a value that has a secret; `None` where it has none.
    fn redacted(&self, value: &Spanned<DeValue<'_>>, is_url: bool) -> Option<String> {
        let span = value.span();
        if !self.secrets.iter().any(|secret| secret.start < span.end && span.start < secret.end) {
            return None;
        }
        let url = value.get_ref().as_str().filter(|_| is_url).and_then(without_password);
        Some(quoted(&url.unwrap_or_else(|| REDACTED.to_owned())))
    }
}

/// Whether a key that nobody set does anything beside the others of its section.
fn means_something(key: &[&str], section: Option<&DeTable<'_>>) -> bool {
    let text = |key: &str| section.and_then(|table| table.get(key)?.get_ref().as_str()).unwrap_or_default();
    let scheme = || text("address").split("://").next().unwrap_or_default();
    match key {
        ["dns", "upstream", "ech"] => matches!(scheme(), "tls" | "https"),
        ["dns", "upstream", "padding"] => !matches!(scheme(), "udp" | "tcp"),
        ["dns", "client_subnet", "v4_prefix" | "v6_prefix"] => text("policy") == "set" && text("address").is_empty(),
        ["tunnel", "upstream", "channels"] => scheme() == "ssh",
        _ => true,
    }
}

/// A URL with its user, where there is a password behind it. A user alone may be a token.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (login, host) = rest.rsplit_once('@')?;
    Some(match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{REDACTED}@{host}"),
        None => format!("{scheme}://{REDACTED}@{host}"),
    })
}

fn default_node(path: &str, default: &Value) -> Node {
    let value = json_as_toml(default);
    Node::Value(Entry { path: path.to_owned(), value, redacted: None, origin: Origin::Default })
}

/// A list of sections that is there by default.
fn default_list(shape: Shape, at: &Place, list: &Value) -> Node {
    let entry = |entry: &Value| {
        let called = entry["statuses"].as_str().unwrap_or_default().to_owned();
        let place = at.below(&called);
        let keys = shape.keys(&at.declared).into_iter().filter(|key| !entry[*key].is_null());
        let nodes = keys.map(|key| (key.to_owned(), default_node(&place.key(key).shown, &entry[key]))).collect();
        (called, nodes)
    };
    Node::List(list.as_array().into_iter().flatten().map(entry).collect())
}

fn json_as_toml(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(json_as_toml).collect::<Vec<_>>().join(", ")),
        Value::Object(keys) => {
            let keys = keys.iter().map(|(key, value)| format!("{} = {}", key_text(key), json_as_toml(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A value as TOML on one line; `instead` may say what stands for a value that is neither list nor section.
fn toml_of(value: &Spanned<DeValue<'_>>, instead: &mut dyn FnMut(&Spanned<DeValue<'_>>) -> Option<String>) -> String {
    match value.get_ref() {
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| toml_of(item, instead)).collect::<Vec<_>>().join(", "))
        }
        DeValue::Table(table) => {
            let keys =
                table.iter().map(|(key, item)| format!("{} = {}", key_text(key.get_ref()), toml_of(item, instead)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        scalar => instead(value).unwrap_or_else(|| match scalar {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string()),
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) | DeValue::Table(_) => String::new(),
        }),
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A key, in quotes where it needs them.
pub(super) fn key_text(key: &str) -> String {
    let is_bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_bare { key.to_owned() } else { quoted(key) }
}

/// Sections without which there is nothing of theirs.
pub(super) const JOBS: [&str; 3] = ["dns", "https", "tunnel"];

/// Keys whose values are URLs that may have a password.
const URLS: [&str; 3] = ["address", "through", "proxy"];
