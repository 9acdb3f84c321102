//! Why a query went as it did, as the status API tells it. Reasons are words here; the variants are the DNS server's.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rows::BreakerState, seconds};

/// Why a query went as it did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Explain {
    /// What of the names that are answered here the answer is from; none when it is not. What an alias leads to is told by the
    /// rest; without one there is nothing more to tell.
    #[serde(default)]
    pub local: Option<String>,
    /// What the cache had to say: `hit`, `miss`, `stale: ...`, `bypassed: ...` or `off`; empty when it was not asked.
    pub cache: String,
    /// Whether it joined an identical query that was in flight, and saw what was left of its course.
    pub joined: bool,
    /// How upstreams are chosen, as in the config; empty when none was to be.
    pub strategy: String,
    /// The group that answers for the name; empty when none was asked.
    pub group: String,
    /// The suffix of the route that led there; none for names without a route.
    pub suffix: Option<String>,
    /// The group that is asked when this one fails.
    pub fallback: Option<String>,
    /// What became of the second try; none where the strategy makes none.
    pub hedge: Option<String>,
    /// From the query to the decision whom to ask for the answer that was used; none without one.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub decide: Option<Duration>,
    /// Who could be asked, in order; empty when the cache answered.
    pub candidates: Vec<Candidate>,
    /// Every exchange, in the order in which they began.
    pub exchanges: Vec<Exchange>,
    /// Why there is no answer of an upstream or the cache; none when there is one.
    pub failure: Option<String>,
}

/// One upstream that could be asked, as it stood when the query began.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The upstream's name.
    pub upstream: String,
    /// Its group.
    pub group: String,
    /// Whether it was asked.
    pub asked: bool,
    /// Why, or why not.
    pub why: String,
    /// Its breaker.
    pub breaker: BreakerState,
    /// Median of its recent answers; the smoothed latency while there are few of them.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p50: Option<Duration>,
    /// 95th percentile of its recent answers; none while there are few of them.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p95: Option<Duration>,
    /// Queries that it had not answered yet.
    pub in_flight: u64,
    /// Its weight.
    pub weight: u32,
}

/// One query to one upstream over one connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Exchange {
    /// The upstream's name.
    pub upstream: String,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`.
    pub transport: String,
    /// It went to the encrypted face that a plain upstream designates (RFC 9462).
    #[serde(default)]
    pub designated: bool,
    /// From the query to the decision to make it.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub started: Duration,
    /// From there to its end.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub took: Duration,
    /// Why it was made.
    pub why: String,
    /// How it ended.
    pub outcome: String,
    /// The connection; none while there was none.
    pub connection: Option<Connection>,
}

/// The connection that a query went over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// The pool's number for it.
    pub id: u64,
    /// IP and port.
    pub address: String,
    /// Its age when the query was sent.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub age: Duration,
    /// Whether it had served before.
    pub reused: bool,
    /// Whether it had been opened before the query needed one, and nothing had gone over it.
    pub opened_ahead: bool,
    /// From the decision to the query's departure; the dial of a new connection is part of it.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub wait: Duration,
    /// What the dial of a new connection took; none for one that was there.
    pub dial: Option<Dial>,
    /// Whether a cookie went along (RFC 7873).
    pub cookie: bool,
    /// Whether the question's letters had a random case (0x20).
    pub random_case: bool,
}

/// The phases of a dial.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Dial {
    /// Finding the upstream's addresses.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub resolve: Duration,
    /// The TCP handshake; zero over UDP and QUIC.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub connect: Duration,
    /// The TLS handshake; none without TLS.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub tls: Option<Duration>,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// Encrypted client hello: `off`, `unavailable`, `grease`, `accepted` or `rejected`; none without TLS over TCP.
    pub ech: Option<String>,
}
