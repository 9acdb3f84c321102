//! Looks after one upstream while nobody asks: the number of its spares, and whether it is well.

use std::{
    sync::{Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_pool::health::Allowed;
use keepwarm_transport::proxy::{Blame, Target};
use tokio::time::Instant as Clock;

use super::{Missed, Upstream, Way, proxy::over};
use crate::spares::Spares;

/// Goes on until the upstream is gone.
pub(super) async fn look_after(upstream: Weak<Upstream>) {
    let mut checked = Clock::now();
    loop {
        tokio::time::sleep(TICK).await;
        let Some(upstream) = upstream.upgrade() else { return };
        if upstream.paused().is_some() {
            continue;
        }
        if let Way::Proxy(spares) = &upstream.way {
            spares.tick();
        }
        if upstream.is_due(checked) {
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
    /// One that is well and was not used is checked at intervals, or not at all where these are zero.
    fn is_due(&self, checked: Clock) -> bool {
        let (now, interval) = (Clock::now(), self.tuning.check_interval());
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
        (Clock::now() + self.tuning.connect_timeout()).into_std()
    }

    /// Finds out whether the upstream is well: by connecting to the destination that it is known to reach where there is one, else by
    /// making a spare, whose dial counts itself.
    async fn check(&self) {
        let start = Clock::now();
        let before = self.checked.swap(self.tunnels(), Ordering::Relaxed);
        let checked = match (&self.way, &self.config.check) {
            (Way::Direct(_), _) => return,
            (Way::Proxy(spares), Some(target)) => self.check_target(spares, target).await,
            (Way::Proxy(spares), None) => {
                return spares.check(self.dial_limit()).await.map_or((), |()| self.answered_check(start));
            }
            #[cfg(feature = "ssh")]
            (Way::Ssh(sessions), Some(target)) => match sessions.open(target, self.dial_limit()).await {
                Ok(_) => Ok(()),
                Err((error, asked)) => Err(Missed { asked, ..Missed::new(error, 1) }),
            },
            #[cfg(feature = "ssh")]
            (Way::Ssh(sessions), None) => {
                // A session that is there says nothing; one that is made does.
                if sessions.check(self.dial_limit()).await == Ok(true) {
                    self.answered_check(start);
                }
                return;
            }
        };
        match checked {
            Ok(()) => self.answered_check(start),
            // A dial counts itself.
            Err(missed) if !missed.asked => {}
            Err(missed) => match missed.blame {
                Blame::Proxy => self.vitals.blame(&missed.error),
                // It is known to reach this destination. Where other tunnels were made meanwhile, the destination is to blame.
                Blame::Destination | Blame::Declined if before == self.tunnels() => self.vitals.blame(&missed.error),
                Blame::Destination | Blame::Declined | Blame::Local => {}
            },
        }
    }

    fn tunnels(&self) -> u64 {
        self.counters.tunnels.load(Ordering::Relaxed)
    }

    fn answered_check(&self, start: Clock) {
        let now = Clock::now();
        self.vitals.answered(now.into_std(), now - start);
    }

    async fn check_target(&self, spares: &Spares, target: &Target) -> Result<(), Missed> {
        let deadline = self.dial_limit();
        if let Some(taken) = spares.take_ready() {
            match over(taken, target, deadline).await {
                Ok(_) => return Ok(()),
                Err(failed) if failed.is_dead() => {}
                Err(failed) => return Err(failed.missed(1)),
            }
        }
        self.fresh(spares, target, deadline).await.map(drop)
    }
}

/// How often the number of spares is adapted.
const TICK: Duration = Duration::from_secs(1);

/// Pause before an upstream that failed is checked again.
const DOUBTFUL: Duration = Duration::from_secs(5);
