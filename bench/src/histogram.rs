//! A histogram of latencies with 64 steps to each doubling: every percentile is exact to 1.6 %.

use std::time::Duration;

/// Counts of durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; STEPS * 59], total: 0 }
    }

    pub(crate) fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The value that this share of all values does not pass; `None` when nothing was counted.
    pub(crate) fn percentile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.total as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(index, count)| {
            seen += count;
            (seen as f64 >= wanted).then(|| Duration::from_nanos(floor(index)))
        })
    }
}

const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.ilog2();

fn bucket(nanos: u64) -> usize {
    let power = nanos.max(STEPS as u64).ilog2() - STEP_BITS;
    // Below the first doubling `power` is 0 and the value is its own bucket.
    usize::try_from(nanos >> power).unwrap_or(0) + power as usize * STEPS
}

/// The smallest value of a bucket.
fn floor(bucket: usize) -> u64 {
    let power = (bucket / STEPS).saturating_sub(1);
    ((bucket - power * STEPS) as u64) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_floor_and_is_narrow() {
        for nanos in (0..200).chain([1_000, 123_456, 10_000_000, 3_000_000_000, u64::MAX]) {
            let floor = floor(bucket(nanos));
            assert!(floor <= nanos && nanos - floor <= nanos / 64, "{nanos} -> {floor}");
            assert_eq!(bucket(floor), bucket(nanos));
        }
    }

    #[test]
    fn percentiles_are_of_what_was_added() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(0.5), None);
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!(histogram.percentile(0.5), Some(Duration::from_nanos(50)));
        assert_eq!(histogram.percentile(0.99), Some(Duration::from_nanos(99)));
        assert_eq!(histogram.percentile(1.0), Some(Duration::from_nanos(100)));
    }
}
