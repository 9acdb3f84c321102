//! Pools, their hosts and connections: every gauge and counter of the engine, and the limits that can be changed.

use std::{collections::BTreeMap, time::Duration};

use keepwarm_pool::{CloseReason, ConnectionView, Counters, Gauges, Histogram, HostView, Limits, NamedPool, Phase};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seconds;

/// All connections of one kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolRow {
    /// `dns`, `dns.udp`, `https`, `tunnel.NAME`.
    pub name: String,
    /// In one word what an operator should know: `idle`, `ok`, `full` (somebody waits and nothing more may be opened), `waiting`
    /// (somebody waits for a dial), `failing` (every host of it fails to connect), `paused`.
    pub state: PoolState,
    /// Hosts known now.
    pub hosts: u64,
    /// How many there are right now.
    #[serde(flatten)]
    pub gauges: GaugesRow,
    /// How many there were.
    pub counters: CountersRow,
    /// Reused acquires / acquires, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// Waits of acquires that were not served at once.
    pub wait: TimesRow,
    /// Successful dials.
    pub dial: TimesRow,
    /// How long leases were held.
    pub lease: TimesRow,
    /// How long connections had been idle when leased.
    pub idle_age: TimesRow,
    /// What it may hold.
    pub limits: LimitsRow,
}

/// What an operator should know of a pool or a host, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Nothing is open and nobody asks.
    #[default]
    Idle,
    /// It serves.
    Ok,
    /// Somebody waits for a dial.
    Waiting,
    /// Somebody waits and nothing more may be opened: the limit is the bottleneck.
    Full,
    /// Dials fail in a row.
    Failing,
    /// An operator paused it.
    Paused,
}

impl PoolState {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolState::Idle => "idle",
            PoolState::Ok => "ok",
            PoolState::Waiting => "waiting",
            PoolState::Full => "full",
            PoolState::Failing => "failing",
            PoolState::Paused => "paused",
        }
    }
}

/// How many there are right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct GaugesRow {
    /// Connections, draining ones included.
    pub open: u64,
    /// Connections without a lease.
    pub idle: u64,
    /// Connections with a lease.
    pub in_use: u64,
    /// Leases.
    pub in_flight: u64,
    /// Dials.
    pub dialing: u64,
    /// Connections that are being checked.
    pub validating: u64,
    /// Connections that take no new lease.
    pub draining: u64,
    /// Acquires that wait.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub oldest_wait: Duration,
}

/// How many there were since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CountersRow {
    /// Acquires asked for.
    pub acquires: u64,
    /// Served at once by an idle connection.
    pub hits: u64,
    /// Served at once by a connection that others were using.
    pub shared_hits: u64,
    /// Found nothing usable: waited or failed.
    pub misses: u64,
    /// Waited and were served.
    pub waited: u64,
    /// Among these, served by a returned connection while a dial was in flight.
    pub late_bound: u64,
    /// Served by a connection that had served before.
    pub reused: u64,
    /// Gave up while they waited.
    pub cancelled: u64,
    /// Leases that came back.
    pub released: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials given up because nobody needed them.
    pub dials_cancelled: u64,
    /// Second dials beside a slow first one.
    pub backup_dials: u64,
    /// Connections opened.
    pub opened: u64,
    /// Checks of idle connections.
    pub validations: u64,
    /// Reused connections that failed before any byte of a response.
    pub reuse_failures: u64,
    /// Leases held for too long.
    pub leaks: u64,
    /// Acquires that timed out, by phase.
    pub timeouts: BTreeMap<String, u64>,
    /// Acquires that failed otherwise, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Connections that ended, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Failed dials, by kind.
    pub dial_errors: BTreeMap<String, u64>,
}

/// A distribution of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TimesRow {
    /// How many there were.
    pub count: u64,
    /// Median; none without any.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p50: Option<Duration>,
    /// 90th percentile.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p90: Option<Duration>,
    /// 99th percentile.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p99: Option<Duration>,
    /// The longest.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub max: Option<Duration>,
}

/// What a pool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LimitsRow {
    /// Connections of all hosts together.
    pub max_total: u64,
    /// Connections of one host.
    pub max_per_host: u64,
    /// Idle connections of all hosts together.
    pub max_idle: u64,
    /// Idle connections of one host.
    pub max_idle_per_host: u64,
    /// Connections of each host that are kept open even when nothing asks.
    pub min_idle: u64,
    /// Leases that one connection carries at once.
    pub max_in_flight: u64,
    /// Acquires of one host that may wait.
    pub max_waiters: u64,
    /// Dials of one host at the same time.
    pub max_dials_per_host: u64,
    /// Dials of all hosts at the same time.
    pub max_dials: u64,
}

