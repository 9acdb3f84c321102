//! Upstreams of every job in one form: who is asked, how it does, and why not.

use std::{collections::BTreeMap, time::Duration};

use keepwarm_pool::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rows::BreakerState, seconds};

/// A server that is connected to: an upstream of DNS, an origin of hot HTTPS, an upstream of tunnels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamRow {
    /// `dns`, `https` or `tunnel`.
    pub job: Job,
    /// Its name in the config; of an origin its host.
    pub name: String,
    /// `udp`, `tcp`, `tls`, `https`, `h3`, `quic`, `socks5`, `http`, `ssh`, `direct` and the like.
    pub transport: String,
    /// Host and port.
    pub address: String,
    /// Its group; none where there are no groups.
    pub group: Option<String>,
    /// The pool that has its connections; none where it has none.
    pub pool: Option<String>,
    /// Whether the config names it; false for an origin that a client came with (`any_host`), whose health is not the daemon's. Default
    /// true.
    pub configured: bool,
    /// How it does, in one word.
    pub health: Health,
    /// Why it is not `up`: the last failure in words. None while it is.
    pub reason: Option<String>,
    /// The breaker; of an origin `open` where none of its addresses may be used.
    pub breaker: BreakerState,
    /// When an open breaker lets one request try; none while it is closed.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub retry_in: Option<Duration>,
    /// Connections that are open.
    pub open: u64,
    /// Connections that are in use.
    pub in_use: u64,
    /// Requests (queries, tunnels) that it was asked.
    pub requests: u64,
    /// Those that failed and it is to blame for.
    pub failures: u64,
    /// Those that failed and this machine is to blame for.
    pub local_errors: u64,
    /// TLS handshakes in full; of tunnels connections to the proxy.
    pub handshakes: u64,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: u64,
    /// Median time from a request's departure to its answer; none before the first.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub latency_p50: Option<Duration>,
    /// 95th percentile of the same.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub latency_p95: Option<Duration>,
    /// The same as counts, for metrics; none where they are not kept.
    #[serde(skip)]
    pub latency: Option<Histogram>,
    /// The idle limit that it was seen to keep; none while only the configured one is known.
    #[serde(with = "seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub idle_limit: Option<Duration>,
    /// What only its job knows, by name: figures such as `wrong_answers`, `spares_target`, `addresses_quarantined`.
    pub figures: BTreeMap<String, u64>,
}

impl Default for UpstreamRow {
    fn default() -> UpstreamRow {
        UpstreamRow {
            job: Job::default(),
            name: String::new(),
            transport: String::new(),
            address: String::new(),
            group: None,
            pool: None,
            configured: true,
            health: Health::default(),
            reason: None,
            breaker: BreakerState::default(),
            retry_in: None,
            open: 0,
            in_use: 0,
            requests: 0,
            failures: 0,
            local_errors: 0,
            handshakes: 0,
            handshakes_resumed: 0,
            latency_p50: None,
            latency_p95: None,
            latency: None,
            idle_limit: None,
            figures: BTreeMap::new(),
        }
    }
}

/// The three things that the daemon does for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// The DNS proxy.
    #[default]
    Dns,
    /// Hot HTTPS.
    Https,
    /// Tunnels.
    Tunnel,
}

impl Job {
    /// `dns`, `https` or `tunnel`.
    pub fn as_str(self) -> &'static str {
        match self {
            Job::Dns => "dns",
            Job::Https => "https",
            Job::Tunnel => "tunnel",
        }
    }
}

/// How an upstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing was asked of it yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers, with failures among the last.
    Degraded,
    /// It failed and is left alone, or a single request tries whether it is back.
    Down,
}

impl Health {
    /// `unknown`, `up`, `degraded` or `down`.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Degraded => "degraded",
            Health::Down => "down",
        }
    }
}
