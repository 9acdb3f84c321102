//! SSH servers as upstreams: sessions that are kept, and a channel for each tunnel.
//!
//! A session is expensive to set up and serves one tunnel after another. How many at a time is `channels`; the library lets one reader
//! that stalls hold up all channels of its session, so by default that is one.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use keepwarm_pool::{
    AcquireError, AcquireOptions, CloseReason, Connected, Connector, DialPhase, DialPhases, Host, HostStats, HostView,
    Lease, Limits, LimitsError, Options, Pool, Slot, Stats, Steer, WarmUp,
};
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Proxy, ProxyDialer, Target},
    resolve::Resolve,
    ssh::{self, SshAuth, SshClient, SshSession, SshSettings, SshStream},
    tcp::TcpOptions,
    tls::TlsRoots,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
    time::Instant as Clock,
};

use crate::{
    config::{HostKey, PoolConfig, SshConfig},
    spares::phases,
    stream::Stream,
    upstream::Tuning,
    vitals::Vitals,
};

/// The sessions with one server.
pub(crate) struct Sessions {
    host: Host<Dialer>,
    name: Arc<str>,
    stock: Mutex<Stock>,
    is_paused: AtomicBool,
}

/// How many sessions are kept. They begin with none, and end with none.
struct Stock {
    /// As the config has it.
    spares_min: usize,
    is_kept: bool,
}

/// What sessions are made of.
pub(crate) struct SessionSettings<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) config: &'a SshConfig,
    pub(crate) through: Option<&'a Arc<Proxy>>,
    pub(crate) roots: &'a TlsRoots,
    pub(crate) tuning: Arc<Tuning>,
}

/// A tunnel over a session, and whether the session was there.
pub(crate) struct Channel {
    pub(crate) stream: Stream,
    /// How long the session had been unused; `None`: it was made for this.
    pub(crate) reused: Option<Duration>,
}

struct Dialer {
    client: SshClient,
    through: Option<ProxyDialer>,
    resolver: Arc<dyn Resolve>,
    vitals: Arc<Vitals>,
    channels: u32,
    tuning: Arc<Tuning>,
}

/// A session that tells its pool when it ends.
struct Session {
    session: Arc<SshSession>,
    watch: AbortHandle,
}

#[derive(Debug, Clone)]
struct DialFailed(Error);

