//! What tunnels are told: listeners, users, upstreams, rules, limits. Typed and checked; the file format belongs to the binary.
//!
//! Each default is written once, here.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use keepwarm_transport::{
    proxy::{Proxy, Target},
    tls::TlsRoots,
};

/// Everything that [`Connector`](crate::Connector) and [`Server`](crate::Server) need.
#[derive(Debug, Clone, PartialEq)]
pub struct TunnelConfig {
    /// Where clients come in. Default none: the library alone.
    pub listen: Vec<Listen>,
    /// Who may use the listeners, by user and password; empty: everyone who reaches them, which are then loopback addresses only.
    pub users: Vec<User>,
    /// Clients of all listeners at a time; one more is closed at once. Default 4096.
    pub max_clients: usize,
    /// Live tunnels of all destinations. Default 4096.
    pub max_tunnels: usize,
    /// Live tunnels to one host and port; the rest wait in order. Default 10.
    pub max_per_destination: usize,
    /// Tunnels that wait for one destination; one more fails at once. Default 1024.
    pub max_waiters: usize,
    /// Longest wait for a permit of the destination, and for one of all tunnels. Default 10 s.
    pub acquire_timeout: Duration,
    /// Longest time from the permit to the destination's word, failover included. Default 30 s.
    pub timeout: Duration,
    /// Longest time for a client's handshake, from its first byte expected to its request complete. Default 10 s.
    pub handshake_timeout: Duration,
    /// A tunnel without a byte in either direction ends after this. Default 1 h.
    pub idle_timeout: Duration,
    /// A tunnel one side of which has ended, without a byte in the other direction. Default 5 min.
    pub half_open_timeout: Duration,
    /// How upstreams of one group and priority share. Default [`Strategy::Ordered`].
    pub strategy: Strategy,
    /// For how long an upstream that failed must be well before tunnels that it comes first for return to it; `None`: not before its
    /// stand-in fails. Default 10 s.
    pub switch_back: Option<Duration>,
    /// Spares of each upstream.
    pub pool: PoolConfig,
    /// When an upstream is left alone, and for how long.
    pub breaker: BreakerSettings,
    /// Proxies, in the order of the file. Names are unique.
    pub upstreams: Vec<UpstreamConfig>,
    /// Which destination goes where; the first match counts.
    pub rules: Vec<Rule>,
    /// Where the rest goes. Default [`Via::Direct`].
    pub default: Via,
    /// Whom the certificates of `https://` proxies must lead to. Default: the system's roots.
    pub roots: TlsRoots,
    /// UDP ASSOCIATE.
    pub udp: UdpConfig,
    /// A tunnel that takes so long until it is ready, the wait for its permit included, is kept in mind as a slow one. Default 3 s.
    pub slow: Duration,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// IP and port; port 0: the system's choice.
    pub address: SocketAddr,
    /// What is spoken there.
    pub kind: ListenKind,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenKind {
    /// SOCKS5, SOCKS4a and HTTP, by the first byte.
    Mixed,
    /// SOCKS5 and SOCKS4a.
    Socks,
    /// HTTP: CONNECT and absolute-form requests.
    Http,
    /// Nothing: each connection is a tunnel to this destination. Needs no user.
    Forward(Target),
}

/// One user of the listeners.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Name, 1 to 255 bytes without a colon.
    pub name: String,
    /// Password, 1 to 255 bytes.
    pub password: String,
}

/// How upstreams of one group and priority share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// The first that is well; the others are its backups, in the order of the file.
    #[default]
    Ordered,
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest live tunnels.
    LeastLoaded,
    /// The one whose tunnels were ready soonest of late.
    Fastest,
}

/// Spares of one upstream. The names are those of `[tunnel.pool]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Greeted and authenticated connections kept ready while the upstream is in use. Default 8; 0: none, each tunnel dials.
    pub spares: usize,
    /// What is kept ready when nothing was asked for five minutes. Default 1.
    pub spares_min: usize,
    /// As many are kept ready at most, when the rate of tunnels asks for it. Default 64.
    pub spares_max: usize,
    /// Ceiling of a spare's age; what the proxy really allows is learned below it, beginning at 12 s. Default 30 s.
    pub idle_timeout: Duration,
    /// Longest time to connect to the proxy, greet it and authenticate. Default 10 s.
    pub connect_timeout: Duration,
    /// How often the upstream's health is checked over a spare; zero: never. Default 60 s.
    pub check_interval: Duration,
}

/// When an upstream is left alone. The same as that of DNS upstreams.
pub use keepwarm_pool::BreakerSettings;

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Name in rules, status and logs.
    pub name: Arc<str>,
    /// What it is.
    pub kind: UpstreamKind,
    /// A proxy through which this one is reached. Default none.
    pub through: Option<Arc<Proxy>>,
    /// Its group. Default `default`.
    pub group: Arc<str>,
    /// Lower first; equal ones share by [`TunnelConfig::strategy`]. Default 1.
    pub priority: u32,
    /// A destination that health checks and canaries connect to, with HTTP spoken there. Default none: the greeting alone is checked.
    pub check: Option<Target>,
    /// Whether handshakes may be pipelined and payload be sent ahead of the proxy's word once a canary has shown that this upstream
    /// bears it. Default true.
    pub pipeline: bool,
}

