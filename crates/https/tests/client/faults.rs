//! Servers that close, go away, lower their limits and cut bodies off: no wrong byte, no hang, the right error or a safe retry.

use std::time::Duration;

use http::Request;
use keepwarm_https::{
    RequestOptions, Side,
    config::{HttpVersions, OriginConfig, PoolConfig},
};
use keepwarm_lab::{CloseKind, expected_body};

use crate::setup::{authority, client, client_of, eventually, first, lab, origin, url, whole};

const BOTH: [HttpVersions; 2] = [HttpVersions::Both, HttpVersions::Http1];

#[tokio::test]
async fn connections_that_the_server_closes_while_idle_cost_no_request() {
    for http in BOTH {
        for kind in [CloseKind::Fin, CloseKind::Reset, CloseKind::Notify, CloseKind::Silence] {
            let lab = lab(1).await;
            let config = OriginConfig { http, timeout: Duration::from_secs(6), ..origin(&lab) };
            let client = client_of(&lab, config, PoolConfig::default());
            lab.update_faults(first(&lab), |faults| faults.close_kind = kind);
            for n in 0..5 {
                let path = format!("/bytes/{}", 1000 + n);
                let answer = client.get(&url(&lab, &path)).await;
                let answer = answer.unwrap_or_else(|error| panic!("{http:?} {kind:?}: {error}"));
                assert!(whole(answer).await == expected_body(&path, 0..1000 + n));
                lab.close_idle(first(&lab));
            }
        }
    }
}

#[tokio::test]
async fn going_away_costs_no_request_however_it_is_said() {
    for cuts in [false, true] {
        for http in BOTH {
            let lab = lab(1).await;
            let client = client_of(&lab, OriginConfig { http, ..origin(&lab) }, PoolConfig::default());
            lab.update_faults(first(&lab), |faults| {
                faults.goaway_after = Some(20);
                faults.goaway_cuts = cuts;
            });
            for round in 0..20 {
                let requests = (0..16).map(|n| {
                    let (client, path) = (client.clone(), format!("/bytes/{}", 100 * round + n));
                    let url = url(&lab, &path);
                    async move { (path, 100 * round + n, whole(client.get(&url).await.expect("an answer")).await) }
                });
                for (path, length, body) in futures_util::future::join_all(requests).await {
                    assert!(body == expected_body(&path, 0..length));
                }
            }
            assert!(lab.total().accepted >= 10, "the server went away often");
        }
    }
}

#[tokio::test]
async fn a_post_to_a_server_that_goes_away_is_processed_exactly_once() {
    let lab = lab(1).await;
    let client = client(&lab);
    lab.update_faults(first(&lab), |faults| {
        faults.goaway_after = Some(20);
        faults.goaway_cuts = true;
    });
    let requests = (0..100).map(|n| {
        let (client, url) = (client.clone(), url(&lab, &format!("/echo?n={n}")));
        async move { client.post(&url, format!("order {n}")).await.is_ok() }
    });
    let answered = futures_util::future::join_all(requests).await.into_iter().filter(|answered| *answered).count();
    assert_eq!(answered, 100, "a stream above the GOAWAY was not processed, and is safe to send again");
    assert_eq!(lab.total().paths["POST /echo"], 100);
}

#[tokio::test]
async fn refused_streams_are_sent_again() {
    let lab = lab(1).await;
    let client = client(&lab);
    lab.update_faults(first(&lab), |faults| faults.refuse_stream_every = Some(5));
    for n in 0..50 {
        whole(client.post(&url(&lab, "/echo"), format!("order {n}")).await.expect("an answer")).await;
    }
    assert_eq!(lab.total().paths["POST /echo"], 50);
    assert!(lab.total().refused >= 10);
}

