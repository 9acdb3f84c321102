//! The upstreams of every job that the config names. Origins that only `any_host` brought have no series: how many there are is up to
//! clients, and their sums are in the counters of hot HTTPS.
//!
//! The job is the label `service`: `job` is Prometheus' own word for what it scrapes, and would be renamed on the way in.

use std::collections::{BTreeMap, BTreeSet};

use keepwarm_pool::Histogram;

use super::{Family, Value, buckets::Bounds};
use crate::{
    rows::{BreakerState, Health, Job, UpstreamRow},
    snapshots::Snapshots,
};

pub(super) fn families(snapshots: &dyn Snapshots, rows: &[UpstreamRow]) -> Vec<Family> {
    let configured: BTreeSet<String> = snapshots
        .https()
        .map(|https| https.status().origins)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|origin| origin.configured.then_some(origin.origin))
        .collect();
    let named = rows.iter().filter(|row| row.job != Job::Https || configured.contains(&row.name));
    written(&merged(named))
}

/// The figures of upstreams that have no metric: a mistake, which a daemon's tests look for.
pub fn unknown_figures(rows: &[UpstreamRow]) -> Vec<&str> {
    let known = |name: &str| name.starts_with(ADDRESSES) || FIGURES.iter().any(|(known, ..)| *known == name);
    let names: BTreeSet<&str> = rows.iter().flat_map(|row| row.figures.keys().map(String::as_str)).collect();
    names.into_iter().filter(|name| !known(name)).collect()
}

/// Figures of an upstream over one transport.
#[derive(Default)]
struct Look<'a> {
    up: bool,
    breaker: u64,
    open: u64,
    in_use: u64,
    requests: u64,
    failures: u64,
    local_errors: u64,
    full: u64,
    resumed: u64,
    idle_limit: Option<f64>,
    latency: Option<Histogram>,
    figures: BTreeMap<&'a str, u64>,
}

type Key<'a> = (Job, &'a str, &'a str);

/// One look a name and transport: two rows that are told apart by their address alone (an origin on two ports) are one series.
fn merged<'a>(rows: impl Iterator<Item = &'a UpstreamRow>) -> BTreeMap<Key<'a>, Look<'a>> {
    let mut looks: BTreeMap<Key<'a>, Look<'a>> = BTreeMap::new();
    for row in rows {
        let look =
            looks.entry((row.job, &row.name, &row.transport)).or_insert_with(|| Look { up: true, ..Look::default() });
        look.up &= row.health != Health::Down;
        look.breaker = look.breaker.max(number(row.breaker));
        look.open += row.open;
        look.in_use += row.in_use;
        look.requests += row.requests;
        look.failures += row.failures;
        look.local_errors += row.local_errors;
        look.full += row.handshakes;
        look.resumed += row.handshakes_resumed;
        let limit = row.idle_limit.map(|limit| limit.as_secs_f64());
        look.idle_limit = limit.into_iter().chain(look.idle_limit).reduce(f64::min);
        if let Some(latency) = &row.latency {
            look.latency.get_or_insert_default().merge(latency);
        }
        for (name, figure) in &row.figures {
            *look.figures.entry(name).or_default() += figure;
        }
    }
    looks
}

