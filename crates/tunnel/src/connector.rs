//! Makes tunnels: the way in for programs and for the server alike.
//!
//! A tunnel is a permit of its destination, then the upstreams that the rules allow, one after another, until one reaches it. What
//! happens over one upstream is in `upstream`; in which order they come in `order`.

mod live;
mod route;
mod stats;
mod udp;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::Histogram;
use keepwarm_transport::{
    proxy::{Blame, Target},
    resolve::Resolve,
};
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant as Clock};

use crate::{
    config::{PoolConfig, TunnelConfig, UpstreamConfig, UpstreamKind},
    error::{Error, ErrorKind, Side},
    meaning,
    permits::{Permits, Refused},
    ready::Ready,
    rules::Rules,
    upstream::{Missed, Reached, Upstream, look_after},
};
use route::{Route, Routes};

pub use live::{Live, Traffic, Tunnel};
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

pub(crate) struct Inner {
    config: TunnelConfig,
    rules: Rules,
    routes: Routes,
    /// Those of the config, and at the end the one that is always there: this machine itself.
    upstreams: Vec<Arc<Upstream>>,
    permits: Arc<Permits>,
    ready: Arc<Ready>,
    resolver: Arc<dyn Resolve>,
    counters: Counters,
    closed: AtomicBool,
    /// What looks after the upstreams.
    tasks: Mutex<Vec<AbortHandle>>,
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
        check(&config).map_err(StartError)?;
        let own = UpstreamConfig::new("direct", UpstreamKind::Direct);
        let routes = Routes::new(&config.upstreams, &config.rules, &config.default).map_err(StartError)?;
        let upstreams: Vec<_> = config
            .upstreams
            .iter()
            .chain([&own])
            .map(|upstream| {
                let made = Upstream::new(upstream.clone(), &config.pool, config.breaker, &resolver, &config.roots);
                made.map(Arc::new).map_err(|error| StartError(format!("upstream {}: {error}", upstream.name)))
            })
            .collect::<Result<_, _>>()?;
        let permits = Permits::new(config.max_per_destination, config.max_tunnels, config.max_waiters);
        let inner = Arc::new(Inner {
            rules: Rules::new(config.rules.clone(), config.default.clone()),
            routes,
            upstreams,
            permits,
            ready: Arc::default(),
            resolver,
            counters: Counters::default(),
            closed: AtomicBool::new(false),
            tasks: Mutex::default(),
            config,
        });
        let interval = inner.config.pool.check_interval;
        let mut tasks: Vec<_> = inner
            .upstreams
            .iter()
            .map(|upstream| tokio::spawn(look_after(Arc::downgrade(upstream), interval)).abort_handle())
            .collect();
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
        tasks.push(tokio::spawn(sweep).abort_handle());
        *inner.tasks.lock() = tasks;
        Ok(Connector { inner })
    }

    /// The settings.
    pub fn config(&self) -> &TunnelConfig {
        &self.inner.config
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
        let result = inner.connect(target, options).await;
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
        self.inner.ready.put(&target, stream, live, CLEAN_FOR, self.inner.config.max_per_destination);
    }

    /// The addresses of proxies, as far as they were reached: when the way to one is another, the
    /// [network changed](Self::network_changed).
    pub fn peers(&self) -> Vec<std::net::IpAddr> {
        self.inner.upstreams.iter().filter_map(|upstream| upstream.peer()).collect()
    }

    /// Addresses or routes changed: closes what waits, forgets failures.
    pub fn network_changed(&self) {
        self.inner.ready.clear();
        self.inner.upstreams.iter().for_each(|upstream| upstream.network_changed());
    }

    /// Closes every spare; new ones are made.
    pub fn flush(&self) {
        self.inner.ready.clear();
        self.inner.upstreams.iter().for_each(|upstream| upstream.flush());
    }

    /// Refuses tunnels from now on, fails those that wait and closes spares. Live tunnels stay with their owners.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        self.inner.permits.close();
        self.inner.tasks.lock().drain(..).for_each(|task| task.abort());
        self.inner.ready.close();
        for upstream in &self.inner.upstreams {
            upstream.close().await;
        }
    }

    /// Whether this machine may connect to, or send to, this address of a destination itself, by the rules and by who asks.
    pub(crate) fn allows(&self, target: &Target, ip: std::net::IpAddr, remote: bool) -> bool {
        self.inner.rules.allows(target, ip, remote)
    }

    /// Whether this machine may come to connect to a destination itself.
    pub(crate) fn is_direct(&self, target: &Target) -> bool {
        let route = self.inner.routes.find(self.inner.rules.decide(target).via);
        route.is_some_and(|route| route.members.iter().any(|&index| self.inner.upstreams[index].is_direct()))
    }

    /// Looks up what this machine connects to itself.
    pub(crate) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.inner.resolver
    }
}

