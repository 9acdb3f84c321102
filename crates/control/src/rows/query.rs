//! A query through the daemon: what is asked and how its answer came about.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{explain::Explain, seconds};

/// A name to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// The name, in presentation form.
    pub name: String,
    /// The record type, by name or as `TYPE65`.
    pub qtype: String,
    /// Whether the report says why it went as it did. Default `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// An answer and how it came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct QueryReport {
    /// The name that was asked.
    pub name: String,
    /// The record type that was asked.
    pub qtype: String,
    /// The response code, such as `NOERROR`.
    pub rcode: String,
    /// The records of the answer section in zone-file form.
    pub answers: Vec<String>,
    /// The records of the authority section in zone-file form.
    pub authority: Vec<String>,
    /// Bytes of the answer.
    pub size: u64,
    /// Whether the answer came from the cache. Then no upstream, no connection and no phase belongs to it.
    pub cached: bool,
    /// Whether it came from the cache past its end, because upstreams failed; never without `cached`.
    pub stale: bool,
    /// Whether it came from names that are answered here; what an alias among them leads to may be an upstream's.
    #[serde(default)]
    pub local: bool,
    /// The upstream whose answer this is; none when it is from the cache.
    pub upstream: Option<String>,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`; none when it is from the cache.
    pub transport: Option<String>,
    /// IP and port of the connection; none where it is not known.
    pub address: Option<String>,
    /// Whether the connection was there before the query; `false` when none was used.
    pub reused: bool,
    /// Whether it was there before the query and nothing had gone over it. Then the phases of its dial belong to no query.
    #[serde(default)]
    pub opened_ahead: bool,
    /// The connection's age when the query was sent; none when none was used.
    #[serde(default, with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub age: Option<Duration>,
    /// Encrypted client hello in the handshake of a new connection; none where there was none.
    pub ech: Option<String>,
    /// What the time went to.
    pub phases: Phases,
    /// From the query to its answer.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub total: Duration,
    /// Every upstream that was asked, in order; for a stale answer those that failed.
    pub attempts: Vec<Attempt>,
    /// Why it went as it did, where that was asked for. Then a query that nobody answered has a report too, with
    /// [`failure`](Explain::failure).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// What a query's time went to. A phase that did not happen is none: a reused connection has no connect and no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Phases {
    /// Waiting for a connection of the pool.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub wait: Option<Duration>,
    /// Looking up the upstream's host name.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub resolve: Option<Duration>,
    /// Connecting.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub connect: Option<Duration>,
    /// The TLS handshake.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub tls: Option<Duration>,
    /// From sending the query to its answer.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub exchange: Option<Duration>,
}

/// One upstream asked for one query.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The upstream's name.
    pub upstream: String,
    /// `answered`, `lost the race`, or what went wrong.
    pub outcome: String,
    /// How long it took.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// The name or type cannot be asked.
    Invalid(String),
    /// The daemon has no DNS to ask.
    Unknown(String),
    /// No upstream answered.
    Failed(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Invalid(text) | QueryError::Unknown(text) | QueryError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for QueryError {}
