//! What an operator sees of the pools: one row an upstream and transport.

use std::{sync::atomic::Ordering, time::Duration};

use keepwarm_pool::{CloseReason, Histogram, Steer as _};
use tokio::time::Instant as Clock;

use super::{Server, Shared};
use crate::{
    cache::Cache,
    config::Transport,
    upstream::{Designation, Endpoint, ddr::Standing},
};

/// One pool: an upstream over one transport, all workers together.
#[derive(Debug, Clone, Default)]
pub struct PoolStatus {
    /// The upstream's name in the config.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its weight.
    pub weight: u32,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`.
    pub transport: &'static str,
    /// The URL.
    pub address: String,
    /// Connections that are not closed, dialling ones included.
    pub open: usize,
    /// The limit of `open`.
    pub max: usize,
    /// Connections without a query.
    pub idle: usize,
    /// Connections with queries.
    pub in_use: usize,
    /// Queries in flight.
    pub in_flight: usize,
    /// Connections being dialled.
    pub dialing: usize,
    /// Queries waiting for a connection.
    pub waiting: usize,
    /// Acquires served by a connection that was there.
    pub hits: u64,
    /// Acquires that had to wait for a dial.
    pub misses: u64,
    /// Reused acquires / acquires, 0 to 1; `None` before the first.
    pub reuse_ratio: Option<f64>,
    /// Connections opened since the start.
    pub opened: u64,
    /// Full TLS handshakes.
    pub handshakes_full: u64,
    /// Resumed TLS handshakes.
    pub handshakes_resumed: u64,
    /// Encrypted client hello at the last handshake: `off`, `unavailable` (the upstream publishes no keys, or none were
    /// found), `grease`, `accepted` or `rejected`; `None` where there is no TLS over TCP.
    pub ech: Option<&'static str>,
    /// The encrypted face of a plain upstream; `None` where none is asked for.
    pub ddr: Option<DdrStatus>,
    /// Failed dials by kind.
    pub dial_errors: Vec<(&'static str, u64)>,
    /// Closed connections by reason.
    pub closed: Vec<(&'static str, u64)>,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Smoothed latency of answers.
    pub latency: Option<Duration>,
    /// Latency of all answers since the start.
    pub latencies: Histogram,
    /// Median of recent answers, as the worker that asked last sees it; `None` while there are few.
    pub p50: Option<Duration>,
    /// 95th percentile of recent answers, likewise.
    pub p95: Option<Duration>,
    /// The idle limit learned from the upstream, where it is below the configured one.
    pub idle_limit: Option<Duration>,
    /// Queries sent.
    pub queries: u64,
    /// Valid answers.
    pub answers: u64,
    /// Failures the upstream is to blame for.
    pub failures: u64,
    /// Failures this machine is to blame for.
    pub local_errors: u64,
    /// Answers dropped because nobody asked or the question differed.
    pub wrong_answers: u64,
    /// Answers refused for their cookie, or asked for again because the upstream refused ours (RFC 7873).
    pub cookie_errors: u64,
    /// Whether the upstream speaks cookies: `yes`, `no` or `unknown`; `None` where they are not used.
    pub cookies: Option<&'static str>,
    /// Whether it keeps the case of letters (0x20); `None` where that is not asked of it.
    pub keeps_case: Option<bool>,
    /// Queries sent once more.
    pub resends: u64,
    /// Connections whose reuse failed.
    pub reuse_failures: u64,
}

/// The encrypted face that a plain upstream designates (RFC 9462).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DdrStatus {
    /// `pending` before the upstream has answered, `designated`, or `absent`.
    pub state: &'static str,
    /// The URL of the face in use; it has a row of its own.
    pub address: Option<String>,
    /// `tls` or `https`.
    pub transport: Option<&'static str>,
    /// For how long it has been in use.
    pub age: Option<Duration>,
    /// Why there is none.
    pub reason: Option<String>,
}

impl DdrStatus {
    fn of(designation: &Designation) -> DdrStatus {
        let state = match designation.standing() {
            Standing::Pending => "pending",
            Standing::Absent => "absent",
            Standing::Face(_) => "designated",
        };
        let face = match designation.standing() {
            Standing::Face(face) => designation.face(face),
            Standing::Pending | Standing::Absent => None,
        };
        let now = tokio::time::Instant::now().into_std();
        DdrStatus {
            state,
            address: face.map(|endpoint| endpoint.url()),
            transport: face.map(|endpoint| endpoint.transport.as_str()),
            age: designation.since().map(|since| now.saturating_duration_since(since)),
            reason: designation.why().map(|why| why.to_string()),
        }
    }
}

/// Totals of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerStatus {
    /// Queries from clients.
    pub queries: u64,
    /// Messages that are no valid query.
    pub malformed: u64,
    /// Queries of clients that the access list does not name, and their connections over QUIC, which are refused at once.
    pub refused: u64,
    /// Queries that joined an identical one in flight.
    pub coalesced: u64,
    /// Queries beyond `max_in_flight`.
    pub overloaded: u64,
    /// Queries answered SERVFAIL because no upstream answered.
    pub failed: u64,
    /// Datagrams from upstreams dropped because nobody asked or the question differed.
    pub wrong_answers: u64,
    /// Failures this machine is to blame for.
    pub local_errors: u64,
    /// TCP clients turned away at a limit, or because a proxy did not say whose connection it is.
    pub tcp_rejected: u64,
    /// Queries beyond `rate_limit` of their client.
    pub rate_limited: u64,
    /// Queries beyond `max_in_flight_per_client` of their client.
    pub client_limited: u64,
    /// Connections of clients open now, over TCP and over QUIC.
    pub tcp_clients: usize,
    /// Queries answered from the cache, stale answers not included.
    pub cache_hits: u64,
    /// Queries that could have been in the cache and were not.
    pub cache_misses: u64,
    /// Queries answered with an answer past its end, because upstreams failed.
    pub cache_stale: u64,
    /// Answers asked for again before their end.
    pub cache_prefetches: u64,
    /// Queries answered from names that are answered here: records, hosts files, special names, the AAAA filter.
    pub local_answers: u64,
    /// Queries that the query log does not tell of, because its queue or its disk was full.
    pub query_log_dropped: u64,
    /// Second tries that the `hedged` strategy made.
    pub hedges_sent: u64,
    /// Those whose upstream gave the answer.
    pub hedges_won: u64,
    /// Second tries that were due and not made, because the budget was used up.
    pub hedges_denied: u64,
    /// Times that the network changed, or the machine slept, and everything was given up.
    pub network_changes: u64,
    /// Answers in the cache.
    pub cache_entries: usize,
    /// Memory of the answers in the cache, in bytes.
    pub cache_bytes: usize,
}

impl Server {
    /// One row an upstream and transport, in the order of the config.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.shared.pools()
    }

    /// Totals since the start.
    pub fn status(&self) -> ServerStatus {
        let counters = &self.shared.counters;
        let setup = self.shared.setup();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        ServerStatus {
            queries: read(&counters.queries),
            malformed: read(&counters.malformed),
            refused: read(&counters.refused),
            coalesced: read(&counters.coalesced),
            overloaded: read(&counters.overloaded),
            failed: read(&counters.failed),
            wrong_answers: read(&counters.wrong_answers),
            local_errors: read(&counters.local_errors),
            tcp_rejected: read(&counters.tcp_rejected),
            rate_limited: read(&counters.rate_limited),
            client_limited: read(&counters.client_limited),
            tcp_clients: setup.access.open(),
            cache_hits: read(&counters.cache_hits),
            cache_misses: read(&counters.cache_misses),
            cache_stale: read(&counters.cache_stale),
            cache_prefetches: read(&counters.cache_prefetches),
            local_answers: read(&counters.local_answers),
            query_log_dropped: read(&setup.unlogged),
            hedges_sent: read(&counters.hedges_sent),
            hedges_won: read(&counters.hedges_won),
            hedges_denied: read(&counters.hedges_denied),
            network_changes: read(&counters.network_changes),
            cache_entries: setup.cache.as_deref().map_or(0, Cache::len),
            cache_bytes: setup.cache.as_deref().map_or(0, Cache::bytes),
        }
    }
}

impl Shared {
    fn pools(&self) -> Vec<PoolStatus> {
        let mut rows = Vec::new();
        let hosts: Vec<_> = self.pools.all().flat_map(keepwarm_pool::Pool::host_stats).collect();
        let setup = self.setup();
        let max = (self.pools.streams.limits().max_per_host, self.pools.datagrams.limits().max_per_host);
        let upstreams = setup.upstreams.iter().zip(&setup.config.upstreams);
        let endpoints = upstreams.flat_map(|upstream| upstream.0.endpoints().map(move |it| (upstream, it)));
        for ((upstream, config), endpoint) in endpoints {
            let mut row = row(endpoint);
            row.max = if endpoint.transport == Transport::Udp { max.1 } else { max.0 };
            row.group = config.group.to_string();
            row.weight = config.weight;
            if std::sync::Arc::ptr_eq(endpoint, &upstream.main) {
                row.ddr = upstream.ddr.as_deref().map(DdrStatus::of);
            }
            let (mut acquires, mut reused) = (0, 0);
            for (_, stats) in hosts.iter().filter(|(key, _)| std::sync::Arc::ptr_eq(&key.endpoint, endpoint)) {
                let (gauges, counters) = (&stats.gauges, &stats.counters);
                row.open += gauges.open + gauges.dialing;
                row.idle += gauges.idle;
                row.in_use += gauges.in_use;
                row.in_flight += gauges.in_flight;
                row.dialing += gauges.dialing;
                row.waiting += gauges.waiting;
                row.hits += counters.hits + counters.shared_hits;
                row.misses += counters.misses;
                row.opened += counters.opened;
                row.reuse_failures += counters.reuse_failures;
                acquires += counters.acquires;
                reused += counters.reused;
                add(&mut row.closed, CloseReason::ALL.iter().map(|reason| (reason.as_str(), counters.closed(*reason))));
                add(&mut row.dial_errors, counters.dial_errors().iter().copied());
                if stats.idle_limit < setup.config.pool.idle_timeout {
                    row.idle_limit = Some(row.idle_limit.map_or(stats.idle_limit, |limit| limit.min(stats.idle_limit)));
                }
            }
            row.reuse_ratio = (acquires > 0).then(|| reused as f64 / acquires as f64);
            rows.push(row);
        }
        rows
    }
}

fn row(endpoint: &Endpoint) -> PoolStatus {
    let counters = &endpoint.counters;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let time = |counter| Some(read(counter)).filter(|micros| *micros > 0).map(Duration::from_micros);
    PoolStatus {
        name: endpoint.name.to_string(),
        transport: endpoint.transport.as_str(),
        address: endpoint.url(),
        handshakes_full: read(&counters.handshakes_full),
        handshakes_resumed: read(&counters.handshakes_resumed),
        ech: endpoint.tls.as_ref().map(|_| endpoint.ech.status()),
        breaker: endpoint.breaker(),
        latency: time(&counters.latency),
        latencies: endpoint.latencies.read(),
        p50: time(&counters.p50),
        p95: time(&counters.p95),
        queries: read(&counters.queries),
        answers: read(&counters.answers),
        failures: read(&counters.failures),
        local_errors: read(&counters.local_errors),
        wrong_answers: read(&counters.wrong_answers),
        resends: read(&counters.resends),
        cookie_errors: read(&counters.cookie_errors),
        cookies: endpoint.cookies.then(|| endpoint.habits.jar.speaks()),
        keeps_case: (endpoint.case_randomization && endpoint.transport == Transport::Udp)
            .then(|| endpoint.habits.keeps_case(Clock::now().into_std())),
        ..PoolStatus::default()
    }
}

fn add(into: &mut Vec<(&'static str, u64)>, from: impl Iterator<Item = (&'static str, u64)>) {
    for (name, count) in from.filter(|(_, count)| *count > 0) {
        match into.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += count,
            None => into.push((name, count)),
        }
    }
}
