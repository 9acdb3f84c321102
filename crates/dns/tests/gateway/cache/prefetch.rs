//! Popular answers, asked for again before their end.

use std::time::Duration;

use keepwarm_lab::Faults;

use super::*;

/// Seconds that answers of these tests live: long enough for a tenth that a busy machine does not miss.
const LIFE: u64 = 3;

async fn bench(change: impl FnOnce(&mut keepwarm_dns::config::DnsConfig)) -> Bench {
    Bench::cached([Faults { ttl: 3, ..Faults::default() }], |config| {
        config.timeout = Duration::from_secs(30);
        // Questions in flight are a worker's own; here all clients meet the same ones.
        config.workers = 1;
        change(config);
    })
    .await
}

/// Has an answer, uses it so often, and waits for the last tenth of its life. `false` when the machine was too slow and that
/// is over.
async fn last_tenth(bench: &Bench, name: &str, hits: usize) -> bool {
    let before = tokio::time::Instant::now();
    for _ in 0..=hits {
        answer(bench, &query(name, 1)).await;
    }
    // The answer is at least as old as this test knows of it, when it knows that it was received.
    tokio::time::sleep(Duration::from_millis(LIFE * 900)).await;
    before.elapsed() < Duration::from_millis(LIFE * 1000 - 150)
}

/// What `last_tenth` waited for, with the name; another name is tried when the machine was too slow.
async fn popular(bench: &Bench, hits: usize) -> String {
    for number in 0..8 {
        let name = format!("popular{number}.example");
        if last_tenth(bench, &name, hits).await {
            return name;
        }
    }
    panic!("the machine is too slow for this test");
}

#[tokio::test]
async fn one_hit_near_the_end_asks_once_and_the_answer_lives_on() {
    let bench = bench(|_| {}).await;
    let name = popular(&bench, 3).await;
    let (asked_before, misses) = (asked(&bench), bench.server.status().cache_misses);
    answer(&bench, &query(&name, 1)).await;
    until("the upstream is asked", async || asked(&bench) == asked_before + 1).await;
    until("the new answer is there", async || ttl(&answer(&bench, &query(&name, 1)).await) > 1).await;
    for _ in 0..10 {
        answer(&bench, &query(&name, 1)).await;
    }
    let status = bench.server.status();
    assert_eq!((asked(&bench), status.cache_prefetches), (asked_before + 1, 1));
    assert_eq!((status.cache_misses, status.cache_stale), (misses, 0), "no client waited");
    bench.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_the_upstream_and_its_failure_is_nobodys() {
    let bench = bench(|_| {}).await;
    let name = popular(&bench, 3).await;
    let misses = bench.server.status().cache_misses;
    bench.labs[0].update_faults(|faults| faults.silent = true);
    let questions_before = questions(&bench);
    for _ in 0..5 {
        answer(&bench, &query(&name, 1)).await;
    }
    let status = bench.server.status();
    assert_eq!((status.cache_prefetches, status.cache_misses, status.cache_stale), (1, misses, 0));
    assert_eq!(questions(&bench), questions_before + 1);
    // Past the end of the answer a client joins the question that still waits, and has its own time for it.
    tokio::time::sleep(Duration::from_millis(LIFE * 100)).await;
    let stale = answer(&bench, &query(&name, 1)).await;
    assert_eq!(extended_error(&stale), Some(3));
    let status = bench.server.status();
    assert_eq!((status.cache_stale, status.coalesced, status.failed), (1, 1, 0));
    assert_eq!(questions(&bench), questions_before + 1);
    bench.stop().await;
}

#[tokio::test]
async fn the_failure_of_a_prefetch_leaves_the_answer_in_its_place() {
    let bench = bench(|_| {}).await;
    let name = popular(&bench, 3).await;
    bench.labs[0].update_faults(|faults| faults.rcode = Some(2));
    let asked_before = asked(&bench);
    answer(&bench, &query(&name, 1)).await;
    until("the upstream is asked", async || bench.pool(0).answers == asked_before + 1).await;
    for _ in 0..5 {
        answer(&bench, &query(&name, 1)).await;
    }
    let status = bench.server.status();
    assert_eq!((asked(&bench), status.cache_prefetches, status.failed), (asked_before + 1, 1, 0));
    bench.stop().await;
}

#[tokio::test]
async fn who_is_not_popular_or_does_not_want_it_is_not_asked_for() {
    for (hits, prefetch) in [(1, true), (5, false)] {
        let bench = bench(|config| config.cache.prefetch = prefetch).await;
        let name = popular(&bench, hits).await;
        let asked_before = asked(&bench);
        answer(&bench, &query(&name, 1)).await;
        // A question that the hit had asked would be on its way before this one.
        assert_eq!(bench.ask("after.example").await, Ok(()));
        let status = bench.server.status();
        assert_eq!((asked(&bench), status.cache_prefetches), (asked_before + 1, 0), "{hits} hits, {prefetch}");
        bench.stop().await;
    }
}
