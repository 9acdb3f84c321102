//! Limits across hosts, cases 45 to 53.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keepwarm_pool::{AcquireError, CloseReason, Limits};

use crate::lab::*;

fn bench(total: usize, per_host: usize) -> Bench {
    let limits = Limits { max_total: total, max_idle: total, ..Limits::per_host(per_host) };
    build(Mode::Owned, Some(1), Limits { max_total: total, max_idle: total, ..limits }, plain())
}

#[tokio::test(start_paused = true)]
async fn case_45_the_global_limit_respects_host_limits() {
    let mut bench = bench(5, 2);
    let tasks: Vec<_> = ["a", "a", "a", "b", "b", "b", "c", "c"].map(|key| bench.acquire(key)).into();
    let dials = bench.want_dials(5).await;
    let count = |key| dials.iter().filter(|dial| dial.key == key).count();
    assert_eq!((count("a"), count("b"), count("c")), (2, 2, 1));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn case_46_and_51_hosts_are_served_in_order_of_arrival_and_none_starves() {
    let mut bench = bench(1, 1);
    let mut lease = bench.dialled("a").await;
    let keys = ["b", "c", "d", "a", "b"];
    let mut tasks = Vec::new();
    for key in keys {
        tasks.push(bench.queued(key).await);
    }
    // a's waiter is served by its own connection; then each host in turn, the second of b after its first.
    drop(lease);
    lease = done(tasks.remove(3)).await;
    for expected in ["b", "c", "d"] {
        drop(lease);
        let dial = bench.want_dial().await;
        assert_eq!(dial.key, expected);
        dial.ok().await;
        lease = done(tasks.remove(0)).await;
        if expected == "b" {
            // Its own waiter goes on with it.
            drop(lease);
            lease = done(tasks.pop().expect("the second of b")).await;
        }
    }
    bench.want_open(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_idle_connection_of_another_host_gives_way() {
    let mut bench = bench(2, 1);
    drop(bench.dialled("old").await);
    pass(SECOND).await;
    drop(bench.dialled("young").await);
    let lease = bench.dialled("new").await;
    assert_eq!(bench.closed(CloseReason::Evicted), 1);
    assert_eq!(bench.pool.host(&"old").stats().gauges.open, 0);
    assert_eq!(bench.pool.host(&"young").stats().gauges.open, 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn case_48_own_idle_is_reused_rather_than_anothers_closed() {
    let mut bench = bench(2, 2);
    drop(bench.dialled("other").await);
    pass(SECOND).await;
    drop(bench.dialled("own").await);
    assert!(bench.get("own").await.reused());
    bench.want_open(2).await;
}

#[tokio::test(start_paused = true)]
async fn case_50_cancel_of_the_stalled_request() {
    let mut bench = bench(1, 1);
    let lease = bench.dialled("a").await;
    let (stalled, next) = (bench.queued("b").await, bench.queued("c").await);
    assert!(bench.pool.host(&"b").stats().stalled);
    stalled.abort();
    settle().await;
    drop(lease);
    let dial = bench.want_dial().await;
    assert_eq!(dial.key, "c");
    dial.ok().await;
    done(next).await;
    assert!(!bench.pool.host(&"b").stats().stalled);
}

#[tokio::test(start_paused = true)]
async fn case_51_a_busy_host_does_not_keep_a_stalled_one_out() {
    let mut bench = bench(1, 1);
    let mut lease = bench.dialled("a").await;
    let stalled = bench.queued("b").await;
    // While a has waiters its connection is handed on; as soon as it is idle it gives way.
    let next = bench.queued("a").await;
    drop(lease);
    lease = done(next).await;
    want_waiting(&stalled).await;
    drop(lease);
    bench.want_dial().await.ok().await;
    done(stalled).await;
}

#[tokio::test(start_paused = true)]
async fn case_53_keys_never_share() {
    let bench = instant(4);
    let keys = ["host", "host via proxy", "host as other user", "host sni", "host alpn", "host profile", "host bind"];
    for (n, key) in keys.into_iter().enumerate() {
        let lease = bench.get(key).await;
        assert!(!lease.reused() && *lease.key() == key && lease.number == n as u64 + 1);
    }
    for (n, key) in keys.into_iter().enumerate() {
        assert_eq!(bench.get(key).await.number, n as u64 + 1);
    }
    assert_eq!(bench.pool.host_stats().len(), keys.len());
}

#[tokio::test(start_paused = true)]
async fn unused_hosts_are_forgotten_and_their_figures_kept() {
    let bench = instant(2);
    for key in ["a", "b", "c"] {
        drop(bench.get(key).await);
    }
    let kept = bench.pool.host(&"c");
    pass(SECOND * 1000).await;
    let stats = bench.pool.stats();
    assert_eq!((stats.hosts, stats.counters.acquires, stats.gauges.open), (1, 3, 0));
    assert_eq!(kept.stats().counters.opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_retired_host_is_closed_and_forgotten_and_its_figures_kept() {
    let bench = instant(2);
    let (old, other) = (bench.pool.host(&"a"), bench.get("b").await);
    let number = other.number;
    drop(bench.get("a").await);
    assert_eq!((bench.pool.retire(&"a"), bench.pool.retire(&"a")), (0, 0));
    bench.want_open(1).await;
    let stats = bench.pool.stats();
    assert_eq!((stats.hosts, stats.counters.opened, stats.gauges.open), (1, 2, 1));
    assert_eq!(stats.counters.closed(CloseReason::Drained), 1);
    assert!(matches!(old.acquire().await, Err(AcquireError::Closed)), "its handles are closed");
    assert!(!bench.get("a").await.reused(), "an equal key begins anew");
    // What is leased stays with who has it, and its place is free.
    assert_eq!(bench.pool.retire(&"b"), 1);
    assert_eq!((other.number, bench.pool.stats().gauges.open), (number, 1));
    drop(other);
    assert_eq!(bench.pool.stats().gauges.open, 1);
}

#[tokio::test]
async fn counters_never_fall_while_hosts_are_retired() {
    const ROUNDS: u64 = 300;
    let bench = instant(2);
    let (pool, over) = (bench.pool.clone(), Arc::<AtomicBool>::default());
    let ends = over.clone();
    let watcher = std::thread::spawn(move || {
        let mut highest = 0;
        while !ends.load(Ordering::Relaxed) {
            let acquires = pool.stats().counters.acquires;
            assert!(acquires >= highest, "{acquires} after {highest}");
            highest = acquires;
        }
    });
    for _ in 0..ROUNDS {
        drop(bench.get("a").await);
        bench.pool.retire(&"a");
    }
    over.store(true, Ordering::Relaxed);
    watcher.join().expect("no counter fell");
    assert_eq!(bench.pool.stats().counters.acquires, ROUNDS);
}
