//! Keys that other versions know, and where each key of this version lives: for messages only.
//!
//! A file written for a later version is refused with a reason rather than with "unknown key".

use super::spec;

/// What a key of a later version is for; `None` for keys that no version knows.
pub(super) fn purpose(path: &str) -> Option<&'static str> {
    LATER.iter().find(|(known, _)| *known == path).map(|(_, purpose)| *purpose)
}

const LATER: [(&str, &str); 4] = [
    ("https", "hot HTTPS connections and the HTTP gateway"),
    ("tunnel", "SOCKS5 and HTTP proxies"),
    ("control.token_file", "a token for listeners beyond loopback"),
    ("control.watch", "reload when the file changes"),
];

/// The sections of this version that have a key of this name.
pub(super) fn sections_with(key: &str) -> impl Iterator<Item = &'static str> {
    spec::SECTIONS.iter().filter(move |(_, keys)| keys.contains(&key)).map(|(section, _)| *section)
}
