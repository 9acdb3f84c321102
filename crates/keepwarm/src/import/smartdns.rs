//! smartdns.conf: servers with groups, `nameserver` and `address` rules, listeners and the cache.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use keepwarm_dns::config::{DEFAULT_GROUP, Listen, ListenTransport};

use super::{
    draft::{Draft, group_name, subnet_of},
    lines::{self, size, words},
    upstream::suffix,
};

mod server;

/// Carries a file over.
pub(super) fn apply(name: &str, text: &str, base: &Path, draft: &mut Draft) {
    for line in lines::read(name, text, base, include, draft) {
        let words = words(&line.text);
        let Some((key, arguments)) = words.split_first() else { continue };
        let place = format!("{} `{}`", line.place, line.text);
        option(draft, &place, key, arguments);
    }
    draft.set("dns", "strategy", "parallel");
    draft.changed("strategy", "smartdns asks all servers and picks the address that answers a ping fastest; here all are asked, and the first answer goes out as it is. `fastest` in [dns] asks one at a time");
    if draft.upstreams().is_empty() {
        draft.lost(
            "server",
            "none is left; smartdns takes those of /etc/resolv.conf then, keepwarm needs a [[dns.upstream]]",
        );
    }
}

fn include(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("conf-file")?;
    rest.starts_with([' ', '\t']).then(|| rest.trim().trim_matches('"'))
}

fn option(draft: &mut Draft, place: &str, key: &str, arguments: &[String]) {
    let value = arguments.first().map_or("", String::as_str);
    let is_on = value == "yes";
    match key {
        "server" | "server-tcp" | "server-tls" | "server-https" | "server-quic" | "server-h3" | "server-http3" => {
            server::add(draft, place, key, arguments);
        }
        "bind" | "bind-tcp" | "bind-tls" | "bind-https" => bind(draft, place, key, arguments),
        "bind-cert-file" => draft.set("dns.tls", "certificate", value),
        "bind-cert-key-file" => draft.set("dns.tls", "key", value),
        "nameserver" => nameserver(draft, place, value),
        "address" => address(draft, place, value),
        "cache-size" => cache_size(draft, place, value),
        "prefetch-domain" => draft.set("dns.cache", "prefetch", is_on),
        "serve-expired" if !is_on => draft.set("dns.cache", "stale", "0s"),
        "serve-expired" => draft.changed(place, "upstreams are asked first here; an answer past its end serves when they fail or take 1.8 s (`stale` in [dns.cache])"),
        "serve-expired-ttl" => stale(draft, place, value),
        "force-AAAA-SOA" if is_on => draft.set("dns.local", "filter_aaaa", true),
        "rr-ttl-min" => seconds(draft, place, "min_ttl", value),
        "rr-ttl-max" => seconds(draft, place, "max_ttl", value),
        "tcp-idle-time" => match value.parse() {
            Ok(seconds) => draft.set_duration("dns.clients", "tcp_idle_timeout", Duration::from_secs(seconds)),
            Err(_) => draft.lost(place, "is no number of seconds; set `tcp_idle_timeout` in [dns.clients]"),
        },
        "max-query-limit" => match value.parse::<i64>() {
            Ok(0) => {}
            Ok(count) => draft.set("dns.clients", "max_in_flight", count),
            Err(_) => draft.lost(place, "is no count; set `max_in_flight` in [dns.clients]"),
        },
        "edns-client-subnet" => match value.split('/').next().unwrap_or_default().parse::<IpAddr>() {
            Ok(ip) => {
                draft.set("dns.client_subnet", "policy", "set");
                draft.set("dns.client_subnet", "address", subnet_of(ip).to_string());
                draft.changed(place, "told for every client, with /24 (IPv4) or /56 (IPv6); the last such line counts");
            }
            Err(_) => draft.lost(place, "is no network; set `address` in [dns.client_subnet]"),
        },
        "hosts-file" => draft.push("dns.local", "hosts", value),
        "ca-file" => draft.push("tls", "extra_roots", value),
        "log-level" => match value {
            "debug" | "info" | "warn" | "error" => draft.set("log", "level", value),
            "off" => draft.set("log", "level", "off"),
            "notice" => draft.set("log", "level", "info"),
            "fatal" => draft.set("log", "level", "error"),
            _ => draft.lost(place, "no such level here; set `level` in [log]"),
        },
        "force-AAAA-SOA" => {}
        other => draft.lost(place, reason(other)),
    }
}

