//! unbound.conf: forward zones, listeners, access, local data and the cache. unbound recurses by itself where nothing is
//! forwarded; keepwarm does not, which is said.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use keepwarm_dns::config::{Listen, ListenTransport};

use super::{
    draft::Draft,
    lines::{self, size, words},
};
use access::Access;
use zone::Zone;

mod access;
mod local;
mod zone;

/// What only means something when everything was read.
struct Seen {
    interfaces: Vec<(String, String)>,
    port: u16,
    ports: BTreeMap<&'static str, u16>,
    udp: bool,
    tcp: bool,
    access: Access,
    zones: Vec<Zone>,
    local: local::Local,
    cache: Vec<(String, u64)>,
    serve_expired: Option<(String, bool)>,
    expired_ttl: Option<(String, u64)>,
    tls_upstream: bool,
    tcp_upstream: bool,
}

/// Carries a file over.
pub(super) fn apply(name: &str, text: &str, base: &Path, draft: &mut Draft) {
    let mut seen = Seen {
        interfaces: Vec::new(),
        port: 53,
        ports: BTreeMap::from([("tls-port", 853), ("https-port", 443), ("quic-port", 853)]),
        udp: true,
        tcp: true,
        access: Access::default(),
        zones: Vec::new(),
        local: local::Local::default(),
        cache: Vec::new(),
        serve_expired: None,
        expired_ttl: None,
        tls_upstream: false,
        tcp_upstream: false,
    };
    let mut clause = Clause::Server;
    for line in lines::read(name, text, base, include, draft) {
        // `server:` may stand before its first key on one line.
        let mut rest = line.text.as_str();
        while let Some((key, value)) = rest.split_once(':') {
            let place = format!("{} `{rest}`", line.place);
            let Some(next) = Clause::of(key.trim()) else {
                let value = words(value).join(" ");
                key_of(draft, &mut seen, clause, &place, key.trim(), &value);
                break;
            };
            clause = next;
            match clause {
                Clause::Forward => seen.zones.push(Zone::new(place)),
                Clause::Other(reason) => draft.lost(&place, reason),
                Clause::Server => {}
            }
            rest = value.trim();
        }
        if !line.text.contains(':') {
            draft.lost(&format!("{} `{}`", line.place, line.text), "is no key with a value");
        }
    }
    finish(draft, seen);
}

fn include(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("include-toplevel:").or_else(|| line.strip_prefix("include:"))?;
    Some(rest.trim().trim_matches(['"', '\'']))
}

/// The part of the file that keys belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    Server,
    Forward,
    /// One that is left out as a whole, with the reason.
    Other(&'static str),
}

impl Clause {
    fn of(key: &str) -> Option<Clause> {
        const NO_RECURSION: &str = "the servers of a zone itself are not asked here, which takes recursion; name a resolver for it in a [[dns.route]]";
        Some(match key {
            "server" => Clause::Server,
            "forward-zone" => Clause::Forward,
            "stub-zone" | "auth-zone" => Clause::Other(NO_RECURSION),
            "remote-control" => Clause::Other(
                "`keepwarm pools`, `keepwarm cache` and the status endpoint of [control] show and steer the daemon",
            ),
            "view" => Clause::Other("all clients get the same answers here; run a second keepwarm for others"),
            "rpz" => Clause::Other("keepwarm is no blocker; ask an upstream that is"),
            "dnscrypt" => Clause::Other("keepwarm does not speak DNSCrypt; listen with tls://, https:// or quic://"),
            "cachedb" => Clause::Other("the cache lives in memory only"),
            "python" | "dynlib" | "dnstap" => Clause::Other("has no counterpart"),
            _ => return None,
        })
    }
}

fn key_of(draft: &mut Draft, seen: &mut Seen, clause: Clause, place: &str, key: &str, value: &str) {
    match clause {
        Clause::Server => server(draft, seen, place, key, value),
        Clause::Forward => match seen.zones.last_mut() {
            Some(zone) => zone.key(draft, place, key, value),
            None => draft.lost(place, "stands before its forward-zone"),
        },
        // The clause was noted once.
        Clause::Other(_) => {}
    }
}

