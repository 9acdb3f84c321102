//! How a connection to an upstream proxy is made ready: directly or through another one, TLS, greeting, authentication.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_pool::{DialPhase, DialPhases};
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Blame, Greeted, Hop, Proxy, ProxyDialer, ProxyProtocol, ProxyStream, Target},
    resolve::Resolve,
    tcp::TcpOptions,
    tls::{RootsError, TlsRoots},
};
use parking_lot::Mutex;
use tokio::{io::AsyncReadExt as _, sync::Semaphore, time::Instant as Clock};

use super::{
    ahead::{Ahead, Pipelining},
    phases,
};

/// Makes connections to one proxy.
pub(crate) struct Dialer {
    proxy: ProxyDialer,
    through: Option<ProxyDialer>,
    resolver: Arc<dyn Resolve>,
    pub(crate) ahead: Ahead,
    /// What waiting for one answer of the proxy costs, the shortest that was seen, in microseconds; 0 before the first.
    step: AtomicU64,
    /// The shortest TCP handshake, in microseconds; 0 before the first.
    round_trip: AtomicU64,
    /// How many there were.
    handshakes: AtomicU64,
    /// Where the first proxy was last reached.
    peer: Mutex<Option<IpAddr>>,
    /// Bounds those dials that the pool knows nothing of.
    dials: Semaphore,
}

/// What one dialer is made of.
pub(crate) struct DialSettings<'a> {
    pub(crate) proxy: &'a Arc<Proxy>,
    pub(crate) through: Option<&'a Arc<Proxy>>,
    pub(crate) roots: &'a TlsRoots,
    /// Whether steps may be sent ahead at all.
    pub(crate) pipeline: bool,
    /// Whether there is a destination that a canary may connect to.
    pub(crate) has_check: bool,
}

impl Dialer {
    pub(crate) fn new(settings: &DialSettings<'_>, resolver: Arc<dyn Resolve>) -> Result<Dialer, RootsError> {
        let DialSettings { proxy, through, roots, pipeline, has_check } = settings;
        let dialer = |proxy: &Arc<Proxy>| ProxyDialer::new(Arc::clone(proxy), roots);
        // HTTP proxies have nothing before the CONNECT, and it is not theirs to bear what follows it.
        let most = match (proxy.protocol, has_check) {
            (ProxyProtocol::Socks5, true) => Pipelining::Handshake,
            (ProxyProtocol::Socks5, false) if proxy.credential.is_some() => Pipelining::Greeting,
            _ => Pipelining::None,
        };
        Ok(Dialer {
            proxy: dialer(proxy)?,
            through: through.map(dialer).transpose()?,
            resolver,
            ahead: Ahead::new(most, *pipeline),
            step: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            handshakes: AtomicU64::new(0),
            peer: Mutex::new(None),
            dials: Semaphore::new(DIALS_MAX),
        })
    }

    /// The proxy, without its credentials.
    pub(super) fn shown(&self) -> String {
        self.proxy.proxy().to_string()
    }

    /// The shortest round trip to the first proxy; zero while there are few to go by.
    pub(super) fn round_trip(&self) -> Duration {
        match self.handshakes.load(Ordering::Relaxed) >= HANDSHAKES_MIN {
            true => Duration::from_micros(self.round_trip.load(Ordering::Relaxed)),
            false => Duration::ZERO,
        }
    }

