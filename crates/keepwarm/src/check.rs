//! `keepwarm check`: a config file read as the daemon would, and in a few lines what it comes to.
//!
//! The faults are the config's business; this says where clients come in, whom their queries and tunnels go to and which hosts are
//! kept warm.

mod tunnel;

use std::io::{self, IsTerminal as _};

use keepwarm_dns::config::{DEFAULT_GROUP, DnsConfig, Listen, ListenTransport, QueryLogPrivacy, UpstreamConfig};
use keepwarm_https::config::{HttpVersions, HttpsConfig, OriginConfig};
use serde::Serialize;

use crate::{
    cli::{CheckArgs, Exit, complain, print},
    config::{
        Config, ConfigError, Loaded, Source,
        fault::{Place, Severity},
        words::size_words,
    },
};

/// Checks a file, with what stands over it, and prints what it comes to.
///
/// # Errors
/// [`ConfigError`] with every fault when it is refused; with `--json` they are printed instead.
pub fn main(args: &CheckArgs) -> anyhow::Result<Exit> {
    let source = args.config.source(&args.set)?;
    if args.json {
        return json(&source);
    }
    let Loaded { config, warnings, .. } = source.load()?;
    if warnings.iter().next().is_some() {
        complain(&format!("{}\n\n", warnings.render(io::stderr().is_terminal())));
    }
    print(&summary(&source.name(), &config))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Verdict {
    /// What was checked.
    file: String,
    /// Whether the daemon would run with it.
    accepted: bool,
    errors: usize,
    warnings: usize,
    /// In the order of the file.
    faults: Vec<Place>,
}

fn json(source: &Source) -> anyhow::Result<Exit> {
    let (faults, exit) = match source.load() {
        Ok(loaded) => (loaded.warnings.places(), Exit::Ok),
        Err(ConfigError::Faults(faults)) => (faults.places(), Exit::Config),
        Err(unread @ ConfigError::Read { .. }) => {
            (vec![Place::of_file(source.name(), unread.to_string())], Exit::Config)
        }
    };
    let count = |severity: Severity| faults.iter().filter(|fault| fault.severity == severity.as_str()).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = Verdict { file: source.name(), accepted: exit == Exit::Ok, errors, warnings, faults };
    print(&format!("{}\n", serde_json::to_string_pretty(&verdict)?))?;
    Ok(exit)
}

fn summary(name: &str, config: &Config) -> String {
    let mut lines = vec![format!("{name}: ok")];
    lines.extend(config.dns.iter().flat_map(dns_lines));
    lines.extend(config.https.iter().flat_map(https_lines));
    lines.extend(config.tunnel.iter().flat_map(tunnel::lines));
    lines.push(format!("status endpoint on {}", config.control.listen));
    lines.join("\n  ") + "\n"
}

fn dns_lines(dns: &DnsConfig) -> Vec<String> {
    let mut lines = vec![format!("dns listens on {}", list(dns.listen.iter().map(listener)))];
    lines.push(format!("upstreams: {}", upstreams_of(dns, DEFAULT_GROUP)));
    for group in groups(dns) {
        lines.push(format!("group {group}: {}", upstreams_of(dns, group)));
    }
    for route in &dns.routes {
        lines.push(format!("{} via {}", list(route.suffixes.iter().map(ToString::to_string)), route.group));
    }
    if let Some(fallback) = &dns.fallback {
        lines.push(format!("fallback: {fallback}"));
    }
    lines.push(match dns.cache.size {
        0 => "cache: off".to_owned(),
        size => format!("cache: {}", size_words(size as u64)),
    });
    if let (Some(file), true) = (&dns.query_log.file, dns.query_log.privacy != QueryLogPrivacy::Off) {
        lines.push(format!("query log: {}", file.display()));
    }
    lines
}

fn https_lines(https: &HttpsConfig) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(gateway) = &https.gateway {
        let users = users(gateway.users.len(), "it");
        lines.push(format!("https gateway on {}, for {users}", list(gateway.listen.iter().map(ToString::to_string))));
    }
    if !https.origins.is_empty() {
        lines.push(format!("origins: {}", list(https.origins.iter().map(origin))));
    }
    if let Some(any) = &https.any_host {
        lines.push(format!("any other host ({})", way(any)));
    }
    let pool = &https.pool;
    lines.push(format!(
        "https connections: {}, {} an address, {} idle",
        pool.max_total, pool.max_per_host, pool.max_idle
    ));
    lines
}

fn users(count: usize, what: &str) -> String {
    match count {
        0 => format!("everybody who reaches {what}"),
        1 => "1 user".to_owned(),
        users => format!("{users} users"),
    }
}

fn origin(origin: &OriginConfig) -> String {
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    match origin.port {
        443 => format!("{host} ({})", way(origin)),
        port => format!("{host}:{port} ({})", way(origin)),
    }
}

/// How an origin is reached, in a few words; never with a proxy's credential.
fn way(origin: &OriginConfig) -> String {
    let mut words = vec![origin.profile.label()];
    if origin.http != HttpVersions::Both {
        words.push(origin.http.as_str().to_owned());
    }
    if let Some(proxy) = &origin.proxy {
        words.push(format!("via {}:{}", proxy.host, proxy.port));
    }
    if let Some(validate) = &origin.validate {
        words.push(format!("validated by {} {}", validate.method, validate.path));
    }
    if origin.warm > 0 {
        words.push(format!("{} warm", origin.warm));
    }
    words.join(", ")
}

fn listener(listen: &Listen) -> String {
    let transport = match listen.transport {
        ListenTransport::Plain => "UDP and TCP",
        ListenTransport::Udp => "UDP",
        ListenTransport::Tcp => "TCP",
        ListenTransport::Tls => "TLS",
        ListenTransport::Https => "HTTPS",
        ListenTransport::H3 => "HTTP/3",
        ListenTransport::Quic => "QUIC",
    };
    format!("{} ({transport})", listen.address)
}

fn upstreams_of(dns: &DnsConfig, group: &str) -> String {
    let shown = |upstream: &UpstreamConfig| format!("{} ({})", upstream.name, upstream.transport.as_str());
    list(dns.upstreams.iter().filter(|upstream| &*upstream.group == group).map(shown))
}

/// The groups beside the one that answers by default, in the order of the file.
fn groups(dns: &DnsConfig) -> Vec<&str> {
    let mut groups = Vec::new();
    for upstream in &dns.upstreams {
        if *upstream.group != *DEFAULT_GROUP && !groups.contains(&&*upstream.group) {
            groups.push(&*upstream.group);
        }
    }
    groups
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