fn server(draft: &mut Draft, seen: &mut Seen, place: &str, key: &str, value: &str) {
    let is_on = value == "yes";
    match key {
        "interface" | "ip-address" => seen.interfaces.push((place.to_owned(), value.to_owned())),
        "port" => match value.parse() {
            Ok(port) => seen.port = port,
            Err(_) => draft.lost(place, "is no port; 53 is kept"),
        },
        "tls-port" | "https-port" | "quic-port" => {
            match (value.parse(), seen.ports.keys().find(|known| **known == key)) {
                (Ok(port), Some(known)) => {
                    seen.ports.insert(known, port);
                }
                _ => draft.lost(place, "is no port; the default is kept"),
            }
        }
        "do-udp" => seen.udp = is_on,
        "do-tcp" => seen.tcp = is_on,
        "tls-service-pem" => draft.set("dns.tls", "certificate", value),
        "tls-service-key" => draft.set("dns.tls", "key", value),
        "access-control" => seen.access.add(draft, place, value),
        "local-zone" => seen.local.zone(draft, place, value),
        "local-data" => seen.local.data(place, value),
        "local-data-ptr" => seen.local.pointer(draft, place, value),
        "rrset-cache-size" | "msg-cache-size" => match size(value) {
            Some(bytes) => seen.cache.push((place.to_owned(), bytes)),
            None => draft.lost(place, "is no size; set `size` in [dns.cache]"),
        },
        "cache-min-ttl" => seconds(draft, place, "min_ttl", value),
        "cache-max-ttl" => seconds(draft, place, "max_ttl", value),
        "cache-max-negative-ttl" => seconds(draft, place, "negative_ttl", value),
        "prefetch" => draft.set("dns.cache", "prefetch", is_on),
        "serve-expired" => seen.serve_expired = Some((place.to_owned(), is_on)),
        "serve-expired-ttl" => match value.parse() {
            Ok(seconds) => seen.expired_ttl = Some((place.to_owned(), seconds)),
            Err(_) => draft.lost(place, "is no number of seconds; set `stale` in [dns.cache]"),
        },
        "tls-cert-bundle" if SYSTEM_BUNDLES.contains(&value) => {
            draft.changed(place, "the system's roots are trusted without being named");
        }
        "tls-cert-bundle" => {
            draft.push("tls", "extra_roots", value);
            draft.changed(place, "trusted beside the system's roots here, not instead of them");
        }
        "tls-upstream" | "ssl-upstream" => seen.tls_upstream = is_on,
        "tcp-upstream" => seen.tcp_upstream = is_on,
        "num-threads" => threads(draft, place, value),
        "incoming-num-tcp" => match value.parse::<i64>() {
            Ok(count) if count > 0 => {
                draft.set("dns.clients", "tcp_max", count);
                draft.changed(place, "counts the connections of all threads together here");
            }
            _ => draft.lost(place, "is no count; set `tcp_max` in [dns.clients]"),
        },
        "max-udp-size" | "edns-buffer-size" => match value.parse::<i64>() {
            Ok(bytes) => draft.set("dns.clients", "udp_payload_size", bytes.clamp(512, 4096)),
            Err(_) => draft.lost(place, "is no size; set `udp_payload_size` in [dns.clients]"),
        },
        "ip-ratelimit" => match value.parse::<i64>() {
            Ok(0) => {}
            Ok(rate) => draft.set("dns", "rate_limit", rate),
            Err(_) => draft.lost(place, "is no count; set `rate_limit` in [dns]"),
        },
        "use-caps-for-id" if is_on => draft.randomize_case(),
        "do-ip6" if !is_on => draft.lost(
            place,
            "keepwarm uses what the machine has; give upstreams IPv4 addresses in `addresses`, and listen on IPv4 only",
        ),
        "do-ip4" if !is_on => draft.lost(
            place,
            "keepwarm uses what the machine has; give upstreams IPv6 addresses in `addresses`, and listen on IPv6 only",
        ),
        "do-ip6" | "do-ip4" | "use-caps-for-id" => {}
        other => draft.lost(place, reason(other)),
    }
}

