//! The config file as written: its sections and keys, each with meaning, unit, default and range.
//!
//! The texts here are the descriptions of the JSON Schema. Defaults are not set here: a missing key stays `None`, and
//! the step to the typed config (`meaning.rs`) falls back to the one place where the default is defined.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_dns::config::Listen;

use super::{
    address::UpstreamAddress,
    read::{List, section},
    value::{Bootstrap, Count, Host, Ip, Size, StrategyName, Text},
};
use crate::logging::{LogFilter, LogFormat};

section! {
    /// The configuration of keepwarm. Durations and sizes are words ("250ms", "1h30m", "64MiB"). Unknown keys are refused.
    FileSpec {
        /// Version of the file format. Required; always 1.
        version: u64,
        /// What is logged, and how.
        log: LogSpec,
        /// Limits of the whole daemon.
        limits: LimitsSpec,
        /// What is trusted when connecting to encrypted upstreams.
        tls: TlsSpec,
        /// The DNS gateway.
        dns: DnsSpec,
        /// The status endpoint, which `keepwarm pools`, `keepwarm cache` and `keepwarm query` ask.
        control: ControlSpec,
    }
}

section! {
    /// What is logged, and how.
    LogSpec {
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter per target: "info,keepwarm_pool=debug". `off` is silent.
        level: LogFilter,
        /// `text`, `json`, or `auto`: text on a terminal, JSON otherwise.
        format: LogFormat,
    }
}

section! {
    /// Limits of the whole daemon.
    LimitsSpec {
        /// Outbound connections of all pools together. 1 to 1,000,000; each costs a file descriptor.
        max_connections: Count<1, 1_000_000>,
        /// Worker threads, 0 to 1024. 0: one per core.
        workers: Count<0, 1024>,
    }
}

section! {
    /// What is trusted when connecting to encrypted upstreams. Certificates are always verified.
    TlsSpec {
        /// PEM files with certificates that are trusted beside the system's roots; relative paths start at this file.
        extra_roots: List<Text>,
    }
}

section! {
    /// The DNS gateway.
    DnsSpec {
        /// Addresses to listen on. "127.0.0.1:5300": UDP and TCP; "udp://..." and "tcp://...": one of them. Port 0: any.
        listen: List<Listen>,
        /// How upstreams are chosen for a query. `sequential`: in order, the next on failure. `parallel`: all at once, the
        /// first valid answer wins; costs a query at each upstream. `racing`: the next joins after `racing_delay`.
        /// `round-robin`: each query starts one further.
        strategy: StrategyName,
        /// One deadline for the whole query, retries included. 1ms to 5m.
        timeout: Duration,
        /// Racing: when the next upstream joins; adapts to the measured latency below this. 0s to `timeout`.
        racing_delay: Duration,
        /// Networks and addresses that may ask; everybody else is refused.
        allow: List<IpNet>,
        /// Queries a second and client. Only 0 (none) in this version.
        rate_limit: u64,
        /// Resolvers (IP, optional port) that look up the host names of upstreams; empty: the system's. The system's must
        /// not be this daemon itself, unless every upstream has an IP or `addresses`.
        bootstrap: List<Bootstrap>,
        /// Limits for clients.
        clients: ClientsSpec,
        /// The answers that are kept.
        cache: CacheSpec,
        /// The connections to each upstream.
        pool: PoolSpec,
        /// When an upstream is left alone, and when it is tried again.
        breaker: BreakerSpec,
        /// The upstreams, at least one; `sequential` asks them in this order.
        upstream: List<UpstreamSpec>,
    }
}

section! {
    /// Limits for clients.
    ClientsSpec {
        /// TCP connections of all clients. 1 to 1,000,000.
        tcp_max: Count<1, 1_000_000>,
        /// TCP connections of one client address. 1 to `tcp_max`.
        tcp_max_per_client: Count<1, 1_000_000>,
        /// A TCP connection without a query for so long is closed (RFC 7766 section 6.2.3). 100ms to 1h.
        tcp_idle_timeout: Duration,
        /// Queries in flight on one TCP connection; further ones are read when answers have left. 1 to 65535.
        tcp_max_in_flight: Count<1, 65_535>,
        /// Queries in flight of all clients; beyond it, new ones are dropped (UDP) or answered SERVFAIL (TCP). 1 to 1,000,000.
        max_in_flight: Count<1, 1_000_000>,
        /// Largest datagram sent to a client, in bytes (RFC 9715). 512 to 4096.
        udp_payload_size: Count<512, 4096>,
    }
}

section! {
    /// The answers that are kept, so that a question asked again needs no upstream.
    CacheSpec {
        /// Memory for answers, the store's own included. 64KiB to 64GiB; "0" turns the cache off. A usual answer takes a few
        /// hundred bytes.
        size: Size,
        /// A shorter TTL is raised to this. Above "0s" answers are kept longer than their owner allows. 0s to `max_ttl`.
        min_ttl: Duration,
        /// A longer TTL is lowered to this. 1s to 7d.
        max_ttl: Duration,
        /// Ceiling for negative answers: no such name, no such record (RFC 2308). 0s to `max_ttl`; "0s": they are not kept.
        /// The default gives way to a shorter `max_ttl`.
        negative_ttl: Duration,
        /// For how long after its end an answer serves when upstreams fail (RFC 8767). 0s to 7d; "0s" turns it off.
        stale: Duration,
        /// Popular answers are asked for again before they end; costs a few queries more.
        prefetch: bool,
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
    /// The status endpoint.
    ControlSpec {
        /// IP and port of the status endpoint. Loopback only in this version.
        listen: super::value::ControlAddress,
    }
}

/// Every section of this version and its keys.
pub(super) const SECTIONS: [(&str, &[&str]); 11] = [
    ("", FileSpec::KEYS),
    ("log", LogSpec::KEYS),
    ("limits", LimitsSpec::KEYS),
    ("tls", TlsSpec::KEYS),
    ("dns", DnsSpec::KEYS),
    ("dns.clients", ClientsSpec::KEYS),
    ("dns.cache", CacheSpec::KEYS),
    ("dns.pool", PoolSpec::KEYS),
    ("dns.breaker", BreakerSpec::KEYS),
    ("dns.upstream", UpstreamSpec::KEYS),
    ("control", ControlSpec::KEYS),
];
