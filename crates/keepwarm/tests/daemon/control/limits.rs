//! Limits at run time, under load.

use std::time::Duration;

use keepwarm_control::{
    client,
    rows::{LimitsPatch, PoolDetail, PoolDone, StatusRow},
};
use tokio::time::Instant;

use super::{load::Load, support::Plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_shrinks_from_ten_to_two_and_back_under_load() {
    let mut plane = Plane::new(Duration::from_millis(20)).await;
    let pool =
        "[dns.cache]\nsize = \"0\"\n[dns.pool]\nmax_in_flight = 2\nmax_per_host = 10\nacquire_timeout = \"14s\"\n";
    let config = plane.config(&format!("{pool}{}", plane.upstream("lab", "tcp", 0)), &plane.exit());
    plane.start(&config).await;
    // Two connections carry 200 of them a second, at 20 ms each; ten carry 1,000.
    let load = Load::start(plane.dns, 150);
    let limit = async |max: usize| {
        let patch = LimitsPatch { max_per_host: Some(max), ..LimitsPatch::default() };
        client::patch::<PoolDone>(plane.control, "/api/v1/pools/dns", &patch).await.unwrap()
    };
    let open = async || {
        let detail: PoolDetail = client::get(plane.control, "/api/v1/pools/dns").await.unwrap();
        let host = &detail.hosts[0];
        (host.gauges.open, host.gauges.draining, detail.pool.limits.max_per_host)
    };
    for round in 0..3 {
        assert_eq!(limit(2).await.pool.limits.max_per_host, 2);
        let since = Instant::now();
        loop {
            let (open, draining, max) = open().await;
            assert_eq!(max, 2);
            if open <= 2 && draining == 0 {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "round {round}: {open} are open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("round {round}: true after {:?}", since.elapsed());
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(open().await.0 <= 2);
        }
        assert_eq!(limit(10).await.pool.limits.max_per_host, 10);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let status: StatusRow = client::get(plane.control, "/api/v1/status").await.unwrap();
    assert_eq!(status.config.changed_at_run_time, ["dns.max_per_host"]);
    let outcome = load.stop().await;
    println!("{outcome:?}");
    assert_eq!((outcome.answered, outcome.wrong), (outcome.asked, 0), "{outcome:?}");
    assert!(plane.labs[0].counters().tcp.open_max <= 10);
}
