//! One upstream: how a destination is reached over it, and how it fares.
//!
//! How a proxy is used is in `proxy`. What an upstream answers is final here: whether another one is asked is the connector's business.

mod check;
mod life;
mod proxy;
mod stats;
mod steer;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_pool::BreakerSettings;
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Blame, ProxyProtocol, ProxyStream, Target},
    resolve::Resolve,
    tcp::{self, TcpOptions},
    tls::TlsRoots,
};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tokio::{io::AsyncWriteExt as _, task::AbortHandle, time::Instant as Clock};

use crate::{
    config::{PoolConfig, UpstreamConfig, UpstreamKind},
    order::Candidate,
    spares::{DialSettings, Dialer, Spares, Taken},
    stream::Stream,
    vitals::Vitals,
};

#[cfg(feature = "ssh")]
use crate::ssh::{SessionSettings, Sessions};
use life::MadeOf;
pub(crate) use life::Tuning;
pub use stats::{SpareStats, UpstreamStats};

/// One upstream and its spares.
pub(crate) struct Upstream {
    /// Its group and priority may have changed since; nothing else has.
    config: UpstreamConfig,
    made_of: MadeOf,
    way: Way,
    vitals: Arc<Vitals>,
    load: Arc<Load>,
    counters: Counters,
    tuning: Arc<Tuning>,
    /// What looks after it.
    task: Mutex<Option<AbortHandle>>,
    /// When it last said that it carries no datagrams.
    udp_declined: Mutex<Option<Instant>>,
    /// Tunnels that had been made at the last check.
    checked: AtomicU64,
}

/// How destinations are reached.
enum Way {
    Direct(Arc<dyn Resolve>),
    Proxy(Spares),
    #[cfg(feature = "ssh")]
    Ssh(Sessions),
}

#[derive(Default)]
struct Counters {
    tunnels: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    retries: AtomicU64,
    hedged: AtomicU64,
    refused: AtomicU64,
    ready: Mutex<keepwarm_pool::Histogram>,
    /// Ages of spares when they were used. The pool does not tell: to it they have served nobody.
    ages: Mutex<keepwarm_pool::Histogram>,
}

/// What its live tunnels count. They may outlive it.
#[derive(Debug, Default)]
struct Load {
    live: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
}

/// A connection to a destination.
pub(crate) struct Reached {
    pub(crate) stream: Stream,
    /// Our end of it, where this machine connected itself.
    pub(crate) local: Option<SocketAddr>,
    /// Age of the spare; `None`: there was none.
    pub(crate) spare: Option<Duration>,
    /// Connections that were tried.
    pub(crate) tries: u32,
    /// Whether the payload has gone already.
    pub(crate) sent: bool,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) error: Error,
    pub(crate) blame: Blame,
    pub(crate) tries: u32,
    /// Payload may have reached the destination.
    pub(crate) sent: bool,
    /// Whether the proxy was asked for the destination; else there was no connection to ask on.
    pub(crate) asked: bool,
    /// Whether nothing was said about the destination to the end.
    pub(crate) silent: bool,
}

/// One that is counted as live until it is dropped.
pub(crate) struct LiveOn(Arc<Load>);

