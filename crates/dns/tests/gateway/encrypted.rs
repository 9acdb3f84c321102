//! Clients over TLS and HTTPS: answers, limits, certificates, the end.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response};
use keepwarm_dns::{
    config::{DnsConfig, ListenTransport, Transport},
    server::Server,
};
use keepwarm_lab::{Faults, answer_matches, build_query};
use keepwarm_transport::http::{HttpConnection, HttpVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{certificate::*, support::*};

const DOT: ListenTransport = ListenTransport::Tls;
const DOH: ListenTransport = ListenTransport::Https;

/// A server with one encrypted listener over a lab with these faults.
async fn start(
    transport: ListenTransport,
    faults: Faults,
    change: impl FnOnce(&mut DnsConfig),
) -> (Bench, Certificate) {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [faults], |config| {
        certificate.serve(config, &[transport]);
        change(config);
    })
    .await;
    (bench, certificate)
}

/// A query with this option in its OPT record.
fn query_with_option(name: &str, option: &[u8]) -> Vec<u8> {
    let mut query = query(name, 1);
    let length = query.len() - 2;
    query[length..].copy_from_slice(&u16::try_from(option.len()).unwrap().to_be_bytes());
    query.extend_from_slice(option);
    query
}

const PADDING: [u8; 8] = [0, 12, 0, 4, 0, 0, 0, 0];

/// An HTTP client of this version.
async fn http(certificate: &Certificate, server: SocketAddr, version: HttpVersion) -> HttpConnection {
    let alpn: &[u8] = if version == HttpVersion::Http2 { b"h2" } else { b"http/1.1" };
    let (stream, info) = certificate.connect(server, &[alpn]).await.unwrap();
    assert_eq!(info.alpn.as_deref(), Some(alpn));
    let (connection, driver) = keepwarm_transport::http::connect(stream, info.alpn.as_deref(), NAME).await.unwrap();
    assert_eq!(connection.version(), version);
    tokio::spawn(driver);
    connection
}

const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

fn request(method: Method, target: &str, content_type: Option<&str>, body: &[u8]) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("https://{NAME}{target}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(Bytes::copy_from_slice(body)).unwrap()
}

fn post(query: &[u8]) -> Request<Bytes> {
    request(Method::POST, "/dns-query", Some("application/dns-message"), query)
}

fn get(query: &[u8]) -> Request<Bytes> {
    request(Method::GET, &format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(query)), None, b"")
}

