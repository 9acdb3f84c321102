//! What hot HTTPS is told: origins, addresses, profiles, limits. Typed and checked; the file format belongs to the binary.
//!
//! Each default is written once, here.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use ipnet::IpNet;
use keepwarm_transport::tls::TlsRoots;

use crate::profile::Profile;

/// Everything that [`Client`](crate::Client) and the gateway need.
#[derive(Debug, Clone)]
pub struct HttpsConfig {
    /// The origins that are known by name. Others are refused unless [`any_host`](Self::any_host) says otherwise.
    pub origins: Vec<OriginConfig>,
    /// Settings of hosts that no origin names; `None` refuses them. Default none.
    pub any_host: Option<Box<OriginConfig>>,
    /// Hosts kept at a time that no origin names; the one that was not asked for longest is forgotten with its connections.
    /// Default 64.
    pub any_host_max: usize,
    /// Limits and times of the connections.
    pub pool: PoolConfig,
    /// Whom certificates must lead to. Default: the system's roots.
    pub roots: TlsRoots,
    /// Requests that take longer to the head of their answer are noted as slow. Default 5 s.
    pub slow: Duration,
    /// The local HTTP gateway. Default none.
    pub gateway: Option<GatewayConfig>,
}

/// How many connections there may be, and for how long. The names are those of `[https.pool]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections of all origins together, 1 to 65,535. Default 100.
    pub max_total: usize,
    /// Connections of one address of an origin. Default 10.
    pub max_per_host: usize,
    /// Connections without a request, of all origins together; above it the one idle for longest is closed. Default 20.
    pub max_idle: usize,
    /// Requests at a time on one HTTP/2 connection, however many its server allows. Default 100.
    pub max_in_flight: u32,
    /// Requests that wait for a connection to one address. Default 4096.
    pub max_waiters: usize,
    /// Longest time without a request; what a server keeps is learned below it. Default 60 s.
    pub idle_timeout: Duration,
    /// Age at which a connection is retired, up to 15 % earlier at random. Default 10 min.
    pub max_lifetime: Duration,
    /// Longest TCP and TLS set-up of one connection, its validation not included. Default 30 s.
    pub connect_timeout: Duration,
    /// Longest wait for a connection. Default 10 s.
    pub acquire_timeout: Duration,
    /// An HTTP/2 connection idle for longer is pinged before its next use, and about as often while it idles. Default 30 s.
    pub check_interval: Duration,
    /// Shortest pause between two looks for expired connections. Default 60 s.
    pub cleanup_interval: Duration,
}

/// One `https://host:port` and how it is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginConfig {
    /// Host name, lower case, as in certificates; or an IP address without brackets.
    pub host: String,
    /// Default 443.
    pub port: u16,
    /// TLS and HTTP/2 profile. Default [`Profile::plain`].
    pub profile: Arc<Profile>,
    /// Protocols that are offered. Default both.
    pub http: HttpVersions,
    /// Where its addresses are from; empty: DNS.
    pub addresses: Vec<AddressSource>,
    /// How often DNS and files are read again; a shorter time to live of the records counts, but no less than 10 s. `None` reads
    /// once. Default 30 min.
    pub refresh: Option<Duration>,
    /// Addresses kept, the first found; 1 to 65,536. Default 1,024.
    pub addresses_max: usize,
    /// Connections that are made ready at start. Default 0.
    pub warm: usize,
    /// Connections that are kept ready, over as many addresses as possible. Default 0.
    pub min_idle: usize,
    /// The request that an address must answer before its first use, and to come back. `None`: the handshake is enough. Default
    /// none.
    pub validate: Option<Validate>,
    /// Networks whose addresses may be used; empty: all.
    pub allow: Vec<IpNet>,
    /// Networks whose addresses may not be used; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// First pause of an address that failed; doubles up to [`quarantine_max`](Self::quarantine_max), then one probe. Default 5 min.
    pub quarantine: Duration,
    /// Longest pause. Default 1 h.
    pub quarantine_max: Duration,
    /// Failures of an address in a row that put it in quarantine, 1 to 100. Default 1.
    pub failures: u32,
    /// What answers say about an address; the first match counts. Default: 403 and 429 rest the address for a minute, or for as long
    /// as Retry-After says.
    pub verdicts: Vec<Verdict>,
    /// One deadline for a request up to the head of its answer: waits, dials and retries included. For a body that streams the wait for
    /// the head begins at its end. Default 30 s.
    pub timeout: Duration,
    /// Longest pause between two pieces of a body, in either direction. Default 60 s.
    pub body_timeout: Duration,
    /// Tries of one request, the first included; 1 to 10. Default 3.
    pub tries: u32,
    /// Retries per request on average, 0.0 to 1.0, beyond a few saved up: what keeps an outage from doubling the load. Default 0.2.
    pub retry_budget: f64,
    /// Proxy that connections are made through. Default none.
    pub proxy: Option<Arc<keepwarm_transport::proxy::Proxy>>,
    /// Adds the profile's default headers where a request lacks them. Default true.
    pub profile_headers: bool,
}

