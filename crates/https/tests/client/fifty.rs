//! Fifty addresses of one host, half of which misbehave.

use std::{net::IpAddr, time::Duration};

use futures_util::StreamExt as _;
use http::StatusCode;
use keepwarm_https::config::{OriginConfig, PoolConfig, Validate};
use keepwarm_https::inventory::AddressState;
use keepwarm_lab::{OriginFaults, OriginLab, expected_body};

use crate::setup::{authority, client_of, eventually, lab, origin, url, whole};

/// 10 refuse, 5 hang, 5 answer 403, 5 have a wrong certificate; the other 25 are good.
fn spoil(lab: &OriginLab) -> Vec<IpAddr> {
    let bad: Vec<_> = lab.addresses().into_iter().step_by(2).collect();
    for (index, ip) in bad.iter().enumerate() {
        lab.update_faults(*ip, |faults| match index {
            0..10 => faults.refuse = true,
            10..15 => faults.hang = true,
            15..20 => faults.status = Some(403),
            _ => faults.wrong_certificate = true,
        });
    }
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_see_nothing_of_the_bad_half() {
    let lab = lab(50).await;
    let bad = spoil(&lab);
    let validate = Validate { timeout: Duration::from_secs(2), ..Validate::default() };
    let config = OriginConfig { validate: Some(validate), quarantine: Duration::from_secs(3), ..origin(&lab) };
    let pool = PoolConfig { connect_timeout: Duration::from_secs(2), ..PoolConfig::default() };
    let client = client_of(&lab, config, pool);
    let failures: Vec<String> = futures_util::stream::iter(0..10_000u64)
        .map(|n| {
            let (client, path) = (client.clone(), format!("/bytes/{}", n % 3000));
            let url = url(&lab, &path);
            async move {
                let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                if answer.status() != StatusCode::OK {
                    return Err(format!("status {}", answer.status()));
                }
                let body = whole(answer).await;
                if body == expected_body(&path, 0..n % 3000) { Ok(()) } else { Err("wrong bytes".to_owned()) }
            }
        })
        .buffer_unordered(64)
        .filter_map(|result: Result<(), String>| async move { result.err() })
        .collect()
        .await;
    assert_eq!(failures, Vec::<String>::new());
    for ip in &bad {
        let requests = lab.counters(*ip).paths;
        assert!(requests.keys().all(|path| path == "HEAD /"), "{ip} got more than its probes: {requests:?}");
    }
    let open_max = lab.addresses().iter().map(|ip| lab.counters(*ip).open_max).max();
    assert!(open_max.is_some_and(|max| max <= 10), "{open_max:?}");
    assert!(lab.total().open_max <= 100, "{}", lab.total().open_max);
    eventually("twenty are idle at most", || client.pool_stats().gauges.idle <= 20).await;

    // Recovered, each is back when its pause has ended.
    bad.iter().for_each(|ip| lab.set_faults(*ip, OriginFaults::default()));
    eventually("all are validated", || {
        let rows = client.inventory(&authority(&lab)).expect("known");
        rows.iter().filter(|row| row.state == AddressState::Validated).count() == 50
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_validation_bad_addresses_cost_tries_and_no_request() {
    let lab = lab(50).await;
    let bad = spoil(&lab);
    // Those that answer 403 do so to requests: what they say is an answer.
    for ip in &bad[15..20] {
        lab.set_faults(*ip, OriginFaults::default());
    }
    let client = client_of(&lab, origin(&lab), PoolConfig::default());
    let failures: Vec<String> = futures_util::stream::iter(0..2_000u64)
        .map(|n| {
            let (client, url) = (client.clone(), url(&lab, &format!("/bytes/{}", n % 3000)));
            async move { client.get(&url).await.map(|_| ()).map_err(|error| error.to_string()) }
        })
        .buffer_unordered(32)
        .filter_map(|result| async move { result.err() })
        .collect()
        .await;
    assert_eq!(failures, Vec::<String>::new());
}

#[tokio::test]
async fn requests_stay_with_as_many_addresses_as_can_have_a_hot_connection() {
    let lab = lab(50).await;
    let client =
        client_of(&lab, OriginConfig { validate: Some(Validate::default()), ..origin(&lab) }, PoolConfig::default());
    eventually("all are validated", || {
        let rows = client.inventory(&authority(&lab)).map(|rows| rows.len());
        let _ = futures_util::FutureExt::now_or_never(client.find_addresses(&authority(&lab)));
        rows.is_ok_and(|rows| rows == 50) && client.stats()[0].addresses.validated == 50
    })
    .await;
    lab.reset_counters();
    for _ in 0..3000 {
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    }
    let (handshakes, requests) = (lab.total().accepted, lab.total().requests);
    assert_eq!(requests, 3000);
    // One for each address in focus that had none, and for the few requests that go to one in reserve.
    assert!(handshakes <= 60, "{handshakes} connections for {requests} requests");
    assert!(client.pool_stats().gauges.idle <= 20);
}