/// Why a key has no place here, and what to do instead.
fn reason(key: &str) -> &'static str {
    match key {
        "verbosity" | "log-queries" | "log-replies" | "log-servfail" | "log-local-actions" | "val-log-level" => {
            "set `level` in [log], and [dns.query_log] for a log of queries"
        }
        "logfile" | "use-syslog" | "log-time-ascii" | "log-identity" | "log-tag-queryreply" => {
            "keepwarm logs to standard error; let the service manager write it"
        }
        "username" | "chroot" | "directory" | "pidfile" | "use-systemd" | "do-daemonize" => {
            "the service manager's business"
        }
        "auto-trust-anchor-file"
        | "trust-anchor-file"
        | "trust-anchor"
        | "trusted-keys-file"
        | "domain-insecure"
        | "module-config"
        | "val-permissive-mode"
        | "val-clean-additional"
        | "trust-anchor-signaling"
        | "harden-dnssec-stripped"
        | "aggressive-nsec" => "keepwarm passes DNSSEC through and does not validate; ask an upstream that does",
        "root-hints"
        | "root-key-sentinel"
        | "qname-minimisation"
        | "qname-minimisation-strict"
        | "harden-glue"
        | "harden-referral-path"
        | "harden-below-nxdomain"
        | "harden-algo-downgrade"
        | "target-fetch-policy"
        | "prefetch-key"
        | "infra-host-ttl"
        | "infra-cache-numhosts"
        | "infra-cache-slabs"
        | "key-cache-size"
        | "key-cache-slabs"
        | "neg-cache-size"
        | "outgoing-range"
        | "fast-server-permil"
        | "minimal-responses" => "for recursion and validation, which are the upstreams' work here",
        "private-address" | "private-domain" | "response-ip" | "unblock-lan-zones" | "insecure-lan-zones" => {
            "keepwarm does not judge answers by the addresses in them; private reverse zones stay here by `special_names` in [dns.local]"
        }
        "hide-identity" | "hide-version" | "hide-trustanchor" | "identity" | "version" => {
            "keepwarm does not name itself"
        }
        "so-rcvbuf"
        | "so-sndbuf"
        | "so-reuseport"
        | "ip-transparent"
        | "ip-freebind"
        | "num-queries-per-thread"
        | "msg-cache-slabs"
        | "rrset-cache-slabs"
        | "outgoing-num-tcp"
        | "outgoing-port-permit"
        | "outgoing-port-avoid"
        | "outgoing-interface"
        | "interface-automatic"
        | "msg-buffer-size"
        | "jostle-timeout"
        | "delay-close"
        | "udp-connect" => "tuning of its own; keepwarm's limits are in [dns.clients] and [dns.pool]",
        "serve-expired-client-timeout" | "serve-expired-reply-ttl" | "serve-expired-ttl-reset" => {
            "an answer past its end serves when upstreams fail or take 1.8 s, with a TTL of 30 s (RFC 8767)"
        }
        "tls-ciphers"
        | "tls-ciphersuites"
        | "tls-additional-port"
        | "tls-session-ticket-keys"
        | "tls-win-cert"
        | "tls-system-cert"
        | "tls-use-sni" => {
            "keepwarm speaks TLS 1.2 and 1.3 with its own choice of ciphers, names the server and trusts the system's roots"
        }
        "statistics-interval" | "extended-statistics" | "statistics-cumulative" | "shm-enable" => {
            "the status endpoint of [control] has the counters"
        }
        "dns64-prefix" | "dns64-synthall" => {
            "keepwarm makes no addresses up (DNS64); ask an upstream that does, such as 2001:4860:4860::64"
        }
        "interface-action"
        | "interface-tag"
        | "access-control-tag"
        | "access-control-view"
        | "define-tag"
        | "local-zone-tag"
        | "local-zone-override" => "all clients get the same answers here; `allow` in [dns] says who may ask",
        _ => "not known to this importer",
    }
}

