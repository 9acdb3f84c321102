//! `[[dns.upstream]]`, the routes between them, the connections to each and the breaker of each.

use std::time::Duration;

use keepwarm_dns::config::{Ddr, Ech};

use crate::config::{
    address::UpstreamAddress,
    read::{List, section},
    value::{Count, Host, Ip, Name, Suffix},
};

section! {
    /// An upstream.
    UpstreamSpec {
        /// Name in logs, status and metrics. Required; unique; up to 64 of the characters A-Z a-z 0-9 . _ -
        name: Name,
        /// Where it is and what it speaks. Required. "udp://IP", "tcp://IP", "tls://HOST", "https://HOST/PATH", "h3://HOST/PATH",
        /// "quic://HOST", each with an optional port (53, 53, 853, 443, 443, 853); the path is /dns-query where none is given.
        address: UpstreamAddress,
        /// Fixed IPs of the host in `address`, instead of looking it up.
        addresses: List<Ip>,
        /// Name on the server's certificate, where it differs from the host (encrypted transports).
        server_name: Host,
        /// The group that it belongs to, for [[dns.route]] and `dns.fallback`. "default" without it: that group answers all
        /// names without a route.
        group: Name,
        /// Share of the queries beside the other weights, for the strategies `random` and `least-loaded`. 1 to 1000.
        weight: Count<1, 1000>,
        /// Encrypted client hello, which hides the TLS name (tls:// and https:// with a host name). `auto`: where the upstream
        /// publishes keys that work; costs a query for them. `require`: no connection without it. `off`: never.
        ech: Ech,
        /// Discovery of the encrypted face of a plain upstream (RFC 9462; udp:// and tcp:// with an IP). `auto`: encrypted where
        /// one is found that can be verified, plain otherwise. `require`: encrypted or not at all. `off`: plain.
        ddr: Ddr,
        /// DNS cookies (RFC 7873), against forged answers; used over UDP and TCP.
        cookies: bool,
        /// Queries are padded to blocks of 128 bytes (RFC 8467) over encrypted transports, so that their size tells little.
        padding: bool,
        /// Random case of the question's letters (0x20), which the answer must repeat; given up by itself where the upstream
        /// does not.
        case_randomization: bool,
    }
}

section! {
    /// Names that go to a group of upstreams of their own, as in split horizon. The longest suffix wins.
    RouteSpec {
        /// Suffixes: "corp.example" stands for itself and all names below it. Required; up to 10,000.
        r#match: List<Suffix>,
        /// The group of upstreams that is asked for them. Required.
        via: Name,
    }
}

section! {
    /// How many second tries the strategy `hedged` may make.
    HedgeSpec {
        /// Second tries as a share of the queries, 0 to 1: the load that it may add.
        budget: f64,
        /// Second tries that may be saved up for a bad moment. 1 to 1,000,000.
        burst: Count<1, 1_000_000>,
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
