//! Typed settings of the DNS proxy, as meant. How they are written in a file is the binary's business.
//!
//! Each default stands here once, in the `Default` impls; the binary's reference and example print these.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
pub use keepwarm_pool::BreakerSettings;
use keepwarm_transport::tls::TlsRoots;

/// Everything that [`Server`](crate::server::Server) needs to start.
///
/// The default has no upstream and listens nowhere; `DnsConfig { upstreams, listen, ..DnsConfig::default() }` is the usual
/// way to write one.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Certificate of the encrypted listeners; they need one, the others do not.
    pub tls: Option<ListenTls>,
    /// How upstreams are chosen for a query.
    pub strategy: Strategy,
    /// One deadline for the whole query, retries included. Default 4 s.
    pub timeout: Duration,
    /// Racing: when the next upstream joins; adapts to the measured latency below this. Default 100 ms.
    pub racing_delay: Duration,
    /// How many second tries the `hedged` strategy may make.
    pub hedge: HedgeSettings,
    /// Which group answers for which names; the longest suffix wins. Names without a route go to [`DEFAULT_GROUP`].
    pub routes: Vec<RouteConfig>,
    /// The group that is asked when every upstream of a query's own group has failed. Default: none.
    pub fallback: Option<Arc<str>>,
    /// Who may ask; everybody else is refused. Default: loopback only.
    pub allow: Vec<IpNet>,
    /// Limits for clients.
    pub clients: ClientLimits,
    /// What upstreams are told of the client's network (RFC 7871).
    pub client_subnet: ClientSubnet,
    /// Names that are answered without any upstream.
    pub local: LocalSettings,
    /// Where queries are written down, and what of them.
    pub query_log: QueryLogSettings,
    /// Resolvers (IP and port) for upstream host names; empty: the system's.
    pub bootstrap: Vec<SocketAddr>,
    /// Answers that are kept.
    pub cache: CacheSettings,
    /// The pool of each upstream.
    pub pool: PoolSettings,
    /// When an upstream is left alone.
    pub breaker: BreakerSettings,
    /// A query that takes longer than this, or fails, is remembered for [`recent`](crate::server::Server::recent). Default 500 ms.
    pub slow: Duration,
    /// The upstreams, in the order of the file.
    pub upstreams: Vec<UpstreamConfig>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Outbound connections of all pools together. Default 512.
    pub max_connections: usize,
    /// Certificates trusted when connecting to upstreams.
    pub roots: TlsRoots,
}

impl Default for DnsConfig {
    fn default() -> Self {
        DnsConfig {
            listen: Vec::new(),
            tls: None,
            strategy: Strategy::default(),
            timeout: Duration::from_secs(4),
            racing_delay: Duration::from_millis(100),
            hedge: HedgeSettings::default(),
            routes: Vec::new(),
            fallback: None,
            allow: vec![
                Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
                IpNet::from(std::net::IpAddr::from(Ipv6Addr::LOCALHOST)),
            ],
            clients: ClientLimits::default(),
            client_subnet: ClientSubnet::default(),
            local: LocalSettings::default(),
            query_log: QueryLogSettings::default(),
            bootstrap: Vec::new(),
            cache: CacheSettings::default(),
            pool: PoolSettings::default(),
            breaker: BreakerSettings::default(),
            slow: Duration::from_millis(500),
            upstreams: Vec::new(),
            workers: 0,
            max_connections: 512,
            roots: TlsRoots::system(),
        }
    }
}

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What is spoken there.
    pub transport: ListenTransport,
    /// Path of the DoH URL; `/dns-query` where the config names none. Empty for other transports.
    pub path: Arc<str>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenTransport {
    /// Plain DNS over both UDP and TCP, on one port.
    Plain,
    /// Plain DNS over UDP alone.
    Udp,
    /// Plain DNS over TCP alone, RFC 7766.
    Tcp,
    /// DNS over TLS, RFC 7858.
    Tls,
    /// DNS over HTTPS, RFC 8484, with HTTP/2 and HTTP/1.1 over TLS.
    Https,
    /// DNS over HTTPS with HTTP/3.
    H3,
    /// DNS over QUIC, RFC 9250.
    Quic,
}

impl ListenTransport {
    /// The URL scheme, as in the config; `plain` has none there.
    pub fn as_str(self) -> &'static str {
        match self {
            ListenTransport::Plain => "plain",
            ListenTransport::Udp => "udp",
            ListenTransport::Tcp => "tcp",
            ListenTransport::Tls => "tls",
            ListenTransport::Https => "https",
            ListenTransport::H3 => "h3",
            ListenTransport::Quic => "quic",
        }
    }

    /// Takes datagrams: UDP itself, or QUIC over it.
    pub fn over_udp(self) -> bool {
        matches!(self, ListenTransport::Plain | ListenTransport::Udp | ListenTransport::H3 | ListenTransport::Quic)
    }

    /// Takes TCP connections.
    pub fn over_tcp(self) -> bool {
        !matches!(self, ListenTransport::Udp | ListenTransport::H3 | ListenTransport::Quic)
    }

    /// Clients see a certificate.
    pub fn is_encrypted(self) -> bool {
        matches!(self, ListenTransport::Tls | ListenTransport::Https | ListenTransport::H3 | ListenTransport::Quic)
    }
}

