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
    sum: AtomicU64,
    /// In microseconds.
    max: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Box::new([const { AtomicU64::new(0) }; Histogram::BUCKETS]),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
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
        let micros = Histogram::micros(value);
        let count = &self.counts[Histogram::bucket(micros)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum.store(self.sum.load(Relaxed).saturating_add(micros), Relaxed);
        if micros > self.max.load(Relaxed) {
            self.max.store(micros, Relaxed);
        }
    }

    /// What was recorded so far.
    #[must_use]
    pub fn read(&self) -> Histogram {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        let max = Duration::from_micros(self.max.load(Relaxed));
        Histogram { total: counts.iter().sum(), counts, sum: self.sum.load(Relaxed), max }
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
