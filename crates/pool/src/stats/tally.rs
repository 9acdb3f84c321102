//! A histogram that one thread writes and others read, without a lock and without a locked instruction.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Histogram;

/// Counts of durations, in the buckets of [`Histogram`]. One thread alone may [`record`](Self::record); should two do it at once, counts
/// are lost, and nothing worse.
pub struct Tally {
    counts: Box<[AtomicU64; Histogram::BUCKETS]>,
    /// In microseconds.
    max: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: Box::new([const { AtomicU64::new(0) }; Histogram::BUCKETS]), max: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let histogram = self.read();
        f.debug_struct("Tally").field("count", &histogram.count()).field("max", &histogram.max()).finish()
    }
}

impl Tally {
    /// Adds one duration.
    pub fn record(&self, value: Duration) {
        let micros = micros(value);
        let count = &self.counts[Histogram::bucket_of(micros)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        if micros > self.max.load(Relaxed) {
            self.max.store(micros, Relaxed);
        }
    }

    /// What was recorded so far.
    #[must_use]
    pub fn read(&self) -> Histogram {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        let max = Duration::from_micros(self.max.load(Relaxed));
        Histogram { total: counts.iter().sum(), counts, max }
    }
}

fn micros(value: Duration) -> u64 {
    // Not `as_micros`, whose 128-bit arithmetic costs more than the rest of the record.
    value.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(value.subsec_micros()))
}

impl Histogram {
    pub(super) fn bucket(value: Duration) -> usize {
        Self::bucket_of(micros(value))
    }

    fn bucket_of(micros: u64) -> usize {
        if micros < 4 {
            return usize::try_from(micros).unwrap_or(0);
        }
        let exponent = micros.ilog2();
        let quarter = (micros >> (exponent - 2)) & 3;
        (exponent as usize * 4 - 4 + usize::try_from(quarter).unwrap_or(0)).min(Self::BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_reads_as_the_histogram_of_the_same_durations() {
        let (tally, mut histogram) = (Tally::default(), Histogram::default());
        for micros in (0..5_000).step_by(7).chain([1 << 20, 1 << 40]) {
            tally.record(Duration::from_micros(micros));
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(tally.read(), histogram);
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        twice.record_many(Duration::ZERO, 3);
        assert_eq!((twice.count(), twice.buckets()[0]), (2 * histogram.count() + 3, 2 * histogram.buckets()[0] + 3));
    }
}
