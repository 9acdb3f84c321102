//! How connections end: by idleness, by order, in each way.

use std::io::ErrorKind;
use std::time::Duration;

use http::Method;
use keepwarm_lab::{CloseKind, OriginFaults};

use crate::client::{H2, faulty, never, read, read_end, soon, talk, tls, until};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: tiles.test\r\n\r\n";
const BODY: &str = "keepwarm lab\n";

/// Ends an h2 and an HTTP/1.1 connection, by idleness or by order, and checks what the client sees.
async fn ends(kind: CloseKind, by_order: bool) {
    let faults = OriginFaults { close_kind: kind, ..OriginFaults::default() };
    let (lab, ip) = faulty(faults).await;
    let h2 = H2::connect(&lab, ip).await;
    let mut h1 = tls(&lab, ip, "http/1.1").await.unwrap();
    h2.get("/").await.unwrap();
    talk(&mut h1, REQUEST, BODY).await;
    assert_eq!(lab.total().open, 2);
    if by_order {
        lab.close_idle(ip);
    } else {
        lab.update_faults(ip, |faults| faults.close_idle = Some(Duration::from_millis(50)));
    }
    match kind {
        CloseKind::Notify => {
            soon(h2.ended).await.unwrap().expect("GOAWAY without an error");
            assert!(read_end(&mut h1).await.1.is_ok());
            assert_eq!(lab.total().goaways, 1);
        }
        CloseKind::Fin => {
            soon(h2.ended).await.unwrap().expect_err("no close_notify");
            assert_eq!(read_end(&mut h1).await.1.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        CloseKind::Reset => {
            soon(h2.ended).await.unwrap().unwrap_err();
            assert_eq!(read_end(&mut h1).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        CloseKind::Silence => {
            // Nothing else tells when; the lab's timer is on this thread and due first.
            tokio::time::sleep(Duration::from_millis(300)).await;
            never(h2.get("/")).await;
            never(talk(&mut h1, REQUEST, BODY)).await;
            assert_eq!((lab.total().open, lab.total().requests), (2, 2));
            lab.reset_open(ip);
            soon(h2.ended).await.unwrap().unwrap_err();
            assert_eq!(read_end(&mut h1).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
    let total = lab.total();
    assert_eq!((total.open, total.closed_by_lab, total.closed_by_peer), (0, 2, 0), "{kind:?} {by_order}");
}

#[tokio::test]
async fn connections_end_with_notice() {
    ends(CloseKind::Notify, true).await;
    ends(CloseKind::Notify, false).await;
}

#[tokio::test]
async fn connections_end_without_notice() {
    ends(CloseKind::Fin, true).await;
    ends(CloseKind::Fin, false).await;
}

#[tokio::test]
async fn connections_are_reset() {
    ends(CloseKind::Reset, true).await;
    ends(CloseKind::Reset, false).await;
}

#[tokio::test]
async fn connections_fall_silent() {
    ends(CloseKind::Silence, true).await;
    ends(CloseKind::Silence, false).await;
}

#[tokio::test]
async fn busy_connections_are_not_idle() {
    let faults = OriginFaults {
        delay: Duration::from_millis(200),
        close_idle: Some(Duration::from_millis(20)),
        ..OriginFaults::default()
    };
    let (lab, ip) = faulty(faults).await;
    let h2 = H2::connect(&lab, ip).await;
    let answer = h2.open(Method::GET, "/bytes/100000", true).await.unwrap().0;
    let mut h1 = tls(&lab, ip, "http/1.1").await.unwrap();
    let over_h1 = talk(&mut h1, REQUEST, BODY);
    let order = async {
        until(|| lab.total().streams_open == 2).await;
        lab.close_idle(ip);
    };
    let (over_h1, (), over_h2) = tokio::join!(over_h1, order, read(answer));
    assert!(over_h1.starts_with("HTTP/1.1 200"));
    assert_eq!(over_h2.unwrap().body().0.len(), 100_000);
    soon(h2.ended).await.unwrap().unwrap();
    assert!(read_end(&mut h1).await.1.is_ok());
    assert_eq!((lab.total().answers, lab.total().closed_by_lab), (2, 2));
}

#[tokio::test]
async fn an_h1_connection_that_must_go_ends_with_its_answer() {
    let (lab, ip) = faulty(OriginFaults { delay: Duration::from_millis(150), ..OriginFaults::default() }).await;
    let mut h1 = tls(&lab, ip, "http/1.1").await.unwrap();
    let order = async {
        until(|| lab.total().requests == 1).await;
        lab.goaway(ip);
    };
    let (answer, ()) = tokio::join!(talk(&mut h1, REQUEST, BODY), order);
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(read_end(&mut h1).await.1.is_ok());
    lab.set_faults(ip, OriginFaults { goaway_after: Some(2), ..OriginFaults::default() });
    let mut h1 = tls(&lab, ip, "http/1.1").await.unwrap();
    assert!(!talk(&mut h1, REQUEST, BODY).await.contains("connection: close"));
    assert!(talk(&mut h1, REQUEST, BODY).await.contains("connection: close"));
}

#[tokio::test]
async fn all_that_is_open_is_reset() {
    let (lab, ip) = faulty(OriginFaults { ignore_requests: true, ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    let (response, _stream) = h2.open(Method::GET, "/", true).await.unwrap();
    let mut h1 = tls(&lab, ip, "http/1.1").await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut h1, REQUEST.as_bytes()).await.unwrap();
    until(|| lab.total().requests == 2).await;
    lab.reset_open(ip);
    read(response).await.unwrap_err();
    assert_eq!(read_end(&mut h1).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    until(|| lab.total().streams_open == 0).await;
    let total = lab.total();
    assert_eq!((total.closed_by_lab, total.open, total.aborted), (2, 0, 0));
}
