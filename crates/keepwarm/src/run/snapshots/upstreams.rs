//! Upstreams of every job in one form.

use std::collections::BTreeMap;

use keepwarm_control::{
    https::OriginRow,
    rows::{BreakerState, DnsUpstreamRow, Health, Job, UpstreamRow},
    tunnel::TunnelUpstreamRow,
};
use keepwarm_dns::server::PoolStatus;
use keepwarm_pool::Histogram;

/// An upstream of DNS over one transport.
pub(super) fn dns(mut pool: PoolStatus) -> UpstreamRow {
    let latency = std::mem::take(&mut pool.latencies);
    UpstreamRow { latency: Some(latency), ..of_dns(&super::dns::row(pool)) }
}

fn of_dns(row: &DnsUpstreamRow) -> UpstreamRow {
    let health = health(row.breaker, row.answers, row.failures);
    let why = row.dial_errors.iter().filter(|(_, count)| **count > 0).max_by_key(|(_, count)| **count);
    let asked = (row.queries > 0).then(|| format!("{} failures in {} queries", row.failures, row.queries));
    let dials = why.map(|(kind, count)| format!("{count} dials failed, by {kind}"));
    let why = [dials, asked].into_iter().flatten().collect::<Vec<_>>().join("; ");
    UpstreamRow {
        job: Job::Dns,
        name: row.upstream.clone(),
        transport: row.transport.clone(),
        address: row.address.clone(),
        group: Some(row.group.clone()),
        pool: Some(if row.transport == "udp" { "dns.udp" } else { "dns" }.to_owned()),
        health,
        reason: reason(health, || why),
        breaker: row.breaker,
        open: row.open,
        in_use: row.in_use,
        requests: row.queries,
        failures: row.failures,
        local_errors: row.local_errors,
        handshakes: row.handshakes_full,
        handshakes_resumed: row.handshakes_resumed,
        latency_p50: row.latency_p50,
        latency_p95: row.latency_p95,
        idle_limit: row.idle_limit,
        figures: figures([
            ("wrong_answers", row.wrong_answers),
            ("resends", row.resends),
            ("reuse_failures", row.reuse_failures),
            ("cookie_errors", row.cookie_errors),
        ]),
        ..UpstreamRow::default()
    }
}

/// An origin of hot HTTPS.
pub(super) fn https(row: &OriginRow, latency: Histogram) -> UpstreamRow {
    let (addresses, requests) = (&row.addresses, &row.requests);
    let usable = addresses.validated + addresses.candidate + addresses.probing;
    let bad = addresses.quarantined + addresses.resting + addresses.banned;
    let health = match (usable, bad) {
        (0, 0) => Health::Unknown,
        (0, _) => Health::Down,
        _ if requests.answered + requests.failed == 0 => Health::Unknown,
        (_, 0) => Health::Up,
        (_, bad) if bad > usable => Health::Degraded,
        _ => Health::Up,
    };
    let why = format!(
        "{} addresses in quarantine, {} resting, {} banned, {usable} usable",
        addresses.quarantined, addresses.resting, addresses.banned
    );
    UpstreamRow {
        job: Job::Https,
        name: row.origin.clone(),
        transport: "https".into(),
        address: row.origin.clone(),
        pool: Some("https".into()),
        configured: row.configured,
        health,
        reason: reason(health, || why),
        breaker: if health == Health::Down { BreakerState::Open } else { BreakerState::Closed },
        open: row.open,
        in_use: row.in_use,
        requests: requests.came,
        failures: requests.failed,
        latency_p50: (latency.count() > 0).then(|| latency.quantile(0.5)),
        latency_p95: (latency.count() > 0).then(|| latency.quantile(0.95)),
        latency: Some(latency),
        figures: figures([
            ("addresses_validated", addresses.validated),
            ("addresses_candidate", addresses.candidate),
            ("addresses_quarantined", addresses.quarantined),
            ("addresses_banned", addresses.banned),
            ("retried", requests.retried),
            ("reused", requests.reused),
        ]),
        ..UpstreamRow::default()
    }
}

/// An upstream of tunnels.
pub(super) fn tunnel(row: &TunnelUpstreamRow, ready: Histogram) -> UpstreamRow {
    let health = match row.breaker {
        BreakerState::Closed if row.failures_in_a_row > 0 => Health::Degraded,
        breaker => health(breaker, row.tunnels, 0),
    };
    let why = match (&row.last_failure, row.last_failure_ago) {
        (Some(why), Some(ago)) => format!("{why} ({ago:.0?} ago)"),
        (Some(why), None) => why.clone(),
        (None, _) => format!("{} failures in a row", row.failures_in_a_row),
    };
    let (transport, address) = row.address.split_once("://").unwrap_or(("direct", &row.address));
    let spares = row.spares.clone().unwrap_or_default();
    UpstreamRow {
        job: Job::Tunnel,
        name: row.name.clone(),
        transport: transport.to_owned(),
        address: address.to_owned(),
        group: Some(row.group.clone()),
        pool: row.spares.is_some().then(|| format!("tunnel.{}", row.name)),
        health,
        reason: reason(health, || why),
        breaker: row.breaker,
        retry_in: row.retry_in,
        open: spares.idle,
        in_use: row.live,
        requests: row.tunnels + row.failed + row.refused,
        failures: row.failed,
        handshakes: spares.opened,
        latency_p50: row.ready.p50,
        latency_p95: (ready.count() > 0).then(|| ready.quantile(0.95)),
        latency: Some(ready),
        idle_limit: row.spares.is_some().then_some(spares.age_limit),
        figures: figures([
            ("spares_idle", spares.idle),
            ("spares_target", spares.target),
            ("hits", row.hits),
            ("misses", row.misses),
            ("retries", row.retries),
            ("hedged", row.hedged),
            ("refused", row.refused),
            ("sent", row.sent),
            ("received", row.received),
        ]),
        ..UpstreamRow::default()
    }
}

fn health(breaker: BreakerState, answers: u64, failures: u64) -> Health {
    match breaker {
        BreakerState::Open | BreakerState::HalfOpen => Health::Down,
        BreakerState::Closed if answers == 0 && failures == 0 => Health::Unknown,
        BreakerState::Closed if answers == 0 => Health::Degraded,
        BreakerState::Closed => Health::Up,
    }
}

fn reason(health: Health, why: impl FnOnce() -> String) -> Option<String> {
    matches!(health, Health::Degraded | Health::Down).then(why)
}

fn figures<const N: usize>(figures: [(&str, u64); N]) -> BTreeMap<String, u64> {
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
}