/// Where addresses of an origin are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressSource {
    /// One address, or each address of a network of at most 65,536; of a larger IPv6 network that many at random.
    Net(IpNet),
    /// A file with an address or a network a line; `#` starts a comment. Read again at each refresh.
    File(PathBuf),
    /// The origin's DNS name beside the other sources.
    Dns,
}

/// Which protocols are offered in ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpVersions {
    /// HTTP/2 and HTTP/1.1; the server chooses.
    #[default]
    Both,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone: a server that chooses something else fails validation.
    Http2,
}

/// The request that says whether an address is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validate {
    /// Default `HEAD`.
    pub method: Method,
    /// Path and query. Default `/`.
    pub path: String,
    /// Statuses that are good. Default 200-399.
    pub statuses: StatusSet,
    /// Longest time from the first packet to the head of the answer. Default 10 s.
    pub timeout: Duration,
}

/// What an answer's status says about the address it came from. Kept apart from the health of its transport: an address that rests is
/// not broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The statuses.
    pub statuses: StatusSet,
    /// For how long the address rests; Retry-After (RFC 9110 section 10.2.3) counts where it is longer, up to
    /// [`quarantine_max`](OriginConfig::quarantine_max). Zero: the answer says nothing about the address.
    pub rest: Duration,
    /// Whether the request is sent once more to another address, where that is safe; the client then sees that answer. Default false.
    pub retry: bool,
}

/// A set of status codes, such as `200-399` or `403,429`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

/// The local HTTP gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where it listens. Loopback only, unless there are users.
    pub listen: Vec<SocketAddr>,
    /// Who may use it, by name and password (Basic, RFC 7617); empty: everyone who reaches it.
    pub users: Vec<User>,
    /// Requests for `http://HOST` as a forward proxy go out as `https://HOST`. Default true; without it they are refused, since this is
    /// a gateway to HTTPS.
    pub upgrade: bool,
    /// Connections of clients at a time; one more is refused with 503. Default 1024.
    pub max_clients: usize,
}

/// One user of the gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Name, without a colon.
    pub name: String,
    /// Password.
    pub password: String,
}

impl Default for HttpsConfig {
    fn default() -> Self {
        HttpsConfig {
            origins: Vec::new(),
            any_host: None,
            any_host_max: 64,
            pool: PoolConfig::default(),
            roots: TlsRoots::system(),
            slow: Duration::from_secs(5),
            gateway: None,
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            max_total: 100,
            max_per_host: 10,
            max_idle: 20,
            max_in_flight: 100,
            max_waiters: 4096,
            idle_timeout: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(10),
            check_interval: Duration::from_secs(30),
            cleanup_interval: Duration::from_secs(60),
        }
    }
}

