//! The upstreams of DNS, and what can be asked of its cache.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seconds;

/// The connections to one upstream over one transport.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DnsUpstreamRow {
    /// The upstream's name in the config.
    pub upstream: String,
    /// Its group.
    pub group: String,
    /// Its weight, for the strategies that go by it.
    pub weight: u32,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`. An upstream has a second row for `tcp` once a truncated answer was asked again.
    pub transport: String,
    /// Host and port, and the path where there is one.
    pub address: String,
    /// Connections that are open.
    pub open: u64,
    /// The limit on `open`.
    pub max: u64,
    /// Open connections that nobody uses.
    pub idle: u64,
    /// Open connections with queries in flight.
    pub in_use: u64,
    /// Queries in flight.
    pub in_flight: u64,
    /// Connections being made.
    pub dialing: u64,
    /// Queries that wait for a connection.
    pub waiting: u64,
    /// Acquires served by a connection that was there.
    pub hits: u64,
    /// Acquires that needed a new one.
    pub misses: u64,
    /// Reused acquires / acquires, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// TLS handshakes in full.
    pub handshakes_full: u64,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: u64,
    /// Encrypted client hello at the last handshake: `off`, `unavailable`, `grease`, `accepted` or `rejected`; none without
    /// TLS over TCP.
    pub ech: Option<String>,
    /// The encrypted face of a plain upstream; none where none is asked for.
    pub ddr: Option<DdrRow>,
    /// Whether it speaks cookies (RFC 7873): `yes`, `no` or `unknown`; none where they are not used.
    pub cookies: Option<String>,
    /// Answers refused for their cookie, or asked for again because the upstream refused ours.
    pub cookie_errors: u64,
    /// Whether it keeps the case of letters (0x20); none where that is not asked of it.
    pub keeps_case: Option<bool>,
    /// Queries sent.
    pub queries: u64,
    /// Valid answers.
    pub answers: u64,
    /// Failures that the upstream is to blame for.
    pub failures: u64,
    /// Failures that this machine is to blame for.
    pub local_errors: u64,
    /// Answers dropped because nobody asked, or the question differed.
    pub wrong_answers: u64,
    /// Queries sent once more.
    pub resends: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections whose reuse failed.
    pub reuse_failures: u64,
    /// Closed connections by reason.
    pub closed: BTreeMap<String, u64>,
    /// Failed dials by kind of error.
    pub dial_errors: BTreeMap<String, u64>,
    /// Whether the upstream is asked.
    pub breaker: BreakerState,
    /// Median time from a query's departure to its answer; the smoothed time while there are few answers, none before the
    /// first.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub latency_p50: Option<Duration>,
    /// 95th percentile of the same; none while there are few answers.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub latency_p95: Option<Duration>,
    /// The idle limit that the upstream was seen to keep; none while only the configured one is known.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub idle_limit: Option<Duration>,
}

/// The encrypted face that a plain upstream designates (RFC 9462).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DdrRow {
    /// `pending` before the upstream has answered, `designated`, or `absent`.
    pub state: String,
    /// The URL of the face in use, which has a row of its own.
    pub address: Option<String>,
    /// `tls` or `https`.
    pub transport: Option<String>,
    /// For how long it has been in use.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub age: Option<Duration>,
    /// Why there is none.
    pub reason: Option<String>,
}

/// Whether an upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// It is asked.
    #[default]
    Closed,
    /// It failed and is left alone.
    Open,
    /// A single query tries whether it is back.
    HalfOpen,
}

impl BreakerState {
    /// `closed`, `open` or `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}
