//! AdGuard's dnsproxy: its flags and its YAML, which has the same names.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use keepwarm_dns::config::{Listen, ListenTransport, Transport};

use super::{
    draft::{Draft, subnet_of},
    read_file,
    setting::{Flags, Setting, read_yaml},
    upstream,
};
use split::Split;

mod split;

/// Its command line.
pub(super) const FLAGS: Flags = Flags {
    short: &[
        ('b', "bootstrap"),
        ('c', "tls-crt"),
        ('f', "fallback"),
        ('g', "dnscrypt-config"),
        ('k', "tls-key"),
        ('l', "listen"),
        ('o', "output"),
        ('p', "port"),
        ('q', "quic-port"),
        ('r', "ratelimit"),
        ('s', "https-port"),
        ('t', "tls-port"),
        ('u', "upstream"),
        ('v', "verbose"),
        ('y', "dnscrypt-port"),
    ],
    switches: &[
        "all-servers",
        "cache",
        "cache-optimistic",
        "dns64",
        "edns",
        "fastest-addr",
        "help",
        "hosts-file-enabled",
        "http3",
        "insecure",
        "ipv6-disabled",
        "pending-requests-enabled",
        "pprof",
        "refuse-any",
        "use-private-rdns",
        "verbose",
        "version",
    ],
    valued: &[
        "bogus-nxdomain",
        "bootstrap",
        "cache-max-ttl",
        "cache-min-ttl",
        "cache-size",
        "config-path",
        "dns64-prefix",
        "dnscrypt-config",
        "dnscrypt-port",
        "edns-addr",
        "fallback",
        "hosts-files",
        "https-port",
        "https-server-name",
        "https-userinfo",
        "listen",
        "max-go-routines",
        "optimistic-answer-ttl",
        "optimistic-max-age",
        "output",
        "port",
        "private-rdns-upstream",
        "private-subnets",
        "quic-port",
        "ratelimit",
        "ratelimit-subnet-len-ipv4",
        "ratelimit-subnet-len-ipv6",
        "timeout",
        "tls-crt",
        "tls-key",
        "tls-max-version",
        "tls-min-version",
        "tls-port",
        "udp-buf-size",
        "upstream",
        "upstream-mode",
    ],
};

/// What only means something beside other options.
#[derive(Default)]
struct Seen {
    ips: Vec<IpAddr>,
    ports: Vec<(ListenTransport, u16)>,
    has_port: bool,
    http3: bool,
    cache: Option<String>,
    cache_size: bool,
    edns: Option<String>,
    edns_address: Option<(String, IpAddr)>,
    mode: Option<String>,
    hosts_off: bool,
    hosts: Vec<String>,
    split: Split,
}

/// Carries the options over. A `config-path` is read as well; what the command line says wins.
pub(super) fn apply(settings: &[Setting], base: &Path, draft: &mut Draft) {
    let mut seen = Seen::default();
    for setting in with_file(settings, base, draft) {
        option(&setting, base, &mut seen, draft);
    }
    listeners(&seen, draft);
    cache(&seen, draft);
    if let Some(place) = &seen.edns {
        draft.set("dns.client_subnet", "policy", "set");
        match &seen.edns_address {
            Some((place, ip)) => {
                draft.set("dns.client_subnet", "address", subnet_of(*ip).to_string());
                draft.changed(place, "this network is told for every client here, whatever its own address");
            }
            None => draft.changed(place, "clients with private addresses have no network to tell"),
        }
    } else if let Some((place, _)) = &seen.edns_address {
        draft.lost(place, "means nothing without --edns");
    }
    for file in seen.hosts.iter().filter(|_| !seen.hosts_off) {
        draft.push("dns.local", "hosts", file.clone());
    }
    mode(&seen, draft);
    seen.split.finish(draft);
    let named =
        draft.upstreams().iter().any(|upstream| upstream.address.ip().is_none() && upstream.addresses.is_empty());
    if named && !draft.has("dns", "bootstrap") {
        draft.changed("bootstrap", "none is named: dnsproxy asks 8.8.8.8 for the names of upstreams, keepwarm the system's resolver, which must not be keepwarm itself");
    }
    if seen.http3 && draft.upstreams().iter().any(|upstream| upstream.address.transport == Transport::Https) {
        draft.lost(
            "`http3`",
            "https:// upstreams stay with HTTP/2: write h3:// for those that are to be asked over HTTP/3",
        );
    }
}

fn with_file(settings: &[Setting], base: &Path, draft: &mut Draft) -> Vec<Setting> {
    let mut all = Vec::new();
    for setting in settings.iter().filter(|setting| setting.name == "config-path") {
        let read = read_file(&base.join(&setting.value)).and_then(|text| read_yaml(&setting.value, &text));
        match read {
            Ok(file) => all.extend(file.into_iter().filter(|one| {
                let name = alias(&one.name);
                !settings.iter().any(|flag| alias(&flag.name) == name)
            })),
            Err(problem) => draft.lost(&setting.place, problem),
        }
    }
    all.extend(settings.iter().filter(|setting| setting.name != "config-path").cloned());
    all
}

