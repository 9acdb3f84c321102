//! Requests to an origin that behaves.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, StatusCode};
use keepwarm_https::{
    ErrorKind, Protocol, RequestBody, RequestOptions, Side,
    config::{HttpVersions, OriginConfig, PoolConfig, Verdict},
};
use keepwarm_lab::{ProxyLab, ProxySpec};
use keepwarm_pool::DialPhase::{self, Connect, Tls};
use keepwarm_transport::proxy::Proxy;
use tower_service::Service as _;

use crate::setup::{authority, client, client_of, echo, eventually, first, lab, origin, url, whole};

#[tokio::test]
async fn a_second_request_goes_over_the_connection_of_the_first() {
    for http in [HttpVersions::Both, HttpVersions::Http1] {
        let lab = lab(1).await;
        let client = client_of(&lab, OriginConfig { http, ..origin(&lab) }, PoolConfig::default());
        let mut served = Vec::new();
        for n in 0..3 {
            let answer = client.get(&url(&lab, &format!("/echo?n={n}"))).await.expect("an answer");
            served.push(answer.body().served().clone());
            let echo = echo(answer).await;
            assert_eq!((echo.path.as_str(), echo.query), ("/echo", format!("n={n}")));
            assert_eq!(echo.authority, authority(&lab));
        }
        assert_eq!(served.iter().map(|served| served.reused).collect::<Vec<_>>(), [false, true, true]);
        assert!(served.iter().all(|one| one.connection == served[0].connection));
        assert!(served[0].phases.tls.is_some() && served[1].phases.tls.is_none());
        let protocol = if http == HttpVersions::Http1 { Protocol::Http1 } else { Protocol::Http2 };
        assert!(served.iter().all(|one| one.protocol == protocol), "{served:?}");
        let counters = lab.total();
        assert_eq!((counters.accepted, counters.requests), (1, 3));
        assert_eq!(client.stats()[0].requests.reused, 2);
        lab.stop().await;
    }
}

#[tokio::test]
async fn many_requests_at_a_time_share_one_http2_connection() {
    let lab = lab(1).await;
    let client = client(&lab);
    client.warm_up(&authority(&lab), 1, |_| {}).await.expect("a connection");
    let requests = (0..50).map(|n| {
        let (client, url) = (client.clone(), url(&lab, &format!("/echo?n={n}")));
        async move { (n, echo(client.get(&url).await.expect("an answer")).await) }
    });
    for (n, echo) in futures_util::future::join_all(requests).await {
        assert_eq!(echo.query, format!("n={n}"));
    }
    assert_eq!(lab.total().accepted, 1);
}

#[tokio::test]
async fn http1_connections_are_exclusive_and_as_many_as_the_limit_says() {
    let lab = lab(1).await;
    let config = OriginConfig { http: HttpVersions::Http1, ..origin(&lab) };
    let client = client_of(&lab, config, PoolConfig { max_per_host: 4, max_idle: 4, ..PoolConfig::default() });
    let requests = (0..40).map(|n| {
        let (client, url) = (client.clone(), url(&lab, &format!("/echo?n={n}")));
        async move { (n, echo(client.get(&url).await.expect("an answer")).await) }
    });
    for (n, echo) in futures_util::future::join_all(requests).await {
        assert_eq!(echo.query, format!("n={n}"));
    }
    let counters = lab.total();
    assert_eq!(counters.requests, 40);
    assert_eq!(counters.streams_per_connection_max, 1);
    assert!(counters.open_max <= 4, "{counters:?}");
}

#[tokio::test]
async fn a_dial_is_counted_in_the_phases_that_it_came_to() {
    let proxy = ProxyLab::start(ProxySpec::default()).await.expect("a proxy on loopback");
    let by = Proxy::parse(&format!("socks5://{}", proxy.addr())).expect("a proxy");
    for (http, by, expected) in [
        (HttpVersions::Both, None, &[Connect, Tls, DialPhase::Protocol][..]),
        (HttpVersions::Http1, None, &[Connect, Tls]),
        (HttpVersions::Http1, Some(Arc::new(by)), &[Connect, DialPhase::Proxy, Tls]),
    ] {
        let lab = lab(1).await;
        let config = OriginConfig { http, proxy: by, ..origin(&lab) };
        let client = client_of(&lab, config, PoolConfig::default());
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
        let pool = client.pools().remove(0).pool;
        eventually("no dial is under way", || pool.stats().gauges.dialing == 0).await;
        let stats = pool.stats();
        let phases: Vec<_> = stats.dial_phases.iter().map(|(phase, times)| (phase, times.count())).collect();
        assert!(stats.counters.opened > 0);
        assert_eq!(phases, expected.iter().map(|phase| (*phase, stats.counters.opened)).collect::<Vec<_>>());
        lab.stop().await;
    }
}

