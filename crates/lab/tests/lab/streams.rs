//! DNS over TCP and TLS: pipelining, message faults on streams, handshakes.

use std::time::Duration;

use keepwarm_lab::{Faults, Lab, LabSpec, TlsVersions, answer_matches, build_query};
use rustls::ProtocolVersion;

use crate::client::{
    A, ByteStream, lab, never, read_end, read_message, tcp, tls, tls_config, tls_with, until, write_message,
};

async fn both(lab: &Lab) -> [Box<dyn ByteStream>; 2] {
    [Box::new(tcp(lab.tcp_addr()).await), Box::new(tls(lab).await)]
}

#[tokio::test]
async fn queries_are_pipelined_and_answered_out_of_order() {
    let lab = lab(Faults::default()).await;
    for mut stream in both(&lab).await {
        let slow = build_query(1, "delay-100.test", A, None);
        let fast = build_query(2, "fast.test", A, None);
        let two = [&slow, &fast].map(|query| [&[0, u8::try_from(query.len()).unwrap()], query.as_slice()].concat());
        tokio::io::AsyncWriteExt::write_all(&mut stream, &two.concat()).await.unwrap();
        answer_matches(&fast, &read_message(&mut stream).await.unwrap()).unwrap();
        answer_matches(&slow, &read_message(&mut stream).await.unwrap()).unwrap();
    }
    for counted in [lab.counters().tcp, lab.counters().tls] {
        assert_eq!((counted.queries, counted.answers, counted.accepted), (2, 2, 1));
        assert_eq!((counted.in_flight_max, counted.in_flight_per_connection_max), (2, 2));
    }
    until(|| lab.counters().tls.open == 0 && lab.counters().tcp.open == 0).await;
    assert_eq!((lab.counters().tcp.closed_by_peer, lab.counters().tls.closed_by_peer), (1, 1));
    assert_eq!((lab.counters().tcp.closed_by_lab, lab.counters().tls.closed_by_lab), (0, 0));
}

#[tokio::test]
async fn ten_thousand_queries_pipelined_are_all_answered() {
    let lab = lab(Faults { delay: Duration::from_millis(5), ..Faults::default() }).await;
    let (mut reader, mut writer) = tokio::io::split(tls(&lab).await);
    let query = |id: u16| build_query(id, &format!("q{id}.test"), A, None);
    let sender = tokio::spawn(async move {
        for id in 0..10_000 {
            let query = query(id);
            let frame = [&[0, u8::try_from(query.len()).unwrap()], query.as_slice()].concat();
            tokio::io::AsyncWriteExt::write_all(&mut writer, &frame).await.unwrap();
        }
        tokio::io::AsyncWriteExt::flush(&mut writer).await.unwrap();
        writer
    });
    for _ in 0..10_000 {
        let length = tokio::io::AsyncReadExt::read_u16(&mut reader).await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer).await.unwrap();
        answer_matches(&query(u16::from_be_bytes([answer[0], answer[1]])), &answer).unwrap();
    }
    drop(sender.await.unwrap());
    assert_eq!((lab.counters().tls.queries, lab.counters().tls.answers), (10_000, 10_000));
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answers() {
    let lab = lab(Faults { delay: Duration::from_millis(50), ..Faults::default() }).await;
    let mut stream = tcp(lab.tcp_addr()).await;
    let query = build_query(1, "a.test", A, None);
    write_message(&mut stream, &query).await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    answer_matches(&query, &read_message(&mut stream).await.unwrap()).unwrap();
    assert_eq!(read_end(&mut stream).await.unwrap(), 0);
    assert_eq!((lab.counters().tcp.closed_by_peer, lab.counters().tcp.open), (1, 0));
}

#[tokio::test]
async fn lost_queries_leave_the_connection_alone() {
    let lab = lab(Faults { stream_loss: 1.0, loss: 0.0, ..Faults::default() }).await;
    for mut stream in both(&lab).await {
        for silent in [false, true] {
            lab.set_faults(Faults { stream_loss: f64::from(u8::from(!silent)), silent, ..Faults::default() });
            write_message(&mut stream, &build_query(1, "a.test", A, None)).await;
            never(read_message(&mut stream)).await;
        }
        lab.set_faults(Faults::default());
        let query = build_query(3, "a.test", A, None);
        write_message(&mut stream, &query).await;
        answer_matches(&query, &read_message(&mut stream).await.unwrap()).unwrap();
    }
    for counted in [lab.counters().tcp, lab.counters().tls] {
        assert_eq!((counted.queries, counted.answers, counted.accepted), (3, 1, 1));
        assert_eq!(counted.in_flight_max, 1);
    }
}