/// Limits to change; what is left out stays. In force until the next change, a restart, or a reload that changes the pool's section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsPatch {
    /// Connections of all hosts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total: Option<usize>,
    /// Connections of one host. What follows from it and is not named here (`max_idle_per_host`, `min_idle`) is lowered along.
    /// `max_idle_per_host` is raised along only where it equals `max_per_host` before the change; a lower one was meant to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_host: Option<usize>,
    /// Idle connections of all hosts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle: Option<usize>,
    /// Idle connections of one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle_per_host: Option<usize>,
    /// Connections of each host that are kept open even when nothing asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle: Option<usize>,
    /// Leases that one connection carries at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Acquires of one host that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiters: Option<usize>,
    /// Dials of one host at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dials_per_host: Option<usize>,
    /// Dials of all hosts at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dials: Option<usize>,
}

/// A pool with its hosts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolDetail {
    /// The pool.
    pub pool: PoolRow,
    /// Its hosts by name, at most 1,000.
    pub hosts: Vec<HostRow>,
}

/// The connections of a pool to one key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HostRow {
    /// Its name, unique in the pool.
    pub name: String,
    /// In one word what an operator should know.
    pub state: PoolState,
    /// How many there are right now.
    #[serde(flatten)]
    pub gauges: GaugesRow,
    /// How many there were.
    pub counters: CountersRow,
    /// Reused acquires / acquires, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// Waits of acquires that were not served at once.
    pub wait: TimesRow,
    /// Successful dials.
    pub dial: TimesRow,
    /// After how long idle connections are retired now; learned.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub idle_limit: Duration,
    /// Its connections, those being dialled not included; at most 1,000.
    pub connections: Vec<ConnectionRow>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRow {
    /// Unique in its pool, for ever.
    pub id: u64,
    /// `idle`, `in_use`, `validating` or `draining`.
    pub state: String,
    /// Leases that it carries.
    pub in_flight: u32,
    /// Leases that it can carry at once.
    pub capacity: u32,
    /// Leases that it has carried.
    pub uses: u32,
    /// Time since it was opened.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub age: Duration,
    /// Time since its last lease came back; none while it has one.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub idle_for: Option<Duration>,
}

/// What is done to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolAction {
    /// Refuses acquires; connections stay.
    Pause,
    /// Ends a pause or a drain.
    Resume,
    /// Refuses acquires, closes idle connections, and busy ones with their last lease.
    Drain,
    /// Closes idle connections, and busy ones with their last lease; new ones are made when asked for.
    Flush,
    /// Opens connections ahead.
    Warm,
}

impl PoolAction {
    /// Every one.
    pub const ALL: [PoolAction; 5] =
        [PoolAction::Pause, PoolAction::Resume, PoolAction::Drain, PoolAction::Flush, PoolAction::Warm];

    /// Its word in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolAction::Pause => "pause",
            PoolAction::Resume => "resume",
            PoolAction::Drain => "drain",
            PoolAction::Flush => "flush",
            PoolAction::Warm => "warm",
        }
    }
}

/// Which part of a pool is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// The host by its name; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `warm` alone: how many connections of each host are to be open; none: its `min_idle`, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
}

/// What was done to a pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolDone {
    /// Hosts that were meant; connections that are open of them, after `warm`.
    pub count: u64,
    /// The pool afterwards.
    pub pool: PoolRow,
}

impl LimitsPatch {
    /// The limits with these changes. A lowered limit takes along those below it that are not named; a raised one of these was meant
    /// to be.
    pub fn over(&self, mut limits: Limits) -> Limits {
        let all_idle = limits.max_idle_per_host == limits.max_per_host;
        limits.max_total = self.max_total.unwrap_or(limits.max_total);
        limits.max_per_host = self.max_per_host.unwrap_or(limits.max_per_host.min(limits.max_total));
        limits.max_idle = self.max_idle.unwrap_or(limits.max_idle.min(limits.max_total));
        // Where all may stay idle, who sets only how many there may be means those too.
        let idle = match self.max_per_host {
            Some(max) if all_idle => max.min(limits.max_idle),
            _ => limits.max_idle_per_host,
        };
        limits.max_idle_per_host = self.max_idle_per_host.unwrap_or(idle.min(limits.max_per_host));
        limits.min_idle = self.min_idle.unwrap_or(limits.min_idle.min(limits.max_idle_per_host));
        limits.max_in_flight = self.max_in_flight.unwrap_or(limits.max_in_flight);
        limits.max_waiters = self.max_waiters.unwrap_or(limits.max_waiters);
        limits.max_dials = self.max_dials.unwrap_or(limits.max_dials);
        limits.max_dials_per_host = self.max_dials_per_host.unwrap_or(limits.max_dials_per_host);
        limits
    }

