//! What the past of a pool comes to: shares, percentiles over its steps, and the demand for it.

use serde::Serialize;

use keepwarm_control::rows::{PoolRow, PoolSeries};

/// A pool over the time of the report. Durations are seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct Summary {
    /// The pool.
    pub(super) pool: String,
    /// Seconds that are looked at.
    pub(super) seconds: u64,
    /// Acquires.
    pub(super) acquires: u64,
    /// Reused acquires / acquires; none without any.
    pub(super) reuse_ratio: Option<f64>,
    /// Connections opened.
    pub(super) opened: u64,
    /// Failed dials.
    pub(super) dial_errors: u64,
    /// Acquires that timed out or failed.
    pub(super) failed: u64,
    /// Looks at which somebody waited and nothing more could be opened.
    pub(super) full: u64,
    /// The same as a share of all looks.
    pub(super) full_share: f64,
    /// Connections with a lease: the 99th percentile of the most in each step.
    pub(super) in_use_p99: u64,
    /// The most connections at any look.
    pub(super) open_max: u64,
    /// Leases that are held at a time by Little's law: acquires a second times the mean time of a lease.
    pub(super) demand: f64,
    /// The same of the busiest step but one in a hundred.
    pub(super) demand_p99: f64,
    /// Mean time of a lease; none without any.
    pub(super) lease_mean: Option<f64>,
    /// Median over the steps of the median wait of those that waited; none where nobody did.
    pub(super) wait_p50: Option<f64>,
    /// The longest of the steps' 99th percentiles.
    pub(super) wait_p99: Option<f64>,
    /// Median over the steps of the median dial; none without any.
    pub(super) dial_p50: Option<f64>,
    /// The longest of the steps' 99th percentiles.
    pub(super) dial_p99: Option<f64>,
    /// Steps that began with nothing to reuse after one without acquires.
    pub(super) cold_starts: u64,
    /// Connections opened in these.
    pub(super) opened_cold: u64,
}

impl Summary {
    /// What a series with a point each `step` seconds comes to.
    ///
    /// `served` is the share of acquires that became a lease which came back.
    pub(super) fn of(series: &PoolSeries, step: u64, served: f64) -> Summary {
        let steps = series.acquires.len() as u64;
        let seconds = steps * step;
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        let (acquires, failed) = (sum(&series.acquires), sum(&series.failed));
        let leased: f64 = series.leased.iter().sum();
        let served = served * acquires as f64;
        let lease_mean = (served > 0.0 && leased > 0.0).then(|| leased / served);
        let (cold_starts, opened_cold) = cold(series);
        let rates: Vec<f64> = series.acquires.iter().map(|count| *count as f64 / step.max(1) as f64).collect();
        let demand = |rate: f64| rate * lease_mean.unwrap_or(0.0);
        Summary {
            pool: series.pool.clone(),
            seconds,
            acquires,
            reuse_ratio: (acquires > 0).then(|| sum(&series.reused) as f64 / acquires as f64),
            opened: sum(&series.opened),
            dial_errors: sum(&series.dial_errors),
            failed,
            full: sum(&series.full),
            full_share: if seconds > 0 { sum(&series.full) as f64 / seconds as f64 } else { 0.0 },
            in_use_p99: quantile(&series.in_use, 0.99).unwrap_or(0),
            open_max: series.open.iter().copied().max().unwrap_or(0),
            demand: demand(if seconds > 0 { acquires as f64 / seconds as f64 } else { 0.0 }),
            demand_p99: demand(quantile_of(rates, 0.99).unwrap_or(0.0)),
            lease_mean,
            wait_p50: quantile_of(known(&series.wait_p50), 0.5),
            wait_p99: quantile_of(known(&series.wait_p99), 1.0),
            dial_p50: quantile_of(known(&series.dial_p50), 0.5),
            dial_p99: quantile_of(known(&series.dial_p99), 1.0),
            cold_starts,
            opened_cold,
        }
    }
}

/// The share of a pool's acquires that became a lease which came back; the others waited in vain.
pub(super) fn served(row: &PoolRow) -> f64 {
    let counters = &row.counters;
    if counters.acquires > 0 { (counters.released as f64 / counters.acquires as f64).min(1.0) } else { 1.0 }
}

