//! Warm-up, resize, pause and drain, cases 80 to 92.

use keepwarm_pool::{AcquireError, CloseReason, EventKind, Limits, LimitsError, Options};

use crate::lab::*;

const AT_ONCE: Mode = Mode::At { capacity: None, after: std::time::Duration::ZERO };

#[tokio::test(start_paused = true)]
async fn case_80_min_idle_is_filled_and_refilled() {
    let limits = Limits { min_idle: 2, ..Limits::per_host(4) };
    let bench = build(AT_ONCE, Some(1), limits, Options { idle_timeout: 60 * SECOND, ..plain() });
    let host = bench.pool.host(&"a");
    bench.want_open(2).await;
    let mut lease = host.acquire().await.expect("a lease");
    lease.poison();
    drop(lease);
    bench.want_open(2).await;
    let many = [host.acquire().await, host.acquire().await, host.acquire().await];
    bench.want_open(3).await;
    drop(many);
    pass(600 * SECOND).await;
    bench.want_open(2).await;
    assert_eq!(bench.closed(CloseReason::IdleTimeout), 1, "min idle is not churned by our own time-out");
}

#[tokio::test(start_paused = true)]
async fn min_idle_is_not_kept_for_a_key_that_is_only_a_fallback() {
    let limits = Limits { min_idle: 2, ..Limits::per_host(4) };
    let mut bench = build(Mode::Owned, Some(1), limits, Options { idle_timeout: SECOND, ..plain() });
    let host = bench.pool.host(&"fallback");
    bench.want_no_dial().await;
    let lease = tokio::spawn(async move { host.acquire().await.map(drop) });
    bench.want_dial().await.ok().await;
    lease.await.unwrap().unwrap();
    bench.want_open(1).await;
    pass(600 * SECOND).await;
    bench.want_open(0).await;
    bench.want_no_dial().await;
}

#[tokio::test(start_paused = true)]
async fn case_80_connections_that_die_unused_are_not_redialled_for_ever() {
    let limits = Limits { min_idle: 1, ..Limits::per_host(4) };
    let mut bench = build(Mode::Owned, Some(1), limits, Options { idle_timeout: 60 * SECOND, ..plain() });
    let host = bench.pool.host(&"a");
    let mut dials = 0;
    let began = now();
    while now() - began < 600 * SECOND {
        if host.stats().gauges.dialing > 0 {
            let dial = bench.want_dial().await;
            let slot = dial.slot.clone();
            dial.ok().await;
            slot.closed(CloseReason::PeerClosed);
            dials += 1;
        }
        pass(SECOND / 2).await;
    }
    assert!((10..20).contains(&dials), "{dials} dials in ten minutes");
    while host.stats().gauges.dialing == 0 {
        pass(SECOND).await;
    }
    bench.want_dial().await.ok().await;
    let mut lease = host.try_acquire().expect("min idle");
    lease.poison();
    drop(lease);
    assert_eq!(bench.want_dial().await.key, "a", "a lease resets the pause");
}

#[tokio::test(start_paused = true)]
async fn case_81_to_83_warm_up_is_idempotent_bounded_and_claimed_later() {
    let limits = Limits { max_dials_per_host: 2, ..Limits::per_host(5) };
    let mut bench = build(Mode::Owned, Some(1), limits, plain());
    let pool = bench.pool.clone();
    let (first, again) = (tokio::spawn(pool.warm_up(&"a", 3)), tokio::spawn(pool.warm_up(&"a", 3)));
    for dial in bench.want_dials(2).await {
        dial.ok().await;
    }
    let claimed = bench.get("a").await;
    for dial in bench.want_dials(1).await {
        dial.ok().await;
    }
    assert_eq!((first.await.unwrap().unwrap(), again.await.unwrap().unwrap()), (3, 3));
    assert_eq!(pool.warm_up(&"a", 3).await.unwrap(), 3);
    bench.want_no_dial().await;
    let more = [bench.get("a").await, bench.get("a").await];
    bench.want_no_dial().await;
    drop((claimed, more));
}

#[tokio::test(start_paused = true)]
async fn case_83_warm_up_returns_its_errors() {
    let mut bench = exclusive(4);
    let warm = tokio::spawn(bench.pool.warm_up(&"a", 1));
    bench.want_dial().await.fail().await;
    assert!(matches!(warm.await.unwrap(), Err(AcquireError::Dial(_))));
    bench.want_no_dial().await;
    let warm = tokio::spawn(bench.pool.warm_up(&"a", 1));
    let _dial = bench.want_dial().await;
    pass(20 * SECOND).await;
    assert!(warm.await.unwrap().expect_err("the dial hangs").is_timeout());
}

