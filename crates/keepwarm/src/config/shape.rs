//! What may stand behind each key, and its default: the JSON Schema, asked from inside.
//!
//! The schema is made from the section declarations, so what a variable, a flag or `config show` knows of a key is what the
//! reader of the file knows.

use std::sync::LazyLock;

use serde_json::Value;
use toml::de::DeTable;

use super::{example, spec};

/// What stands behind a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    schema: &'static Value,
    /// Where the same keys are described with their defaults.
    defaults: &'static Value,
}

/// The kinds of values, as far as a text without TOML's quotes can mean different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text; durations and sizes are texts.
    Text,
    /// A number, `true` or `false`.
    Bare,
    /// A list of texts.
    Texts,
    /// A text, or a list of them.
    Several,
    /// Entries with keys.
    Entries,
    /// Keys of the format.
    Section,
    /// Keys of the author's choice.
    Free,
    /// `true`, `false` or keys.
    Switch,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(example::schema);

impl Shape {
    /// The whole config.
    pub(super) fn root() -> Shape {
        Shape { schema: &SCHEMA, defaults: &SCHEMA }
    }

    pub(super) fn kind(self) -> Kind {
        match &self.schema["type"] {
            Value::Array(kinds) if kinds.iter().any(|kind| kind == "object") => Kind::Switch,
            Value::Array(_) => Kind::Several,
            kind if kind == "array" && self.schema["items"]["properties"].is_object() => Kind::Entries,
            kind if kind == "array" => Kind::Texts,
            kind if kind == "object" && self.schema["properties"].is_object() => Kind::Section,
            kind if kind == "object" => Kind::Free,
            // A user's password is a text or names a file.
            kind if kind == "string" || kind.is_null() => Kind::Text,
            _ => Kind::Bare,
        }
    }

    /// What stands behind a key of this section, or of this switch's.
    pub(super) fn key(self, key: &str) -> Option<Shape> {
        if self.kind() == Kind::Free {
            return Some(Shape { schema: &self.schema["additionalProperties"], defaults: &Value::Null });
        }
        let schema = self.schema["properties"].get(key)?;
        let defaults = &self.defaults["properties"][key];
        // `any_host` has the keys of an origin, and what they default to is said there.
        let defaults = if key == ANY_HOST { &self.schema["properties"]["origin"]["items"] } else { defaults };
        Some(Shape { schema, defaults })
    }

    /// An entry of this list.
    pub(super) fn entry(self) -> Shape {
        Shape { schema: &self.schema["items"], defaults: &self.defaults["items"] }
    }

    /// The keys of the section at `path`, in the order in which they are declared.
    pub(super) fn keys(self, path: &[&str]) -> Vec<&'static str> {
        let Some(properties) = self.schema["properties"].as_object() else { return Vec::new() };
        let mut keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        let path = path.join(".").replace("https.any_host", "https.origin");
        let declared = spec::SECTIONS.iter().find(|(section, _)| *section == path).map_or(&[][..], |(_, keys)| *keys);
        keys.sort_by_key(|key| declared.iter().position(|declared| declared == key));
        keys
    }

    /// What holds without this key.
    pub(super) fn default(self) -> Option<&'static Value> {
        self.schema.get("default").or_else(|| self.defaults.get("default"))
    }
}

/// The key by which entries of lists are told apart: the first of these that they have.
pub(super) const IDENTITIES: [&str; 4] = ["name", "host", "match", "statuses"];

/// The keys that are names: variables can tell them.
pub(super) const NAMES: [&str; 2] = ["name", "host"];

/// What an entry of a list is called: the value of its key `name` or `host`; else of what it is about. `None` where it has none of these.
pub(super) fn identity(entry: &DeTable<'_>) -> Option<(&'static str, String)> {
    IDENTITIES.iter().find_map(|key| {
        let value = entry.get(*key)?.get_ref();
        let text = |value: &toml::de::DeValue<'_>| value.as_str().map(str::to_owned);
        let id = text(value).or_else(|| {
            Some(value.as_array()?.iter().filter_map(|item| text(item.get_ref())).collect::<Vec<_>>().join(","))
        })?;
        Some((*key, id))
    })
}

const ANY_HOST: &str = "any_host";

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(path: &str) -> Kind {
        let shape = path.split('.').fold(Shape::root(), |shape, key| match shape.kind() {
            Kind::Entries => shape.entry().key(key).unwrap(),
            _ => shape.key(key).unwrap(),
        });
        shape.kind()
    }

    #[test]
    fn each_kind_of_value_is_known_by_its_schema() {
        for (path, expected) in [
            ("dns.timeout", Kind::Text),
            ("dns.rate_limit", Kind::Bare),
            ("dns.breaker.failure_ratio", Kind::Bare),
            ("dns.upstream.padding", Kind::Bare),
            ("dns.listen", Kind::Texts),
            ("https.gateway", Kind::Several),
            ("dns.upstream", Kind::Entries),
            ("https.origin.verdicts", Kind::Entries),
            ("dns.pool", Kind::Section),
            ("tunnel.users", Kind::Free),
            ("tunnel.users.ann", Kind::Text),
            ("https.any_host", Kind::Switch),
            ("https.any_host.validate", Kind::Switch),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn any_host_has_the_defaults_of_an_origin() {
        let any_host = Shape::root().key("https").unwrap().key("any_host").unwrap();
        assert_eq!(any_host.key("tries").unwrap().default().unwrap(), 3);
        assert_eq!(any_host.default().unwrap(), false);
        assert!(any_host.key("warm").is_none());
    }

    #[test]
    fn no_key_has_what_parts_the_levels_of_a_variable() {
        for (_, keys) in spec::SECTIONS {
            assert!(keys.iter().all(|key| !key.contains("__") && !key.ends_with('_') && key.is_ascii()), "{keys:?}");
        }
    }
}