#[tokio::test]
async fn methods_headers_and_bodies_arrive_as_they_were_sent() {
    for http in [HttpVersions::Both, HttpVersions::Http1] {
        let lab = lab(1).await;
        let client = client_of(&lab, OriginConfig { http, ..origin(&lab) }, PoolConfig::default());
        let request = Request::builder()
            .method(Method::PUT)
            .uri(url(&lab, "/echo?q=1"))
            .header("x-one", "1")
            .header("connection", "x-hop, close")
            .header("x-hop", "not to be passed on")
            .header("proxy-authorization", "Basic c2VjcmV0")
            .body("a body")
            .expect("valid");
        let answer = client.request(request).await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let echo = echo(answer).await;
        assert_eq!((echo.method.as_str(), echo.body.as_str()), ("PUT", "a body"));
        let header = |name: &str| echo.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(header("x-one").as_deref(), Some("1"));
        assert_eq!(header("content-length").as_deref(), Some("6"));
        assert_eq!((header("x-hop"), header("proxy-authorization")), (None, None));
        let head = client.head(&url(&lab, "/bytes/100")).await.expect("an answer");
        assert_eq!(head.headers()["content-length"], "100");
        assert!(whole(head).await.is_empty());
    }
}

#[tokio::test]
async fn a_tower_service_takes_its_options_from_the_extensions() {
    let lab = lab(2).await;
    let mut client = client(&lab);
    let wanted = lab.addresses()[1];
    for _ in 0..3 {
        let mut request = Request::get(url(&lab, "/echo")).body(http_body_util::Empty::new()).expect("valid");
        request.extensions_mut().insert(RequestOptions { address: Some(wanted), ..RequestOptions::default() });
        let answer = client.call(request).await.expect("an answer");
        assert_eq!(answer.body().served().address.ip(), wanted);
    }
    assert_eq!(lab.counters(first(&lab)).requests, 0);
}

#[tokio::test]
async fn a_fresh_connection_is_made_where_it_is_asked_for() {
    let lab = lab(1).await;
    let client = client(&lab);
    let options = RequestOptions { fresh: true, ..RequestOptions::default() };
    for _ in 0..3 {
        let request = Request::get(url(&lab, "/")).body(()).expect("valid");
        let answer = client.request_with(request, options.clone()).await.expect("an answer");
        assert!(!answer.body().served().reused);
        whole(answer).await;
    }
    assert_eq!(lab.total().accepted, 3);
    assert_eq!(lab.total().handshakes_resumed, 2, "tickets are kept for the origin");
}

