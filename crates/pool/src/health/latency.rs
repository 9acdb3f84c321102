//! How long answers take: a smoothed latency after TCP's round-trip timer (RFC 6298 section 2), and percentiles of recent
//! answers.

use std::time::{Duration, Instant};

/// Smoothed latency and its variation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Eighths of a microsecond, so that the average of many small steps does not drift; 0 before the first measurement.
    smoothed: u32,
    /// Quarters of a microsecond.
    variation: u32,
}

impl Latency {
    /// Takes a measurement in; the last eight or so count most.
    pub fn record(&mut self, sample: Duration) {
        let sample = micros(sample).max(1);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (sample * 8, sample * 2);
            return;
        }
        let off = (self.smoothed / 8).abs_diff(sample);
        self.variation = self.variation - self.variation / 4 + off;
        self.smoothed = self.smoothed - self.smoothed / 8 + sample;
    }

    /// The smoothed latency, to the microsecond; `None` before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        (self.smoothed > 0).then(|| Duration::from_micros((self.smoothed / 8).into()))
    }

    /// Longer than almost any answer takes: smoothed latency and four times its variation, 10 ms more than the former at
    /// least, 5 s at most, and 1 s before the first measurement (RFC 6298 section 2.1).
    ///
    /// The lower bound that a strategy needs is its own: racing goes by the latency as measured.
    pub fn try_timeout(&self) -> Duration {
        if self.smoothed == 0 {
            return UNKNOWN;
        }
        let most = self.smoothed / 8 + self.variation.max(MARGIN_MIN);
        Duration::from_micros(most.min(SAMPLE_MAX).into())
    }
}

/// Percentiles of recent answers: a histogram whose counts fade.
///
/// Eight classes an octave from 64 µs to 5 s, so a percentile is off by 6 % at most, and less where the answers of a class
/// are spread evenly. Counts are halved after 1,024 answers and after a minute, so what is old says little and a new level
/// is seen after a few hundred answers or some minutes.
#[derive(Debug, Clone)]
pub struct Spread {
    /// In sixteenths of an answer, so that rare ones survive being halved.
    counts: [u16; CLASSES],
    total: u32,
    halved_at: Option<Instant>,
    /// As computed last, in microseconds, and the answers since then.
    known: Option<(u32, u32)>,
    since: u32,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { counts: [0; CLASSES], total: 0, halved_at: None, known: None, since: 0 }
    }
}

/// Two percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50: Duration,
    /// What 95 of 100 answers do not exceed.
    pub p95: Duration,
}

impl Spread {
    /// Takes a measurement in.
    pub fn record(&mut self, now: Instant, sample: Duration) {
        let base = *self.halved_at.get_or_insert(now);
        if self.total >= TOTAL_MAX || now.saturating_duration_since(base) >= HALF_LIFE {
            self.halve(now);
        }
        self.counts[class(micros(sample))] += ANSWER;
        self.total += u32::from(ANSWER);
        self.since += 1;
    }

    /// Once, or as often as the half-life has passed.
    fn halve(&mut self, now: Instant) {
        let passed = self.halved_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let times = (passed.as_secs() / HALF_LIFE.as_secs()).clamp(1, 15);
        self.counts.iter_mut().for_each(|count| *count >>= times);
        self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        self.halved_at = Some(now);
    }

    /// Both percentiles; `None` with fewer than 16 answers of late. Computed anew after each 16 answers.
    pub fn percentiles(&mut self) -> Option<Percentiles> {
        if self.total < u32::from(ANSWER) * ANSWERS_MIN {
            return None;
        }
        if self.known.is_none() || self.since >= STALE_AFTER {
            self.known = Some((self.quantile(0.5), self.quantile(0.95)));
            self.since = 0;
        }
        let (p50, p95) = self.known?;
        Some(Percentiles { p50: Duration::from_micros(p50.into()), p95: Duration::from_micros(p95.into()) })
    }

    /// The latency that this share of the answers does not exceed, in microseconds.
    fn quantile(&self, share: f32) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
        let mut left = (share * self.total as f32) as u32;
        for (class, &count) in self.counts.iter().enumerate() {
            let count = u32::from(count);
            if left < count {
                let (low, width) = bounds(class);
                return low + width * left / count;
            }
            left -= count;
        }
        SAMPLE_MAX
    }
}

fn micros(sample: Duration) -> u32 {
    u32::try_from(sample.as_micros()).unwrap_or(SAMPLE_MAX).min(SAMPLE_MAX)
}

/// The class of a latency: eight of 8 µs each below 64 µs, then eight an octave.
fn class(micros: u32) -> usize {
    let octave = (micros | 32).ilog2();
    let class = if octave < 6 { micros / 8 } else { (octave - 5) * 8 + (micros >> (octave - 3) & 7) };
    class as usize
}

/// Lower end and width of a class.
fn bounds(class: usize) -> (u32, u32) {
    let class = u32::try_from(class).expect("there are few");
    match class / 8 {
        0 => (class * 8, 8),
        octave => ((8 + class % 8) << (octave + 2), 1 << (octave + 2)),
    }
}

const CLASSES: usize = 138;

/// What one answer counts.
const ANSWER: u16 = 16;

const TOTAL_MAX: u32 = 1024 * ANSWER as u32;

const HALF_LIFE: Duration = Duration::from_secs(60);

const ANSWERS_MIN: u32 = 16;

const STALE_AFTER: u32 = 16;

/// The clock granularity of RFC 6298, a timer wheel's tick, in microseconds.
const MARGIN_MIN: u32 = 10_000;

const UNKNOWN: Duration = Duration::from_secs(1);

/// Microseconds.
const SAMPLE_MAX: u32 = 5_000_000;

#[cfg(test)]
mod tests;
