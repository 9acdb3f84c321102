//! The daemon as a whole: its counters, its certificate, its cache.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seconds;

/// Counters of the whole daemon.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// The daemon's version.
    pub version: String,
    /// Time since the start.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub uptime: Duration,
    /// Now, in seconds since 1970.
    #[serde(default)]
    pub now: u64,
    /// Addresses that are listened on, such as `udp://127.0.0.1:5300`.
    pub listen: Vec<String>,
    /// The certificate that encrypted listeners show; none where there are none.
    #[serde(default)]
    pub certificate: Option<CertificateRow>,
    /// Everything that is counted, by name.
    pub counters: BTreeMap<String, u64>,
}

/// The certificate of the listeners. Times are whole seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CertificateRow {
    /// Subject, such as `CN=dns.example`; may be empty.
    pub subject: String,
    /// Issuer, in the same form.
    pub issuer: String,
    /// DNS names and IP addresses that it is for.
    pub names: Vec<String>,
    /// Not valid before this time.
    pub not_before: u64,
    /// Not valid after this time.
    pub not_after: u64,
    /// When it was read from its file.
    pub loaded: u64,
}

/// The cache of the whole daemon.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CacheStatus {
    /// Memory that its entries may take, in bytes; 0: the cache is off.
    pub size: u64,
    /// Answers in it.
    pub entries: u64,
    /// Memory of its entries, in bytes; at most `size`.
    pub bytes: u64,
    /// Queries answered from it, stale answers not included.
    pub hits: u64,
    /// Queries that could have been in it and were not.
    pub misses: u64,
    /// hits / (hits + misses), 0 to 1; none before the first query that could have been in it.
    pub hit_ratio: Option<f64>,
    /// Queries answered with an answer past its end, because upstreams failed.
    pub stale: u64,
    /// Answers asked for again before their end.
    pub prefetches: u64,
}

/// What to forget. A key that is not known is refused: a slip in `name` must not flush everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// The name whose answers are forgotten, of every type and in any case; none: all answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flushed {
    /// The number of answers, or of spares.
    pub flushed: u64,
}

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: String,
}