fn written(looks: &BTreeMap<Key<'_>, Look<'_>>) -> Vec<Family> {
    let each = |mut family: Family, value: fn(&Look<'_>) -> Option<Value>| {
        for ((job, name, transport), look) in looks {
            if let Some(value) = value(look) {
                family.push([("service", job.as_str()), ("upstream", name), ("transport", transport)], value);
            }
        }
        family
    };
    let mut handshakes = Family::counter(
        "keepwarm_upstream_handshakes_total",
        "TLS handshakes, in full or resumed; of a tunnel's upstream the connections to it, as full.",
    );
    let mut addresses = Family::gauge("keepwarm_upstream_addresses", "Addresses of an origin, by state.");
    let mut figures: Vec<Family> = FIGURES.iter().map(|(_, new, name, help)| new(name, help)).collect();
    for ((job, name, transport), look) in looks {
        let labels = [("service", job.as_str()), ("upstream", *name), ("transport", *transport)];
        let [service, upstream, transport] = labels;
        handshakes.push([service, upstream, transport, ("kind", "full")], look.full);
        handshakes.push([service, upstream, transport, ("kind", "resumed")], look.resumed);
        for (figure, count) in &look.figures {
            if let Some(state) = figure.strip_prefix(ADDRESSES) {
                addresses.push([service, upstream, transport, ("state", state)], *count);
            } else if let Some(at) = FIGURES.iter().position(|(known, ..)| known == figure) {
                figures[at].push(labels, *count);
            }
        }
    }
    let mut all = vec![
        each(
            Family::gauge(
                "keepwarm_upstream_up",
                "0 while the upstream is down; 1 also before anything was asked of it.",
            ),
            |look| Some(look.up.into()),
        ),
        each(Family::gauge("keepwarm_upstream_breaker_state", "The breaker: 0 closed, 1 half-open, 2 open."), |look| {
            Some(look.breaker.into())
        }),
        each(Family::gauge("keepwarm_upstream_connections", "Connections that are open."), |look| {
            Some(look.open.into())
        }),
        each(Family::gauge("keepwarm_upstream_connections_in_use", "Connections that are in use."), |look| {
            Some(look.in_use.into())
        }),
        each(
            Family::gauge("keepwarm_upstream_idle_limit_seconds", "The idle limit that the upstream was seen to keep."),
            |look| look.idle_limit.map(Value::from),
        ),
        each(Family::counter("keepwarm_upstream_requests_total", "Requests that the upstream was asked."), |look| {
            Some(look.requests.into())
        }),
        each(
            Family::counter(
                "keepwarm_upstream_failures_total",
                "Requests that failed and the upstream is to blame for.",
            ),
            |look| Some(look.failures.into()),
        ),
        each(
            Family::counter(
                "keepwarm_upstream_local_errors_total",
                "Requests that failed and this machine is to blame for.",
            ),
            |look| Some(look.local_errors.into()),
        ),
        each(
            Family::histogram("keepwarm_upstream_latency_seconds", "From a request's departure to its answer."),
            |look| look.latency.as_ref().map(|latency| (latency, Bounds::Latency).into()),
        ),
        handshakes,
        addresses,
    ];
    all.extend(figures);
    all
}

fn number(breaker: BreakerState) -> u64 {
    match breaker {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

type Figure = (&'static str, fn(&'static str, &'static str) -> Family, &'static str, &'static str);

/// What the figures of addresses begin with; the rest is their state.
const ADDRESSES: &str = "addresses_";

/// What only a job knows of its upstreams ([`UpstreamRow::figures`]), and its metric. Addresses are by state; others have none.
const FIGURES: [Figure; 15] = [
    ("wrong_answers", Family::counter, "keepwarm_upstream_wrong_answers_total", "Answers that nobody had asked for."),
    ("resends", Family::counter, "keepwarm_upstream_resends_total", "Queries sent once more."),
    ("reuse_failures", Family::counter, "keepwarm_upstream_reuse_failures_total", "Connections whose reuse failed."),
    ("cookie_errors", Family::counter, "keepwarm_upstream_cookie_errors_total", "Answers refused for their cookie."),
    ("retried", Family::counter, "keepwarm_upstream_retries_total", "Tries beyond the first of a request."),
    ("reused", Family::counter, "keepwarm_upstream_reused_total", "Requests over a connection that had served before."),
    ("spares_idle", Family::gauge, "keepwarm_upstream_spares", "Spares that are ready."),
    ("spares_target", Family::gauge, "keepwarm_upstream_spares_target", "Spares that are to be kept at the moment."),
    ("hits", Family::counter, "keepwarm_upstream_spare_hits_total", "Tunnels that found a spare."),
    ("misses", Family::counter, "keepwarm_upstream_spare_misses_total", "Tunnels that waited for a connection."),
    ("hedged", Family::counter, "keepwarm_upstream_hedged_total", "Spares that were silent and got company."),
    (
        "refused",
        Family::counter,
        "keepwarm_upstream_refused_total",
        "Destinations, or rules of the proxy, that said no.",
    ),
    ("retries", Family::counter, "keepwarm_upstream_dead_spares_total", "Spares that were dead when they were used."),
    (
        "sent",
        Family::counter,
        "keepwarm_upstream_sent_bytes_total",
        "Bytes to destinations, of tunnels that have ended.",
    ),
    (
        "received",
        Family::counter,
        "keepwarm_upstream_received_bytes_total",
        "Bytes from destinations, of tunnels that have ended.",
    ),
];
