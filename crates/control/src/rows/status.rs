//! The daemon at a glance, its listeners, and what was slow or failed lately.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rows::Job, seconds};

/// The daemon at a glance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StatusRow {
    /// The daemon's version.
    pub version: String,
    /// Time since the start.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub uptime: Duration,
    /// Seconds since 1970 now, for who shows ages as times.
    pub now: u64,
    /// Whether all is well, in one word.
    pub health: DaemonHealth,
    /// What is not, the worst first; each names the pool or upstream. Empty while all is well.
    pub troubles: Vec<String>,
    /// The jobs that the config has.
    pub jobs: Vec<Job>,
    /// Upstreams of the config that are up or unknown.
    pub upstreams_up: u64,
    /// Upstreams of the config; origins that clients came with are not among them.
    pub upstreams: u64,
    /// Connections of all pools.
    pub connections: u64,
    /// Connections of all pools with a lease.
    pub in_use: u64,
    /// Acquires of all pools that wait.
    pub waiting: u64,
    /// Reused acquires / acquires of all pools, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// Requests from clients since the start: queries, requests, tunnels.
    pub requests: BTreeMap<String, u64>,
    /// The config that is in force.
    pub config: ConfigState,
}

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DaemonHealth {
    /// All is well.
    #[default]
    Ok,
    /// Something is not, and clients are served.
    Degraded,
    /// A job has no upstream that answers.
    Failing,
    /// It is stopping.
    Stopping,
}

impl DaemonHealth {
    /// `ok`, `degraded`, `failing` or `stopping`.
    pub fn as_str(self) -> &'static str {
        match self {
            DaemonHealth::Ok => "ok",
            DaemonHealth::Degraded => "degraded",
            DaemonHealth::Failing => "failing",
            DaemonHealth::Stopping => "stopping",
        }
    }
}

/// The config that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConfigState {
    /// Its file; none: the built-in default.
    pub file: Option<String>,
    /// Times it was read with success: 1 after the start.
    pub generation: u64,
    /// When it was read, in seconds since 1970.
    pub loaded: u64,
    /// Keys that were written otherwise since the start and take effect with the next one.
    pub needs_restart: Vec<String>,
    /// Why the last reload was refused; none when it was not.
    pub last_error: Option<String>,
    /// Limits that were changed at run time and are not what the file says, such as `dns.max_per_host`.
    pub changed_at_run_time: Vec<String>,
}

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ListenerRow {
    /// `dns`, `https`, `tunnel` or `control`.
    pub job: String,
    /// What is spoken there: `udp`, `tcp`, `tls`, `https`, `h3`, `quic`, `http`, `socks5`, `mixed`, `forward`.
    pub transport: String,
    /// IP and port, and the path where there is one.
    pub address: String,
}

/// A request (query, tunnel) that was slow or failed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RecentRow {
    /// `dns`, `https` or `tunnel`.
    pub job: Job,
    /// How long ago it ended.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub age: Duration,
    /// Whether it failed; else it was slow.
    pub failed: bool,
    /// What was asked for, as far as it may be told: record type, method and host, destination.
    pub what: String,
    /// The upstream that answered or failed last; none where none was asked.
    pub upstream: Option<String>,
    /// From the request to its end.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub total: Duration,
    /// What the time went to, in order.
    pub phases: Vec<PhaseRow>,
    /// Whether the connection was there before the request; none where there was none.
    pub reused: Option<bool>,
    /// Upstreams or addresses that were tried.
    pub tries: u32,
    /// Why it was slow or failed, in words.
    pub why: String,
}

/// A part of a request's time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PhaseRow {
    /// `wait`, `resolve`, `connect`, `tls`, `exchange` and the like.
    pub phase: String,
    /// How long it took.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

/// A condition of being ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CheckRow {
    /// What is looked at.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Why not; or what holds, in words.
    pub text: String,
}