#[tokio::test]
async fn a_profile_or_protocol_of_ones_own_never_shares_a_connection() {
    let lab = lab(1).await;
    let client = client(&lab);
    for http in [None, Some(HttpVersions::Http1), None, Some(HttpVersions::Http1)] {
        let request = Request::get(url(&lab, "/")).body(()).expect("valid");
        let options = RequestOptions { http, ..RequestOptions::default() };
        let answer = client.request_with(request, options).await.expect("an answer");
        let protocol = if http.is_some() { Protocol::Http1 } else { Protocol::Http2 };
        assert_eq!(answer.body().served().protocol, protocol);
        whole(answer).await;
    }
    let counters = lab.total();
    assert_eq!((counters.connections_h1, counters.connections_h2), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_sent_is_the_callers_error_and_names_the_reason() {
    let lab = lab(1).await;
    let client = client(&lab);
    for (url, words) in [
        ("http://tiles.test/", "only https"),
        ("https://other.test/", "not an origin that is configured"),
        ("/path", "no host"),
        ("https://[::1", "not a url"),
    ] {
        let error = client.get(url).await.expect_err("refused");
        assert_eq!((error.kind(), error.side()), (ErrorKind::Request, Side::Client), "{url}");
        assert!(error.to_string().contains(words), "{url}: {error}");
    }
    let request = Request::get(url(&lab, "/secret-path")).body(()).expect("valid");
    let options = RequestOptions { address: Some("192.0.2.1".parse().expect("valid")), ..RequestOptions::default() };
    let error = client.request_with(request, options).await.expect_err("no such address");
    assert!(error.to_string().contains("192.0.2.1 is none of"), "{error}");
    assert!(!error.to_string().contains("secret-path"), "{error}");
}

#[tokio::test]
async fn hosts_that_no_origin_names_are_served_where_that_is_allowed_and_are_forgotten() {
    let lab = lab(1).await;
    let config = keepwarm_https::config::HttpsConfig {
        any_host: Some(Box::new(OriginConfig::new("any"))),
        any_host_max: 2,
        roots: keepwarm_transport::tls::TlsRoots::only([lab.ca_der()]),
        ..Default::default()
    };
    let resolver = keepwarm_transport::resolve::Fixed(lab.addresses());
    let client = keepwarm_https::Client::new(config, Arc::new(resolver)).expect("a client");
    whole(client.get(&url(&lab, "/")).await.expect("found by the resolver")).await;
    // These have a certificate for another name.
    for host in ["one.test", "two.test", "three.test"] {
        let error = client.get(&format!("https://{host}:{}/", lab.port())).await.expect_err("another name");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(client.stats().len(), 2);
}

#[tokio::test]
async fn an_address_that_answers_429_rests_and_the_others_serve() {
    let lab = lab(3).await;
    let verdict = Verdict { rest: Duration::from_secs(60), retry: true, ..Verdict::default() };
    let client = client_of(&lab, OriginConfig { verdicts: vec![verdict], ..origin(&lab) }, PoolConfig::default());
    lab.update_faults(first(&lab), |faults| {
        faults.status = Some(429);
        faults.retry_after = Some("120".to_owned());
    });
    for _ in 0..60 {
        let answer = client.get(&url(&lab, "/")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        whole(answer).await;
    }
    assert_eq!(lab.counters(first(&lab)).requests, 1, "it rests after its first answer");
    let rows = client.inventory(&authority(&lab)).expect("known");
    let row = rows.iter().find(|row| row.ip == first(&lab)).expect("there");
    assert!(row.resting_for.is_some_and(|rest| rest > 60.0 && rest <= 120.0), "{row:?}");
    assert_eq!((row.failures, row.refusals, row.last_status), (0, 1, Some(429)));
}

#[tokio::test]
async fn the_only_address_is_asked_although_it_rests() {
    let lab = lab(1).await;
    let client = client(&lab);
    lab.update_faults(first(&lab), |faults| faults.status = Some(403));
    for _ in 0..5 {
        assert_eq!(client.get(&url(&lab, "/")).await.expect("an answer").status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_banned_address_gets_no_request_until_it_is_allowed() {
    let lab = lab(2).await;
    let client = client(&lab);
    let (banned, net) = (first(&lab), ipnet::IpNet::from(first(&lab)));
    client.find_addresses(&authority(&lab)).await.expect("found");
    client.ban(&authority(&lab), net).expect("known");
    for _ in 0..20 {
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    }
    assert_eq!(lab.counters(banned).requests, 0);
    client.allow(&authority(&lab), net).expect("known");
    for _ in 0..200 {
        whole(client.get(&url(&lab, "/")).await.expect("an answer")).await;
    }
    assert!(lab.counters(banned).requests > 0);
}

#[tokio::test]
async fn a_post_is_sent_once() {
    let lab = lab(2).await;
    let client = client(&lab);
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.reset_mid_body = Some(0)));
    let error = match client.post(&url(&lab, "/echo"), "order").await {
        Ok(answer) => answer.into_body().collect(1 << 20).await.expect_err("cut off"),
        Err(error) => error,
    };
    assert_eq!(error.side(), Side::Upstream, "{error}");
    assert_eq!(lab.total().requests, 1);
    lab.addresses().iter().for_each(|ip| lab.update_faults(*ip, |faults| faults.ignore_requests = true));
    let options = RequestOptions {
        deadline: Some(std::time::Instant::from(tokio::time::Instant::now() + Duration::from_millis(300))),
        ..RequestOptions::default()
    };
    let request = Request::post(url(&lab, "/echo")).body(RequestBody::from("order")).expect("valid");
    let error = client.request_with(request, options).await.expect_err("silent");
    assert!(error.is_timeout(), "{error}");
    assert_eq!((error.tries(), lab.total().requests), (1, 2));
}
