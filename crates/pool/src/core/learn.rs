//! After how long a peer closes idle connections, learned from when it did.
//!
//! Real resolvers close after 4 to 10 s and say nothing beforehand; a connection that is retired a little earlier never fails under
//! a query. Not here: what one peer says about one connection (edns-tcp-keepalive, Keep-Alive), which the slot keeps.

use std::time::{Duration, Instant};

use crate::limits::IdlePolicy;

/// Closes at a younger age say nothing about idle time-outs.
const AGE_MIN: Duration = Duration::from_millis(500);
/// Closes within this of each other are one event, such as a restart of the peer, of which the oldest age counts.
const BURST: Duration = Duration::from_millis(200);
/// After this long without a confirmation the limit is raised, so that one accident does not shrink it for ever.
const HOLD: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub(crate) struct Learner {
    ceiling: Duration,
    policy: IdlePolicy,
    /// What holds while nothing was learned; `None`: the ceiling.
    assumed: Option<Duration>,
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
    pub(crate) fn new(ceiling: Duration, policy: IdlePolicy) -> Self {
        let assumed = policy.start.filter(|start| *start < ceiling);
        Self { ceiling, policy, assumed, learned: None, touched: None, burst: None }
    }

    /// Sets the ceiling and how is learned below it. What was learned stays.
    pub(crate) fn set_ceiling(&mut self, ceiling: Duration, policy: IdlePolicy) {
        let fresh = Self::new(ceiling, policy);
        self.assumed =
            if self.policy.start == policy.start { self.assumed.filter(|age| *age < ceiling) } else { fresh.assumed };
        (self.ceiling, self.policy) = (ceiling, policy);
    }

    /// Returns after how long an idle connection is to be retired.
    pub(crate) fn limit(&self) -> Duration {
        let limit = self.learned.map(|age| self.with_margin(age)).or(self.assumed);
        limit.map_or(self.ceiling, |limit| limit.min(self.ceiling))
    }

    #[cfg(test)]
    fn is_learned(&self) -> bool {
        self.learned.is_some_and(|age| self.with_margin(age) < self.ceiling)
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

    /// A connection idled for `age` and was not closed. Returns whether the limit, if it was assumed only, was raised.
    pub(crate) fn survived(&mut self, age: Duration) -> bool {
        let Some(assumed) = self.assumed.filter(|_| self.learned.is_none()) else { return false };
        // Jitter ends connections earlier; those say as much as they lived.
        let shortest = assumed.mul_f64(1.0 - self.policy.jitter.clamp(0.0, 1.0));
        if age < shortest {
            return false;
        }
        let raised = assumed + assumed / 4;
        self.assumed = (raised < self.ceiling).then_some(raised);
        true
    }

    /// Raises a limit that nothing has confirmed for long. Returns whether it changed.
    pub(crate) fn relax(&mut self, now: Instant) -> bool {
        let (Some(age), Some(touched)) = (self.learned, self.touched) else { return false };
        if now.saturating_duration_since(touched) < HOLD {
            return false;
        }
        let raised = age + age / 4;
        self.learned = (self.with_margin(raised) < self.ceiling).then_some(raised);
        if self.learned.is_none() {
            self.assumed = None;
        }
        self.touched = Some(now);
        true
    }

    /// Retires shortly before: a part of the age, at least 100 ms.
    pub(crate) fn with_margin(&self, age: Duration) -> Duration {
        let margin = age.mul_f64(self.policy.margin.clamp(0.0, 1.0));
        age.saturating_sub(margin.min(self.policy.margin_max).max(MARGIN_MIN))
    }
}

/// A connection that is retired later than this before its peer's limit may meet the close on its way.
const MARGIN_MIN: Duration = Duration::from_millis(100);

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
        let (mut learner, t0) = (Learner::new(90 * SECOND, IdlePolicy::default()), origin());
        assert!(learner.closed_at(10 * SECOND, t0));
        assert_eq!(learner.limit(), Duration::from_millis(8750));
        assert!(!learner.closed_at(12 * SECOND, t0 + 20 * SECOND));
        assert!(learner.closed_at(4 * SECOND, t0 + 40 * SECOND));
        assert_eq!(learner.limit(), Duration::from_millis(3500));
        assert!(learner.is_learned());
    }

    #[test]
    fn a_restart_of_the_peer_counts_once_with_its_oldest_age() {
        let (mut learner, t0) = (Learner::new(90 * SECOND, IdlePolicy::default()), origin());
        learner.closed_at(SECOND, t0);
        learner.closed_at(30 * SECOND, t0 + Duration::from_millis(5));
        learner.closed_at(3 * SECOND, t0 + Duration::from_millis(6));
        assert_eq!(learner.limit(), 28 * SECOND);
    }

    #[test]
    fn an_accident_is_forgotten() {
        let (mut learner, t0) = (Learner::new(20 * SECOND, IdlePolicy::default()), origin());
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
        let mut learner = Learner::new(90 * SECOND, IdlePolicy::default());
        assert!(!learner.closed_at(Duration::from_millis(20), origin()));
        assert_eq!(learner.limit(), 90 * SECOND);
    }

    #[test]
    fn what_is_only_assumed_grows_with_each_connection_that_reaches_it_and_learning_ends_it() {
        let policy =
            IdlePolicy { start: Some(12 * SECOND), margin: 0.2, margin_max: 30 * SECOND, ..IdlePolicy::default() };
        let mut learner = Learner::new(30 * SECOND, policy);
        assert_eq!(learner.limit(), 12 * SECOND);
        assert!(!learner.survived(11 * SECOND));
        let mut limits = Vec::new();
        while learner.survived(learner.limit()) {
            limits.push(learner.limit().as_millis());
        }
        assert_eq!(limits, [15_000, 18_750, 23_437, 29_296, 30_000]);
        let mut learner = Learner::new(30 * SECOND, policy);
        assert!(learner.closed_at(5 * SECOND, origin()));
        assert_eq!(learner.limit(), 4 * SECOND);
        assert!(!learner.survived(4 * SECOND), "what the peer showed counts, not what survives below it");
    }
}
