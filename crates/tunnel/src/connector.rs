//! Makes tunnels: the way in for programs and for the server alike.
//!
//! A tunnel is a permit of its destination, then the upstreams that the rules allow, one after another, until one reaches it. What
//! happens over one upstream is in `upstream`; in which order they come in `order`.

mod live;
mod make;
mod past;
pub(crate) mod recent;
mod reload;
mod route;
mod state;
mod stats;
mod udp;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::Histogram;
use keepwarm_transport::{proxy::Target, resolve::Resolve};
use parking_lot::{Mutex, RwLock};
use tokio::{sync::Semaphore, task::AbortHandle, time::Instant as Clock};

use crate::{
    config::TunnelConfig,
    error::{Error, ErrorKind},
    permits::Permits,
    ready::Ready,
    upstream::Upstream,
};
use recent::{Attempt, Recent};
use state::State;

pub use live::{Live, Traffic, Tunnel};
pub use past::Totals;
pub use recent::RecentTunnel;
pub use reload::Prepared;
pub use stats::{ConnectorStats, DestinationStats};
pub(crate) use udp::UdpWay;

/// Makes tunnels to destinations by the rules of a [`TunnelConfig`]. Clones are handles of the same.
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
/// use keepwarm_transport::{proxy::{Proxy, Target}, resolve::SystemResolver};
/// use keepwarm_tunnel::{Connector, config::{TunnelConfig, UpstreamConfig, UpstreamKind, Via}};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let exit = Arc::new(Proxy::parse("socks5://ann:secret@exit.example:1080")?);
/// let connector = Connector::new(
///     TunnelConfig {
///         upstreams: vec![UpstreamConfig::new("exit", UpstreamKind::Proxy(exit))],
///         default: Via::Upstream("exit".into()),
///         ..TunnelConfig::default()
///     },
///     Arc::new(SystemResolver::default()),
/// )?;
/// let tunnel = connector.connect(&Target::new("tiles.example", 443)?).await?;
/// println!("over {} after {:?}", tunnel.trace().upstream, tunnel.trace().elapsed);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    /// What is in force. Whoever makes a tunnel takes it once, and keeps it until the tunnel is there.
    state: RwLock<Arc<State>>,
    permits: Arc<Permits>,
    ready: Arc<Ready>,
    recent: Recent,
    resolver: Arc<dyn Resolve>,
    counters: Counters,
    closed: AtomicBool,
    /// One reload at a time.
    reloading: Arc<Semaphore>,
    /// What looks through those that are ready.
    sweep: OnceLock<AbortHandle>,
    /// What upstreams did that are gone.
    past: past::Past,
}

#[derive(Default)]
struct Counters {
    asked: AtomicU64,
    opened: AtomicU64,
    failovers: AtomicU64,
    ahead: AtomicU64,
    failed: [AtomicU64; ErrorKind::ALL.len()],
    waits: Mutex<Histogram>,
}

/// Wishes of one tunnel.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Everything must be done by then. Default: the config's `acquire_timeout` and then its `timeout`.
    pub deadline: Option<Instant>,
    /// The first bytes for the destination, where they are known already: they have been written when the tunnel is handed out. A
    /// tunnel that fails after that is not tried again.
    pub payload: Bytes,
    /// Whether it is for somebody who is not on this machine: what listens on loopback here is then not reached directly, unless a rule
    /// names the destination. Default false.
    pub remote: bool,
}

/// How a tunnel came about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// Name of the upstream, `direct` where this machine connected itself.
    pub upstream: Arc<str>,
    /// Our end of the connection, where this machine connected itself.
    pub local: Option<SocketAddr>,
    /// Age of the spare that served it; `None`: there was none, the connection was dialled for it.
    pub spare: Option<Duration>,
    /// Whether the tunnel itself was there already: opened ahead, or given back by [`Connector::release_clean`].
    pub ready: bool,
    /// Upstream connections that were tried, the last one included.
    pub tries: u32,
    /// Wait for the permits.
    pub waited: Duration,
    /// From the permits to the destination's word.
    pub elapsed: Duration,
}

/// Why a connector could not be made.
#[derive(Debug)]
pub struct StartError(String);

