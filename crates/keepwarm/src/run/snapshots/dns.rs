//! The upstreams of DNS as the status endpoint shows them.

use std::collections::BTreeMap;

use keepwarm_control::rows::{BreakerState, DdrRow, DnsUpstreamRow};
use keepwarm_dns::server::PoolStatus;

/// One upstream over one transport.
pub(super) fn row(pool: PoolStatus) -> DnsUpstreamRow {
    DnsUpstreamRow {
        upstream: pool.name,
        group: pool.group,
        weight: pool.weight,
        transport: pool.transport.into(),
        address: pool.address.split_once("://").map_or(pool.address.clone(), |(_, rest)| rest.to_owned()),
        open: pool.open as u64,
        max: pool.max as u64,
        idle: pool.idle as u64,
        in_use: pool.in_use as u64,
        in_flight: pool.in_flight as u64,
        dialing: pool.dialing as u64,
        waiting: pool.waiting as u64,
        hits: pool.hits,
        misses: pool.misses,
        reuse_ratio: pool.reuse_ratio,
        handshakes_full: pool.handshakes_full,
        handshakes_resumed: pool.handshakes_resumed,
        ech: pool.ech.map(str::to_owned),
        ddr: pool.ddr.map(|ddr| DdrRow {
            state: ddr.state.into(),
            address: ddr.address,
            transport: ddr.transport.map(str::to_owned),
            age: ddr.age,
            reason: ddr.reason,
        }),
        cookies: pool.cookies.map(str::to_owned),
        cookie_errors: pool.cookie_errors,
        keeps_case: pool.keeps_case,
        queries: pool.queries,
        answers: pool.answers,
        failures: pool.failures,
        local_errors: pool.local_errors,
        wrong_answers: pool.wrong_answers,
        resends: pool.resends,
        opened: pool.opened,
        reuse_failures: pool.reuse_failures,
        closed: counts(pool.closed),
        dial_errors: counts(pool.dial_errors),
        breaker: match pool.breaker {
            "open" => BreakerState::Open,
            "half-open" => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        },
        latency_p50: pool.p50.or(pool.latency),
        latency_p95: pool.p95,
        idle_limit: pool.idle_limit,
    }
}

fn counts(counts: Vec<(&str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}
