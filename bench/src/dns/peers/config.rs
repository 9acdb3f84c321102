//! The configuration of each server: forwarding to one local upstream, as somebody who knows it would set it for speed. What
//! is switched off is work that the others do not do either: logs, prefetching, probing of answers, DNSSEC validation.

use std::{ffi::OsString, fmt::Write as _, net::SocketAddr, path::Path};

use super::{super::stub::SERVER_NAME, Kind, Transport};

/// What a server is to be able to do.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Task {
    pub(in super::super) transport: Transport,
    pub(in super::super) cache: Cache,
    pub(in super::super) threads: u32,
    /// Queries in flight that it has to hold. Limits are raised for it where the usual ones are lower.
    pub(in super::super) in_flight: u32,
}

impl Task {
    /// As the usual limits of all servers allow.
    pub(in super::super) const IN_FLIGHT: u32 = 1_000;
}

/// A server's task and surroundings.
pub(in super::super) struct Setup<'a> {
    /// UDP and TCP.
    pub(in super::super) listen: SocketAddr,
    /// For servers that have an admin side.
    pub(in super::super) control: SocketAddr,
    pub(in super::super) upstream: SocketAddr,
    pub(in super::super) task: Task,
    pub(in super::super) ca: &'a Path,
    /// The server's own directory.
    pub(in super::super) dir: &'a Path,
    /// Some servers give up root's rights unless told not to; then they cannot read the files of the run.
    pub(in super::super) is_root: bool,
}

/// The cache of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Cache {
    Off,
    MiB(u64),
}

impl Cache {
    /// For servers that count entries: as many as at 256 octets each.
    fn entries(self) -> u64 {
        self.octets() / 256
    }

    fn octets(self) -> u64 {
        match self {
            Cache::Off => 0,
            Cache::MiB(size) => size << 20,
        }
    }
}

impl Setup<'_> {
    fn caches(&self) -> bool {
        self.task.cache != Cache::Off
    }

    /// The command of the floor: the relay, or the echo in place of a cache.
    pub(super) fn floor_arguments(&self) -> Vec<OsString> {
        let listen = ["--listen".into(), self.listen.to_string().into()];
        if self.caches() {
            return [vec!["echo".into()], listen.into()].concat();
        }
        [vec!["relay".into()], listen.into(), vec!["--upstream".into(), self.upstream.to_string().into()]].concat()
    }
}

pub(super) fn file_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Keepwarm | Kind::Hickory => "config.toml",
        Kind::Oxidns => "config.yaml",
        Kind::Dnsdist => "dnsdist.lua",
        Kind::Unbound | Kind::Smartdns | Kind::Floor => "server.conf",
    }
}

/// The arguments after the program.
pub(super) fn arguments(kind: Kind, setup: &Setup<'_>, file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    let threads = setup.task.threads.to_string();
    let dir = setup.dir.display().to_string();
    let words: Vec<&str> = match kind {
        Kind::Keepwarm => vec!["run", "-c", &file],
        Kind::Dnsdist => vec!["--supervised", "--disable-syslog", "-C", &file],
        Kind::Unbound => vec!["-d", "-c", &file],
        Kind::Smartdns => vec!["-f", "-c", &file, "-p", "-"],
        Kind::Oxidns => vec!["start", "-c", &file, "-d", &dir],
        Kind::Hickory => vec!["-q", "--workers", &threads, "-c", &file, "-z", &dir],
        Kind::Floor => Vec::new(),
    };
    words.into_iter().map(str::to_owned).collect()
}

/// The configuration file.
pub(super) fn text(kind: Kind, setup: &Setup<'_>) -> String {
    match kind {
        Kind::Keepwarm => keepwarm(setup),
        Kind::Dnsdist => dnsdist(setup),
        Kind::Unbound => unbound(setup),
        Kind::Smartdns => smartdns(setup),
        Kind::Oxidns => oxidns(setup),
        Kind::Hickory => hickory(setup),
        Kind::Floor => String::new(),
    }
}

fn keepwarm(setup: &Setup<'_>) -> String {
    let Setup { listen, control, upstream, ca, task: Task { threads, in_flight, .. }, .. } = setup;
    let ca = ca.display();
    let (address, tls) = match setup.task.transport {
        Transport::Udp => (format!("udp://{upstream}"), false),
        Transport::Tcp => (format!("tcp://{upstream}"), false),
        Transport::Tls => (format!("tls://{upstream}"), true),
        Transport::Https => (format!("https://{upstream}/dns-query"), true),
    };
    let server_name = if tls { format!("server_name = \"{SERVER_NAME}\"\n") } else { String::new() };
    let cache = match setup.task.cache {
        Cache::Off => "0".to_owned(),
        Cache::MiB(size) => format!("{size}MiB"),
    };
    // Room in each socket for all of them: a query that waits long is repeated over another socket.
    let pool = if *in_flight > Task::IN_FLIGHT {
        format!("[dns.pool]\nmax_in_flight = {in_flight}\n\n")
    } else {
        String::new()
    };
    format!(
        r#"version = 1

[limits]
workers = {threads}

[tls]
extra_roots = ["{ca}"]

[dns]
listen = ["{listen}"]
strategy = "sequential"

[dns.cache]
size = "{cache}"

{pool}[[dns.upstream]]
name = "bench"
address = "{address}"
{server_name}
[control]
listen = "{control}"
"#
    )
}

