//! SETTINGS, GOAWAY, refused streams, and what only frames show.

use std::time::Duration;

use http::Method;
use keepwarm_lab::OriginFaults;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{H2, faulty, never, read, soon, tls, until};

#[tokio::test]
async fn the_limit_of_streams_changes_while_the_connection_is_open() {
    let (lab, ip) = faulty(OriginFaults { max_streams: Some(7), ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    h2.get("/").await.unwrap();
    assert_eq!(h2.send.current_max_send_streams(), 7);
    for limit in [1, 0, 30, 1] {
        lab.set_max_streams(ip, limit);
        until(|| h2.send.current_max_send_streams() == limit as usize).await;
        if limit > 0 {
            assert_eq!(h2.get("/").await.unwrap().status(), 200);
        }
    }
    lab.set_max_streams(ip, 0);
    until(|| h2.send.current_max_send_streams() == 0).await;
    let waiting = async {
        let (response, _) = h2.open(Method::GET, "/", true).await.unwrap();
        read(response).await.unwrap().status()
    };
    tokio::pin!(waiting);
    never(&mut waiting).await;
    lab.set_max_streams(ip, 5);
    assert_eq!(soon(waiting).await, 200);
    assert_eq!((lab.total().over_limit, lab.total().refused, lab.total().accepted), (0, 0, 1));
    // A fault that has nothing to do with it announces nothing.
    let settings = lab.total().settings;
    lab.update_faults(ip, |faults| faults.status = Some(404));
    assert_eq!(h2.get("/").await.unwrap().status(), 404);
    assert_eq!(lab.total().settings, settings);
}

#[tokio::test]
async fn a_limit_that_was_lowered_lets_open_streams_finish() {
    let (lab, ip) = faulty(OriginFaults { delay: Duration::from_millis(150), ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(h2.open(Method::GET, "/", true).await.unwrap().0);
    }
    until(|| lab.total().streams_open == 5).await;
    lab.set_max_streams(ip, 1);
    for answer in answers {
        assert_eq!(read(answer).await.unwrap().status(), 200);
    }
    assert_eq!((lab.total().over_limit, lab.total().streams_max), (0, 5));
}

/// HEADERS of a GET of `/`, which end the stream.
fn headers(stream: u8) -> Vec<u8> {
    let mut frame = vec![0, 0, 15, 1, 5, 0, 0, 0, stream, 0x82, 0x87, 0x84, 0x41, 10];
    frame.extend(b"tiles.test");
    frame
}

#[tokio::test]
async fn a_client_that_breaks_an_acknowledged_limit_is_refused_and_counted() {
    let faults = OriginFaults { max_streams: Some(1), ignore_requests: true, ..OriginFaults::default() };
    let (lab, ip) = faulty(faults).await;
    let mut stream = tls(&lab, ip, "h2").await.unwrap();
    // Two streams before the limit was acknowledged: the client cannot know.
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    wire.extend([headers(1), headers(3)].concat());
    stream.write_all(&wire).await.unwrap();
    until(|| lab.total().requests == 2).await;
    assert_eq!(lab.total().over_limit, 0);
    // The acknowledgement, and one more; a PING of the client's own.
    let mut wire = vec![0, 0, 0, 4, 1, 0, 0, 0, 0];
    wire.extend(headers(5));
    wire.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    stream.write_all(&wire).await.unwrap();
    let reset = soon(async {
        let mut head = [0; 9];
        loop {
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == 3 {
                return (head[8], payload);
            }
        }
    })
    .await;
    assert_eq!(reset, (5, vec![0, 0, 0, 7]), "REFUSED_STREAM");
    let total = lab.total();
    assert_eq!((total.over_limit, total.refused, total.requests, total.pings, total.streams_max), (1, 1, 2, 1, 3));
    drop(stream);
    until(|| lab.total().aborted == 2 && lab.total().streams_open == 0).await;
}

#[tokio::test]
async fn pings_are_answered_and_counted() {
    let (lab, ip) = faulty(OriginFaults::default()).await;
    let mut h2 = H2::connect(&lab, ip).await;
    for number in 1..=3 {
        soon(h2.ping.ping(h2::Ping::opaque())).await.unwrap();
        assert_eq!(lab.counters(ip).pings, number);
    }
}

#[tokio::test]
async fn each_third_stream_is_refused_unprocessed() {
    let (lab, ip) = faulty(OriginFaults { refuse_stream_every: Some(3), ..OriginFaults::default() }).await;
    let h2 = H2::connect(&lab, ip).await;
    for number in 1..=9 {
        let answer = h2.get("/").await;
        if number % 3 == 0 {
            assert_eq!(answer.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
        } else {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
    assert_eq!((lab.total().requests, lab.total().refused, lab.total().accepted), (6, 3, 1));
}

#[tokio::test]
async fn goaway_lets_what_is_in_flight_finish() {
    for by_order in [true, false] {
        let faults = OriginFaults {
            delay: Duration::from_millis(150),
            goaway_after: (!by_order).then_some(3),
            ..OriginFaults::default()
        };
        let (lab, ip) = faulty(faults).await;
        let h2 = H2::connect(&lab, ip).await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(h2.open(Method::GET, "/", true).await.unwrap().0);
        }
        until(|| lab.total().requests == 3).await;
        if by_order {
            lab.goaway(ip);
        }
        for answer in answers {
            assert_eq!(read(answer).await.unwrap().status(), 200);
        }
        soon(h2.ended).await.unwrap().unwrap();
        let total = lab.total();
        assert_eq!((total.goaways, total.answers, total.open, total.closed_by_lab), (1, 3, 0, 1));
    }
}

#[tokio::test]
async fn a_goaway_that_cuts_names_the_last_stream() {
    let faults = OriginFaults {
        delay: Duration::from_millis(100),
        goaway_after: Some(3),
        goaway_cuts: true,
        ..OriginFaults::default()
    };
    let (lab, ip) = faulty(faults).await;
    let h2 = H2::connect(&lab, ip).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(h2.open(Method::GET, "/", true).await.unwrap().0);
    }
    for (number, answer) in (1..).zip(answers) {
        let answer = read(answer).await;
        if number <= 3 {
            assert_eq!(answer.unwrap().status(), 200);
        } else {
            let error = answer.unwrap_err();
            // GOAWAY names stream 5, or the stream itself was refused: both say that it was not processed.
            assert!(error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM), "{error:?}");
        }
    }
    soon(h2.ended).await.unwrap().unwrap();
    assert_eq!((lab.total().requests, lab.total().answers, lab.total().goaways, lab.total().open), (3, 3, 1, 0));
}
