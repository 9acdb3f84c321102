//! The second query and all after it: answered without an upstream, each as its client asked.

use std::time::Duration;

use keepwarm_lab::{Faults, answer_matches};
use tokio::net::UdpSocket;

use super::*;

#[tokio::test]
async fn the_second_query_is_a_hit_with_its_own_id_and_case_on_every_worker() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let first = answer(&bench, &query("www.example", 1)).await;
    // Each comes from another port, so that both workers get some.
    for name in ["www.example", "WWW.example", "wWw.eXaMpLe"].into_iter().cycle().take(30) {
        let hit = answer(&bench, &query(name, 1)).await;
        assert_eq!(hit.answers[0].data, first.answers[0].data);
        assert!(ttl(&hit) <= 60);
        assert_eq!(extended_error(&hit), None);
    }
    assert_eq!(asked(&bench), 1);
    let status = bench.server.status();
    assert_eq!((status.queries, status.cache_hits, status.cache_misses), (31, 30, 1));
    assert_eq!((status.cache_stale, status.cache_prefetches, status.cache_entries), (0, 0, 1));
    assert!(status.cache_bytes > 0);
    bench.stop().await;
}

#[tokio::test]
async fn ttls_count_down() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let before = tokio::time::Instant::now();
    assert_eq!(ttl(&answer(&bench, &query("down.example", 1)).await), 60);
    one_second_passes().await;
    let left = ttl(&answer(&bench, &query("down.example", 1)).await);
    let passed = u32::try_from(before.elapsed().as_secs()).unwrap();
    assert!((60 - passed..60).contains(&left), "{left} s left after {passed} s");
    assert_eq!(asked(&bench), 1);
    bench.stop().await;
}

#[tokio::test]
async fn ttls_stay_within_the_configured_limits() {
    let at_most = Bench::cached([Faults::default()], |config| config.cache.max_ttl = Duration::from_secs(20)).await;
    let at_least = Bench::cached([Faults::default()], |config| config.cache.min_ttl = Duration::from_secs(600)).await;
    for (bench, range) in [(at_most, 10..=20), (at_least, 590..=600)] {
        answer(&bench, &query("limits.example", 1)).await;
        let hit = answer(&bench, &query("limits.example", 1)).await;
        assert_eq!(asked(&bench), 1);
        assert!(range.contains(&ttl(&hit)), "{} s, not {range:?}", ttl(&hit));
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_ttl_of_zero_is_not_kept_unless_a_floor_raises_it() {
    for (floor, expected) in [(0, 3), (60, 1)] {
        let faults = Faults { ttl: 0, ..Faults::default() };
        let bench = Bench::cached([faults], |config| config.cache.min_ttl = Duration::from_secs(floor)).await;
        for _ in 0..3 {
            answer(&bench, &query("zero.example", 1)).await;
        }
        assert_eq!(asked(&bench), expected, "a floor of {floor} s");
        bench.stop().await;
    }
}

#[tokio::test]
async fn clients_over_udp_and_tcp_and_the_daemon_itself_share_answers() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let trace = bench.server.query("shared.example", 1).await.unwrap();
    assert!(!trace.cached && !trace.stale && trace.exchange.is_some());
    let mut client = TcpClient::connect(bench.address).await;
    let over_tcp = query("SHARED.example", 1);
    client.send(&over_tcp).await;
    assert_eq!(answer_matches(&over_tcp, &client.receive().await.unwrap()), Ok(()));
    answer(&bench, &query("shared.Example", 1)).await;
    let again = bench.server.query("shared.example", 1).await.unwrap();
    assert!(again.cached && !again.stale && again.exchange.is_none() && again.attempts.is_empty(), "{again:?}");
    assert_eq!(again.answer[2..], trace.answer[2..], "the same but for the id");
    assert_eq!((asked(&bench), bench.server.status().cache_hits), (1, 3));
    bench.stop().await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_is_kept_whole() {
    let bench = Bench::cached([Faults::default()], |_| {}).await;
    let query = query("big.example", 16);
    for _ in 0..2 {
        let cut = exchange_udp(bench.address, &query).await.unwrap();
        assert!(cut.len() <= 1232 && cut[2] & 2 != 0, "TC for a datagram");
    }
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query).await;
    assert_eq!(answer_matches(&query, &client.receive().await.unwrap()), Ok(()));
    assert_eq!((asked(&bench), bench.labs[0].counters().tcp.queries), (1, 1));
    assert_eq!(bench.server.status().cache_hits, 2);
    bench.stop().await;
}

#[tokio::test]
async fn who_may_not_ask_gets_nothing_from_the_cache_either() {
    let bench = Bench::cached([Faults::default()], |config| config.allow = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let query = query("members.example", 1);
    answer(&bench, &query).await;
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(&query, bench.address).await.unwrap();
    let mut buffer = [0; 512];
    let (length, _) = stranger.recv_from(&mut buffer).await.unwrap();
    assert_eq!((rcode(&buffer[..length]), &buffer[6..8]), (5, &[0, 0][..]));
    let status = bench.server.status();
    assert_eq!((status.refused, status.cache_hits, status.cache_misses), (1, 0, 1));
    bench.stop().await;
}

#[tokio::test]
async fn without_a_cache_each_query_is_asked() {
    let bench = Bench::cached([Faults::default()], |config| config.cache.size = 0).await;
    for _ in 0..3 {
        answer(&bench, &query("none.example", 1)).await;
    }
    let status = bench.server.status();
    assert_eq!((asked(&bench), status.cache_hits, status.cache_misses, status.cache_entries), (3, 0, 0, 0));
    assert_eq!(bench.server.flush_cache(None), Some(0));
    bench.stop().await;
}
