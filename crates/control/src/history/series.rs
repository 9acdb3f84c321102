//! The series themselves: differences of counters between two steps, and what was seen in between.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use axum::body::Bytes;
use keepwarm_pool::{Histogram, Stats};
use parking_lot::Mutex;

use super::Written;
use crate::{
    rows::{GaugesRow, Health, HistoryRow, PoolSeries, PoolState, RecentRow, SlowSeries, UpstreamRow, UpstreamSeries},
    sample::Sample,
    serve::Control,
};

/// The past of a daemon.
pub(crate) struct History {
    steps_max: usize,
    inner: Mutex<Inner>,
    written: Written,
}

#[derive(Default)]
struct Inner {
    /// Looks since the last step.
    looks: u64,
    pools: BTreeMap<String, Pool>,
    /// Pools of the last step that had no series, since there were too many.
    left_out: BTreeSet<String>,
    upstreams: BTreeMap<Key, Upstream>,
    slow: BTreeMap<String, VecDeque<u64>>,
    /// Steps so far, at most `steps_max` of them kept.
    steps: usize,
    /// Steps ever.
    total: u64,
    end: u64,
}

/// Job, name, transport, address: an upstream may have several addresses over the same transport (RFC 9462).
type Key = (&'static str, String, String, String);

fn key(row: &UpstreamRow) -> Key {
    (row.job.as_str(), row.name.clone(), row.transport.clone(), row.address.clone())
}

#[derive(Default)]
struct Pool {
    /// Looks since the last step at which it was full.
    full: u64,
    /// The most that any look since the last step saw.
    most: Most,
    before: Option<Stats>,
    points: VecDeque<PoolPoint>,
}

/// The largest values of gauges. Between two steps a pool fills up and empties many times: a value at the end of one says nothing of that.
#[derive(Clone, Copy, Default, PartialEq)]
struct Most {
    open: u64,
    in_use: u64,
    waiting: u64,
}

impl Most {
    fn see(&mut self, gauges: &GaugesRow) {
        self.open = self.open.max(gauges.open);
        self.in_use = self.in_use.max(gauges.in_use);
        self.waiting = self.waiting.max(gauges.waiting);
    }
}

#[derive(Clone, Copy, Default, PartialEq)]
struct PoolPoint {
    most: Most,
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
    /// Requests, failures and handshakes until the last step; none before the first.
    before: Option<(u64, u64, u64)>,
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
        let steps_max = usize::try_from(steps).unwrap_or(usize::MAX).clamp(1, STEPS_MAX);
        History { steps_max, inner: Mutex::default(), written: Written::default() }
    }

    fn look(&self, sample: &Sample) {
        let mut inner = self.inner.lock();
        inner.looks += 1;
        for row in &sample.pools {
            if has_place(&inner.pools, &row.name) {
                let pool = inner.pools.entry(row.name.clone()).or_default();
                pool.full += u64::from(row.state == PoolState::Full);
                pool.most.see(&row.gauges);
            }
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
        inner.step_pools(stats);
        inner.step_upstreams(&sample.upstreams);
        inner.step_slow(recent);
        let steps = inner.steps + 1;
        inner.steps = steps.min(self.steps_max);
        inner.total += 1;
        inner.trim(steps, self.steps_max);
        self.written.forget();
    }

    /// Everything that is kept; none when steps end faster than it is copied.
    pub(crate) fn row(&self) -> Option<HistoryRow> {
        (0..COPIES_MAX).find_map(|_| self.copy())
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Option<Bytes> {
        let step = self.inner.lock().total;
        self.written.text(step, || self.row())
    }

    /// A series at a time, so that who records waits for no more than one; none when a step ends meanwhile.
    fn copy(&self) -> Option<HistoryRow> {
        let (total, mut row, pools, upstreams) = {
            let inner = self.inner.lock();
            let slow = inner.slow.iter();
            let slow =
                slow.map(|(name, count)| SlowSeries { name: name.clone(), count: count.iter().copied().collect() });
            let row = HistoryRow { step: STEP, end: inner.end, slow: slow.collect(), ..HistoryRow::default() };
            let pools: Vec<String> = inner.pools.keys().cloned().collect();
            (inner.total, row, pools, inner.upstreams.keys().cloned().collect::<Vec<Key>>())
        };
        let same = || Some(self.inner.lock()).filter(|inner| inner.total == total);
        for name in pools {
            // It may have none yet: then there was a look, and no step.
            let points = same()?.pools.get(&name).map(|pool| pool.points.clone()).unwrap_or_default();
            if !points.is_empty() {
                row.pools.push(pool_series(&name, &&points));
            }
        }
        for key in upstreams {
            let points = same()?.upstreams.get(&key).map(|upstream| upstream.points.clone()).unwrap_or_default();
            row.upstreams.push(upstream_series(&key, &points));
        }
        Some(row)
    }

    /// The last `points` of every pool.
    pub(crate) fn pools(&self, points: usize) -> Vec<PoolSeries> {
        let inner = self.inner.lock();
        let pools = inner.pools.iter().filter(|(_, pool)| !pool.points.is_empty());
        pools
            .map(|(name, pool)| pool_series(name, &pool.points.range(pool.points.len().saturating_sub(points)..)))
            .collect()
    }

    /// The last `points` latencies of an upstream, in seconds; 0 while unknown.
    pub(crate) fn latencies(&self, row: &UpstreamRow, points: usize) -> Vec<f64> {
        let inner = self.inner.lock();
        let Some(Upstream { points: all, .. }) = inner.upstreams.get(&key(row)) else { return Vec::new() };
        all.range(all.len().saturating_sub(points)..).map(|point| point.3).collect()
    }
}

impl Inner {
    fn step_pools(&mut self, stats: Vec<(&str, Stats)>) {
        let mut left_out = BTreeSet::new();
        for (name, stats) in stats {
            if !has_place(&self.pools, name) {
                left_out.insert(name.to_owned());
                continue;
            }
            let pool = self.pools.entry(name.to_owned()).or_default();
            pad(&mut pool.points, self.steps);
            if pool.points.len() > self.steps {
                continue;
            }
            // A pool that is new is counted from its start; of one that was left out so far nobody knows what belongs to this step.
            if pool.before.is_none() && self.left_out.contains(name) {
                pool.before = Some(stats.clone());
            }
            let point = pool.point(&stats);
            pool.points.push_back(point);
            pool.before = Some(stats);
        }
        self.left_out = left_out;
    }

    fn step_upstreams(&mut self, rows: &[UpstreamRow]) {
        for row in rows {
            let key = key(row);
            if !has_place(&self.upstreams, &key) {
                continue;
            }
            let upstream = self.upstreams.entry(key).or_default();
            pad(&mut upstream.points, self.steps);
            if upstream.points.len() > self.steps {
                continue;
            }
            let point = upstream.point(row, self.steps == 0);
            upstream.points.push_back(point);
        }
    }

    fn step_slow(&mut self, recent: &[RecentRow]) {
        for (name, count) in slow(recent) {
            if has_place(&self.slow, &name) {
                let points = self.slow.entry(name).or_default();
                pad(points, self.steps);
                points.push_back(count);
            }
        }
    }

    /// Brings every series to the same length, of which the oldest points go, and with them series of what is no more that have nothing
    /// any more.
    fn trim(&mut self, steps: usize, max: usize) {
        self.pools.retain(|_, pool| {
            let is_seen = pool.points.len() >= steps;
            fit(&mut pool.points, steps, max);
            is_seen || pool.points.iter().any(|point| *point != PoolPoint::default())
        });
        self.upstreams.retain(|_, upstream| {
            let is_seen = upstream.points.len() >= steps;
            fit(&mut upstream.points, steps, max);
            is_seen || upstream.points.iter().any(|point| point.0 > 0 || point.3 > 0.0)
        });
        self.slow.values_mut().for_each(|points| fit(points, steps, max));
        self.slow.retain(|_, points| points.iter().any(|count| *count > 0));
    }
}

impl Pool {
    fn point(&mut self, now: &Stats) -> PoolPoint {
        let none = Stats::default();
        // Fewer than before: it went and came back as another one, which began anew.
        let same = |before: &&Stats| {
            let (now, past) = (&now.counters, &before.counters);
            now.acquires >= past.acquires && now.opened >= past.opened && now.dials >= past.dials
        };
        let before = self.before.as_ref().filter(same).unwrap_or(&none);
        let (counters, past) = (&now.counters, &before.counters);
        self.most.see(&(&now.gauges).into());
        let failed = |counters: &keepwarm_pool::Counters| counters.timeouts_total() + counters.errors_total();
        PoolPoint {
            most: std::mem::take(&mut self.most),
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
}

fn pool_series<'a>(name: &str, points: &(impl IntoIterator<Item = &'a PoolPoint> + Clone)) -> PoolSeries {
    let figures = |figure: fn(&PoolPoint) -> u64| points.clone().into_iter().map(figure).collect();
    let times = |figure: fn(&PoolPoint) -> f64| points.clone().into_iter().map(figure).collect();
    PoolSeries {
        pool: name.to_owned(),
        open: figures(|point| point.most.open),
        in_use: figures(|point| point.most.in_use),
        waiting: figures(|point| point.most.waiting),
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

impl Upstream {
    fn point(&mut self, row: &UpstreamRow, is_start: bool) -> (u64, u64, u64, f64) {
        let now = (row.requests, row.failures, row.handshakes + row.handshakes_resumed);
        let before = match self.before.replace(now) {
            // Fewer than before: it went and came back as another one, which began anew.
            Some(before) if now.0 < before.0 || now.1 < before.1 || now.2 < before.2 => (0, 0, 0),
            Some(before) => before,
            None if is_start => (0, 0, 0),
            // It is new, or it had nothing for so long that it has no series any more: nobody knows what belongs to this step.
            None => now,
        };
        let latency =
            row.latency_p50.filter(|_| row.health != Health::Unknown).map_or(0.0, |latency| latency.as_secs_f64());
        (now.0 - before.0, now.1 - before.1, now.2 - before.2, latency)
    }
}

fn upstream_series((job, name, transport, address): &Key, points: &VecDeque<(u64, u64, u64, f64)>) -> UpstreamSeries {
    UpstreamSeries {
        job: (*job).to_owned(),
        name: name.clone(),
        transport: transport.clone(),
        address: address.clone(),
        requests: points.iter().map(|point| point.0).collect(),
        failures: points.iter().map(|point| point.1).collect(),
        handshakes: points.iter().map(|point| point.2).collect(),
        latency: points.iter().map(|point| point.3).collect(),
    }
}

/// Whether a series has its place or gets one.
fn has_place<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V>(series: &BTreeMap<K, V>, key: &Q) -> bool {
    series.len() < SERIES_MAX || series.contains_key(key)
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
pub(crate) const STEP: u64 = 10;
/// A day of them.
const STEPS_MAX: usize = 8640;
/// Series of a kind; further pools and upstreams have none.
const SERIES_MAX: usize = 64;
/// Copies of the past that are begun for one who asks: more than one only where a step ends meanwhile.
const COPIES_MAX: usize = 3;

#[cfg(test)]
mod tests;