impl Upstream {
    /// It does nothing by itself until it is [begun](Self::begin).
    pub(crate) fn new(
        config: UpstreamConfig,
        pool: &PoolConfig,
        breaker: BreakerSettings,
        resolver: &Arc<dyn Resolve>,
        roots: &TlsRoots,
    ) -> Result<Upstream, String> {
        let vitals = Arc::new(Vitals::new(&config.name, breaker));
        let tuning = Arc::new(Tuning::new(pool));
        let made_of = MadeOf::new(&config, roots);
        let way = match &config.kind {
            UpstreamKind::Direct => Way::Direct(Arc::clone(resolver)),
            UpstreamKind::Proxy(proxy) => {
                let settings = DialSettings {
                    proxy,
                    through: config.through.as_ref(),
                    roots,
                    pipeline: config.pipeline,
                    has_check: config.check.is_some(),
                };
                let dialer = Dialer::new(&settings, Arc::clone(resolver)).map_err(|error| error.to_string())?;
                Way::Proxy(Spares::new(&config.name, Arc::new(dialer), Arc::clone(&vitals), Arc::clone(&tuning), pool))
            }
            #[cfg(not(feature = "ssh"))]
            UpstreamKind::Ssh(_) => return Err("this build has no ssh: build with the feature ssh".to_owned()),
            #[cfg(feature = "ssh")]
            UpstreamKind::Ssh(ssh) => {
                let settings = SessionSettings {
                    name: &config.name,
                    config: ssh,
                    through: config.through.as_ref(),
                    roots,
                    tuning: Arc::clone(&tuning),
                };
                Way::Ssh(Sessions::new(settings, pool, Arc::clone(&vitals), Arc::clone(resolver))?)
            }
        };
        Ok(Upstream {
            config,
            made_of,
            way,
            vitals,
            load: Arc::default(),
            counters: Counters::default(),
            tuning,
            task: Mutex::new(None),
            udp_declined: Mutex::new(None),
            checked: AtomicU64::new(0),
        })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// How it is at the moment, for the order in which upstreams are tried.
    pub(crate) fn candidate(&self, index: usize, priority: u32, now: Instant) -> Candidate {
        let standing = self.vitals.standing(now);
        Candidate {
            index,
            priority,
            allowed: standing.allowed,
            well_since: standing.well_since,
            live: self.load.live.load(Ordering::Relaxed),
            latency: standing.snapshot.latency,
        }
    }

    /// Counts a tunnel as live.
    pub(crate) fn live(&self) -> LiveOn {
        self.load.live.fetch_add(1, Ordering::Relaxed);
        LiveOn(Arc::clone(&self.load))
    }

    /// Connects to `target`. `payload` has been written when this returns; `may` says which addresses this machine may connect to itself.
    pub(crate) async fn reach(
        &self,
        target: &Target,
        payload: &[u8],
        may: &(dyn Fn(IpAddr) -> bool + Sync),
        deadline: Instant,
    ) -> Result<Reached, Missed> {
        if let Some(error) = self.paused() {
            return Err(Missed::new(error, 0).not_asked());
        }
        let start = Clock::now();
        self.vitals.asked(start.into_std());
        let reached = match &self.way {
            Way::Direct(resolver) => direct(&**resolver, target, may, deadline).await,
            // Boxed, so that a direct tunnel need not have room for what a proxy may come to.
            Way::Proxy(spares) => Box::pin(self.over_proxy(spares, target, payload, deadline)).await,
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => Box::pin(self.over_ssh(sessions, target, deadline)).await,
        };
        let over = Clock::now().into_std() >= deadline;
        let reached = reached.map_err(|missed| {
            // A proxy that reports a time-out has answered.
            let silent = over && missed.asked && missed.blame == Blame::Destination && missed.error.is_timeout();
            Missed { silent, ..missed }
        });
        let mut reached = self.judge(reached, start)?;
        if !payload.is_empty() && !reached.sent {
            write(&mut reached, payload, target, deadline).await?;
        }
        self.counters.tunnels.fetch_add(1, Ordering::Relaxed);
        self.counters.ready.lock().record(start.elapsed());
        Ok(reached)
    }

    #[cfg(feature = "ssh")]
    async fn over_ssh(&self, sessions: &Sessions, target: &Target, deadline: Instant) -> Result<Reached, Missed> {
        let opened = sessions.open(target, deadline).await;
        let channel = opened.map_err(|(error, asked)| Missed { asked, ..Missed::new(error, 1) })?;
        let counted = if channel.reused.is_some() { &self.counters.hits } else { &self.counters.misses };
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Reached { stream: channel.stream, local: None, spare: channel.reused, tries: 1, sent: false })
    }

