//! Looks after one upstream while nobody asks: the number of its spares, and whether it is well.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use keepwarm_pool::health::{Allowed, BreakerState};
use keepwarm_transport::{
    error::Error,
    proxy::{Blame, Target},
};
use tokio::time::Instant as Clock;

use super::{Missed, Upstream, Way, over};
use crate::spares::Spares;

/// Goes on until the upstream is gone. `interval` is the pause between two checks of an upstream that is well and was not used; zero:
/// such an upstream is not checked.
pub(crate) async fn look_after(upstream: Weak<Upstream>, interval: Duration) {
    let mut checked = Clock::now();
    loop {
        tokio::time::sleep(TICK).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let Way::Proxy(spares) = &upstream.way else { return };
        spares.tick();
        if upstream.is_due(checked, interval) {
            upstream.check(spares).await;
            checked = Clock::now();
        }
        if upstream.has_answered() {
            let deadline = (Clock::now() + upstream.connect_timeout).into_std();
            spares.canary(upstream.config.check.as_ref(), deadline).await;
        }
    }
}

impl Upstream {
    fn is_due(&self, checked: Clock, interval: Duration) -> bool {
        let now = Clock::now();
        let mut state = self.state.lock();
        match state.health.allowed(now.into_std()) {
            Allowed::No { .. } => false,
            Allowed::Probe => {
                state.health.probe_started(now.into_std());
                true
            }
            Allowed::Yes if interval.is_zero() => false,
            Allowed::Yes => {
                let answered = state.answered.map_or(checked, |at| checked.max(at.into()));
                // One that has failed and is not yet left alone is looked at soon.
                let is_doubtful = state.health.snapshot(now.into_std()).consecutive_failures > 0;
                let pause = if is_doubtful { interval.min(DOUBTFUL) } else { interval };
                debug_assert!(state.health.state() == BreakerState::Closed, "all of them are let through");
                now.saturating_duration_since(answered) >= pause
            }
        }
    }

    /// Whether it was ever heard, and is well: what it does not bear is not its outage.
    fn has_answered(&self) -> bool {
        let state = self.state.lock();
        state.answered.is_some() && state.health.snapshot(Clock::now().into_std()).consecutive_failures == 0
    }

    /// Finds out whether the upstream is well: over a spare where there is a destination to ask for, else by making a spare.
    async fn check(self: &Arc<Self>, spares: &Spares) {
        let start = Clock::now();
        let deadline = (start + self.connect_timeout).into_std();
        let checked = match &self.config.check {
            None => spares.check(deadline).await,
            Some(target) => self.check_target(spares, target).await,
        };
        let now = Clock::now();
        match checked {
            Ok(()) => self.answered(now.into_std(), now - start),
            Err(error) => match Blame::of(&error) {
                // Whoever answers is well, unless it was asked for what it is known to reach.
                Blame::Destination | Blame::Declined | Blame::Proxy => self.blame(&error),
                Blame::Local => {}
            },
        }
    }

    async fn check_target(&self, spares: &Spares, target: &Target) -> Result<(), Error> {
        let deadline = (Clock::now() + self.connect_timeout).into_std();
        let taken = spares.take(false, deadline).await?;
        let (was_ready, age) = (taken.was_ready, taken.idle_for);
        let first = over(taken, target, deadline).await;
        match first {
            Err(error) if was_ready && super::is_dead(&error) => {
                spares.stale(age);
                self.fresh(spares, target, deadline).await.map(drop).map_err(|Missed { error, .. }| error)
            }
            other => other.map(drop),
        }
    }
}

/// How often the number of spares is adapted.
const TICK: Duration = Duration::from_secs(1);

/// Pause before an upstream that failed is checked again.
const DOUBTFUL: Duration = Duration::from_secs(5);