    /// The limits that are named.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let named = [
            (self.max_total.is_some(), "max_total"),
            (self.max_per_host.is_some(), "max_per_host"),
            (self.max_idle.is_some(), "max_idle"),
            (self.max_idle_per_host.is_some(), "max_idle_per_host"),
            (self.min_idle.is_some(), "min_idle"),
            (self.max_in_flight.is_some(), "max_in_flight"),
            (self.max_waiters.is_some(), "max_waiters"),
            (self.max_dials_per_host.is_some(), "max_dials_per_host"),
            (self.max_dials.is_some(), "max_dials"),
        ];
        named.into_iter().filter_map(|(is_named, name)| is_named.then_some(name))
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == LimitsPatch::default()
    }
}

impl From<Limits> for LimitsRow {
    fn from(limits: Limits) -> LimitsRow {
        LimitsRow {
            max_total: limits.max_total as u64,
            max_per_host: limits.max_per_host as u64,
            max_idle: limits.max_idle as u64,
            max_idle_per_host: limits.max_idle_per_host as u64,
            min_idle: limits.min_idle as u64,
            max_in_flight: limits.max_in_flight.into(),
            max_waiters: limits.max_waiters as u64,
            max_dials_per_host: limits.max_dials_per_host as u64,
            max_dials: limits.max_dials as u64,
        }
    }
}

impl From<&Gauges> for GaugesRow {
    fn from(gauges: &Gauges) -> GaugesRow {
        GaugesRow {
            open: gauges.open as u64,
            idle: gauges.idle as u64,
            in_use: gauges.in_use as u64,
            in_flight: gauges.in_flight as u64,
            dialing: gauges.dialing as u64,
            validating: gauges.validating as u64,
            draining: gauges.draining as u64,
            waiting: gauges.waiting as u64,
            oldest_wait: gauges.oldest_wait,
        }
    }
}

impl From<&Counters> for CountersRow {
    fn from(counters: &Counters) -> CountersRow {
        let named = |pairs: Vec<(&str, u64)>| pairs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        CountersRow {
            acquires: counters.acquires,
            hits: counters.hits,
            shared_hits: counters.shared_hits,
            misses: counters.misses,
            waited: counters.waited,
            late_bound: counters.late_bound,
            reused: counters.reused,
            cancelled: counters.cancelled,
            released: counters.released,
            dials: counters.dials,
            dials_cancelled: counters.dials_cancelled,
            backup_dials: counters.backup_dials,
            opened: counters.opened,
            validations: counters.validations,
            reuse_failures: counters.reuse_failures,
            leaks: counters.leaks,
            timeouts: named(Phase::ALL.iter().map(|phase| (phase.as_str(), counters.timeouts(*phase))).collect()),
            errors: named(counters.errors().map(|(kind, count)| (kind.as_str(), count)).collect()),
            closed: named(CloseReason::ALL.iter().map(|why| (why.as_str(), counters.closed(*why))).collect()),
            dial_errors: named(counters.dial_errors().to_vec()),
        }
    }
}

