//! Spares: connections to one proxy that are connected, greeted and authenticated, with the CONNECT not yet sent.
//!
//! The pool keeps them, at an age that is learned from when the proxy closed some, and in a number that follows the rate of tunnels.
//! Each serves once. What is deliberately not here: what is asked over them, and what failures mean (`upstream`).

mod ahead;
mod dial;
pub(crate) mod phases;
mod stock;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_pool::{
    AcquireError, AcquireOptions, Connected, Connector, Host, HostStats, Lease, Pool, Slot, health::Latency,
};
use keepwarm_transport::{
    error::{Error, ErrorKind, Phase},
    proxy::{Blame, Greeted, ProxyStream, Target},
};
use parking_lot::Mutex;
use tokio::time::Instant as Clock;

use crate::{config::PoolConfig, parked::Parked, upstream::Tuning, vitals::Vitals};

pub use ahead::Pipelining;
pub(crate) use dial::{DialSettings, Dialer};
use stock::Stock;

/// The spares of one upstream.
pub(crate) struct Spares {
    host: Host<SpareConnector>,
    dialer: Arc<Dialer>,
    vitals: Arc<Vitals>,
    stock: Mutex<Stock>,
    is_paused: AtomicBool,
    name: Arc<str>,
    /// How long it takes to make one.
    lead: Arc<Mutex<Latency>>,
    /// Age at which spares are replaced, in microseconds.
    limit: AtomicU64,
    /// Age of a spare that was silent, while it may have been an accident.
    silence: Mutex<Option<Duration>>,
}

/// A connection that is ready to be asked for a destination.
pub(crate) struct Taken {
    pub(crate) greeted: Greeted<ProxyStream>,
    /// For how long it has waited; zero when it was dialled for this.
    pub(crate) idle_for: Duration,
    /// Whether it was there when it was asked for.
    pub(crate) was_ready: bool,
    /// The shortest round trip to the proxy, as TCP handshakes took it.
    pub(crate) round_trip: Duration,
}

struct SpareConnector {
    dialer: Arc<Dialer>,
    vitals: Arc<Vitals>,
    tuning: Arc<Tuning>,
    /// How long dials take of late.
    lead: Arc<Mutex<Latency>>,
}

/// What the pool keeps: a greeted connection that is watched.
struct Spare(Parked<Greeted<ProxyStream>>);

/// A failed dial.
#[derive(Debug, Clone)]
struct DialFailed(Error);

impl Spares {
    /// Keeps none until it [begins](Self::begin).
    pub(crate) fn new(
        name: &Arc<str>,
        dialer: Arc<Dialer>,
        vitals: Arc<Vitals>,
        tuning: Arc<Tuning>,
        config: &PoolConfig,
    ) -> Spares {
        let lead = Arc::new(Mutex::new(Latency::default()));
        let connector = SpareConnector {
            dialer: Arc::clone(&dialer),
            vitals: Arc::clone(&vitals),
            tuning,
            lead: Arc::clone(&lead),
        };
        let pool = Pool::builder(connector).limits(stock::limits(config, 0)).options(stock::options(name, config));
        Spares {
            host: pool.build().host(&Arc::clone(name)),
            dialer,
            vitals,
            stock: Mutex::new(Stock::new(config, Clock::now().into_std())),
            is_paused: AtomicBool::new(false),
            name: Arc::clone(name),
            lead,
            limit: AtomicU64::new(0),
            silence: Mutex::new(None),
        }
    }

    /// A spare, or a connection that is dialled now. With `fresh` only one whose dial begins now will do.
    pub(crate) async fn take(&self, fresh: bool, deadline: Instant) -> Result<Taken, Error> {
        let asked = Clock::now();
        for _ in 0..=DEAD_MAX {
            let opened_after = fresh.then_some(asked.into_std());
            let options = AcquireOptions { deadline: Some(deadline), timeout: None, opened_after };
            let lease = self.host.acquire_with(options).await.map_err(|error| self.failed(&error, deadline))?;
            let (idle_for, was_ready) = (lease.idle_for(), lease.waited().is_zero() && !fresh);
            if let Some(greeted) = Lease::detach(lease).ok().and_then(Spare::take) {
                let idle_for = if was_ready { idle_for } else { Duration::ZERO };
                return Ok(Taken { greeted, idle_for, was_ready, round_trip: self.dialer.round_trip() });
            }
        }
        // It takes our greeting and closes: over a quota, or out of order.
        let tried = format!("connect to upstream {}", self.name);
        let error =
            Error::new(ErrorKind::Proxy, Phase::Proxy, tried, "it ends connections that it was asked nothing over");
        self.vitals.blame(&error);
        Err(error)
    }

    /// A spare that is there, or nothing.
    pub(crate) fn take_ready(&self) -> Option<Taken> {
        loop {
            let lease = self.host.try_acquire().ok()?;
            let idle_for = lease.idle_for();
            if let Some(greeted) = Lease::detach(lease).ok().and_then(Spare::take) {
                return Some(Taken { greeted, idle_for, was_ready: true, round_trip: self.dialer.round_trip() });
            }
        }
    }

    /// A connection to `target` that is dialled now, by `dial_deadline`, with everything sent ahead. Only where [`level`](Self::level)
    /// says so.
    pub(crate) async fn connected(
        &self,
        target: &Target,
        dial_deadline: Instant,
        deadline: Instant,
    ) -> Result<ProxyStream, Error> {
        self.dialer.connected(target, dial_deadline, deadline).await
    }

