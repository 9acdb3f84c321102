//! DNS over HTTP/3.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::FuturesUnordered};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{Method, Request, Response};
use keepwarm_dns::config::ListenTransport;
use keepwarm_lab::answer_matches;
use tokio::task::JoinHandle;

use super::client::*;

const NO_ERROR: u64 = 0x100;
const EXCESSIVE_LOAD: u64 = 0x107;

/// A client with one connection.
#[derive(Clone)]
struct H3Client {
    requests: SendRequest<OpenStreams, Bytes>,
    connection: quinn::Connection,
}

impl H3Client {
    /// The task ends with the connection, whose end it tells.
    async fn connect(bench: &QuicBench) -> (H3Client, JoinHandle<String>) {
        let connection = bench.try_connect(b"h3", "dns.lab").await.expect("the server listens");
        let (mut driver, requests) =
            within(h3::client::new(h3_quinn::Connection::new(connection.clone()))).await.unwrap();
        let driver =
            tokio::spawn(async move { futures_util::future::poll_fn(|cx| driver.poll_close(cx)).await.to_string() });
        (H3Client { requests, connection }, driver)
    }

    /// The response to a request, with its body.
    async fn send(&mut self, request: Request<()>, body: &[u8]) -> Result<Response<Vec<u8>>, String> {
        let mut stream = self.requests.send_request(request).await.map_err(|error| error.to_string())?;
        // The server may answer before it has read all.
        let _ = stream.send_data(Bytes::copy_from_slice(body)).await;
        let _ = stream.finish().await;
        let (parts, ()) = within(stream.recv_response()).await.map_err(|error| error.to_string())?.into_parts();
        let mut body = Vec::new();
        while let Some(mut piece) = within(stream.recv_data()).await.map_err(|error| error.to_string())? {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        Ok(Response::from_parts(parts, body))
    }

    async fn get(&mut self, target: &str) -> Response<Vec<u8>> {
        self.send(request(Method::GET, target, None), b"").await.unwrap()
    }

    async fn post(&mut self, query: &[u8]) -> Result<Response<Vec<u8>>, String> {
        self.send(request(Method::POST, "/dns-query", Some("application/dns-message")), query).await
    }
}

fn request(method: Method, target: &str, content_type: Option<&str>) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("https://dns.lab{target}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(()).unwrap()
}

fn target(query: &[u8]) -> String {
    format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(query))
}