#[tokio::test(start_paused = true)]
async fn case_85_shrink_then_grow_and_growing_wakes_waiters() {
    let mut bench = exclusive(4);
    let leases = [bench.dialled("a").await, bench.dialled("a").await, bench.dialled("a").await];
    drop(bench.dialled("a").await);
    bench.want_open(4).await;
    bench.pool.set_limits(Limits::per_host(2)).expect("good limits");
    bench.want_open(3).await;
    assert_eq!(bench.pool.stats().gauges.draining, 1);
    let waiter = bench.queued("a").await;
    bench.want_no_dial().await;
    bench.pool.set_limits(Limits::per_host(5)).expect("good limits");
    bench.want_dial().await.ok().await;
    done(waiter).await;
    drop(leases);
    bench.want_open(3).await;
    assert_eq!(bench.closed(CloseReason::Shrunk), 2);
}

#[tokio::test(start_paused = true)]
async fn case_85_a_lowered_global_limit_closes_the_oldest() {
    let bench = instant(2);
    for key in ["a", "b", "c"] {
        drop(bench.get(key).await);
        pass(SECOND).await;
    }
    let limits = Limits { max_total: 2, max_idle: 2, ..Limits::per_host(2) };
    bench.pool.set_limits(Limits { max_total: 2, max_idle: 2, ..limits }).expect("good limits");
    bench.want_open(2).await;
    assert_eq!(bench.pool.host(&"a").stats().gauges.open, 0);
}

#[tokio::test(start_paused = true)]
async fn limits_that_contradict_each_other_are_refused_and_change_nothing() {
    let bench = instant(2);
    let bad = Limits { max_per_host: 20, max_total: 10, max_idle: 10, ..Limits::default() };
    let error = bench.pool.set_limits(bad).expect_err("bad limits");
    assert!(matches!(error, LimitsError::Order { larger: "max_total", smaller: "max_per_host", .. }));
    assert_eq!(error.to_string(), "max_total = 10 is below max_per_host = 20");
    assert_eq!(bench.pool.limits(), Limits::per_host(2));
}