    /// The address that connections go to, once there was one.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.dialer.peer()
    }

    /// What may be sent ahead.
    pub(crate) fn level(&self) -> Pipelining {
        self.dialer.ahead.level()
    }

    /// Finds out more about that.
    pub(crate) async fn canary(&self, check: Option<&Target>, deadline: Instant) {
        self.dialer.canary(check, deadline).await;
    }

    /// Whether a spare is so young that its proxy has certainly not closed it.
    pub(crate) fn is_young(&self, idle_for: Duration) -> bool {
        idle_for <= Duration::from_micros(self.limit.load(Ordering::Relaxed)) / 2
    }

    /// Dials a connection, and keeps it as a spare: shows that the proxy can be reached and knows us.
    pub(crate) async fn check(&self, deadline: Instant) -> Result<(), Error> {
        let opened_after = Some(Clock::now().into_std());
        let options = AcquireOptions { deadline: Some(deadline), timeout: None, opened_after };
        self.host.acquire_with(options).await.map(drop).map_err(|error| self.failed(&error, deadline))
    }

    /// A spare that had waited for so long was dead when it was used.
    pub(crate) fn stale(&self, idle_for: Duration) {
        self.silence.lock().take();
        self.host.stale(idle_for);
    }

    /// A spare that had waited for so long said nothing, while a fresh connection got an answer. Once is an accident, of the proxy or of
    /// the destination; twice without a spare of that age that worked in between is a proxy that forgets them.
    pub(crate) fn silent(&self, idle_for: Duration) {
        let mut silence = self.silence.lock();
        match silence.take() {
            Some(before) => {
                drop(silence);
                self.host.stale(before.min(idle_for));
            }
            None => *silence = Some(idle_for),
        }
    }

    /// A spare that had waited for so long worked.
    pub(crate) fn worked(&self, idle_for: Duration) {
        let mut silence = self.silence.lock();
        if silence.is_some_and(|suspected| idle_for >= suspected) {
            *silence = None;
        }
    }

    pub(crate) fn stats(&self) -> HostStats {
        self.host.stats()
    }

    pub(crate) fn flush(&self) {
        self.host.pool().flush_all();
    }

    /// Addresses or routes changed.
    pub(crate) fn network_changed(&self) {
        self.host.pool().network_changed();
    }

    /// Closes all of them.
    pub(crate) async fn close(&self) {
        self.host.pool().drain(Clock::now().into_std()).await;
    }

    fn failed(&self, error: &AcquireError<DialFailed>, deadline: Instant) -> Error {
        let tried = || format!("connect to upstream {}", self.name);
        let other = |text: String| Error::new(ErrorKind::Proxy, Phase::Proxy, tried(), text);
        match error {
            AcquireError::Dial(error) | AcquireError::Timeout { last_dial_error: Some(error), .. } => error.0.clone(),
            AcquireError::Timeout { waited, .. } => Error::timed_out(Phase::Proxy, tried(), *waited),
            AcquireError::DialTimeout { after } => Error::timed_out(Phase::Proxy, tried(), *after),
            AcquireError::Paused => Error::new(ErrorKind::Other, Phase::Proxy, tried(), "an operator has paused it"),
            AcquireError::Closed => {
                Error::new(ErrorKind::Cancelled, Phase::Proxy, tried(), "its connections were closed")
            }
            AcquireError::QueueFull { waiting } => {
                Error::new(ErrorKind::Other, Phase::Proxy, tried(), format!("{waiting} wait for it already"))
            }
            error if Clock::now().into_std() >= deadline => {
                Error::timed_out(Phase::Proxy, tried(), Duration::ZERO).with_source(other(error.to_string()))
            }
            error => other(error.to_string()),
        }
    }
}

impl Connector for SpareConnector {
    /// One pool for each upstream, so its name stands for proxy, chain and credential.
    type Key = Arc<str>;
    type Connection = Spare;
    type Error = DialFailed;

    async fn connect(&self, _key: &Arc<str>, slot: Slot<Self>) -> Result<Connected<Spare>, DialFailed> {
        let deadline = (Clock::now() + self.tuning.connect_timeout()).into_std();
        let start = Clock::now();
        let greeted = self.dialer.greeted(deadline).await;
        let (greeted, phases) = greeted.inspect_err(|error| self.vitals.judge(error)).map_err(DialFailed)?;
        self.lead.lock().record(start.elapsed());
        let parked = Parked::new(greeted, move |reason| slot.closed(reason));
        Ok(Connected::new(Spare(parked)).phases(phases))
    }

    fn side(&self, error: &DialFailed) -> keepwarm_pool::Side {
        side(&error.0)
    }

    fn kind(&self, error: &DialFailed) -> &'static str {
        error.0.kind().as_str()
    }

    fn capacity_hint(&self, _key: &Arc<str>) -> Option<u32> {
        Some(1)
    }

    fn label(&self, _key: &Arc<str>) -> String {
        self.dialer.shown()
    }
}

impl Spare {
    fn take(self) -> Option<Greeted<ProxyStream>> {
        self.0.take()
    }
}

/// Whose fault a dial's error is, for the pool.
pub(crate) fn side(error: &Error) -> keepwarm_pool::Side {
    match Blame::of(error) {
        Blame::Local => keepwarm_pool::Side::Local,
        Blame::Destination | Blame::Declined | Blame::Proxy => keepwarm_pool::Side::Upstream,
    }
}

/// What a proxy says of the one behind it: this way to the second is of no use now, whichever of the two failed.
pub(crate) fn of_chain(tried: &str, error: Error) -> Error {
    if matches!(Blame::of(&error), Blame::Proxy | Blame::Local) {
        return error;
    }
    let text = format!("the proxy before it: {error}");
    Error::new(ErrorKind::Proxy, Phase::Proxy, tried, text).with_source(error)
}

impl fmt::Display for DialFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DialFailed {}

/// Connections in a row that may turn out to have ended in the instant in which they were taken.
const DEAD_MAX: usize = 1;