#[tokio::test]
async fn duplicates_forgeries_and_swaps_come_over_streams() {
    let lab = lab(Faults { duplicate: 1.0, ..Faults::default() }).await;
    for mut stream in both(&lab).await {
        let (one, two) = (build_query(1, "one.test", A, None), build_query(2, "two.test", A, None));
        lab.set_faults(Faults { duplicate: 1.0, forge: 1.0, ..Faults::default() });
        write_message(&mut stream, &one).await;
        assert!(answer_matches(&one, &read_message(&mut stream).await.unwrap()).is_err());
        for _ in 0..2 {
            answer_matches(&one, &read_message(&mut stream).await.unwrap()).unwrap();
        }
        lab.set_faults(Faults { swap: 1.0, ..Faults::default() });
        write_message(&mut stream, &one).await;
        write_message(&mut stream, &two).await;
        for _ in 0..2 {
            let mut answer = read_message(&mut stream).await.unwrap();
            answer[1] = 3 - answer[1];
            let other = if answer[1] == 1 { &one } else { &two };
            answer_matches(other, &answer).unwrap();
        }
    }
    assert_eq!((lab.counters().tcp.answers, lab.counters().tls.answers), (5, 5));
}

#[tokio::test]
async fn the_keepalive_is_announced_to_those_who_speak_edns() {
    let lab = lab(Faults { keepalive: Some(Duration::from_millis(2_500)), ..Faults::default() }).await;
    for mut stream in both(&lab).await {
        for (edns, announced) in [(Some(1232), true), (None, false)] {
            let query = build_query(1, "a.test", A, edns);
            write_message(&mut stream, &query).await;
            let answer = read_message(&mut stream).await.unwrap();
            answer_matches(&query, &answer).unwrap();
            assert_eq!(answer.ends_with(&[0, 11, 0, 2, 0, 25]), announced);
        }
    }
}

#[tokio::test]
async fn a_message_that_is_no_query_ends_the_connection() {
    let lab = lab(Faults::default()).await;
    let mut stream = tcp(lab.tcp_addr()).await;
    write_message(&mut stream, &build_query(1, "a.test", A, None)[..15]).await;
    assert_eq!(read_message(&mut stream).await.unwrap()[3] & 15, 1, "FORMERR, and on it goes");
    write_message(&mut stream, b"short").await;
    assert_eq!(read_end(&mut stream).await.unwrap(), 0);
    assert_eq!((lab.counters().tcp.bad, lab.counters().tcp.queries), (2, 0));
}

#[tokio::test]
async fn full_and_resumed_handshakes_are_told_apart() {
    for (versions, version) in
        [(TlsVersions::Tls12, ProtocolVersion::TLSv1_2), (TlsVersions::Tls13, ProtocolVersion::TLSv1_3)]
    {
        let lab = Lab::start(LabSpec { tls_versions: versions, ..LabSpec::default() }).await.unwrap();
        let config = tls_config(&lab, &[]);
        for resumed in 0..4 {
            let mut stream = tls_with(config.clone(), lab.tls_addr()).await.unwrap();
            let query = build_query(1, "a.test", A, None);
            write_message(&mut stream, &query).await;
            // The tickets come with the answer, at the latest.
            answer_matches(&query, &read_message(&mut stream).await.unwrap()).unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version));
            let counted = lab.counters().tls;
            assert_eq!((counted.handshakes_full, counted.handshakes_resumed), (1, resumed));
        }
        assert_eq!(lab.counters().tls.handshakes_failed, 0);
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_lab_fails_its_handshake() {
    let (lab, other) = (lab(Faults::default()).await, lab(Faults::default()).await);
    tls_with(tls_config(&other, &[]), lab.tls_addr()).await.unwrap_err();
    until(|| lab.counters().tls.handshakes_failed == 1 && lab.counters().tls.open == 0).await;
    assert_eq!((lab.counters().tls.accepted, lab.counters().tls.handshakes_full), (1, 0));
    assert!(lab.ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
}
