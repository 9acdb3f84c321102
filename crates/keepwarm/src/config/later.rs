//! Keys that other versions know, and where each key of this version lives: for messages only.
//!
//! A file written for a later version is refused with a reason rather than with "unknown key".

use super::spec;

/// What a key of a later version is for; `None` for keys that no version knows.
pub(super) fn purpose(path: &str) -> Option<&'static str> {
    LATER.iter().find(|(known, _)| *known == path).map(|(_, purpose)| *purpose)
}

/// The strategies of later versions.
pub(super) const STRATEGIES: [&str; 4] = ["random", "least-loaded", "fastest", "hedged"];

const LATER: [(&str, &str); 9] = [
    ("https", "hot HTTPS connections and the HTTP gateway"),
    ("tunnel", "SOCKS5 and HTTP proxies"),
    ("dns.tls", "the certificate for encrypted listeners"),
    ("dns.upstream.weight", "shares of the queries for upstreams"),
    ("dns.upstream.ech", "encrypted client hello"),
    ("dns.upstream.cookies", "DNS cookies (RFC 7873)"),
    ("dns.upstream.padding", "padding of encrypted queries (RFC 8467)"),
    ("control.token_file", "a token for listeners beyond loopback"),
    ("control.watch", "reload when the file changes"),
];

/// The sections of this version that have a key of this name.
pub(super) fn sections_with(key: &str) -> impl Iterator<Item = &'static str> {
    spec::SECTIONS.iter().filter(move |(_, keys)| keys.contains(&key)).map(|(section, _)| *section)
}
