//! HTTP/1.1: keep-alive, one exchange at a time, and answers that stop half way.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::error::Side;

/// The server's end: reads one request and says what it is told.
struct Server(DuplexStream);

impl Server {
    /// Reads a request's head and as much of a body as it announces.
    async fn request(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.0.read_u8().await.unwrap());
        }
        let mut text = String::from_utf8(text).unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        text.push_str(std::str::from_utf8(&body).unwrap());
        text
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }
}

async fn started() -> (HttpConnection, JoinHandle<HttpEnd>, Server) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (connection, driver) = open(client, b"http/1.1").await;
    (connection, driver, Server(server))
}

#[tokio::test]
async fn the_connection_is_kept_from_one_exchange_to_the_next() {
    let (connection, driver, mut server) = started().await;
    assert_eq!((connection.version(), connection.max_streams()), (HttpVersion::Http1, 1));
    for round in 0..3 {
        let request = tokio::spawn(connection.send(post(b"question"), LIMIT));
        let text = server.request().await;
        assert!(text.starts_with("POST /dns-query HTTP/1.1\r\n") && text.ends_with("\r\n\r\nquestion"), "{text}");
        assert!(text.contains("host: dns.example:8443\r\n"), "{text}");
        server.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer").await;
        let answer = within(request).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"answer"[..]), "round {round}");
        connection.ping(soon()).await.unwrap();
    }
    drop(connection);
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Released));
}

#[tokio::test]
async fn a_second_request_waits_for_the_first_exchange() {
    let (connection, _driver, mut server) = started().await;
    let first = tokio::spawn(connection.send(get("/1"), LIMIT));
    assert!(server.request().await.starts_with("GET /1 "));
    let second = tokio::spawn(connection.send(get("/2"), LIMIT));
    server.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n").await;
    assert_eq!(&within(first).await.unwrap().unwrap().into_body()[..], b"one");
    assert!(server.request().await.starts_with("GET /2 "));
    server.say("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\ntwo").await;
    let answer = within(second).await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (404, &b"two"[..]));
}

#[tokio::test]
async fn an_end_in_the_middle_of_head_or_body_is_told() {
    for part in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let (connection, driver, mut server) = started().await;
        let request = tokio::spawn(connection.send(get("/"), LIMIT));
        server.request().await;
        server.say(part).await;
        drop(server);
        let error = within(request).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.side()), (ErrorKind::Eof, Side::Upstream), "{part:?}: {error:?}");
        assert!(!error.is_retryable(), "{part:?}: the server may have acted on it");
        assert!(!matches!(within(driver).await.unwrap(), HttpEnd::Released));
        assert!(connection.is_going_away() && connection.ping(soon()).await.is_err());
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_ends_its_driver() {
    let (connection, driver, server) = started().await;
    drop(server);
    assert!(matches!(within(driver).await.unwrap(), HttpEnd::Closed));
    let error = within(connection.send(get("/"), LIMIT)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Eof, true), "nothing was sent: {error}");
}

#[tokio::test]
async fn a_server_that_wants_to_close_is_heard() {
    let (connection, driver, mut server) = started().await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    server.request().await;
    server.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    within(request).await.unwrap().unwrap();
    assert!(!matches!(within(driver).await.unwrap(), HttpEnd::Error(_)));
    assert!(connection.is_going_away());
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused_and_spoils_the_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)),
    ] {
        let (connection, _driver, mut server) = started().await;
        let request = tokio::spawn(connection.send(get("/"), 1000));
        server.request().await;
        server.say(&answer).await;
        let error = within(request).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        let next = within(connection.send(get("/"), 1000)).await.unwrap_err();
        assert!(next.is_retryable(), "{next}");
    }
}

#[tokio::test]
async fn a_dropped_exchange_never_gives_its_answer_to_the_next() {
    let (connection, driver, mut server) = started().await;
    let dropped = tokio::spawn(connection.send(get("/1"), LIMIT));
    server.request().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let error = within(connection.send(get("/2"), LIMIT)).await.unwrap_err();
    assert_eq!((error.kind(), error.side(), error.is_retryable()), (ErrorKind::Cancelled, Side::Local, true));
    assert!(connection.ping(soon()).await.is_err());
    // The connection is closed at once; there is nobody left who could read the first answer.
    within(driver).await.unwrap();
    assert!(server.0.write_all(b"HTTP/1.1 200 OK\r\n").await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_typed_error() {
    let (connection, driver, mut server) = started().await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    server.request().await;
    server.say("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Http1, Side::Upstream), "{error}");
    within(driver).await.unwrap();
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_the_connection() {
    let (connection, driver, mut server) = started().await;
    server.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(!matches!(within(driver).await.unwrap(), HttpEnd::Released));
    assert!(within(connection.send(get("/"), LIMIT)).await.is_err());
}

#[tokio::test]
async fn a_connection_closed_on_this_side_does_not_blame_the_peer() {
    let (connection, driver, mut server) = started().await;
    let request = tokio::spawn(connection.send(get("/"), LIMIT));
    server.request().await;
    driver.abort();
    let error = within(request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Cancelled, Side::Local));
}
