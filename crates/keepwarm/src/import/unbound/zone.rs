//! A `forward-zone`: its name, where it goes and how.

use std::net::IpAddr;

use keepwarm_dns::config::{DEFAULT_GROUP, Transport};

use crate::{
    config::address::{UpstreamAddress, parse_host},
    import::draft::{Draft, Upstream, group_name},
};

/// A zone as far as it was read.
pub(super) struct Zone {
    place: String,
    name: Option<String>,
    targets: Vec<(String, Target)>,
    tls: Option<bool>,
    tcp: Option<bool>,
}

enum Target {
    /// An IP with an optional port and TLS name.
    Address(IpAddr, Option<u16>, Option<String>),
    /// A host name with an optional port and TLS name.
    Host(String, Option<u16>, Option<String>),
}

impl Zone {
    pub(super) fn new(place: String) -> Zone {
        Zone { place, name: None, targets: Vec::new(), tls: None, tcp: None }
    }

    pub(super) fn is_root(&self) -> bool {
        self.name.as_deref() == Some(".") && !self.targets.is_empty()
    }

    /// Reads a key of the zone.
    pub(super) fn key(&mut self, draft: &mut Draft, place: &str, key: &str, value: &str) {
        let is_on = value == "yes";
        match key {
            "name" => self.name = Some(value.to_owned()),
            "forward-addr" | "forward-host" => match target(value, key == "forward-addr") {
                Some(target) => self.targets.push((place.to_owned(), target)),
                None => {
                    draft.lost(place, "is no address such as 9.9.9.9@853#dns.quad9.net; add it as a [[dns.upstream]]");
                }
            },
            "forward-tls-upstream" | "forward-ssl-upstream" => self.tls = Some(is_on),
            "forward-tcp-upstream" => self.tcp = Some(is_on),
            "forward-first" if is_on => draft.lost(
                place,
                "keepwarm does not recurse where the forwarders fail; name others in a group for `fallback` in [dns]",
            ),
            "forward-no-cache" if is_on => {
                draft.lost(place, "every answer may be kept here; `max_ttl` in [dns.cache] limits for how long");
            }
            "forward-first" | "forward-no-cache" => {}
            _ => draft.lost(place, "not known to this importer"),
        }
    }

    /// Makes upstreams of the targets, and a route of the name.
    pub(super) fn finish(&self, draft: &mut Draft, tls_by_default: bool, tcp_by_default: bool) {
        let Some(name) = &self.name else {
            return draft.lost(&self.place, "the zone has no name");
        };
        let group = if name == "." { DEFAULT_GROUP.to_owned() } else { group_name(name.trim_end_matches('.')) };
        let transport = match (self.tls.unwrap_or(tls_by_default), self.tcp.unwrap_or(tcp_by_default)) {
            (true, _) => Transport::Tls,
            (false, true) => Transport::Tcp,
            (false, false) => Transport::Udp,
        };
        for (place, target) in &self.targets {
            if let Some(upstream) = upstream(draft, place, target, transport) {
                draft.upstream(upstream.in_group(&group));
            }
        }
        if self.targets.is_empty() {
            draft.lost(
                &self.place,
                format!("the zone {name} names no server, so unbound recurses for it; it is asked as all other names"),
            );
        } else if name != "." {
            draft.route(&self.place, name, &group);
        }
    }
}

fn upstream(draft: &mut Draft, place: &str, target: &Target, transport: Transport) -> Option<Upstream> {
    let (host, port, name) = match target {
        Target::Address(ip, port, name) => (ip.to_string(), port, name),
        Target::Host(host, port, name) => (host.clone(), port, name),
    };
    let address = UpstreamAddress {
        transport,
        host: host.as_str().into(),
        port: port.unwrap_or_else(|| transport.default_port()),
        path: "".into(),
    };
    let mut upstream = Upstream::new(address);
    match name {
        Some(_) if !transport.is_encrypted() => {
            draft.lost(place, "a TLS name has no meaning without forward-tls-upstream: yes");
        }
        Some(name) => match parse_host(name) {
            Ok(name) => upstream.server_name = Some(name).filter(|name| **name != *host),
            Err(error) => {
                draft.lost(place, format!("\"{name}\" {}", error.problem));
                return None;
            }
        },
        None if transport.is_encrypted() && matches!(target, Target::Address(..)) => {
            draft.changed(place, "unbound takes any certificate where no name is given; keepwarm verifies one for the IP: add `server_name` where the server has none");
        }
        None => {}
    }
    Some(upstream)
}

/// `IP@PORT#NAME` or `HOST@PORT#NAME`.
fn target(text: &str, is_address: bool) -> Option<Target> {
    let (text, name) = match text.split_once('#') {
        Some((text, name)) => (text, Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (text, None),
    };
    let (host, port) = match text.split_once('@') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    if is_address {
        return Some(Target::Address(host.parse().ok()?, port, name));
    }
    let host = host.trim_end_matches('.');
    parse_host(host).ok().map(|_| Target::Host(host.to_owned(), port, name))
}
