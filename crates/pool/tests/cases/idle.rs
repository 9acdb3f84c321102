//! Idle, lifetime and validation, cases 63 to 78.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keepwarm_pool::{AcquireError, CloseReason, EventKind, Limits, Options, Phase};

use crate::lab::*;

const AT_ONCE: Mode = Mode::At { capacity: None, after: Duration::ZERO };

fn timed(options: Options) -> Bench {
    build(AT_ONCE, Some(1), Limits::per_host(4), options)
}

#[tokio::test(start_paused = true)]
async fn case_63_an_expired_idle_connection_is_not_handed_out() {
    // Cleaning comes late on purpose.
    let bench = timed(Options { idle_timeout: 10 * SECOND, cleanup_interval: 3600 * SECOND, ..plain() });
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    drop(a);
    pass(10 * SECOND).await;
    bench.want_open(1).await;
    drop(b);
    pass(ms(9_999)).await;
    assert!(bench.get("a").await.reused());
    pass(10 * SECOND).await;
    bench.want_open(1).await;
    assert!(!bench.get("a").await.reused());
}

#[tokio::test(start_paused = true)]
async fn case_64_the_reaper_removes_at_the_right_time() {
    let bench = timed(Options { idle_timeout: 10 * SECOND, ..plain() });
    let mut events = bench.pool.subscribe();
    drop(bench.get("a").await);
    kinds(&mut events);
    tokio::time::sleep(ms(9_999)).await;
    bench.want_open(1).await;
    tokio::time::sleep(ms(2)).await;
    bench.want_open(0).await;
    assert_eq!(kinds(&mut events), [EventKind::Closed(CloseReason::IdleTimeout), EventKind::Cleaned { closed: 1 }]);
}

#[tokio::test(start_paused = true)]
async fn another_idle_time_out_holds_for_what_is_idle_already() {
    let bench = timed(Options { idle_timeout: 100 * SECOND, ..plain() });
    drop(bench.get("a").await);
    pass(20 * SECOND).await;
    bench.pool.set_options(Options { idle_timeout: 30 * SECOND, ..bench.pool.options() });
    pass(9 * SECOND).await;
    bench.want_open(1).await;
    pass(SECOND + ms(1)).await;
    bench.want_open(0).await;
    drop(bench.get("a").await);
    bench.pool.set_options(Options { idle_timeout: 100 * SECOND, ..bench.pool.options() });
    pass(90 * SECOND).await;
    assert!(bench.get("a").await.reused());
    bench.pool.set_options(Options { idle_timeout: 5 * SECOND, ..bench.pool.options() });
    pass(5 * SECOND + ms(1)).await;
    bench.want_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn case_65_and_67_only_unused_ones_expire_and_dials_do_not() {
    let options = Options { idle_timeout: 10 * SECOND, connect_timeout: 100 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(4), options);
    let leased = bench.dialled("a").await;
    drop(bench.dialled("a").await);
    let task = bench.queued("b").await;
    let dial = bench.want_dial().await;
    pass(9 * SECOND).await;
    bench.want_open(2).await;
    pass(SECOND).await;
    bench.want_open(1).await;
    assert!(!dial.is_cancelled() && leased.number == 1);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn case_68_lifetime_closes_idle_ones_and_drains_busy_ones() {
    let options = Options { max_lifetime: Some(60 * SECOND), lifetime_jitter: 0.0, ..plain() };
    let bench = build(Mode::At { capacity: Some(5), after: ms(0) }, None, Limits::per_host(4), options);
    drop(bench.get("idle").await);
    let busy = bench.get("busy").await;
    pass(59 * SECOND).await;
    bench.want_open(2).await;
    pass(SECOND).await;
    bench.want_open(1).await;
    assert_eq!(bench.pool.stats().gauges.draining, 1);
    assert_ne!(bench.get("busy").await.id(), busy.id());
    drop(busy);
    assert_eq!(bench.closed(CloseReason::Lifetime), 2);
}

#[tokio::test(start_paused = true)]
async fn case_69_jitter_lies_in_range_and_is_per_connection() {
    let options = Options {
        max_lifetime: Some(100 * SECOND),
        lifetime_jitter: 0.15,
        idle_timeout: 1000 * SECOND,
        cleanup_interval: ms(0),
        ..plain()
    };
    let bench = build(AT_ONCE, Some(1), Limits::per_host(40), options);
    let mut leases = Vec::new();
    for _ in 0..40 {
        leases.push(bench.get("a").await);
    }
    drop(leases);
    pass(85 * SECOND).await;
    let mut left = vec![bench.pool.stats().gauges.open];
    assert_eq!(left[0], 40);
    for _ in 0..15 {
        pass(SECOND).await;
        left.push(bench.pool.stats().gauges.open);
    }
    assert_eq!(left[15], 0);
    left.dedup();
    assert!(left.len() > 6, "they end one by one: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn case_70_suspend_and_resume_are_seen_by_the_wall_clock() {
    let began = tokio::time::Instant::now();
    let slept = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&slept);
    let wall = move || SystemTime::UNIX_EPOCH + began.elapsed() + Duration::from_secs(seen.load(Ordering::SeqCst));
    let options = Options { idle_timeout: 3600 * SECOND, ..plain() };
    let bench = build_with(AT_ONCE, Some(1), Limits::per_host(4), options, |builder| builder.wall_clock(wall));
    let busy = bench.get("a").await;
    drop(bench.get("a").await);
    pass(60 * SECOND).await;
    bench.want_open(2).await;
    slept.store(2 * 3600, Ordering::SeqCst);
    pass(11 * SECOND).await;
    bench.want_open(1).await;
    drop(busy);
    assert!(bench.get("a").await.reused());
}

#[tokio::test(start_paused = true)]
async fn case_71_and_72_what_the_peer_does_to_an_idle_one_retires_it_at_once() {
    for reason in [CloseReason::PeerClosed, CloseReason::PeerReset, CloseReason::GoAway, CloseReason::StrayBytes] {
        let bench = timed(plain());
        let lease = bench.get("a").await;
        let slot = lease.slot.clone();
        drop(lease);
        slot.closed(reason);
        bench.want_open(0).await;
        assert!(!bench.get("a").await.reused());
        assert_eq!(bench.closed(reason), 1);
        slot.closed(reason);
        slot.set_capacity(7);
        slot.idle_limit(SECOND);
        assert_eq!(bench.closed(reason), 1, "what is gone says nothing more");
    }
}

fn checked() -> Bench {
    let options = Options { check_interval: Some(5 * SECOND), connect_timeout: 2 * SECOND, ..plain() };
    build(AT_ONCE, Some(1), Limits::per_host(2), options)
}

#[tokio::test(start_paused = true)]
async fn case_73_validation_only_when_idle_for_longer_than_the_interval() {
    let mut bench = checked();
    drop(bench.get("a").await);
    pass(5 * SECOND).await;
    drop(bench.get("a").await);
    bench.want_no_check().await;
    pass(5 * SECOND + ms(1)).await;
    let task = bench.queued("a").await;
    bench.want_check().await.end(true).await;
    assert!(done(task).await.reused());
    pass(6 * SECOND).await;
    let task = bench.queued("a").await;
    bench.want_check().await.end(false).await;
    assert!(!done(task).await.reused());
    assert_eq!(bench.closed(CloseReason::Invalid), 1);
}

#[tokio::test(start_paused = true)]
async fn case_73_a_validation_has_a_time_limit() {
    let mut bench = checked();
    drop(bench.get("a").await);
    pass(6 * SECOND).await;
    let task = bench.queued("a").await;
    let _check = bench.want_check().await;
    pass(2 * SECOND).await;
    assert!(!done(task).await.reused());
}

#[tokio::test(start_paused = true)]
async fn case_75_validation_of_one_does_not_delay_others() {
    let mut bench = checked();
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    drop(a);
    pass(6 * SECOND).await;
    let waits = bench.queued("a").await;
    let check = bench.want_check().await;
    let served = bench.queued("a").await;
    drop(b);
    // The return serves the first; the validated one the other.
    let first = done(waits).await;
    want_waiting(&served).await;
    check.end(true).await;
    assert_ne!(done(served).await.id(), first.id());
    let error = bench.pool.try_acquire(&"b").expect_err("nothing there");
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Queue, .. }));
}

