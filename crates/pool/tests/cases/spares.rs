//! Connections that serve once and are replaced before their peer closes them, as spares to a proxy are.

use std::time::Duration;

use keepwarm_pool::{CloseReason, IdlePolicy, Limits, Options, Policy};

use crate::lab::*;

const AT_ONCE: Mode = Mode::At { capacity: None, after: Duration::ZERO };

fn spares(count: usize, idle: IdlePolicy) -> Bench {
    let options =
        Options { idle_timeout: 30 * SECOND, idle, policy: Policy::Newest, cleanup_interval: ms(0), ..plain() };
    build(AT_ONCE, Some(1), Limits { min_idle: count, ..Limits::per_host(16) }, options)
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_them_is_leased_first_and_another_is_dialled_when_it_is_taken_out() {
    let bench = spares(3, IdlePolicy::default());
    drop(bench.pool.host(&"a"));
    pass(SECOND).await;
    bench.want_open(3).await;
    for expected in [3, 4, 5] {
        let taken = bench.get("a").await.detach().expect("an exclusive connection");
        assert_eq!(taken.number, expected);
        pass(ms(10)).await;
    }
    assert_eq!(bench.pool.stats().gauges.idle, 3);
}

#[tokio::test(start_paused = true)]
async fn they_are_replaced_one_by_one_when_they_are_old_and_never_all_together() {
    let idle = IdlePolicy { start: Some(12 * SECOND), jitter: 0.5, replace: true, ..IdlePolicy::default() };
    let bench = spares(8, idle);
    drop(bench.pool.host(&"a"));
    pass(5 * SECOND).await;
    let mut together = 0;
    for _ in 0..1200 {
        let before = bench.closed(CloseReason::IdleTimeout);
        pass(ms(100)).await;
        together = together.max(bench.closed(CloseReason::IdleTimeout) - before);
        assert_eq!(bench.pool.stats().gauges.idle, 8, "they are refilled at once");
    }
    assert!(bench.closed(CloseReason::IdleTimeout) >= 32, "all of them were replaced several times");
    assert!(together <= 4, "{together} of 8 at a time");
    let limit = bench.pool.host(&"a").stats().idle_limit;
    assert_eq!(limit, 30 * SECOND, "nothing was closed by the peer, so the assumed limit has grown");
}

#[tokio::test(start_paused = true)]
async fn a_dead_one_that_was_taken_out_is_learned_from() {
    let idle = IdlePolicy { start: Some(12 * SECOND), margin: 0.2, margin_max: 30 * SECOND, ..IdlePolicy::default() };
    let bench = spares(1, idle);
    let host = bench.pool.host(&"a");
    assert_eq!(host.stats().idle_limit, 12 * SECOND);
    host.stale(10 * SECOND);
    assert_eq!(host.stats().idle_limit, 8 * SECOND);
    assert_eq!(host.stats().counters.reuse_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ends_all_of_them_at_once_delays_their_refill_by_one_pause_not_by_one_for_each() {
    let mut bench = build(
        Mode::Owned,
        Some(1),
        Limits { min_idle: 4, max_dials_per_host: 4, ..Limits::per_host(8) },
        Options { idle_timeout: 30 * SECOND, backup_dial_after: None, ..plain() },
    );
    drop(bench.pool.host(&"a"));
    let mut slots = Vec::new();
    for _ in 0..4 {
        let dial = bench.want_dial().await;
        slots.push(dial.slot.clone());
        dial.ok().await;
    }
    bench.want_open(4).await;
    pass(SECOND).await;
    slots.iter().for_each(|slot| slot.closed(CloseReason::PeerClosed));
    pass(2 * SECOND).await;
    for _ in 0..4 {
        bench.want_dial().await.ok().await;
    }
    bench.want_open(4).await;
}
