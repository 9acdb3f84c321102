//! HTTP/2: streams, limits, resets, GOAWAY, PING and the ends of a connection.

use super::{script::*, *};
use crate::{
    error::Side,
    testing::{Ca, Years, after, tls_server},
    tls::{TlsClient, TlsRoots},
};

async fn scripted(max_streams: u32) -> (HttpConnection, JoinHandle<HttpEnd>, Script) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (connection, driver) = open(client, b"h2").await;
    let script = Script::start(server, max_streams).await;
    let mut status = connection.subscribe();
    let limit = usize::try_from(max_streams).unwrap();
    within(status.wait_for(|status| status.max_streams == limit)).await.unwrap();
    (connection, driver, script)
}

/// Answers each request with its own body, over the library's server.
fn echo(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connection = ::h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let uri = request.uri().to_string();
                let mut body = request.into_body();
                let mut all = Vec::new();
                while let Some(Ok(chunk)) = body.data().await {
                    body.flow_control().release_capacity(chunk.len()).unwrap();
                    all.extend_from_slice(&chunk);
                }
                let response = Response::builder().header("x-uri", uri).body(()).unwrap();
                if let Ok(mut send) = respond.send_response(response, false) {
                    let _ = send.send_data(all.into(), true);
                }
            });
        }
    })
}

#[tokio::test]
async fn a_request_gets_its_answer_over_tls() {
    let ca = Ca::new();
    let mut config = ca.server(&["dns.example"], Years(2020, 2090), &[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let addr = tls_server(config, |stream| async move { echo(stream).await.unwrap() }).await;
    let client = TlsClient::new(&TlsRoots::only([ca.der()]), &[b"h2", b"http/1.1"]).unwrap();
    let (tcp, _) = crate::tcp::connect(&[addr], &crate::tcp::TcpOptions::default(), soon()).await.unwrap();
    let (stream, info) = client.connect(tcp, "dns.example", soon()).await.unwrap();
    let (connection, driver) = connect(stream, info.alpn.as_deref(), "dns.example").await.unwrap();
    let driver = tokio::spawn(driver);
    assert_eq!((connection.version(), connection.version().as_str()), (HttpVersion::Http2, "2"));
    let answer = connection.send(post(b"question"), LIMIT).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"question"[..]));
    assert_eq!(answer.headers()["x-uri"], "https://dns.example/dns-query");
    connection.ping(soon()).await.unwrap();
    drop(connection);
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Released));
}

#[tokio::test]
async fn many_requests_share_the_connection() {
    let (client, server) = tokio::io::duplex(1 << 16);
    echo(server);
    let (connection, _driver) = open(client, b"h2").await;
    let requests = (0..300_u32).map(|number| {
        let body = Bytes::from(number.to_be_bytes().to_vec());
        let request = Request::post("/dns-query").body(body.clone()).unwrap();
        let answer = connection.send(request, LIMIT);
        async move { assert_eq!(answer.await.unwrap().into_body(), body) }
    });
    within(futures_util::future::join_all(requests)).await;
}

#[tokio::test]
async fn the_limit_on_streams_is_followed_as_it_changes() {
    let (connection, _driver, mut script) = scripted(2).await;
    assert_eq!(connection.max_streams(), 2);
    let mut status = connection.subscribe();
    status.mark_unchanged();
    script.max_streams(7).await;
    within(status.changed()).await.unwrap();
    assert_eq!((connection.max_streams(), connection.is_going_away()), (7, false));
}

#[tokio::test]
async fn a_server_that_names_no_limit_has_none() {
    let (client, server) = tokio::io::duplex(1 << 16);
    echo(server);
    let (connection, _driver) = open(client, b"h2").await;
    assert_eq!(connection.max_streams(), 100, "before its settings came");
    within(connection.send(get("/"), LIMIT)).await.unwrap();
    assert_eq!(connection.max_streams(), usize::MAX);
}

