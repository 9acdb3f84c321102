//! Pools, their hosts and connections: every gauge and counter of the engine, and the limits that can be changed.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seconds;

mod engine;
mod limits;

pub use limits::{LimitsPatch, LimitsRow};

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
    /// Their phases, of those that any dial came to: `resolve`, `connect` (TCP), `proxy`, `tls`, `quic`, `protocol` (HTTP/2, HTTP/3, SSH). The
    /// `count` of each is how many dials did.
    #[serde(default)]
    pub dial_phases: BTreeMap<String, TimesRow>,
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

/// Hosts of a pool, and connections of a host, that are shown.
pub const ROWS_MAX: usize = 1000;
