//! One upstream over one transport: identity, addresses, TLS state, health and counters.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_transport::{
    error::Error as TransportError,
    quic::QuicClient,
    resolve::{Resolve, literal},
    tls::{RootsError, TlsClient},
};
use parking_lot::{Mutex, RwLock};

use super::{ddr::Described, ech::EchState, habits::Habits, latencies::Latencies};
use crate::{
    config::{DnsConfig, PoolSettings, Transport, UpstreamConfig},
    health::{Allowed, BreakerState, Health},
};

/// An upstream over one transport.
pub(crate) struct Endpoint {
    pub(crate) name: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) path: Arc<str>,
    pub(crate) server_name: Arc<str>,
    /// Asked only when another endpoint of the same upstream cannot answer.
    pub(crate) is_fallback: bool,
    /// Exact case of the question is demanded of answers (0x20).
    pub(crate) case_randomization: bool,
    /// Queries go with cookies.
    pub(crate) cookies: bool,
    /// Queries are padded.
    pub(crate) padding: bool,
    /// What it was found not to bear, over all its transports.
    pub(crate) habits: Arc<Habits>,
    /// What a reload may change while connections stay.
    tuning: RwLock<Tuning>,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) quic: Option<QuicClient>,
    pub(crate) ech: EchState,
    /// The plain resolver that designates this one, whose address the certificate must name.
    designated_by: Option<IpAddr>,
    fixed: Vec<IpAddr>,
    resolver: Arc<dyn Resolve>,
    resolved: Mutex<Option<Resolved>>,
    health: [FamilyHealth; 2],
    pub(crate) counters: Counters,
    /// How long answers took, as each worker saw it.
    pub(crate) latencies: Latencies,
    /// The family that datagrams go to, where there are both: an index of `health`.
    family: AtomicUsize,
    /// Streams that the server allowed on the last HTTPS connection; 0 before it said so.
    pub(crate) streams_seen: AtomicUsize,
    /// Whether the HTTPS server refused streams that it had room for: then each request leaves whole before the next begins.
    pub(crate) one_by_one: AtomicBool,
}

/// Settings of the config that hold for all upstreams.
#[derive(Clone, Copy)]
struct Tuning {
    settings: PoolSettings,
    timeout: Duration,
}

impl Tuning {
    fn of(dns: &DnsConfig) -> Tuning {
        Tuning { settings: dns.pool, timeout: dns.timeout }
    }
}

struct Resolved {
    host: Arc<str>,
    addresses: Vec<IpAddr>,
    at: Instant,
}

/// Health of one address family. The flag spares the lock while all is well.
struct FamilyHealth {
    closed: AtomicBool,
    health: Mutex<Health>,
}

/// What happened at an endpoint since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) handshakes_full: AtomicU64,
    pub(crate) handshakes_resumed: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) answers: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) local_errors: AtomicU64,
    pub(crate) wrong_answers: AtomicU64,
    /// Answers refused for their cookie, or asked for again because the server refused ours.
    pub(crate) cookie_errors: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) resends: AtomicU64,
    /// Smoothed latency in microseconds, as the worker that updated it last sees it.
    pub(crate) latency: AtomicU64,
    /// Median and 95th percentile of recent answers in microseconds, likewise; 0 while there are few.
    pub(crate) p50: AtomicU64,
    pub(crate) p95: AtomicU64,
}

/// Adds one; the counters are read for display only.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Address family, with the index of its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Family::V4 => 0,
            Family::V6 => 1,
        }
    }
}