fn dnsdist(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, ca, task: Task { threads, .. }, .. } = setup;
    let mut text = format!(
        "setMaxUDPOutstanding(65535)\nsetUDPMultipleMessagesVectorSize(32)\nsetMaxTCPClientThreads({threads})\n\
         setVerboseHealthChecks(false)\nsetSecurityPollSuffix(\"\")\nsetMaxTCPQueuedConnections(10000)\n\
         setStaleCacheEntriesTTL(0)\nsetOutgoingTLSSessionsCacheMaxTicketsPerBackend(50)\n\
         setServerPolicy(firstAvailable)\n"
    );
    // A listener is a thread.
    for _ in 0..*threads {
        let _ = writeln!(text, "addLocal(\"{listen}\", {{reusePort=true, maxInFlight=1000, tcpListenQueueSize=1024}})");
    }
    let tls = format!(
        "tls=\"openssl\", caStore=\"{}\", subjectName=\"{SERVER_NAME}\", validateCertificates=true",
        ca.display()
    );
    let how = match setup.task.transport {
        Transport::Udp => "sockets=4".to_owned(),
        Transport::Tcp => "tcpOnly=true, maxInFlight=1000".to_owned(),
        Transport::Tls => format!("{tls}, maxInFlight=1000"),
        Transport::Https => format!("{tls}, dohPath=\"/dns-query\""),
    };
    let _ = writeln!(
        text,
        "newServer({{address=\"{upstream}\", {how}, checkName=\"health.bench.lab.\", checkInterval=1, maxCheckFailures=2}})"
    );
    if setup.caches() {
        let entries = setup.task.cache.entries();
        let _ = writeln!(text, "getPool(\"\"):setCache(newPacketCache({entries}, {{numberOfShards=8}}))");
    }
    text
}

fn unbound(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, ca, task: Task { threads, in_flight, .. }, .. } = setup;
    let (ip, port) = (listen.ip(), listen.port());
    let queries = *in_flight.max(&4_096);
    // Half for messages and half for the records in them.
    let half = (setup.task.cache.octets() / 2).max(4 << 20);
    let mut text = format!(
        r#"server:
  interface: {ip}@{port}
  num-threads: {threads}
  username: ""
  chroot: ""
  directory: "{dir}"
  pidfile: ""
  use-syslog: no
  verbosity: 0
  do-daemonize: no
  do-ip6: no
  do-not-query-localhost: no
  module-config: "iterator"
  so-reuseport: yes
  so-rcvbuf: 4m
  so-sndbuf: 4m
  outgoing-range: {ports}
  num-queries-per-thread: {queries}
  outgoing-num-tcp: 200
  incoming-num-tcp: 1000
  max-reuse-tcp-queries: 100000
  msg-cache-slabs: 2
  rrset-cache-slabs: 2
  infra-cache-slabs: 2
  key-cache-slabs: 2
  msg-cache-size: {half}
  rrset-cache-size: {half}
  minimal-responses: yes
  qname-minimisation: no
  access-control: 127.0.0.0/8 allow
  tls-cert-bundle: "{ca}"
"#,
        dir = setup.dir.display(),
        ca = ca.display(),
        ports = 2 * queries,
    );
    if setup.task.transport == Transport::Tcp {
        text.push_str("  tcp-upstream: yes\n");
    }
    text.push_str("remote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n");
    let (ip, port) = (upstream.ip(), upstream.port());
    match setup.task.transport {
        Transport::Tls => {
            let _ = writeln!(text, "  forward-addr: {ip}@{port}#{SERVER_NAME}\n  forward-tls-upstream: yes");
        }
        _ => drop(writeln!(text, "  forward-addr: {ip}@{port}")),
    }
    if !setup.caches() {
        text.push_str("  forward-no-cache: yes\n");
    }
    text
}

fn smartdns(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, ca, .. } = setup;
    let names = format!("-host-name {SERVER_NAME} -tls-host-verify {SERVER_NAME}");
    let server = match setup.task.transport {
        Transport::Udp => format!("server {upstream}"),
        Transport::Tcp => format!("server-tcp {upstream}"),
        Transport::Tls => format!("server-tls {upstream} {names}"),
        Transport::Https => format!("server-https https://{upstream}/dns-query {names} -http-host {SERVER_NAME}"),
    };
    let user = if setup.is_root { "user root\n" } else { "" };
    format!(
        "bind {listen}\nbind-tcp {listen}\n{server}\ncache-size {entries}\ncache-persist no\nspeed-check-mode none\n\
         response-mode fastest-response\ndualstack-ip-selection no\nprefetch-domain no\nserve-expired no\n\
         log-level fatal\nlog-size 0\naudit-enable no\nca-file {ca}\nmax-query-limit 65535\nmax-reply-ip-num 8\n{user}",
        entries = setup.task.cache.entries(),
        ca = ca.display(),
    )
}

