//! Series come and go.

use super::*;

fn sample(upstreams: Vec<UpstreamRow>) -> Sample {
    Sample {
        at: tokio::time::Instant::now(),
        status: crate::rows::StatusRow::default(),
        named: Vec::new(),
        pools: Vec::new(),
        upstreams,
    }
}

fn upstream(address: &str, requests: u64) -> UpstreamRow {
    UpstreamRow { name: "quad9".into(), address: address.into(), requests, ..UpstreamRow::default() }
}

fn requests(history: &History) -> Vec<Vec<u64>> {
    history.row().unwrap().upstreams.into_iter().map(|series| series.requests).collect()
}

#[tokio::test]
async fn an_upstream_with_two_addresses_has_two_series() {
    let history = History::new(Duration::from_secs(40));
    for at in 1..=2 {
        history.step(&sample(vec![upstream("192.0.2.1:853", at), upstream("192.0.2.2:853", 10 * at)]), &[]);
    }
    assert_eq!(requests(&history), [[1, 1], [10, 10]]);
    let addresses: Vec<String> = history.row().unwrap().upstreams.into_iter().map(|series| series.address).collect();
    assert_eq!(addresses, ["192.0.2.1:853", "192.0.2.2:853"], "they can be told apart");
    assert_eq!(history.latencies(&upstream("192.0.2.2:853", 0), 1), [0.0]);
}

#[tokio::test]
async fn what_was_away_does_not_come_back_with_its_lifetime_in_one_step() {
    let history = History::new(Duration::from_secs(40));
    history.step(&sample(vec![upstream("a", 100)]), &[]);
    (0..4).for_each(|_| history.step(&sample(Vec::new()), &[]));
    assert!(requests(&history).is_empty(), "nothing of it is left");
    history.step(&sample(vec![upstream("a", 150)]), &[]);
    history.step(&sample(vec![upstream("a", 153)]), &[]);
    assert_eq!(requests(&history), [[0, 0, 0, 3]]);
    history.step(&sample(vec![upstream("a", 2)]), &[]);
    assert_eq!(requests(&history), [[0, 0, 3, 2]], "it began anew");
    (0..9).for_each(|_| history.step(&sample(vec![upstream("a", 2)]), &[]));
    assert_eq!(requests(&history), [[0; 4]], "an idle one stays");
}

#[tokio::test]
async fn what_a_pool_had_between_the_ends_of_steps_is_not_lost() {
    let history = History::new(Duration::from_secs(40));
    let look = |state, in_use, waiting| {
        let gauges = GaugesRow { open: in_use + 1, in_use, waiting, ..GaugesRow::default() };
        let mut seen = sample(Vec::new());
        seen.pools = vec![crate::rows::PoolRow { name: "dns".into(), state, gauges, ..Default::default() }];
        history.look(&seen);
    };
    let step = || history.inner.lock().step_pools(vec![("dns", Stats::default())]);
    let points = || history.pools(9).pop().unwrap();
    look(PoolState::Ok, 1, 0);
    look(PoolState::Full, 4, 9);
    look(PoolState::Idle, 0, 0);
    step();
    let PoolSeries { open, in_use, waiting, full, .. } = points();
    assert_eq!(
        (open, in_use, waiting, full),
        (vec![5], vec![4], vec![9], vec![1]),
        "it was full, and so it was in use"
    );
    history.inner.lock().steps = 1;
    look(PoolState::Ok, 2, 0);
    step();
    assert_eq!((points().in_use, points().full), (vec![4, 2], vec![1, 0]), "each step begins anew");
}

#[tokio::test]
async fn pools_that_are_gone_go_and_the_rest_is_bounded() {
    let history = History::new(Duration::from_secs(20));
    let step = |pools: &[(&str, u64)]| {
        let mut inner = history.inner.lock();
        let stats = |acquires| {
            let mut stats = Stats::default();
            stats.counters.acquires = acquires;
            stats
        };
        inner.step_pools(pools.iter().map(|(name, acquires)| (*name, stats(*acquires))).collect());
        let steps = inner.steps + 1;
        inner.steps = steps.min(2);
        inner.trim(steps, 2);
    };
    step(&[("dns", 5)]);
    step(&[("dns", 6), ("https", 3)]);
    let acquires =
        |name: &str| history.inner.lock().pools[name].points.iter().map(|point| point.acquires).collect::<Vec<_>>();
    assert_eq!((acquires("dns"), acquires("https")), (vec![5, 1], vec![0, 3]), "one that is new counts from its start");
    (0..3).for_each(|_| step(&[("dns", 6)]));
    assert_eq!(history.inner.lock().pools.len(), 1, "https is gone");
    let names: Vec<String> = (0..=SERIES_MAX).map(|at| format!("p{at:02}")).collect();
    let many: Vec<(&str, u64)> = names.iter().map(|name| (&**name, 7)).collect();
    step(&many);
    let mut full = sample(Vec::new());
    full.pools = vec![crate::rows::PoolRow { name: "x".into(), state: PoolState::Full, ..Default::default() }];
    history.look(&full);
    assert_eq!(history.inner.lock().pools.len(), SERIES_MAX);
    let last = &names[SERIES_MAX..];
    (0..4).for_each(|_| step(&[(&last[0], 7)]));
    assert_eq!(acquires(&last[0]), [0, 0], "what it did before it had a series belongs to no step");
}