impl Inner {
    async fn connect(self: &Arc<Self>, target: &Target, options: ConnectOptions) -> Result<Tunnel, Error> {
        let start = Clock::now();
        let decision = self.rules.decide(target);
        let route = self.routes.find(decision.via).ok_or_else(|| {
            Error::new(ErrorKind::Rejected, Side::Client, format!("tunnel to {target}: forbidden by a rule"))
        })?;
        let tunnel = self.make(target, route, options, start).await?;
        if decision.speculate > 0 && self.ready.used(target) {
            self.open_ahead(target, decision.speculate);
        }
        Ok(tunnel)
    }

    async fn make(
        self: &Arc<Self>,
        target: &Target,
        route: &Route,
        ConnectOptions { deadline, payload, remote }: ConnectOptions,
        start: Clock,
    ) -> Result<Tunnel, Error> {
        if let Some(tunnel) = self.make_of_ready(target, route, &payload, deadline, start).await? {
            return Ok(tunnel);
        }
        let by = |limit: Duration, since: Clock| {
            // A time without an end is one that is far away.
            let own = since.checked_add(limit).unwrap_or_else(|| since + FAR);
            deadline.map_or(own, |deadline| own.min(deadline.into()))
        };
        let wait = self.permits.acquire(target, by(self.config.acquire_timeout, start), || self.ready.give_way());
        let permit = wait.await;
        let permit = permit.map_err(|refused| self.refused(target, refused, start.elapsed()))?;
        let begun = Clock::now();
        self.counters.waits.lock().record(begun - start);
        let (upstream, reached) =
            self.reach(target, route, &payload, remote, by(self.config.timeout, begun).into_std()).await?;
        let trace = Trace {
            upstream: Arc::clone(upstream.name()),
            spare: reached.spare,
            ready: false,
            tries: reached.tries,
            waited: begun - start,
            elapsed: begun.elapsed(),
        };
        tracing::debug!(%target, upstream = &*trace.upstream, spare = ?trace.spare, tries = trace.tries, elapsed = ?trace.elapsed, "tunnel");
        Ok(Tunnel::new(reached.stream, Live::new(permit, upstream.live(), trace)))
    }

