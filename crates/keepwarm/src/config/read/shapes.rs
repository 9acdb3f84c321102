//! Keys with more than one shape: one value or a list of them, a switch or a section.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{At, List, Read, Refusal};
use crate::config::fault::{Fault, Faults};

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Several<T>(pub(in crate::config) List<T>);

/// `true`, `false`, or a section.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) enum Switch<T> {
    /// `false`.
    Off,
    /// `true`: every default.
    On,
    /// The section.
    With(T),
}

impl<T> Switch<T> {
    /// The section; that of `true` is empty.
    pub(in crate::config) fn section(self) -> Option<T>
    where
        T: Default,
    {
        match self {
            Switch::Off => None,
            Switch::On => Some(T::default()),
            Switch::With(section) => Some(section),
        }
    }
}

impl<T: Read> Read for Several<T> {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        if value.get_ref().is_array() {
            return List::read(faults, path, value).map(Several);
        }
        let only = T::read(faults, path, value)?;
        Some(Several(vec![At { value: only, span: value.span() }]))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let item = T::schema(generator);
        let mut schema = item.clone();
        schema.insert("type".into(), serde_json::json!([item.get("type"), "array"]));
        schema.insert("items".into(), item.to_value());
        schema
    }
}

impl<T: Read> Read for Switch<T> {
    fn read(faults: &mut Faults, path: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(false) => Some(Switch::Off),
            DeValue::Boolean(true) => Some(Switch::On),
            DeValue::Table(_) => T::read(faults, path, value).map(Switch::With),
            other => {
                let Refusal { problem, label, .. } = Refusal::kind(other, "true, false or a section", "");
                let help = format!("accepted: true or false, or a section [{path}]");
                faults.push(Fault::error(value.span(), format!("`{path}` {problem}")).label(label).help(help));
                None
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let section = T::schema(generator);
        let mut schema = json_schema!({ "type": ["boolean", "object"] });
        for (key, value) in section.as_object().into_iter().flatten().filter(|(key, _)| *key != "type") {
            schema.insert(key.clone(), value.clone());
        }
        schema
    }
}