#[tokio::test(start_paused = true)]
async fn case_86_close_fails_waiters_closes_idle_and_twice_is_safe() {
    let mut bench = exclusive(2);
    let busy = bench.dialled("a").await;
    drop(bench.dialled("b").await);
    let full = bench.dialled("a").await;
    let waiter = bench.queued("a").await;
    let pool = bench.pool.clone();
    let drained = tokio::spawn(pool.drain(now() + 100 * SECOND));
    assert!(matches!(failed(waiter).await, AcquireError::Closed));
    bench.want_open(2).await;
    drop(busy);
    bench.want_open(1).await;
    assert!(!drained.is_finished());
    drop(full);
    assert_eq!(drained.await.unwrap(), 0);
    assert_eq!(bench.pool.drain(now()).await, 0);
    assert!(matches!(bench.pool.try_acquire(&"new"), Err(AcquireError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn case_88_a_drain_ends_with_the_last_return_and_its_deadline_forces() {
    let mut bench = exclusive(2);
    let (a, b) = (bench.dialled("a").await, bench.dialled("a").await);
    let waiter = bench.queued("c").await;
    let dial = bench.want_dial().await;
    let began = now();
    let drain = tokio::spawn(bench.pool.drain(began + 10 * SECOND));
    settle().await;
    assert!(dial.is_cancelled());
    failed(waiter).await;
    drop(a);
    assert_eq!(drain.await.unwrap(), 1);
    assert_eq!(now() - began, 10 * SECOND);
    // I10: after a drain everything is zero.
    let gauges = bench.pool.stats().gauges;
    assert_eq!((gauges.open, gauges.in_flight, gauges.dialing, gauges.waiting), (0, 0, 0, 0));
    drop(b);
    bench.want_open(0).await;
    let counters = bench.pool.stats().counters;
    assert_eq!((counters.opened, counters.closed_total(), counters.released), (2, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn pause_refuses_and_resume_serves_from_what_stayed_warm() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let waiter = bench.queued("a").await;
    bench.pool.pause(&"a");
    assert!(matches!(failed(waiter).await, AcquireError::Paused));
    drop(lease);
    assert!(matches!(bench.pool.acquire(&"a").await, Err(AcquireError::Paused)));
    drop(bench.get("b").await);
    bench.pool.resume(&"a");
    assert!(bench.get("a").await.reused());
    bench.pool.pause_all();
    for key in ["a", "b", "new"] {
        assert!(matches!(bench.pool.try_acquire(&key), Err(AcquireError::Paused)));
    }
    bench.pool.resume_all();
    drop(bench.get("new").await);
}

#[tokio::test(start_paused = true)]
async fn flush_closes_idle_drains_busy_and_dials_anew() {
    let mut bench = exclusive(4);
    let busy = bench.dialled("a").await;
    drop(bench.dialled("a").await);
    let idle = bench.get("a").await;
    let waiter = bench.queued("a").await;
    let stale = bench.want_dial().await;
    drop(idle);
    let idle = done(waiter).await;
    let waiter = bench.queued("a").await;
    drop(idle);
    drop(done(waiter).await);
    let waiter_pool = bench.pool.clone();
    bench.pool.flush(&"a");
    bench.want_open(1).await;
    assert!(stale.is_cancelled());
    let task = tokio::spawn(async move { waiter_pool.acquire(&"a").await });
    bench.want_dial().await.ok().await;
    assert_ne!(done(task).await.id(), busy.id());
    drop(busy);
    assert_eq!(bench.closed(CloseReason::Flushed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_network_forgets_failures() {
    let options = Options { unhealthy_after: Some(1), backoff_min: 60 * SECOND, backoff_max: 60 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(4), options);
    let task = bench.queued("a").await;
    bench.want_dial().await.fail().await;
    failed(task).await;
    assert!(matches!(bench.pool.acquire(&"a").await, Err(AcquireError::Unhealthy { .. })));
    bench.pool.network_changed();
    let task = bench.queued("a").await;
    bench.want_dial().await.ok().await;
    done(task).await;
}

#[tokio::test(start_paused = true)]
async fn full_is_said_once() {
    let bench = instant(1);
    let mut events = bench.pool.subscribe();
    let lease = bench.get("a").await;
    let tasks = [bench.queued("a").await, bench.queued("a").await];
    assert_eq!(kinds(&mut events).iter().filter(|kind| **kind == EventKind::Full).count(), 1);
    drop(lease);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_first_dial_takes_its_only_place_is_not_full() {
    let mut bench = exclusive(1);
    let first = bench.queued("a").await;
    let dial = bench.want_dial().await;
    assert_eq!(bench.pool.stats().full, 0, "a larger limit would help nobody");
    dial.ok().await;
    let lease = done(first).await;
    let second = bench.queued("a").await;
    assert_eq!(bench.pool.stats().full, 1, "now one is in use that another waits for");
    drop(lease);
    done(second).await;
    assert_eq!(bench.pool.stats().full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_92_counters_are_consistent_after_a_storm_of_cancels() {
    let limits = Limits { max_total: 12, max_idle: 12, ..Limits::per_host(4) };
    let limits = Limits { max_total: 12, max_idle: 12, ..limits };
    let bench = build(Mode::At { capacity: None, after: ms(1) }, None, limits, plain());
    let mut tasks = Vec::new();
    for n in 0..64u64 {
        let pool = bench.pool.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..200u64 {
                let key = ["a", "b", "c", "d"][((n + round) % 4) as usize];
                let wait = std::time::Duration::from_micros((n * 7 + round * 13) % 300);
                if let Ok(Ok(mut lease)) = tokio::time::timeout(wait, pool.acquire(&key)).await {
                    if (n + round) % 17 == 0 {
                        lease.poison();
                    }
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(bench.pool.drain(now() + 5 * SECOND).await, 0);
    let stats = bench.pool.stats();
    let c = &stats.counters;
    assert_eq!(c.acquires, 64 * 200);
    assert_eq!(c.acquires, c.hits + c.shared_hits + c.waited + c.timeouts_total() + c.cancelled + c.errors_total());
    assert!(c.released >= c.hits + c.waited, "every lease came back");
    assert_eq!(c.opened, c.closed_total());
    assert_eq!(c.dials, c.opened + c.dials_cancelled + c.dial_errors_total());
    assert_eq!(stats.gauges, keepwarm_pool::Gauges::default());
    bench.want_open(0).await;
}
