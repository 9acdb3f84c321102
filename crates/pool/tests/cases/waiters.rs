//! Waiters, cases 12 to 26.

use std::sync::{Arc, Mutex};

use keepwarm_pool::{
    AcquireError, AcquireOptions, Acquired as Answer, CloseReason, Grants, Lease, Limits, Options, Phase, Ticket,
};

use crate::lab::*;

#[tokio::test(start_paused = true)]
async fn case_12_and_13_returns_wake_waiters_first_come_first_served() {
    let bench = instant(1);
    let mut lease = bench.get("a").await;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(bench.queued("a").await);
    }
    for _ in 0..20 {
        pass(ms(10)).await;
        drop(lease);
        settle().await;
        let finished: Vec<_> = tasks.iter().map(tokio::task::JoinHandle::is_finished).collect();
        assert!(finished[0] && !finished[1..].contains(&true), "exactly the oldest is served: {finished:?}");
        lease = done(tasks.remove(0)).await;
        assert!(lease.reused() && !lease.waited().is_zero());
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_a_newcomer_may_not_overtake() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let waiter = bench.queued("a").await;
    drop(lease);
    // The waiter has been given the connection but has not run yet.
    assert!(bench.pool.try_acquire(&"a").is_err());
    let newcomer = bench.queued("a").await;
    let lease = done(waiter).await;
    want_waiting(&newcomer).await;
    drop(lease);
    done(newcomer).await;
}

#[tokio::test(start_paused = true)]
async fn case_15_and_24_a_time_out_fails_that_waiter_only_and_names_its_phase() {
    let mut bench = exclusive(1);
    let lease = bench.dialled("a").await;
    let pool = bench.pool.clone();
    let short = tokio::spawn(async move {
        pool.acquire_with(&"a", AcquireOptions { timeout: Some(SECOND), ..AcquireOptions::default() }).await
    });
    let long = bench.queued("a").await;
    pass(SECOND).await;
    let AcquireError::Timeout { waited, phase, last_dial_error } = failed(short).await else { panic!("a time-out") };
    assert_eq!((waited, phase), (SECOND, Phase::Queue));
    assert!(last_dial_error.is_none());
    want_waiting(&long).await;
    drop(lease);
    done(long).await;
    assert_eq!(bench.pool.stats().counters.timeouts(Phase::Queue), 1);
}

#[tokio::test(start_paused = true)]
async fn case_24_a_time_out_names_the_last_dial_error() {
    let options = Options { backoff_min: SECOND * 100, backoff_max: SECOND * 100, ..plain() };
    let mut bench = build(Mode::Owned, Some(1), Limits::per_host(1), options);
    let first = bench.queued("a").await;
    let second = bench.queued("a").await;
    bench.want_dial().await.fail().await;
    assert_eq!(failed(first).await.to_string(), "dial failed: refused");
    pass(SECOND / 100).await;
    let third = bench.queued("a").await;
    let abandoned = (second, third);
    let error = bench.pool.try_acquire(&"a").expect_err("nothing is there");
    assert_eq!(
        error.to_string(),
        "acquire timed out after 0ns waiting for the pause after a failed dial (last dial: refused)"
    );
    assert_eq!((error.kind().as_str(), error.is_timeout()), ("timeout", true));
    abandoned.0.abort();
    abandoned.1.abort();
}

#[tokio::test(start_paused = true)]
async fn case_17_a_waiter_cancelled_before_hand_off_is_skipped() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    first.abort();
    settle().await;
    drop(lease);
    done(second).await;
    assert_eq!(bench.pool.stats().counters.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn case_18_a_waiter_cancelled_after_hand_off_passes_the_connection_on() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    drop(lease);
    first.abort();
    let lease = done(second).await;
    assert_eq!(lease.number, 1);
    let counters = bench.pool.stats().counters;
    assert_eq!((counters.cancelled, counters.waited), (1, 2), "the first acquire waited for its dial");
}

#[derive(Default)]
struct Receiver {
    results: Mutex<Vec<(u64, Acquired)>>,
}

