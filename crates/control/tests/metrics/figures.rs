//! The figures are those of the daemon.

use std::{sync::Arc, time::Duration};

use keepwarm_control::metrics::{unknown_counters, unknown_figures};
use keepwarm_control::{
    Snapshots as _,
    rows::{PoolRow, Stats, UpstreamRow},
};
use keepwarm_pool::{Limits, NamedPool, Steer};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    exposition::scraped,
    fake::{COUNTERS, Fake, Still, lab},
};

#[tokio::test]
async fn the_acquires_of_a_real_pool_add_up_by_result_and_its_connections_by_state() {
    let pool = lab(Limits { max_waiters: 8, ..Limits::per_host(2) });
    let held = (pool.acquire(&1).await.unwrap(), pool.acquire(&1).await.unwrap());
    drop(pool.acquire(&2).await.unwrap());
    drop(pool.acquire(&2).await.unwrap());
    pool.acquire(&0).await.unwrap_err();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { drop(pool.acquire(&1).await) }
    });
    while pool.stats().gauges.waiting == 0 {
        tokio::task::yield_now().await;
    }
    let given_up = tokio::spawn({
        let pool = pool.clone();
        async move { drop(pool.acquire(&1).await) }
    });
    while pool.stats().gauges.waiting == 1 {
        tokio::task::yield_now().await;
    }
    given_up.abort();
    given_up.await.unwrap_err();

    let mut fake = Fake::of(&[], 0);
    fake.pools.push(NamedPool { name: "lab".into(), pool: Arc::new(pool.clone()) });
    let seen = scraped(fake).await;
    let counters = pool.stats().counters;
    assert_eq!(seen.value("keepwarm_pool_waiters pool=lab"), 1.0);
    assert_eq!(seen.sum("keepwarm_pool_acquires_total", "pool=lab") + 1.0, counters.acquires as f64);
    assert_eq!(seen.value("keepwarm_pool_acquires_total pool=lab result=hit"), counters.hits as f64);
    assert_eq!(seen.value("keepwarm_pool_acquires_total pool=lab result=cancelled"), 1.0);
    assert_eq!(seen.value("keepwarm_pool_acquires_total pool=lab result=error"), 1.0);
    assert_eq!(seen.value("keepwarm_pool_acquire_errors_total kind=dial pool=lab"), 1.0);
    assert_eq!(
        seen.value("keepwarm_pool_dial_errors_total kind=refused pool=lab"),
        counters.dial_errors_total() as f64
    );
    assert_eq!(seen.value("keepwarm_pool_reused_total pool=lab"), 1.0);
    assert_eq!(seen.value("keepwarm_pool_hosts_full pool=lab"), 1.0);
    assert_eq!(seen.value("keepwarm_pool_connections pool=lab state=in_use"), 2.0);
    assert_eq!(seen.sum("keepwarm_pool_connections", "pool=lab"), 3.0);
    assert_eq!(seen.value("keepwarm_pool_limit limit=max_per_host pool=lab"), 2.0);
    assert_eq!(seen.value("keepwarm_pool_connect_duration_seconds_count phase=total pool=lab"), counters.opened as f64);

    drop(held);
    waiter.await.unwrap();
    Steer::flush(&pool, None);
    let mut fake = Fake::of(&[], 0);
    fake.pools.push(NamedPool { name: "lab".into(), pool: Arc::new(pool.clone()) });
    let seen = scraped(fake).await;
    assert_eq!(seen.value("keepwarm_pool_acquires_total pool=lab result=waited"), pool.stats().counters.waited as f64);
    let (opened, closed) = ("keepwarm_pool_opened_total pool=lab", "keepwarm_pool_closed_total");
    assert_eq!(seen.value(opened), seen.sum(closed, "pool=lab"));
    assert_eq!(seen.value("keepwarm_pool_closed_total pool=lab reason=flushed"), seen.value(opened));
}

