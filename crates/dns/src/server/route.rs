//! Upstreams as one worker reaches them: pool handles, and what this worker knows of latency and silence.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_pool::{Host, Lease, Pool, Tally};
use tokio::time::Instant as Clock;

use super::worker::estimate;
use crate::{
    config::Strategy,
    health::{Allowed, Latency, Percentiles, Spread},
    strategy::estimate::Estimate,
    upstream::{
        Designation, DnsConnector, Endpoint, EndpointKey, Family, count,
        ddr::{FACES_MAX, Slot, Standing},
    },
};

/// An upstream as one worker reaches it.
pub(crate) struct Route {
    pub(crate) main: Path,
    pub(crate) tcp: Option<Path>,
    /// Its encrypted face, where one is to be discovered.
    pub(crate) designated: Option<Box<Designated>>,
}

/// The encrypted faces of a plain upstream as one worker reaches them.
pub(crate) struct Designated {
    designation: Arc<Designation>,
    pool: Pool<DnsConnector>,
    strategy: Strategy,
    paths: [OnceCell<Path>; FACES_MAX],
}

impl Designated {
    pub(super) fn new(
        designation: &Arc<Designation>,
        pool: &Pool<DnsConnector>,
        strategy: Strategy,
    ) -> Box<Designated> {
        Box::new(Designated {
            designation: designation.clone(),
            pool: pool.clone(),
            strategy,
            paths: Default::default(),
        })
    }

    fn path(&self, slot: Slot) -> Option<&Path> {
        let endpoint = self.designation.face(slot)?;
        Some(
            self.paths[slot as usize]
                .get_or_init(|| Path::new(endpoint, &self.pool, &EndpointKey::new(endpoint, None), self.strategy)),
        )
    }

    fn way(&self, now: Instant) -> Way {
        let required = self.designation.is_required;
        match self.designation.standing() {
            Standing::Face(face) => {
                let endpoint = self.designation.face(face);
                let broken = endpoint.is_none_or(|endpoint| matches!(endpoint.allowed(now), Allowed::No { .. }));
                // The breaker says when it is tried again.
                Way::Open(if broken && !required { Face::Main } else { Face::Designated(face) })
            }
            _ if !required => Way::Open(Face::Main),
            Standing::Pending => Way::Unknown,
            Standing::Absent => Way::Closed(self.designation.why().unwrap_or_default()),
        }
    }
}

/// How a query gets to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over this endpoint.
    Open(Face),
    /// The encrypted face, which is required, is not known yet.
    Unknown,
    /// There is no encrypted face for this reason, and one is required.
    Closed(Arc<str>),
}

impl Route {
    /// All of its endpoints.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let designated =
            self.designated.iter().flat_map(|designated| designated.paths.iter().filter_map(OnceCell::get));
        std::iter::once(&self.main).chain(&self.tcp).chain(designated)
    }

    /// How queries get there now.
    pub(super) fn way(&self, now: Instant) -> Way {
        self.designated.as_ref().map_or(Way::Open(Face::Main), |designated| designated.way(now))
    }

    /// What the next query would go over.
    pub(super) fn current(&self, now: Instant) -> &Path {
        match self.way(now) {
            Way::Open(face) => self.path(face),
            Way::Unknown | Way::Closed(_) => &self.main,
        }
    }

    /// Whether a query that came to nothing on the encrypted face may go out in plain.
    pub(super) fn may_retreat(&self) -> bool {
        self.designated.as_ref().is_some_and(|designated| !designated.designation.is_required)
    }
}

/// Which of an upstream's endpoints a query goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The one in the config.
    Main,
    /// TCP, for a UDP upstream's truncated or doubtful answers.
    Tcp,
    /// This encrypted face, of those that a plain upstream has designated.
    Designated(Slot),
}

/// An endpoint as one worker reaches it.
pub(crate) struct Path {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(super) host: Host<DnsConnector>,
    pool: Pool<DnsConnector>,
    pub(super) latency: RefCell<Latency>,
    pub(super) spread: RefCell<Spread>,
    /// For the strategies that go by it.
    pub(super) estimate: Option<RefCell<Estimate>>,
    /// Exchanges that wait for a connection or an answer, where the strategy goes by that.
    load: Option<Rc<Cell<u32>>>,
    /// When this worker last heard from it.
    heard: Cell<Option<Instant>>,
    /// Successes not yet told to the shared health, by family.
    pending: Cell<[u32; 2]>,
    /// When a query was last repeated though nothing at all comes back.
    repeated: Cell<Option<Instant>>,
    /// The family that this worker's sockets were last turned to.
    turned: Cell<Option<Family>>,
    /// All answers, for who looks.
    latencies: Arc<Tally>,
}

/// The shared health hears of the last answers when a reload does away with the path.
impl Drop for Path {
    fn drop(&mut self) {
        if self.pending.get() != [0; 2] {
            self.tell(Clock::now().into_std());
        }
    }
}

impl Route {
    pub(super) fn path(&self, face: Face) -> &Path {
        match face {
            Face::Main => &self.main,
            Face::Tcp => self.tcp.as_ref().unwrap_or(&self.main),
            Face::Designated(face) => {
                self.designated.as_ref().and_then(|designated| designated.path(face)).unwrap_or(&self.main)
            }
        }
    }

    /// Exchanges of this worker that wait for a connection or an answer; 0 where nobody counts them.
    pub(super) fn load(&self) -> u32 {
        self.paths().filter_map(|path| path.load.as_ref()).map(|load| load.get()).sum()
    }
}

