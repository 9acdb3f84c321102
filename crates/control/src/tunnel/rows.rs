//! What the endpoint shows of tunnels, as JSON. Durations are seconds.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rows::BreakerState;

/// Totals, listeners and upstreams.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TunnelStatus {
    /// Where clients come in, in the order of the config.
    pub listen: Vec<TunnelListenRow>,
    /// Tunnels that were asked for.
    pub asked: u64,
    /// Tunnels that were made.
    pub opened: u64,
    /// Live tunnels.
    pub live: u64,
    /// The limit on `live`.
    pub max: u64,
    /// Tunnels that wait for a place among the live ones.
    pub waiting: u64,
    /// Tunnels that found a spare, over all upstreams.
    pub hits: u64,
    /// Tunnels that waited for a connection to the proxy.
    pub misses: u64,
    /// hits / (hits + misses), 0 to 1; none before the first tunnel over a proxy.
    pub hit_ratio: Option<f64>,
    /// Tunnels that were not made, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Upstreams that were tried after another one.
    pub failovers: u64,
    /// Tunnels that were opened ahead.
    pub opened_ahead: u64,
    /// Of these, those that wait for their first use now.
    pub ready: u64,
    /// Tunnels that were there when they were asked for.
    pub ready_used: u64,
    /// Bytes to destinations, of tunnels that have ended.
    pub sent: u64,
    /// Bytes from destinations, of tunnels that have ended.
    pub received: u64,
    /// Waits for a place among the live tunnels.
    pub waits: TimesRow,
    /// The clients; none where there is no listener.
    pub clients: Option<ClientsRow>,
    /// UDP ASSOCIATE; none where there is no listener, or it is not offered.
    pub udp: Option<UdpRow>,
    /// The upstreams in the order of the config, and this machine's own connections (`direct`) at the end.
    pub upstreams: Vec<TunnelUpstreamRow>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TunnelListenRow {
    /// IP and port, as they really are.
    pub address: String,
    /// `mixed`, `socks5`, `http` or `forward`.
    pub kind: String,
    /// Of a forward: where each connection leads.
    pub target: Option<String>,
}

/// Durations that were counted. Each is the upper edge of its bucket, which is at most a quarter above it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TimesRow {
    /// How many.
    pub count: u64,
    /// Mean, to within an eighth; none before the first.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub mean: Option<Duration>,
    /// Median.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p50: Option<Duration>,
    /// 90th percentile.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p90: Option<Duration>,
    /// 99th percentile.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub p99: Option<Duration>,
    /// The longest, exact.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub max: Option<Duration>,
}

/// The clients of all listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClientsRow {
    /// Clients that are connected.
    pub connected: u64,
    /// The limit on `connected`.
    pub max: u64,
    /// Clients that were served.
    pub accepted: u64,
    /// Clients that found the server full.
    pub turned_away: u64,
    /// Of those served, the ones that spoke SOCKS5.
    pub socks5: u64,
    /// Those that spoke SOCKS4 or 4a.
    pub socks4: u64,
    /// Those that spoke HTTP.
    pub http: u64,
    /// Those of forwards.
    pub forwards: u64,
    /// Handshakes that failed, by reason.
    pub handshakes_failed: BTreeMap<String, u64>,
    /// Clients that went away while their tunnel was being made.
    pub gone_early: u64,
}

/// UDP ASSOCIATE.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UdpRow {
    /// Associations that live.
    pub associations: u64,
    /// The limit on `associations`.
    pub max: u64,
    /// Associations that there were.
    pub opened: u64,
    /// Requests that were turned away.
    pub refused: u64,
    /// Datagrams to destinations.
    pub datagrams_sent: u64,
    /// Datagrams to clients.
    pub datagrams_received: u64,
    /// Bytes of the former, without headers.
    pub bytes_sent: u64,
    /// Bytes of the latter, without headers.
    pub bytes_received: u64,
    /// Datagrams that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TunnelUpstreamRow {
    /// Its name in the config; `direct` for this machine's own connections.
    pub name: String,
    /// What it speaks and where it is, without user and password; `direct`.
    pub address: String,
    /// The proxy before it.
    pub through: Option<String>,
    /// Its group.
    pub group: String,
    /// Lower first.
    pub priority: u32,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// For how long it is still left alone; none while it is asked.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub retry_in: Option<Duration>,
    /// Failures in a row.
    pub failures_in_a_row: u32,
    /// What it was last blamed for.
    pub last_failure: Option<String>,
    /// How long ago that was.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub last_failure_ago: Option<Duration>,
    /// Live tunnels.
    pub live: u64,
    /// Tunnels that were made.
    pub tunnels: u64,
    /// Tunnels that found a spare.
    pub hits: u64,
    /// Tunnels that waited for a connection.
    pub misses: u64,
    /// hits / (hits + misses), 0 to 1; none before the first.
    pub hit_ratio: Option<f64>,
    /// Spares that were dead when they were used: the tunnel was made over a fresh connection.
    pub retries: u64,
    /// Spares that were silent: a fresh connection was tried beside them.
    pub hedged: u64,
    /// Destinations, or rules of the proxy, that said no.
    pub refused: u64,
    /// Failures of the upstream itself.
    pub failed: u64,
    /// Bytes to destinations, of tunnels that have ended.
    pub sent: u64,
    /// Bytes from destinations, of tunnels that have ended.
    pub received: u64,
    /// From the request to the destination's word.
    pub ready: TimesRow,
    /// Its spares; none of one that has none.
    pub spares: Option<SparesRow>,
}

/// The spares of one upstream; of an SSH server its sessions, of which none is kept as a spare.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SparesRow {
    /// How many are to be kept at the moment; it follows the rate.
    pub target: u64,
    /// The limit on `target`.
    pub max: u64,
    /// Ready now.
    pub idle: u64,
    /// Being made.
    pub dialing: u64,
    /// Connections to the proxy that were made, canaries and checks included.
    pub opened: u64,
    /// After how long one is replaced: as learned from the proxy, at most what the config says.
    #[serde(with = "crate::seconds")]
    #[schemars(with = "f64")]
    pub age_limit: Duration,
    /// What may be sent ahead of the proxy's word: `none`, `greeting` or `handshake`.
    pub pipelining: String,
    /// Age of spares when they were used.
    pub ages: TimesRow,
    /// What it took to make one.
    pub dials: TimesRow,
    /// Those that ended, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Failed dials by kind of error.
    pub dial_errors: BTreeMap<String, u64>,
}

/// One destination in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DestinationRow {
    /// Host and port.
    pub destination: String,
    /// Live tunnels.
    pub live: u64,
    /// The limit on `live`.
    pub max: u64,
    /// Tunnels that wait for one of these to end.
    pub waiting: u64,
    /// Tunnels since it came into use.
    pub total: u64,
}

/// One live tunnel of a client.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LiveRow {
    /// The client's address.
    pub client: String,
    /// Host and port that it leads to.
    pub destination: String,
    /// Name of the upstream.
    pub upstream: String,
    /// Time since it was ready.
    #[serde(with = "crate::seconds")]
    #[schemars(with = "f64")]
    pub age: Duration,
    /// Age of the spare that served it; none: the connection was made for it.
    #[serde(with = "crate::seconds::option")]
    #[schemars(with = "Option<f64>")]
    pub spare: Option<Duration>,
    /// Bytes to the destination so far.
    pub sent: u64,
    /// Bytes from the destination so far.
    pub received: u64,
}

impl LiveRow {
    /// Live tunnels that are told.
    pub const MAX: usize = 1000;
}