impl OriginConfig {
    /// An origin at port 443 with every default.
    pub fn new(host: &str) -> OriginConfig {
        OriginConfig {
            host: host.to_ascii_lowercase(),
            port: 443,
            profile: Profile::plain(),
            http: HttpVersions::Both,
            addresses: Vec::new(),
            refresh: Some(Duration::from_secs(30 * 60)),
            addresses_max: 1024,
            warm: 0,
            min_idle: 0,
            validate: None,
            allow: Vec::new(),
            deny: Vec::new(),
            quarantine: Duration::from_secs(5 * 60),
            quarantine_max: Duration::from_secs(3600),
            failures: 1,
            verdicts: vec![Verdict::default()],
            timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            tries: 3,
            retry_budget: 0.2,
            proxy: None,
            profile_headers: true,
        }
    }

    /// Whether `allow` and `deny` let an address be used.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        (self.allow.is_empty() || within(&self.allow)) && !within(&self.deny)
    }
}

impl Default for Validate {
    fn default() -> Self {
        Validate {
            method: Method::HEAD,
            path: "/".to_owned(),
            statuses: StatusSet(vec![200..=399]),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict { statuses: StatusSet(vec![403..=403, 429..=429]), rest: Duration::from_secs(60), retry: false }
    }
}

impl Default for GatewayConfig {
    /// On 127.0.0.1:8180.
    fn default() -> Self {
        GatewayConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8180))],
            users: Vec::new(),
            upgrade: true,
            max_clients: 1024,
        }
    }
}

impl HttpVersions {
    /// `h2,http/1.1`, `http/1.1` or `h2`.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpVersions::Both => "h2,http/1.1",
            HttpVersions::Http1 => "http/1.1",
            HttpVersions::Http2 => "h2",
        }
    }
}

impl StatusSet {
    /// Whether `status` is one of them.
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// Why a set of statuses could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSetError(String);

impl FromStr for StatusSet {
    type Err = StatusSetError;

    /// Reads `200-399`, `403,429` and mixtures; statuses are 100 to 599.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let status = |text: &str| {
            let number = text.trim().parse().ok().filter(|number| (100..=599).contains(number));
            number.ok_or_else(|| StatusSetError(format!("\"{}\" is not a status, which is 100 to 599", text.trim())))
        };
        let range = |part: &str| {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (status(first)?, status(last)?),
                None => (status(part)?, status(part)?),
            };
            if first > last {
                return Err(StatusSetError(format!("\"{}\" ends before it begins", part.trim())));
            }
            Ok(first..=last)
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(StatusSet)
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for StatusSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StatusSetError {}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_sets_are_ranges_and_lists() {
        let set: StatusSet = "200-299, 304,403".parse().expect("valid");
        assert_eq!(set.to_string(), "200-299,304,403");
        for (status, expected) in [(200, true), (299, true), (300, false), (304, true), (403, true), (500, false)] {
            assert_eq!(set.contains(StatusCode::from_u16(status).expect("valid")), expected, "{status}");
        }
        for wrong in ["", "99", "600", "299-200", "2xx", "200-"] {
            assert!(wrong.parse::<StatusSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        let mut origin = OriginConfig::new("Tiles.Example");
        assert_eq!(origin.host, "tiles.example");
        let (inside, denied, outside) = ("192.0.2.1", "192.0.2.200", "198.51.100.1");
        let parse = |ip: &str| ip.parse::<IpAddr>().expect("valid");
        assert!(origin.allows(parse(outside)));
        origin.allow = vec!["192.0.2.0/24".parse().expect("valid")];
        origin.deny = vec!["192.0.2.128/25".parse().expect("valid")];
        assert!(origin.allows(parse(inside)));
        assert!(!origin.allows(parse(denied)));
        assert!(!origin.allows(parse(outside)));
    }

    #[test]
    fn a_password_is_never_shown() {
        let user = User { name: "ann".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{user:?}").contains("hunter2"));
    }
}
