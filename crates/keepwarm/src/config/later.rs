//! Keys that other versions know, and where each key of this version lives: for messages only.
//!
//! A file written for a later version is refused with a reason rather than with "unknown key".

use super::spec;

/// What a key of a later version is for; `None` for keys that no version knows.
pub(super) fn purpose(path: &str) -> Option<&'static str> {
    LATER.iter().find(|(known, _)| *known == path).map(|(_, purpose)| *purpose)
}

const LATER: [(&str, &str); 2] = [
    ("control.token_file", "a token for listeners beyond loopback"),
    ("control.watch", "reload when the file changes"),
];

/// The other sections of this version that have a key of this name; where some are below the same first word as `path`, those.
pub(super) fn sections_with(key: &str, path: &str) -> Vec<&'static str> {
    let first = |section: &str| section.split('.').next().unwrap_or_default().to_owned();
    let with = spec::SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(section, _)| *section);
    let all: Vec<_> = with.filter(|section| *section != path).collect();
    let near: Vec<_> = all.iter().copied().filter(|section| first(section) == first(path)).collect();
    if near.is_empty() { all } else { near }
}