#[tokio::test]
async fn a_dial_counts_in_the_phases_that_it_came_to_and_in_no_other() {
    let pool = lab(Limits::per_host(2));
    for key in [1, 2, 4] {
        drop(pool.acquire(&key).await.unwrap());
    }
    pool.acquire(&0).await.unwrap_err();
    let named = NamedPool { name: "lab".into(), pool: Arc::new(pool.clone()) };
    let row = PoolRow::from(&named);
    let shown: Vec<_> = row.dial_phases.iter().map(|(phase, times)| (phase.as_str(), times.count, times.max)).collect();
    let (connect, tls) = (Duration::from_micros(300), Duration::from_millis(3));
    assert_eq!(shown, [("connect", 3, Some(connect)), ("tls", 2, Some(tls))]);
    let mut fake = Fake::of(&[], 0);
    fake.pools.push(named);
    let seen = scraped(fake).await;
    let figure = |what: &str, phase: &str| {
        seen.value(&format!("keepwarm_pool_connect_duration_seconds_{what} phase={phase} pool=lab"))
    };
    let opened = pool.stats().counters.opened as f64;
    assert_eq!((figure("count", "total"), figure("count", "connect"), figure("count", "tls")), (opened, opened, 2.0));
    assert!((figure("sum", "connect") - 0.0009).abs() < 1e-9 && (figure("sum", "tls") - 0.006).abs() < 1e-9);
    let phases = seen.series.keys().filter(|series| series.starts_with("keepwarm_pool_connect_duration_seconds_count"));
    assert_eq!(phases.count(), 3, "no series of a phase that there was not");
}

#[tokio::test]
async fn a_draining_connection_has_one_state() {
    let seen = scraped(Fake::whole().await).await;
    let state = |state: &str| seen.value(&format!("keepwarm_pool_connections pool=dns state={state}"));
    assert_eq!((state("idle"), state("in_use"), state("draining")), (3.0, 4.0, 2.0));
    assert_eq!((state("validating"), state("dialing")), (1.0, 4.0));
    assert_eq!(seen.value("keepwarm_pool_oldest_wait_seconds pool=dns"), 1.5);
}