impl Listen {
    /// A listener for plain DNS over UDP and TCP.
    pub fn plain(address: SocketAddr) -> Listen {
        Listen::new(address, ListenTransport::Plain)
    }

    /// A listener with the path that DoH has by default.
    pub fn new(address: SocketAddr, transport: ListenTransport) -> Listen {
        let is_http = matches!(transport, ListenTransport::Https | ListenTransport::H3);
        Listen { address, transport, path: if is_http { DOH_PATH } else { "" }.into() }
    }
}

/// The path of a DoH URL where the config names none.
pub const DOH_PATH: &str = "/dns-query";

/// The certificate that encrypted listeners show. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// PEM file with the certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// How upstreams are chosen for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// In the order of the config; the next one when the one before failed.
    Sequential,
    /// All at once; the first valid answer wins.
    Parallel,
    /// One after the other without waiting for failure: the next joins after `racing_delay`.
    #[default]
    Racing,
    /// Each query starts one further; the next one when that failed.
    RoundRobin,
    /// A random one first, as often as its weight says; the next one when that failed.
    Random,
    /// The one with the fewest queries in flight by its weight first; the next one when that failed.
    LeastLoaded,
    /// The one with the lowest decaying estimate of latency first, with some exploration; the next one when that failed.
    Fastest,
    /// As `Fastest`, and a second one joins when the first has not answered within its own 95th percentile, within the
    /// budget of [`HedgeSettings`].
    Hedged,
}

impl Strategy {
    /// The name in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Sequential => "sequential",
            Strategy::Parallel => "parallel",
            Strategy::Racing => "racing",
            Strategy::RoundRobin => "round-robin",
            Strategy::Random => "random",
            Strategy::LeastLoaded => "least-loaded",
            Strategy::Fastest => "fastest",
            Strategy::Hedged => "hedged",
        }
    }
}

/// How many second tries the `hedged` strategy may make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeSettings {
    /// Second tries, as a share of the queries, 0 to 1. Default 0.05.
    pub budget: f64,
    /// Second tries that may be saved up for a bad moment. Default 10.
    pub burst: u32,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        HedgeSettings { budget: 0.05, burst: 10 }
    }
}

/// Names that go to a group of their own, as in split horizon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Suffixes in presentation form, without regard to case: `corp.example` stands for itself and all names below it.
    pub suffixes: Vec<Arc<str>>,
    /// The group that is asked.
    pub group: Arc<str>,
}

/// The group of upstreams that name none, which is asked for names without a route.
pub const DEFAULT_GROUP: &str = "default";

/// What upstreams are told of the client's network (RFC 7871).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientSubnet {
    /// The option that a client sends is removed, and none is added.
    Strip,
    /// The option that a client sends goes on untouched, and none is added.
    #[default]
    Pass,
    /// Each query carries the client's network, cut to these prefix lengths, in place of what the client sent. A client that
    /// sent a prefix of length 0 is left as it wishes (RFC 7871 section 7.1.2).
    Set {
        /// Bits of an IPv4 address, 0 to 32. RFC 7871 section 11.1 recommends 24.
        v4: u8,
        /// Bits of an IPv6 address, 0 to 128. RFC 7871 section 11.1 recommends 56.
        v6: u8,
    },
    /// Each query carries this network, in place of what the client sent.
    Fixed(IpNet),
}

/// Names that are answered without any upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSettings {
    /// Hosts files, read again when they change. Default: none.
    pub hosts: Vec<PathBuf>,
    /// TTL of what hosts files say. Default 60 s.
    pub hosts_ttl: Duration,
    /// Records in zone-file form, with absolute names, one each.
    pub records: Vec<Arc<str>>,
    /// AAAA queries get an empty answer, for networks whose IPv6 does not work. Default `false`.
    pub filter_aaaa: bool,
    /// Special names are answered here: localhost, invalid and test (RFC 6761), local (RFC 6762), onion (RFC 7686), home.arpa
    /// (RFC 8375), resolver.arpa (RFC 9462), private reverse zones (RFC 6303). A route for such a name wins. Default `true`.
    pub special_names: bool,
}

