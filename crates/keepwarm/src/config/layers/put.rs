//! The value of a variable or flag: from text to what TOML would have, and into the tree.
//!
//! In a file quotes tell a text from a number; a shell takes them away. So the key says what is meant: where it wants a text, the
//! text is taken as it is; where it wants a number, TOML reads it.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::config::{fault::Fault, shape::Kind};

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a section.
    Key(String),
    /// An entry of a list, from 0.
    Entry(usize),
}

/// What a text means where a value of this kind is wanted.
///
/// # Errors
/// A list or section in TOML that is none.
pub(super) fn interpret<'t>(text: &'t str, start: usize, kind: Kind) -> Result<Spanned<DeValue<'t>>, Box<Fault>> {
    let trimmed = text.trim();
    let start_of_trimmed = start + (text.len() - text.trim_start().len());
    let whole = || Spanned::new(start..start + text.len(), DeValue::String(Cow::Borrowed(text)));
    let toml = || parse(trimmed, start_of_trimmed);
    match kind {
        Kind::Text if trimmed.starts_with(['"', '\'', '{']) => Ok(toml().unwrap_or_else(|_| whole())),
        Kind::Text => Ok(whole()),
        // What is no number is told by the reader, who knows which one is wanted.
        Kind::Bare => Ok(toml().ok().filter(|value| is_bare(value.get_ref())).unwrap_or_else(whole)),
        Kind::Texts | Kind::Several if is_list(trimmed) => toml(),
        Kind::Texts => Ok(texts(trimmed, start_of_trimmed)),
        Kind::Several if trimmed.is_empty() || trimmed.contains(',') => Ok(texts(trimmed, start_of_trimmed)),
        Kind::Several => interpret(text, start, Kind::Text),
        Kind::Entries | Kind::Section | Kind::Free | Kind::Switch => match trimmed.chars().next() {
            Some('[' | '{') => toml(),
            _ if kind == Kind::Switch => interpret(text, start, Kind::Bare),
            _ => Ok(whole()),
        },
    }
}

/// Sets a value, making the sections on the way to it. What is in the way, such as a number where a section belongs, is left as it
/// is: reading it is a fault of its own.
pub(super) fn put<'t>(table: &mut DeTable<'t>, steps: &[Step], value: Spanned<DeValue<'t>>, key: &Range<usize>) {
    let (Some(Step::Key(name)), rest) = (steps.first(), steps.get(1..).unwrap_or_default()) else { return };
    if rest.is_empty() {
        table.remove(name.as_str());
        table.insert(Spanned::new(key.clone(), DeString::Owned(name.clone())), value);
        return;
    }
    // A switch that is on gets keys.
    let is_switch = table.get(name.as_str()).is_some_and(|value| value.get_ref().is_bool());
    if is_switch || !table.contains_key(name.as_str()) {
        table.remove(name.as_str());
        let section = Spanned::new(key.clone(), DeValue::Table(DeTable::new()));
        table.insert(Spanned::new(key.clone(), DeString::Owned(name.clone())), section);
    }
    match (table.get_mut(name.as_str()).map(Spanned::get_mut), rest) {
        (Some(DeValue::Table(section)), _) => put(section, rest, value, key),
        (Some(DeValue::Array(entries)), [Step::Entry(index), rest @ ..]) => {
            if let Some(DeValue::Table(entry)) = entries.get_mut(*index).map(Spanned::get_mut) {
                put(entry, rest, value, key);
            }
        }
        _ => {}
    }
}

/// An IPv6 address begins like a list.
fn is_list(text: &str) -> bool {
    let inside = text.strip_prefix('[').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with(['"', '\'', ']', '#']))
}

fn is_bare(value: &DeValue<'_>) -> bool {
    value.is_bool() || value.is_integer() || value.is_float()
}

fn texts(text: &str, start: usize) -> Spanned<DeValue<'_>> {
    let mut at = start;
    let mut items = toml::de::DeArray::new();
    for item in text.split(',').filter(|_| !text.is_empty()) {
        let trimmed = item.trim();
        let from = at + (item.len() - item.trim_start().len());
        items.push(Spanned::new(from..from + trimmed.len(), DeValue::String(Cow::Borrowed(trimmed))));
        at += item.len() + 1;
    }
    Spanned::new(start..start + text.len(), DeValue::Array(items))
}

fn parse(text: &str, start: usize) -> Result<Spanned<DeValue<'_>>, Box<Fault>> {
    let (mut value, errors) = DeValue::parse_recoverable(text);
    if let Some(error) = errors.into_iter().next() {
        let span = error.span().unwrap_or(0..0);
        let title = format!("not TOML: {}", error.message());
        return Err(Box::new(Fault::error(start + span.start..start + span.end, title)));
    }
    shift(&mut value, start);
    Ok(value)
}

/// Moves every place in a value to where it is in the whole text.
fn shift(value: &mut Spanned<DeValue<'_>>, by: usize) {
    let span = value.span();
    let mut inner = std::mem::replace(value.get_mut(), DeValue::Boolean(false));
    match &mut inner {
        DeValue::Array(items) => items.iter_mut().for_each(|item| shift(item, by)),
        DeValue::Table(table) => {
            for (key, mut item) in std::mem::take(table) {
                shift(&mut item, by);
                let span = key.span();
                table.insert(Spanned::new(span.start + by..span.end + by, key.into_inner()), item);
            }
        }
        _ => {}
    }
    *value = Spanned::new(span.start + by..span.end + by, inner);
}
