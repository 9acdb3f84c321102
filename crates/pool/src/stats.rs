//! What a pool and each of its hosts did: gauges, counters and histograms, taken as one consistent picture per host.
//!
//! Not here: the export of these figures. Counters are plain integers under the host's mutex, which the hot path holds anyway.

pub(crate) mod tally;

use std::time::Duration;

use smallvec::SmallVec;

use crate::error::{AcquireErrorKind, Phase};
use crate::event::CloseReason;
use crate::phases::PhaseTimes;

/// Counts of durations in buckets of a quarter of a power of two of microseconds, up to about 71 minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Self::BUCKETS],
    total: u64,
    /// Of all durations, in microseconds.
    sum: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS], total: 0, sum: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    /// Number of buckets.
    pub const BUCKETS: usize = 128;

    /// Adds one duration.
    pub fn record(&mut self, value: Duration) {
        self.record_many(value, 1);
    }

    /// Adds one duration so many times.
    pub fn record_many(&mut self, value: Duration, times: u64) {
        if times == 0 {
            return;
        }
        let micros = Self::micros(value);
        self.counts[Self::bucket(micros)] += times;
        self.total += times;
        self.sum = self.sum.saturating_add(micros.saturating_mul(times));
        self.max = self.max.max(value);
    }

    /// Not `as_micros`, whose 128-bit arithmetic costs more than the rest of the record.
    fn micros(value: Duration) -> u64 {
        value.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(value.subsec_micros()))
    }

    fn bucket(micros: u64) -> usize {
        if micros < 4 {
            return usize::try_from(micros).unwrap_or(0);
        }
        let exponent = micros.ilog2();
        let quarter = (micros >> (exponent - 2)) & 3;
        (exponent as usize * 4 - 4 + usize::try_from(quarter).unwrap_or(0)).min(Self::BUCKETS - 1)
    }

    /// Returns the upper edge of a bucket.
    #[must_use]
    pub fn upper(bucket: usize) -> Duration {
        if bucket < 4 {
            return Duration::from_micros(bucket as u64 + 1);
        }
        let (exponent, quarter) = ((bucket + 4) / 4, (bucket + 4) % 4);
        Duration::from_micros((quarter as u64 + 5) << (exponent - 2))
    }

    /// Returns how many durations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Returns the largest duration recorded.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Returns the sum of all durations, each to the microsecond below.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// Returns the counts of all buckets.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the upper edge of the bucket that holds quantile `q` (0.0 to 1.0), at most [`max`](Self::max); zero when empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let mut left = q.clamp(0.0, 1.0) * self.total as f64;
        for (bucket, &count) in self.counts.iter().enumerate() {
            left -= count as f64;
            if count > 0 && left <= 0.0 {
                return Self::upper(bucket).min(self.max);
            }
        }
        self.max
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

