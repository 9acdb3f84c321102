//! One look at everything, made at most ten times a second however many ask.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use keepwarm_pool::NamedPool;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    rows::{DaemonHealth, Health, Job, PoolRow, PoolState, StatusRow, UpstreamRow},
    snapshots::Snapshots,
};

/// One look at the daemon.
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) status: StatusRow,
    pub(crate) named: Vec<NamedPool>,
    pub(crate) pools: Vec<PoolRow>,
    pub(crate) upstreams: Vec<UpstreamRow>,
}

/// Keeps the last look for a moment, so that many who ask cost as much as a few.
#[derive(Default)]
pub(crate) struct Sampler {
    last: Mutex<Option<Arc<Sample>>>,
}

impl Sampler {
    /// The daemon now, or as it was at most [`FRESH`] ago.
    pub(crate) fn now(&self, snapshots: &dyn Snapshots) -> Arc<Sample> {
        // Held while one looks: the others wait for that rather than to look too. The data path never takes it.
        let mut last = self.last.lock();
        if let Some(sample) = last.as_ref().filter(|sample| sample.at.elapsed() < FRESH) {
            return Arc::clone(sample);
        }
        let sample = Arc::new(Sample::take(snapshots));
        *last = Some(Arc::clone(&sample));
        sample
    }

    /// Something was changed: who asks now is to see it.
    pub(crate) fn forget(&self) {
        *self.last.lock() = None;
    }
}

impl Sample {
    fn take(snapshots: &dyn Snapshots) -> Sample {
        let named = snapshots.pools();
        let pools: Vec<PoolRow> = named.iter().map(PoolRow::from).collect();
        let upstreams = snapshots.upstreams();
        let status = status(snapshots, &pools, &upstreams);
        Sample { at: Instant::now(), status, named, pools, upstreams }
    }
}

fn status(snapshots: &dyn Snapshots, pools: &[PoolRow], upstreams: &[UpstreamRow]) -> StatusRow {
    let stats = snapshots.stats();
    let config = snapshots.config_state();
    let (health, troubles) = match snapshots.is_stopping() {
        true => (DaemonHealth::Stopping, vec!["the daemon is stopping".to_owned()]),
        false => judge(pools, upstreams, config.last_error.as_deref()),
    };
    let mut jobs: Vec<Job> = upstreams.iter().map(|upstream| upstream.job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let configured = || upstreams.iter().filter(|upstream| upstream.configured);
    let sum = |figure: fn(&PoolRow) -> u64| pools.iter().map(figure).sum::<u64>();
    let (acquires, reused) = (sum(|pool| pool.counters.acquires), sum(|pool| pool.counters.reused));
    let requests: BTreeMap<String, u64> = REQUESTS
        .iter()
        .filter_map(|(name, counter)| Some(((*name).to_owned(), *stats.counters.get(*counter)?)))
        .collect();
    StatusRow {
        version: stats.version,
        uptime: stats.uptime,
        now: stats.now,
        health,
        troubles,
        jobs,
        upstreams_up: configured().filter(|upstream| upstream.health != Health::Down).count() as u64,
        upstreams: configured().count() as u64,
        connections: sum(|pool| pool.gauges.open),
        in_use: sum(|pool| pool.gauges.in_use),
        waiting: sum(|pool| pool.gauges.waiting),
        reuse_ratio: (acquires > 0).then(|| reused as f64 / acquires as f64),
        requests,
        config,
    }
}

/// How the daemon does, and what is wrong, the worst first.
fn judge(pools: &[PoolRow], upstreams: &[UpstreamRow], config: Option<&str>) -> (DaemonHealth, Vec<String>) {
    let mut health = DaemonHealth::Ok;
    let mut troubles = Vec::new();
    // A client of `any_host` may name any origin, also one that is not there: that says nothing of the daemon.
    let upstreams: Vec<&UpstreamRow> = upstreams.iter().filter(|upstream| upstream.configured).collect();
    for job in [Job::Dns, Job::Https, Job::Tunnel] {
        let mut of_job = upstreams.iter().filter(|upstream| upstream.job == job).peekable();
        if of_job.peek().is_some() && of_job.all(|upstream| upstream.health == Health::Down) {
            health = DaemonHealth::Failing;
            troubles.push(format!("{}: no upstream answers", job.as_str()));
        }
    }
    for upstream in upstreams.iter().filter(|upstream| matches!(upstream.health, Health::Down | Health::Degraded)) {
        let why = upstream.reason.as_deref().unwrap_or("no reason is known");
        let (job, name, word) = (upstream.job.as_str(), &upstream.name, upstream.health.as_str());
        troubles.push(format!("{job} upstream {name} is {word}: {why}"));
    }
    for pool in pools {
        let name = &pool.name;
        let wait = pool.gauges.oldest_wait;
        match pool.state {
            PoolState::Full => troubles.push(format!(
                "pool {name} is full: {} wait, the oldest for {wait:.1?}; raise max_per_host or max_total",
                pool.gauges.waiting
            )),
            PoolState::Failing => troubles.push(format!("pool {name} cannot connect to any host")),
            PoolState::Paused => troubles.push(format!("pool {name} is paused by an operator")),
            PoolState::Idle | PoolState::Ok | PoolState::Waiting => {}
        }
    }
    troubles.extend(config.map(|error| format!("the last reload was refused: {error}")));
    if health == DaemonHealth::Ok && !troubles.is_empty() {
        health = DaemonHealth::Degraded;
    }
    (health, troubles)
}

/// For how long a look serves.
const FRESH: Duration = Duration::from_millis(100);

/// What counts what clients asked for, by its name in the status.
const REQUESTS: [(&str, &str); 3] =
    [("queries", "queries"), ("requests", "https_requests"), ("tunnels", "tunnel_asked")];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn origins_that_clients_come_with_are_in_no_count_of_the_config() {
        let mine = UpstreamRow { health: Health::Up, ..UpstreamRow::default() };
        let came = UpstreamRow { configured: false, health: Health::Down, ..mine.clone() };
        let status = status(&crate::tests::Fake::default(), &[], &[mine, came.clone(), came]);
        assert_eq!((status.upstreams_up, status.upstreams), (1, 1));
    }

    #[test]
    fn origins_that_clients_come_with_decide_nothing() {
        let down =
            UpstreamRow { job: Job::Https, health: Health::Down, name: "a.test".into(), ..UpstreamRow::default() };
        let (health, troubles) = judge(&[], std::slice::from_ref(&down), None);
        assert_eq!((health, troubles.len()), (DaemonHealth::Failing, 2));
        let came = UpstreamRow { configured: false, ..down };
        assert_eq!(judge(&[], std::slice::from_ref(&came), None), (DaemonHealth::Ok, Vec::new()));
        let up = UpstreamRow { health: Health::Up, configured: true, ..came.clone() };
        assert_eq!(judge(&[], &[came, up], None).0, DaemonHealth::Ok);
    }
}