async fn send(connection: &HttpConnection, request: Request<Bytes>) -> Response<Bytes> {
    let sent = connection.send(request, 65_535);
    tokio::time::timeout(Duration::from_secs(6), sent).await.expect("a response within 6 s").unwrap()
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn queries_pipelined_over_tls_are_answered_as_their_answers_come() {
    let faults = Faults { late: 0.5, late_by: Duration::from_millis(60), ..Faults::default() };
    let (bench, certificate) = start(DOT, faults, |_| {}).await;
    let mut client = certificate.dot(bench.address).await;
    let queries: Vec<_> = (0..100).map(|number| query(&format!("t{number}.example"), 1)).collect();
    for query in &queries {
        client.send(query).await;
    }
    let (mut open, mut overtaken) = (queries, false);
    while !open.is_empty() {
        let answer = client.receive().await.expect("the connection stays");
        let answered = open.iter().position(|query| answer_matches(query, &answer) == Ok(())).expect("an open query");
        overtaken |= answered > 0;
        open.remove(answered);
    }
    assert!(overtaken, "half of the answers were late, and no other waited for them");
    bench.stop().await;
}

#[tokio::test]
async fn get_and_post_are_answered_over_http_1_1_and_http_2() {
    let (bench, certificate) = start(DOH, Faults { ttl: 47, ..Faults::default() }, |_| {}).await;
    for version in VERSIONS {
        let connection = http(&certificate, bench.address, version).await;
        for make in [get, post] {
            // RFC 8484 section 4.1: id 0, for the sake of caches.
            let query = build_query(0, "www.example", 1, Some(1232));
            let response = send(&connection, make(&query)).await;
            assert_eq!(response.status(), 200, "{version:?}");
            assert_eq!(header(&response, "content-type"), Some("application/dns-message"));
            assert_eq!(header(&response, "cache-control"), Some("max-age=47"));
            assert_eq!(header(&response, "alt-svc"), None);
            assert_eq!(answer_matches(&query, response.body()), Ok(()));
        }
    }
    bench.stop().await;
}

#[tokio::test]
async fn many_streams_at_once_each_get_their_own_answer() {
    let (bench, certificate) =
        start(DOH, Faults { jitter: Duration::from_millis(20), ..Faults::default() }, |_| {}).await;
    let connection = http(&certificate, bench.address, HttpVersion::Http2).await;
    let clients = (0..100).map(|number| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let query = query(&format!("s{number}.example"), 1);
            answer_matches(&query, send(&connection, post(&query)).await.body())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap(), Ok(()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_queries_get_a_status_and_the_connection_stays() {
    let (bench, certificate) = start(DOH, Faults::default(), |_| {}).await;
    let dns = Some("application/dns-message");
    let whole = query("www.example", 1);
    for version in VERSIONS {
        let connection = http(&certificate, bench.address, version).await;
        for (method, target, content_type, body, status) in [
            (Method::GET, "/dns-query", None, &b""[..], 400),
            (Method::GET, "/dns-query?dns=AAAA", None, b"", 400),
            (Method::POST, "/dns-query", dns, b"short", 400),
            (Method::GET, "/", None, b"", 404),
            (Method::POST, "/other", dns, &whole, 404),
            (Method::PUT, "/dns-query", dns, &whole, 405),
            (Method::HEAD, "/dns-query", None, b"", 405),
            (Method::POST, "/dns-query", Some("text/plain"), &whole, 415),
            (Method::POST, "/dns-query", None, &whole, 415),
        ] {
            let shown = format!("{version:?} {method} {target} {content_type:?}");
            let response = send(&connection, request(method, target, content_type, body)).await;
            assert_eq!(response.status(), status, "{shown}");
            assert_eq!(header(&response, "allow"), (status == 405).then_some("GET, POST"), "{shown}");
            assert_eq!(header(&response, "cache-control"), None, "{shown}");
        }
        assert_eq!(answer_matches(&whole, send(&connection, post(&whole)).await.body()), Ok(()));
        // What is not read to its end costs an HTTP/1.1 client the connection.
        let response = send(&connection, post(&[0; 65_536])).await;
        assert_eq!(response.status(), 413);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_malformed_query_over_https_gets_formerr_and_no_http_error() {
    let (bench, certificate) = start(DOH, Faults::default(), |_| {}).await;
    let connection = http(&certificate, bench.address, HttpVersion::Http2).await;
    let mut cut = query("www.example", 1);
    cut.truncate(20);
    let response = send(&connection, post(&cut)).await;
    assert_eq!((response.status().as_u16(), rcode(response.body())), (200, 1));
    assert_eq!(header(&response, "cache-control"), None);
    bench.stop().await;
}

#[tokio::test]
async fn answers_are_padded_on_encrypted_transports_when_the_query_was() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOT, DOH, ListenTransport::Plain]);
        config.cache = keepwarm_dns::config::CacheSettings::default();
    })
    .await;
    let listening = bench.server.listening();
    let [dot, doh, plain] = &listening[..] else { panic!("three listeners") };
    let (padded, bare) = (query_with_option("pad.example", &PADDING), query("pad.example", 1));
    let connection = http(&certificate, doh.address, HttpVersion::Http2).await;
    let (mut tls, mut tcp) = (certificate.dot(dot.address).await, Messages(connect(plain.address).await));
    // The second round is answered from the cache.
    for _ in 0..2 {
        for (query, blocks) in [(&padded, true), (&bare, false)] {
            for answer in [tls.ask(query).await, send(&connection, post(query)).await.into_body().into()] {
                assert_eq!(answer_matches(query, &answer), Ok(()));
                assert_eq!(answer.len() % 468 == 0, blocks, "{} bytes", answer.len());
            }
        }
        assert!(tcp.ask(&padded).await.len() < 468);
        assert!(exchange_udp(plain.address, &padded).await.unwrap().len() < 468);
    }
    assert!(bench.server.status().cache_hits > 0);
    bench.stop().await;
}

#[tokio::test]
async fn clients_over_tcp_and_tls_are_told_how_long_they_may_idle() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOT, ListenTransport::Plain, DOH]);
        config.clients.tcp_idle_timeout = Duration::from_millis(4500);
    })
    .await;
    let listening = bench.server.listening();
    let [dot, plain, doh] = &listening[..] else { panic!("three listeners") };
    let option = [0, 11, 0, 2, 0, 45];
    let tells = |answer: &[u8]| answer.windows(option.len()).any(|window| window == option);
    let query = query_with_option("idle.example", &[0, 11, 0, 0]);
    assert!(tells(&certificate.dot(dot.address).await.ask(&query).await));
    assert!(tells(&Messages(connect(plain.address).await).ask(&query).await));
    assert!(!tells(&exchange_udp(plain.address, &query).await.unwrap()));
    let connection = http(&certificate, doh.address, HttpVersion::Http2).await;
    assert!(!tells(send(&connection, post(&query)).await.body()));
    let bare = build_query(7, "idle.example", 1, None);
    assert!(!tells(&certificate.dot(dot.address).await.ask(&bare).await), "a client without edns");
    bench.stop().await;
}

