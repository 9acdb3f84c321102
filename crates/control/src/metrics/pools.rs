//! The pools, each by its name in the config.

use std::collections::BTreeSet;

use keepwarm_pool::{AcquireErrorKind, CloseReason, Limits, NamedPool, Phase, Stats};

use super::{Family, buckets::Bounds};

pub(super) fn families(pools: &[NamedPool]) -> Vec<Family> {
    // Two series of the same name would make a scrape void.
    let mut seen = BTreeSet::new();
    let pools: Vec<Look<'_>> = pools.iter().filter(|pool| seen.insert(&pool.name)).map(Look::new).collect();
    let mut all = gauges(&pools);
    all.extend(counters(&pools));
    all.extend(times(&pools));
    all
}

/// A pool in one look, so that its figures agree with each other.
struct Look<'a> {
    name: &'a str,
    stats: Stats,
    limits: Limits,
}

impl Look<'_> {
    fn new(named: &NamedPool) -> Look<'_> {
        Look { name: &named.name, stats: named.pool.stats(), limits: named.pool.limits() }
    }
}

fn gauges(pools: &[Look<'_>]) -> Vec<Family> {
    let mut connections = Family::gauge(
        "keepwarm_pool_connections",
        "Connections by state; one that is in use and draining is draining, one that is being dialled is not open yet.",
    );
    let mut limits =
        Family::gauge("keepwarm_pool_limit", "What the pool may hold, by the name of the limit in the config.");
    for pool in pools {
        let gauges = &pool.stats.gauges;
        // The pool counts a draining connection as in use, too, since it has a lease: here each has one state.
        let states = [
            ("idle", gauges.idle),
            ("in_use", gauges.in_use.saturating_sub(gauges.draining)),
            ("validating", gauges.validating),
            ("draining", gauges.draining),
            ("dialing", gauges.dialing),
        ];
        for (state, count) in states {
            connections.push([("pool", pool.name), ("state", state)], count);
        }
        for (limit, most) in most(&pool.limits) {
            limits.push([("pool", pool.name), ("limit", limit)], most);
        }
    }
    let is_paused = |pool: &Look<'_>| pool.stats.hosts > 0 && pool.stats.paused == pool.stats.hosts;
    vec![
        connections,
        limits,
        each(
            pools,
            Family::gauge(
                "keepwarm_pool_in_flight",
                "Leases that are out; more than connections where these are shared.",
            ),
            |pool| pool.stats.gauges.in_flight,
        ),
        each(pools, Family::gauge("keepwarm_pool_waiters", "Acquires that wait."), |pool| pool.stats.gauges.waiting),
        each(
            pools,
            Family::gauge("keepwarm_pool_oldest_wait_seconds", "How long the oldest waiter has waited."),
            |pool| pool.stats.gauges.oldest_wait.as_secs_f64(),
        ),
        each(pools, Family::gauge("keepwarm_pool_hosts", "Hosts that are known."), |pool| pool.stats.hosts),
        each(
            pools,
            Family::gauge(
                "keepwarm_pool_hosts_full",
                "Hosts at which somebody waits and no connection may be opened: a limit is the bottleneck.",
            ),
            |pool| pool.stats.full,
        ),
        each(pools, Family::gauge("keepwarm_pool_hosts_unhealthy", "Hosts whose dials fail in a row."), |pool| {
            pool.stats.unhealthy
        }),
        each(pools, Family::gauge("keepwarm_pool_paused", "1 while every host of the pool is paused."), is_paused),
    ]
}

fn counters(pools: &[Look<'_>]) -> Vec<Family> {
    let mut acquires = Family::counter(
        "keepwarm_pool_acquires_total",
        "Acquires that have ended, by result; with those that wait they are all that there were.",
    );
    let mut errors = Family::counter("keepwarm_pool_acquire_errors_total", "Acquires that failed, by kind.");
    let mut timeouts =
        Family::counter("keepwarm_pool_acquire_timeouts_total", "Acquires that timed out, by what they waited for.");
    let mut closed = Family::counter("keepwarm_pool_closed_total", "Connections that ended, by reason.");
    let mut dial_errors = Family::counter("keepwarm_pool_dial_errors_total", "Dials that failed, by kind of error.");
    for pool in pools {
        let counters = &pool.stats.counters;
        let results = [
            ("hit", counters.hits),
            ("shared_hit", counters.shared_hits),
            ("waited", counters.waited),
            ("timeout", counters.timeouts_total()),
            ("cancelled", counters.cancelled),
            ("error", counters.errors_total()),
        ];
        for (result, count) in results {
            acquires.push([("pool", pool.name), ("result", result)], count);
        }
        for (kind, count) in counters.errors().filter(|(kind, _)| *kind != AcquireErrorKind::Timeout) {
            errors.push([("pool", pool.name), ("kind", kind.as_str())], count);
        }
        for phase in Phase::ALL {
            timeouts.push([("pool", pool.name), ("phase", phase.as_str())], counters.timeouts(phase));
        }
        for reason in CloseReason::ALL {
            closed.push([("pool", pool.name), ("reason", reason.as_str())], counters.closed(reason));
        }
        for (kind, count) in counters.dial_errors() {
            dial_errors.push([("pool", pool.name), ("kind", kind)], *count);
        }
    }
    let mut all = vec![acquires, errors, timeouts, closed, dial_errors];
    all.extend(COUNTERS.iter().map(|(name, help, count)| each(pools, Family::counter(name, help), count)));
    all
}

fn times(pools: &[Look<'_>]) -> Vec<Family> {
    let mut dial = Family::histogram(
        "keepwarm_pool_connect_duration_seconds",
        "Successful dials by phase; `total` is each as a whole, the others are those of its parts that it came to.",
    );
    for pool in pools {
        dial.push([("pool", pool.name), ("phase", "total")], (&pool.stats.dial, Bounds::Latency));
        for (phase, times) in pool.stats.dial_phases.iter() {
            dial.push([("pool", pool.name), ("phase", phase.as_str())], (times, Bounds::Latency));
        }
    }
    vec![
        dial,
        each(
            pools,
            Family::histogram("keepwarm_pool_wait_duration_seconds", "Waits of acquires that were not served at once."),
            |pool| (&pool.stats.wait, Bounds::Latency),
        ),
        each(pools, Family::histogram("keepwarm_pool_lease_duration_seconds", "How long leases were held."), |pool| {
            (&pool.stats.lease, Bounds::Age)
        }),
        each(
            pools,
            Family::histogram("keepwarm_pool_idle_age_seconds", "How long connections had been idle when leased."),
            |pool| (&pool.stats.idle_age, Bounds::Age),
        ),
    ]
}

/// A family with one value a pool.
fn each<'a, V: Into<super::Value>>(
    pools: &'a [Look<'_>],
    mut family: Family,
    value: impl Fn(&'a Look<'_>) -> V,
) -> Family {
    for pool in pools {
        family.push([("pool", pool.name)], value(pool));
    }
    family
}

fn most(limits: &Limits) -> [(&'static str, u64); 9] {
    [
        ("max_total", limits.max_total as u64),
        ("max_per_host", limits.max_per_host as u64),
        ("max_idle", limits.max_idle as u64),
        ("max_idle_per_host", limits.max_idle_per_host as u64),
        ("min_idle", limits.min_idle as u64),
        ("max_in_flight", limits.max_in_flight.into()),
        ("max_waiters", limits.max_waiters as u64),
        ("max_dials_per_host", limits.max_dials_per_host as u64),
        ("max_dials", limits.max_dials as u64),
    ]
}

type Counter = (&'static str, &'static str, fn(&Look<'_>) -> u64);

/// Counters with no label but the pool.
const COUNTERS: [Counter; 10] = [
    ("keepwarm_pool_reused_total", "Acquires served by a connection that had served before.", |pool| {
        pool.stats.counters.reused
    }),
    ("keepwarm_pool_misses_total", "Acquires that found nothing usable: they waited or failed.", |pool| {
        pool.stats.counters.misses
    }),
    (
        "keepwarm_pool_late_bound_total",
        "Waiters that a returned connection served while a dial was in flight for them.",
        |pool| pool.stats.counters.late_bound,
    ),
    ("keepwarm_pool_released_total", "Leases that came back.", |pool| pool.stats.counters.released),
    ("keepwarm_pool_dials_total", "Dials begun.", |pool| pool.stats.counters.dials),
    ("keepwarm_pool_dials_cancelled_total", "Dials given up because nobody needed them.", |pool| {
        pool.stats.counters.dials_cancelled
    }),
    ("keepwarm_pool_opened_total", "Connections opened.", |pool| pool.stats.counters.opened),
    ("keepwarm_pool_reuse_failures_total", "Reused connections that failed before any byte of a response.", |pool| {
        pool.stats.counters.reuse_failures
    }),
    ("keepwarm_pool_leaks_total", "Leases that were held for too long.", |pool| pool.stats.counters.leaks),
    ("keepwarm_pool_validations_total", "Checks of idle connections begun.", |pool| pool.stats.counters.validations),
];