/// Why an option has no place here, and what to do instead.
fn reason(key: &str) -> &'static str {
    match key {
        "speed-check-mode"
        | "response-mode"
        | "dualstack-ip-selection"
        | "dualstack-ip-selection-threshold"
        | "dualstack-ip-allow-force-AAAA"
        | "max-reply-ip-num" => "keepwarm does not probe or pick addresses; answers go out as they came",
        "domain-rules" | "domain-set" | "client-rules" | "group-begin" | "group-end" | "ip-rules" | "ip-set"
        | "domain-rule" => {
            "sets and rules have no counterpart; write the names in a [[dns.route]], or in `records` of [dns.local]"
        }
        "blacklist-ip" | "whitelist-ip" | "bogus-nxdomain" | "ignore-ip" | "ip-alias" => {
            "keepwarm does not rewrite answers by the addresses in them"
        }
        "ipset" | "nftset" | "ipset-timeout" | "ipset-no-speed" | "nftset-timeout" | "nftset-no-speed" => {
            "keepwarm fills no firewall sets"
        }
        "proxy-server" => "keepwarm asks upstreams directly",
        "force-qtype-SOA"
        | "dns64"
        | "mdns-lookup"
        | "ddns-domain"
        | "local-domain"
        | "dnsmasq-lease-file"
        | "expand-ptr-from-address" => {
            "names of its own making are records here: see `records` and `hosts` in [dns.local]"
        }
        "cname" | "srv-record" | "https-record" | "txt-record" => "write it as a record in `records` of [dns.local]",
        "bind-cert-key-pass" => "the key file must not be encrypted here; keep it readable for keepwarm alone",
        "ca-path" => "name the PEM files in `extra_roots` of [tls]; the system's roots are trusted anyway",
        "cache-persist" | "cache-file" | "cache-checkpoint-time" => "the cache lives in memory only",
        "serve-expired-reply-ttl" | "serve-expired-prefetch-time" | "rr-ttl" | "rr-ttl-reply-max" | "local-ttl" => {
            "`min_ttl`, `max_ttl` and `stale` in [dns.cache] say what TTLs answers have"
        }
        "log-file" | "log-size" | "log-num" | "log-file-mode" | "log-console" | "log-syslog" => {
            "keepwarm logs to standard error; let the service manager write it"
        }
        "audit-enable" | "audit-file" | "audit-size" | "audit-num" | "audit-file-mode" | "audit-console"
        | "audit-syslog" => "set `privacy` and `file` in [dns.query_log] for a log of queries",
        "user" | "data-dir" | "resolv-file" | "resolv-hostname" | "server-name" | "plugin" | "socket-buff-size" => {
            "the service manager's business, or of no use here"
        }
        _ => "not known to this importer",
    }
}

fn bind(draft: &mut Draft, place: &str, key: &str, arguments: &[String]) {
    let (transport, default_port) = match key {
        "bind-tcp" => (ListenTransport::Tcp, 53),
        "bind-tls" => (ListenTransport::Tls, 853),
        "bind-https" => (ListenTransport::Https, 443),
        _ => (ListenTransport::Udp, 53),
    };
    let Some((address, options)) = arguments.split_first() else {
        return draft.lost(place, "names no address");
    };
    let (address, device) =
        address.split_once('@').map_or((address.as_str(), None), |(address, device)| (address, Some(device)));
    let Some(socket) = socket(address, default_port) else {
        return draft.lost(place, format!("\"{address}\" is no address to listen on; add it to `listen` in [dns]"));
    };
    draft.listen(Listen::new(socket, transport));
    if let Some(device) = device {
        draft
            .lost(place, format!("listens on every network card, not on {device} alone; name an IP of it in `listen`"));
    }
    if socket.ip() == IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED) {
        draft.changed(
            place,
            "is for IPv6; whether IPv4 comes in too is up to the system: add 0.0.0.0 to `listen` where it does not",
        );
    }
    for option in options.iter().filter(|option| option.starts_with('-')) {
        draft.lost(place, format!("{option}: all listeners answer alike here; clients are told apart by `allow` only"));
    }
}