impl Default for LocalSettings {
    fn default() -> Self {
        LocalSettings {
            hosts: Vec::new(),
            hosts_ttl: Duration::from_secs(60),
            records: Vec::new(),
            filter_aaaa: false,
            special_names: true,
        }
    }
}

/// Where queries are written down, and what of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLogSettings {
    /// What is written. Default: nothing.
    pub privacy: QueryLogPrivacy,
    /// The file, one JSON object a line; `None` with `Off` only.
    pub file: Option<PathBuf>,
    /// The file is renamed to `FILE.1` when it has grown to so many bytes, and `FILE.1` is lost. Default 64 MiB.
    pub max_size: u64,
    /// Entries that wait to be written; beyond it new ones are dropped and counted. Default 8192.
    pub queue: usize,
}

impl Default for QueryLogSettings {
    fn default() -> Self {
        QueryLogSettings { privacy: QueryLogPrivacy::Off, file: None, max_size: 64 << 20, queue: 8192 }
    }
}

/// What the query log says of clients and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryLogPrivacy {
    /// Nothing is written.
    #[default]
    Off,
    /// Clients and names as keyed hashes, whose key is random, lives in memory only and changes each day.
    Hashed,
    /// Clients and names as they are.
    Full,
}

/// Limits for clients. Those on connections hold for TCP, TLS, HTTPS and QUIC alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// TCP connections of all clients. Default 1024.
    pub tcp_max: usize,
    /// TCP connections of one client address. Default 64.
    pub tcp_max_per_client: usize,
    /// A TCP connection without a query for so long is closed (RFC 7766 section 6.2.3). Default 10 s.
    pub tcp_idle_timeout: Duration,
    /// Queries in flight on one TCP connection; more are read when answers left. Default 128.
    pub tcp_max_in_flight: usize,
    /// Queries in flight of all clients together; beyond it new ones are dropped (UDP) or answered SERVFAIL (TCP). Default 65,536.
    pub max_in_flight: usize,
    /// Queries in flight of one client address, over all its sockets and connections; 0: no limit. Beyond it new ones are
    /// answered REFUSED. Default 0.
    pub max_in_flight_per_client: usize,
    /// Queries a second of one client address (an IPv6 client is its /64); 0: no limit. Beyond it UDP queries are answered
    /// with TC or dropped, and streams are answered REFUSED. Default 0.
    pub rate_limit: u32,
    /// EDNS payload size advertised to clients and the largest datagram sent (RFC 9715). Default 1232.
    pub udp_payload_size: u16,
    /// Peers whose connections and datagrams begin with a PROXY protocol version 2 header, which names the client. Peers that
    /// are not listed are clients themselves. Default: none.
    pub proxy_protocol: Vec<IpNet>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            tcp_max: 1024,
            tcp_max_per_client: 64,
            tcp_idle_timeout: Duration::from_secs(10),
            tcp_max_in_flight: 128,
            max_in_flight: 65_536,
            max_in_flight_per_client: 0,
            rate_limit: 0,
            udp_payload_size: 1232,
            proxy_protocol: Vec::new(),
        }
    }
}

/// Which answers are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Memory for answers, in bytes, the store's own included; 0 turns the cache off. Default 64 MiB.
    pub size: usize,
    /// A shorter TTL is raised to this; above zero it keeps answers longer than their owner allows. Default 0 s.
    pub min_ttl: Duration,
    /// A longer TTL is lowered to this. Default 1 day.
    pub max_ttl: Duration,
    /// Ceiling for negative answers (RFC 2308 section 5). Default 5 min.
    pub negative_ttl: Duration,
    /// For how long after its end an answer serves when upstreams fail (RFC 8767); zero turns that off. Default 1 h.
    pub stale: Duration,
    /// Popular answers are asked for again before they end. Default `true`.
    pub prefetch: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        CacheSettings {
            size: 64 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            negative_ttl: Duration::from_secs(300),
            stale: Duration::from_secs(3600),
            prefetch: true,
        }
    }
}

/// Settings of the connections to one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections to one upstream and transport. Default 10.
    pub max_per_host: usize,
    /// Kept connected even when nothing asks. Default 1.
    pub min_idle: usize,
    /// Queries in flight on one connection. Default 128.
    pub max_in_flight: usize,
    /// Queries waiting for a connection of one upstream. Default 4096.
    pub max_waiters: usize,
    /// Ceiling for idle connections; the limit that an upstream really keeps is learned below it. Default 5 min.
    pub idle_timeout: Duration,
    /// A connection is replaced at this age, less up to 15 %. Default 30 min.
    pub max_lifetime: Duration,
    /// Limit for one connection attempt, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// Limit for waiting for a connection. Default 2 s.
    pub acquire_timeout: Duration,
    /// A connection that idled longer than this is validated before use. Default 30 s.
    pub check_interval: Duration,
    /// Period of the reaper's sweep. Default 30 s.
    pub cleanup_interval: Duration,
    /// A UDP socket is retired after so many queries. Default 2000.
    pub udp_max_queries: u32,
    /// A UDP socket is retired at this age. Default 60 s.
    pub udp_max_age: Duration,
    /// `false`: a connection per query, for comparison only. Default `true`.
    pub reuse: bool,
}

