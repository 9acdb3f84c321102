//! After how long a peer closes idle connections, learned from when it did.
//!
//! Real resolvers close after 4 to 10 s and say nothing beforehand; a connection that is retired a little earlier never fails under
//! a query. Not here: what one peer says about one connection (edns-tcp-keepalive, Keep-Alive), which the slot keeps.

use std::time::{Duration, Instant};

/// Closes at a younger age say nothing about idle time-outs.
const AGE_MIN: Duration = Duration::from_millis(500);
/// Closes within this of each other are one event, such as a restart of the peer, of which the oldest age counts.
const BURST: Duration = Duration::from_millis(200);
/// After this long without a confirmation the limit is raised, so that one accident does not shrink it for ever.
const HOLD: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub(crate) struct Learner {
    ceiling: Duration,
    learned: Option<Duration>,
    touched: Option<Instant>,
    burst: Option<Burst>,
}

#[derive(Clone, Debug)]
struct Burst {
    at: Instant,
    age_max: Duration,
    before: Option<Duration>,
}

impl Learner {
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self { ceiling, learned: None, touched: None, burst: None }
    }

    /// Returns after how long an idle connection is to be retired.
    pub(crate) fn limit(&self) -> Duration {
        self.learned.map_or(self.ceiling, |age| with_margin(age).min(self.ceiling))
    }

    #[cfg(test)]
    fn is_learned(&self) -> bool {
        self.learned.is_some_and(|age| with_margin(age) < self.ceiling)
    }

    /// The peer closed a connection that had idled for `age`. Returns whether the limit changed.
    pub(crate) fn closed_at(&mut self, age: Duration, now: Instant) -> bool {
        if age < AGE_MIN {
            return false;
        }
        let before = self.limit();
        match &mut self.burst {
            Some(burst) if now.saturating_duration_since(burst.at) < BURST => burst.age_max = burst.age_max.max(age),
            burst => *burst = Some(Burst { at: now, age_max: age, before: self.learned }),
        }
        if let Some(burst) = &self.burst {
            self.learned = Some(burst.before.map_or(burst.age_max, |known| known.min(burst.age_max)));
        }
        self.touched = Some(now);
        self.limit() != before
    }

    /// Raises a limit that nothing has confirmed for long. Returns whether it changed.
    pub(crate) fn relax(&mut self, now: Instant) -> bool {
        let (Some(age), Some(touched)) = (self.learned, self.touched) else { return false };
        if now.saturating_duration_since(touched) < HOLD {
            return false;
        }
        let raised = age + age / 4;
        self.learned = (with_margin(raised) < self.ceiling).then_some(raised);
        self.touched = Some(now);
        true
    }
}

/// Retires shortly before: an eighth of the age, at least 100 ms and at most 2 s.
pub(crate) fn with_margin(age: Duration) -> Duration {
    let margin = (age / 8).clamp(Duration::from_millis(100), Duration::from_secs(2));
    age.saturating_sub(margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn learns_the_smallest_age_and_stays_below_it() {
        let (mut learner, t0) = (Learner::new(90 * SECOND), origin());
        assert!(learner.closed_at(10 * SECOND, t0));
        assert_eq!(learner.limit(), Duration::from_millis(8750));
        assert!(!learner.closed_at(12 * SECOND, t0 + 20 * SECOND));
        assert!(learner.closed_at(4 * SECOND, t0 + 40 * SECOND));
        assert_eq!(learner.limit(), Duration::from_millis(3500));
        assert!(learner.is_learned());
    }

    #[test]
    fn a_restart_of_the_peer_counts_once_with_its_oldest_age() {
        let (mut learner, t0) = (Learner::new(90 * SECOND), origin());
        learner.closed_at(SECOND, t0);
        learner.closed_at(30 * SECOND, t0 + Duration::from_millis(5));
        learner.closed_at(3 * SECOND, t0 + Duration::from_millis(6));
        assert_eq!(learner.limit(), 28 * SECOND);
    }

    #[test]
    fn an_accident_is_forgotten() {
        let (mut learner, t0) = (Learner::new(20 * SECOND), origin());
        learner.closed_at(SECOND, t0);
        let mut now = t0;
        let mut raises = 0;
        while learner.is_learned() {
            now += HOLD;
            assert!(learner.relax(now));
            raises += 1;
        }
        assert!((10..20).contains(&raises), "{raises}");
        assert_eq!(learner.limit(), 20 * SECOND);
    }

    #[test]
    fn a_close_right_after_the_last_use_teaches_nothing() {
        let mut learner = Learner::new(90 * SECOND);
        assert!(!learner.closed_at(Duration::from_millis(20), origin()));
        assert_eq!(learner.limit(), 90 * SECOND);
    }
}