/// `IP:PORT`, `[IPv6]:PORT`, `:PORT` (IPv4), or an IP alone.
fn socket(text: &str, default_port: u16) -> Option<SocketAddr> {
    let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return Some(SocketAddr::new(everywhere, port.parse().ok()?));
    }
    let alone = || text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, default_port));
    text.parse().ok().or_else(alone)
}

/// The domain and the rest of `/domain/rest`.
fn rule(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('/')?.split_once('/')
}

fn nameserver(draft: &mut Draft, place: &str, value: &str) {
    let Some((domain, group)) = rule(value) else {
        return draft.lost(place, "without a domain, it is for clients of its own group, which keepwarm does not have");
    };
    let Some(domain) = plain_domain(draft, place, domain) else { return };
    let group = if group == "-" { DEFAULT_GROUP.to_owned() } else { group_name(group) };
    draft.route(place, &domain, &group);
}

/// A domain without smartdns' marks; `None` for a set, which is noted.
fn plain_domain(draft: &mut Draft, place: &str, domain: &str) -> Option<String> {
    if domain.starts_with("domain-set:") {
        draft.lost(place, "sets of domains have no counterpart; write the names in a [[dns.route]]");
        return None;
    }
    if let Some(alone) = domain.strip_prefix("-.") {
        draft.changed(place, format!("is {alone} alone there; here all names below it go the same way"));
        return Some(alone.to_owned());
    }
    Some(suffix(draft, place, domain))
}

fn address(draft: &mut Draft, place: &str, value: &str) {
    let Some((domain, targets)) = rule(value) else {
        return draft.lost(place, "is for every name; keepwarm makes no addresses up");
    };
    if targets.starts_with(['#', '-']) {
        return draft.lost(place, "blocks, or takes a block back; keepwarm is no blocker: ask an upstream that is");
    }
    if domain.starts_with("domain-set:") {
        return draft.lost(place, "sets of domains have no counterpart; write the names as `records` in [dns.local]");
    }
    let (owners, base) = match (domain.strip_prefix("*."), domain.strip_prefix("-.")) {
        (Some(below), _) => (vec![format!("*.{below}.")], below),
        (_, Some(alone)) => (vec![format!("{alone}.")], alone),
        _ => (vec![format!("{domain}."), format!("*.{domain}.")], domain),
    };
    if crate::config::name::parse_suffix(base).is_err() {
        return draft.lost(place, format!("\"{domain}\" is no name that a record can have"));
    }
    for target in targets.split(',') {
        let Ok(ip) = target.trim_matches(['[', ']']).parse::<IpAddr>() else {
            draft.lost(place, format!("\"{target}\" is no address; write it as `records` in [dns.local]"));
            continue;
        };
        let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
        for owner in &owners {
            draft.push("dns.local", "records", format!("{owner} {TTL} {kind} {ip}"));
        }
    }
}

/// What smartdns gives its own records.
const TTL: u32 = 600;

fn cache_size(draft: &mut Draft, place: &str, value: &str) {
    /// A usual answer with its key and the store's share of memory, a round number.
    const ENTRY: u64 = 1024;
    match size(value) {
        Some(0) => draft.set("dns.cache", "size", "0"),
        Some(entries) => {
            draft.set_size("dns.cache", "size", entries.saturating_mul(ENTRY).clamp(64 << 10, 64 << 30));
            draft.changed(place, "counts answers there and bytes here: 1 KiB is taken for each");
        }
        None => draft.lost(place, "is no count; set `size` in [dns.cache]"),
    }
}

fn stale(draft: &mut Draft, place: &str, value: &str) {
    const MAX: u64 = 7 * 86_400;
    match value.parse::<u64>() {
        Ok(seconds) if !draft.has("dns.cache", "stale") => {
            let kept = if seconds == 0 { MAX } else { seconds.min(MAX) };
            draft.set_duration("dns.cache", "stale", Duration::from_secs(kept));
            if kept != seconds {
                draft.changed(place, "7 days are the longest here");
            }
        }
        Ok(_) => {}
        Err(_) => draft.lost(place, "is no number of seconds; set `stale` in [dns.cache]"),
    }
}

fn seconds(draft: &mut Draft, place: &str, key: &'static str, value: &str) {
    match value.parse() {
        Ok(seconds) => draft.set_duration("dns.cache", key, Duration::from_secs(seconds)),
        Err(_) => draft.lost(place, format!("is no number of seconds; set `{key}` in [dns.cache]")),
    }
}
