//! Two clients field by field: are they told apart by what they send?
//!
//! A field is equal when each value that the candidate had was seen of the reference too: what the browser itself varies is
//! compared with all its samples. The order of extensions is no value where both draw it anew for each connection.

use serde::Serialize;
use serde_json::Value;

use super::{
    capture::Captures,
    fields::{EXTENSION_ORDER, Fields, is_of_request},
};

/// One field of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDiff {
    /// Its name; `resumed:` before it where it is of hellos that resume a session.
    pub field: String,
    /// Values of the reference; none where it has no such field.
    pub reference: Vec<Value>,
    /// Values of the candidate.
    pub candidate: Vec<Value>,
    /// Whether the candidate cannot be told from the reference by it.
    pub equal: bool,
}

/// Compares captures: full hellos and, where both have some, those that resume. Of the latter what a request says is left out: it is
/// no other after a resumption, and only navigations are full.
pub fn diff(reference: &Captures, candidate: &Captures) -> Vec<FieldDiff> {
    let full = reference.fields().zip(candidate.fields());
    let mut diffs = full.map(|(reference, candidate)| diff_fields(&reference, &candidate)).unwrap_or_default();
    if let Some((reference, candidate)) = reference.resuming_fields().zip(candidate.resuming_fields()) {
        let resumed = diff_fields(&reference, &candidate).into_iter().filter(|diff| !is_of_request(&diff.field));
        diffs.extend(resumed.map(|diff| FieldDiff { field: format!("resumed:{}", diff.field), ..diff }));
    }
    diffs
}

/// Compares fields. What a profile does not decide is left out where one of them is a profile; between captures it differs.
pub fn diff_fields(reference: &Fields, candidate: &Fields) -> Vec<FieldDiff> {
    let is_rule = reference.samples == 0 || candidate.samples == 0;
    let compared = reference.names().filter(|name| !is_rule || candidate.texts(name).is_some());
    compared
        .map(|name| FieldDiff {
            field: name.to_owned(),
            reference: reference.values(name),
            candidate: candidate.values(name),
            equal: is_equal(name, reference, candidate),
        })
        .collect()
}

fn is_equal(name: &str, reference: &Fields, candidate: &Fields) -> bool {
    let is_subset = match (reference.texts(name), candidate.texts(name)) {
        (Some(known), Some(seen)) => seen.is_subset(known),
        _ => false,
    };
    match (name, reference.permutes, candidate.permutes) {
        // One sample cannot tell whether its order was drawn.
        (EXTENSION_ORDER, Some(true), Some(true) | None) | (EXTENSION_ORDER, None, Some(true)) => true,
        (EXTENSION_ORDER, Some(one), Some(other)) => one == other && is_subset,
        _ => is_subset,
    }
}

#[cfg(test)]
mod tests;