impl Grants<Lab> for Receiver {
    fn granted(&self, token: u64, result: Acquired) {
        self.results.lock().expect("no panic").push((token, result));
    }
}

impl Receiver {
    fn tokens(&self) -> Vec<u64> {
        self.results.lock().expect("no panic").iter().map(|(token, _)| *token).collect()
    }

    fn take(&self) -> Vec<(u64, Acquired)> {
        std::mem::take(&mut self.results.lock().expect("no panic"))
    }
}

fn ask(bench: &Bench, receiver: &Arc<Receiver>, token: u64) -> Ticket {
    let grants: Arc<dyn Grants<Lab>> = receiver.clone();
    match bench.pool.host(&"a").acquire_into(&AcquireOptions::default(), &grants, token) {
        Ok(Answer::Queued(ticket)) => ticket,
        other => panic!("queued: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn case_20_cancel_reports_false_once_dispatched() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let receiver = Arc::new(Receiver::default());
    let (first, second, third) = (ask(&bench, &receiver, 1), ask(&bench, &receiver, 2), ask(&bench, &receiver, 3));
    let host = bench.pool.host(&"a");
    assert!(host.cancel(first), "still queued");
    assert!(!host.cancel(first), "gone");
    drop(lease);
    assert_eq!(receiver.tokens(), [2]);
    assert!(!host.cancel(second), "dispatched");
    drop(receiver.take());
    assert_eq!(receiver.tokens(), [3], "a dropped lease passes on");
    assert!(!host.cancel(third));
}

#[tokio::test(start_paused = true)]
async fn callbacks_are_timed_out_by_the_pool() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let receiver = Arc::new(Receiver::default());
    let grants: Arc<dyn Grants<Lab>> = receiver.clone();
    let host = bench.pool.host(&"a");
    for (token, timeout) in [(1, 3 * SECOND), (2, SECOND)] {
        let options = AcquireOptions { timeout: Some(timeout), ..AcquireOptions::default() };
        assert!(matches!(host.acquire_into(&options, &grants, token), Ok(Answer::Queued(_))));
    }
    pass(SECOND).await;
    assert_eq!(receiver.tokens(), [2]);
    pass(2 * SECOND).await;
    assert_eq!(receiver.tokens(), [2, 1]);
    for (_, result) in receiver.take() {
        assert!(matches!(result, Err(AcquireError::Timeout { phase: Phase::Queue, .. })));
    }
    drop(lease);
    assert!(matches!(host.acquire_into(&AcquireOptions::default(), &grants, 3), Ok(Answer::Now(_))));
}

/// Drops each lease within the callback, as a receiver does that has lost interest.
struct Dropper(Mutex<Vec<u64>>);

impl Grants<Lab> for Dropper {
    fn granted(&self, token: u64, result: Acquired) {
        drop(result);
        self.0.lock().expect("no panic").push(token);
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_callbacks_that_drop_their_leases_does_not_recurse() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let dropper = Arc::new(Dropper(Mutex::default()));
    let grants: Arc<dyn Grants<Lab>> = dropper.clone();
    let host = bench.pool.host(&"a");
    for token in 0..10_000 {
        assert!(matches!(host.acquire_into(&AcquireOptions::default(), &grants, token), Ok(Answer::Queued(_))));
    }
    drop(lease);
    assert_eq!(*dropper.0.lock().expect("no panic"), (0..10_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn case_21_max_waiters_gives_queue_full_at_once_and_leaves_the_others() {
    let limits = Limits { max_waiters: 2, ..Limits::per_host(1) };
    let bench = build(Mode::At { capacity: None, after: ms(0) }, Some(1), limits, plain());
    let lease = bench.get("a").await;
    let (first, second) = (bench.queued("a").await, bench.queued("a").await);
    let error = bench.pool.acquire(&"a").await.expect_err("the queue is full");
    assert!(matches!(error, AcquireError::QueueFull { waiting: 2 }));
    drop(lease);
    drop(done(first).await);
    done(second).await;
}

#[tokio::test(start_paused = true)]
async fn case_22_a_zero_time_out_equals_try_acquire() {
    let mut bench = exclusive(1);
    let zero = AcquireOptions { timeout: Some(ms(0)), ..AcquireOptions::default() };
    let error = bench.pool.acquire_with(&"a", zero).await.expect_err("nothing is open");
    let tried = bench.pool.try_acquire(&"a").expect_err("nothing is open");
    assert_eq!(error.to_string(), tried.to_string());
    bench.want_no_dial().await;
    drop(bench.dialled("a").await);
    assert!(bench.pool.acquire_with(&"a", zero).await.is_ok());
    assert!(bench.pool.try_acquire(&"a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn case_26_cancelling_many_waiters_costs_each_the_same() {
    let bench = instant(1);
    let lease = bench.get("a").await;
    let receiver = Arc::new(Receiver::default());
    let host = bench.pool.host(&"a");
    let cost = |n: u64| {
        let tickets: Vec<_> = (0..n).map(|token| ask(&bench, &receiver, token)).collect();
        let began = cpu();
        // From the middle outwards, so that neither end of a list helps.
        let (left, right) = tickets.split_at(tickets.len() / 2);
        assert!(left.iter().rev().chain(right).all(|&ticket| host.cancel(ticket)));
        (cpu() - began).as_secs_f64() / n as f64
    };
    let best = |n| (0..3).map(|_| cost(n)).fold(f64::INFINITY, f64::min);
    let (few, many) = (best(1000), best(16_000));
    // Linear cancels would cost 16 times as much each.
    assert!(many < 6.0 * few, "each of 16,000 cost {many:.9} s, each of 1,000 {few:.9} s");
    assert_eq!(bench.pool.stats().gauges.waiting, 0);
    drop(lease);
}

/// Returns what this thread has used of the processor, which other tests do not disturb.
fn cpu() -> std::time::Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).expect("below a second"))
}

fn after(instant: std::time::Instant) -> AcquireOptions {
    AcquireOptions { opened_after: Some(instant), ..AcquireOptions::default() }
}

fn fresh(bench: &Bench, instant: std::time::Instant) -> tokio::task::JoinHandle<Acquired> {
    let pool = bench.pool.clone();
    tokio::spawn(async move { pool.acquire_with(&"a", after(instant)).await })
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_a_fresh_dial_and_an_idle_one_gives_way() {
    let mut bench = exclusive(1);
    drop(bench.dialled("a").await);
    pass(SECOND).await;
    let retry = fresh(&bench, now());
    let dial = bench.want_dial().await;
    assert_eq!(bench.closed(CloseReason::Evicted), 1);
    dial.ok().await;
    let lease: Lease<Lab> = done(retry).await;
    assert!(!lease.reused());
    drop(lease);
    let instant = now() - SECOND / 2;
    assert!(bench.pool.acquire_with(&"a", after(instant)).await.expect("young enough").reused());
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_neither_overtaken_for_ever_nor_overtakes() {
    let mut bench = exclusive(1);
    let lease = bench.dialled("a").await;
    pass(SECOND).await;
    let (before, retry) = (bench.queued("a").await, fresh(&bench, now()));
    settle().await;
    let behind = bench.queued("a").await;
    drop(lease);
    let lease = done(before).await;
    want_waiting(&retry).await;
    drop(lease);
    // Now the retry is first: the returned connection makes room for its dial.
    bench.want_dial().await.ok().await;
    let lease = done(retry).await;
    want_waiting(&behind).await;
    drop(lease);
    assert!(done(behind).await.reused());
}

#[tokio::test(start_paused = true)]
async fn a_retry_on_a_busy_shared_connection_is_not_starved() {
    let mut bench = multiplexed(1);
    let task = bench.queued("a").await;
    bench.want_dial().await.shared(10).await;
    let lease = done(task).await;
    pass(SECOND).await;
    let retry = fresh(&bench, now());
    want_waiting(&retry).await;
    let other = bench.queued("a").await;
    want_waiting(&other).await;
    drop(lease);
    bench.want_dial().await.shared(10).await;
    done(retry).await;
    done(other).await;
}