#[tokio::test]
async fn a_request_that_http2_cannot_express_is_not_the_peers_fault() {
    let (connection, driver, _script) = scripted(100).await;
    let mut request = get("/");
    request.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    let error = within(connection.send(request, LIMIT)).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Other, Side::Local), "{error}");
    assert!(!driver.is_finished());
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_a_stream() {
    let (connection, _driver, mut script) = scripted(1).await;
    let first = tokio::spawn(connection.send(get("/1"), LIMIT));
    let held = script.expect(HEADERS).await.stream;
    let second = tokio::spawn(connection.send(get("/2"), LIMIT));
    // Lets the second request reach the connection; whatever it sent then comes before the ping.
    tokio::task::yield_now().await;
    let ping = tokio::spawn(connection.ping(soon()));
    let payload = script.expect(PING).await.payload;
    script.pong(&payload).await;
    within(ping).await.unwrap().unwrap();
    assert!(!second.is_finished() && !script.passed_over(HEADERS));
    script.answer(held, b"one").await;
    assert_eq!(&within(first).await.unwrap().unwrap().into_body()[..], b"one");
    let next = script.expect(HEADERS).await.stream;
    script.answer(next, b"two").await;
    assert_eq!(&within(second).await.unwrap().unwrap().into_body()[..], b"two");
}

#[tokio::test]
async fn goaway_spares_the_streams_below_and_hands_back_those_above() {
    let (connection, driver, mut script) = scripted(100).await;
    let kept = tokio::spawn(connection.send(get("/1"), LIMIT));
    let first = script.expect(HEADERS).await.stream;
    let refused = tokio::spawn(connection.send(get("/2"), LIMIT));
    script.expect(HEADERS).await;
    let mut status = connection.subscribe();
    script.goaway(first, 0).await;
    let error = within(refused).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Http2, Side::Upstream));
    assert!(error.is_retryable() && error.to_string().contains("goaway"), "{error}");
    within(status.wait_for(|status| status.going_away)).await.unwrap();
    let late = within(connection.send(get("/3"), LIMIT)).await.unwrap_err();
    assert!(late.is_retryable(), "{late}");
    assert!(!driver.is_finished(), "a request is still under way");
    script.answer(first, b"kept").await;
    assert_eq!(&within(kept).await.unwrap().unwrap().into_body()[..], b"kept");
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::GoAway));
}

#[tokio::test]
async fn after_goaway_a_stream_that_the_server_may_have_served_is_not_handed_back() {
    let (connection, driver, mut script) = scripted(100).await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    let stream = script.expect(HEADERS).await.stream;
    script.goaway(stream, 2).await;
    drop(script);
    let error = within(request).await.unwrap().unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(error.kind(), ErrorKind::Eof);
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::GoAway));
}

#[tokio::test]
async fn a_refused_stream_may_be_repeated_and_another_reset_may_not() {
    let (connection, driver, mut script) = scripted(100).await;
    for (code, retryable) in [(7, true), (2, false), (8, false)] {
        let request = tokio::spawn(connection.send(get("/"), LIMIT));
        let stream = script.expect(HEADERS).await.stream;
        script.reset(stream, code).await;
        let error = within(request).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Http2, retryable), "{error}");
    }
    assert!(!driver.is_finished());
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused_and_costs_nobody_else() {
    let (connection, driver, mut script) = scripted(100).await;
    // By its size as told: `content-length: 5000`, a literal with an indexed name (RFC 7541 section 6.2.2).
    let request = tokio::spawn(connection.send(get("/"), 1000));
    let stream = script.expect(HEADERS).await.stream;
    script.answer_head(stream, b"\x0f\x0d\x045000").await;
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().ends_with("the answer's body is above the limit of 1000 bytes"), "{error}");
    assert_eq!(script.expect(RST_STREAM).await.stream, stream);
    // By what came, in pieces.
    let request = tokio::spawn(connection.send(get("/"), 1000));
    let stream = script.expect(HEADERS).await.stream;
    script.answer_head(stream, &[]).await;
    script.answer_body(stream, &[0; 600], false).await;
    script.answer_body(stream, &[0; 600], false).await;
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(script.expect(RST_STREAM).await.stream, stream);
    // Exactly the limit passes.
    let request = tokio::spawn(connection.send(get("/"), 1000));
    let stream = script.expect(HEADERS).await.stream;
    script.answer(stream, &[7; 1000]).await;
    assert_eq!(within(request).await.unwrap().unwrap().into_body(), [7; 1000][..]);
    assert!(!driver.is_finished());
}

#[tokio::test]
async fn dropping_a_request_resets_its_stream_alone() {
    let (connection, _driver, mut script) = scripted(100).await;
    let dropped = tokio::spawn(connection.send(get("/1"), LIMIT));
    let first = script.expect(HEADERS).await.stream;
    let kept = tokio::spawn(connection.send(get("/2"), LIMIT));
    let second = script.expect(HEADERS).await.stream;
    dropped.abort();
    let reset = within(script.expect(RST_STREAM)).await;
    assert_eq!((reset.stream, &reset.payload[..]), (first, &8_u32.to_be_bytes()[..]), "CANCEL");
    // An answer that was on its way is dropped in silence.
    script.answer(first, b"late").await;
    script.answer(second, b"kept").await;
    assert_eq!(&within(kept).await.unwrap().unwrap().into_body()[..], b"kept");
}

