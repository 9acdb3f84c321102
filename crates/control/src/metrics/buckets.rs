//! The buckets of a scrape: a few of the 128 that the pool's histograms have.
//!
//! Each bound is an edge of the pool's own buckets (a power of two of microseconds), so that every count is exact: a rounder bound
//! would cut through a bucket, and its count would be a guess.

use std::time::Duration;

use keepwarm_pool::Histogram;

/// Which bounds a histogram is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// What a network takes: 0.5 ms to 17 s, in steps of 2.
    Latency,
    /// How long something is held or left: 1 ms to 72 min, in steps of 4.
    Age,
}

impl Bounds {
    /// The upper bounds in microseconds, without the last one, which has none.
    pub(crate) fn micros(self) -> impl ExactSizeIterator<Item = u64> + Clone {
        let (first, steps, step) = match self {
            Bounds::Latency => (9, 16_u32, 1),
            Bounds::Age => (10, 12_u32, 2),
        };
        (0..steps).map(move |i| 1 << (first + i * step))
    }
}

/// How many durations fell below each bound and not below the one before, and at the end those beyond the last.
/// A duration that is exactly a bound counts above it.
pub(crate) fn merged(histogram: &Histogram, bounds: Bounds) -> Vec<(Option<f64>, u64)> {
    let mut fine =
        histogram.buckets().iter().enumerate().map(|(bucket, count)| (Histogram::upper(bucket), *count)).peekable();
    let mut merged = Vec::with_capacity(bounds.micros().len() + 1);
    for bound in bounds.micros().map(Duration::from_micros) {
        let mut count = 0;
        while let Some((_, more)) = fine.next_if(|(upper, _)| *upper <= bound) {
            count += more;
        }
        merged.push((Some(bound.as_secs_f64()), count));
    }
    merged.push((None, fine.map(|(_, count)| count).sum()));
    merged
}
