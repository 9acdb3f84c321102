//! Dialling, cases 27 to 44.

use keepwarm_pool::{AcquireError, CloseReason, DialPhase, EventKind, Limits, Options, Phase, Side};

use crate::lab::*;

#[tokio::test(start_paused = true)]
async fn case_27_and_28_a_return_during_my_dial_serves_me_and_the_dial_goes_on() {
    let mut bench = exclusive(4);
    let lease = bench.dialled("a").await;
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    pass(ms(20)).await;
    drop(lease);
    let lease = done(task).await;
    assert!(lease.reused() && lease.waited() == ms(20));
    assert!(!dial.is_cancelled());
    dial.ok().await;
    let next = bench.get("a").await;
    assert!(!next.reused(), "the finished dial serves the next");
    bench.want_no_dial().await;
    assert_eq!(bench.pool.stats().counters.late_bound, 1);
}

#[tokio::test(start_paused = true)]
async fn case_29_the_first_dial_to_finish_serves_the_oldest_waiter() {
    let mut bench = exclusive(4);
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    let mut dials = bench.want_dials(2).await;
    dials.pop().expect("the second's").ok().await;
    let _lease = done(first).await;
    want_waiting(&second).await;
    dials.pop().expect("the first's").ok().await;
    done(second).await;
}