/// What an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamKind {
    /// No proxy: this machine connects itself.
    Direct,
    /// SOCKS5 or HTTP CONNECT, also over TLS.
    Proxy(Arc<Proxy>),
    /// An SSH server (RFC 4254 section 7.2, `direct-tcpip`). Needs the feature `ssh`.
    Ssh(Arc<SshConfig>),
}

/// An SSH server.
#[derive(Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// Host name or address.
    pub host: String,
    /// Default 22.
    pub port: u16,
    /// User.
    pub user: String,
    /// Private key in OpenSSH's format. One of this and `password` is there.
    pub key: Option<PathBuf>,
    /// Password.
    pub password: Option<String>,
    /// The server's key: its fingerprint (`SHA256:...`), or a `known_hosts` file.
    pub host_key: HostKey,
    /// Tunnels over one session at a time, 1 to 64. Fewer sessions with more, and a client that stops reading holds up the others of its
    /// session. Default 1.
    pub channels: u32,
}

/// How an SSH server is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKey {
    /// `SHA256:` and the base64 digest, as `ssh-keygen -l` writes it.
    Fingerprint(String),
    /// A file in the format of OpenSSH's `known_hosts`.
    KnownHosts(PathBuf),
}

/// Which destinations go where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Any of these.
    pub matches: Vec<Match>,
    /// Where to.
    pub via: Via,
    /// Tunnels to a matching destination that are opened ahead while it is hot, and closed after 5 s if nobody wants them. Only for
    /// ports where the client speaks first. Default 0.
    pub speculate: usize,
}

/// A set of destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Host.
    pub host: HostMatch,
    /// Ports; `None`: all.
    pub ports: Option<RangeInclusive<u16>>,
}

/// A set of hosts. Names are never looked up to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// `*`: every host.
    Any,
    /// This name, lower case.
    Name(String),
    /// `.example.com`: the name (kept without the leading dot) and all below it.
    Suffix(String),
    /// `*.example.com`: all below it (kept without the `*.`), not the name itself.
    Below(String),
    /// Hosts given by an address in this network.
    Net(IpNet),
}

/// Where a tunnel goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// This upstream alone.
    Upstream(Arc<str>),
    /// The upstreams of this group.
    Group(Arc<str>),
    /// This machine connects itself.
    Direct,
    /// Nowhere.
    Reject,
}

/// UDP ASSOCIATE (RFC 1928 section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Whether it is offered. Default true.
    pub enabled: bool,
    /// Associations at a time. Default 256.
    pub max_associations: usize,
    /// An association without a datagram ends after this, and with its TCP connection. Default 5 min.
    pub idle_timeout: Duration,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        TunnelConfig {
            listen: Vec::new(),
            users: Vec::new(),
            max_clients: 4096,
            max_tunnels: 4096,
            max_per_destination: 10,
            max_waiters: 1024,
            acquire_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            half_open_timeout: Duration::from_secs(300),
            strategy: Strategy::default(),
            switch_back: Some(Duration::from_secs(10)),
            pool: PoolConfig::default(),
            breaker: BreakerSettings::default(),
            upstreams: Vec::new(),
            rules: Vec::new(),
            default: Via::Direct,
            roots: TlsRoots::system(),
            udp: UdpConfig::default(),
            slow: Duration::from_secs(3),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            spares: 8,
            spares_min: 1,
            spares_max: 64,
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            check_interval: Duration::from_secs(60),
        }
    }
}

impl Default for UdpConfig {
    fn default() -> Self {
        UdpConfig { enabled: true, max_associations: 256, idle_timeout: Duration::from_secs(300) }
    }
}

impl UpstreamConfig {
    /// An upstream in group `default`, with priority 1, reached directly.
    pub fn new(name: &str, kind: UpstreamKind) -> UpstreamConfig {
        UpstreamConfig {
            name: name.into(),
            kind,
            through: None,
            group: "default".into(),
            priority: 1,
            check: None,
            pipeline: true,
        }
    }
}

impl ListenKind {
    /// `mixed`, `socks5`, `http` or `forward`.
    pub fn as_str(&self) -> &'static str {
        match self {
            ListenKind::Mixed => "mixed",
            ListenKind::Socks => "socks5",
            ListenKind::Http => "http",
            ListenKind::Forward(_) => "forward",
        }
    }
}

impl SshConfig {
    /// Default of [`channels`](Self::channels).
    pub const CHANNELS: u32 = 1;
}

impl Strategy {
    /// Its name in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Ordered => "ordered",
            Strategy::RoundRobin => "round-robin",
            Strategy::LeastLoaded => "least-loaded",
            Strategy::Fastest => "fastest",
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for SshConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}
