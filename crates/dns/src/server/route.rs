//! Upstreams as one worker reaches them: pool handles, and what this worker knows of latency and silence.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_pool::{Host, Lease, Pool};

use crate::{
    health::Latency,
    upstream::{DnsConnector, Endpoint, EndpointKey, Family, count},
};

/// An upstream as one worker reaches it.
pub(crate) struct Route {
    pub(crate) main: Path,
    pub(crate) tcp: Option<Path>,
}

impl Route {
    /// All of its endpoints.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.main).chain(&self.tcp)
    }
}

/// Which of an upstream's endpoints a query goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The one in the config.
    Main,
    /// TCP, for a UDP upstream's truncated or doubtful answers.
    Tcp,
}

/// An endpoint as one worker reaches it.
pub(crate) struct Path {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(super) host: Host<DnsConnector>,
    pool: Pool<DnsConnector>,
    pub(super) latency: RefCell<Latency>,
    /// When this worker last heard from it.
    heard: Cell<Option<Instant>>,
    /// Successes not yet told to the shared health, by family.
    pending: Cell<[u32; 2]>,
    /// When a query was last repeated though nothing at all comes back.
    repeated: Cell<Option<Instant>>,
    /// The family that this worker's sockets were last turned to.
    turned: Cell<Option<Family>>,
}

impl Route {
    pub(super) fn path(&self, face: Face) -> &Path {
        match face {
            Face::Main => &self.main,
            Face::Tcp => self.tcp.as_ref().unwrap_or(&self.main),
        }
    }
}

impl Path {
    pub(crate) fn new(endpoint: &Arc<Endpoint>, pool: &Pool<DnsConnector>, shard: Option<usize>) -> Path {
        let host = pool.host(&EndpointKey::new(endpoint, shard));
        Path {
            endpoint: endpoint.clone(),
            host,
            pool: pool.clone(),
            latency: RefCell::default(),
            heard: Cell::new(None),
            pending: Cell::new([0; 2]),
            repeated: Cell::new(None),
            turned: Cell::new(None),
        }
    }

    /// Notes an answer; the shared health learns of it at the next tick, or at once while a breaker is not closed.
    pub(super) fn succeeded(&self, family: Family, now: Instant, latency: Duration) {
        self.heard.set(Some(now));
        self.latency.borrow_mut().record(latency);
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
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.endpoint.counters.latency.store(micros, Ordering::Relaxed);
            }
        }
    }

    /// Forgets what was measured and turned to.
    pub(super) fn network_changed(&self) {
        self.latency.take();
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
        count(&self.endpoint.counters.failures);
        if self.endpoint.failed(family, now) && self.endpoint.has_both_families() {
            // Connections of the failed family go, so that the next dial can choose the other one.
            self.pool.flush(self.host.key());
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

/// Pause between queries repeated into silence, and after which a query looks again whether it may.
pub(super) const REPEAT: Duration = Duration::from_millis(100);

/// Bounds of the first patience for a datagram.
pub(super) const RESEND_MIN: Duration = Duration::from_millis(250);
pub(super) const RESEND_MAX: Duration = Duration::from_secs(1);