impl Connector {
    /// Begins to keep spares. Names of proxies, and destinations that this machine connects to itself, are looked up by `resolver`.
    ///
    /// # Errors
    /// When two upstreams have one name, a rule leads nowhere, limits contradict each other, or the roots for `https://` proxies cannot be
    /// used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(config: TunnelConfig, resolver: Arc<dyn Resolve>) -> Result<Connector, StartError> {
        let state = State::new(config, None, &resolver).map_err(StartError)?;
        let config = Arc::clone(&state.config);
        let inner = Arc::new(Inner {
            state: RwLock::new(Arc::new(state)),
            permits: Permits::new(config.max_per_destination, config.max_tunnels, config.max_waiters),
            ready: Arc::default(),
            recent: Recent::default(),
            resolver,
            counters: Counters::default(),
            closed: AtomicBool::new(false),
            reloading: Arc::new(Semaphore::new(1)),
            sweep: OnceLock::new(),
            past: past::Past::default(),
        });
        inner.state().upstreams.iter().for_each(Upstream::begin);
        let ready = Arc::downgrade(&inner.ready);
        let sweep = async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                match ready.upgrade() {
                    Some(ready) => ready.sweep(),
                    None => return,
                }
            }
        };
        inner.sweep.get_or_init(|| tokio::spawn(sweep).abort_handle());
        Ok(Connector { inner })
    }

    /// The settings that are in force now.
    pub fn config(&self) -> Arc<TunnelConfig> {
        Arc::clone(&self.inner.state().config)
    }

    /// Connects to `target`.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was begun and passes its permit on.
    pub async fn connect(&self, target: &Target) -> Result<Tunnel, Error> {
        self.connect_with(target, ConnectOptions::default()).await
    }

    /// Connects to `target` with wishes.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). A payload that was sent is not sent again: the error then says that it may have arrived.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_with(&self, target: &Target, options: ConnectOptions) -> Result<Tunnel, Error> {
        let inner = &self.inner;
        inner.counters.asked.fetch_add(1, Ordering::Relaxed);
        let (start, mut attempt) = (Clock::now(), Attempt::default());
        let result = inner.connect(target, options, &mut attempt).await;
        inner.recent.ended(target, &result, attempt, start, inner.state().config.slow);
        match &result {
            Ok(_) => inner.counters.opened.fetch_add(1, Ordering::Relaxed),
            Err(error) => inner.counters.failed[error.kind() as usize].fetch_add(1, Ordering::Relaxed),
        };
        result
    }

    /// Gives a tunnel back for another one to the same destination, which then is there at once. Only for callers who vouch that their
    /// protocol left it where it was when it was opened: every request answered, every byte of the answers read, nothing said that is
    /// meant for this caller alone. Closed instead when others wait for the destination, or when it is not used within 30 s.
    ///
    /// The daemon itself never does this: the bytes of its clients are none of its business.
    pub fn release_clean(&self, tunnel: Tunnel) {
        let (stream, live) = tunnel.into_parts();
        let target = live.target().clone();
        let max = self.config().max_per_destination;
        self.inner.keep(&target, stream, live, CLEAN_FOR, max);
    }

    /// The addresses of proxies, as far as they were reached: when the way to one is another, the
    /// [network changed](Self::network_changed).
    pub fn peers(&self) -> Vec<std::net::IpAddr> {
        self.inner.state().upstreams.iter().filter_map(|upstream| upstream.peer()).collect()
    }

    /// Addresses or routes changed: closes what waits, forgets failures.
    pub fn network_changed(&self) {
        self.inner.ready.clear();
        self.inner.state().upstreams.iter().for_each(|upstream| upstream.network_changed());
    }

    /// Closes every spare; new ones are made.
    pub fn flush(&self) {
        self.inner.ready.clear();
        self.inner.state().upstreams.iter().for_each(|upstream| upstream.flush());
    }

    /// Refuses tunnels from now on, fails those that wait and closes spares. Live tunnels stay with their owners.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        self.inner.permits.close();
        self.inner.sweep.get().inspect(|sweep| sweep.abort());
        self.inner.ready.close();
        for upstream in &self.inner.state().upstreams {
            upstream.close().await;
        }
    }

    /// Whether this machine may connect to, or send to, this address of a destination itself, by the rules and by who asks.
    pub(crate) fn allows(&self, target: &Target, ip: std::net::IpAddr, remote: bool) -> bool {
        self.inner.state().rules.allows(target, ip, remote)
    }

    /// Whether this machine may come to connect to a destination itself.
    pub(crate) fn is_direct(&self, target: &Target) -> bool {
        self.inner.state().is_direct(target)
    }

    /// Another number with each change of where tunnels go and by which way.
    pub(crate) fn ways(&self) -> u64 {
        self.inner.state().ways
    }

    /// Looks up what this machine connects to itself.
    pub(crate) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.inner.resolver
    }
}

impl Inner {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sweep.get().inspect(|sweep| sweep.abort());
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("upstreams", &self.inner.state().upstreams).finish_non_exhaustive()
    }
}

/// A tunnel that was given back is closed when nobody wants it by then.
const CLEAN_FOR: Duration = Duration::from_secs(30);

/// How often those are looked through.
const SWEEP: Duration = Duration::from_secs(1);
