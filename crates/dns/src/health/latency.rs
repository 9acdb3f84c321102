//! A decaying estimate of how long answers take, after TCP's round-trip timer (RFC 6298 section 2).

use std::time::Duration;

/// Smoothed latency and its variation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Latency {
    /// Takes a measurement in; the last eight or so count most.
    pub fn record(&mut self, sample: Duration) {
        let sample = sample.min(SAMPLE_MAX);
        let Some(smoothed) = self.smoothed else {
            (self.smoothed, self.variation) = (Some(sample), sample / 2);
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// The smoothed latency; `None` before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Longer than almost any answer takes: smoothed latency and four times its variation, 10 ms more than the former at
    /// least, 5 s at most, and 1 s before the first measurement (RFC 6298 section 2.1).
    ///
    /// The lower bound that a strategy needs is its own: racing goes by the latency as measured.
    pub fn try_timeout(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return UNKNOWN };
        (smoothed + (self.variation * 4).max(MARGIN_MIN)).min(SAMPLE_MAX)
    }

    /// About the 95th percentile, if latencies are spread like most: smoothed latency and twice its variation.
    pub fn p95(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed + self.variation * 2)
    }
}

/// The clock granularity of RFC 6298: a timer wheel's tick.
const MARGIN_MIN: Duration = Duration::from_millis(10);

const UNKNOWN: Duration = Duration::from_secs(1);

const SAMPLE_MAX: Duration = Duration::from_secs(5);
