//! `[dns]`: what holds for every query, where clients come in and what they may do.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_dns::config::{Listen, Strategy};

use super::{
    BreakerSpec, CacheSpec, ClientSubnetSpec, HedgeSpec, LocalSpec, PoolSpec, QueryLogSpec, RouteSpec, UpstreamSpec,
};
use crate::config::{
    read::{List, section},
    value::{Bootstrap, Count, Name, Text},
};

section! {
    /// The DNS gateway.
    DnsSpec {
        /// Addresses to listen on. "127.0.0.1:5300": plain DNS over UDP and TCP; "udp://..." and "tcp://...": one of them.
        /// "tls://IP", "https://IP/PATH", "quic://IP" and "h3://IP/PATH" are encrypted and need [dns.tls]; their ports are
        /// 853, 443, 853 and 443 where none is given, the path is /dns-query. Port 0: any.
        listen: List<Listen>,
        /// How upstreams are chosen for a query. `sequential`: in order, the next on failure. `parallel`: all at once, the
        /// first valid answer wins; costs a query at each upstream. `racing`: the next joins after `racing_delay`.
        /// `round-robin`: each query starts one further. `random`: as often as `weight` says. `least-loaded`: the one with
        /// the fewest queries in flight, by `weight`. `fastest`: the lowest latency of late, with some exploration.
        /// `hedged`: as `fastest`, and a second one joins when an answer is late; costs up to [dns.hedge] `budget`.
        strategy: Strategy,
        /// One deadline for the whole query, retries included. 1ms to 5m.
        timeout: Duration,
        /// A query that takes longer than this is kept in mind as a slow one, with its phases. 1ms to 1h.
        slow: Duration,
        /// Racing: when the next upstream joins; adapts to the measured latency below this. 0s to `timeout`.
        racing_delay: Duration,
        /// The group of upstreams that is asked when every upstream of a query's own group has failed. None without it.
        fallback: Name,
        /// Networks and addresses that may ask; everybody else is refused.
        allow: List<IpNet>,
        /// Queries a second of one client, 0 to 1,000,000; an IPv6 client is its /64. 0: no limit. Beyond it UDP queries are
        /// answered with TC or dropped, and streams are answered REFUSED. Costs a table of clients.
        rate_limit: Count<0, 1_000_000>,
        /// Resolvers (IP, optional port) that look up the host names of upstreams; empty: the system's. The system's must
        /// not be this daemon itself, unless every upstream has an IP or `addresses`.
        bootstrap: List<Bootstrap>,
        /// The certificate of the encrypted listeners.
        tls: ListenTlsSpec,
        /// How many second tries the strategy `hedged` may make.
        hedge: HedgeSpec,
        /// Limits for clients.
        clients: ClientsSpec,
        /// What upstreams are told of the client's network.
        client_subnet: ClientSubnetSpec,
        /// Names that are answered without any upstream.
        local: LocalSpec,
        /// Where queries are written down, and what of them.
        query_log: QueryLogSpec,
        /// The answers that are kept.
        cache: CacheSpec,
        /// The connections to each upstream.
        pool: PoolSpec,
        /// When an upstream is left alone, and when it is tried again.
        breaker: BreakerSpec,
        /// The upstreams, at least one; `sequential` asks them in this order.
        upstream: List<UpstreamSpec>,
        /// Names that go to a group of upstreams of their own, as in split horizon.
        route: List<RouteSpec>,
    }
}

section! {
    /// The certificate of the encrypted listeners. Its files are read again when they change.
    ListenTlsSpec {
        /// PEM file with the certificate chain, the server's own certificate first. Required; relative paths start at this
        /// file.
        certificate: Text,
        /// PEM file with the private key of the certificate. Required; relative paths start at this file.
        key: Text,
    }
}

section! {
    /// Limits for clients. Those on connections hold for TCP, TLS, HTTPS and QUIC alike.
    ClientsSpec {
        /// Connections of all clients. 1 to 1,000,000.
        tcp_max: Count<1, 1_000_000>,
        /// Connections of one client address. 1 to `tcp_max`.
        tcp_max_per_client: Count<1, 1_000_000>,
        /// A connection without a query for so long is closed (RFC 7766 section 6.2.3). 100ms to 1h.
        tcp_idle_timeout: Duration,
        /// Queries in flight on one connection; further ones are read when answers have left. 1 to 65535.
        tcp_max_in_flight: Count<1, 65_535>,
        /// Queries in flight of all clients; beyond it, new ones are dropped (UDP) or answered SERVFAIL (TCP). 1 to 1,000,000.
        max_in_flight: Count<1, 1_000_000>,
        /// Queries in flight of one client address, over all its sockets and connections. 0 to 1,000,000; 0: no limit. Beyond
        /// it new ones are answered REFUSED. Costs a table of clients.
        max_in_flight_per_client: Count<0, 1_000_000>,
        /// Largest datagram sent to a client, in bytes (RFC 9715). 512 to 4096.
        udp_payload_size: Count<512, 4096>,
        /// Networks and addresses of proxies whose connections and datagrams begin with a PROXY protocol version 2 header,
        /// which names the client. What they say is believed, so list nobody else. Empty: none.
        proxy_protocol: List<IpNet>,
    }
}
