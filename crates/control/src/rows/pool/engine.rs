//! From the figures of the engine to the rows that show them.

use keepwarm_pool::{CloseReason, ConnectionView, Counters, Gauges, Histogram, HostView, Limits, NamedPool, Phase};

use super::{ConnectionRow, CountersRow, GaugesRow, HostRow, PoolRow, PoolState, ROWS_MAX, TimesRow};

impl From<&Gauges> for GaugesRow {
    fn from(gauges: &Gauges) -> GaugesRow {
        GaugesRow {
            open: gauges.open as u64,
            idle: gauges.idle as u64,
            in_use: gauges.in_use as u64,
            in_flight: gauges.in_flight as u64,
            dialing: gauges.dialing as u64,
            validating: gauges.validating as u64,
            draining: gauges.draining as u64,
            waiting: gauges.waiting as u64,
            oldest_wait: gauges.oldest_wait,
        }
    }
}

impl From<&Counters> for CountersRow {
    fn from(counters: &Counters) -> CountersRow {
        let named = |pairs: Vec<(&str, u64)>| pairs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        CountersRow {
            acquires: counters.acquires,
            hits: counters.hits,
            shared_hits: counters.shared_hits,
            misses: counters.misses,
            waited: counters.waited,
            late_bound: counters.late_bound,
            reused: counters.reused,
            cancelled: counters.cancelled,
            released: counters.released,
            dials: counters.dials,
            dials_cancelled: counters.dials_cancelled,
            backup_dials: counters.backup_dials,
            opened: counters.opened,
            validations: counters.validations,
            reuse_failures: counters.reuse_failures,
            leaks: counters.leaks,
            timeouts: named(Phase::ALL.iter().map(|phase| (phase.as_str(), counters.timeouts(*phase))).collect()),
            errors: named(counters.errors().map(|(kind, count)| (kind.as_str(), count)).collect()),
            closed: named(CloseReason::ALL.iter().map(|why| (why.as_str(), counters.closed(*why))).collect()),
            dial_errors: named(counters.dial_errors().to_vec()),
        }
    }
}

impl From<&Histogram> for TimesRow {
    fn from(histogram: &Histogram) -> TimesRow {
        let any = histogram.count() > 0;
        let quantile = |q: f64| any.then(|| histogram.quantile(q));
        TimesRow {
            count: histogram.count(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: any.then(|| histogram.max()),
        }
    }
}

impl From<&NamedPool> for PoolRow {
    fn from(named: &NamedPool) -> PoolRow {
        let (stats, limits) = (named.pool.stats(), named.pool.limits());
        let gauges = GaugesRow::from(&stats.gauges);
        PoolRow {
            name: named.name.clone(),
            state: state_of_pool(&stats, &limits),
            hosts: stats.hosts as u64,
            gauges,
            reuse_ratio: ratio(&stats.counters),
            counters: (&stats.counters).into(),
            wait: (&stats.wait).into(),
            dial: (&stats.dial).into(),
            dial_phases: stats.dial_phases.iter().map(|(phase, times)| (phase.as_str().into(), times.into())).collect(),
            lease: (&stats.lease).into(),
            idle_age: (&stats.idle_age).into(),
            limits: limits.into(),
        }
    }
}

impl HostRow {
    /// As the API shows it.
    pub fn new(view: HostView) -> HostRow {
        let HostView { name, stats, connections } = view;
        let state = match (stats.paused, stats.healthy, stats.gauges.waiting > 0) {
            (true, ..) => PoolState::Paused,
            (_, false, _) => PoolState::Failing,
            (.., true) if stats.full => PoolState::Full,
            (.., true) => PoolState::Waiting,
            _ if stats.gauges.open + stats.gauges.dialing == 0 => PoolState::Idle,
            _ => PoolState::Ok,
        };
        let mut connections: Vec<ConnectionRow> = connections.into_iter().map(Into::into).collect();
        connections.sort_by_key(|connection| connection.id);
        connections.truncate(ROWS_MAX);
        HostRow {
            name,
            state,
            gauges: (&stats.gauges).into(),
            reuse_ratio: ratio(&stats.counters),
            counters: (&stats.counters).into(),
            wait: (&stats.wait).into(),
            dial: (&stats.dial).into(),
            idle_limit: stats.idle_limit,
            connections,
        }
    }
}

impl From<ConnectionView> for ConnectionRow {
    fn from(view: ConnectionView) -> ConnectionRow {
        ConnectionRow {
            id: view.id,
            state: view.state.as_str().to_owned(),
            in_flight: view.in_flight,
            capacity: view.capacity,
            uses: view.uses,
            age: view.age,
            idle_for: view.idle_for,
        }
    }
}

fn ratio(counters: &Counters) -> Option<f64> {
    (counters.acquires > 0).then(|| counters.reuse_ratio())
}

/// Whether those who wait wait for dials alone: nothing is leased that could come back. Of a host the pool itself says so.
fn waits_for_dials(gauges: &Gauges) -> bool {
    gauges.dialing > 0 && gauges.in_use == 0
}

fn state_of_pool(stats: &keepwarm_pool::Stats, limits: &Limits) -> PoolState {
    let gauges = &stats.gauges;
    let taken = gauges.open + gauges.dialing;
    match gauges.waiting {
        _ if stats.hosts > 0 && stats.paused == stats.hosts => PoolState::Paused,
        _ if stats.hosts > 0 && stats.unhealthy == stats.hosts => PoolState::Failing,
        0 if taken == 0 => PoolState::Idle,
        0 => PoolState::Ok,
        _ if stats.full > 0 => PoolState::Full,
        _ if taken >= limits.max_total && !waits_for_dials(gauges) => PoolState::Full,
        _ => PoolState::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_whose_first_dials_take_its_only_places_is_not_full() {
        let limits = Limits { max_total: 1, ..Limits::per_host(1) };
        let state = |dialing, in_use, full| {
            let mut stats = keepwarm_pool::Stats::default();
            (stats.hosts, stats.full) = (2, full);
            stats.gauges.waiting = 3;
            (stats.gauges.dialing, stats.gauges.open, stats.gauges.in_use) = (dialing, in_use, in_use);
            state_of_pool(&stats, &limits)
        };
        assert_eq!(state(1, 0, 0), PoolState::Waiting, "there is nothing that a larger limit would give back sooner");
        assert_eq!(state(0, 1, 0), PoolState::Full, "of the whole pool");
        assert_eq!(state(1, 1, 0), PoolState::Full);
        assert_eq!(state(1, 0, 1), PoolState::Full, "a host says so");
    }
}
