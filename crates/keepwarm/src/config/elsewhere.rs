//! Where each key lives: for messages about a key in the wrong section.

use super::spec;

/// The other sections of this version that have a key of this name; where some are below the same first word as `path`, those.
pub(super) fn sections_with(key: &str, path: &str) -> Vec<&'static str> {
    let first = |section: &str| section.split('.').next().unwrap_or_default().to_owned();
    let with = spec::SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(section, _)| *section);
    let all: Vec<_> = with.filter(|section| *section != path).collect();
    let near: Vec<_> = all.iter().copied().filter(|section| first(section) == first(path)).collect();
    if near.is_empty() { all } else { near }
}