fn oxidns(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, task: Task { threads, .. }, .. } = setup;
    let (ip, port) = (upstream.ip(), upstream.port());
    // It knows no other roots than those of the web, so the certificate goes unchecked.
    let tls = format!("          dial_addr: \"{ip}\"\n          insecure_skip_verify: true\n");
    let server = match setup.task.transport {
        Transport::Udp => format!("        - addr: \"udp://{upstream}\"\n"),
        Transport::Tcp => format!("        - addr: \"tcp://{upstream}\"\n          enable_pipeline: true\n"),
        Transport::Tls => {
            format!("        - addr: \"tls://{SERVER_NAME}:{port}\"\n          enable_pipeline: true\n{tls}")
        }
        Transport::Https => format!("        - addr: \"https://{SERVER_NAME}:{port}/dns-query\"\n{tls}"),
    };
    let (plugin, step) = if setup.caches() {
        let size = setup.task.cache.entries();
        (
            format!("  - tag: cache\n    type: cache\n    args:\n      size: {size}\n      short_circuit: true\n"),
            "      - exec: $cache\n",
        )
    } else {
        (String::new(), "")
    };
    format!(
        r#"runtime:
  worker_threads: {threads}
log:
  level: error
plugins:
{plugin}  - tag: forward
    type: forward
    args:
      upstreams:
{server}  - tag: main
    type: sequence
    args:
{step}      - exec: $forward
      - exec: accept
  - tag: udp
    type: udp_server
    args:
      entry: main
      listen: "{listen}"
  - tag: tcp
    type: tcp_server
    args:
      entry: main
      listen: "{listen}"
"#
    )
}

fn hickory(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, .. } = setup;
    let protocol = match setup.task.transport {
        Transport::Udp => "type = \"udp\"".to_owned(),
        Transport::Tcp => "type = \"tcp\"".to_owned(),
        Transport::Tls => format!("type = \"tls\", server_name = \"{SERVER_NAME}\""),
        Transport::Https => format!("type = \"https\", server_name = \"{SERVER_NAME}\", path = \"/dns-query\""),
    };
    let user = if setup.is_root { "user = \"root\"\ngroup = \"root\"\n" } else { "" };
    format!(
        r#"listen_addrs_ipv4 = ["{ip}"]
listen_addrs_ipv6 = []
listen_port = {port}
{user}directory = "{dir}"

[[zones]]
zone = "."
zone_type = "External"

[[zones.stores]]
type = "forward"

[zones.stores.options]
cache_size = {entries}
edns0 = false
max_active_requests = {requests}
num_concurrent_reqs = 1

[[zones.stores.name_servers]]
ip = "{up_ip}"
trust_negative_responses = true
connections = [{{ port = {up_port}, protocol = {{ {protocol} }} }}]
"#,
        ip = listen.ip(),
        port = listen.port(),
        dir = setup.dir.display(),
        requests = setup.task.in_flight.max(4_096),
        entries = setup.task.cache.entries(),
        up_ip = upstream.ip(),
        up_port = upstream.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(transport: Transport, cache: Cache) -> Setup<'static> {
        Setup {
            listen: "127.0.0.1:5300".parse().unwrap(),
            control: "127.0.0.1:9180".parse().unwrap(),
            upstream: "127.0.0.1:8530".parse().unwrap(),
            task: Task { transport, cache, threads: 2, in_flight: Task::IN_FLIGHT },
            ca: Path::new("ca.pem"),
            dir: Path::new("dir"),
            is_root: true,
        }
    }

    #[test]
    fn keepwarm_is_set_up_as_its_reference_says() {
        insta::assert_snapshot!(keepwarm(&setup(Transport::Https, Cache::MiB(64))));
    }

    #[test]
    fn a_cache_that_is_off_is_off_everywhere() {
        let off = setup(Transport::Udp, Cache::Off);
        assert!(keepwarm(&off).contains("size = \"0\""));
        assert!(!dnsdist(&off).contains("newPacketCache"));
        assert!(unbound(&off).contains("forward-no-cache: yes"));
        assert!(smartdns(&off).contains("cache-size 0\n"));
        assert!(!oxidns(&off).contains("cache"));
        assert!(hickory(&off).contains("cache_size = 0\n"));
        assert!(off.floor_arguments().contains(&"relay".into()));
    }

    #[test]
    fn the_upstream_and_its_transport_are_in_every_file() {
        for kind in [Kind::Keepwarm, Kind::Dnsdist, Kind::Unbound, Kind::Smartdns, Kind::Oxidns, Kind::Hickory] {
            for transport in kind.upstreams() {
                let text = text(kind, &setup(*transport, Cache::Off));
                assert!(text.contains("8530") && text.contains("5300"), "{kind:?} {transport:?}: {text}");
                let verified = matches!(transport, Transport::Tls | Transport::Https);
                assert_eq!(text.contains(SERVER_NAME), verified, "{kind:?} {transport:?}: {text}");
            }
        }
    }
}
