//! How one upstream fares: its breaker, what it was last blamed for, when it was last heard.
//!
//! Dials of spares count as much as tunnels do: an upstream that is down is left alone before anybody asks for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keepwarm_pool::{
    BreakerSettings,
    health::{Allowed, BreakerState, Health, HealthSnapshot},
};
use keepwarm_transport::{
    error::Error,
    proxy::{Blame, Target},
};
use parking_lot::Mutex;
use tokio::time::Instant as Clock;

/// The health of one upstream.
pub(crate) struct Vitals {
    name: Arc<str>,
    state: Mutex<State>,
    failed: AtomicU64,
}

struct State {
    health: Health,
    /// When the breaker closed after it had been open.
    well_since: Option<Instant>,
    /// What it was last blamed for.
    last_failure: Option<(Instant, Arc<str>)>,
    /// When it last answered anything.
    answered: Option<Instant>,
    /// A destination that it was silent about, and another upstream reached.
    silent_about: Option<Target>,
}

/// What others go by.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) allowed: Allowed,
    pub(crate) well_since: Option<Instant>,
    pub(crate) snapshot: HealthSnapshot,
    pub(crate) last_failure: Option<(Instant, Arc<str>)>,
    pub(crate) answered: Option<Instant>,
    pub(crate) failed: u64,
}

impl Vitals {
    pub(crate) fn new(name: &Arc<str>, breaker: BreakerSettings) -> Vitals {
        let state = State {
            health: Health::new(breaker),
            well_since: None,
            last_failure: None,
            answered: None,
            silent_about: None,
        };
        Vitals { name: Arc::clone(name), state: Mutex::new(state), failed: AtomicU64::new(0) }
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let state = self.state.lock();
        Standing {
            allowed: state.health.allowed(now),
            well_since: state.well_since,
            snapshot: state.health.snapshot(now),
            last_failure: state.last_failure.clone(),
            answered: state.answered,
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn latency(&self) -> Option<Duration> {
        self.state.lock().health.snapshot(Clock::now().into_std()).latency
    }

    /// Whether it was ever heard, and nothing has failed since.
    pub(crate) fn is_sound(&self) -> bool {
        let state = self.state.lock();
        state.answered.is_some() && state.health.snapshot(Clock::now().into_std()).consecutive_failures == 0
    }

    /// It is asked: if its breaker lets one probe through, this is the one.
    pub(crate) fn asked(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.health.allowed(now) == Allowed::Probe {
            state.health.probe_started(now);
        }
    }

    /// It answered, whatever it said.
    pub(crate) fn answered(&self, now: Instant, after: Duration) {
        let mut state = self.state.lock();
        let was_open = state.health.state() != BreakerState::Closed;
        state.health.record_success(now, after, 1);
        state.answered = Some(now);
        state.silent_about = None;
        if was_open && state.health.state() == BreakerState::Closed {
            state.well_since = Some(now);
            tracing::info!(upstream = &*self.name, "upstream is well again");
        }
    }

    /// It said nothing about a destination that another upstream then reached. One such destination may not let this upstream in; two are
    /// a failure.
    pub(crate) fn was_silent(&self, target: &Target, error: &Error) {
        let before = self.state.lock().silent_about.replace(target.clone());
        if before.is_some_and(|before| before != *target) {
            self.blame(error);
        }
    }

    /// It failed, if it is to blame for this error.
    pub(crate) fn judge(&self, error: &Error) {
        if Blame::of(error) == Blame::Proxy {
            self.blame(error);
        }
    }

    /// It failed.
    pub(crate) fn blame(&self, error: &Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let now = Clock::now().into_std();
        let mut state = self.state.lock();
        let was_closed = state.health.state() == BreakerState::Closed;
        state.health.record_failure(now, rand::random());
        if was_closed && state.health.state() != BreakerState::Closed {
            // Not the whole error: it may name the destination. What is below it is between us and the proxy.
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                upstream = &*self.name,
                error = error.kind().as_str(),
                reason,
                "upstream is left alone for a while"
            );
        }
        state.last_failure = Some((now, error.to_string().into()));
    }

    /// Changes when it is left alone. What is known of it stays.
    pub(crate) fn set_breaker(&self, breaker: BreakerSettings) {
        self.state.lock().health.set_settings(breaker);
    }

    /// Addresses or routes changed: what was known of it holds no longer.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.health.reset();
        state.well_since = None;
    }
}
