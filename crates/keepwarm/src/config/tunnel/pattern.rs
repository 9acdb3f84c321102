//! The patterns of a rule: which hosts, and which of their ports.

use std::{fmt::Write as _, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use keepwarm_tunnel::config::{HostMatch, Match};

use super::{refuse, split_port};
use crate::config::{
    address::{host_problem, parse_network, parse_port},
    words::WordsError,
};

const FORMS: &str = "\"*\", a name such as \"db.example.com\", \".example.com\" (the name and all below it), \"*.example.com\" (all below it), an IP or a network such as \"10.0.0.0/8\"; each with an optional port: \"*:25\", \"db.example.com:5432\", \"10.0.0.0/8:8000-8999\", \"[2001:db8::/32]:443\"";

/// Reads `HOST`, `HOST:PORT` or `HOST:FROM-TO`.
pub(in crate::config) fn parse_pattern(text: &str) -> Result<Match, WordsError> {
    if text.contains('@') {
        return Err(refuse("names a user, and a rule is about hosts", FORMS));
    }
    if text.contains("://") {
        return Err(refuse("is a URL, and a rule is about hosts and ports", FORMS));
    }
    // A network of IPv6 addresses without a port has colons of its own.
    if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Ok(Match { host: HostMatch::net(parse_network(text)?), ports: None });
    }
    let (host, ports) = split_port(text, FORMS)?;
    Ok(Match { host: parse_host(host)?, ports: ports.map(parse_ports).transpose()? })
}

fn parse_host(host: &str) -> Result<HostMatch, WordsError> {
    if host == "*" {
        return Ok(HostMatch::Any);
    }
    if host.contains('/') || host.parse::<IpAddr>().is_ok() {
        return parse_network(host).map(HostMatch::net);
    }
    let (name, make): (_, fn(String) -> HostMatch) = match (host.strip_prefix("*."), host.strip_prefix('.')) {
        (Some(name), _) => (name, HostMatch::Below),
        (_, Some(name)) => (name, HostMatch::Suffix),
        _ => (host, HostMatch::Name),
    };
    if name.contains('*') {
        return Err(refuse("has a `*` that neither stands alone nor before the first dot", FORMS));
    }
    if !name.is_ascii() {
        return Err(refuse("has letters beyond ASCII", "the name as DNS has it, such as \"xn--bcher-kva.example\""));
    }
    match host_problem(name) {
        Some(problem) => Err(refuse(problem, FORMS)),
        None => Ok(make(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())),
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, WordsError> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (parse_port(from)?, parse_port(to)?);
    match from <= to {
        true => Ok(from..=to),
        false => Err(refuse(format!("has the ports {from}-{to}"), format!("write {to}-{from}, the smaller one first"))),
    }
}

/// The pattern as it would be written.
pub(crate) fn show_pattern(pattern: &Match) -> String {
    let mut shown = match &pattern.host {
        HostMatch::Any => "*".to_owned(),
        HostMatch::Name(name) => name.clone(),
        HostMatch::Suffix(name) => format!(".{name}"),
        HostMatch::Below(name) => format!("*.{name}"),
        HostMatch::Net(net) => {
            let is_host = net.prefix_len() == net.max_prefix_len();
            let net = if is_host { net.addr().to_string() } else { net.to_string() };
            if pattern.ports.is_some() && net.contains(':') { format!("[{net}]") } else { net }
        }
    };
    if let Some(ports) = &pattern.ports {
        let _ = write!(shown, ":{}", ports.start());
        if ports.end() > ports.start() {
            let _ = write!(shown, "-{}", ports.end());
        }
    }
    shown
}

/// Whether every destination that `other` matches is matched by `one`.
pub(in crate::config) fn covers(one: &Match, other: &Match) -> bool {
    let ports = match (&one.ports, &other.ports) {
        (None, _) => true,
        (Some(one), Some(other)) => one.contains(other.start()) && one.contains(other.end()),
        (Some(one), None) => *one.start() <= 1 && *one.end() == u16::MAX,
    };
    ports
        && match (&one.host, &other.host) {
            (HostMatch::Any, _) => true,
            (HostMatch::Net(one), HostMatch::Net(other)) => one.contains(other),
            (HostMatch::Name(one), HostMatch::Name(other)) => one == other,
            (HostMatch::Suffix(one), HostMatch::Name(other) | HostMatch::Suffix(other) | HostMatch::Below(other)) => {
                one == other || is_below(other, one)
            }
            (HostMatch::Below(one), HostMatch::Name(other) | HostMatch::Suffix(other)) => is_below(other, one),
            (HostMatch::Below(one), HostMatch::Below(other)) => one == other || is_below(other, one),
            _ => false,
        }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}