    /// Uses a tunnel that waits for this destination.
    async fn make_of_ready(
        &self,
        target: &Target,
        route: &Route,
        payload: &[u8],
        deadline: Option<Instant>,
        start: Clock,
    ) -> Result<Option<Tunnel>, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed(target));
        }
        let may = |name: &str| route.members.iter().any(|&index| &**self.upstreams[index].name() == name);
        let Some((mut stream, mut live)) = self.ready.take(target, may) else { return Ok(None) };
        if !payload.is_empty() {
            use tokio::io::AsyncWriteExt as _;
            // The peer reads, or the buffers of the kernel take what a client's first packets hold.
            let own = start.checked_add(self.config.timeout).unwrap_or_else(|| start + FAR);
            let limit = deadline.map_or(own, |deadline| own.min(deadline.into()));
            let written = tokio::time::timeout_at(limit, stream.write_all(payload)).await;
            if !matches!(written, Ok(Ok(()))) {
                let text =
                    format!("tunnel to {target}: the connection ended under its first bytes, which may have arrived");
                return Err(Error::new(ErrorKind::HostUnreachable, Side::Upstream, text));
            }
        }
        live.begin_again(start.elapsed());
        Ok(Some(Tunnel::new(stream, live)))
    }

    /// Tries the upstreams of a route in order, until one reaches the destination or the destination itself says no.
    async fn reach(
        &self,
        target: &Target,
        route: &Route,
        payload: &[u8],
        remote: bool,
        deadline: Instant,
    ) -> Result<(Arc<Upstream>, Reached), Error> {
        let may = |ip| self.rules.allows(target, ip, remote);
        let order = route.order(&self.upstreams, &self.config, Clock::now().into_std());
        let (mut tries, mut last) = (0, None);
        let mut silent: Vec<(usize, keepwarm_transport::error::Error)> = Vec::new();
        for (position, &index) in order.iter().enumerate() {
            let upstream = &self.upstreams[index];
            let left = order.len() - position;
            let missed = match upstream.reach(target, payload, &may, share(deadline, left)).await {
                Ok(reached) => {
                    // Where one of a group gets through, the silence of those before it was their own.
                    silent.iter().for_each(|(index, error)| self.upstreams[*index].was_silent(target, error));
                    route.served_by(index);
                    return Ok((Arc::clone(upstream), Reached { tries: tries + reached.tries, ..reached }));
                }
                Err(missed) => missed,
            };
            tries += missed.tries;
            let Missed { error, blame, sent, asked, silent: is_silence, .. } = missed;
            let is_final = sent || blame == Blame::Destination && !is_silence;
            if is_silence {
                silent.push((index, error.clone()));
            }
            let error = meaning::of(target, error, asked, sent);
            if is_final || left == 1 || Clock::now().into_std() >= deadline {
                return Err(meaning::more_telling(last, error));
            }
            self.counters.failovers.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%target, upstream = &**upstream.name(), %error, "the next upstream is tried");
            last = Some(meaning::more_telling(last, error));
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Upstream, Side::Local, format!("tunnel to {target}: no upstream is configured"))
        }))
    }

    /// Opens tunnels to a hot destination ahead, as many as the rule says and permits are free.
    fn open_ahead(self: &Arc<Self>, target: &Target, count: usize) {
        while let Some(opening) = self.ready.opening(target, count) {
            let Some(permit) = self.permits.try_acquire(target) else { return };
            let (inner, target) = (Arc::downgrade(self), target.clone());
            tokio::spawn(async move {
                // Counted as one that is coming until it is there, or not.
                let _opening = opening;
                let Some(inner) = inner.upgrade() else { return };
                let Some(route) = inner.routes.find(inner.rules.decide(&target).via) else { return };
                let begun = Clock::now();
                let deadline = (begun + inner.config.timeout.min(AHEAD_WITHIN)).into_std();
                // Nobody asked for it: a failure is found out again by whoever does.
                let Ok((upstream, reached)) = inner.reach(&target, route, &[], true, deadline).await else { return };
                inner.counters.ahead.fetch_add(1, Ordering::Relaxed);
                let trace = Trace {
                    upstream: Arc::clone(upstream.name()),
                    spare: reached.spare,
                    ready: true,
                    tries: reached.tries,
                    waited: Duration::ZERO,
                    elapsed: begun.elapsed(),
                };
                let live = Live::new(permit, upstream.live(), trace);
                inner.ready.put(&target, reached.stream, live, AHEAD_FOR, count);
            });
        }
    }

    fn refused(&self, target: &Target, refused: Refused, waited: Duration) -> Error {
        let busy = |text: String| Error::new(ErrorKind::Busy, Side::Local, format!("tunnel to {target}: {text}"));
        let (live, max) = (self.config.max_per_destination, self.config.max_waiters);
        match refused {
            Refused::QueueFull => busy(format!("{max} wait for it already, max_waiters")),
            Refused::Destination => {
                busy(format!("its {live} live tunnels (max_per_destination) were in use for {waited:.1?}"))
            }
            Refused::All => {
                busy(format!("all {} tunnels (max_tunnels) were in use for {waited:.1?}", self.config.max_tunnels))
            }
            Refused::Closed => closed(target),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

/// That counts agree with each other.
fn check(config: &TunnelConfig) -> Result<(), String> {
    let PoolConfig { spares, spares_min, spares_max, .. } = config.pool;
    match () {
        () if spares_min > spares || spares > spares_max => Err(format!(
            "spares_min = {spares_min}, spares = {spares} and spares_max = {spares_max} are not in this order"
        )),
        () if config.max_per_destination == 0 || config.max_tunnels == 0 => {
            Err("max_per_destination and max_tunnels must be at least 1".to_owned())
        }
        () => Ok(()),
    }
}

fn closed(target: &Target) -> Error {
    Error::new(ErrorKind::Closed, Side::Local, format!("tunnel to {target}: tunnels are closed"))
}

/// The part of the time that one of `left` upstreams gets: enough for each of those behind it, but no less than a slow one needs.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Clock::now().into_std();
    let remaining = deadline.saturating_duration_since(now);
    let equal = remaining / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + equal.max(SHARE_MIN.min(remaining / 2)).min(remaining)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("upstreams", &self.inner.upstreams).finish_non_exhaustive()
    }
}

/// A tunnel that was opened ahead is closed when nobody wants it by then.
const AHEAD_FOR: Duration = Duration::from_secs(5);

/// Longest time to open one ahead.
const AHEAD_WITHIN: Duration = Duration::from_secs(5);

/// A tunnel that was given back is closed when nobody wants it by then.
const CLEAN_FOR: Duration = Duration::from_secs(30);

/// Further away than anything that is waited for.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How often those are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// What an upstream gets in any case before the next one is tried.
const SHARE_MIN: Duration = Duration::from_secs(5);
