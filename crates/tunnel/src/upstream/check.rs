//! Looks after one upstream while nobody asks: the number of its spares, and whether it is well.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use keepwarm_pool::health::Allowed;
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
        if upstream.is_direct() {
            return;
        }
        if let Way::Proxy(spares) = &upstream.way {
            spares.tick();
        }
        if upstream.is_due(checked, interval) {
            upstream.check().await;
            checked = Clock::now();
        }
        if let Way::Proxy(spares) = &upstream.way
            && upstream.vitals.is_sound()
        {
            spares.canary(upstream.config.check.as_ref(), upstream.dial_limit()).await;
        }
    }
}

impl Upstream {
    fn is_due(&self, checked: Clock, interval: Duration) -> bool {
        let now = Clock::now();
        let standing = self.vitals.standing(now.into_std());
        match standing.allowed {
            Allowed::No { .. } => false,
            Allowed::Probe => {
                self.vitals.asked(now.into_std());
                true
            }
            Allowed::Yes if interval.is_zero() => false,
            Allowed::Yes => {
                let answered = standing.answered.map_or(checked, |at| checked.max(at.into()));
                // One that has failed and is not yet left alone is looked at soon.
                let pause = if standing.snapshot.consecutive_failures > 0 { interval.min(DOUBTFUL) } else { interval };
                now.saturating_duration_since(answered) >= pause
            }
        }
    }

    fn dial_limit(&self) -> Instant {
        (Clock::now() + self.connect_timeout).into_std()
    }

    /// Finds out whether the upstream is well: by connecting to the destination that it is known to reach where there is one, else by
    /// making a spare, whose dial counts itself.
    async fn check(&self) {
        let start = Clock::now();
        let checked = match (&self.way, &self.config.check) {
            (Way::Direct(_), _) => return,
            (Way::Proxy(spares), Some(target)) => self.check_target(spares, target).await,
            (Way::Proxy(spares), None) => {
                return spares.check(self.dial_limit()).await.map_or((), |()| self.answered_check(start));
            }
            #[cfg(feature = "ssh")]
            (Way::Ssh(sessions), Some(target)) => match sessions.open(target, self.dial_limit()).await {
                Err((_, false)) => return,
                opened => opened.map(drop).map_err(|(error, _)| error),
            },
            #[cfg(feature = "ssh")]
            (Way::Ssh(sessions), None) => {
                return sessions.check(self.dial_limit()).await.map_or((), |()| self.answered_check(start));
            }
        };
        match checked {
            Ok(()) => self.answered_check(start),
            Err(error) => match Blame::of(&error) {
                // Whoever answers is well, unless it was asked for what it is known to reach.
                Blame::Destination | Blame::Declined | Blame::Proxy => self.vitals.blame(&error),
                Blame::Local => {}
            },
        }
    }

    fn answered_check(&self, start: Clock) {
        let now = Clock::now();
        self.vitals.answered(now.into_std(), now - start);
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