    /// Whether this machine connects itself.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_))
    }

    /// Whether it may carry datagrams.
    pub(crate) fn carries_udp(&self) -> bool {
        match &self.config.kind {
            UpstreamKind::Direct => true,
            // The relay would be asked by the last proxy, and be sent to from here.
            UpstreamKind::Proxy(proxy) => proxy.protocol == ProxyProtocol::Socks5 && self.config.through.is_none(),
            UpstreamKind::Ssh(_) => false,
        }
    }

    /// Whether it said of late that it carries no datagrams.
    pub(crate) fn declines_udp(&self, now: Instant) -> bool {
        self.udp_declined.lock().is_some_and(|at| now.saturating_duration_since(at) < UDP_DECLINED)
    }

    /// A relay for datagrams: its control connection, and where it listens.
    pub(crate) async fn associate(&self, deadline: Instant) -> Result<(Stream, SocketAddr), Error> {
        let unsupported = || {
            let tried = format!("relay datagrams through {}", self.config.name);
            Error::new(ErrorKind::ProxyUnsupported, Phase::Proxy, tried, "it carries none")
        };
        let Way::Proxy(spares) = &self.way else { return Err(unsupported()) };
        if !self.carries_udp() {
            return Err(unsupported());
        }
        if let Some(error) = self.paused() {
            return Err(error);
        }
        spares.asked();
        let taken = match spares.take_ready() {
            Some(taken) => taken,
            None => spares.take(false, self.dial_deadline(deadline)).await?,
        };
        let was_ready = taken.was_ready;
        // A spare that the proxy has forgotten is silent.
        let patience = if was_ready { deadline.min((Clock::now() + self.patience()).into_std()) } else { deadline };
        let associated = match associate(taken, patience).await {
            Err(error) if was_ready && (proxy::is_dead(&error) || error.is_timeout()) => {
                associate(spares.take(true, self.dial_deadline(deadline)).await?, deadline).await
            }
            other => other,
        };
        if let Err(error) = &associated {
            // One that greets and then says nothing of datagrams may do well for tunnels.
            if error.is_timeout() || Blame::of(error) == Blame::Declined {
                *self.udp_declined.lock() = Some(Clock::now().into_std());
            } else {
                self.vitals.judge(error);
            }
        }
        associated
    }

    fn dial_deadline(&self, deadline: Instant) -> Instant {
        deadline.min((Clock::now() + self.tuning.connect_timeout()).into_std())
    }

    /// Takes a result into the upstream's health.
    fn judge(&self, result: Result<Reached, Missed>, start: Clock) -> Result<Reached, Missed> {
        let now = Clock::now();
        match &result {
            Ok(_) => self.answered(now.into_std(), now - start),
            Err(missed) => match missed.blame {
                // Silence may be the destination's; when another upstream reaches it, this one is blamed after all.
                Blame::Destination if missed.silent => {}
                Blame::Destination | Blame::Declined => {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    self.answered(now.into_std(), now - start);
                }
                // A dial counts itself.
                Blame::Proxy if missed.asked && !self.is_direct() => self.vitals.blame(&missed.error),
                Blame::Proxy | Blame::Local => {}
            },
        }
        result
    }

    fn answered(&self, now: Instant, after: Duration) {
        if !self.is_direct() {
            self.vitals.answered(now, after);
        }
    }

    /// It said nothing about a destination that another upstream then reached.
    pub(crate) fn was_silent(&self, target: &Target, error: &Error) {
        if !self.is_direct() {
            self.vitals.was_silent(target, error);
        }
    }

    /// The address that connections to it go to, where they are kept.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Proxy(spares) => spares.peer(),
            _ => None,
        }
    }

    /// Addresses or routes changed: what was known of it holds no longer.
    pub(crate) fn network_changed(&self) {
        self.vitals.reset();
        match &self.way {
            Way::Direct(_) => {}
            Way::Proxy(spares) => spares.network_changed(),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.network_changed(),
        }
    }

    /// Closes its spares.
    pub(crate) fn flush(&self) {
        match &self.way {
            Way::Direct(_) => {}
            Way::Proxy(spares) => spares.flush(),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.flush(),
        }
    }

    pub(crate) async fn close(&self) {
        self.stop();
        match &self.way {
            Way::Direct(_) => {}
            Way::Proxy(spares) => spares.close().await,
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.close().await,
        }
    }
}