impl Endpoint {
    pub(crate) fn new(
        config: &UpstreamConfig,
        transport: Transport,
        dns: &DnsConfig,
        resolver: &Arc<dyn Resolve>,
    ) -> Result<Endpoint, RootsError> {
        let tls = alpn(transport).map(|alpn| TlsClient::new(&dns.roots, alpn)).transpose()?;
        let quic = match transport {
            Transport::Quic => Some(QuicClient::new(&dns.roots, &[b"doq"], dns.pool.idle_timeout)?),
            Transport::H3 => Some(QuicClient::new(&dns.roots, &[b"h3"], dns.pool.idle_timeout)?),
            _ => None,
        };
        let fixed = match config.host.parse::<IpAddr>() {
            Ok(address) if config.addresses.is_empty() => vec![address],
            _ => config.addresses.clone(),
        };
        let health = || FamilyHealth { closed: AtomicBool::new(true), health: Mutex::new(Health::new(dns.breaker)) };
        Ok(Endpoint {
            name: config.name.clone(),
            transport,
            host: config.host.clone(),
            port: config.port,
            path: config.path.clone(),
            server_name: config.server_name.clone().unwrap_or_else(|| config.host.clone()),
            is_fallback: transport != config.transport,
            case_randomization: config.case_randomization,
            cookies: config.cookies && matches!(transport, Transport::Udp | Transport::Tcp),
            padding: config.padding && transport.is_encrypted(),
            habits: Arc::default(),
            tuning: RwLock::new(Tuning::of(dns)),
            tls,
            quic,
            ech: EchState::new(config.ech, transport, &config.host),
            designated_by: None,
            fixed,
            resolver: resolver.clone(),
            resolved: Mutex::new(None),
            health: [health(), health()],
            counters: Counters::default(),
            latencies: Latencies::default(),
            family: AtomicUsize::new(FAMILY_OF_CONFIG),
            streams_seen: AtomicUsize::new(0),
            one_by_one: AtomicBool::new(false),
        })
    }

    /// Prepares the encrypted face that the plain resolver at `by`, an address of the upstream `config`, designates.
    pub(crate) fn designated(
        config: &UpstreamConfig,
        face: &Described,
        by: IpAddr,
        dns: &DnsConfig,
        resolver: &Arc<dyn Resolve>,
    ) -> Result<Endpoint, RootsError> {
        let config = UpstreamConfig {
            transport: face.transport,
            host: face.host.as_str().into(),
            port: face.port,
            path: face.path.as_str().into(),
            addresses: Vec::new(),
            server_name: None,
            ..config.clone()
        };
        let mut endpoint = Endpoint::new(&config, face.transport, dns, resolver)?;
        endpoint.tls = alpn(face.transport).map(|alpn| TlsClient::designated(&dns.roots, alpn, by)).transpose()?;
        endpoint.designated_by = Some(by);
        Ok(endpoint)
    }

    /// Whether this is that face of the resolver at `by`.
    pub(crate) fn is_designated_as(&self, face: &Described, by: IpAddr) -> bool {
        (self.transport, &*self.host, self.port, &*self.path, self.designated_by)
            == (face.transport, &face.host, face.port, &face.path, Some(by))
    }

    /// Takes over what a new config says of all upstreams. What is known of this one stays.
    pub(crate) fn adopt(&self, dns: &DnsConfig) {
        *self.tuning.write() = Tuning::of(dns);
        for family in &self.health {
            family.health.lock().set_settings(dns.breaker);
        }
    }

    pub(crate) fn settings(&self) -> PoolSettings {
        self.tuning.read().settings
    }