/// The YAML has two names of its own.
fn alias(name: &str) -> &str {
    match name {
        "listen-addrs" => "listen",
        "listen-ports" => "port",
        other => other,
    }
}

fn option(setting: &Setting, base: &Path, seen: &mut Seen, draft: &mut Draft) {
    let Setting { place, name, value } = setting;
    let is_on = setting.is_on();
    match alias(name) {
        "listen" => match value.parse() {
            Ok(ip) => seen.ips.push(ip),
            Err(_) => draft.lost(place, "keepwarm listens on IP addresses; add one to `listen` in [dns]"),
        },
        "port" => seen.port(ListenTransport::Plain, setting, draft),
        "tls-port" => seen.port(ListenTransport::Tls, setting, draft),
        "https-port" => seen.port(ListenTransport::Https, setting, draft),
        "quic-port" => seen.port(ListenTransport::Quic, setting, draft),
        "http3" => seen.http3 = is_on,
        "tls-crt" => draft.set("dns.tls", "certificate", value.clone()),
        "tls-key" => draft.set("dns.tls", "key", value.clone()),
        "upstream" => seen.split.add(draft, place, value, base),
        "fallback" => seen.split.fallback(draft, place, value, base),
        "private-rdns-upstream" => seen.split.private(draft, place, value),
        "bootstrap" => upstream::bootstrap(draft, place, value),
        "cache" => seen.cache = is_on.then(|| place.clone()),
        "cache-size" => {
            seen.cache_size = true;
            cache_size(draft, place, value);
        }
        "cache-min-ttl" => seconds(draft, place, "min_ttl", value),
        "cache-max-ttl" => seconds(draft, place, "max_ttl", value),
        "cache-optimistic" if is_on => draft.changed(place, "upstreams are asked first here; an answer past its end serves when they fail or take 1.8 s (`stale` in [dns.cache])"),
        "upstream-mode" => seen.mode = Some(value.clone()),
        "all-servers" if is_on => seen.mode = Some("parallel".into()),
        "fastest-addr" if is_on => seen.mode = Some("fastest_addr".into()),
        "timeout" => match upstream::go_duration(value) {
            Some(timeout) => {
                draft.set_duration("dns", "timeout", timeout);
                draft.changed(place, "one deadline for the whole query here, retries and all upstreams included");
            }
            None => draft.lost(place, "is not a whole number with a unit; set `timeout` in [dns]"),
        },
        "ratelimit" => match value.parse::<i64>() {
            Ok(0) => {}
            Ok(rate) => {
                draft.set("dns", "rate_limit", rate);
                draft.changed(place, "counts each IPv4 address and each IPv6 /64 here, not networks of /24 and /56");
            }
            Err(_) => draft.lost(place, "is no count; set `rate_limit` in [dns]"),
        },
        "edns" => seen.edns = is_on.then(|| place.clone()),
        "edns-addr" => match value.parse() {
            Ok(ip) => seen.edns_address = Some((place.clone(), ip)),
            Err(_) => draft.lost(place, "is no IP address; set `address` in [dns.client_subnet]"),
        },
        "ipv6-disabled" if is_on => draft.set("dns.local", "filter_aaaa", true),
        "hosts-file-enabled" => seen.hosts_off = !is_on,
        "hosts-files" => seen.hosts.push(value.clone()),
        "max-go-routines" => match value.parse::<i64>() {
            Ok(count) if count > 0 => {
                draft.set("dns.clients", "max_in_flight", count);
                draft.changed(place, "limits queries in flight here");
            }
            _ => {}
        },
        "verbose" if is_on => draft.set("log", "level", "debug"),
        // What is off, or what keepwarm does anyway.
        "pending-requests-enabled" if is_on => {}
        "cache-optimistic" | "all-servers" | "fastest-addr" | "ipv6-disabled" | "verbose" | "insecure" | "refuse-any" | "dns64"
        | "pprof" | "use-private-rdns" if !is_on => {}
        "use-private-rdns" => seen.split.use_private(),
        "version" | "help" => {}
        "udp-buf-size" if value == "0" => {}
        "" if value == "dnsproxy" || value.ends_with("/dnsproxy") => {}
        other => draft.lost(place, reason(other)),
    }
}

