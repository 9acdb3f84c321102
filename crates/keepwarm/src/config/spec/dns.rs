//! `[dns]`: what holds for every query, limits for clients, the cache.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_dns::config::Listen;

use super::{BreakerSpec, PoolSpec, UpstreamSpec};
use crate::config::{
    read::{List, section},
    value::{Bootstrap, Count, Size, StrategyName},
};

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