fn finish(draft: &mut Draft, seen: Seen) {
    listeners(draft, &seen);
    cache(draft, &seen);
    for zone in &seen.zones {
        zone.finish(draft, seen.tls_upstream, seen.tcp_upstream);
    }
    if !seen.zones.iter().any(Zone::is_root) {
        draft.lost("forward-zone `.`", "there is none, so unbound asks the servers of the root itself; keepwarm does not recurse: add a [[dns.upstream]] for all other names");
    }
    draft.set("dns", "strategy", "fastest");
    draft.changed(
        "strategy",
        "unbound asks one of the forwarders that answered within 400 ms of the fastest; `fastest` is the nearest to it",
    );
    seen.access.finish(draft);
    seen.local.finish(draft);
}

fn listeners(draft: &mut Draft, seen: &Seen) {
    let loopback = [("interface".to_owned(), "127.0.0.1".to_owned()), ("interface".to_owned(), "::1".to_owned())];
    let interfaces = if seen.interfaces.is_empty() { &loopback[..] } else { &seen.interfaces };
    for (place, text) in interfaces {
        let (ip, port) = text.split_once('@').unwrap_or((text, ""));
        let port = if port.is_empty() { Ok(seen.port) } else { port.parse() };
        let (Ok(ip), Ok(port)) = (ip.parse::<IpAddr>(), port) else {
            draft
                .lost(place, format!("\"{text}\" is no IP address; add one of that network card to `listen` in [dns]"));
            continue;
        };
        let of = |name: &str| seen.ports.get(name) == Some(&port);
        let transports: &[ListenTransport] = match () {
            () if of("tls-port") => &[ListenTransport::Tls],
            () if of("https-port") => &[ListenTransport::Https],
            () if of("quic-port") => &[ListenTransport::Quic],
            () if seen.udp && seen.tcp => &[ListenTransport::Plain],
            () if seen.tcp => &[ListenTransport::Tcp],
            () => &[ListenTransport::Udp],
        };
        for transport in transports {
            draft.listen(Listen::new(SocketAddr::new(ip, port), *transport));
        }
        if ip == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
            draft.changed(
                place,
                "whether IPv4 comes in too is up to the system: add 0.0.0.0 to `listen` where it does not",
            );
        }
    }
}

fn cache(draft: &mut Draft, seen: &Seen) {
    if let Some((place, _)) = seen.cache.last() {
        let bytes: u64 = seen.cache.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
        draft.set_size("dns.cache", "size", if bytes == 0 { 0 } else { bytes.clamp(64 << 10, 64 << 30) });
        draft.changed(place, "messages and their records are one cache here, whose size is the sum of both");
    }
    match (&seen.serve_expired, &seen.expired_ttl) {
        (Some((place, true)), ttl) => {
            let (kept, words) = match ttl {
                Some((_, seconds)) if (1..=WEEK).contains(seconds) => (*seconds, ""),
                _ => (WEEK, ", for 7 days at the longest"),
            };
            draft.set_duration("dns.cache", "stale", Duration::from_secs(kept));
            draft.changed(
                place,
                format!(
                    "upstreams are asked first here; an answer past its end serves when they fail or take 1.8 s{words}"
                ),
            );
        }
        (_, Some((place, _))) => draft.lost(place, "means nothing without serve-expired: yes"),
        (Some((_, false)) | None, None) => {}
    }
    if !matches!(&seen.serve_expired, Some((_, true))) {
        draft.set("dns.cache", "stale", "0s");
    }
}

fn threads(draft: &mut Draft, place: &str, value: &str) {
    match value.parse::<i64>() {
        Ok(count) if (1..=1024).contains(&count) => draft.set("limits", "workers", count),
        _ => draft.lost(place, "is no count of threads; `workers` in [limits] stays one per core"),
    }
}

fn seconds(draft: &mut Draft, place: &str, key: &'static str, value: &str) {
    match value.parse::<u64>() {
        Ok(seconds) if seconds > WEEK => {
            draft.set_duration("dns.cache", key, Duration::from_secs(WEEK));
            draft.changed(place, "7 days are the longest here");
        }
        Ok(seconds) => draft.set_duration("dns.cache", key, Duration::from_secs(seconds)),
        Err(_) => draft.lost(place, format!("is no number of seconds; set `{key}` in [dns.cache]")),
    }
}

/// The longest that an answer is kept, within its time or past it.
const WEEK: u64 = 7 * 86_400;

/// Where distributions keep the system's roots.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