    /// Whether it may publish keys for encrypted client hello, at its name.
    pub(crate) fn is_published_by_name(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Https) && literal(&self.host).is_none()
    }

    /// What a query is given.
    pub(crate) fn timeout(&self) -> Duration {
        self.tuning.read().timeout
    }

    /// The name in the config and the URL.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.name, self.url())
    }

    /// `tls://dns.quad9.net:853`, as in the config.
    pub(crate) fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        format!("{}://{host}:{}{}", self.transport.as_str(), self.port, self.path)
    }

    /// Whether a name leads to its addresses, and none is given.
    pub(crate) fn is_named(&self) -> bool {
        self.fixed.is_empty()
    }

    /// The addresses to dial, those of the healthier family first.
    pub(crate) async fn addresses(&self, now: Instant) -> Result<Vec<SocketAddr>, TransportError> {
        let mut addresses = if self.fixed.is_empty() { self.resolve(now).await? } else { self.fixed.clone() };
        let broken = |address: &IpAddr| !matches!(self.family_allowed(Family::of(*address), now), Allowed::Yes);
        let turned_from = |address: &IpAddr| {
            let family = self.family.load(Ordering::Relaxed);
            family != FAMILY_OF_CONFIG && family != Family::of(*address).index()
        };
        // The order of the config decides between equals.
        addresses.sort_by_key(|address| (broken(address), turned_from(address)));
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }

    /// Asks the resolver at most once in `RESOLVED_FOR`; an old answer serves when asking fails.
    async fn resolve(&self, now: Instant) -> Result<Vec<IpAddr>, TransportError> {
        let host = self.ech.target().unwrap_or_else(|| self.host.clone());
        if let Some(resolved) = &*self.resolved.lock()
            && now.saturating_duration_since(resolved.at) < RESOLVED_FOR
            && resolved.host == host
        {
            return Ok(resolved.addresses.clone());
        }
        match self.resolver.resolve(&host).await {
            Ok(addresses) => {
                *self.resolved.lock() = Some(Resolved { host, addresses: addresses.clone(), at: now });
                Ok(addresses)
            }
            Err(error) => match &*self.resolved.lock() {
                Some(resolved) if resolved.host == host => Ok(resolved.addresses.clone()),
                _ => Err(error),
            },
        }
    }

    /// The addresses as they are known now, without asking anybody.
    pub(crate) fn known_addresses(&self) -> Vec<IpAddr> {
        self.resolved.lock().as_ref().map_or_else(|| self.fixed.clone(), |resolved| resolved.addresses.clone())
    }

    /// Forgets how it fared, and has its name looked up again; what it was serves if that fails.
    pub(crate) fn network_changed(&self) {
        for family in &self.health {
            family.health.lock().reset();
            family.closed.store(true, Ordering::Relaxed);
        }
        self.family.store(FAMILY_OF_CONFIG, Ordering::Relaxed);
        if let Some(resolved) = &mut *self.resolved.lock() {
            resolved.at = resolved.at.checked_sub(RESOLVED_FOR).unwrap_or(resolved.at);
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        let resolved = self.resolved.lock();
        let addresses = match &*resolved {
            Some(resolved) => &resolved.addresses,
            None => &self.fixed,
        };
        let v4 = addresses.iter().any(IpAddr::is_ipv4) || addresses.is_empty();
        let v6 = addresses.iter().any(IpAddr::is_ipv6);
        v4.then_some(Family::V4).into_iter().chain(v6.then_some(Family::V6))
    }

    /// Whether there is another address family to turn to.
    pub(crate) fn has_both_families(&self) -> bool {
        self.families().count() == 2
    }

    /// Turns to the other address family, if there is one, and returns the family in use then. Happy eyeballs for
    /// datagrams, which have no handshake that would tell at once.
    pub(crate) fn turn_from(&self, family: Family) -> Option<Family> {
        if !self.has_both_families() {
            return None;
        }
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        self.family.store(other.index(), Ordering::Relaxed);
        Some(other)
    }

    /// Whether no breaker of this endpoint is open or half-open: the usual case, known without a lock.
    pub(crate) fn is_well(&self) -> bool {
        self.health.iter().all(|family| family.closed.load(Ordering::Relaxed))
    }

    /// Whether queries may go here: the best of its families.
    pub(crate) fn allowed(&self, now: Instant) -> Allowed {
        if self.is_well() {
            return Allowed::Yes;
        }
        let mut best = None;
        for family in self.families() {
            let allowed = self.family_allowed(family, now);
            best = Some(match (best, allowed) {
                (None, allowed) => allowed,
                (Some(Allowed::Yes), _) | (_, Allowed::Yes) => Allowed::Yes,
                (Some(Allowed::Probe), _) | (_, Allowed::Probe) => Allowed::Probe,
                (Some(Allowed::No { until: a }), Allowed::No { until: b }) => Allowed::No { until: a.min(b) },
            });
        }
        best.unwrap_or(Allowed::Yes)
    }

    fn family_allowed(&self, family: Family, now: Instant) -> Allowed {
        let family = &self.health[family.index()];
        if family.closed.load(Ordering::Relaxed) { Allowed::Yes } else { family.health.lock().allowed(now) }
    }

    /// Tells the half-open breakers that their probe is on its way.
    pub(crate) fn probe_started(&self, now: Instant) {
        for family in self.families() {
            let mut health = self.health[family.index()].health.lock();
            if matches!(health.allowed(now), Allowed::Probe) {
                health.probe_started(now);
            }
        }
    }

    /// Notes answers. `count` of them may be noted together.
    pub(crate) fn succeeded(&self, family: Family, now: Instant, latency: Duration, count: u32) {
        let family = &self.health[family.index()];
        let mut health = family.health.lock();
        health.record_success(now, latency, count);
        family.closed.store(matches!(health.allowed(now), Allowed::Yes), Ordering::Relaxed);
    }

    /// Notes a failure that the upstream is to blame for; `true` when this opened the breaker.
    pub(crate) fn failed(&self, family: Family, now: Instant) -> bool {
        let family = &self.health[family.index()];
        let mut health = family.health.lock();
        let before = matches!(health.allowed(now), Allowed::Yes);
        health.record_failure(now, rand::random());
        let after = matches!(health.allowed(now), Allowed::Yes);
        family.closed.store(after, Ordering::Relaxed);
        before && !after
    }

    /// A failed dial does not say which family failed: all those that were tried did.
    pub(crate) fn dial_failed(&self, now: Instant) -> bool {
        let families: Vec<Family> = self.families().collect();
        families.into_iter().filter(|family| self.failed(*family, now)).count() > 0
    }

    /// The state of the breaker for display: that of the better family.
    pub(crate) fn breaker(&self) -> &'static str {
        let states = self.families().map(|family| self.health[family.index()].health.lock().state());
        let rank = |state: &BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen { .. } => 1,
            BreakerState::Open { .. } => 2,
        };
        states.min_by_key(rank).unwrap_or(BreakerState::Closed).as_str()
    }
}

