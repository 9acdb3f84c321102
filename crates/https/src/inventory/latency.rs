//! What latency is expected of an address: follows its answers, and shrinks while none come.
//!
//! Whoever is asked most is known best. So an estimate that is not renewed shrinks until its address is tried again: nothing that it once
//! did is held against it for ever.

use std::time::{Duration, Instant};

/// The estimate for one address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latency {
    /// Seconds.
    level: f32,
    answered_at: Option<Instant>,
    chosen_at: Option<Instant>,
}

impl Latency {
    /// An answer came. It counts an eighth, and more the longer none came before it: half after 30 s.
    pub(super) fn answered(&mut self, now: Instant, latency: Duration) {
        let weight = match self.answered_at {
            None => 1.0,
            Some(at) => (1.0 - halvings(now.saturating_duration_since(at))).max(WEIGHT_MIN),
        };
        self.level += (latency.as_secs_f32().min(LEVEL_MAX) - self.level) * weight;
        self.answered_at = Some(now);
    }

    /// A request goes there. Until its answer comes, others need not find out the same.
    pub(super) fn chosen(&mut self, now: Instant) {
        self.chosen_at = Some(now);
    }

    /// What a request that is sent now has to expect, against others: the less the better. 0: nobody knows, and nobody is finding out.
    pub(super) fn score(&self, in_flight: u32, now: Instant) -> f32 {
        let level = if self.answered_at.is_some() {
            self.level
        } else if in_flight > 0 || self.chosen_at.is_some() {
            UNKNOWN
        } else {
            return 0.0;
        };
        let last = self.answered_at.max(self.chosen_at);
        let idle = last.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (level * halvings(idle)).max(LEVEL_MIN) * (in_flight as f32 + 1.0)
    }

    /// The latency that its answers had; none before the first.
    pub(super) fn seen(&self) -> Option<Duration> {
        self.answered_at.map(|_| Duration::from_secs_f32(self.level.max(0.0)))
    }
}

fn halvings(passed: Duration) -> f32 {
    (-passed.as_secs_f32() / HALF_LIFE).exp2()
}

/// Seconds.
const HALF_LIFE: f32 = 30.0;

const WEIGHT_MIN: f32 = 0.125;

/// Below a millisecond addresses are equally near. Seconds.
const LEVEL_MIN: f32 = 0.001;
const LEVEL_MAX: f32 = 3600.0;

/// What is expected of an address that was tried and has not answered yet. Seconds.
const UNKNOWN: f32 = 1.0;

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

    fn is_near(score: f32, right: f32) -> bool {
        (score - right).abs() <= right / 50.0
    }

    #[test]
    fn it_follows_the_answers_by_an_eighth_each() {
        let now = start();
        let mut latency = Latency::default();
        assert_eq!(latency.seen(), None);
        latency.answered(now, MS * 40);
        assert!(is_near(latency.score(0, now), 0.040));
        latency.answered(now, MS * 120);
        assert!(is_near(latency.score(0, now), 0.050));
        assert!(is_near(latency.score(3, now), 0.200), "with three in flight it is the fourth's turn");
    }

    #[test]
    fn one_that_nobody_tried_comes_first_and_one_that_has_not_answered_does_not() {
        let now = start();
        let mut latency = Latency::default();
        assert_eq!(latency.score(0, now), 0.0);
        latency.chosen(now);
        assert!(latency.score(1, now) > 1.0);
        assert!(latency.score(0, now) > 0.9, "a try that ended without an answer says nothing good");
    }

    #[test]
    fn an_estimate_halves_in_thirty_seconds_until_somebody_tries_again() {
        let now = start();
        let mut latency = Latency::default();
        latency.answered(now, MS * 400);
        assert!(is_near(latency.score(0, now + S * 30), 0.200));
        assert!(is_near(latency.score(0, now + S * 3600), 0.001), "not below a millisecond");
        latency.chosen(now + S * 120);
        assert!(is_near(latency.score(0, now + S * 120), 0.400));
        latency.answered(now + S * 120, MS * 10);
        assert!(latency.score(0, now + S * 120) < 0.040, "after a pause an answer counts almost alone");
    }
}
