//! Failed dials in a row: the pause before the next (exponential, full jitter) and when a host counts as unhealthy.
//!
//! Not here: the breaker across transports and addresses, which belongs to who chooses between upstreams.

use std::time::{Duration, Instant};

use crate::error::Side;

/// A small generator for jitter: nothing here needs to be hard to guess.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0.0 to below 1.0 (SplitMix64).
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Debug)]
pub(crate) struct Health<F> {
    /// In a row, of the upstream's side.
    pub(crate) failures: u32,
    /// In a row, of our own side.
    local: u32,
    pub(crate) until: Option<Instant>,
    pub(crate) last: Option<F>,
}

impl<F> Health<F> {
    pub(crate) fn new() -> Self {
        Self { failures: 0, local: 0, until: None, last: None }
    }

    /// Counts a failed dial. Returns the error that this one replaces, to be dropped outside the lock.
    pub(crate) fn fail(
        &mut self,
        fault: F,
        side: Side,
        (min, max): (Duration, Duration),
        jitter: &mut Jitter,
        now: Instant,
    ) -> Option<F> {
        let in_a_row = if side == Side::Upstream { &mut self.failures } else { &mut self.local };
        *in_a_row = in_a_row.saturating_add(1);
        let cap = min.saturating_mul(1 << (*in_a_row - 1).min(20)).min(max);
        let until = now + cap.mul_f64(jitter.fraction());
        self.until = self.until.max(Some(until));
        self.last.replace(fault)
    }

    /// A dial succeeded. Returns the old error, to be dropped outside the lock.
    pub(crate) fn reset(&mut self) -> Option<F> {
        self.failures = 0;
        self.local = 0;
        self.until = None;
        self.last.take()
    }

    /// Returns when the next dial is allowed, if not yet.
    pub(crate) fn pause(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    pub(crate) fn is_unhealthy(&self, after: Option<u32>) -> bool {
        after.is_some_and(|n| self.failures >= n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_local_errors_are_not_failures() {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
        let t0 = Instant::now();
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut jitter = Jitter::new(7);
        let mut health = Health::new();
        for n in 0..40u32 {
            health.until = None;
            health.fail((), Side::Upstream, (min, max), &mut jitter, t0);
            let cap = min.saturating_mul(1 << n.min(10)).min(max);
            assert!(health.until.is_some_and(|until| until >= t0 && until <= t0 + cap));
        }
        assert!(health.is_unhealthy(Some(3)) && !health.is_unhealthy(None));
        health.reset();
        health.fail((), Side::Local, (min, max), &mut jitter, t0);
        assert!(!health.is_unhealthy(Some(1)) && health.until.is_some());
    }

    #[test]
    fn fractions_spread() {
        let mut jitter = Jitter::new(1);
        let mean = (0..1000).map(|_| jitter.fraction()).sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
