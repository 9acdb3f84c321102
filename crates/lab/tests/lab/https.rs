//! DNS over HTTPS: h2 and h1, faults of answers, GOAWAY.

use std::time::Duration;

use h2::Reason;
use keepwarm_lab::{CloseKind, Faults, Lab, LabSpec, answer_matches, build_query};

use crate::client::{A, H2, TXT, h1_exchange, lab, never, read_end, read_response, soon, tls_config, tls_with, until};

async fn h1(lab: &Lab) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    tls_with(tls_config(lab, &["http/1.1"]), lab.https_addr()).await.unwrap()
}

#[tokio::test]
async fn h2_answers_post_and_get_on_shared_streams() {
    let lab = lab(Faults { delay: Duration::from_millis(100), ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let queries: Vec<_> = (0..100).map(|n| build_query(0, &format!("q{n}.test"), A, Some(1232))).collect();
    let mut responses = Vec::new();
    for query in &queries {
        responses.push(client.post(query).await.unwrap());
    }
    for (query, response) in queries.iter().zip(responses) {
        let response = read_response(response).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/dns-message".parse().unwrap())
        );
        assert_eq!(response.headers()["cache-control"], "max-age=60");
        answer_matches(query, response.body()).unwrap();
    }
    // The query of RFC 8484 section 4.1.1, www.example.com A.
    let got = client.get("/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB").await;
    answer_matches(&build_query(0, "www.example.com", A, None), got.body()).unwrap();
    let counted = lab.counters().https;
    assert_eq!((counted.queries, counted.answers, counted.accepted, counted.handshakes_full), (101, 101, 1, 1));
    assert_eq!((counted.in_flight_max, counted.in_flight_per_connection_max), (100, 100));
    drop(client.send);
    soon(client.ended).await.unwrap().unwrap();
    until(|| lab.counters().https.open == 0).await;
    assert_eq!((lab.counters().https.closed_by_peer, lab.counters().https.closed_by_lab), (1, 0));
}

#[tokio::test]
async fn h1_answers_one_query_after_the_other() {
    let lab = Lab::start(LabSpec { h1_only: true, ..LabSpec::default() }).await.unwrap();
    let mut stream = tls_with(tls_config(&lab, &["h2", "http/1.1"]), lab.https_addr()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for name in ["one.test", "two.test", "big.test"] {
        let query = build_query(0, name, TXT, None);
        let (status, _, body) = h1_exchange(&mut stream, &query).await.unwrap();
        assert_eq!(status, 200);
        answer_matches(&query, &body).unwrap();
    }
    let counted = lab.counters().https;
    assert_eq!((counted.queries, counted.answers, counted.accepted, counted.in_flight_max), (3, 3, 1, 1));
    drop(stream);
    until(|| lab.counters().https.open == 0).await;
    assert_eq!((lab.counters().https.closed_by_peer, lab.counters().https.closed_by_lab), (1, 0));
}

#[tokio::test]
async fn answers_are_wrong_in_the_ways_of_http() {
    let lab = lab(Faults::default()).await;
    let mut client = H2::connect(&lab).await;
    let mut plain = h1(&lab).await;
    let query = build_query(0, "a.test", A, None);

    lab.set_faults(Faults { http_status: Some(503), ..Faults::default() });
    let response = client.exchange(&query).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().len()), (503, 0));
    assert_eq!(h1_exchange(&mut plain, &query).await.unwrap().0, 503);

    lab.set_faults(Faults { content_type: Some("text/html".into()), ..Faults::default() });
    assert_eq!(client.exchange(&query).await.unwrap().headers()["content-type"], "text/html");
    assert!(h1_exchange(&mut plain, &query).await.unwrap().1.contains("content-type: text/html\r\n"));

    lab.set_faults(Faults { body_size: Some(200_000), ..Faults::default() });
    assert_eq!(client.exchange(&query).await.unwrap().body().len(), 200_000);
    assert_eq!(h1_exchange(&mut plain, &query).await.unwrap().2.len(), 200_000);

    lab.set_faults(Faults { doh_id: Some(0x0102), ..Faults::default() });
    assert_eq!(client.exchange(&query).await.unwrap().body()[..2], [1, 2]);

    lab.set_faults(Faults { forge: 1.0, ..Faults::default() });
    for _ in 0..20 {
        let forged = client.exchange(&query).await.unwrap();
        assert!(answer_matches(&query, forged.body()).unwrap_err().starts_with("question"));
    }
    assert_eq!((lab.counters().https.queries, lab.counters().https.answers), (27, 27));
}

