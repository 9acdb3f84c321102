//! What `fastest` and `hedged` believe of an upstream: a latency that follows its answers, forgets while none come, and is
//! raised for a while by failures.
//!
//! Whoever is asked most is known best; the others are known from exploration only. So a belief that is not renewed shrinks
//! with time until the upstream is tried again: nothing that it once did is held against it for ever.

use std::time::{Duration, Instant};

/// The belief about one upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    /// Microseconds.
    level: f32,
    answered_at: Option<Instant>,
    /// When a query last went there to find out.
    tried_at: Option<Instant>,
    /// Microseconds, as of `failed_at`.
    penalty: f32,
    failed_at: Option<Instant>,
}

impl Estimate {
    /// An answer came. It counts an eighth, and more the longer none came before it: half after 30 s.
    pub fn answered(&mut self, now: Instant, latency: Duration) {
        let sample = micros(latency);
        let weight = match self.answered_at {
            None => 1.0,
            Some(at) => (1.0 - halvings(now.saturating_duration_since(at), HALF_LIFE)).max(WEIGHT_MIN),
        };
        self.level += (sample - self.level) * weight;
        self.answered_at = Some(now);
    }

    /// A failure that the upstream is to blame for: 100 ms more, twice the last penalty if that has not faded yet, 5 s at most.
    /// Half of it is gone after 10 s.
    pub fn failed(&mut self, now: Instant) {
        self.penalty = (self.penalty_left(now) * 2.0).clamp(PENALTY_MIN, PENALTY_MAX);
        self.failed_at = Some(now);
    }

    /// A query goes there first. Until its answer comes, others need not find out the same.
    pub fn tried(&mut self, now: Instant) {
        self.tried_at = Some(now);
    }

    /// The latency that is believed now; `None` before the first try.
    pub fn expected(&self, now: Instant) -> Option<Duration> {
        let level = match (self.answered_at, self.tried_at) {
            (None, None) => return None,
            (None, Some(_)) => UNKNOWN,
            (Some(_), _) => self.level,
        };
        let believed = level * halvings(self.idle(now), HALF_LIFE) + self.penalty_left(now);
        Some(Duration::from_secs_f32(believed.clamp(0.0, BELIEVED_MAX) / 1e6))
    }

    /// For how long nothing was learned and nobody tried.
    pub fn idle(&self, now: Instant) -> Duration {
        let last = self.answered_at.max(self.tried_at);
        last.map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }

    fn penalty_left(&self, now: Instant) -> f32 {
        let left = |at| self.penalty * halvings(now.saturating_duration_since(at), PENALTY_HALF_LIFE);
        self.failed_at.map_or(0.0, left)
    }
}

fn halvings(passed: Duration, half_life: f32) -> f32 {
    (-passed.as_secs_f32() / half_life).exp2()
}

fn micros(latency: Duration) -> f32 {
    latency.as_secs_f32() * 1e6
}

/// Seconds.
const HALF_LIFE: f32 = 30.0;
const PENALTY_HALF_LIFE: f32 = 10.0;

const WEIGHT_MIN: f32 = 0.125;

/// Microseconds.
const PENALTY_MIN: f32 = 100_000.0;
const PENALTY_MAX: f32 = 5_000_000.0;
const UNKNOWN: f32 = 1_000_000.0;
const BELIEVED_MAX: f32 = 60_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock; its value does not matter"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn near(told: Option<Duration>, right: Duration) -> bool {
        told.is_some_and(|told| told.abs_diff(right) <= right / 50)
    }

    #[test]
    fn it_follows_the_answers_and_knows_nothing_before_the_first_try() {
        let now = start();
        let mut estimate = Estimate::default();
        assert_eq!((estimate.expected(now), estimate.idle(now)), (None, Duration::MAX));
        estimate.tried(now);
        assert!(near(estimate.expected(now), S), "a try without an answer yet does not look fast");
        estimate.answered(now, MS * 40);
        assert!(near(estimate.expected(now), MS * 40));
        estimate.answered(now, MS * 120);
        assert!(near(estimate.expected(now), MS * 50));
    }

    #[test]
    fn a_slow_phase_is_forgotten_by_half_in_thirty_seconds_unless_it_is_seen_again() {
        let now = start();
        let mut estimate = Estimate::default();
        estimate.answered(now, MS * 400);
        assert!(near(estimate.expected(now + S * 30), MS * 200));
        assert!(near(estimate.expected(now + S * 120), MS * 25));
        estimate.tried(now + S * 120);
        assert!(near(estimate.expected(now + S * 120), MS * 400), "whoever tries it is the only one until it answers");
        estimate.answered(now + S * 120, MS * 10);
        let expected = estimate.expected(now + S * 120).unwrap();
        assert!(expected < MS * 40, "after a long pause an answer counts almost alone: {expected:?}");
    }

    #[test]
    fn a_failure_costs_more_each_time_and_fades() {
        let now = start();
        let mut estimate = Estimate::default();
        estimate.answered(now, MS * 10);
        estimate.failed(now);
        assert!(near(estimate.expected(now), MS * 110));
        estimate.failed(now);
        assert!(near(estimate.expected(now), MS * 210));
        (0..20).for_each(|_| estimate.failed(now));
        assert!(near(estimate.expected(now), MS * 5010));
        estimate.answered(now + S * 100, MS * 10);
        assert!(estimate.expected(now + S * 100).unwrap() < MS * 20);
    }
}