/// This machine connects itself.
async fn direct(
    resolver: &dyn Resolve,
    target: &Target,
    may: &(dyn Fn(IpAddr) -> bool + Sync),
    deadline: Instant,
) -> Result<Reached, Missed> {
    let missed = |error| Missed::new(error, 1);
    let ips: SmallVec<[IpAddr; 1]> = match target.ip() {
        Some(ip) => smallvec![ip],
        None => {
            let host = target.host();
            let start = Clock::now();
            let resolving = tokio::time::timeout_at(deadline.into(), resolver.resolve(&host)).await;
            let late = |_| Err(Error::timed_out(Phase::Resolve, format!("resolve {host}"), start.elapsed()));
            resolving.unwrap_or_else(late).map_err(missed)?.into()
        }
    };
    let addresses: SmallVec<[SocketAddr; 1]> =
        ips.into_iter().filter(|ip| may(*ip)).map(|ip| (ip, target.port()).into()).collect();
    if addresses.is_empty() {
        let happened = "a rule forbids every address of it";
        return Err(missed(Error::new(
            ErrorKind::ProxyDenied,
            Phase::Connect,
            format!("connect to {target}"),
            happened,
        )));
    }
    let (stream, trace) = tcp::connect(&addresses, &TcpOptions::default(), deadline).await.map_err(missed)?;
    Ok(Reached { stream: Stream::Tcp(stream), local: Some(trace.local), spare: None, tries: 1, sent: false })
}

async fn associate(taken: Taken, deadline: Instant) -> Result<(Stream, SocketAddr), Error> {
    let failed = |error| Error::from_io(error, Phase::Proxy, "relay datagrams through the upstream");
    let peer = taken.greeted.stream().socket().peer_addr().map_err(failed)?;
    let (stream, relay) = taken.greeted.associate(peer.ip(), deadline).await?;
    Ok((stream.into(), relay))
}

async fn write(reached: &mut Reached, payload: &[u8], target: &Target, deadline: Instant) -> Result<(), Missed> {
    let written = tokio::time::timeout_at(deadline.into(), async {
        reached.stream.write_all(payload).await?;
        reached.stream.flush().await
    });
    let error = match written.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => Error::from_io(error, Phase::Write, format!("write to {target}")),
        Err(_) => Error::timed_out(Phase::Write, format!("write to {target}"), Duration::ZERO),
    };
    Err(Missed { error, blame: Blame::Destination, tries: reached.tries, sent: true, asked: true, silent: false })
}

impl Missed {
    fn new(error: Error, tries: u32) -> Missed {
        let blame = match error.kind() {
            // Of a connection that this machine made itself.
            ErrorKind::Reset | ErrorKind::Eof => Blame::Destination,
            _ => Blame::of(&error),
        };
        Missed { error, blame, tries, sent: false, asked: true, silent: false }
    }
}

impl Missed {
    /// Whether the proxy answered: refused, declined, or reported a time-out.
    fn is_answer(&self) -> bool {
        let has_spoken = match self.blame {
            Blame::Destination => !self.silent && !self.error.is_timeout(),
            Blame::Declined => self.error.kind() != ErrorKind::Proxy,
            Blame::Proxy | Blame::Local => false,
        };
        self.asked && has_spoken
    }

    fn not_asked(self) -> Missed {
        Missed { asked: false, ..self }
    }
}

impl LiveOn {
    /// Counts what a tunnel carried.
    pub(crate) fn carried(&self, sent: u64, received: u64) {
        self.0.sent.fetch_add(sent, Ordering::Relaxed);
        self.0.received.fetch_add(received, Ordering::Relaxed);
    }
}

impl Drop for LiveOn {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<ProxyStream> for Stream {
    fn from(stream: ProxyStream) -> Stream {
        match stream {
            ProxyStream::Tcp(stream) => Stream::Tcp(stream),
            ProxyStream::Tls(stream) => Stream::Tls(stream),
            nested => Stream::Other(Box::new(nested)),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.config.name).finish_non_exhaustive()
    }
}

/// For how long an upstream that does not carry datagrams comes after those that may.
const UDP_DECLINED: Duration = Duration::from_secs(300);