#[tokio::test]
async fn a_limit_of_one_stream_makes_requests_wait_and_none_makes_them_wait_for_more() {
    let lab = lab(1).await;
    let config = OriginConfig { timeout: Duration::from_secs(10), ..origin(&lab) };
    let client = client_of(&lab, config, PoolConfig { max_per_host: 1, ..PoolConfig::default() });
    whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    lab.set_max_streams(first(&lab), 1);
    let burst = |tag: &'static str| {
        let requests = (0..30).map(|n| {
            let (client, url) = (client.clone(), url(&lab, &format!("/echo?{tag}={n}")));
            async move { crate::setup::echo(client.get(&url).await.expect("an answer")).await.query }
        });
        futures_util::future::join_all(requests.collect::<Vec<_>>())
    };
    for (n, query) in burst("one").await.into_iter().enumerate() {
        assert_eq!(query, format!("one={n}"));
    }
    assert_eq!(lab.total().over_limit, 0);
    lab.set_max_streams(first(&lab), 0);
    // In force once a request has to wait.
    let patience = Duration::from_millis(200);
    while tokio::time::timeout(patience, client.get(&url(&lab, "/"))).await.is_ok() {}
    let waiting = tokio::spawn(burst("none"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "no stream is allowed");
    lab.set_max_streams(first(&lab), 100);
    for (n, query) in waiting.await.expect("no panic").into_iter().enumerate() {
        assert_eq!(query, format!("none={n}"));
    }
    assert_eq!(lab.total().over_limit, 0);
    assert!(lab.total().open_max == 1);
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_an_error_after_right_bytes() {
    for http in BOTH {
        for fault in ["reset", "close", "truncate"] {
            let lab = lab(1).await;
            let client = client_of(&lab, OriginConfig { http, ..origin(&lab) }, PoolConfig::default());
            lab.update_faults(first(&lab), |faults| match fault {
                "reset" => faults.reset_mid_body = Some(50_000),
                "close" => faults.close_mid_body = Some(50_000),
                _ => faults.truncate = Some(50_000),
            });
            for _ in 0..3 {
                let path = "/bytes/200000";
                let mut body = client.get(&url(&lab, path)).await.expect("an answer").into_body();
                let mut at = 0;
                let error = loop {
                    match http_body_util::BodyExt::frame(&mut body).await {
                        Some(Ok(frame)) => {
                            let data = frame.into_data().expect("data");
                            assert!(data == expected_body(path, at..at + data.len() as u64), "{http:?} {fault}");
                            at += data.len() as u64;
                        }
                        Some(Err(error)) => break error,
                        None => panic!("{http:?} {fault}: the cut body looked whole"),
                    }
                };
                assert!(at <= 50_000, "{http:?} {fault}");
                assert_eq!(error.side(), Side::Upstream, "{http:?} {fault}: {error}");
            }
            lab.set_faults(first(&lab), keepwarm_lab::OriginFaults::default());
            let path = "/bytes/200000";
            let body = whole(client.get(&url(&lab, path)).await.expect("an answer")).await;
            assert!(body == expected_body(path, 0..200_000), "{http:?} {fault}: it works after that");
        }
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_and_the_others_serve() {
    let lab = lab(4).await;
    let client = client(&lab);
    let addresses = lab.addresses();
    lab.update_faults(addresses[0], |faults| faults.wrong_certificate = true);
    lab.update_faults(addresses[1], |faults| faults.untrusted = true);
    lab.update_faults(addresses[2], |faults| faults.expired = true);
    for _ in 0..50 {
        let answer = client.get(&url(&lab, "/")).await.expect("an answer");
        assert_eq!(answer.body().served().address.ip(), addresses[3]);
        whole(answer).await;
    }
    assert!((0..3).all(|n| lab.counters(addresses[n]).requests == 0));
    let request = Request::get(url(&lab, "/")).body(()).expect("valid");
    let options = RequestOptions { address: Some(addresses[1]), ..RequestOptions::default() };
    let error = client.request_with(request, options).await.expect_err("an unknown authority");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_another_within_the_deadline() {
    let lab = lab(2).await;
    let config = OriginConfig { timeout: Duration::from_secs(3), ..origin(&lab) };
    let client = client_of(&lab, config, PoolConfig::default());
    client.warm_up(&authority(&lab), 2, |_| {}).await.expect("connections");
    lab.update_faults(first(&lab), |faults| faults.ignore_requests = true);
    for n in 0..40 {
        let path = format!("/bytes/{n}");
        let body = whole(client.get(&url(&lab, &path)).await.expect("an answer")).await;
        assert!(body == expected_body(&path, 0..n));
    }
    assert_eq!(lab.counters(first(&lab)).requests, 1, "it was put aside after its first silence");
}

#[tokio::test]
async fn a_keep_alive_header_ends_a_connection_before_the_server_does() {
    let lab = lab(1).await;
    let config = OriginConfig { http: HttpVersions::Http1, ..origin(&lab) };
    let pool = PoolConfig { cleanup_interval: Duration::from_millis(50), ..PoolConfig::default() };
    let client = client_of(&lab, config, pool);
    lab.update_faults(first(&lab), |faults| faults.keep_alive_header = Some("timeout=1".to_owned()));
    whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    eventually("we closed it", || lab.total().closed_by_peer == 1).await;
    assert_eq!(lab.total().closed_by_lab, 0);
}
