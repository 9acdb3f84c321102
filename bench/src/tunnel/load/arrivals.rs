//! When tunnels begin that come at random: as many a second on average, and each moment as likely as any other.
//!
//! The same moments in every run, so that all proxies get the same bursts.

use std::time::Duration;

/// Moments since the start, in their order, without end.
pub(super) struct Arrivals {
    rate: f64,
    at: f64,
    state: u64,
}

impl Arrivals {
    /// So many a second on average.
    pub(super) fn new(rate: f64) -> Arrivals {
        Arrivals { rate, at: 0.0, state: 1 }
    }

    /// Above 0, up to 1. The generator is `SplitMix64`.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // The time between two arrivals of a Poisson process.
        self.at += -self.random().ln() / self.rate;
        Some(Duration::from_secs_f64(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_met_and_moments_are_those_of_a_poisson_process() {
        let moments: Vec<f64> = Arrivals::new(20.0).take(20_000).map(|at| at.as_secs_f64()).collect();
        assert!((moments[19_999] - 1_000.0).abs() < 25.0, "{}", moments[19_999]);
        // More than a share of 1/e of the gaps would be longer than the mean if they were even, fewer if they came in clumps.
        let longer = moments.windows(2).filter(|pair| pair[1] - pair[0] > 0.05).count() as f64 / 19_999.0;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
        assert!(moments.is_sorted());
    }
}
