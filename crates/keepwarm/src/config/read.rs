//! From the parsed TOML tree to a `Spec`, noting every fault on the way instead of stopping at the first.
//!
//! serde's derive would end at the first wrong type or unknown key, so sections are read by the [`section!`] macro: one
//! declaration gives the struct, the list of known keys, the reader and the JSON Schema, and they cannot drift apart.

use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::{DeTable, DeValue};

use super::{
    elsewhere,
    fault::{Fault, Faults},
    secret,
};

mod shapes;

pub(super) use shapes::{Several, Switch};

/// A value and the place where the file says it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A list of which each item knows its place.
pub(super) type List<T> = Vec<At<T>>;

/// A single value as a file writes it.
pub(super) trait Value: Sized {
    /// Reads it, or says what is wrong (the end of "`key` ...") and what would be accepted.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refusal>;

    /// What a JSON Schema says of it.
    fn schema() -> Schema;
}

/// Why a value is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problem: String,
    pub(super) label: String,
    pub(super) accepted: String,
}

impl Refusal {
    /// The value has another type than the key.
    pub(super) fn kind(value: &DeValue<'_>, wanted: &str, accepted: impl Into<String>) -> Refusal {
        let found = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a bare number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        Refusal { problem: format!("must be {wanted}"), label: format!("this is {found}"), accepted: accepted.into() }
    }

    /// The fault of the key at `path`.
    pub(super) fn fault(self, path: &str, span: Range<usize>) -> Fault {
        let Refusal { problem, label, accepted } = self;
        let help = if accepted.starts_with("write ") { accepted } else { format!("accepted: {accepted}") };
        Fault::error(span, format!("`{path}` {problem}")).label(label).help(help)
    }
}

/// What stands behind a key: a value, a list, or a section.
pub(super) trait Read: Sized {
    /// A list of it is written as sections with a header each.
    const IS_SECTION: bool = false;

    /// Reads it; `None` when a fault was noted instead.
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self>;

    /// What a JSON Schema says of it.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// A section that was read.
pub(super) trait Section {
    /// Whether the file has the key, even with a value that was refused: such a key is not missing.
    fn has(&self, key: &str) -> bool;

    /// Whether the file has the key with a value that was refused: no limit to hold others against.
    fn refused<T>(&self, key: &str, at: Option<&At<T>>) -> bool {
        at.is_none() && self.has(key)
    }
}

impl<T: Value> Read for T {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        match T::from_toml(value.get_ref()) {
            Ok(read) => Some(read),
            Err(refusal) => {
                faults.push(refusal.fault(path, value.span()));
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        <T as Value>::schema()
    }
}

impl<T: Read> Read for List<T> {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            let refusal = Refusal::kind(value.get_ref(), "a list", "");
            let help = match T::IS_SECTION {
                true => format!("accepted: sections headed [[{path}]]"),
                false => "accepted: values in square brackets, such as [\"...\", \"...\"]".to_owned(),
            };
            faults.push(
                Fault::error(value.span(), format!("`{path}` {}", refusal.problem)).label(refusal.label).help(help),
            );
            return None;
        };
        // A faulty item leaves the list with what remains, so that the checks across keys still see the others; the
        // fault itself already refuses the file.
        Some(
            items
                .iter()
                .filter_map(|item| T::read(faults, path, item).map(|value| At { value, span: item.span() }))
                .collect(),
        )
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }
}

impl<T: Read> JsonSchema for At<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "value".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// Reads one key of a table.
pub(super) fn key<T: Read>(faults: &mut Faults, path: &str, key: &str, table: &DeTable<'_>) -> Option<At<T>> {
    let value = table.get(key)?;
    let span = value.span();
    T::read(faults, &join(path, key), value).map(|value| At { value, span })
}