#[tokio::test(start_paused = true)]
async fn case_76_cancel_during_validation_neither_destroys_nor_leaks() {
    let mut bench = checked();
    drop(bench.get("a").await);
    pass(6 * SECOND).await;
    let task = bench.queued("a").await;
    let check = bench.want_check().await;
    task.abort();
    settle().await;
    check.end(true).await;
    bench.want_open(1).await;
    assert!(bench.get("a").await.reused());
    assert_eq!(bench.pool.stats().counters.validations, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_during_its_validation_is_gone() {
    let mut bench = checked();
    let lease = bench.get("a").await;
    let slot = lease.slot.clone();
    drop(lease);
    pass(6 * SECOND).await;
    let task = bench.queued("a").await;
    let check = bench.want_check().await;
    slot.closed(CloseReason::PeerClosed);
    check.end(true).await;
    assert!(!done(task).await.reused());
    assert_eq!(bench.closed(CloseReason::PeerClosed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_idle_limit_is_learned_from_the_peer() {
    let bench = timed(plain());
    let lease = bench.get("a").await;
    let slot = lease.slot.clone();
    drop(lease);
    pass(4 * SECOND).await;
    slot.closed(CloseReason::PeerClosed);
    let host = bench.pool.host(&"a");
    assert_eq!(host.stats().idle_limit, ms(3_500));
    drop(bench.get("a").await);
    pass(ms(3_499)).await;
    bench.want_open(1).await;
    pass(ms(2)).await;
    bench.want_open(0).await;
    // After long without a confirmation it is raised again.
    for _ in 0..40 {
        drop(bench.get("a").await);
        pass(SECOND * 600).await;
    }
    assert_eq!(host.stats().idle_limit, Options::default().idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_reuse_failure_is_counted_learned_from_and_poisons() {
    let bench = timed(plain());
    drop(bench.get("a").await);
    pass(8 * SECOND).await;
    let mut lease = bench.get("a").await;
    lease.reuse_failed();
    drop(lease);
    bench.want_open(0).await;
    assert_eq!(bench.pool.stats().counters.reuse_failures, 1);
    assert_eq!(bench.pool.host(&"a").stats().idle_limit, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_says_about_one_connection_counts_for_that_one() {
    let bench = timed(plain());
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    a.slot.idle_limit(8 * SECOND);
    drop((a, b));
    pass(ms(7_001)).await;
    bench.want_open(1).await;
    let lease = bench.get("a").await;
    lease.slot.idle_limit(Duration::ZERO);
    drop(lease);
    bench.want_open(0).await;
}