#[tokio::test]
async fn buckets_are_those_of_a_count_by_hand() {
    let mut rng = StdRng::seed_from_u64(7);
    // From nothing to beyond the last bound, as many in each power of two, and the bounds themselves with their neighbours.
    let mut micros: Vec<u64> = (0..4000).map(|n| rng.random_range(0..=1_u64 << (n % 36))).collect();
    micros.extend((9..36).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
    let mut pool = Still(keepwarm_pool::Stats::default());
    for micros in &micros {
        pool.0.wait.record(Duration::from_micros(*micros));
        pool.0.lease.record(Duration::from_micros(*micros));
    }
    let mut fake = Fake::of(&[], 0);
    fake.pools.push(NamedPool { name: "p".into(), pool: Arc::new(pool) });
    let seen = scraped(fake).await;
    for metric in ["keepwarm_pool_wait_duration_seconds", "keepwarm_pool_lease_duration_seconds"] {
        let mut bounds = 0;
        for (series, count) in seen.series.iter().filter(|(series, _)| series.starts_with(&format!("{metric}_bucket")))
        {
            let bound: f64 = series.split("le=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            // What is exactly a bound counts above it; within a microsecond that is what `le` says.
            let by_hand = micros.iter().filter(|micros| (**micros as f64) < (bound * 1e6).round()).count();
            assert_eq!(*count, by_hand as f64, "{series}");
            bounds += 1;
        }
        assert!((13..=17).contains(&bounds), "{bounds}");
        assert_eq!(seen.value(&format!("{metric}_count pool=p")), micros.len() as f64);
        let sum = micros.iter().sum::<u64>() as f64 / 1e6;
        assert!((seen.value(&format!("{metric}_sum pool=p")) - sum).abs() < 1e-3);
    }
}

#[tokio::test]
async fn no_counter_of_the_daemon_is_forgotten() {
    let fake = Fake::whole().await;
    let stats = fake.stats();
    assert_eq!(unknown_counters(&stats), Vec::<&str>::new());
    assert_eq!(unknown_figures(&fake.upstreams), Vec::<&str>::new());
    // Each value is another one, and each is in the scrape, but those that are shown by reason or as seconds.
    let seen = scraped(fake).await;
    for name in
        COUNTERS.iter().filter(|name| !["tunnel_failed", "tunnel_handshakes_failed", "cpu_micros"].contains(name))
    {
        let value = stats.counters[*name] as f64;
        assert!(seen.series.values().any(|seen| *seen == value), "{name}");
    }
    assert_eq!(seen.value("keepwarm_https_requests_total outcome=answered"), stats.counters["https_answered"] as f64);
    assert_eq!(seen.value("keepwarm_tunnel_failed_total reason=refused"), 17.0);
    let cpu = stats.counters["cpu_micros"] as f64 / 1e6;
    assert_eq!(seen.value("process_cpu_seconds_total"), cpu);
    let new = Stats { counters: [("new_thing".to_owned(), 1)].into(), ..Stats::default() };
    assert_eq!(unknown_counters(&new), ["new_thing"]);
    let new = UpstreamRow { figures: [("new_thing".to_owned(), 1)].into(), ..UpstreamRow::default() };
    assert_eq!(unknown_figures(&[new]), ["new_thing"]);
}

#[tokio::test]
async fn upstreams_have_series_where_the_config_names_them_and_addresses_never() {
    let mut fake = Fake::whole().await;
    // The same name over the same transport twice, told apart by the address alone: Prometheus would refuse two series.
    let twin = fake.upstreams[3].clone();
    fake.upstreams.push(twin);
    let (requests, failed) = (fake.upstreams[3].requests as f64, fake.failed);
    let seen = scraped(fake).await;
    assert!(!failed);
    let at = "service=dns transport=tls upstream";
    assert_eq!(seen.value(&format!("keepwarm_upstream_up {at}=up-0")), 0.0);
    assert_eq!(seen.value(&format!("keepwarm_upstream_breaker_state {at}=up-0")), 2.0);
    assert_eq!(seen.value(&format!("keepwarm_upstream_up {at}=up-3")), 1.0);
    assert_eq!(seen.value(&format!("keepwarm_upstream_requests_total {at}=up-3")), 2.0 * requests);
    assert_eq!(seen.value(&format!("keepwarm_upstream_latency_seconds_count {at}=up-3")), 100.0);
    assert_eq!(
        seen.value("keepwarm_upstream_handshakes_total kind=resumed service=https transport=https upstream=up-1"),
        31.0
    );
    assert_eq!(
        seen.value("keepwarm_upstream_addresses service=https state=quarantined transport=https upstream=up-1"),
        6.0
    );
    assert_eq!(seen.value("keepwarm_upstream_spares_target service=tunnel transport=socks5 upstream=up-2"), 7.0);
    for series in seen.series.keys() {
        assert!(
            !series.contains("client.example") && !series.contains("destination") && !series.contains("192.0.2"),
            "{series}"
        );
    }
}

#[tokio::test]
async fn the_daemon_tells_of_its_config_its_certificate_and_its_process() {
    let mut fake = Fake::whole().await;
    fake.failed = true;
    let seen = scraped(fake).await;
    assert_eq!(seen.value("keepwarm_config_last_reload_success"), 0.0);
    assert_eq!(seen.value("keepwarm_config_generation"), 3.0);
    assert_eq!(seen.value("keepwarm_certificate_not_after_seconds"), 1.9e9);
    assert_eq!(seen.value("process_start_time_seconds"), 1_799_999_900.0);
    assert!(
        seen.series.keys().any(|series| series.starts_with("keepwarm_build_info") && series.contains("version=9.9.9"))
    );
    if cfg!(target_os = "linux") {
        assert!(seen.value("process_resident_memory_bytes") > 1e6);
        assert!(seen.value("process_open_fds") >= 3.0 && seen.value("process_open_fds") < 10_000.0);
    }
    assert_eq!(scraped(Fake::whole().await).await.value("keepwarm_config_last_reload_success"), 1.0);
}
