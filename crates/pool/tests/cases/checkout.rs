//! Checkout and return, cases 1 to 10.

use keepwarm_pool::{AcquireError, CloseReason, EventKind, Limits, Options, Policy};

use crate::lab::*;

#[tokio::test(start_paused = true)]
async fn case_1_sequential_acquires_reuse_the_connection() {
    let bench = instant(4);
    let first = bench.get("a").await;
    assert!(!first.reused());
    let id = first.id();
    drop(first);
    for _ in 0..5 {
        pass(SECOND).await;
        let lease = bench.get("a").await;
        assert!(lease.reused() && lease.id() == id && lease.waited().is_zero());
        assert_eq!(lease.idle_for(), SECOND);
    }
    let counters = bench.pool.stats().counters;
    assert_eq!((counters.acquires, counters.hits, counters.dials, counters.reused), (6, 5, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn case_2_a_leased_exclusive_connection_is_never_given_twice() {
    let bench = instant(4);
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    assert_ne!(a.id(), b.id());
    assert!(matches!(bench.pool.try_acquire(&"a"), Err(AcquireError::Timeout { .. })));
    a.slot.set_capacity(10);
    assert!(bench.pool.try_acquire(&"a").is_err(), "an exclusive connection stays exclusive");
}

#[tokio::test(start_paused = true)]
async fn case_3_above_max_idle_per_host_the_returned_one_is_closed() {
    let limits = Limits { max_idle_per_host: 1, ..Limits::per_host(4) };
    let bench = build(Mode::At { capacity: None, after: ms(0) }, Some(1), limits, plain());
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    let kept = a.id();
    drop(a);
    drop(b);
    bench.want_open(1).await;
    assert_eq!(bench.get("a").await.id(), kept);
    assert_eq!(bench.closed(CloseReason::MaxIdle), 1);
}

#[tokio::test(start_paused = true)]
async fn case_4_above_global_max_idle_the_globally_oldest_is_closed() {
    let limits = Limits { max_idle: 2, max_idle_per_host: 2, max_total: 10, ..Limits::per_host(4) };
    let bench = build(Mode::At { capacity: None, after: ms(0) }, Some(1), limits, plain());
    let (a, b, c) = (bench.get("a").await, bench.get("b").await, bench.get("c").await);
    drop(b);
    pass(SECOND).await;
    drop(a);
    pass(SECOND).await;
    drop(c);
    bench.want_open(2).await;
    let idle = |key| bench.pool.host(&key).stats().gauges.idle;
    assert_eq!((idle("a"), idle("b"), idle("c")), (1, 0, 1));
    drop(bench.get("a").await);
    drop(bench.get("c").await);
    assert_eq!(bench.closed(CloseReason::MaxIdle), 1);
}

#[tokio::test(start_paused = true)]
async fn case_5_a_closed_or_poisoned_connection_is_not_put_back() {
    let bench = instant(4);
    let mut lease = bench.get("a").await;
    lease.poison();
    drop(lease);
    let lease = bench.get("a").await;
    assert!(!lease.reused());
    lease.slot.closed(CloseReason::PeerReset);
    assert_eq!(lease.number, 2, "the lease stays a valid object");
    drop(lease);
    bench.want_open(0).await;
    assert_eq!((bench.closed(CloseReason::Poisoned), bench.closed(CloseReason::PeerReset)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_5_a_connection_that_is_not_reusable_serves_once() {
    let mut bench = exclusive(4);
    let task = bench.queued("a").await;
    bench.want_dial().await.once().await;
    drop(done(task).await);
    bench.want_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn case_7_return_to_a_closed_pool_just_closes() {
    let bench = instant(4);
    let lease = bench.get("a").await;
    assert_eq!(bench.pool.drain(now()).await, 1);
    bench.want_open(1).await;
    drop(lease);
    bench.want_open(0).await;
    assert!(matches!(bench.pool.acquire(&"a").await, Err(AcquireError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn case_8_detach_removes_it_from_the_counts_and_opens_capacity() {
    let mut bench = exclusive(1);
    let lease = bench.dialled("a").await;
    let next = bench.queued("a").await;
    bench.want_no_dial().await;
    let wire = lease.detach().expect("an exclusive connection");
    bench.want_dial().await.ok().await;
    let next = done(next).await;
    bench.want_open(2).await;
    assert_ne!(wire.number, next.number);
    drop(wire);
    bench.want_open(1).await;
    assert_eq!(bench.pool.stats().gauges.open, 1);
}

#[tokio::test(start_paused = true)]
async fn case_8_detach_of_a_shared_connection_gives_the_lease_back() {
    let bench = build(Mode::At { capacity: Some(2), after: ms(0) }, None, Limits::per_host(1), plain());
    let (a, b) = (bench.get("a").await, bench.get("a").await);
    let a = a.detach().expect_err("b shares it");
    drop(b);
    assert_eq!(a.detach().expect("alone now").number, 1);
    bench.want_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn case_9_a_used_connection_is_preferred_to_one_never_used() {
    let mut bench = exclusive(4);
    let first = bench.dialled("a").await;
    let id = first.id();
    let task = bench.queued("a").await;
    let dial = bench.want_dial().await;
    drop(first);
    drop(done(task).await);
    dial.ok().await;
    assert_eq!(bench.get("a").await.id(), id);
}

#[tokio::test(start_paused = true)]
async fn case_10_policies_are_observable() {
    for (policy, expected) in
        [(Policy::Mru, [3, 3, 3]), (Policy::RoundRobin, [1, 2, 3]), (Policy::OldestWithRoom, [1, 1, 1])]
    {
        let options = Options { policy, ..plain() };
        let bench = build(Mode::At { capacity: None, after: ms(0) }, Some(1), Limits::per_host(3), options);
        let leases = [bench.get("a").await, bench.get("a").await, bench.get("a").await];
        for lease in leases {
            drop(lease);
            pass(ms(10)).await;
        }
        let mut seen = [0; 3];
        for number in &mut seen {
            *number = bench.get("a").await.number;
        }
        assert_eq!(seen, expected, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_90_dropping_the_pool_frees_everything() {
    let mut bench = exclusive(4);
    drop(bench.dialled("a").await);
    let leased = bench.dialled("b").await;
    let dialing = bench.queued("c").await;
    let dial = bench.want_dial().await;
    dialing.abort();
    settle().await;
    let pool = std::mem::replace(&mut bench.pool, instant(1).pool);
    drop(pool);
    settle().await;
    assert!(dial.is_cancelled());
    bench.want_open(1).await;
    assert_eq!(*leased.key(), "b");
    drop(leased);
    bench.want_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn case_93_events_come_in_order() {
    let bench = instant(4);
    let mut events = bench.pool.subscribe();
    let mut lease = bench.get("a").await;
    lease.poison();
    drop(lease);
    settle().await;
    let expected = [
        EventKind::Created,
        EventKind::Ready,
        EventKind::Leased,
        EventKind::Released,
        EventKind::Closed(CloseReason::Poisoned),
    ];
    assert_eq!(kinds(&mut events), expected);
}

#[tokio::test(start_paused = true)]
async fn events_print_as_log_lines() {
    let bench = instant(3);
    let mut events = bench.pool.subscribe();
    drop(bench.get("a").await);
    let line = events.try_recv().expect("an event");
    assert_eq!((line.to_string().as_str(), line.key), ("created 1/3", "a"));
}

#[tokio::test(start_paused = true)]
async fn a_leak_names_the_place_of_the_acquire() {
    let options = Options { leak_after: Some(SECOND), ..plain() };
    let bench = build(Mode::At { capacity: None, after: ms(0) }, Some(1), Limits::per_host(3), options);
    let mut events = bench.pool.subscribe();
    let line = line!() + 1;
    let lease = bench.pool.acquire(&"a").await.expect("a lease");
    let short = bench.pool.acquire(&"a").await.expect("a lease");
    pass(ms(900)).await;
    drop(short);
    pass(5 * SECOND).await;
    let leaks: Vec<_> = kinds(&mut events)
        .into_iter()
        .filter_map(|kind| match kind {
            EventKind::Leak { location, held } => Some((location.line(), location.file(), held)),
            _ => None,
        })
        .collect();
    assert_eq!(leaks, [(line, file!(), SECOND)]);
    assert_eq!(bench.pool.stats().counters.leaks, 1);
    drop(lease);
}