impl Sessions {
    /// Keeps none until it [begins](Self::begin).
    pub(crate) fn new(
        settings_of: SessionSettings<'_>,
        pool: &PoolConfig,
        vitals: Arc<Vitals>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Sessions, String> {
        let SessionSettings { name, config, through, roots, tuning } = settings_of;
        let client = SshClient::new(settings(config)?).map_err(|error| error.to_string())?;
        let through = through.map(|proxy| ProxyDialer::new(Arc::clone(proxy), roots)).transpose();
        let dialer = Dialer {
            client,
            through: through.map_err(|error| error.to_string())?,
            resolver,
            vitals,
            channels: config.channels,
            tuning,
        };
        let stock = Stock { spares_min: pool.spares_min, is_kept: false };
        let (limits, options) = (limits(pool, config.channels, 0), options(name, pool));
        let pool = Pool::builder(dialer).limits(limits).options(options).build();
        let (stock, is_paused) = (Mutex::new(stock), AtomicBool::new(false));
        Ok(Sessions { host: pool.host(name), name: Arc::clone(name), stock, is_paused })
    }

    /// Begins to keep sessions.
    pub(crate) fn begin(&self) {
        let mut stock = self.stock.lock();
        stock.is_kept = true;
        let pool = self.host.pool();
        let limits = pool.limits();
        let min_idle = stock.spares_min.min(limits.max_idle_per_host);
        pool.set_limits(Limits { min_idle, ..limits }).expect("it is at most the limit of idle sessions");
    }

    /// Another config is in force. What an operator had set is so no longer.
    pub(crate) fn tune(&self, config: &PoolConfig) {
        let mut stock = self.stock.lock();
        stock.spares_min = config.spares_min;
        let pool = self.host.pool();
        pool.set_options(options(&self.name, config));
        let kept = if stock.is_kept { config.spares_min } else { 0 };
        let limits = limits(config, pool.limits().max_in_flight, kept);
        pool.set_limits(limits).expect("spares_min is at most spares_max");
    }

    /// Ends those that are not in use, keeps no more, and those in use only as long as they are. Returns how many were open.
    pub(crate) fn retire(&self) -> usize {
        let mut stock = self.stock.lock();
        stock.is_kept = false;
        let pool = self.host.pool();
        let open = pool.stats().gauges.open;
        let limits = Limits { min_idle: 0, max_idle: 0, max_idle_per_host: 0, ..pool.limits() };
        pool.set_limits(limits).expect("nothing is below zero");
        open
    }

    /// How many are to be kept.
    pub(crate) fn target(&self) -> usize {
        self.host.pool().limits().min_idle
    }

    /// As many are kept unused at most.
    pub(crate) fn max(&self) -> usize {
        self.host.pool().limits().max_idle_per_host
    }

    /// Whether an operator has paused them.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Opens a channel to `target`, over another session once if the one that was there has ended.
    pub(crate) async fn open(&self, target: &Target, deadline: Instant) -> Result<Channel, (Error, bool)> {
        let lease = self.session(None, deadline).await.map_err(|error| (error, false))?;
        let reused = lease.waited().is_zero().then(|| lease.idle_for());
        let mut lease = lease;
        let opened = lease.session.open(target, deadline).await;
        if opened.as_ref().is_err_and(Error::is_timeout) {
            // It may be dead without a word: the next tunnel gets another one.
            lease.poison();
        }
        match opened {
            Ok(stream) => Ok(channel(stream, lease, reused)),
            Err(error) if error.kind() == ErrorKind::Proxy && reused.is_some() => {
                let began = Clock::now().into_std();
                drop(lease);
                let lease = self.session(Some(began), deadline).await.map_err(|error| (error, false))?;
                let stream = lease.session.open(target, deadline).await.map_err(|error| (error, true))?;
                Ok(channel(stream, lease, None))
            }
            Err(error) => Err((error, true)),
        }
    }

    async fn session(&self, opened_after: Option<Instant>, deadline: Instant) -> Result<Lease<Dialer>, Error> {
        let options = AcquireOptions { deadline: Some(deadline), timeout: None, opened_after };
        self.host.acquire_with(options).await.map_err(|error| self.failed(&error))
    }

    /// Makes sure that there is a session. Whether one was made for it.
    pub(crate) async fn check(&self, deadline: Instant) -> Result<bool, ()> {
        let lease = self.session(None, deadline).await.map_err(drop)?;
        Ok(!lease.waited().is_zero())
    }

    fn failed(&self, error: &AcquireError<DialFailed>) -> Error {
        let tried = || format!("connect to upstream {}", self.name);
        match error {
            AcquireError::Dial(error) | AcquireError::Timeout { last_dial_error: Some(error), .. } => error.0.clone(),
            AcquireError::Timeout { waited, .. } => Error::timed_out(Phase::Proxy, tried(), *waited),
            AcquireError::DialTimeout { after } => Error::timed_out(Phase::Proxy, tried(), *after),
            other => Error::new(ErrorKind::Cancelled, Phase::Proxy, tried(), other.to_string()),
        }
    }

    pub(crate) fn stats(&self) -> HostStats {
        self.host.stats()
    }

    pub(crate) fn flush(&self) {
        self.host.pool().flush_all();
    }

    pub(crate) fn network_changed(&self) {
        self.host.pool().network_changed();
    }

    pub(crate) async fn close(&self) {
        self.host.pool().drain(Clock::now().into_std()).await;
    }
}

impl Steer for Sessions {
    fn limits(&self) -> Limits {
        self.host.pool().limits()
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        limits.check()?;
        // One whose upstream is gone keeps nothing.
        let stock = self.stock.lock();
        if stock.is_kept { self.host.pool().set_limits(limits) } else { Ok(()) }
    }

    fn stats(&self) -> Stats {
        self.host.pool().stats()
    }

    fn hosts(&self) -> Vec<HostView> {
        Steer::hosts(&self.host.pool())
    }

    fn flush(&self, host: Option<&str>) -> usize {
        Steer::flush(&self.host.pool(), host)
    }

    fn pause(&self, host: Option<&str>) -> usize {
        let paused = Steer::pause(&self.host.pool(), host);
        self.is_paused.fetch_or(paused > 0, Ordering::Relaxed);
        paused
    }

    fn resume(&self, host: Option<&str>) -> usize {
        let resumed = Steer::resume(&self.host.pool(), host);
        self.is_paused.fetch_and(resumed == 0, Ordering::Relaxed);
        resumed
    }

    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp {
        Steer::warm_up(&self.host.pool(), host, n)
    }
}

impl Connector for Dialer {
    /// One pool for each upstream, so its name stands for server, user and credential.
    type Key = Arc<str>;
    type Connection = Session;
    type Error = DialFailed;

