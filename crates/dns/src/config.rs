//! Typed settings of the DNS proxy, as meant. How they are written in a file is the binary's business.
//!
//! Each default stands here once, in the `Default` impls; the binary's reference and example print these.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use keepwarm_transport::tls::TlsRoots;

/// Everything that [`Server`](crate::server::Server) needs to start.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Addresses to listen on; each gets UDP and TCP unless its transport says otherwise.
    pub listen: Vec<Listen>,
    /// How upstreams are chosen for a query.
    pub strategy: Strategy,
    /// One deadline for the whole query, retries included. Default 4 s.
    pub timeout: Duration,
    /// Racing: when the next upstream joins; adapts to the measured latency below this. Default 100 ms.
    pub racing_delay: Duration,
    /// Who may ask; everybody else is refused. Default: loopback only.
    pub allow: Vec<IpNet>,
    /// Limits for TCP clients.
    pub clients: ClientLimits,
    /// Resolvers (IP and port) for upstream host names; empty: the system's.
    pub bootstrap: Vec<SocketAddr>,
    /// Answers that are kept.
    pub cache: CacheSettings,
    /// The pool of each upstream.
    pub pool: PoolSettings,
    /// When an upstream is left alone.
    pub breaker: BreakerSettings,
    /// The upstreams, in the order of the file.
    pub upstreams: Vec<UpstreamConfig>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Outbound connections of all pools together. Default 512.
    pub max_connections: usize,
    /// Certificates trusted when connecting to upstreams.
    pub roots: TlsRoots,
}

/// Where clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Listens for datagrams.
    pub udp: bool,
    /// Listens for TCP connections.
    pub tcp: bool,
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
}

/// Limits for clients that come over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// EDNS payload size advertised to clients and the largest datagram sent (RFC 9715). Default 1232.
    pub udp_payload_size: u16,
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            tcp_max: 1024,
            tcp_max_per_client: 64,
            tcp_idle_timeout: Duration::from_secs(10),
            tcp_max_in_flight: 128,
            max_in_flight: 65_536,
            udp_payload_size: 1232,
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

/// When an upstream is left alone and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker. Default 3.
    pub failures: u32,
    /// Or this share of failures within `window`, 0 to 1. Default 0.5.
    pub failure_ratio: f64,
    /// The time over which the share is taken. Default 10 s.
    pub window: Duration,
    /// First pause. Default 1 s.
    pub open: Duration,
    /// The pause doubles up to this. Default 60 s.
    pub open_max: Duration,
    /// Half-open successes that close it. Default 2.
    pub successes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        BreakerSettings {
            failures: 3,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            successes: 2,
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
    /// DNS over HTTPS, RFC 8484.
    Https,
}

impl Transport {
    /// The URL scheme, as in the config: `udp`, `tcp`, `tls`, `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Https => "https",
        }
    }

    /// The port where the URL names none: 53, 53, 853, 443.
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 53,
            Transport::Tls => 853,
            Transport::Https => 443,
        }
    }
}

/// One upstream.
#[derive(Debug, Clone)]
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
    /// 0x20: random case of the question's letters, which the answer must repeat. Default `false`.
    pub case_randomization: bool,
}
