//! Resolvers from Debian as upstreams, over UDP, TCP, DoT and DoH: unbound, dnsdist, BIND and Knot Resolver.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use keepwarm_control::rows::{BreakerState, DnsUpstreamRow};
use keepwarm_lab::{answer_matches, build_query, expected_a};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{gateway::*, program::*};
use crate::support::free_address;

/// A resolver with plain DNS, DoT and DoH on these ports, which knows all [`names`].
struct Resolver {
    authority: Authority,
    folder: TempDir,
    plain: SocketAddr,
    tls: SocketAddr,
    https: SocketAddr,
}

impl Resolver {
    fn new() -> Resolver {
        let [plain, tls, https] = std::array::from_fn(|_| free_address());
        Resolver { authority: Authority::new(), folder: TempDir::new().unwrap(), plain, tls, https }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn start(&self, command: &mut Command) -> Option<Program> {
        Program::start(command, self.folder.path(), &[self.plain, self.tls, self.https]).await
    }

    /// Asks every name through a daemon whose one upstream is this, over `scheme`, and returns the daemon and the row of the
    /// upstream's pool. All answers have to be right.
    async fn asked_over(self, scheme: &str) -> (Resolver, Gateway, DnsUpstreamRow) {
        let Resolver { authority, folder, plain, tls, https } = self;
        let address = match scheme {
            "tls" => format!("{tls}\"\nserver_name = \"{NAME}\""),
            "https" => format!("{https}/dns-query\"\nserver_name = \"{NAME}\""),
            _ => format!("{plain}\""),
        };
        let upstream = format!("[[dns.upstream]]\nname = \"resolver\"\naddress = \"{scheme}://{address}\n");
        let mut gateway = Gateway::before(authority, &upstream).await;
        ask_all(gateway.address("udp")).await;
        let row = gateway.pools().await.into_iter().find(|row| row.transport == scheme).unwrap();
        println!(
            "{scheme}: {QUERIES} answers, {} open, reuse {:?}, {} full and {} resumed handshakes, idle limit {:?}",
            row.open, row.reuse_ratio, row.handshakes_full, row.handshakes_resumed, row.idle_limit
        );
        let authority = std::mem::replace(&mut gateway.authority, Authority::new());
        (Resolver { authority, folder, plain, tls, https }, gateway, row)
    }

    /// All names over all transports: right, on few connections. Returns the idle limits learned over TCP and TLS.
    async fn prove(mut self) -> (Resolver, [Option<Duration>; 2]) {
        let mut limits = [None; 2];
        for scheme in ["udp", "tcp", "tls", "https"] {
            let (resolver, gateway, row) = self.asked_over(scheme).await;
            self = resolver;
            assert_eq!(row.breaker, BreakerState::Closed, "{scheme}: {row:?}");
            assert!(row.dial_errors.is_empty() && row.open <= row.max, "{scheme}: {row:?}");
            let handshakes = row.handshakes_full + row.handshakes_resumed;
            // Twenty queries are under way at a time, which fit on one connection; that some end early is the server's right.
            assert!(row.reuse_ratio.is_some_and(|ratio| ratio >= REUSED) || scheme == "udp", "{scheme}: {row:?}");
            if matches!(scheme, "tls" | "https") {
                assert!((1..=CONNECTIONS).contains(&handshakes), "{scheme}: {row:?}");
            }
            match scheme {
                "tcp" => limits[0] = row.idle_limit,
                "tls" => limits[1] = row.idle_limit,
                _ => {}
            }
            drop(gateway);
        }
        (self, limits)
    }
}

/// The names that a resolver knows, and their addresses.
fn names() -> impl Iterator<Item = (String, Ipv4Addr)> {
    let names = (0..QUERIES).map(|number| format!("n{number}.{ZONE}")).chain([format!("ready.{ZONE}")]);
    names.map(|name| (name.clone(), expected_a(&name)))
}

/// Something of each name, a line each.
fn lines(line: impl Fn(&str, Ipv4Addr) -> String) -> String {
    names().fold(String::new(), |mut text, (name, address)| {
        writeln!(text, "{}", line(&name, address)).unwrap();
        text
    })
}

/// Asks for all names over UDP, some at a time, and checks each answer.
async fn ask_all(gateway: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(gateway).await.unwrap();
    let mut left = (0..QUERIES).map(|number| {
        let id = u16::try_from(number).unwrap();
        (id, build_query(id, &format!("n{number}.{ZONE}"), 1, Some(1232)))
    });
    let mut waiting = HashMap::new();
    let mut buffer = [0; 1232];
    loop {
        while waiting.len() < AT_ONCE
            && let Some((id, query)) = left.next()
        {
            socket.send(&query).await.unwrap();
            waiting.insert(id, query);
        }
        if waiting.is_empty() {
            return;
        }
        let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        let answer = &buffer[..length];
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        let query = waiting.remove(&id).expect("an answer that was asked for, once");
        assert_eq!(answer_matches(&query, answer), Ok(()), "{query:02x?}: {answer:02x?}");
    }
}

/// Asks for the large TXT record: over UDP, where it is too large, and over TCP, where the whole of it comes.
async fn ask_for_the_large_record(gateway: SocketAddr) {
    let query = build_query(9, &format!("big.{ZONE}"), 16, Some(1232));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(gateway).await.unwrap();
    socket.send(&query).await.unwrap();
    let mut buffer = [0; 1232];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert!(length <= 1232 && buffer[2] & 0x02 != 0, "truncated: {:02x?}", &buffer[..length]);
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let length = timeout(Duration::from_secs(10), stream.read_u16()).await.expect("an answer").unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[2] & 0x02, answer[3] & 0x0f), (0, 0), "whole and NOERROR");
    let times = |text: &str| answer.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
    assert_eq!(times(LARGE), LARGE_TIMES, "{} bytes", answer.len());
}

