//! The series themselves: differences of counters between two steps, and what was seen in between.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use keepwarm_pool::{Histogram, Stats};
use parking_lot::Mutex;

use crate::{
    rows::{Health, HistoryRow, PoolSeries, PoolState, RecentRow, SlowSeries, UpstreamRow, UpstreamSeries},
    sample::Sample,
    serve::Control,
};

/// The past of a daemon.
pub(crate) struct History {
    steps_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Looks since the last step.
    looks: u64,
    pools: BTreeMap<String, Pool>,
    upstreams: BTreeMap<(String, String, String), Upstream>,
    slow: BTreeMap<String, VecDeque<u64>>,
    /// Steps so far, at most `steps_max` of them kept.
    steps: usize,
    end: u64,
}

#[derive(Default)]
struct Pool {
    full: u64,
    before: Option<Stats>,
    points: VecDeque<PoolPoint>,
}

#[derive(Clone, Copy, Default)]
struct PoolPoint {
    open: u64,
    in_use: u64,
    waiting: u64,
    acquires: u64,
    reused: u64,
    opened: u64,
    dial_errors: u64,
    failed: u64,
    full: u64,
    wait: (f64, f64),
    dial: (f64, f64),
    leased: f64,
}

#[derive(Default)]
struct Upstream {
    before: (u64, u64, u64),
    points: VecDeque<(u64, u64, u64, f64)>,
}

/// Looks each second until the control plane goes.
pub(crate) async fn record(control: std::sync::Weak<Control>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(control) = control.upgrade() else { return };
        let sample = control.sampler.now(&*control.snapshots);
        control.history.look(&sample);
        if control.history.is_step() {
            control.history.step(&sample, &control.snapshots.recent());
        }
    }
}

impl History {
    pub(crate) fn new(kept: Duration) -> History {
        let steps = kept.as_secs() / STEP;
        History { steps_max: usize::try_from(steps).unwrap_or(usize::MAX).clamp(1, STEPS_MAX), inner: Mutex::default() }
    }

    fn look(&self, sample: &Sample) {
        let mut inner = self.inner.lock();
        inner.looks += 1;
        for pool in sample.pools.iter().filter(|pool| pool.state == PoolState::Full) {
            inner.pools.entry(pool.name.clone()).or_default().full += 1;
        }
    }

    fn is_step(&self) -> bool {
        self.inner.lock().looks >= STEP
    }

    /// Ends a step: what happened since the last one becomes a point.
    fn step(&self, sample: &Sample, recent: &[RecentRow]) {
        let stats: Vec<(&str, Stats)> = sample.named.iter().map(|named| (&*named.name, named.pool.stats())).collect();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        (inner.looks, inner.end) = (0, sample.status.now);
        let before = inner.steps;
        for (name, stats) in stats {
            if inner.pools.len() >= SERIES_MAX && !inner.pools.contains_key(name) {
                continue;
            }
            let pool = inner.pools.entry(name.to_owned()).or_default();
            let point = pool.point(&stats);
            pad(&mut pool.points, before);
            pool.points.push_back(point);
            pool.before = Some(stats);
        }
        for row in &sample.upstreams {
            let key = (row.job.as_str().to_owned(), row.name.clone(), row.transport.clone());
            if inner.upstreams.len() >= SERIES_MAX && !inner.upstreams.contains_key(&key) {
                continue;
            }
            let upstream = inner.upstreams.entry(key).or_default();
            let point = upstream.point(row);
            pad(&mut upstream.points, before);
            upstream.points.push_back(point);
        }
        for (name, count) in slow(recent) {
            if inner.slow.len() < SERIES_MAX || inner.slow.contains_key(&name) {
                let points = inner.slow.entry(name).or_default();
                pad(points, before);
                points.push_back(count);
            }
        }
        inner.steps = (before + 1).min(self.steps_max);
        inner.trim(before + 1, self.steps_max);
    }

    /// Everything that is kept.
    pub(crate) fn row(&self) -> HistoryRow {
        let inner = self.inner.lock();
        let pools = inner.pools.iter().filter(|(_, pool)| !pool.points.is_empty());
        let pools = pools.map(|(name, pool)| pool.series(name)).collect();
        let upstreams = inner.upstreams.iter().map(|(key, upstream)| upstream.series(key)).collect();
        let slow = inner.slow.iter();
        let slow = slow.map(|(name, count)| SlowSeries { name: name.clone(), count: count.iter().copied().collect() });
        HistoryRow { step: STEP, end: inner.end, pools, upstreams, slow: slow.collect() }
    }
}

impl Inner {
    /// Brings every series to the same length, of which the oldest points go, and with them series that have nothing any more.
    fn trim(&mut self, steps: usize, max: usize) {
        self.pools.values_mut().for_each(|pool| fit(&mut pool.points, steps, max));
        self.upstreams.values_mut().for_each(|upstream| fit(&mut upstream.points, steps, max));
        self.slow.values_mut().for_each(|points| fit(points, steps, max));
        self.slow.retain(|_, points| points.iter().any(|count| *count > 0));
        self.upstreams
            .retain(|_, upstream| upstream.points.iter().any(|point| point.0 > 0 || point.3 > 0.0) || steps < max);
    }
}

