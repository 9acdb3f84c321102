//! Upstreams as dnsproxy and cloudflared write them: URLs, bare addresses and DNS stamps.

use std::net::{IpAddr, SocketAddr};

use super::{
    draft::{Draft, Upstream},
    stamp,
};
use crate::config::{address::parse_upstream, name::parse_suffix};

/// Reads one upstream; `None` when it cannot be carried over, which is noted.
pub(super) fn read(draft: &mut Draft, place: &str, text: &str) -> Option<Upstream> {
    if text.starts_with("sdns://") {
        return read_stamp(draft, place, text);
    }
    let url = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None => plain_url(text),
    };
    match parse_upstream(&url) {
        Ok(address) => Some(Upstream::new(address)),
        Err(error) => {
            draft.lost(place, format!("\"{text}\" {}; accepted: {}", error.problem, error.accepted));
            None
        }
    }
}

/// A bare address is plain DNS; an IPv6 address may lack its brackets.
fn plain_url(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("udp://[{ip}]"),
        _ => format!("udp://{text}"),
    }
}

fn read_stamp(draft: &mut Draft, place: &str, text: &str) -> Option<Upstream> {
    let read = stamp::parse(text).and_then(|stamp| {
        Ok((parse_upstream(&stamp.url).map_err(|error| format!("says {}, which {}", stamp.url, error.problem))?, stamp))
    });
    match read {
        Ok((address, stamp)) => {
            if stamp.has_pins {
                draft.changed(
                    place,
                    "the stamp pins certificates; keepwarm verifies them against the trusted roots instead",
                );
            }
            let fixed = stamp.address.filter(|_| address.ip().is_none());
            Some(Upstream { addresses: fixed.into_iter().collect(), ..Upstream::new(address) })
        }
        Err(problem) => {
            draft.lost(place, format!("the stamp {problem}; name the resolver by its URL"));
            None
        }
    }
}

/// Adds a bootstrap resolver: plain DNS at an IP, whatever the other program calls it.
pub(super) fn bootstrap(draft: &mut Draft, place: &str, text: &str) {
    let bare = text.strip_prefix("udp://").or_else(|| text.strip_prefix("tcp://")).unwrap_or(text);
    let address = bare.parse::<SocketAddr>().map(|address| (address.ip(), address.port()));
    let address = address.or_else(|_| bare.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| (ip, 53)));
    match address {
        Ok((ip, port)) => {
            let shown = if port == 53 { ip.to_string() } else { SocketAddr::new(ip, port).to_string() };
            draft.push("dns", "bootstrap", shown);
            if text.starts_with("tcp://") {
                draft.changed(place, "bootstrap resolvers are asked over UDP first here");
            }
        }
        Err(_) => draft.lost(
            place,
            "bootstrap resolvers are plain DNS at an IP here; name one in `bootstrap` of [dns], or give upstreams fixed IPs in `addresses`",
        ),
    }
}

/// The suffix that a domain of another program stands for, where keepwarm's meaning is at most wider; says so if it is.
pub(super) fn suffix(draft: &mut Draft, place: &str, domain: &str) -> String {
    let Some(below) = domain.strip_prefix("*.") else {
        return domain.to_owned();
    };
    if parse_suffix(below).is_ok() {
        draft.changed(
            place,
            format!("\"{domain}\" is the names below {below} there; here {below} itself goes the same way"),
        );
    }
    below.to_owned()
}

/// Reads a duration of Go: `10s`, `1m30s`, `1h`, `500ms`.
pub(super) fn go_duration(text: &str) -> Option<std::time::Duration> {
    let tidy: String = ["0h", "0m", "0s"].iter().fold(text.to_owned(), |text, zero| {
        // Go prints `1m0s`, whose zero says nothing.
        match text.strip_suffix(zero) {
            Some(rest) if rest.ends_with(|last: char| last.is_ascii_alphabetic()) => rest.to_owned(),
            _ => text,
        }
    });
    crate::config::words::parse_duration(&tidy).ok()
}
