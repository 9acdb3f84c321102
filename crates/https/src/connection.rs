//! Connections to one address of an origin: their identity, how they are dialled, and what keeps an eye on them.
//!
//! What is deliberately not here: which address is chosen (`inventory`) and when a request is sent again (`client`).

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use http::{HeaderMap, uri::Authority};
use keepwarm_pool::{Connected, Connector, DialPhase, DialPhases, Side as PoolSide, Slot};
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase, Side},
    proxy::{Proxy, Target as Destination},
    resolve::Resolve,
    tcp::{self, TcpOptions},
    tls::{TlsInfo, TlsRoots},
};
use parking_lot::{Mutex, RwLock};

use crate::{
    config::{HttpVersions, OriginConfig},
    profile::Profile,
    served::Protocol,
    site::Site,
    tls::TlsDialer,
};

pub(crate) mod h1;
pub(crate) mod h2;
mod phases;
pub(crate) mod upload;
mod watch;

use watch::{FirstBytes, Watched};

/// Everything that makes connections to one origin the same: host, port, profile, protocols, proxy, and whom certificates must lead to. Two
/// targets are equal when all of these are, also across a change of the config.
pub(crate) struct Target {
    host: Box<str>,
    port: u16,
    authority: Authority,
    profile: Arc<Profile>,
    /// Those of the profile.
    headers: Arc<HeaderMap>,
    label: Arc<str>,
    versions: HttpVersions,
    proxy: Option<Arc<Proxy>>,
    roots: TlsRoots,
    /// The hash of what is above but the roots.
    hash: u64,
    /// Has the session tickets: one cache per target.
    dialer: TlsDialer,
    /// For the proxy's own name.
    resolver: Arc<dyn Resolve>,
    /// Hears of dials that failed.
    origin: Mutex<Weak<dyn DialFailed>>,
}

/// Hears of dials that failed and of whom they were made to.
pub(crate) trait DialFailed: Send + Sync {
    /// An address could not be connected to, and it is the address's fault.
    fn dial_failed(&self, ip: IpAddr, error: &Error);
}

/// What a target is made of.
pub(crate) struct TargetParts {
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    pub(crate) authority: Authority,
    pub(crate) profile: Arc<Profile>,
    pub(crate) versions: HttpVersions,
    pub(crate) proxy: Option<Arc<Proxy>>,
    pub(crate) roots: TlsRoots,
    pub(crate) dialer: TlsDialer,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) origin: Weak<dyn DialFailed>,
}

impl Target {
    pub(crate) fn new(parts: TargetParts) -> Target {
        let TargetParts { host, port, authority, profile, versions, proxy, roots, dialer, resolver, origin } = parts;
        let label: Arc<str> = profile.label().into();
        let mut hasher = DefaultHasher::new();
        (&host, port, &label, versions, &proxy).hash(&mut hasher);
        let hash = hasher.finish();
        let headers = crate::head::headers_of(&profile);
        Target {
            host,
            port,
            authority,
            profile,
            headers,
            label,
            versions,
            proxy,
            roots,
            hash,
            dialer,
            resolver,
            origin: Mutex::new(origin),
        }
    }

    /// Reports from now on to the origin of an equal target.
    pub(crate) fn adopt(&self, other: &Target) {
        if !std::ptr::eq(self, other) {
            let origin = other.origin.lock().clone();
            *self.origin.lock() = origin;
        }
    }

    /// Whether dials that fail are told to `site`.
    pub(crate) fn reports_to(&self, site: &Site) -> bool {
        std::ptr::addr_eq(self.origin.lock().as_ptr(), site)
    }

    /// Whether the main target of an origin with these settings is the same.
    pub(crate) fn is(&self, config: &OriginConfig, roots: &TlsRoots) -> bool {
        *self.host == *config.host
            && self.port == config.port
            && self.versions == config.http
            && self.proxy == config.proxy
            && self.roots == *roots
            && self.has_profile(&config.profile)
    }