/// Counters that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Acquires asked for. `acquires = hits + shared_hits + waited + timeouts + cancelled + errors + waiting`.
    pub acquires: u64,
    /// Served at once by an idle connection.
    pub hits: u64,
    /// Served at once by a connection that others were using.
    pub shared_hits: u64,
    /// Found nothing usable: waited or failed.
    pub misses: u64,
    /// Waited and were served.
    pub waited: u64,
    /// Among `waited`, served by a returned connection while a dial was in flight.
    pub late_bound: u64,
    /// Acquires served by a connection that had served before, at once or after a wait.
    pub reused: u64,
    /// Waiters that gave up, or were given a connection and had gone.
    pub cancelled: u64,
    /// Leases that came back.
    pub released: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials given up because nobody needed them.
    pub dials_cancelled: u64,
    /// Dials that succeeded. `opened = open + sum of closed`.
    pub opened: u64,
    /// Second dials beside a slow first one.
    pub backup_dials: u64,
    /// Validations begun.
    pub validations: u64,
    /// Reused connections that failed before any response byte, as told by [`Lease::reuse_failed`](crate::Lease::reuse_failed).
    pub reuse_failures: u64,
    /// Leases held for longer than `leak_after`.
    pub leaks: u64,
    timeouts: [u64; Phase::ALL.len()],
    errors: [u64; ERROR_KINDS.len()],
    closed: [u64; CloseReason::ALL.len()],
    dial_errors: SmallVec<[(&'static str, u64); 4]>,
}

const ERROR_KINDS: [AcquireErrorKind; 8] = [
    AcquireErrorKind::Timeout,
    AcquireErrorKind::QueueFull,
    AcquireErrorKind::Dial,
    AcquireErrorKind::DialTimeout,
    AcquireErrorKind::DialAborted,
    AcquireErrorKind::Unhealthy,
    AcquireErrorKind::Paused,
    AcquireErrorKind::Closed,
];

impl Counters {
    /// Returns the acquires that timed out in `phase`.
    #[must_use]
    pub fn timeouts(&self, phase: Phase) -> u64 {
        self.timeouts[phase.index()]
    }

    /// Returns the acquires that timed out, in any phase.
    #[must_use]
    pub fn timeouts_total(&self) -> u64 {
        self.timeouts.iter().sum()
    }

    /// Returns the acquires that failed with each kind other than a time-out.
    pub fn errors(&self) -> impl Iterator<Item = (AcquireErrorKind, u64)> {
        ERROR_KINDS.into_iter().zip(self.errors)
    }

    /// Returns the acquires that failed for another reason than a time-out.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Returns the connections that ended for `reason`.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Returns the connections that ended.
    #[must_use]
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Returns the failed dials by the connector's label.
    #[must_use]
    pub fn dial_errors(&self) -> &[(&'static str, u64)] {
        &self.dial_errors
    }

    /// Returns the failed dials.
    #[must_use]
    pub fn dial_errors_total(&self) -> u64 {
        self.dial_errors.iter().map(|(_, n)| n).sum()
    }

    /// Returns reused acquires divided by all acquires, 0.0 when there were none.
    #[must_use]
    pub fn reuse_ratio(&self) -> f64 {
        if self.acquires == 0 { 0.0 } else { self.reused as f64 / self.acquires as f64 }
    }

    pub(crate) fn count_timeout(&mut self, phase: Phase) {
        self.timeouts[phase.index()] += 1;
    }

    pub(crate) fn count_error(&mut self, kind: AcquireErrorKind) {
        self.errors[kind as usize] += 1;
    }

    pub(crate) fn count_closed(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    pub(crate) fn count_dial_error(&mut self, kind: &'static str, by: u64) {
        // Bounded by the connector's set of labels, which are `'static`.
        match self.dial_errors.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, n)) => *n += by,
            None => self.dial_errors.push((kind, by)),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.acquires += other.acquires;
        self.hits += other.hits;
        self.shared_hits += other.shared_hits;
        self.misses += other.misses;
        self.waited += other.waited;
        self.late_bound += other.late_bound;
        self.reused += other.reused;
        self.cancelled += other.cancelled;
        self.released += other.released;
        self.dials += other.dials;
        self.dials_cancelled += other.dials_cancelled;
        self.opened += other.opened;
        self.backup_dials += other.backup_dials;
        self.validations += other.validations;
        self.reuse_failures += other.reuse_failures;
        self.leaks += other.leaks;
        self.timeouts.iter_mut().zip(other.timeouts).for_each(|(mine, theirs)| *mine += theirs);
        self.errors.iter_mut().zip(other.errors).for_each(|(mine, theirs)| *mine += theirs);
        self.closed.iter_mut().zip(other.closed).for_each(|(mine, theirs)| *mine += theirs);
        for &(kind, n) in &other.dial_errors {
            self.count_dial_error(kind, n);
        }
    }
}

/// How many there are right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gauges {
    /// Connections that a dial brought, draining ones included.
    pub open: usize,
    /// Connections without a lease that may be leased.
    pub idle: usize,
    /// Connections with a lease, draining ones included.
    pub in_use: usize,
    /// Leases.
    pub in_flight: usize,
    /// Dials.
    pub dialing: usize,
    /// Connections being validated.
    pub validating: usize,
    /// Connections that take no new lease and end with their last one.
    pub draining: usize,
    /// Waiters.
    pub waiting: usize,
    /// How long the oldest waiter has waited.
    pub oldest_wait: Duration,
}

/// One host's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostStats {
    /// How many there are right now.
    pub gauges: Gauges,
    /// How many there were.
    pub counters: Counters,
    /// Waits of acquires that were not served at once.
    pub wait: Histogram,
    /// Duration of successful dials.
    pub dial: Histogram,
    /// How long leases were held.
    pub lease: Histogram,
    /// How long connections had been idle when leased.
    pub idle_age: Histogram,
    /// Whether dials fail in a row; always true when [`unhealthy_after`](crate::Options::unhealthy_after) is off.
    pub healthy: bool,
    /// After how long idle connections of this host are retired now; learned, at most `idle_timeout`.
    pub idle_limit: Duration,
    /// Capacity of the last connection that was dialled, `None` before the first.
    pub capacity: Option<u32>,
    /// Whether the host waits for the global limit.
    pub stalled: bool,
    /// Whether the host is paused.
    pub paused: bool,
    /// Whether somebody waits and no connection may be opened: a limit is the bottleneck. It is not while all that there is of the host
    /// is being dialled.
    pub full: bool,
}

