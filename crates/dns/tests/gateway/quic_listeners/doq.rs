//! DNS over QUIC, RFC 9250.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use keepwarm_dns::config::ListenTransport;
use keepwarm_lab::answer_matches;
use quinn::VarInt;

use super::client::*;
use crate::support::*;

const NO_ERROR: u64 = 0;
const PROTOCOL_ERROR: u64 = 2;
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);

#[tokio::test]
async fn a_query_is_answered_on_its_stream_and_the_stream_ends() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    for name in ["one.example", "two.example", "nx.example"] {
        let query = query_0(name);
        let answer = ask_doq(&connection, &query).await.unwrap();
        assert_eq!(&answer[..2], [0, 0]);
        if name != "nx.example" {
            assert_eq!(answer_matches(&query, &answer), Ok(()));
        }
        assert_eq!(rcode(&answer), if name == "nx.example" { 3 } else { 0 });
    }
    assert_eq!(bench.bench.server.status().tcp_clients, 1);
    // RFC 9250 section 4.2: there are no streams in one direction.
    assert!(connection.open_uni().now_or_never().is_none());
    bench.stop().await;
}

#[tokio::test]
async fn many_queries_at_once_get_their_own_answers_each() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| config.clients.tcp_max_in_flight = 8).await;
    let connection = bench.connect().await;
    let mut open: FuturesUnordered<_> = (0..300)
        .map(|number| {
            let (connection, query) = (connection.clone(), query_0(&format!("m{number}.example")));
            async move { answer_matches(&query, &ask_doq(&connection, &query).await?) }
        })
        .collect();
    while let Some(result) = open.next().await {
        assert_eq!(result, Ok(()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn what_the_protocol_forbids_ends_the_connection_with_its_error() {
    let bench = QuicBench::doq().await;
    let good = query_0("good.example");
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut query = good.clone();
        change(&mut query);
        framed(&query)
    };
    let cases = [
        ("an id other than 0", changed(|query| query[1] = 1)),
        ("an answer", changed(|query| query[2] |= 0x80)),
        ("half a header", framed(&good[..11])),
        ("two messages", [framed(&good), framed(&good)].concat()),
        ("bytes behind the message", [framed(&good), vec![0]].concat()),
        ("half a message", framed(&good)[..20].to_vec()),
        ("half a length", vec![0]),
        ("nothing", Vec::new()),
        (
            "edns-tcp-keepalive",
            changed(|query| {
                let length = query.len();
                query[length - 1] = 4;
                query.extend_from_slice(&[0, 11, 0, 0]);
            }),
        ),
    ];
    for (what, bytes) in cases {
        let connection = bench.connect().await;
        assert!(exchange(&connection, &bytes).await.is_err(), "{what}");
        assert_eq!(closed(&connection).await, PROTOCOL_ERROR, "{what}");
    }
    assert_eq!(bench.bench.labs[0].counters().udp.queries, 0, "nothing of it was asked");
    bench.stop().await;
}

#[tokio::test]
async fn what_is_malformed_in_dns_is_answered_and_the_connection_lives() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    let good = query_0("good.example");
    let mut opcode = good.clone();
    opcode[2] = 2 << 3;
    for (query, code) in [(&good[..20], 1), (&opcode, 4)] {
        assert_eq!(rcode(&ask_doq(&connection, query).await.unwrap()), code);
    }
    assert_eq!(answer_matches(&good, &ask_doq(&connection, &good).await.unwrap()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_half_a_query_and_waits_is_closed_as_idle() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| {
        config.clients.tcp_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let connection = bench.connect().await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&query_0("half.example"))[..9]).await.unwrap();
    assert_eq!(closed(&connection).await, NO_ERROR);
    let connection = bench.connect().await;
    assert_eq!(closed(&connection).await, NO_ERROR, "nothing at all was sent");
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_for_its_answer_is_not_idle() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| {
        config.clients.tcp_idle_timeout = Duration::from_millis(200);
    })
    .await;
    let connection = bench.connect().await;
    let query = query_0("delay-900.example");
    assert_eq!(answer_matches(&query, &ask_doq(&connection, &query).await.unwrap()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_begins_more_than_is_kept_is_closed() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    let mut open = Vec::new();
    let part = [&60_000_u16.to_be_bytes()[..], &[0; 50_000]].concat();
    for _ in 0..3 {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        // The connection may end before the last byte is written.
        let _ = within(send.write_all(&part)).await;
        open.push((send, receive));
    }
    assert_eq!(closed(&connection).await, 4, "DOQ_EXCESSIVE_LOAD");
    bench.stop().await;
}

#[tokio::test]
async fn a_long_query_of_many_packets_is_read_whole() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    // An option of 60,000 bytes: nobody forwards that over UDP, but it is read, and refused by size or answered.
    let mut query = query_0("long.example");
    let length = query.len();
    query[length - 2..].copy_from_slice(&60_004_u16.to_be_bytes());
    query.extend_from_slice(&[0, 12]);
    query.extend_from_slice(&60_000_u16.to_be_bytes());
    query.extend_from_slice(&[0; 60_000]);
    let answer = ask_doq(&connection, &query).await.unwrap();
    assert_eq!(&answer[..2], [0, 0]);
    assert_eq!(rcode(&answer), 0, "padding is for this hop and not forwarded");
    bench.stop().await;
}

#[tokio::test]
async fn a_cancelled_query_harms_no_other_and_makes_no_room_for_more() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| {
        config.clients.tcp_max_in_flight = 4;
        config.timeout = Duration::from_secs(2);
    })
    .await;
    let connection = bench.connect().await;
    for number in 0..4 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&framed(&query_0(&format!("drop.c{number}.example")))).await.unwrap();
        send.finish().unwrap();
        // The server has it before it hears that nobody wants it.
        while bench.bench.server.status().queries <= number {
            tokio::task::yield_now().await;
        }
        receive.stop(REQUEST_CANCELLED).unwrap();
    }
    let fifth = query_0("fifth.example");
    let asked = tokio::spawn({
        let (connection, fifth) = (connection.clone(), fifth.clone());
        async move { ask_doq(&connection, &fifth).await }
    });
    // Another client is served meanwhile.
    let other = query_0("other.example");
    assert_eq!(answer_matches(&other, &ask_doq(&bench.connect().await, &other).await.unwrap()), Ok(()));
    assert_eq!(bench.bench.server.status().queries, 5, "four cancelled ones are in flight still");
    assert_eq!(answer_matches(&fifth, &asked.await.unwrap().unwrap()), Ok(()));
    bench.stop().await;
}

