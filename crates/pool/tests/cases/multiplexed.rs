//! Multiplexed connections, cases 54 to 62.

use keepwarm_pool::{CloseReason, Lease, Limits, Options, Policy};

use crate::lab::*;

async fn first(bench: &mut Bench, capacity: u32) -> Lease<Lab> {
    let task = bench.queued("a").await;
    bench.want_dial().await.shared(capacity).await;
    done(task).await
}

#[tokio::test(start_paused = true)]
async fn case_54_share_then_open_a_second_then_the_oldest_with_room() {
    let options = Options { policy: Policy::OldestWithRoom, ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let mut leases = vec![first(&mut bench, 2).await];
    leases.push(bench.get("a").await);
    assert_eq!(leases[0].id(), leases[1].id());
    let third = bench.queued("a").await;
    bench.want_dial().await.shared(2).await;
    leases.push(done(third).await);
    assert_ne!(leases[2].id(), leases[0].id());
    leases.remove(0);
    assert_eq!(bench.get("a").await.number, 1, "the oldest has room again");
    let counters = bench.pool.stats().counters;
    assert_eq!((counters.shared_hits, counters.dials), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn case_55_and_57_concurrent_first_acquires_make_one_dial_that_serves_all() {
    let mut bench = multiplexed(4);
    let mut tasks = Vec::new();
    for _ in 0..100 {
        tasks.push(bench.queued("a").await);
    }
    let dial = bench.want_dials(1).await.pop().expect("one dial");
    dial.shared(100).await;
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(done(task).await);
    }
    assert!(leases.iter().all(|lease| lease.number == 1));
    bench.want_no_dial().await;
    assert_eq!(bench.pool.stats().gauges.in_flight, 100);
}

#[tokio::test(start_paused = true)]
async fn case_55_once_the_capacity_is_known_as_many_dials_as_needed() {
    let mut bench = multiplexed(4);
    let mut tasks = Vec::new();
    for _ in 0..10 {
        tasks.push(bench.queued("a").await);
    }
    bench.want_dials(1).await.pop().expect("one dial").shared(4).await;
    for dial in bench.want_dials(2).await {
        dial.shared(4).await;
    }
    for task in tasks {
        done(task).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_56_the_first_asker_of_a_shared_dial_is_cancelled() {
    let mut bench = multiplexed(4);
    let (asker, other) = (bench.queued("a").await, bench.queued("a").await);
    let dial = bench.want_dial().await;
    asker.abort();
    settle().await;
    assert!(!dial.is_cancelled());
    dial.shared(10).await;
    done(other).await;
    bench.want_no_dial().await;
}

#[tokio::test(start_paused = true)]
async fn case_58_the_peer_lowers_raises_and_zeroes_its_limit() {
    let mut bench = multiplexed(1);
    let a = first(&mut bench, 3).await;
    let b = bench.get("a").await;
    a.slot.set_capacity(1);
    let waiting = bench.queued("a").await;
    want_waiting(&waiting).await;
    a.slot.set_capacity(3);
    let c = done(waiting).await;
    a.slot.set_capacity(0);
    drop((b, c));
    let waiting = bench.queued("a").await;
    want_waiting(&waiting).await;
    a.slot.set_capacity(2);
    done(waiting).await;
    bench.want_no_dial().await;
    assert_eq!(bench.pool.host(&"a").stats().capacity, Some(2));
}

#[tokio::test(start_paused = true)]
async fn case_58_a_limit_set_before_the_dial_ends_counts() {
    let mut bench = multiplexed(2);
    let (a, b) = (bench.queued("a").await, bench.queued("a").await);
    let dial = bench.want_dial().await;
    dial.slot.set_capacity(2);
    dial.shared(1).await;
    assert_eq!(done(a).await.number, done(b).await.number);
}

#[tokio::test(start_paused = true)]
async fn case_59_goaway_no_new_leases_in_flight_finish_then_closed() {
    let mut bench = multiplexed(2);
    let a = first(&mut bench, 10).await;
    let b = bench.get("a").await;
    a.slot.drain();
    let next = bench.queued("a").await;
    bench.want_dial().await.shared(10).await;
    let next = done(next).await;
    assert_ne!(next.id(), a.id());
    assert_eq!(bench.pool.stats().gauges.draining, 1);
    drop(a);
    bench.want_open(2).await;
    drop(b);
    bench.want_open(1).await;
    assert_eq!(bench.closed(CloseReason::GoAway), 1);
}

#[tokio::test(start_paused = true)]
async fn case_61_max_uses_leads_to_draining() {
    let options = Options { max_uses: Some(3), ..plain() };
    let mut bench = build(Mode::Owned, None, Limits::per_host(4), options);
    let a = first(&mut bench, 10).await;
    let (b, c) = (bench.get("a").await, bench.get("a").await);
    assert_eq!((a.id(), b.id()), (b.id(), c.id()));
    let next = bench.queued("a").await;
    bench.want_dial().await.shared(10).await;
    assert_ne!(done(next).await.id(), a.id());
    drop((a, b, c));
    assert_eq!(bench.closed(CloseReason::MaxUses), 1);
}

#[tokio::test(start_paused = true)]
async fn case_62_least_loaded_differs_by_at_most_one() {
    let options = Options { policy: Policy::LeastLoaded, ..plain() };
    let bench = build(Mode::At { capacity: Some(100), after: ms(0) }, None, Limits::per_host(5), options);
    bench.pool.warm_up(&"a", 5).await.expect("five connections");
    let mut leases = Vec::new();
    let loads = |leases: &[Lease<Lab>]| {
        let mut loads = [0; 5];
        leases.iter().for_each(|lease| loads[usize::try_from(lease.number).expect("small") - 1] += 1);
        loads
    };
    for _ in 0..57 {
        leases.push(bench.get("a").await);
        let loads = loads(&leases);
        let (least, most) = (loads.iter().min().expect("five"), loads.iter().max().expect("five"));
        assert!(most - least <= 1, "{loads:?}");
    }
    // One that has come to carry less gets what comes next.
    leases.retain(|lease| lease.number != 3);
    for _ in 0..10 {
        leases.push(bench.get("a").await);
    }
    assert_eq!(loads(&leases)[2], 10);
}

#[tokio::test(start_paused = true)]
async fn max_in_flight_caps_what_the_peer_allows_and_can_be_raised() {
    let limits = Limits { max_in_flight: 2, ..Limits::per_host(1) };
    let mut bench = build(Mode::Owned, None, limits, plain());
    let _a = first(&mut bench, 100).await;
    let _b = bench.get("a").await;
    let third = bench.queued("a").await;
    want_waiting(&third).await;
    bench.pool.set_limits(Limits { max_in_flight: 3, ..limits }).expect("good limits");
    done(third).await;
}