impl Default for PoolSettings {
    fn default() -> Self {
        PoolSettings {
            max_per_host: 10,
            min_idle: 1,
            max_in_flight: 128,
            max_waiters: 4096,
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(1800),
            connect_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(2),
            check_interval: Duration::from_secs(30),
            cleanup_interval: Duration::from_secs(30),
            udp_max_queries: 2000,
            udp_max_age: Duration::from_secs(60),
            reuse: true,
        }
    }
}

/// The protocol spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams, TC repeated over TCP.
    Udp,
    /// RFC 7766.
    Tcp,
    /// DNS over TLS, RFC 7858.
    Tls,
    /// DNS over HTTPS, RFC 8484, with HTTP/2 or HTTP/1.1.
    Https,
    /// DNS over HTTPS with HTTP/3.
    H3,
    /// DNS over QUIC, RFC 9250.
    Quic,
}

impl Transport {
    /// The URL scheme, as in the config: `udp`, `tcp`, `tls`, `https`, `h3`, `quic`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Https => "https",
            Transport::H3 => "h3",
            Transport::Quic => "quic",
        }
    }

    /// The port where the URL names none: 53, 53, 853, 443, 443, 853.
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 53,
            Transport::Tls | Transport::Quic => 853,
            Transport::Https | Transport::H3 => 443,
        }
    }

    /// What is sent can be read by the upstream alone.
    pub fn is_encrypted(self) -> bool {
        !matches!(self, Transport::Udp | Transport::Tcp)
    }
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Name in logs, status and metrics.
    pub name: Arc<str>,
    /// Protocol.
    pub transport: Transport,
    /// Host name or IP address (without brackets).
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Path and query of the DoH URL; `/dns-query` where the config names none. Empty for other transports.
    pub path: Arc<str>,
    /// Fixed IPs, used instead of resolving `host`.
    pub addresses: Vec<std::net::IpAddr>,
    /// TLS name, where it differs from `host`.
    pub server_name: Option<Arc<str>>,
    /// The group that it belongs to. Default [`DEFAULT_GROUP`].
    pub group: Arc<str>,
    /// Share of the queries for `random` and `least-loaded`, beside the other weights; 1 to 1000. Default 1.
    pub weight: u32,
    /// 0x20: random case of the question's letters, which the answer must repeat; given up by itself where the upstream does
    /// not. Default `false`.
    pub case_randomization: bool,
    /// DNS cookies (RFC 7873) over UDP and TCP. Default `true`.
    pub cookies: bool,
    /// Queries are padded to blocks of 128 bytes (RFC 8467) over encrypted transports. Default `true`.
    pub padding: bool,
    /// Encrypted client hello, for DoT and DoH. Default [`Ech::Auto`].
    pub ech: Ech,
    /// Upgrade of a plain upstream to its encrypted face (RFC 9462). Default [`Ddr::Off`].
    pub ddr: Ddr,
}

impl UpstreamConfig {
    /// An upstream with the defaults of its transport.
    pub fn new(name: &str, transport: Transport, host: &str, port: u16) -> UpstreamConfig {
        let is_http = matches!(transport, Transport::Https | Transport::H3);
        UpstreamConfig {
            name: name.into(),
            transport,
            host: host.into(),
            port,
            path: if is_http { DOH_PATH } else { "" }.into(),
            addresses: Vec::new(),
            server_name: None,
            group: DEFAULT_GROUP.into(),
            weight: 1,
            case_randomization: false,
            cookies: true,
            padding: true,
            ech: Ech::default(),
            ddr: Ddr::default(),
        }
    }
}

/// Whether the TLS name is hidden from those on the way (encrypted client hello, RFC 9849). The keys come from the HTTPS record
/// of the upstream's host (RFC 9848).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ech {
    /// Used where the upstream publishes keys that work.
    #[default]
    Auto,
    /// No connection without it.
    Require,
    /// Never; no HTTPS record is asked for.
    Off,
}

/// Whether a plain upstream is asked for its encrypted face and reached over that (discovery of designated resolvers,
/// RFC 9462). The certificate must be valid for the upstream's IP address (section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ddr {
    /// Plain DNS, as configured.
    #[default]
    Off,
    /// Encrypted where the upstream designates a face that can be verified, plain otherwise.
    Auto,
    /// Encrypted or not at all.
    Require,
}