#[tokio::test]
async fn a_session_that_one_worker_began_is_resumed_with_another() {
    let (bench, certificate) = start(DOT, Faults::default(), |config| config.workers = 4).await;
    let client = certificate.client(&[b"dot"]);
    let mut resumed = 0;
    for number in 0..17 {
        let (stream, info) = handshake(&client, connect(bench.address).await).await.unwrap();
        // The tickets come with the first answer at the latest.
        let query = query(&format!("r{number}.example"), 1);
        assert_eq!(answer_matches(&query, &Messages(stream).ask(&query).await), Ok(()));
        resumed += usize::from(info.resumed);
    }
    assert_eq!(resumed, 16, "all but the first");
    bench.stop().await;
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_new_clients_and_old_ones_stay() {
    let (bench, mut certificate) = start(DOT, Faults::default(), |_| {}).await;
    let before = bench.server.certificate().unwrap();
    assert_eq!(before.alternative_names, [NAME, "127.0.0.1"]);
    assert!(before.not_after > SystemTime::UNIX_EPOCH && before.loaded > SystemTime::UNIX_EPOCH);
    let mut old = certificate.dot(bench.address).await;
    certificate.renew();
    let mut tries = 0;
    let mut new = loop {
        match certificate.connect(bench.address, &[b"dot"]).await {
            Ok((stream, _)) => break Messages(stream),
            Err(error) => assert!(error.contains("certificate"), "{error}"),
        }
        tries += 1;
        assert!(tries < 300, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for client in [&mut old, &mut new] {
        let query = query("renewed.example", 1);
        assert_eq!(answer_matches(&query, &client.ask(&query).await), Ok(()));
    }
    assert!(bench.server.certificate().unwrap().loaded >= before.loaded);
    bench.stop().await;
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused_over_tls_and_https() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOT, DOH]);
        config.allow = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    let listening = bench.server.listening();
    let [dot, doh] = &listening[..] else { panic!("two listeners") };
    let query = query("refused.example", 1);
    assert_eq!(rcode(&certificate.dot(dot.address).await.ask(&query).await), 5);
    let connection = http(&certificate, doh.address, HttpVersion::Http2).await;
    assert_eq!(rcode(send(&connection, post(&query)).await.body()), 5);
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    bench.stop().await;
}

#[tokio::test]
async fn connections_over_tcp_tls_and_https_count_together() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOT, DOH, ListenTransport::Tcp]);
        config.clients.tcp_max_per_client = 3;
    })
    .await;
    let listening = bench.server.listening();
    let [dot, doh, tcp] = &listening[..] else { panic!("three listeners") };
    let mut tls = certificate.dot(dot.address).await;
    let https = http(&certificate, doh.address, HttpVersion::Http2).await;
    let mut plain = Messages(connect(tcp.address).await);
    let query = query("limit.example", 1);
    plain.ask(&query).await;
    assert_eq!(bench.server.status().tcp_clients, 3);
    for listen in bench.server.listening() {
        let mut more = connect(listen.address).await;
        assert!(matches!(more.read(&mut [0; 1]).await, Ok(0) | Err(_)), "{listen:?}: one too many");
    }
    assert_eq!(bench.server.status().tcp_rejected, 3);
    assert_eq!(rcode(&tls.ask(&query).await), 0);
    assert_eq!(send(&https, post(&query)).await.status(), 200);
    bench.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_finish_what_they_begin_are_closed_and_others_are_served() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOT, DOH]);
        config.clients.tcp_idle_timeout = Duration::from_millis(400);
    })
    .await;
    let listening = bench.server.listening();
    let [dot, doh] = &listening[..] else { panic!("two listeners") };
    let mut waiting: Vec<Box<dyn tokio::io::AsyncRead + Unpin>> = Vec::new();
    for address in [dot.address, doh.address] {
        // Nothing at all, half of a TLS record, and something that is no TLS.
        waiting.push(Box::new(connect(address).await));
        for begin in [&[22, 3, 1, 2, 0, 1][..], b"GET / HTTP/1.1\r\n\r\n"] {
            let mut stream = connect(address).await;
            stream.write_all(begin).await.unwrap();
            waiting.push(Box::new(stream));
        }
    }
    let mut half = certificate.connect(dot.address, &[b"dot"]).await.unwrap().0;
    half.write_all(&[0, 30, 1, 2, 3]).await.unwrap();
    waiting.push(Box::new(half));
    let headers = b"POST /dns-query HTTP/1.1\r\nhost: dns.example\r\n";
    let body = b"POST /dns-query HTTP/1.1\r\nhost: dns.example\r\ncontent-type: application/dns-message\r\ncontent-length: 40\r\n\r\nabc";
    for begin in [&headers[..], body] {
        let mut slow = certificate.connect(doh.address, &[b"http/1.1"]).await.unwrap().0;
        slow.write_all(begin).await.unwrap();
        waiting.push(Box::new(slow));
    }
    let mut preface = certificate.connect(doh.address, &[b"h2"]).await.unwrap().0;
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    waiting.push(Box::new(preface));
    let mut silent = certificate.connect(doh.address, &[b"h2"]).await.unwrap().0;
    silent.flush().await.unwrap();
    waiting.push(Box::new(silent));
    let query = query("others.example", 1);
    assert_eq!(rcode(&certificate.dot(dot.address).await.ask(&query).await), 0);
    for (number, mut stream) in waiting.into_iter().enumerate() {
        let end = tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "client {number} was not closed");
    }
    let connection = http(&certificate, doh.address, HttpVersion::Http2).await;
    assert_eq!(send(&connection, post(&query)).await.status(), 200);
    bench.stop().await;
}