/// The figures of a whole pool: sums over its hosts, forgotten ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Hosts known now.
    pub hosts: usize,
    /// Among these, paused ones.
    pub paused: usize,
    /// Among these, those whose dials fail in a row.
    pub unhealthy: usize,
    /// Among these, those at which somebody waits and no connection may be opened.
    pub full: usize,
    /// How many there are right now.
    pub gauges: Gauges,
    /// How many there were.
    pub counters: Counters,
    /// Waits of acquires that were not served at once.
    pub wait: Histogram,
    /// Duration of successful dials.
    pub dial: Histogram,
    /// Their phases, as far as the [`Connector`](crate::Connector) tells of them. What is between them is the pool's own: a phase's times
    /// need not add up to those of `dial`.
    pub dial_phases: PhaseTimes,
    /// How long leases were held.
    pub lease: Histogram,
    /// How long connections had been idle when leased.
    pub idle_age: Histogram,
}

impl Gauges {
    fn merge(&mut self, theirs: &Self) {
        let mine = self;
        mine.open += theirs.open;
        mine.idle += theirs.idle;
        mine.in_use += theirs.in_use;
        mine.in_flight += theirs.in_flight;
        mine.dialing += theirs.dialing;
        mine.validating += theirs.validating;
        mine.draining += theirs.draining;
        mine.waiting += theirs.waiting;
        mine.oldest_wait = mine.oldest_wait.max(theirs.oldest_wait);
    }
}

impl HostStats {
    /// Adds the figures of a host that serves the same. Who adds has to have begun with the first, for what is true of both.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.gauges.merge(&other.gauges);
        self.counters.merge(&other.counters);
        self.wait.merge(&other.wait);
        self.dial.merge(&other.dial);
        self.lease.merge(&other.lease);
        self.idle_age.merge(&other.idle_age);
        self.healthy &= other.healthy;
        self.idle_limit = self.idle_limit.min(other.idle_limit);
        self.capacity = self.capacity.max(other.capacity);
        self.stalled |= other.stalled;
        self.paused |= other.paused;
        self.full |= other.full;
    }
}

impl Stats {
    /// Adds the figures of another pool. Its hosts are others.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.hosts += other.hosts;
        self.paused += other.paused;
        self.unhealthy += other.unhealthy;
        self.full += other.full;
        self.gauges.merge(&other.gauges);
        self.counters.merge(&other.counters);
        self.wait.merge(&other.wait);
        self.dial.merge(&other.dial);
        self.dial_phases.merge(&other.dial_phases);
        self.lease.merge(&other.lease);
        self.idle_age.merge(&other.idle_age);
    }

    pub(crate) fn add(&mut self, host: &HostStats) {
        self.paused += usize::from(host.paused);
        self.unhealthy += usize::from(!host.healthy);
        self.full += usize::from(host.full);
        self.gauges.merge(&host.gauges);
        self.counters.merge(&host.counters);
        self.wait.merge(&host.wait);
        self.dial.merge(&host.dial);
        self.lease.merge(&host.lease);
        self.idle_age.merge(&host.idle_age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_their_values() {
        for micros in (0..5_000u64).chain([1 << 20, (1 << 32) - 1]) {
            let bucket = Histogram::bucket(micros);
            assert!(Duration::from_micros(micros) < Histogram::upper(bucket), "{micros} in {bucket}");
            if bucket > 0 {
                assert!(Duration::from_micros(micros) >= Histogram::upper(bucket - 1), "{micros} in {bucket}");
            }
        }
        assert_eq!(Histogram::bucket(Histogram::micros(Duration::MAX)), Histogram::BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_quarter() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        let p50 = histogram.quantile(0.5);
        assert!(p50 >= Duration::from_millis(500) && p50 <= Duration::from_millis(625), "{p50:?}");
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(1000));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
        assert_eq!(histogram.sum(), Duration::from_micros(500_500_000));
    }
}