    fn has_profile(&self, profile: &Arc<Profile>) -> bool {
        Arc::ptr_eq(&self.profile, profile) || self.profile == *profile
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as a request names them; the port is left out where it is 443.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    pub(crate) fn headers(&self) -> &Arc<HeaderMap> {
        &self.headers
    }

    pub(crate) fn versions(&self) -> HttpVersions {
        self.versions
    }

    pub(crate) fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.proxy.as_ref()
    }

    pub(crate) fn roots(&self) -> &TlsRoots {
        &self.roots
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    async fn tcp(&self, ip: IpAddr, deadline: Instant) -> Result<(tokio::net::TcpStream, DialPhases), Error> {
        let addr = SocketAddr::new(ip, self.port);
        let options = TcpOptions::default();
        match &self.proxy {
            None => {
                let (stream, trace) = tcp::connect(&[addr], &options, deadline).await?;
                Ok((stream, phases::direct(&trace)))
            }
            Some(proxy) => {
                let destination = Destination::from(addr);
                let (stream, trace) = proxy.connect(&*self.resolver, &destination, &options, deadline).await?;
                Ok((stream, phases::by_proxy(&trace)))
            }
        }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        std::ptr::eq(self, other)
            || (self.hash == other.hash
                && self.host == other.host
                && self.port == other.port
                && self.versions == other.versions
                && self.proxy == other.proxy
                && self.roots == other.roots
                && self.has_profile(&other.profile))
    }
}

/// The identity of a connection: the target and the address.
#[derive(Clone)]
pub struct Key {
    pub(crate) target: Arc<Target>,
    pub(crate) ip: IpAddr,
}

impl Key {
    /// Host name of the origin.
    pub fn host(&self) -> &str {
        self.target.host()
    }

    /// Port of the origin.
    pub fn port(&self) -> u16 {
        self.target.port()
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The label of the profile, such as `chrome@156`.
    pub fn profile(&self) -> &str {
        &self.target.label
    }

    /// The name under which operators see it: `tiles.example.com:443 203.0.113.7`, and behind it what is not the default, as in
    /// `tiles.example.com:443 203.0.113.7 chrome@156 http/1.1 by proxy.example.com:1080`. Without the proxy's user, so that keys may share
    /// a name that differ by that alone, or by the roots of two configs that followed each other.
    pub fn label(&self) -> String {
        let Target { host, port, profile, label, versions, proxy, .. } = &*self.target;
        let host_port = |host: &str, port| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut name = format!("{} {}", host_port(host, *port), self.ip);
        let profile = (**profile != *Profile::plain()).then(|| label.to_string());
        let versions = (*versions != HttpVersions::Both).then(|| versions.as_str().to_owned());
        let proxy = proxy.as_ref().map(|proxy| format!("by {}", host_port(&proxy.host, proxy.port)));
        for more in [profile, versions, proxy].into_iter().flatten() {
            name.push(' ');
            name.push_str(&more);
        }
        name
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.ip == other.ip && *self.target == *other.target
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.hash.hash(state);
        self.ip.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, label, versions, proxy, .. } = &*self.target;
        write!(f, "{host}:{port} at {} ({label}, {}", self.ip, versions.as_str())?;
        proxy.as_ref().map_or(Ok(()), |proxy| write!(f, ", by {}:{}", proxy.host, proxy.port))?;
        f.write_str(")")
    }
}

/// A connection that speaks HTTP.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) address: SocketAddr,
    pub(crate) tls: TlsInfo,
    /// Time for TCP, and the proxy.
    pub(crate) connect: Duration,
    /// When the server's SETTINGS came; `None` for HTTP/1.1.
    pub(crate) settings: Option<FirstBytes>,
}

/// How requests go over it.
pub(crate) enum Wire {
    Http2(h2::Handle),
    Http1(h1::Handle),
}