#[tokio::test]
async fn get_and_post_are_answered_with_the_lifetime_of_the_answer() {
    let bench = QuicBench::h3().await;
    let (mut client, _driver) = H3Client::connect(&bench).await;
    let query = query_0("http.example");
    for response in [client.get(&target(&query)).await, client.post(&query).await.unwrap()] {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/dns-message");
        assert_eq!(response.headers()["cache-control"], "max-age=60");
        assert_eq!(answer_matches(&query, response.body()), Ok(()));
    }
    // An id other than 0 is bad for caches (RFC 8484 section 4.1) and nothing else.
    let query = crate::support::query("id.example", 1);
    assert_eq!(answer_matches(&query, client.post(&query).await.unwrap().body()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn what_is_no_dns_request_gets_its_status_and_the_connection_lives() {
    let bench = QuicBench::h3().await;
    let (mut client, _driver) = H3Client::connect(&bench).await;
    let query = query_0("status.example");
    let dns = Some("application/dns-message");
    for (request, body, status) in [
        (request(Method::GET, "/", None), &b""[..], 404),
        (request(Method::GET, "/dns-query", None), b"", 400),
        (request(Method::GET, "/dns-query?dns=AAAA", None), b"", 400),
        (request(Method::PUT, "/dns-query", dns), &query, 405),
        (request(Method::POST, "/dns-query", Some("application/json")), &query, 415),
        (request(Method::POST, "/dns-query", dns), &query[..5], 400),
        (request(Method::POST, "/dns-query", dns), &[0; 65_536], 413),
        (request(Method::GET, &format!("/dns-query?dns={}", "A".repeat(9000)), None), b"", 414),
        (request(Method::GET, &format!("/dns-query?dns={}", "A".repeat(20_000)), None), b"", 431),
    ] {
        let what = format!("{} {:.40}", request.method(), request.uri());
        // A field section above the server's limit is not sent by h3 itself once it knows the limit.
        match client.send(request, body).await {
            Ok(response) => assert_eq!(response.status(), status, "{what}"),
            Err(error) => assert!(status == 431 && error.contains("Header"), "{what}: {error}"),
        }
    }
    assert_eq!(bench.bench.labs[0].counters().udp.queries, 0);
    let response = client.get(&target(&query)).await;
    assert_eq!(answer_matches(&query, response.body()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn many_requests_at_once_get_their_own_answers_each() {
    let bench = QuicBench::start(ListenTransport::H3, |config| config.clients.tcp_max_in_flight = 8).await;
    let (client, _driver) = H3Client::connect(&bench).await;
    let mut open: FuturesUnordered<_> = (0..300)
        .map(|number| {
            let (mut client, query) = (client.clone(), query_0(&format!("h{number}.example")));
            async move { answer_matches(&query, client.post(&query).await?.body()) }
        })
        .collect();
    while let Some(result) = open.next().await {
        assert_eq!(result, Ok(()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_frame_that_nobody_will_keep_ends_the_connection_at_its_length() {
    let bench = QuicBench::h3().await;
    // On a request's stream: HEADERS and an unknown frame. On the control stream: SETTINGS.
    for (on_control, start) in [(false, &[0x01][..]), (false, &[0x21]), (true, &[0x00, 0x04])] {
        let connection = bench.try_connect(b"h3", "dns.lab").await.unwrap();
        let bytes = [start, &[0x80, 0x10, 0, 0], &[0; 100]].concat();
        let mut send =
            if on_control { connection.open_uni().await.unwrap() } else { connection.open_bi().await.unwrap().0 };
        send.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&connection).await, EXCESSIVE_LOAD, "{start:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_request_that_its_client_gives_up_harms_no_other() {
    let bench = QuicBench::h3().await;
    let (mut client, _driver) = H3Client::connect(&bench).await;
    for number in 0..20 {
        let query = query_0(&format!("drop.g{number}.example"));
        let mut stream = client.requests.send_request(request(Method::GET, &target(&query), None)).await.unwrap();
        stream.finish().await.unwrap();
        while bench.bench.server.status().queries <= number {
            tokio::task::yield_now().await;
        }
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    }
    let query = query_0("after.example");
    assert_eq!(answer_matches(&query, client.post(&query).await.unwrap().body()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn requests_beyond_those_in_flight_are_rejected_also_when_their_client_gave_the_others_up() {
    let bench = QuicBench::start(ListenTransport::H3, |config| config.clients.tcp_max_in_flight = 4).await;
    let (mut client, _driver) = H3Client::connect(&bench).await;
    for number in 0..4 {
        let query = query_0(&format!("drop.r{number}.example"));
        let mut stream = client.requests.send_request(request(Method::GET, &target(&query), None)).await.unwrap();
        stream.finish().await.unwrap();
        while bench.bench.server.status().queries <= number {
            tokio::task::yield_now().await;
        }
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    }
    let error = client.post(&query_0("fifth.example")).await.unwrap_err();
    assert!(error.contains("H3_REQUEST_REJECTED"), "{error}");
    assert_eq!(bench.bench.server.status().queries, 4);
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_closed_as_idle() {
    let bench = QuicBench::start(ListenTransport::H3, |config| {
        config.clients.tcp_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let (client, _driver) = H3Client::connect(&bench).await;
    assert_eq!(closed(&client.connection).await, NO_ERROR);
    bench.stop().await;
}

#[tokio::test]
async fn stopping_says_goaway_and_answers_what_is_in_flight() {
    let bench = QuicBench::h3().await;
    let (mut client, driver) = H3Client::connect(&bench).await;
    let query = query_0("delay-400.example");
    let asked = tokio::spawn({
        let (mut client, query) = (client.clone(), query.clone());
        async move { client.post(&query).await }
    });
    while bench.bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    let QuicBench { bench, .. } = bench;
    let stopped = tokio::spawn(bench.server.stop(Duration::from_secs(5)));
    // The client that was told sends nothing more.
    within(async { while client.post(&query_0("late.example")).await.is_ok() {} }).await;
    assert_eq!(stopped.await.unwrap(), 0);
    assert_eq!(answer_matches(&query, asked.await.unwrap().unwrap().body()), Ok(()));
    assert_eq!(closed(&client.connection).await, NO_ERROR);
    let end = within(driver).await.unwrap();
    assert!(end.contains("H3_NO_ERROR"), "{end}");
}