impl From<&Histogram> for TimesRow {
    fn from(histogram: &Histogram) -> TimesRow {
        let any = histogram.count() > 0;
        let quantile = |q: f64| any.then(|| histogram.quantile(q));
        TimesRow {
            count: histogram.count(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: any.then(|| histogram.max()),
        }
    }
}

impl From<&NamedPool> for PoolRow {
    fn from(named: &NamedPool) -> PoolRow {
        let (stats, limits) = (named.pool.stats(), named.pool.limits());
        let gauges = GaugesRow::from(&stats.gauges);
        PoolRow {
            name: named.name.clone(),
            state: state_of_pool(&stats, &limits),
            hosts: stats.hosts as u64,
            gauges,
            reuse_ratio: ratio(&stats.counters),
            counters: (&stats.counters).into(),
            wait: (&stats.wait).into(),
            dial: (&stats.dial).into(),
            lease: (&stats.lease).into(),
            idle_age: (&stats.idle_age).into(),
            limits: limits.into(),
        }
    }
}

impl HostRow {
    /// As the API shows it.
    pub fn new(view: HostView) -> HostRow {
        let HostView { name, stats, connections } = view;
        let state = match (stats.paused, stats.healthy, stats.gauges.waiting > 0) {
            (true, ..) => PoolState::Paused,
            (_, false, _) => PoolState::Failing,
            (.., true) if stats.full && !waits_for_dials(&stats.gauges) => PoolState::Full,
            (.., true) => PoolState::Waiting,
            _ if stats.gauges.open + stats.gauges.dialing == 0 => PoolState::Idle,
            _ => PoolState::Ok,
        };
        let mut connections: Vec<ConnectionRow> = connections.into_iter().map(Into::into).collect();
        connections.sort_by_key(|connection| connection.id);
        connections.truncate(ROWS_MAX);
        HostRow {
            name,
            state,
            gauges: (&stats.gauges).into(),
            reuse_ratio: ratio(&stats.counters),
            counters: (&stats.counters).into(),
            wait: (&stats.wait).into(),
            dial: (&stats.dial).into(),
            idle_limit: stats.idle_limit,
            connections,
        }
    }
}

impl From<ConnectionView> for ConnectionRow {
    fn from(view: ConnectionView) -> ConnectionRow {
        ConnectionRow {
            id: view.id,
            state: view.state.as_str().to_owned(),
            in_flight: view.in_flight,
            capacity: view.capacity,
            uses: view.uses,
            age: view.age,
            idle_for: view.idle_for,
        }
    }
}

fn ratio(counters: &Counters) -> Option<f64> {
    (counters.acquires > 0).then(|| counters.reuse_ratio())
}

/// Whether those who wait wait for dials alone: nothing is leased that could come back. A first dial takes the place of a connection, so the
/// limit of 1 is reached by it, and a larger one would help nobody.
fn waits_for_dials(gauges: &Gauges) -> bool {
    gauges.dialing > 0 && gauges.in_use == 0
}

fn state_of_pool(stats: &keepwarm_pool::Stats, limits: &Limits) -> PoolState {
    let gauges = &stats.gauges;
    let taken = gauges.open + gauges.dialing;
    match gauges.waiting {
        _ if stats.hosts > 0 && stats.paused == stats.hosts => PoolState::Paused,
        _ if stats.hosts > 0 && stats.unhealthy == stats.hosts => PoolState::Failing,
        0 if taken == 0 => PoolState::Idle,
        0 => PoolState::Ok,
        _ if waits_for_dials(gauges) => PoolState::Waiting,
        _ if stats.full > 0 || taken >= limits.max_total => PoolState::Full,
        _ => PoolState::Waiting,
    }
}

/// Hosts of a pool, and connections of a host, that are shown.
pub const ROWS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_whose_first_dial_takes_its_only_place_is_not_full() {
        let limits = Limits::per_host(1);
        let state = |dialing, in_use| {
            let mut stats = keepwarm_pool::Stats::default();
            (stats.hosts, stats.full) = (1, 1);
            stats.gauges.waiting = 3;
            (stats.gauges.dialing, stats.gauges.open, stats.gauges.in_use) = (dialing, in_use, in_use);
            state_of_pool(&stats, &limits)
        };
        assert_eq!(state(1, 0), PoolState::Waiting, "there is nothing that a larger limit would give back sooner");
        assert_eq!(state(0, 1), PoolState::Full);
        assert_eq!(state(1, 1), PoolState::Full, "of two hosts one is full");
    }

    #[test]
    fn a_lowered_limit_takes_along_what_follows_from_it() {
        let limits = Limits { min_idle: 4, ..Limits::per_host(10) };
        let lower = LimitsPatch { max_per_host: Some(2), ..LimitsPatch::default() }.over(limits);
        assert_eq!((lower.max_per_host, lower.max_idle_per_host, lower.min_idle), (2, 2, 2));
        lower.check().unwrap();
        let back = LimitsPatch { max_per_host: Some(10), ..LimitsPatch::default() }.over(lower);
        assert_eq!((back.max_per_host, back.max_idle_per_host, back.min_idle), (10, 10, 2));
        back.check().unwrap();
        let few_idle = Limits { max_idle_per_host: 3, ..Limits::per_host(10) };
        for (max, idle) in [(20, 3), (5, 3), (2, 2)] {
            let changed = LimitsPatch { max_per_host: Some(max), ..LimitsPatch::default() }.over(few_idle);
            assert_eq!((changed.max_per_host, changed.max_idle_per_host), (max, idle), "3 idle were meant");
        }
        let wrong = LimitsPatch { min_idle: Some(11), ..LimitsPatch::default() }.over(limits);
        assert!(wrong.check().is_err());
    }
}