/// Notes each key of a table that is not among `known`.
pub(super) fn unknown_keys(faults: &mut Faults, path: &str, known: &[&str], table: &DeTable<'_>) {
    for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
        // A key that is not known may have been meant for one that holds a password.
        secret::conceal_unknown(faults, path, key.get_ref(), value);
        faults.push(unknown_key(path, key.get_ref(), key.span(), known));
    }
}

fn unknown_key(path: &str, key: &str, span: Range<usize>, known: &[&str]) -> Fault {
    let full = join(path, key);
    let place = if path.is_empty() { "at the top of the file".to_owned() } else { format!("in [{path}]") };
    let fault = Fault::error(span, format!("unknown key `{full}`"));
    if let Some(nearest) = nearest(key, known.iter().copied()) {
        return fault.label(format!("did you mean `{nearest}`?")).help(format!("known {place}: {}", known.join(", ")));
    }
    // The right key in the wrong section is the other common slip.
    match elsewhere::sections_with(key, path).as_slice() {
        [] => fault.help(format!("known {place}: {}", known.join(", "))),
        sections => fault
            .label(format!("belongs in [{}]", sections.join("] or [")))
            .help(format!("known {place}: {}", known.join(", "))),
    }
}

/// The candidate that a mistyped word most likely meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = normal(word);
    candidates
        .map(|candidate| {
            let edits = strsim::damerau_levenshtein(&word, &normal(candidate));
            let similarity = strsim::jaro_winkler(&word, &normal(candidate));
            (edits, similarity, candidate)
        })
        // Jaro-Winkler sees no swapped letters in short words, and edits alone see no common beginning.
        .filter(|(edits, similarity, candidate)| *edits <= (candidate.len() / 3).max(1) || *similarity >= 0.85)
        .min_by(|left, right| left.0.cmp(&right.0).then(right.1.total_cmp(&left.1)))
        .map(|(_, _, candidate)| candidate)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The name of a key, which is a raw identifier where Rust has that word for itself.
pub(super) const fn plain(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', ..] => identifier.split_at(2).1,
        _ => identifier,
    }
}

/// Declares a section: struct, known keys, reader and schema at once. Each key is optional in the struct; what is
/// required is a matter of the checks that follow.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $key:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(in crate::config) struct $name {
            $($(#[$doc])* pub(in crate::config) $key: Option<$crate::config::read::At<$kind>>,)*
            /// The keys that the file has, readable or not.
            #[schemars(skip)]
            present: Vec<&'static str>,
        }

        impl $name {
            /// The keys of this section.
            pub(in crate::config) const KEYS: &'static [&'static str] =
                &[$($crate::config::read::plain(stringify!($key))),*];

            /// Reads the section from its table.
            pub(in crate::config) fn from_table(
                faults: &mut $crate::config::fault::Faults,
                path: &str,
                table: &toml::de::DeTable<'_>,
            ) -> Self {
                $crate::config::read::unknown_keys(faults, path, Self::KEYS, table);
                Self {
                    $($key: $crate::config::read::key(faults, path, const { $crate::config::read::plain(stringify!($key)) }, table),)*
                    present: Self::KEYS.iter().copied().filter(|key| table.contains_key(*key)).collect(),
                }
            }
        }

        impl $crate::config::read::Section for $name {
            fn has(&self, key: &str) -> bool {
                self.present.contains(&key)
            }
        }

        impl $crate::config::read::Read for $name {
            const IS_SECTION: bool = true;

            fn read(
                faults: &mut $crate::config::fault::Faults,
                path: &str,
                value: &toml::Spanned<toml::de::DeValue<'_>>,
            ) -> Option<Self> {
                if let toml::de::DeValue::Table(table) = value.get_ref() {
                    return Some(Self::from_table(faults, path, table));
                }
                let title = format!("`{path}` must be a section");
                let help = format!("accepted: [{path}] with the keys {}", Self::KEYS.join(", "));
                faults.push($crate::config::fault::Fault::error(value.span(), title).help(help));
                None
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <Self as schemars::JsonSchema>::json_schema(generator)
            }
        }
    };
}
pub(super) use section;
