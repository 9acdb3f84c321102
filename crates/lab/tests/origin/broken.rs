//! Answers that are late, slow, wrong, cut or missing.

use std::io::ErrorKind;
use std::time::Duration;

use http::Method;
use keepwarm_lab::{OriginFaults, expected_body};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::client::{H1, H2, faulty, never, origin, read_body, read_end, soon, talk, tls, until};

const REQUEST: &str = "GET /bytes/50000 HTTP/1.1\r\nhost: tiles.test\r\n\r\n";

/// The body that comes until an answer breaks off, over h2 and HTTP/1.1, and how each of them sees the end.
async fn broken(faults: OriginFaults) -> (Option<h2::Error>, bool, std::io::Result<()>) {
    let (lab, ip) = faulty(faults).await;
    let h2 = H2::connect(&lab, ip).await;
    let (response, _stream) = h2.open(Method::GET, "/bytes/50000", true).await.unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.headers()["content-length"], "50000");
    let (body, error) = read_body(&mut response.into_body()).await;
    assert!(body == expected_body("/bytes/50000", 0..20_001), "{} bytes", body.len());
    lab.update_faults(ip, |faults| faults.delay = Duration::ZERO);
    let alive = h2.get("/bytes/20001").await.is_ok();

    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    talk(&mut stream, REQUEST, "\r\n\r\n").await;
    let (body, end) = read_end(&mut stream).await;
    assert!(body == expected_body("/bytes/50000", 0..20_001), "{} bytes", body.len());
    let total = lab.total();
    assert_eq!((total.answers, total.aborted, total.streams_open), (u64::from(alive), 0, 0));
    (error, alive, end)
}

#[tokio::test]
async fn bodies_are_reset_in_the_middle() {
    let (error, alive, end) = broken(OriginFaults { reset_mid_body: Some(20_001), ..OriginFaults::default() }).await;
    assert_eq!(error.unwrap().reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert!(alive);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_close_in_the_middle_of_bodies() {
    let (error, alive, end) = broken(OriginFaults { close_mid_body: Some(20_001), ..OriginFaults::default() }).await;
    assert!(error.unwrap().is_io());
    assert!(!alive);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn bodies_are_truncated() {
    let (error, alive, end) = broken(OriginFaults { truncate: Some(20_001), ..OriginFaults::default() }).await;
    // The h2 crate compares content-length with what came.
    assert_eq!(error.unwrap().reason(), Some(h2::Reason::PROTOCOL_ERROR));
    assert!(alive);
    assert!(end.is_ok());
}

#[tokio::test]
async fn statuses_and_headers_are_as_told() {
    let faults = OriginFaults {
        status: Some(429),
        retry_after: Some("7".to_owned()),
        keep_alive_header: Some("timeout=5".to_owned()),
        ..OriginFaults::default()
    };
    let (lab, ip) = faulty(faults).await;
    let mut h1 = H1::connect(&lab, ip).await;
    let h2 = H2::connect(&lab, ip).await;
    let over_h2 = h2.post("/upload", b"body").await.unwrap();
    for answer in [over_h2, h1.get("/bytes/100").await.unwrap()] {
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    }
    assert_eq!(h1.get("/").await.unwrap().headers()["keep-alive"], "timeout=5");
    assert_eq!((lab.total().connections_h1, lab.total().open), (1, 2));
    lab.set_faults(ip, OriginFaults { connection_close: true, ..OriginFaults::default() });
    let answer = h1.get("/").await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["connection"]), (200, &"close".parse().unwrap()));
    soon(h1.ended).await.unwrap().unwrap();
    assert_eq!(lab.total().closed_by_lab, 1);
}

#[tokio::test]
async fn requests_are_ignored_until_the_client_gives_up() {
    let (lab, ip) = faulty(OriginFaults { ignore_requests: true, ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    let (mut response, mut stream) = h2.open(Method::GET, "/", true).await.unwrap();
    never(&mut response).await;
    stream.send_reset(h2::Reason::CANCEL);
    until(|| lab.total().aborted == 1).await;
    let mut stream = tls(&lab, ip, "http/1.1").await.unwrap();
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    until(|| lab.total().requests == 2).await;
    assert_eq!(lab.total().streams_open, 1);
    drop(stream);
    until(|| lab.total().aborted == 2 && lab.total().open == 1).await;
    lab.set_faults(ip, OriginFaults::default());
    assert_eq!(h2.get("/").await.unwrap().status(), 200);
    assert_eq!((lab.total().answers, lab.total().streams_open), (1, 0));
}

#[tokio::test]
async fn answers_are_late_and_bodies_slow() {
    let (lab, ip) = faulty(OriginFaults { delay: Duration::from_millis(60), ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    let start = Instant::now();
    h2.get("/").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
    lab.set_faults(ip, OriginFaults { bytes_per_second: Some(10_000), ..OriginFaults::default() });
    let start = Instant::now();
    let over_h2 = h2.get("/bytes/2000").await.unwrap();
    // Four pieces of 500 bytes, the last of which ends it.
    assert!(start.elapsed() >= Duration::from_millis(150));
    let over_h1 = H1::connect(&lab, ip).await.get("/bytes/2000").await.unwrap();
    for answer in [over_h2, over_h1] {
        assert_eq!(answer.body().0, expected_body("/bytes/2000", 0..2000));
    }
}

#[tokio::test]
async fn addresses_have_faults_of_their_own() {
    let lab = origin(50).await;
    let addresses = lab.addresses();
    for ip in &addresses[..10] {
        lab.update_faults(*ip, |faults| faults.status = Some(403));
    }
    for (index, ip) in addresses.iter().enumerate() {
        let status = if index < 10 { 403 } else { 200 };
        assert_eq!(H2::connect(&lab, *ip).await.get("/").await.unwrap().status(), status, "{ip}");
        assert_eq!((lab.counters(*ip).requests, lab.faults(*ip).status.is_some()), (1, index < 10));
    }
    assert_eq!((lab.total().requests, lab.total().accepted), (50, 50));
}