    async fn connect(&self, _key: &Arc<str>, slot: Slot<Self>) -> Result<Connected<Session>, DialFailed> {
        let deadline = (Clock::now() + self.tuning.connect_timeout()).into_std();
        let dialled = self.dial(deadline).await.inspect_err(|error| self.vitals.judge(error));
        let (session, phases) = dialled.map_err(DialFailed)?;
        let session = Arc::new(session);
        let watched = Arc::clone(&session);
        let watch = tokio::spawn(async move {
            watched.closed().await;
            slot.closed(CloseReason::PeerClosed);
        });
        let connected = Connected::new(Session { session, watch: watch.abort_handle() });
        Ok(connected.capacity(self.channels).phases(phases))
    }

    fn side(&self, error: &DialFailed) -> keepwarm_pool::Side {
        crate::spares::side(&error.0)
    }

    fn kind(&self, error: &DialFailed) -> &'static str {
        error.0.kind().as_str()
    }

    fn capacity_hint(&self, _key: &Arc<str>) -> Option<u32> {
        Some(self.channels)
    }

    fn label(&self, _key: &Arc<str>) -> String {
        let SshSettings { host, port, .. } = self.client.settings();
        format!("ssh://{host}:{port}")
    }
}

impl Dialer {
    async fn dial(&self, deadline: Instant) -> Result<(SshSession, DialPhases), Error> {
        let options = TcpOptions::default();
        let Some(through) = &self.through else {
            let (session, trace) = self.client.connect(&*self.resolver, &options, deadline).await?;
            return Ok((session, phases::of_connection(&trace).with(DialPhase::Protocol, trace.greeting)));
        };
        let SshSettings { host, port, .. } = self.client.settings();
        let target = Target::new(host, *port).map_err(|error| {
            Error::new(ErrorKind::Other, Phase::Proxy, format!("connect to ssh://{host}:{port}"), error.to_string())
        })?;
        let (stream, trace) = through.open(&*self.resolver, &options, deadline).await?;
        let start = Clock::now();
        let greeted = through.proxy().greet(stream, deadline).await?;
        let stream =
            greeted.connect(&target, deadline).await.map_err(|error| crate::spares::of_chain(&self.tried(), error))?;
        let phases = phases::through(&trace, start.elapsed());
        let start = Clock::now();
        let session = self.client.connect_over(stream, deadline).await?;
        Ok((session, phases.with(DialPhase::Protocol, start.elapsed())))
    }

    fn tried(&self) -> String {
        let SshSettings { host, port, .. } = self.client.settings();
        format!("connect to ssh://{host}:{port}")
    }
}

impl std::ops::Deref for Session {
    type Target = SshSession;

    fn deref(&self) -> &SshSession {
        &self.session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A channel keeps its session leased.
struct Leased {
    stream: SshStream,
    _lease: Lease<Dialer>,
}

fn channel(stream: SshStream, lease: Lease<Dialer>, reused: Option<Duration>) -> Channel {
    Channel { stream: Stream::Other(Box::new(Leased { stream, _lease: lease })), reused }
}

impl AsyncRead for Leased {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Leased {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn limits(config: &PoolConfig, channels: u32, sessions: usize) -> Limits {
    let idle = config.spares_max.max(1);
    Limits {
        max_total: SESSIONS_MAX.max(idle),
        max_per_host: SESSIONS_MAX.max(idle),
        max_idle: idle,
        max_idle_per_host: idle,
        min_idle: sessions.min(idle),
        max_in_flight: channels,
        ..Limits::default()
    }
}

fn options(name: &Arc<str>, config: &PoolConfig) -> Options {
    Options {
        name: Arc::clone(name),
        idle_timeout: IDLE_TIMEOUT,
        connect_timeout: config.connect_timeout + Duration::from_millis(500),
        unhealthy_after: None,
        backoff_max: Duration::from_secs(1),
        backup_dial_after: None,
        ..Options::default()
    }
}

fn settings(config: &SshConfig) -> Result<SshSettings, String> {
    let auth = match (&config.key, &config.password) {
        (Some(key), _) => SshAuth::Key(key.clone()),
        (None, Some(password)) => SshAuth::Password(password.clone()),
        (None, None) => return Err("ssh needs a key or a password".to_owned()),
    };
    let host_key = match &config.host_key {
        HostKey::Fingerprint(text) => ssh::HostKey::Fingerprint(text.clone()),
        HostKey::KnownHosts(path) => ssh::HostKey::KnownHosts(path.clone()),
    };
    Ok(SshSettings { host: config.host.clone(), port: config.port, user: config.user.clone(), auth, host_key })
}

impl std::fmt::Display for DialFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DialFailed {}

/// Sessions with one server; each carries a live tunnel, or more.
const SESSIONS_MAX: usize = 1024;

/// Sessions beyond `spares_min` are closed when they were not used for so long. Signs of life are asked for meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