/// The protocols offered over TLS on TCP; `None` where there is no such thing.
fn alpn(transport: Transport) -> Option<&'static [&'static [u8]]> {
    match transport {
        Transport::Udp | Transport::Tcp | Transport::H3 | Transport::Quic => None,
        // No ALPN: RFC 7858 asks for none, and servers that know others only would refuse "dot".
        Transport::Tls => Some(&[]),
        Transport::Https => Some(&[b"h2", b"http/1.1"]),
    }
}

/// No family has failed yet: the addresses are used in the order of the config.
const FAMILY_OF_CONFIG: usize = usize::MAX;

/// For how long resolved addresses are used before the resolver is asked again.
const RESOLVED_FOR: Duration = Duration::from_secs(300);

/// The pool's key: the complete identity of a connection.
///
/// Two keys are equal when they are of the same endpoint and shard. An endpoint is one entry of one config over one transport: two entries
/// share nothing, be they written alike, and an entry that a reload changed shares nothing with what it was.
#[derive(Clone)]
pub(crate) struct EndpointKey {
    pub(crate) endpoint: Arc<Endpoint>,
    /// UDP sockets belong to one worker each; connections with a stream are shared by all.
    pub(crate) shard: Option<usize>,
}

impl EndpointKey {
    pub(crate) fn new(endpoint: &Arc<Endpoint>, shard: Option<usize>) -> EndpointKey {
        EndpointKey { endpoint: endpoint.clone(), shard }
    }

    fn identity(&self) -> impl Hash + Eq + '_ {
        (Arc::as_ptr(&self.endpoint), self.shard)
    }
}

impl PartialEq for EndpointKey {
    fn eq(&self, other: &EndpointKey) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for EndpointKey {}

impl Hash for EndpointKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.endpoint.name, self.endpoint.url())?;
        self.shard.map_or(Ok(()), |shard| write!(f, " worker {shard}"))
    }
}