fn large() -> String {
    vec![format!("\"{LARGE}\""); LARGE_TIMES].join(" ")
}

fn unbound(resolver: &Resolver) -> Command {
    let Resolver { authority, folder, plain, tls, https } = resolver;
    let (folder, key, certificate) = (folder.path().display(), authority.key(), authority.certificate());
    let [plain, tls, https] = [plain, tls, https].map(SocketAddr::port);
    let data = lines(|name, address| format!("  local-data: \"{name}. 300 A {address}\""));
    let config = format!(
        r#"server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  interface: 127.0.0.1@{plain}
  interface: 127.0.0.1@{tls}
  interface: 127.0.0.1@{https}
  tls-port: {tls}
  https-port: {https}
  http-endpoint: "/dns-query"
  tls-service-key: "{key}"
  tls-service-pem: "{certificate}"
  edns-tcp-keepalive: yes
  local-zone: "{ZONE}." static
{data}  local-data: 'big.{ZONE}. 300 TXT {}'
remote-control:
  control-enable: no
"#,
        large()
    );
    let mut command = Command::new("unbound");
    command.args(["-d", "-c", &resolver.write("unbound.conf", &config)]);
    command
}

/// BIND takes no UDP query without a cookie of its own here.
fn bind(resolver: &Resolver, statistics: SocketAddr) -> Command {
    let Resolver { authority, folder, plain, tls, https } = resolver;
    let (folder, key, certificate) = (folder.path().display(), authority.key(), authority.certificate());
    let [plain, tls, https, statistics] = [*plain, *tls, *https, statistics].map(|address| address.port());
    let records = lines(|name, address| format!("{name}. A {address}"));
    let zone = format!("$TTL 300\n@ SOA ns h 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\nbig TXT {}\n", large());
    let zone = resolver.write("zone", &(zone + &records));
    let config = format!(
        r#"tls lab {{ cert-file "{certificate}"; key-file "{key}"; }};
http lab {{ endpoints {{ "/dns-query"; }}; }};
options {{
  directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {plain} {{ 127.0.0.1; }};
  listen-on port {tls} tls lab {{ 127.0.0.1; }};
  listen-on port {https} tls lab http lab {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no;
  require-server-cookie yes;
  tcp-advertised-timeout {};
}};
controls {{ }};
statistics-channels {{ inet 127.0.0.1 port {statistics} allow {{ 127.0.0.1; }}; }};
zone "{ZONE}" {{ type primary; file "{zone}"; }};
"#,
        KEEPALIVE.as_millis() / 100
    );
    let mut command = Command::new("named");
    command.args(["-g", "-c", &resolver.write("named.conf", &config)]);
    command
}

/// What BIND has counted of the queries to it.
async fn counted_by_bind(statistics: SocketAddr) -> impl Fn(&str) -> u64 {
    let mut stream = TcpStream::connect(statistics).await.unwrap();
    stream.write_all(b"GET /json/v1/server HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let counters: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    // Those that are zero are left out.
    move |name| counters["nsstats"][name].as_u64().unwrap_or(0)
}

fn knot_resolver(resolver: &Resolver) -> Command {
    let Resolver { authority, folder, plain, tls, https } = resolver;
    let (key, certificate) = (authority.key(), authority.certificate());
    let [plain, tls, https] = [plain, tls, https].map(SocketAddr::port);
    let hints = lines(|name, address| format!("hints['{name}'] = '{address}'"));
    // Everything that would ask the Internet at the start is off.
    let config = format!(
        r#"net.listen('127.0.0.1', {plain}, {{ kind = 'dns' }})
net.listen('127.0.0.1', {tls}, {{ kind = 'tls' }})
net.listen('127.0.0.1', {https}, {{ kind = 'doh2' }})
net.tls('{certificate}', '{key}')
cache.size = 10 * MB
trust_anchors.remove('.')
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
modules.unload('detect_time_skew')
modules = {{ 'hints > iterate' }}
{hints}"#
    );
    let mut command = Command::new("kresd");
    command.args(["-n", "-q", "-c", &resolver.write("kresd.conf", &config)]).arg(folder.path());
    command
}

fn dnsdist(resolver: &Resolver) -> Command {
    let Resolver { authority, plain, tls, https, .. } = resolver;
    let (key, certificate) = (authority.key(), authority.certificate());
    let rules = lines(|name, address| format!("addAction(QNameRule('{name}.'), SpoofAction('{address}'))"));
    let config = format!(
        r#"setLocal('{plain}')
addTLSLocal('{tls}', '{certificate}', '{key}')
addDOHLocal('{https}', '{certificate}', '{key}', '/dns-query')
setSecurityPollSuffix('')
{rules}"#
    );
    let mut command = Command::new("dnsdist");
    command.args(["--supervised", "--disable-syslog", "-C", &resolver.write("dnsdist.conf", &config)]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unbound_answers_two_hundred_queries_over_udp_tcp_dot_and_doh_on_kept_connections() {
    if !has("unbound", "unbound") {
        return;
    }
    let resolver = Resolver::new();
    let Some(_unbound) = resolver.start(&mut unbound(&resolver)).await else { return };
    println!("{}", version("unbound", "-V"));
    let (resolver, limits) = resolver.prove().await;
    // It says for how long it keeps connections (RFC 7828), 120 s by default, and they are let go before.
    for limit in limits {
        assert!(limit.is_some_and(|limit| limit < Duration::from_secs(120)), "{limits:?}");
    }
    let (_resolver, gateway, _) = resolver.asked_over("udp").await;
    ask_for_the_large_record(gateway.address("udp")).await;
    assert!(gateway.pools().await.iter().any(|row| row.transport == "tcp" && row.open > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bind_answers_two_hundred_queries_over_each_transport_and_gets_its_cookies_back() {
    if !has("named", "bind9") {
        return;
    }
    let (resolver, statistics) = (Resolver::new(), free_address());
    let Some(_named) = resolver.start(&mut bind(&resolver, statistics)).await else { return };
    println!("{}", version("named", "-v"));
    let (resolver, gateway, row) = resolver.asked_over("udp").await;
    assert_eq!(row.cookies.as_deref(), Some("yes"), "{row:?}");
    ask_for_the_large_record(gateway.address("udp")).await;
    drop(gateway);
    // The first ones to go out have no cookie of the server's yet; BIND takes none of those.
    let counted = counted_by_bind(statistics).await;
    let right = counted("CookieMatch");
    println!("of {} queries with a cookie {right} had the right one", counted("CookieIn"));
    assert!(right >= 150, "{right}");
    assert_eq!(counted("CookieBadTime") + counted("CookieBadSize") + counted("CookieNoMatch"), 0);

    let (_resolver, limits) = resolver.prove().await;
    for limit in limits {
        assert!(limit.is_some_and(|limit| limit < KEEPALIVE), "{limits:?}");
    }
    let counted = counted_by_bind(statistics).await;
    assert!(counted("KeepAliveOpt") >= 2, "over TCP and TLS");
    assert!(counted("PadOpt") >= 2 * QUERIES as u64, "over TLS and HTTPS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knot_resolver_answers_two_hundred_queries_over_udp_tcp_dot_and_doh_on_kept_connections() {
    if !has("kresd", "knot-resolver") {
        return;
    }
    let resolver = Resolver::new();
    let Some(_kresd) = resolver.start(&mut knot_resolver(&resolver)).await else { return };
    println!("{}", version("kresd", "--version"));
    let (_resolver, limits) = resolver.prove().await;
    assert!(limits.iter().all(Option::is_some), "it says for how long it keeps connections: {limits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnsdist_answers_two_hundred_queries_over_udp_tcp_dot_and_doh_on_kept_connections() {
    if !has("dnsdist", "dnsdist") {
        return;
    }
    let resolver = Resolver::new();
    let Some(_dnsdist) = resolver.start(&mut dnsdist(&resolver)).await else { return };
    println!("{}", version("dnsdist", "--version"));
    resolver.prove().await;
}

const ZONE: &str = "interop.example";
const QUERIES: usize = 200;

/// Queries under way at a time.
const AT_ONCE: usize = 20;

/// Connections that 200 queries may take.
const CONNECTIONS: u64 = 10;

/// The share of the queries that have to find a connection there.
const REUSED: f64 = 0.95;

/// The longest idle time that BIND tells of here.
const KEEPALIVE: Duration = Duration::from_secs(4);

const LARGE: &str = "a string of some length, many times, makes a record too large for a datagram";
const LARGE_TIMES: usize = 40;
