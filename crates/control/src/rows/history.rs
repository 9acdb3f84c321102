//! What was, in steps: for the report and for charts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept of the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HistoryRow {
    /// Seconds between two points.
    pub step: u64,
    /// Seconds since 1970 of the last point.
    pub end: u64,
    /// One series a pool, of equal length, the oldest point first.
    pub pools: Vec<PoolSeries>,
    /// One series an upstream, transport and address.
    pub upstreams: Vec<UpstreamSeries>,
    /// Slow and failed requests a step, by job and the phase that took longest: `dns.connect`.
    pub slow: Vec<SlowSeries>,
}

/// A pool over time. Gauges are the most that any look (one a second) of a step saw; counts are those within a step; times are the
/// percentiles of what happened in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolSeries {
    /// The pool.
    pub pool: String,
    /// Connections, at most.
    pub open: Vec<u64>,
    /// Connections with a lease, at most.
    pub in_use: Vec<u64>,
    /// Acquires that waited at the same time, at most.
    pub waiting: Vec<u64>,
    /// Acquires.
    pub acquires: Vec<u64>,
    /// Acquires served by a connection that had served before.
    pub reused: Vec<u64>,
    /// Connections opened.
    pub opened: Vec<u64>,
    /// Failed dials.
    pub dial_errors: Vec<u64>,
    /// Acquires that timed out or failed.
    pub failed: Vec<u64>,
    /// Looks (one a second) at which somebody waited and nothing more could be opened, 0 to the seconds of a step.
    pub full: Vec<u64>,
    /// Median of the waits that ended in the step, seconds; 0 without any.
    pub wait_p50: Vec<f64>,
    /// 99th percentile of the same.
    pub wait_p99: Vec<f64>,
    /// Median of the dials that ended in the step, seconds; 0 without any.
    pub dial_p50: Vec<f64>,
    /// 99th percentile of the same.
    pub dial_p99: Vec<f64>,
    /// Sum of the time that leases were held, seconds.
    pub leased: Vec<f64>,
}

/// An upstream over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamSeries {
    /// `dns`, `https` or `tunnel`.
    pub job: String,
    /// Its name.
    pub name: String,
    /// Its transport.
    pub transport: String,
    /// Where it is, as the row of the upstream has it: one may have several addresses over the same transport (RFC 9462).
    pub address: String,
    /// Requests.
    pub requests: Vec<u64>,
    /// Failures.
    pub failures: Vec<u64>,
    /// TLS handshakes, resumed ones included.
    pub handshakes: Vec<u64>,
    /// Median latency as it was known then, seconds; 0 while unknown.
    pub latency: Vec<f64>,
}

/// Slow and failed requests over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SlowSeries {
    /// The job and the phase that took longest, such as `dns.connect`; `dns.failed` for those that failed.
    pub name: String,
    /// How many.
    pub count: Vec<u64>,
}
