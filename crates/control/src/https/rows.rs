//! What the endpoint shows and takes, as JSON. Durations are seconds.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The origins and the gateway.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HttpsStatus {
    /// One row an origin, in the order of their names.
    pub origins: Vec<OriginRow>,
    /// The local gateway; none where the config has none.
    pub gateway: Option<GatewayRow>,
}

/// One origin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct OriginRow {
    /// Host, and the port where it is not 443.
    pub origin: String,
    /// The label of its profile, such as `chrome@156`.
    pub profile: String,
    /// Whether the config names it; else it is one of `any_host`.
    pub configured: bool,
    /// Its addresses by state.
    pub addresses: AddressCounts,
    /// Connections that are open, to all its addresses.
    pub open: u64,
    /// Open connections without a request.
    pub idle: u64,
    /// Open connections with requests.
    pub in_use: u64,
    /// Requests that hold a connection.
    pub in_flight: u64,
    /// What happened to its requests.
    pub requests: RequestCounts,
}

/// Addresses by state: each is in one of the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AddressCounts {
    /// Found and never known good.
    pub candidate: u64,
    /// Known good.
    pub validated: u64,
    /// Failed, and left alone until their pause has ended.
    pub quarantined: u64,
    /// Being probed.
    pub probing: u64,
    /// Of all: those that rest, because of what the application answered.
    pub resting: u64,
    /// Of all: those banned at run time.
    pub banned: u64,
}

/// What happened to the requests of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RequestCounts {
    /// Requests that came.
    pub came: u64,
    /// Requests that were answered, with whatever status.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that their clients gave up.
    pub cancelled: u64,
    /// Tries beyond the first of a request.
    pub retried: u64,
    /// Requests that went over a connection that had served before.
    pub reused: u64,
}

/// The local gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct GatewayRow {
    /// Where it listens.
    pub listen: Vec<String>,
    /// Connections of clients that are open.
    pub clients: u64,
    /// Connections of clients that were served.
    pub accepted: u64,
    /// Connections of clients that found it full.
    pub turned_away: u64,
    /// Requests that came.
    pub requests: u64,
    /// Requests that the gateway itself refused.
    pub refused: u64,
    /// Requests that got no answer from an origin.
    pub failed: u64,
    /// Answers that ended early after their head.
    pub broken: u64,
}

/// The connections of an origin to one address with one profile.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HttpsPoolRow {
    /// Host, and the port where it is not 443.
    pub origin: String,
    /// The address.
    pub ip: String,
    /// The label of the profile.
    pub profile: String,
    /// Connections that are open.
    pub open: u64,
    /// The limit on `open`.
    pub max: u64,
    /// Open connections without a request.
    pub idle: u64,
    /// Open connections with requests.
    pub in_use: u64,
    /// Requests that hold a connection.
    pub in_flight: u64,
    /// Connections being made.
    pub dialing: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Acquires served by a connection that was there.
    pub hits: u64,
    /// Acquires that needed a new one.
    pub misses: u64,
    /// Reused acquires / acquires, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// Connections opened.
    pub opened: u64,
    /// Connections whose reuse failed.
    pub reuse_failures: u64,
    /// Closed connections by reason.
    pub closed: BTreeMap<String, u64>,
    /// Failed dials by kind of error.
    pub dial_errors: BTreeMap<String, u64>,
    /// Median time of a dial, TLS included; none before the first.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub dial_p50: Option<Duration>,
    /// 95th percentile of the same.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub dial_p95: Option<Duration>,
    /// After how long idle connections are closed now: as learned, at most what the config says.
    #[serde(with = "crate::seconds")]
    #[schemars(with = "f64")]
    pub idle_limit: Duration,
}

/// One address of an origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressRow {
    /// The address.
    pub ip: IpAddr,
    /// Where it stands.
    pub state: AddressState,
    /// For how long it still rests, because of what the application answered; none: it does not.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub resting: Option<Duration>,
    /// For how long it is still in quarantine, 0 when its probe is due; none: it is not.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub quarantined: Option<Duration>,
    /// Whether it was banned at run time.
    pub banned: bool,
    /// Who names it, such as `config,dns`.
    pub source: String,
    /// Requests that were answered, whatever the status.
    pub successes: u64,
    /// Requests and probes that failed.
    pub failures: u64,
    /// Answers that a verdict let the address rest for.
    pub refusals: u64,
    /// Probes that were begun.
    pub probes: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// What its answers took lately; none before the first.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub latency: Option<Duration>,
    /// The last status that was none of 200 to 299; none so far.
    pub last_status: Option<u16>,
    /// The text of its last failure.
    pub last_error: Option<String>,
}

/// Where an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// Known good.
    Validated,
    /// Found and never known good.
    Candidate,
    /// Being probed, for the first time or after a quarantine.
    Probing,
    /// Failed, and left alone until its pause has ended.
    Quarantined,
}

impl AddressState {
    /// `validated`, `candidate`, `probing` or `quarantined`.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressState::Validated => "validated",
            AddressState::Candidate => "candidate",
            AddressState::Probing => "probing",
            AddressState::Quarantined => "quarantined",
        }
    }
}

/// What to make ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// The origin.
    pub origin: String,
    /// Connections that are to be open, 1 and more.
    pub connections: usize,
}

/// How far a warm-up has come; one line of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct WarmRow {
    /// Connections that are wanted.
    pub wanted: usize,
    /// Connections that are open.
    pub open: usize,
    /// Addresses that are known good.
    pub addresses: usize,
    /// Addresses that could not be connected to, or were found bad.
    pub failed: usize,
    /// Whether this is the last line.
    pub done: bool,
    /// In the last line: why no connection could be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Addresses to ban or to allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessRequest {
    /// The origin.
    pub origin: String,
    /// An address, or a network such as `192.0.2.0/24`.
    pub net: String,
}

/// What a ban or an allowance is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessChanged {
    /// Known addresses of the origin in that network.
    pub addresses: u64,
}