    /// The address of the first proxy, once it was reached.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        *self.peer.lock()
    }

    /// A connection that waits for a destination, and the phases of its dial.
    pub(super) async fn greeted(&self, deadline: Instant) -> Result<(Greeted<ProxyStream>, DialPhases), Error> {
        let (stream, phases) = self.open(deadline).await?;
        let proxy = self.proxy.proxy();
        // HTTP has no greeting.
        let greets = proxy.protocol == ProxyProtocol::Socks5;
        let with = |phases: DialPhases, start: Clock| match greets {
            true => phases.with(DialPhase::Proxy, start.elapsed()),
            false => phases,
        };
        let start = Clock::now();
        if self.ahead.level() == Pipelining::None {
            let greeted = proxy.greet(stream, deadline).await?;
            let answers = if proxy.credential.is_some() { 2 } else { 1 };
            keep_least(&self.step, start.elapsed() / answers);
            return Ok((greeted, with(phases, start)));
        }
        match proxy.greet_pipelined(stream, deadline).await {
            Ok(greeted) => Ok((greeted, with(phases, start))),
            Err(error) if Blame::of(&error) == Blame::Proxy => {
                // It bore it once. Whatever happened, step by step it may still work: a proxy can be another one by now.
                self.ahead.failed(Pipelining::Greeting, Clock::now());
                // The phases are those of the connection that came of it.
                let (stream, phases) = self.open(deadline).await?;
                let start = Clock::now();
                let greeted = proxy.greet(stream, deadline).await.map_err(|_| error)?;
                Ok((greeted, with(phases, start)))
            }
            Err(error) => Err(error),
        }
    }

    /// A connection to `target` with everything in one write, where a canary has shown that the proxy bears it.
    pub(super) async fn connected(
        &self,
        target: &Target,
        dial_deadline: Instant,
        deadline: Instant,
    ) -> Result<ProxyStream, Error> {
        let late = |_| Error::timed_out(Phase::Proxy, format!("connect to {}", self.proxy.proxy()), Duration::ZERO);
        let dialling = async { self.dials.acquire().await.expect("it is never closed") };
        let _dial = tokio::time::timeout_at(dial_deadline.into(), dialling).await.map_err(late)?;
        let (stream, _) = self.open(dial_deadline).await?;
        let connected = self.proxy.proxy().connect_pipelined(stream, target, &[], deadline).await;
        if let Err(error) = &connected
            && (Blame::of(error) == Blame::Proxy || error.is_timeout())
        {
            // Silence may be that of a proxy that lost what came early.
            self.ahead.failed(Pipelining::Handshake, Clock::now());
        }
        connected
    }

    /// Finds out whether the proxy bears the next step of what could be sent ahead, if that would save anything.
    pub(crate) async fn canary(&self, check: Option<&Target>, deadline: Instant) {
        let gains = Duration::from_micros(self.step.load(Ordering::Relaxed)) >= GAIN_MIN;
        let Some(level) = self.ahead.to_try(Clock::now()).filter(|_| gains) else { return };
        let tried = match (level, check) {
            (Pipelining::Handshake, Some(check)) => self.try_handshake(check, deadline).await,
            _ => self.try_greeting(deadline).await,
        };
        match tried {
            Ok(()) => self.ahead.proved(level),
            // It could not be tried, or the destination of the canary is not there: it says nothing, and is tried again after a while.
            Err(error) => {
                tracing::debug!(proxy = %self.proxy.proxy(), level = level.as_str(), %error, "not sent ahead");
                self.ahead.failed(level, Clock::now());
            }
        }
    }

    async fn try_greeting(&self, deadline: Instant) -> Result<(), Error> {
        let (stream, _) = self.open(deadline).await?;
        self.proxy.proxy().greet_pipelined(stream, deadline).await.map(drop)
    }

    /// The whole handshake and a request in one write; the answer must be one to that request.
    async fn try_handshake(&self, check: &Target, deadline: Instant) -> Result<(), Error> {
        let (stream, _) = self.open(deadline).await?;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {check}\r\nConnection: close\r\n\r\n");
        let mut stream = self.proxy.proxy().connect_pipelined(stream, check, request.as_bytes(), deadline).await?;
        let mut start = [0; 5];
        let tried = || format!("ask {check} through {}", self.proxy.proxy());
        let read = tokio::time::timeout_at(deadline.into(), stream.read_exact(&mut start)).await;
        match read {
            Ok(Ok(_)) if start == *b"HTTP/" => Ok(()),
            Ok(Ok(_)) => Err(Error::new(ErrorKind::Proxy, Phase::Proxy, tried(), "the answer is not http")),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Proxy, Phase::Proxy, tried(), error.to_string())),
            Err(_) => Err(Error::timed_out(Phase::Proxy, tried(), Duration::ZERO)),
        }
    }

    async fn open(&self, deadline: Instant) -> Result<(ProxyStream, DialPhases), Error> {
        let (resolver, options) = (&*self.resolver, TcpOptions::default());
        let (stream, trace, phases) = match &self.through {
            None => {
                let (stream, trace) = self.proxy.open(resolver, &options, deadline).await?;
                (stream, trace, phases::of_connection(&trace))
            }
            Some(first) => {
                let opened = self.proxy.open_through(first, resolver, &options, deadline).await;
                let (stream, trace) = opened.map_err(|error| match error.hop {
                    Hop::First => super::of_chain(&format!("connect to {}", self.proxy.proxy()), error.error),
                    Hop::Second => error.error,
                })?;
                (stream, trace.first, phases::of_chain(&trace))
            }
        };
        keep_least(&self.round_trip, trace.handshake);
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        *self.peer.lock() = Some(trace.peer.ip());
        Ok((stream, phases))
    }
}

/// Keeps the shortest of all measurements.
fn keep_least(least: &AtomicU64, measured: Duration) {
    let micros = u64::try_from(measured.as_micros()).unwrap_or(u64::MAX).max(1);
    let known = least.load(Ordering::Relaxed);
    if known == 0 || micros < known {
        least.store(micros, Ordering::Relaxed);
    }
}

/// The shortest of fewer handshakes may be that of a moment when this machine was busy.
const HANDSHAKES_MIN: u64 = 8;

/// Answers that come sooner are waited for.
const GAIN_MIN: Duration = Duration::from_millis(2);

/// Dials to one upstream at a time.
pub(super) const DIALS_MAX: usize = 16;
