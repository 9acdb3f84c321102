//! How many second tries the hedged strategy may make: a token bucket that queries fill.
//!
//! One bucket for all workers: what is promised is promised of the server, and the strategies that do not hedge never touch it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::HedgeSettings;

/// The tokens that are left. A query earns a share of one, a second try costs one.
///
/// At any time the second tries made are at most `burst + budget * queries`.
#[derive(Debug)]
pub struct HedgeBudget {
    /// Millionths of a token.
    left: AtomicU64,
    earned: u64,
    max: u64,
}

impl HedgeBudget {
    /// A full bucket. A `burst` of 0 allows no second try at all.
    pub fn new(settings: HedgeSettings) -> HedgeBudget {
        let max = u64::from(settings.burst) * TOKEN;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded down, and within 0 to 1")]
        let earned = (settings.budget.clamp(0.0, 1.0) * TOKEN as f64) as u64;
        HedgeBudget { left: AtomicU64::new(max), earned, max }
    }

    /// A query came.
    pub fn earn(&self) {
        let more = |left: u64| (left < self.max).then(|| (left + self.earned).min(self.max));
        // A full bucket is left alone.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes a token; `false` when there is none.
    pub fn spend(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(TOKEN)).is_ok()
    }
}

const TOKEN: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_never_wasted() {
        for (budget, burst) in [(0.05, 10), (0.0, 3), (1.0, 1), (0.333, 7), (0.05, 0)] {
            let bucket = HedgeBudget::new(HedgeSettings { budget, burst });
            let mut hedges = 0;
            for queries in 1..=10_000_u32 {
                bucket.earn();
                hedges += u32::from(bucket.spend());
                assert!(f64::from(hedges) <= f64::from(burst) + budget * f64::from(queries) + 1e-6);
            }
            let due = if burst == 0 { 0.0 } else { budget * 10_000.0 };
            assert!(f64::from(hedges) >= due - 1.0, "{hedges} with {budget} and {burst}");
        }
    }

    #[test]
    fn a_bad_moment_may_use_what_was_saved_and_no_more() {
        let bucket = HedgeBudget::new(HedgeSettings { budget: 0.1, burst: 5 });
        (0..1000).for_each(|_| bucket.earn());
        assert_eq!((0..100).filter(|_| bucket.spend()).count(), 5);
        (0..20).for_each(|_| bucket.earn());
        assert_eq!((0..100).filter(|_| bucket.spend()).count(), 2);
    }
}
