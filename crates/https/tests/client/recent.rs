//! What is noted of requests: how long their answers took, which of them were slow or failed, and why.

use std::{sync::Arc, time::Duration};

use http::{Method, Request};
use keepwarm_https::{
    Client, Outcome, RequestOptions,
    config::{HttpVersions, HttpsConfig, OriginConfig},
};
use keepwarm_lab::OriginLab;
use keepwarm_transport::{
    proxy::{Credential, Proxy, ProxyProtocol},
    resolve::Fixed,
    tls::TlsRoots,
};

use crate::setup::{authority, first, lab, origin, url, whole};

fn config(lab: &OriginLab, slow: Duration) -> HttpsConfig {
    HttpsConfig { origins: vec![origin(lab)], roots: TlsRoots::only([lab.ca_der()]), slow, ..HttpsConfig::default() }
}

fn client(config: HttpsConfig) -> Client {
    Client::new(config, Arc::new(Fixed(Vec::new()))).expect("a client")
}

#[tokio::test]
async fn slow_requests_are_noted_with_their_phases_and_without_their_path() {
    let lab = lab(1).await;
    let client = client(config(&lab, Duration::from_millis(150)));
    whole(client.get(&url(&lab, "/quick?secret")).await.expect("an answer")).await;
    whole(client.get(&url(&lab, "/quick?secret")).await.expect("an answer")).await;
    let quick = client.recent().len();
    lab.update_faults(first(&lab), |faults| faults.delay = Duration::from_millis(300));
    whole(client.get(&url(&lab, "/slow?secret")).await.expect("an answer")).await;
    let recent = client.recent();
    assert_eq!(recent.len(), quick + 1);
    let slow = &recent[0];
    assert_eq!((&*slow.origin, slow.address, &*slow.method), (&*authority(&lab), Some(first(&lab)), "GET"));
    assert!(matches!(slow.outcome, Outcome::Answered(_)), "{slow:?}");
    assert_eq!((slow.reused, slow.tries, slow.phases.connect), (Some(true), 1, None));
    assert!(slow.phases.head >= Duration::from_millis(300) && slow.phases.total >= slow.phases.head, "{slow:?}");
    assert!(slow.explanation().ends_with("from the request to the head of the answer"), "{}", slow.explanation());
    assert!(!format!("{recent:?}").contains("secret"));

    // Another limit comes with another config, and what was noted stays.
    let next = config(&lab, Duration::from_secs(60));
    assert_eq!(client.prepare(next).expect("prepared").apply().changed, ["https.slow"]);
    whole(client.get(&url(&lab, "/slow?secret")).await.expect("an answer")).await;
    assert_eq!(client.recent().len(), quick + 1);
    assert_eq!((client.latency().count(), client.stats()[0].latency.count()), (4, 4));
    assert!(client.latency().max() >= Duration::from_millis(300));
}

#[tokio::test]
async fn failed_requests_are_noted_with_what_went_wrong_and_where() {
    let lab = lab(1).await;
    let client = client(config(&lab, Duration::from_secs(60)));
    lab.update_faults(first(&lab), |faults| faults.refuse = true);
    let error = client.get(&url(&lab, "/")).await.expect_err("refused");
    let recent = client.recent();
    let Outcome::Failed { kind, side, text } = &recent[0].outcome else { panic!("{recent:?}") };
    assert_eq!((*kind, *side, &**text), (error.kind(), error.side(), error.happened()));
    assert_eq!((recent[0].address, recent[0].reused, recent[0].tries), (Some(first(&lab)), None, 0));

    lab.update_faults(first(&lab), |faults| (faults.refuse, faults.ignore_requests) = (false, true));
    let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
    let options = RequestOptions { deadline: Some(deadline.into_std()), ..RequestOptions::default() };
    let request = Request::builder().method(Method::POST).uri(url(&lab, "/")).body("order").expect("valid");
    assert!(client.request_with(request, options).await.expect_err("silent").is_timeout());
    let recent = client.recent();
    assert_eq!((recent.len(), &*recent[0].method, recent[0].outcome.as_str()), (2, "POST", "timeout"));
    assert_eq!((recent[0].reused, recent[0].tries), (Some(false), 1));
    assert!(recent[0].phases.connect.is_some() && recent[0].phases.head > Duration::ZERO, "{recent:?}");
    assert_eq!(client.latency().count(), 0, "there was no answer");
}

#[tokio::test]
async fn who_gives_up_after_long_is_noted_and_who_does_soon_is_not() {
    let lab = lab(1).await;
    let client = client(config(&lab, Duration::from_millis(200)));
    lab.update_faults(first(&lab), |faults| faults.ignore_requests = true);
    for (patience, noted) in [(Duration::from_millis(20), 0), (Duration::from_millis(400), 1)] {
        tokio::time::timeout(patience, client.get(&url(&lab, "/"))).await.expect_err("no answer");
        let recent = client.recent();
        assert_eq!(recent.len(), noted, "{recent:?}");
        assert!(recent.iter().all(|one| one.outcome == Outcome::GivenUp && one.address == Some(first(&lab))));
    }
}

#[tokio::test]
async fn hosts_of_the_pool_have_names_that_tell_them_apart_and_no_secrets() {
    let lab = lab(1).await;
    let client = client(config(&lab, Duration::from_secs(5)));
    whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    let request = Request::get(url(&lab, "/")).body(()).expect("valid");
    let options = RequestOptions { http: Some(HttpVersions::Http1), ..RequestOptions::default() };
    whole(client.request_with(request, options).await.expect("an answer")).await;
    let pools = client.pools();
    assert_eq!(pools.iter().map(|pool| &*pool.name).collect::<Vec<_>>(), ["https"]);
    let mut names: Vec<_> = pools[0].pool.hosts().into_iter().map(|host| host.name).collect();
    names.sort();
    let plain = format!("{} 127.0.1.1", authority(&lab));
    assert_eq!(names, [plain.clone(), format!("{plain} http/1.1")]);
    assert_eq!((pools[0].pool.flush(Some(&plain)), pools[0].pool.flush(Some("127.0.1.1"))), (1, 0));

    let credential = Some(Credential { user: "ann".to_owned(), password: "hunter2".to_owned() });
    let proxy = Proxy { protocol: ProxyProtocol::Http, host: "::1".to_owned(), port: 1, credential };
    let behind = OriginConfig { proxy: Some(Arc::new(proxy)), timeout: Duration::from_secs(1), ..origin(&lab) };
    let next = HttpsConfig { origins: vec![behind], ..config(&lab, Duration::from_secs(5)) };
    client.prepare(next).expect("prepared").apply();
    client.get(&url(&lab, "/")).await.expect_err("nobody is there");
    let names: Vec<_> = pools[0].pool.hosts().into_iter().map(|host| host.name).collect();
    assert!(names.contains(&format!("{plain} by [::1]:1")), "{names:?}");
    assert!(!format!("{names:?} {:?}", client.recent()).contains("hunter2"));
}