#[tokio::test]
async fn swapped_answers_keep_to_their_streams() {
    let lab = lab(Faults { swap: 1.0, ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let (one, two) = (build_query(0, "one.test", A, None), build_query(0, "two.test", A, None));
    let (first, second) = (client.post(&one).await.unwrap(), client.post(&two).await.unwrap());
    answer_matches(&two, read_response(first).await.unwrap().body()).unwrap();
    answer_matches(&one, read_response(second).await.unwrap().body()).unwrap();
}

#[tokio::test]
async fn requests_that_are_no_queries_are_refused_and_counted() {
    let lab = lab(Faults::default()).await;
    let mut client = H2::connect(&lab).await;
    assert_eq!(client.get("/").await.status(), 404);
    assert_eq!(client.get("/dns-query?dns=%").await.status(), 400);
    assert_eq!(client.exchange(b"short").await.unwrap().status(), 400);
    assert_eq!(client.exchange(&[0; 70_000]).await.unwrap().status(), 413);
    let formerr = client.exchange(&build_query(0, "a.test", A, None)[..14]).await.unwrap();
    assert_eq!((formerr.status().as_u16(), formerr.body()[3] & 15), (200, 1));
    assert_eq!(h1_exchange(&mut h1(&lab).await, b"short").await.unwrap().0, 400);
    assert_eq!((lab.counters().https.bad, lab.counters().https.queries), (6, 0));
}

#[tokio::test]
async fn lost_queries_leave_the_other_streams_alone() {
    let lab = lab(Faults { stream_loss: 1.0, ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let query = build_query(0, "a.test", A, None);
    let lost = client.post(&query).await.unwrap();
    until(|| lab.counters().https.queries == 1).await;
    lab.set_faults(Faults::default());
    answer_matches(&query, client.exchange(&query).await.unwrap().body()).unwrap();
    never(lost).await;
    lab.set_faults(Faults { silent: true, ..Faults::default() });
    never(h1_exchange(&mut h1(&lab).await, &query)).await;
    assert_eq!((lab.counters().https.queries, lab.counters().https.answers), (3, 1));
}

#[tokio::test]
async fn the_stream_limit_is_announced() {
    let lab = lab(Faults { h2_max_streams: Some(7), delay: Duration::from_millis(30), ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let query = build_query(0, "a.test", A, None);
    client.exchange(&query).await.unwrap();
    assert_eq!(client.send.current_max_send_streams(), 7);
}

#[tokio::test]
async fn goaway_after_lets_what_is_in_flight_finish() {
    let lab = lab(Faults { goaway_after: Some(3), delay: Duration::from_millis(50), ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let query = build_query(0, "a.test", A, None);
    let mut responses = Vec::new();
    for _ in 0..3 {
        responses.push(client.post(&query).await.unwrap());
    }
    for response in responses {
        answer_matches(&query, read_response(response).await.unwrap().body()).unwrap();
    }
    soon(client.ended).await.unwrap().unwrap();
    let counted = lab.counters().https;
    assert_eq!((counted.answers, counted.open, counted.closed_by_lab, counted.closed_by_peer), (3, 0, 1, 0));
}

#[tokio::test]
async fn close_after_names_the_last_stream_and_refuses_later_ones() {
    let lab = lab(Faults { close_after: Some(3), delay: Duration::from_millis(50), ..Faults::default() }).await;
    let mut client = H2::connect(&lab).await;
    let query = build_query(0, "a.test", A, None);
    let mut responses = Vec::new();
    for _ in 0..6 {
        responses.push(client.post(&query).await.unwrap());
    }
    for (number, response) in (1..).zip(responses) {
        let outcome = read_response(response).await;
        if number <= 3 {
            answer_matches(&query, outcome.unwrap().body()).unwrap();
        } else {
            let error = outcome.unwrap_err();
            // GOAWAY names stream 5, or the stream itself was refused: both say that it was not processed.
            assert!(error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM), "{error:?}");
        }
    }
    soon(client.ended).await.unwrap().unwrap();
    let counted = lab.counters().https;
    assert_eq!((counted.queries, counted.answers, counted.closed_by_lab, counted.open), (3, 3, 1, 0));
}

#[tokio::test]
async fn an_h1_connection_closes_after_so_many_queries() {
    let lab = lab(Faults { close_after: Some(2), ..Faults::default() }).await;
    let mut stream = h1(&lab).await;
    let query = build_query(0, "a.test", A, None);
    assert!(!h1_exchange(&mut stream, &query).await.unwrap().1.contains("connection: close"));
    assert!(h1_exchange(&mut stream, &query).await.unwrap().1.contains("connection: close"));
    assert_eq!(read_end(&mut stream).await.unwrap(), 0);
    assert_eq!((lab.counters().https.closed_by_lab, lab.counters().https.closed_by_peer), (1, 0));
}

#[tokio::test]
async fn connections_are_reset_after_so_many_queries() {
    let lab = lab(Faults { reset_after: Some(1), ..Faults::default() }).await;
    let query = build_query(0, "a.test", A, None);
    let mut client = H2::connect(&lab).await;
    client.exchange(&query).await.unwrap();
    assert!(client.exchange(&query).await.unwrap_err().is_io());
    let mut stream = h1(&lab).await;
    h1_exchange(&mut stream, &query).await.unwrap();
    let error = h1_exchange(&mut stream, &query).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let counted = lab.counters().https;
    assert_eq!((counted.queries, counted.answers, counted.closed_by_lab, counted.open), (4, 2, 2, 0));
}

/// Ends an h2 and an h1 connection, by idleness or by command, and checks what the client sees.
async fn ends(kind: CloseKind, idle: bool) {
    let lab = lab(Faults::default()).await;
    let query = build_query(0, "a.test", A, None);
    let mut client = H2::connect(&lab).await;
    let mut stream = h1(&lab).await;
    client.exchange(&query).await.unwrap();
    h1_exchange(&mut stream, &query).await.unwrap();
    if idle {
        lab.update_faults(|faults| faults.idle_close = Some((Duration::from_millis(150), kind)));
    } else {
        lab.close_all(kind);
    }
    match kind {
        CloseKind::Notify => {
            soon(client.ended).await.unwrap().expect("GOAWAY without an error");
            assert_eq!(read_end(&mut stream).await.unwrap(), 0);
        }
        CloseKind::Fin => {
            soon(client.ended).await.unwrap().expect_err("no close_notify");
            assert_eq!(read_end(&mut stream).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        }
        CloseKind::Reset => {
            soon(client.ended).await.unwrap().unwrap_err();
            assert_eq!(read_end(&mut stream).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        }
        CloseKind::Silence => {
            if idle {
                // Nothing else tells when; the lab's timer is on this thread and due first.
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            never(client.exchange(&query)).await;
            never(h1_exchange(&mut stream, &query)).await;
            assert_eq!((lab.counters().https.open, lab.counters().https.queries), (2, 2));
            return;
        }
    }
    let counted = lab.counters().https;
    assert_eq!((counted.open, counted.closed_by_lab, counted.closed_by_peer), (0, 2, 0), "{kind:?} {idle}");
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
