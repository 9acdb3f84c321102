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
    /// When an answer came or a request was sent there last.
    touched_at: Option<Instant>,
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
        self.touched_at = self.touched_at.max(Some(now));
    }

    /// A request goes there. Until its answer comes, others need not find out the same.
    pub(super) fn chosen(&mut self, now: Instant) {
        self.touched_at = self.touched_at.max(Some(now));
    }

    /// What a request that is sent now has to expect, against others: the less the better. 0: nobody knows, and nobody is finding out.
    pub(super) fn score(&self, in_flight: u32, now: Instant) -> f32 {
        let Some(touched_at) = self.touched_at else { return 0.0 };
        let level = if self.answered_at.is_some() { self.level } else { UNKNOWN };
        let believed = level * halvings(now.saturating_duration_since(touched_at));
        believed.max(LEVEL_MIN) * (in_flight as f32 + 1.0)
    }

    /// The latency that its answers had; none before the first.
    pub(super) fn seen(&self) -> Option<Duration> {
        self.answered_at.map(|_| Duration::from_secs_f32(self.level.max(0.0)))
    }
}

/// 2 to the power of minus the half-lives passed; a straight line between whole ones, at most 6 % too high, which is far less than
/// what counts as equal: a call of `exp2` for each address of each request would be most of what choosing costs.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 127 * 2^23, which fits")]
fn halvings(passed: Duration) -> f32 {
    let exponent = (EXPONENT_BIAS - passed.as_secs_f32() / HALF_LIFE).max(0.0);
    f32::from_bits((exponent * MANTISSA) as u32)
}

/// Seconds.
const HALF_LIFE: f32 = 30.0;

/// Of the numbers of IEEE 754 that have 32 bits: their bits, read as an integer, are nearly a logarithm.
const EXPONENT_BIAS: f32 = 127.0;
const MANTISSA: f32 = 8_388_608.0;

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
    fn the_decay_is_right_at_whole_half_lives_and_within_six_percent_between_them() {
        let mut last = f32::INFINITY;
        for tenths in 0..40_000 {
            let passed = Duration::from_millis(tenths * 100);
            let (told, right) = (halvings(passed), (-passed.as_secs_f32() / HALF_LIFE).exp2());
            assert!(
                told <= last && told >= right * 0.999 - 1e-37 && told <= right * 1.0625 + 1e-37,
                "{passed:?}: {told}"
            );
            last = told;
        }
        assert_eq!((halvings(Duration::ZERO), halvings(S * 60), halvings(Duration::MAX)), (1.0, 0.25, 0.0));
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