impl Pool {
    fn point(&mut self, now: &Stats) -> PoolPoint {
        let none = Stats::default();
        let before = self.before.as_ref().unwrap_or(&none);
        let (gauges, counters, past) = (&now.gauges, &now.counters, &before.counters);
        let failed = |counters: &keepwarm_pool::Counters| counters.timeouts_total() + counters.errors_total();
        PoolPoint {
            open: gauges.open as u64,
            in_use: gauges.in_use as u64,
            waiting: gauges.waiting as u64,
            acquires: counters.acquires.saturating_sub(past.acquires),
            reused: counters.reused.saturating_sub(past.reused),
            opened: counters.opened.saturating_sub(past.opened),
            dial_errors: counters.dial_errors_total().saturating_sub(past.dial_errors_total()),
            failed: failed(counters).saturating_sub(failed(past)),
            full: std::mem::take(&mut self.full),
            wait: percentiles(&now.wait, &before.wait),
            dial: percentiles(&now.dial, &before.dial),
            leased: now.lease.sum().saturating_sub(before.lease.sum()).as_secs_f64(),
        }
    }

    fn series(&self, name: &str) -> PoolSeries {
        let figures = |figure: fn(&PoolPoint) -> u64| self.points.iter().map(figure).collect();
        let times = |figure: fn(&PoolPoint) -> f64| self.points.iter().map(figure).collect();
        PoolSeries {
            pool: name.to_owned(),
            open: figures(|point| point.open),
            in_use: figures(|point| point.in_use),
            waiting: figures(|point| point.waiting),
            acquires: figures(|point| point.acquires),
            reused: figures(|point| point.reused),
            opened: figures(|point| point.opened),
            dial_errors: figures(|point| point.dial_errors),
            failed: figures(|point| point.failed),
            full: figures(|point| point.full),
            wait_p50: times(|point| point.wait.0),
            wait_p99: times(|point| point.wait.1),
            dial_p50: times(|point| point.dial.0),
            dial_p99: times(|point| point.dial.1),
            leased: times(|point| point.leased),
        }
    }
}

impl Upstream {
    fn point(&mut self, row: &UpstreamRow) -> (u64, u64, u64, f64) {
        let now = (row.requests, row.failures, row.handshakes + row.handshakes_resumed);
        let before = std::mem::replace(&mut self.before, now);
        let latency =
            row.latency_p50.filter(|_| row.health != Health::Unknown).map_or(0.0, |latency| latency.as_secs_f64());
        (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1), now.2.saturating_sub(before.2), latency)
    }

    fn series(&self, (job, name, transport): &(String, String, String)) -> UpstreamSeries {
        UpstreamSeries {
            job: job.clone(),
            name: name.clone(),
            transport: transport.clone(),
            requests: self.points.iter().map(|point| point.0).collect(),
            failures: self.points.iter().map(|point| point.1).collect(),
            handshakes: self.points.iter().map(|point| point.2).collect(),
            latency: self.points.iter().map(|point| point.3).collect(),
        }
    }
}

/// Median and 99th percentile of what came to a histogram, in seconds; 0 when nothing came.
fn percentiles(now: &Histogram, before: &Histogram) -> (f64, f64) {
    let new: Vec<u64> =
        now.buckets().iter().zip(before.buckets()).map(|(now, before)| now.saturating_sub(*before)).collect();
    let total: u64 = new.iter().sum();
    let at = |q: f64| {
        let mut left = q * total as f64;
        let bucket = new.iter().position(|count| {
            left -= *count as f64;
            *count > 0 && left <= 0.0
        });
        bucket.map_or(0.0, |bucket| Histogram::upper(bucket).min(now.max()).as_secs_f64())
    };
    if total == 0 { (0.0, 0.0) } else { (at(0.5), at(0.99)) }
}

/// Slow and failed requests of the last step, by job and the phase that took longest.
fn slow(recent: &[RecentRow]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in recent.iter().filter(|row| row.age < Duration::from_secs(STEP)) {
        let phase = match row.phases.iter().max_by_key(|phase| phase.took) {
            _ if row.failed => "failed",
            Some(phase) => &phase.phase,
            None => "other",
        };
        *counts.entry(format!("{}.{phase}", row.job.as_str())).or_default() += 1;
    }
    counts
}

/// Fills up at the beginning, where a series did not exist yet.
fn pad<T: Default + Clone>(points: &mut VecDeque<T>, length: usize) {
    let missing = length.saturating_sub(points.len());
    (0..missing).for_each(|_| points.push_front(T::default()));
}

/// Fills up at the end, where nothing came in this step, and drops what is too old.
fn fit<T: Default + Clone>(points: &mut VecDeque<T>, steps: usize, max: usize) {
    points.resize(steps, T::default());
    points.drain(..steps.saturating_sub(max));
}

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks, and seconds, of a step.
const STEP: u64 = 10;
/// A day of them.
const STEPS_MAX: usize = 8640;
/// Series of a kind; further pools and upstreams have none.
const SERIES_MAX: usize = 64;