#[tokio::test]
async fn a_query_that_is_reset_before_its_end_is_not_asked() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&query_0("reset.example"))[..12]).await.unwrap();
    send.reset(REQUEST_CANCELLED).unwrap();
    let reset = within(receive.received_reset()).await.unwrap();
    assert_eq!(reset, Some(REQUEST_CANCELLED), "RFC 9250 section 4.3.1");
    let good = query_0("good.example");
    assert_eq!(answer_matches(&good, &ask_doq(&connection, &good).await.unwrap()), Ok(()));
    assert_eq!(bench.bench.server.status().queries, 1);
    bench.stop().await;
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_closes_without_an_error() {
    let bench = QuicBench::doq().await;
    let (asking, idle) = (bench.connect().await, bench.connect().await);
    let query = query_0("delay-400.example");
    let asked = tokio::spawn({
        let (connection, query) = (asking.clone(), query.clone());
        async move { ask_doq(&connection, &query).await }
    });
    while bench.bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    let QuicBench { bench, .. } = bench;
    let cut = bench.server.stop(Duration::from_secs(5)).await;
    assert_eq!(cut, 0);
    assert_eq!(answer_matches(&query, &asked.await.unwrap().unwrap()), Ok(()));
    assert_eq!((closed(&asking).await, closed(&idle).await), (NO_ERROR, NO_ERROR));
}

#[tokio::test]
async fn stopping_does_not_wait_for_queries_that_were_cancelled() {
    let bench = QuicBench::start(ListenTransport::Quic, |config| config.timeout = Duration::from_secs(60)).await;
    let connection = bench.connect().await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&query_0("drop.example"))).await.unwrap();
    send.finish().unwrap();
    while bench.bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    receive.stop(REQUEST_CANCELLED).unwrap();
    // Its upstream never answers.
    assert_eq!(within(bench.bench.server.stop(Duration::from_secs(30))).await, 0);
}

#[tokio::test]
async fn a_server_that_runs_out_of_patience_closes_its_clients_all_the_same() {
    let bench = QuicBench::doq().await;
    let connection = bench.connect().await;
    let asked = tokio::spawn({
        let connection = connection.clone();
        async move { ask_doq(&connection, &query_0("drop.example")).await }
    });
    while bench.bench.server.status().queries == 0 {
        tokio::task::yield_now().await;
    }
    let cut = bench.bench.server.stop(Duration::from_millis(100)).await;
    assert_eq!(cut, 1);
    assert!(asked.await.unwrap().is_err());
    assert_eq!(closed(&connection).await, NO_ERROR);
}