/// Why an option has no place here, and what to do instead.
fn reason(name: &str) -> &'static str {
    match name {
        "insecure" => "keepwarm always verifies certificates; trust a private CA with `extra_roots` in [tls]",
        "refuse-any" => "keepwarm passes queries of type ANY on; limit clients with `rate_limit` in [dns]",
        "dns64" | "dns64-prefix" => {
            "keepwarm makes no addresses up (DNS64); ask an upstream that does, such as 2001:4860:4860::64"
        }
        "bogus-nxdomain" => "keepwarm does not rewrite answers; ask an upstream that says NXDOMAIN by itself",
        "dnscrypt-config" | "dnscrypt-port" => {
            "keepwarm does not speak DNSCrypt; listen with tls://, https:// or quic://"
        }
        "https-userinfo" => "keepwarm's HTTPS listeners have no passwords; say who may ask with `allow` in [dns]",
        "https-server-name" => "keepwarm's HTTPS listeners do not name themselves",
        "tls-min-version" | "tls-max-version" => "keepwarm speaks TLS 1.2 and 1.3",
        "ratelimit-subnet-len-ipv4" | "ratelimit-subnet-len-ipv6" => {
            "`rate_limit` counts each IPv4 address and each IPv6 /64"
        }
        "private-subnets" => "the private networks of RFC 6303 are used; add a [[dns.route]] for other reverse zones",
        "optimistic-answer-ttl" | "optimistic-max-age" => {
            "set `stale` in [dns.cache] for how long an answer serves past its end"
        }
        "udp-buf-size" => "the system's socket buffers are used",
        "pending-requests-enabled" => "identical queries in flight are always asked once here",
        "output" => "keepwarm logs to standard error; let the service manager write it",
        "pprof" => "there is no profiler; the status endpoint is [control]",
        _ => "not known to this importer",
    }
}

impl Seen {
    fn port(&mut self, transport: ListenTransport, setting: &Setting, draft: &mut Draft) {
        self.has_port |= transport == ListenTransport::Plain;
        match setting.value.parse() {
            Ok(0) => {}
            Ok(port) => self.ports.push((transport, port)),
            Err(_) => draft.lost(&setting.place, "is no port; add the listener to `listen` in [dns]"),
        }
    }
}

fn listeners(seen: &Seen, draft: &mut Draft) {
    let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let ips = if seen.ips.is_empty() { &everywhere[..] } else { &seen.ips };
    let default = (!seen.has_port).then_some((ListenTransport::Plain, 53));
    for ip in ips {
        for (transport, port) in default.into_iter().chain(seen.ports.iter().copied()) {
            draft.listen(Listen::new(SocketAddr::new(*ip, port), transport));
            if seen.http3 && transport == ListenTransport::Https {
                draft.listen(Listen::new(SocketAddr::new(*ip, port), ListenTransport::H3));
            }
        }
    }
    if !draft.has_listeners() {
        draft.lost("`port`", "every listener is off; keepwarm listens on its default, 127.0.0.1:5300");
    }
}

fn cache(seen: &Seen, draft: &mut Draft) {
    match &seen.cache {
        None => {
            draft.set("dns.cache", "size", "0");
            draft.changed("cache", "off, as dnsproxy's is without --cache; remove `size` in [dns.cache] for 64MiB");
        }
        Some(place) if !seen.cache_size => {
            draft.changed(place, "keepwarm's default of 64MiB instead of dnsproxy's 64 KiB");
        }
        Some(_) => {}
    }
}

fn cache_size(draft: &mut Draft, place: &str, value: &str) {
    const MIN: u64 = 64 << 10;
    match value.parse::<u64>() {
        Ok(bytes) if bytes < MIN => {
            draft.set_size("dns.cache", "size", MIN);
            draft.changed(place, "64KiB is the smallest cache here");
        }
        Ok(bytes) => draft.set_size("dns.cache", "size", bytes),
        Err(_) => draft.lost(place, "is no number of bytes; set `size` in [dns.cache]"),
    }
}

fn seconds(draft: &mut Draft, place: &str, key: &'static str, value: &str) {
    match value.parse() {
        Ok(0) => {}
        Ok(seconds) => draft.set_duration("dns.cache", key, std::time::Duration::from_secs(seconds)),
        Err(_) => draft.lost(place, format!("is no number of seconds; set `{key}` in [dns.cache]")),
    }
}

fn mode(seen: &Seen, draft: &mut Draft) {
    match seen.mode.as_deref().unwrap_or("load_balance") {
        "parallel" => draft.set("dns", "strategy", "parallel"),
        "load_balance" => {
            draft.set("dns", "strategy", "fastest");
            draft.changed(
                "upstream-mode",
                "load_balance is `fastest` here: the lowest latency of late first, the others now and then",
            );
        }
        "fastest_addr" => {
            draft.set("dns", "strategy", "parallel");
            draft.lost("upstream-mode", "fastest_addr tries the addresses in an answer; keepwarm asks all upstreams and gives the first answer as it is");
        }
        other => draft.lost("upstream-mode", format!("\"{other}\" is not known; set `strategy` in [dns]")),
    }
}