impl Path {
    pub(crate) fn new(
        endpoint: &Arc<Endpoint>,
        pool: &Pool<DnsConnector>,
        key: &EndpointKey,
        strategy: Strategy,
    ) -> Path {
        let host = pool.host(key);
        Path {
            endpoint: endpoint.clone(),
            host,
            pool: pool.clone(),
            latency: RefCell::default(),
            spread: RefCell::default(),
            estimate: estimate(strategy),
            load: (strategy == Strategy::LeastLoaded).then(Rc::default),
            heard: Cell::new(None),
            pending: Cell::new([0; 2]),
            repeated: Cell::new(None),
            turned: Cell::new(None),
            latencies: endpoint.latencies.tally(),
        }
    }

    /// With what was measured on another way to the same endpoint.
    pub(super) fn after(self, before: &Path) -> Path {
        self.latency.replace(*before.latency.borrow());
        self.spread.replace(before.spread.borrow().clone());
        if let Some((own, other)) = self.estimate.as_ref().zip(before.estimate.as_ref()) {
            own.replace(*other.borrow());
        }
        self.heard.set(before.heard.get());
        self.turned.set(before.turned.get());
        self
    }

    /// Notes an answer; the shared health learns of it at the next tick, or at once while a breaker is not closed.
    pub(super) fn succeeded(&self, family: Family, now: Instant, latency: Duration) {
        self.heard.set(Some(now));
        self.latencies.record(latency);
        self.latency.borrow_mut().record(latency);
        self.spread.borrow_mut().record(now, latency);
        if let Some(estimate) = &self.estimate {
            estimate.borrow_mut().answered(now, latency);
        }
        let mut pending = self.pending.get();
        pending[family.index()] += 1;
        self.pending.set(pending);
        // The first answer shows at once in the status; the others wait for the tick.
        if !self.endpoint.is_well() || self.endpoint.counters.latency.load(Ordering::Relaxed) == 0 {
            self.tell(now);
        }
    }

    /// Tells the shared health what succeeded.
    pub(super) fn tell(&self, now: Instant) {
        let pending = self.pending.replace([0; 2]);
        let smoothed = self.latency.borrow().smoothed();
        for (family, succeeded) in [Family::V4, Family::V6].into_iter().zip(pending) {
            if succeeded > 0 {
                let latency = smoothed.unwrap_or_default();
                self.endpoint.succeeded(family, now, latency, succeeded);
                let counters = &self.endpoint.counters;
                counters.latency.store(micros(latency), Ordering::Relaxed);
                if let Some(Percentiles { p50, p95 }) = self.spread.borrow_mut().percentiles() {
                    counters.p50.store(micros(p50), Ordering::Relaxed);
                    counters.p95.store(micros(p95), Ordering::Relaxed);
                }
            }
        }
    }

    /// Forgets what was measured and turned to.
    pub(super) fn network_changed(&self) {
        self.latency.take();
        self.spread.take();
        if let Some(estimate) = &self.estimate {
            estimate.take();
        }
        self.heard.set(None);
        self.pending.take();
        self.repeated.set(None);
        self.turned.set(None);
    }

    /// Has later sockets go to the other address family, after this one was refused or met with silence.
    pub(super) fn turn_from(&self, family: Family) {
        let turned = self.endpoint.turn_from(family);
        // Another worker may have turned first; the sockets that go are this one's.
        if turned.is_some() && self.turned.replace(turned) != turned {
            self.pool.flush(self.host.key());
        }
    }

    pub(super) fn failed(&self, family: Family, now: Instant) {
        self.tell(now);
        self.penalise(now);
        count(&self.endpoint.counters.failures);
        if self.endpoint.failed(family, now) && self.endpoint.has_both_families() {
            // Connections of the failed family go, so that the next dial can choose the other one.
            self.pool.flush(self.host.key());
        }
    }

    /// Counts an exchange for as long as what is returned lives.
    pub(super) fn busy(&self) -> Option<Busy> {
        let load = self.load.as_ref()?;
        load.set(load.get() + 1);
        Some(Busy(load.clone()))
    }

    /// Notes a failure for the strategy alone: the health has heard of it, or hears of it elsewhere.
    pub(super) fn penalise(&self, now: Instant) {
        if let Some(estimate) = &self.estimate {
            estimate.borrow_mut().failed(now);
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.latency.borrow().try_timeout().max(RESEND_MAX)
    }

    /// Whether a query may be repeated into silence. Until the breaker opens each one may, for it may be the only one that
    /// was lost. Then one in a while is enough to find out that somebody is there again; repeating all of them would only
    /// fill the sockets, which the next ones need.
    pub(super) fn may_repeat(&self, now: Instant) -> bool {
        let waits = self.repeated.get().is_some_and(|last| now < last + REPEAT) && !self.endpoint.is_well();
        if !waits {
            self.repeated.set(Some(now));
        }
        !waits
    }

    /// Whether nothing at all came from here since `at`: a slow name is not a silent upstream.
    pub(super) fn silent_since(&self, at: Instant, lease: &Lease<DnsConnector>) -> bool {
        self.heard.get().is_none_or(|heard| heard < at) && lease.heard() <= at
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One exchange of those that a [`Path`] counts.
pub(crate) struct Busy(Rc<Cell<u32>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Pause between queries repeated into silence, and after which a query looks again whether it may.
pub(super) const REPEAT: Duration = Duration::from_millis(100);

/// Bounds of the first patience for a datagram.
pub(super) const RESEND_MIN: Duration = Duration::from_millis(250);
pub(super) const RESEND_MAX: Duration = Duration::from_secs(1);
