//! `[[dns.upstream]]`, the connections to each and the breaker of each.

use std::time::Duration;

use crate::config::{
    address::UpstreamAddress,
    read::{List, section},
    value::{Count, Host, Ip, Text},
};

section! {
    /// An upstream.
    UpstreamSpec {
        /// Name in logs, status and metrics. Required; unique; up to 64 of the characters A-Z a-z 0-9 . _ -
        name: Text,
        /// Where it is and what it speaks. Required. "udp://IP", "tcp://IP", "tls://HOST", "https://HOST/PATH", each with an
        /// optional port (53, 53, 853, 443); the path is /dns-query where none is given.
        address: UpstreamAddress,
        /// Fixed IPs of the host in `address`, instead of looking it up.
        addresses: List<Ip>,
        /// Name on the server's certificate, where it differs from the host (tls:// and https://).
        server_name: Host,
        /// Random case of the question's letters (0x20), which the answer must repeat. Some servers do not.
        case_randomization: bool,
    }
}

section! {
    /// The connections to each upstream.
    PoolSpec {
        /// Connections to one upstream and transport. 1 to 65535, and not more than `limits.max_connections`.
        max_per_host: Count<1, 65_535>,
        /// Kept connected even when nothing asks. 0 to `max_per_host`.
        min_idle: Count<0, 65_535>,
        /// Queries in flight on one connection. 1 to 65535.
        max_in_flight: Count<1, 65_535>,
        /// Queries waiting for a connection of one upstream; further ones fail at once. 0 to 1,000,000.
        max_waiters: Count<0, 1_000_000>,
        /// An idle connection is closed after so long. A ceiling: what the upstream really keeps is learned below it. 100ms to 1d.
        idle_timeout: Duration,
        /// A connection is replaced at this age, less up to 15 %. 1s to 7d.
        max_lifetime: Duration,
        /// Limit for one connection attempt, TLS included. 1ms to 5m.
        connect_timeout: Duration,
        /// Limit for waiting for a connection. 1ms to 5m.
        acquire_timeout: Duration,
        /// A connection that has idled longer than this is validated before use. 0s to 1d.
        check_interval: Duration,
        /// How often idle and aged connections are looked for. 10ms to 1h.
        cleanup_interval: Duration,
        /// A UDP socket is retired after so many queries, for a fresh random port. 1 to 1,000,000.
        udp_max_queries: Count<1, 1_000_000>,
        /// A UDP socket is retired at this age. 100ms to 1h.
        udp_max_age: Duration,
        /// `false`: a connection per query. For comparison only: it pays a handshake for each query.
        reuse: bool,
    }
}

section! {
    /// When an upstream is left alone, and when it is tried again.
    BreakerSpec {
        /// Failures in a row that open the breaker. 1 to 1,000,000.
        failures: Count<1, 1_000_000>,
        /// Or this share of failures within `window`. Above 0, up to 1.
        failure_ratio: f64,
        /// The time over which the share is taken. 100ms to 1h.
        window: Duration,
        /// First pause. 1ms to `open_max`.
        open: Duration,
        /// The pause doubles up to this. Up to 1d.
        open_max: Duration,
        /// Successes after the pause that close the breaker. 1 to 1000.
        successes: Count<1, 1000>,
    }
}
