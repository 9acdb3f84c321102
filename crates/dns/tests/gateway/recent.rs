//! Slow and failed queries are remembered with their story, and pools can be steered by their names.

use std::time::Duration;

use keepwarm_dns::config::{QueryLogPrivacy, QueryLogSettings, Strategy, Transport};
use keepwarm_lab::Faults;

use crate::support::*;

#[tokio::test]
async fn slow_and_failed_queries_are_remembered_and_fast_ones_are_not() {
    let slow = Faults { delay: Duration::from_millis(120), ..Faults::default() };
    let bench = Bench::with(Transport::Tcp, [slow], |config| config.slow = Duration::from_millis(60)).await;
    bench.ask("secret.example").await.unwrap();
    let recent = bench.server.recent();
    assert_eq!(recent.len(), 1);
    let exchange = recent[0].exchange.as_ref().unwrap();
    assert_eq!((&*exchange.upstream, exchange.transport, recent[0].qtype), ("lab0", "tcp", 1));
    assert!(recent[0].total >= Duration::from_millis(120) && exchange.exchange <= recent[0].total);
    assert!(!recent[0].is_failed() && recent[0].rcode.as_deref() == Some("NOERROR"));
    assert!(recent[0].explanation.starts_with("lab0 over tcp: "), "{}", recent[0].explanation);
    assert!(recent[0].explanation.ends_with("(1 attempt)"), "{}", recent[0].explanation);
    assert!(!format!("{recent:?}").contains("secret"), "the query log's privacy is not full");
    let durations = bench.server.durations();
    assert_eq!((durations.count(), bench.pool(0).latencies.count()), (1, 1));
    assert!(durations.max() >= Duration::from_millis(120));
    bench.stop().await;

    let bench = Bench::plain(Transport::Udp).await;
    bench.ask("fast.example").await.unwrap();
    assert!(bench.server.recent().is_empty());
    assert_eq!(bench.server.durations().count(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn of_failed_queries_the_last_ones_stay_and_names_only_where_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let file = Some(folder.path().join("queries"));
    let refused = Faults { refuse: true, ..Faults::default() };
    let failing = Faults { rcode: Some(2), ..Faults::default() };
    let bench = Bench::with(Transport::Tcp, [refused, failing], |config| {
        config.strategy = Strategy::Sequential;
        config.query_log = QueryLogSettings { privacy: QueryLogPrivacy::Full, file, ..config.query_log.clone() };
    })
    .await;
    assert_eq!(rcode(&exchange_udp(bench.address, &query("bad.example", 28)).await.unwrap()), 2);
    let recent = bench.server.recent();
    assert_eq!((recent[0].name.as_deref(), recent[0].qtype), (Some("bad.example."), 28));
    assert!(recent[0].is_failed() && recent[0].attempts.len() >= 2, "{:?}", recent[0]);
    assert!(recent[0].error.is_some());
    let first = recent[0].at;
    for number in 0..40 {
        exchange_udp(bench.address, &query(&format!("q{number}.example"), 1)).await.unwrap();
    }
    let recent = bench.server.recent();
    assert!(recent.len() > 1 && recent.len() <= 128);
    assert!(recent.last().unwrap().at == first && recent[0].at >= first, "the latest comes first");
    bench.stop().await;
}

#[tokio::test]
async fn a_paused_pool_tells_its_clients_and_serves_again_when_it_is_resumed() {
    for (transport, pool) in [(Transport::Udp, 1), (Transport::Tcp, 0)] {
        let bench = Bench::plain(transport).await;
        bench.ask("before.example").await.unwrap();
        let pools = bench.server.named_pools();
        assert_eq!(pools.iter().map(|pool| &*pool.name).collect::<Vec<_>>(), ["dns", "dns.udp"]);
        let pool = &pools[pool].pool;
        let hosts = pool.hosts();
        assert_eq!(hosts.len(), 1);
        let url = bench.pool(0).address;
        assert_eq!(hosts[0].name, format!("lab0 {url}"));
        assert_eq!(pool.pause(Some(&hosts[0].name)), 1);
        let answer = exchange_udp(bench.address, &query("during.example", 1)).await.unwrap();
        assert_eq!(rcode(&answer), 2, "at once, and not by silence");
        let recent = bench.server.recent();
        assert!(recent[0].is_failed() && recent[0].explanation.contains("paused"), "{}", recent[0].explanation);
        assert_eq!(bench.pool(0).breaker, "closed", "the upstream is not to blame");
        assert_eq!(pool.resume(None), 1);
        bench.ask("after.example").await.unwrap();
        assert_eq!(pool.flush(None), 1);
        bench.ask("flushed.example").await.unwrap();
        bench.stop().await;
    }
}

#[tokio::test]
async fn the_limits_of_udp_pools_are_those_of_all_workers_together() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| config.pool.max_per_host = 6).await;
    let pool = bench.server.named_pools().remove(1).pool;
    assert_eq!(pool.limits().max_per_host, 6);
    let lower = keepwarm_pool::Limits { max_per_host: 2, max_idle_per_host: 2, ..pool.limits() };
    pool.set_limits(lower).unwrap();
    assert_eq!((pool.limits(), bench.pool(0).max), (lower, 2));
    assert_eq!(storm(bench.address, "lower", 200, 40).await, Vec::<String>::new());
    assert!(pool.hosts()[0].connections.len() <= 2, "{:?}", pool.hosts());
    bench.stop().await;
}

#[tokio::test]
async fn names_are_forgotten_when_privacy_is_tightened_also_of_queries_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Faults { delay: Duration::from_millis(400), ..Faults::default() };
    let mut config = None;
    let bench = Bench::with(Transport::Tcp, [slow], |settings| {
        let file = Some(folder.path().join("queries"));
        settings.query_log = QueryLogSettings { privacy: QueryLogPrivacy::Full, file, ..settings.query_log.clone() };
        settings.slow = Duration::from_millis(60);
        config = Some(settings.clone());
    })
    .await;
    bench.ask("before.example").await.unwrap();
    assert_eq!(bench.server.recent()[0].name.as_deref(), Some("before.example."));
    let address = bench.address;
    let asked = tokio::spawn(async move { ask(address, "during.example").await });
    while bench.server.status().queries < 2 {
        tokio::task::yield_now().await;
    }
    let mut config = config.unwrap();
    config.query_log.privacy = QueryLogPrivacy::Hashed;
    bench.server.prepare(config).await.expect("the config is good").apply().await;
    assert_eq!((bench.server.recent().len(), bench.server.recent()[0].name.as_deref()), (1, None));
    asked.await.unwrap().unwrap();
    let recent = bench.server.recent();
    assert_eq!(recent.len(), 2);
    assert!(recent.iter().all(|query| query.name.is_none()), "{recent:?}");
    bench.stop().await;
}