#[tokio::test]
async fn thousands_of_lost_races_do_not_end_the_connection() {
    let (connection, driver, mut script) = scripted(100).await;
    // More than are remembered and more than h2 tolerates by default: answers to forgotten streams are reset once more.
    for _ in 0..6000 {
        let loser = tokio::spawn(connection.send(get("/"), LIMIT));
        let stream = script.expect(HEADERS).await.stream;
        loser.abort();
        while within(script.expect(RST_STREAM)).await.stream != stream {}
        script.answer(stream, b"late").await;
    }
    let winner = tokio::spawn(connection.send(get("/"), LIMIT));
    let stream = within(script.expect(HEADERS)).await.stream;
    script.answer(stream, b"in time").await;
    assert_eq!(&within(winner).await.unwrap().unwrap().into_body()[..], b"in time");
    assert!(!driver.is_finished());
}

#[tokio::test]
async fn the_window_comes_back_from_answers_read_refused_and_dropped() {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (connection, _driver) = open(client, b"h2").await;
    tokio::spawn(async move {
        let mut connection = ::h2::server::handshake(server).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            let _ = body.send_data(vec![1; 60_000].into(), true);
        }
    });
    // 3 x 60 x 60,000 bytes are ten windows of the connection.
    for _ in 0..60 {
        within(connection.send(get("/read"), LIMIT)).await.unwrap();
        within(connection.send(get("/refused"), 100)).await.unwrap_err();
        let limit = after(Duration::from_micros(300));
        let _ = tokio::time::timeout_at(limit.into(), connection.send(get("/dropped"), LIMIT)).await;
    }
    assert_eq!(within(connection.send(get("/"), LIMIT)).await.unwrap().body().len(), 60_000);
}

#[tokio::test]
async fn the_end_of_the_connection_in_the_middle_of_an_answer_is_told() {
    let (connection, driver, mut script) = scripted(100).await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    let stream = script.expect(HEADERS).await.stream;
    script.answer_head(stream, &[]).await;
    script.answer_body(stream, b"half", false).await;
    drop(script);
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side(), error.is_retryable()), (ErrorKind::Eof, Side::Upstream, false));
    assert_eq!(error.to_string(), "https request to dns.example:8443: connection closed by peer");
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Closed));
    assert!(connection.is_going_away());
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_ends_its_driver() {
    let (connection, driver, script) = scripted(100).await;
    drop(script);
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Closed));
    let error = within(connection.send(get("/"), LIMIT)).await.unwrap_err();
    assert!(error.is_retryable(), "nothing was sent: {error}");
    assert!(within(connection.ping(soon())).await.is_err());
}

#[tokio::test]
async fn a_connection_closed_on_this_side_does_not_blame_the_peer() {
    let (connection, driver, mut script) = scripted(100).await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    script.expect(HEADERS).await;
    driver.abort();
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Cancelled, Side::Local));
    assert!(connection.is_going_away());
    assert!(script.ends().await);
}

#[tokio::test]
async fn a_released_connection_closes_after_what_is_under_way() {
    let (connection, driver, mut script) = scripted(100).await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    let stream = script.expect(HEADERS).await.stream;
    drop(connection);
    script.answer(stream, b"last").await;
    assert_eq!(&within(request).await.unwrap().unwrap().into_body()[..], b"last");
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Released));
    assert!(script.ends().await);
}

#[tokio::test]
async fn a_ping_has_a_deadline_and_an_old_pong_does_not_answer_a_new_ping() {
    let (connection, _driver, mut script) = scripted(100).await;
    let error = connection.ping(after(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Read), Side::Upstream));
    let old = script.expect(PING).await.payload;
    script.pong(&old).await;
    let ping = tokio::spawn(connection.ping(soon()));
    let new = within(script.expect(PING)).await.payload;
    assert!(!ping.is_finished());
    script.pong(&new).await;
    within(ping).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_instead_of_http2_breaks_the_connection_without_a_panic() {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let (connection, driver) = open(client, b"h2").await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    tokio::io::AsyncWriteExt::write_all(&mut server, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Http2, Side::Upstream), "{error}");
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Error(error) if error.kind() == ErrorKind::Http2));
}