/// Steps that found nothing warm: acquires after a step without any, and connections opened for them.
fn cold(series: &PoolSeries) -> (u64, u64) {
    let pairs = series.acquires.windows(2).zip(series.opened.iter().skip(1));
    let opened = pairs.filter(|(acquires, opened)| acquires[0] == 0 && acquires[1] > 0 && **opened > 0);
    opened.fold((0, 0), |(count, sum), (_, opened)| (count + 1, sum + opened))
}

/// Times that are known: a step without any has 0.
fn known(times: &[f64]) -> Vec<f64> {
    times.iter().copied().filter(|time| *time > 0.0).collect()
}

/// The value at `q` of those in order, the next above; none of nothing.
pub(super) fn quantile(values: &[u64], q: f64) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(rank(sorted.len(), q)?).copied()
}

fn quantile_of(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(rank(values.len(), q)?).copied()
}

fn rank(count: usize, q: f64) -> Option<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length, not negative")]
    let rank = (q * count as f64).ceil() as usize;
    (count > 0).then(|| rank.clamp(1, count) - 1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use keepwarm_control::rows::CountersRow;

    /// An hour of a pool in steps of 10 s, each of them alike.
    pub(in crate::report) fn hour(pool: &str, acquires: u64, reused: u64, opened: u64, in_use: u64) -> PoolSeries {
        let all = |figure: u64| vec![figure; 360];
        PoolSeries {
            pool: pool.into(),
            open: all(in_use + 1),
            in_use: all(in_use),
            waiting: all(0),
            acquires: all(acquires),
            reused: all(reused),
            opened: all(opened),
            dial_errors: all(0),
            failed: all(0),
            full: all(0),
            wait_p50: vec![0.0; 360],
            wait_p99: vec![0.0; 360],
            dial_p50: vec![0.04; 360],
            dial_p99: vec![0.09; 360],
            leased: vec![acquires as f64 * 0.02; 360],
        }
    }

    #[test]
    fn demand_is_littles_law() {
        let mut series = hour("dns", 1000, 990, 1, 2);
        // 100 a second for 20 ms each: two at a time; in a busy tenth of the hour five times as many.
        (0..36).for_each(|step| series.acquires[step] = 5000);
        (0..36).for_each(|step| series.leased[step] = 100.0);
        let summary = Summary::of(&series, 10, 1.0);
        assert!((summary.demand - 2.8).abs() < 0.01, "{}", summary.demand);
        assert!((summary.demand_p99 - 10.0).abs() < 0.01, "{}", summary.demand_p99);
        assert!((summary.lease_mean.unwrap() - 0.02).abs() < 1e-9);
        assert_eq!((summary.seconds, summary.in_use_p99, summary.open_max), (3600, 2, 3));
    }

    #[test]
    fn acquires_that_waited_in_vain_count_as_demand_and_not_as_leases() {
        let mut series = hour("dns", 1000, 900, 1, 2);
        series.failed = vec![400; 360];
        series.leased = vec![10.0; 360];
        // The rest of the other half was given up.
        let counters = CountersRow { acquires: 360_000, released: 180_000, ..CountersRow::default() };
        let summary = Summary::of(&series, 10, served(&PoolRow { counters, ..PoolRow::default() }));
        assert!((summary.lease_mean.unwrap() - 0.02).abs() < 1e-9, "half of them were served");
        assert!((summary.demand - 2.0).abs() < 1e-9, "all of them wanted to be");
    }

    #[test]
    fn steps_after_silence_are_cold_starts() {
        let mut series = hour("dns", 0, 0, 0, 0);
        for (step, acquires, opened) in [(10, 5, 2), (11, 5, 1), (20, 5, 0), (30, 1, 1)] {
            (series.acquires[step], series.opened[step]) = (acquires, opened);
        }
        let summary = Summary::of(&series, 10, 1.0);
        assert_eq!((summary.cold_starts, summary.opened_cold), (2, 3));
    }

    #[test]
    fn nothing_has_no_percentiles() {
        let summary = Summary::of(&PoolSeries { pool: "dns".into(), ..PoolSeries::default() }, 10, 1.0);
        assert_eq!(summary, Summary { pool: "dns".into(), ..Summary::default() });
        assert_eq!(quantile(&[1, 2, 3, 4], 0.5), Some(2));
        assert_eq!(quantile(&[1, 2, 3, 4], 1.0), Some(4));
        assert_eq!(quantile(&[7], 0.01), Some(7));
    }
}
