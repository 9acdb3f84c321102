//! What a load saw.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

use super::LoadArgs;

/// What a load prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::tunnel) struct Outcome {
    /// Tunnels that worked.
    pub(in crate::tunnel) tunnels: u64,
    pub(in crate::tunnel) failed: u64,
    /// Why the first one failed.
    pub(in crate::tunnel) error: Option<String>,
    pub(in crate::tunnel) wall_s: f64,
    /// From `connect` to the proxy's word.
    pub(in crate::tunnel) ready: Percentiles,
    /// From `connect` to the destination's first byte.
    pub(in crate::tunnel) first: Percentiles,
    /// Tunnels that were ready soon.
    pub(in crate::tunnel) soon: u64,
    /// Bytes that were moved.
    pub(in crate::tunnel) bytes: u64,
}

/// Of latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::tunnel) struct Percentiles {
    pub(in crate::tunnel) p50: f64,
    pub(in crate::tunnel) p90: f64,
    pub(in crate::tunnel) p99: f64,
}

/// Counts while a load runs.
pub(super) struct Tally {
    soon_max: Duration,
    /// Ready, and first byte.
    times: Vec<(Duration, Duration)>,
    failed: u64,
    error: Option<String>,
}

impl Tally {
    pub(super) fn new(args: &LoadArgs) -> Tally {
        let soon_max = Duration::from_micros(args.soon_micros);
        Tally { soon_max, times: Vec::new(), failed: 0, error: None }
    }

    /// A tunnel, with the times until it was ready and until the first byte.
    pub(super) fn add(&mut self, tunnel: io::Result<(Duration, Duration)>) {
        match tunnel {
            Ok(times) => self.times.push(times),
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// All together; there must be one.
    pub(super) fn sum(tallies: Vec<Tally>) -> Tally {
        let soon_max = tallies.first().map_or(Duration::ZERO, |tally| tally.soon_max);
        tallies.into_iter().fold(Tally { soon_max, times: Vec::new(), failed: 0, error: None }, |mut sum, tally| {
            sum.times.extend(tally.times);
            sum.failed += tally.failed;
            sum.error = sum.error.or(tally.error);
            sum
        })
    }

    pub(super) fn outcome(self, wall: Duration) -> Outcome {
        let soon = self.times.iter().filter(|(ready, _)| *ready <= self.soon_max).count();
        Outcome {
            tunnels: self.times.len() as u64,
            failed: self.failed,
            wall_s: wall.as_secs_f64(),
            ready: Percentiles::of(self.times.iter().map(|(ready, _)| *ready)),
            first: Percentiles::of(self.times.iter().map(|(_, first)| *first)),
            soon: soon as u64,
            bytes: 0,
            error: self.error,
        }
    }
}

impl Percentiles {
    fn of(times: impl Iterator<Item = Duration>) -> Percentiles {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        // Of so many values in a hundred none is above.
        let one = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Percentiles { p50: one(50), p90: one(90), p99: one(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let of = |micros: &[u64]| Percentiles::of(micros.iter().copied().map(Duration::from_micros));
        assert_eq!(of(&[]), Percentiles::default());
        assert_eq!(of(&[7]), Percentiles { p50: 7.0, p90: 7.0, p99: 7.0 });
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Percentiles { p50: 50.0, p90: 90.0, p99: 99.0 });
    }

    #[test]
    fn what_failed_is_not_among_the_times() {
        let micros = Duration::from_micros;
        let tally = |soon_max| Tally { soon_max, times: Vec::new(), failed: 0, error: None };
        let (mut one, mut other) = (tally(micros(75)), tally(micros(75)));
        one.add(Ok((micros(75), micros(100))));
        one.add(Ok((micros(76), micros(120))));
        other.add(Err(io::Error::other("first")));
        other.add(Err(io::Error::other("second")));
        let outcome = Tally::sum(vec![one, other]).outcome(Duration::from_secs(1));
        assert_eq!((outcome.tunnels, outcome.failed, outcome.soon), (2, 2, 1));
        assert_eq!(outcome.error.as_deref(), Some("first"));
        assert!((outcome.first.p99 - 120.0).abs() < 1e-9);
    }
}