impl Connection {
    pub(crate) fn protocol(&self) -> Protocol {
        match self.wire {
            Wire::Http2(_) => Protocol::Http2,
            Wire::Http1(_) => Protocol::Http1,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).field("protocol", &self.protocol()).finish()
    }
}

/// Dials for the pool.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) times: Arc<RwLock<DialTimes>>,
}

/// The times that a dial goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialTimes {
    /// The pool ends a dial that takes longer; the same limit here gives the error its phase.
    pub(crate) connect_timeout: Duration,
    /// How long an HTTP/2 connection idles between two pings.
    pub(crate) check_interval: Duration,
}

impl Dialer {
    async fn dial(&self, key: &Key, slot: Slot<Dialer>) -> Result<Connected<Connection>, Error> {
        let start = tokio::time::Instant::now();
        let DialTimes { connect_timeout, check_interval } = *self.times.read();
        let deadline = (start + connect_timeout).into_std();
        let target = &key.target;
        let (tcp, phases) = target.tcp(key.ip, deadline).await?;
        let address = SocketAddr::new(key.ip, target.port);
        let connect = start.elapsed();
        let (stream, tls) = target.dialer.connect(tcp, &target.host, deadline).await?;
        let phases = phases.with(DialPhase::Tls, tls.handshake);
        let tried = || format!("connect to {address}");
        let wire = match (tls.alpn.as_deref(), target.versions) {
            (Some(b"h2"), _) => {
                let builder = crate::http2_profile::http2_builder(target.profile.http2.as_ref());
                let (stream, first) = Watched::new(stream);
                let start = tokio::time::Instant::now();
                let (handle, capacity) = h2::connect(stream, &builder, slot, check_interval, address).await?;
                let phases = phases.with(DialPhase::Protocol, start.elapsed());
                let (wire, settings) = (Wire::Http2(handle), Some(first));
                let connection = Connection { wire, address, tls, connect, settings };
                return Ok(Connected::new(connection).capacity(capacity).phases(phases));
            }
            (_, HttpVersions::Http2) => {
                let happened = "the server does not speak h2, the only protocol that is asked for";
                return Err(Error::new(ErrorKind::Alpn, Phase::Tls, tried(), happened));
            }
            // A server that knows no ALPN speaks HTTP/1.1 (RFC 9110 section 4.2.2).
            (Some(b"http/1.1") | None, _) => Wire::Http1(h1::connect(stream, slot, address).await?),
            (Some(other), _) => {
                let happened = format!("the server chose {}, which was not offered", other.escape_ascii());
                return Err(Error::new(ErrorKind::Alpn, Phase::Tls, tried(), happened));
            }
        };
        Ok(Connected::new(Connection { wire, address, tls, connect, settings: None }).phases(phases))
    }
}

impl Connector for Dialer {
    type Key = Key;
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self, key: &Key, slot: Slot<Dialer>) -> Result<Connected<Connection>, Error> {
        let result = self.dial(key, slot).await;
        if let Err(error) = &result
            && error.side() == Side::Upstream
            && let Some(origin) = { key.target.origin.lock().upgrade() }
        {
            origin.dial_failed(key.ip, error);
        }
        result
    }

    async fn validate(&self, key: &Key, connection: &Connection) -> Result<(), Error> {
        match &connection.wire {
            Wire::Http2(handle) => handle.ping(key.ip).await,
            // Nothing may be sent on it but a request; its reader has watched it all the time.
            Wire::Http1(_) => Ok(()),
        }
    }

    fn side(&self, error: &Error) -> PoolSide {
        match error.side() {
            Side::Client => PoolSide::Client,
            Side::Upstream => PoolSide::Upstream,
            Side::Local => PoolSide::Local,
        }
    }

    fn kind(&self, error: &Error) -> &'static str {
        error.kind().as_str()
    }

    fn capacity_hint(&self, key: &Key) -> Option<u32> {
        (key.target.versions == HttpVersions::Http1).then_some(1)
    }

    fn label(&self, key: &Key) -> String {
        key.label()
    }
}