#[tokio::test(start_paused = true)]
async fn case_31_with_keep_alive_off_an_unclaimed_dial_is_discarded() {
    let options = Options { keep_alive: false, ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    task.abort();
    dial.ok().await;
    bench.want_open(0).await;
    let (a, b) = (bench.queued("a").await, bench.queued("a").await);
    for dial in bench.want_dials(2).await {
        dial.shared(100).await;
    }
    drop((done(a).await, done(b).await));
    bench.want_open(0).await;
    assert_eq!(bench.closed(CloseReason::Discarded), 3);
}

#[tokio::test(start_paused = true)]
async fn case_32_excess_dials_are_cancelled_at_the_limit() {
    let limits = Limits { max_total: 1, max_per_host: 1, max_idle_per_host: 1, max_idle: 1, ..Limits::default() };
    let mut bench = build(Mode::Owned, Some(1), limits, plain());
    let abandoned = bench.queued("a").await;
    let excess = bench.want_dial().await;
    abandoned.abort();
    settle().await;
    assert!(!excess.is_cancelled(), "nobody needs its place yet");
    let task = bench.queued("b").await;
    let dial = bench.want_dial().await;
    assert!(excess.is_cancelled() && dial.key == "b");
    dial.ok().await;
    done(task).await;
}

#[tokio::test(start_paused = true)]
async fn case_33_dials_count_against_both_maxima() {
    let limits = Limits { max_total: 3, max_idle: 3, ..Limits::per_host(2) };
    let limits = Limits { max_total: 3, max_idle: 3, ..limits };
    let mut bench = build(Mode::Owned, Some(1), limits, plain());
    let tasks = [bench.acquire("a"), bench.acquire("a"), bench.acquire("a"), bench.acquire("b"), bench.acquire("b")];
    let dials = bench.want_dials(3).await;
    assert_eq!(dials.iter().filter(|dial| dial.key == "a").count(), 2);
    let stats = bench.pool.stats();
    assert_eq!((stats.gauges.dialing, stats.gauges.open, stats.gauges.waiting), (3, 0, 5));
    assert!(bench.pool.host(&"b").stats().stalled);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn case_34_dials_in_flight_are_capped_also_for_min_idle() {
    let limits = Limits { max_dials_per_host: 2, max_dials: 3, min_idle: 5, ..Limits::per_host(10) };
    let options = Options { connect_timeout: 3600 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), limits, options);
    let a = bench.pool.host(&"a");
    let mut dials = bench.want_dials(2).await;
    let b = bench.pool.host(&"b");
    dials.extend(bench.want_dials(1).await);
    let mut opened = 0;
    while let Some(dial) = dials.pop() {
        dial.ok().await;
        opened += 1;
        let dialing = bench.pool.stats().gauges.dialing;
        assert!(dialing <= 3 && a.stats().gauges.dialing <= 2);
        pass(20 * SECOND).await;
        while bench.pool.stats().gauges.dialing > dials.len() {
            dials.push(bench.want_dial().await);
        }
    }
    assert_eq!((opened, a.stats().gauges.open, b.stats().gauges.open), (10, 5, 5));
}

#[tokio::test(start_paused = true)]
async fn case_35_a_slow_dial_times_the_waiter_out_not_the_dial() {
    let options = Options { acquire_timeout: SECOND, connect_timeout: 5 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(2), options);
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    pass(SECOND).await;
    assert!(matches!(failed(task).await, AcquireError::Timeout { phase: Phase::Dial, .. }));
    assert!(!dial.is_cancelled());
    dial.ok().await;
    assert!(bench.pool.try_acquire(&"a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn case_35_a_dial_has_a_time_limit_of_its_own() {
    let options = Options { connect_timeout: 2 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(2), options);
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    pass(2 * SECOND).await;
    assert!(dial.is_cancelled());
    let error = failed(task).await;
    assert_eq!(error.to_string(), "dial timed out after 2s");
    assert_eq!((error.side(), error.kind().as_str()), (Side::Upstream, "dial_timeout"));
    assert_eq!(bench.pool.stats().counters.dial_errors(), [("timeout", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_37_a_failed_dial_frees_its_slot_and_the_next_waiter_gets_a_dial() {
    let mut bench = exclusive(1);
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    bench.want_dial().await.fail().await;
    assert!(matches!(failed(first).await, AcquireError::Dial(_)));
    bench.want_dial().await.ok().await;
    done(second).await;
    assert_eq!(bench.pool.stats().counters.dial_errors(), [("refused", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_38_exclusive_the_oldest_waiter_gets_the_error() {
    let mut bench = exclusive(4);
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    let mut dials = bench.want_dials(2).await;
    dials.pop().expect("a dial").fail().await;
    failed(first).await;
    want_waiting(&second).await;
    dials.pop().expect("a dial").ok().await;
    done(second).await;
}

#[tokio::test(start_paused = true)]
async fn case_38_exclusive_nobody_gets_it_while_each_has_a_dial() {
    let mut bench = exclusive(4);
    let lease = bench.dialled("a").await;
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    let mut dials = bench.want_dials(2).await;
    drop(lease);
    let _lease = done(first).await;
    dials.pop().expect("a dial").fail().await;
    want_waiting(&second).await;
    dials.pop().expect("a dial").fail().await;
    failed(second).await;
}

#[tokio::test(start_paused = true)]
async fn case_38_shared_the_only_dial_fails_all_that_waited_for_it() {
    let mut bench = multiplexed(4);
    let mut tasks = Vec::new();
    for _ in 0..50 {
        tasks.push(bench.queued("a").await);
    }
    let dials = bench.want_dials(1).await;
    for dial in dials {
        dial.fail().await;
    }
    for task in tasks {
        assert!(matches!(failed(task).await, AcquireError::Dial(error) if *error == Refused("refused")));
    }
    bench.want_no_dial().await;
}

#[tokio::test(start_paused = true)]
async fn case_38_shared_nobody_gets_it_while_another_connection_serves() {
    let mut bench = multiplexed(4);
    let first = bench.queued("a").await;
    bench.want_dial().await.shared(1).await;
    let lease = done(first).await;
    lease.slot.set_capacity(2);
    let second = done(bench.queued("a").await).await;
    let third = bench.queued("a").await;
    bench.want_dial().await.fail().await;
    want_waiting(&third).await;
    drop(second);
    done(third).await;
}

#[tokio::test(start_paused = true)]
async fn case_40_back_off_between_failed_dials_reset_by_success() {
    let options = Options { backoff_min: SECOND, backoff_max: 8 * SECOND, acquire_timeout: 100 * SECOND, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(1), options);
    let mut waits = Vec::new();
    for attempt in 0..8u32 {
        let first = bench.queued("a").await;
        let failed_at = if attempt == 0 { now() } else { *waits.last().expect("an instant") };
        while bench.pool.stats().gauges.dialing == 0 {
            pass(ms(1)).await;
        }
        let pause = now() - failed_at;
        let cap = SECOND * (1 << attempt.saturating_sub(1).min(3));
        assert!(pause <= cap + ms(2), "attempt {attempt} came after {pause:?}");
        bench.want_dial().await.fail().await;
        waits.push(now());
        failed(first).await;
    }
    let total = *waits.last().expect("an instant") - waits[0];
    assert!(total > SECOND, "the pauses add up to {total:?}");
    let task = bench.queued("a").await;
    while bench.pool.stats().gauges.dialing == 0 {
        pass(ms(10)).await;
    }
    bench.want_dial().await.ok().await;
    let mut lease = done(task).await;
    lease.poison();
    drop(lease);
    let task = bench.queued("a").await;
    bench.want_dial().await.ok().await;
    done(task).await;
}

#[tokio::test(start_paused = true)]
async fn case_41_a_backup_dial_after_a_while_cancelled_when_the_first_wins() {
    let options = Options { backup_dial_after: Some(ms(250)), ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let task = bench.queued("a").await;
    let first = bench.want_dial().await;
    pass(ms(240)).await;
    bench.want_no_dial().await;
    pass(ms(10)).await;
    let backup = bench.want_dial().await;
    pass(SECOND).await;
    bench.want_no_dial().await;
    first.shared(10).await;
    done(task).await;
    assert!(backup.is_cancelled());
    let counters = bench.pool.stats().counters;
    assert_eq!((counters.dials, counters.backup_dials, counters.dials_cancelled), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_41_the_backup_may_win_and_one_failure_of_the_two_is_nobodys() {
    let options = Options { backup_dial_after: Some(ms(250)), ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let task = bench.queued("a").await;
    let first = bench.want_dial().await;
    pass(ms(250)).await;
    let backup = bench.want_dial().await;
    first.fail().await;
    want_waiting(&task).await;
    backup.shared(10).await;
    done(task).await;
}

#[tokio::test(start_paused = true)]
async fn case_41_no_backup_at_the_limit_nor_for_nobody() {
    let options = Options { backup_dial_after: Some(ms(250)), ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(1), options.clone());
    let task = bench.queued("a").await;
    let _dial = bench.want_dial().await;
    pass(SECOND).await;
    bench.want_no_dial().await;
    task.abort();
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let task = bench.queued("a").await;
    let _dial = bench.want_dial().await;
    task.abort();
    pass(SECOND).await;
    bench.want_no_dial().await;
}

#[tokio::test(start_paused = true)]
async fn case_42_a_dial_that_resolves_synchronously() {
    let bench = instant(2);
    let mut events = bench.pool.subscribe();
    let lease = bench.get("a").await;
    assert!(lease.dial_time().is_zero() && lease.opened_at() == now());
    assert_eq!(kinds(&mut events), [EventKind::Created, EventKind::Ready, EventKind::Leased]);
}

#[tokio::test(start_paused = true)]
async fn case_44_cancelled_acquires_grow_neither_dials_nor_memory() {
    let mut bench = exclusive(2);
    let mut dials = Vec::new();
    for _ in 0..500 {
        let task = bench.queued("a").await;
        while bench.pool.stats().gauges.dialing > dials.len() {
            dials.push(bench.want_dial().await);
        }
        task.abort();
        settle().await;
    }
    assert!(dials.len() <= 2, "{} dials", dials.len());
    let stats = bench.pool.stats();
    assert_eq!((stats.gauges.waiting, stats.counters.cancelled), (0, 500));
}

#[tokio::test(start_paused = true)]
async fn case_78_an_unhealthy_host_fails_at_once_and_is_probed_by_one_dial() {
    let options = Options { unhealthy_after: Some(2), backoff_min: 10 * SECOND, backoff_max: 10 * SECOND, ..plain() };
    let limits = Limits { min_idle: 1, ..Limits::per_host(4) };
    let mut bench = build(Mode::Owned, Some(1), limits, options);
    for _ in 0..2 {
        let task = bench.acquire("a");
        while bench.pool.stats().gauges.dialing == 0 {
            pass(ms(10)).await;
        }
        bench.want_dial().await.fail().await;
        assert!(matches!(failed(task).await, AcquireError::Dial(_) | AcquireError::Unhealthy { .. }));
    }
    let host = bench.pool.host(&"a");
    assert!(!host.stats().healthy);
    let AcquireError::Unhealthy { retry_in, last } = host.acquire().await.expect_err("unhealthy") else {
        panic!("unhealthy")
    };
    assert!(retry_in <= 10 * SECOND && last.is_some_and(|error| error.0 == "refused"));
    pass(11 * SECOND).await;
    bench.want_no_dial().await;
    let tasks = [bench.queued("a").await, bench.queued("a").await, bench.queued("a").await];
    bench.want_dials(1).await.pop().expect("the probe").ok().await;
    assert!(host.stats().healthy);
    bench.want_dials(2).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_local_error_does_not_make_the_host_unhealthy() {
    let options = Options { unhealthy_after: Some(1), backoff_min: ms(1), backoff_max: ms(1), ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(4), options);
    for _ in 0..5 {
        let task = bench.acquire("a");
        pass(ms(5)).await;
        bench.want_dial().await.fail_with("emfile").await;
        failed(task).await;
    }
    let stats = bench.pool.host(&"a").stats();
    assert!(stats.healthy);
    assert_eq!(stats.counters.dial_errors(), [("emfile", 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_before_its_dial_ends_is_closed() {
    let mut bench = exclusive(4);
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    dial.slot.closed(CloseReason::PeerClosed);
    dial.ok().await;
    bench.want_open(0).await;
    want_waiting(&task).await;
    bench.want_dial().await.ok().await;
    done(task).await;
}

#[tokio::test(start_paused = true)]
async fn the_phases_of_dials_are_those_of_dials_that_succeeded() {
    let mut bench = exclusive(1);
    for (key, took) in [("a", 20), ("b", 30)] {
        let task = bench.queued(key).await;
        let dial = bench.want_dial().await;
        pass(ms(took)).await;
        dial.ok().await;
        drop(done(task).await);
    }
    let task = bench.queued("c").await;
    bench.want_dial().await.fail().await;
    failed(task).await;
    // What a host did outlives it.
    assert_eq!(bench.pool.retire(&"a"), 0);
    let stats = bench.pool.stats();
    let phases: Vec<_> = stats.dial_phases.iter().map(|(phase, times)| (phase, times.count(), times.sum())).collect();
    assert_eq!(phases, [(DialPhase::Connect, stats.counters.opened, ms(50))]);
    assert_eq!((stats.counters.dials, stats.dial.sum()), (3, ms(50)));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_needed_any_more_has_no_phases_and_without_statistics_none_has() {
    let limits = Limits { max_total: 1, max_per_host: 1, max_idle_per_host: 1, max_idle: 1, ..Limits::default() };
    let mut bench = build(Mode::Owned, Some(1), limits, plain());
    let abandoned = bench.queued("a").await;
    let excess = bench.want_dial().await;
    abandoned.abort();
    settle().await;
    let task = bench.queued("b").await;
    let dial = bench.want_dial().await;
    assert!(excess.is_cancelled());
    dial.ok().await;
    done(task).await;
    let stats = bench.pool.stats();
    let count = stats.dial_phases.of(DialPhase::Connect).map(keepwarm_pool::Histogram::count);
    assert_eq!((stats.counters.dials, stats.counters.opened, count), (2, 1, Some(1)));

    let mut bench = build(Mode::Owned, Some(1), limits, Options { statistics: false, ..plain() });
    drop(bench.dialled("a").await);
    let stats = bench.pool.stats();
    assert_eq!((stats.counters.opened, stats.dial_phases.iter().count()), (1, 0));
}
