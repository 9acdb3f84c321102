//! Which answers of upstreams are kept.

use std::time::Duration;

use keepwarm_lab::Faults;

use super::*;

#[tokio::test]
async fn a_truncated_answer_is_never_kept() {
    // UDP brings TC and TCP nothing, so that the truncated answer is the best there is.
    let faults = Faults { truncate: 1.0, stream_loss: 1.0, ..Faults::default() };
    let bench = Bench::cached([faults], |config| config.timeout = Duration::from_millis(500)).await;
    let query = query("cut.example", 1);
    for round in 1..=2 {
        let cut = exchange_udp(bench.address, &query).await.unwrap();
        assert_eq!((cut[2] & 2, rcode(&cut)), (2, 0));
        assert_eq!(asked(&bench), round);
        assert_eq!(bench.server.status().cache_entries, 0);
    }
    bench.labs[0].set_faults(Faults::default());
    answer(&bench, &query).await;
    assert_eq!(asked(&bench), 3);
    bench.stop().await;
}

#[tokio::test]
async fn servfail_is_kept_for_a_second_and_no_longer() {
    let bench = Bench::cached([Faults { rcode: Some(2), ..Faults::default() }], |_| {}).await;
    let query = query("fails.example", 1);
    for _ in 0..2 {
        assert_eq!(rcode(&exchange_udp(bench.address, &query).await.unwrap()), 2);
    }
    assert_eq!((asked(&bench), bench.server.status().cache_hits), (1, 1));
    one_second_passes().await;
    assert_eq!(rcode(&exchange_udp(bench.address, &query).await.unwrap()), 2);
    assert_eq!(asked(&bench), 2);
    one_second_passes().await;
    bench.labs[0].set_faults(Faults::default());
    let answer = answer(&bench, &query).await;
    assert_eq!((asked(&bench), extended_error(&answer)), (3, None));
    assert_eq!(bench.server.status().failed, 0, "an upstream answered each time");
    bench.stop().await;
}

#[tokio::test]
async fn refused_and_other_errors_are_never_kept() {
    for code in [1, 4, 5, 9] {
        // With cookies an error may be about them, and is asked about once more.
        let bench = Bench::cached([Faults { rcode: Some(code), ..Faults::default() }], |config| {
            config.upstreams[0].cookies = false;
        })
        .await;
        for round in 1..=3 {
            assert_eq!(rcode(&exchange_udp(bench.address, &query("no.example", 1)).await.unwrap()), code);
            assert_eq!(asked(&bench), round, "rcode {code}");
        }
        assert_eq!(bench.server.status().cache_entries, 0, "rcode {code}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn negative_answers_are_kept_below_their_ceiling() {
    let bench = Bench::cached([Faults::default()], |config| config.cache.negative_ttl = Duration::from_secs(5)).await;
    for (number, (name, code)) in [("nx.example", 3), ("nodata.example", 0)].into_iter().enumerate() {
        for round in 0..3 {
            let answer = answer(&bench, &query(name, 1)).await;
            assert_eq!((u16::from(answer.metadata.response_code), answer.authorities.len()), (code, 1), "{name}");
            assert!(round == 0 || ttl(&answer) <= 5, "{name}: {} s", ttl(&answer));
        }
        assert_eq!(asked(&bench), number as u64 + 1, "{name}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_negative_answer_without_soa_is_not_kept() {
    for code in [3, 0] {
        let bench = Bench::cached([Faults { rcode: Some(code), ..Faults::default() }], |_| {}).await;
        for round in 1..=2 {
            assert_eq!(rcode(&exchange_udp(bench.address, &query("bare.example", 1)).await.unwrap()), code);
            assert_eq!(asked(&bench), round, "rcode {code}");
        }
        bench.stop().await;
    }
}