#[tokio::test]
async fn streams_that_are_reset_still_count_against_the_limit() {
    let (bench, certificate) = start(DOH, Faults { silent: true, ..Faults::default() }, |config| {
        config.clients.tcp_max_in_flight = 4;
    })
    .await;
    let (stream, _) = certificate.connect(bench.address, &[b"h2"]).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for number in 0..12 {
        let query = query(&format!("reset{number}.example"), 1);
        let mut ready = send.clone().ready().await.unwrap();
        let (response, mut body) = ready.send_request(post(&query).map(drop), false).unwrap();
        body.send_data(Bytes::from(query), true).unwrap();
        // The first four hang at the silent upstream until they are dropped here, which resets them.
        if let Ok(response) = tokio::time::timeout(Duration::from_millis(200), response).await {
            statuses.push(response.unwrap().status().as_u16());
        }
    }
    assert_eq!(statuses, [503; 8]);
    assert_eq!(bench.server.status().queries, 4);
    bench.stop().await;
}

#[tokio::test]
async fn http_responses_name_the_http_3_listener() {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, &[DOH, ListenTransport::H3]);
    })
    .await;
    let expected = format!("h3=\":{}\"; ma=86400", bench.server.listening()[1].address.port());
    for version in VERSIONS {
        let connection = http(&certificate, bench.address, version).await;
        let response = send(&connection, get(&query("alt.example", 1))).await;
        assert_eq!(header(&response, "alt-svc"), Some(&*expected));
    }
    bench.stop().await;
}

#[tokio::test]
async fn queries_in_flight_over_tls_and_https_are_answered_before_the_server_stops() {
    let certificate = Certificate::new();
    let faults = Faults { delay: Duration::from_millis(400), ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [faults], |config| certificate.serve(config, &[DOT, DOH])).await;
    let listening = bench.server.listening();
    let [dot, doh] = &listening[..] else { panic!("two listeners") };
    let mut tls = certificate.dot(dot.address).await;
    let versions = VERSIONS.map(|version| http(&certificate, doh.address, version));
    let [h1, h2] = versions;
    let (h1, h2) = (h1.await, h2.await);
    let queries: Vec<_> = (0..3).map(|number| query(&format!("stop{number}.example"), 1)).collect();
    tls.send(&queries[0]).await;
    let (first, second) = (h1.send(post(&queries[1]), 65_535), h2.send(post(&queries[2]), 65_535));
    let (first, second) = (tokio::spawn(first), tokio::spawn(second));
    while bench.labs[0].counters().udp.queries < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Bench { server, labs, .. } = bench;
    assert_eq!(server.stop(Duration::from_secs(5)).await, 0, "nothing was cut off");
    assert_eq!(answer_matches(&queries[0], &tls.receive().await.unwrap()), Ok(()));
    assert_eq!(tls.receive().await, None);
    assert_eq!(answer_matches(&queries[1], first.await.unwrap().unwrap().body()), Ok(()));
    assert_eq!(answer_matches(&queries[2], second.await.unwrap().unwrap().body()), Ok(()));
    for lab in labs {
        lab.stop().await;
    }
}

#[tokio::test]
async fn without_a_certificate_that_can_be_used_the_server_does_not_start_and_says_why() {
    let (labs, ca) = labs([Faults::default()]).await;
    let certificate = Certificate::new();
    let start = |change: &dyn Fn(&mut DnsConfig)| {
        let mut config = config(&labs, &ca, Transport::Udp);
        certificate.serve(&mut config, &[DOT]);
        change(&mut config);
        Server::start(config).err().map(|error| error.to_string())
    };
    let missing = start(&|config| config.tls = None).unwrap();
    assert_eq!(missing, "listen on tls://127.0.0.1:0: no certificate; name its files under dns.tls");
    let wrong = start(&|config| config.tls.as_mut().unwrap().key = certificate.ca_file()).unwrap();
    assert!(wrong.contains("ca.pem has no private key"), "{wrong}");
    assert_eq!(start(&|_| {}), None);
    for lab in labs {
        lab.stop().await;
    }
}
