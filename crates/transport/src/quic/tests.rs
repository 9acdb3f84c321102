//! Handshakes and exchanges against a server on loopback that does what each test wants.

use std::{
    future::{Future, poll_fn},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};

use super::*;
use crate::{
    error::{Error, ErrorKind, Phase, Side},
    testing::{Ca, Years, after, soon},
    tls::TlsRoots,
};

const IDLE: Duration = Duration::from_secs(30);
const CANCELLED: u32 = 3;

/// A server for "doq" whose settings were changed.
fn server(ca: &Ca, change: impl FnOnce(&mut TransportConfig)) -> Endpoint {
    let mut tls = ca.server(&["dns.example"], Years(2020, 2100), &[&rustls::version::TLS13]);
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    change(&mut transport);
    config.transport_config(Arc::new(transport));
    Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// A server that hands each stream of its connections to `serve`.
fn serving<F>(
    ca: &Ca,
    serve: impl Fn(quinn::Connection, SendStream, RecvStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    serving_with(server(ca, |_| {}), serve)
}

fn serving_with<F>(
    endpoint: Endpoint,
    serve: impl Fn(quinn::Connection, SendStream, RecvStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = endpoint.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(serve(connection.clone(), send, recv));
                }
            });
        }
    });
    address
}

async fn echo(_: quinn::Connection, mut send: SendStream, mut recv: RecvStream) {
    let request = recv.read_to_end(70_000).await.unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    let _ = send.stopped().await;
}

fn client(ca: &Ca) -> QuicClient {
    QuicClient::new(&TlsRoots::only([ca.der()]), &[b"doq"], IDLE).unwrap()
}

async fn connected(ca: &Ca, address: SocketAddr) -> QuicConnection {
    client(ca).connect(&[address], "dns.example", soon()).await.unwrap().0
}

fn exchanges(connection: QuicConnection) -> QuicExchanges<&'static str> {
    QuicExchanges::new(connection, 1000, CANCELLED)
}

fn start(exchanges: &mut QuicExchanges<&'static str>, request: &'static str) {
    exchanges.start(Bytes::from_static(request.as_bytes()), request, tokio::time::Instant::now().into_std());
}

/// Polls until `count` requests have ended, or the connection has.
async fn finish(
    exchanges: &mut QuicExchanges<&'static str>,
    count: usize,
) -> (Vec<Answered<&'static str>>, Option<QuicEnd>) {
    let mut finished = Vec::new();
    let end = poll_fn(|cx| match exchanges.poll(cx, &mut finished) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending if finished.len() >= count => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    (finished, end)
}

#[tokio::test]
async fn the_second_handshake_resumes_and_the_peers_limits_are_known() {
    let ca = Ca::new();
    let endpoint = server(&ca, |transport| {
        transport.max_concurrent_bidi_streams(VarInt::from_u32(7));
        transport.max_idle_timeout(Some(Duration::from_secs(11).try_into().unwrap()));
    });
    let address = serving_with(endpoint, echo);
    let client = client(&ca);
    let (connection, first) = client.connect(&[address], "dns.example", soon()).await.unwrap();
    assert_eq!((first.max_streams, first.idle_timeout), (7, Some(Duration::from_secs(11))));
    assert!(!first.resumed);
    assert_eq!(connection.peer(), address);
    // The ticket comes with the first answer at the latest.
    let mut exchanges = exchanges(connection);
    start(&mut exchanges, "ticket");
    finish(&mut exchanges, 1).await;
    let (_, second) = client.connect(&[address], "dns.example", soon()).await.unwrap();
    assert!(second.resumed);
    let (_, other) = self::client(&ca).connect(&[address], "dns.example", soon()).await.unwrap();
    assert!(!other.resumed, "another client has another cache");
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_is_refused_in_words() {
    let ca = Ca::new();
    let address = serving(&ca, echo);
    let error = client(&ca).connect(&[address], "other.example", soon()).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Certificate, Side::Upstream));
    assert!(error.to_string().contains("not for other.example"), "{error}");
    let error = client(&Ca::named("another")).connect(&[address], "dns.example", soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Certificate, "{error}");
}

#[tokio::test]
async fn no_common_protocol_is_an_error_of_its_own() {
    let ca = Ca::new();
    let address = serving(&ca, echo);
    let client = QuicClient::new(&TlsRoots::only([ca.der()]), &[b"h3"], IDLE).unwrap();
    let error = client.connect(&[address], "dns.example", soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Alpn, "{error}");
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn nobody_there_is_refused_long_before_the_deadline() {
    let free = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let error = client(&Ca::new()).connect(&[free], "dns.example", soon()).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Refused, Side::Upstream));
    assert_eq!(error.to_string(), format!("connect to {free}: connection refused"));
}

#[tokio::test]
async fn silence_ends_the_dial_at_its_deadline() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let deadline = after(Duration::from_millis(50));
    let error = client(&Ca::new()).connect(&[address], "dns.example", deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut(Phase::Quic));
    assert!(error.to_string().contains("quic handshake timed out"), "{error}");
}

#[tokio::test]
async fn the_next_address_is_tried_while_the_first_is_silent() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ca = Ca::new();
    let address = serving(&ca, echo);
    let both = [silent.local_addr().unwrap(), address];
    let (connection, _) = client(&ca).connect(&both, "dns.example", soon()).await.unwrap();
    assert_eq!(connection.peer(), address);
}

#[tokio::test]
async fn each_request_gets_its_own_answer_and_waits_for_a_stream_where_there_is_none() {
    let ca = Ca::new();
    let endpoint = server(&ca, |transport| {
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    });
    let connection = connected(&ca, serving_with(endpoint, echo)).await;
    let mut exchanges = exchanges(connection);
    let requests = ["one", "two", "three", "four", "five"];
    for request in requests {
        start(&mut exchanges, request);
    }
    assert_eq!((exchanges.len(), exchanges.blocked()), (5, 5));
    let (finished, end) = finish(&mut exchanges, requests.len()).await;
    assert!(end.is_none() && exchanges.is_empty());
    let answers = finished.into_iter().map(|(request, answer)| (request, String::from_utf8(answer.unwrap()).unwrap()));
    assert_eq!(answers.collect::<Vec<_>>(), requests.map(|request| (request, request.to_owned())));
}

#[tokio::test]
async fn a_stream_that_the_peer_gives_up_costs_its_own_request_alone() {
    let ca = Ca::new();
    let address = serving(&ca, |connection, mut send, mut recv| async move {
        let request = recv.read_to_end(100).await.unwrap();
        if request == b"bad" {
            send.reset(VarInt::from_u32(4)).unwrap();
        } else {
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
            connection.closed().await;
        }
    });
    let mut exchanges = exchanges(connected(&ca, address).await);
    start(&mut exchanges, "bad");
    start(&mut exchanges, "good");
    let (mut finished, end) = finish(&mut exchanges, 2).await;
    assert!(end.is_none(), "{end:?}");
    finished.sort_by_key(|(request, _)| *request);
    let error = finished[0].1.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Quic, false));
    assert!(error.to_string().contains("code 4"), "{error}");
    assert_eq!(finished[1].1.as_deref().unwrap(), b"good");
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused() {
    let ca = Ca::new();
    let address = serving(&ca, |_, mut send, _recv| async move {
        let _ = send.write_all(&[7; 1001]).await;
        let _ = send.finish();
        let _ = send.stopped().await;
    });
    let mut exchanges = exchanges(connected(&ca, address).await);
    start(&mut exchanges, "much");
    let (finished, _) = finish(&mut exchanges, 1).await;
    assert_eq!(finished[0].1.as_ref().unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn what_is_given_up_gives_its_stream_back() {
    let ca = Ca::new();
    let endpoint = server(&ca, |transport| {
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    });
    let (told, mut codes) = tokio::sync::mpsc::unbounded_channel();
    let address = serving_with(endpoint, move |connection, send, mut recv| {
        let told = told.clone();
        async move {
            // Given up before it was here, the request is not read.
            let Ok(request) = recv.read_to_end(100).await else { return };
            if request == b"never" {
                told.send(send.stopped().await.unwrap()).unwrap();
                return;
            }
            echo_back(connection, send, &request).await;
        }
    });
    let mut exchanges = exchanges(connected(&ca, address).await);
    start(&mut exchanges, "never");
    let pending = poll_fn(|cx| Poll::Ready(exchanges.poll(cx, &mut Vec::new()).is_pending())).await;
    assert!(pending && exchanges.blocked() == 0);
    exchanges.give_up(soon());
    assert!(exchanges.is_empty());
    start(&mut exchanges, "next");
    let (finished, _) = finish(&mut exchanges, 1).await;
    assert_eq!(finished[0].1.as_deref().unwrap(), b"next");
    // The request may have been given up before it left; then it never came.
    if let Ok(code) = codes.try_recv() {
        assert_eq!(code, Some(VarInt::from_u32(CANCELLED)));
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_stream_are_given_back_when_the_connection_ends() {
    let ca = Ca::new();
    let endpoint = server(&ca, |transport| {
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    });
    let address = serving_with(endpoint, |connection, send, mut recv| async move {
        let _ = recv.read_to_end(100).await;
        connection.close(VarInt::from_u32(0), b"");
        drop(send);
    });
    let mut exchanges = exchanges(connected(&ca, address).await);
    for name in ["one", "two", "three", "four"] {
        start(&mut exchanges, name);
    }
    let mut finished = Vec::new();
    poll_fn(|cx| exchanges.poll(cx, &mut finished).map(drop)).await;
    poll_fn(|cx| {
        exchanges.disconnect(0, cx, &mut finished);
        Poll::Ready(())
    })
    .await;
    let mut names: Vec<_> = finished.iter().map(|(name, result)| (*name, result.is_err())).collect();
    names.sort_unstable();
    assert_eq!(names, [("four", true), ("one", true), ("three", true), ("two", true)]);
}

async fn echo_back(connection: quinn::Connection, mut send: SendStream, request: &[u8]) {
    send.write_all(request).await.unwrap();
    send.finish().unwrap();
    connection.closed().await;
}

#[tokio::test]
async fn a_connection_that_the_peer_closes_ends_with_its_code_and_loses_what_is_under_way() {
    let ca = Ca::new();
    let address = serving(&ca, |connection, send, mut recv| async move {
        let _ = recv.read_to_end(100).await;
        connection.close(VarInt::from_u32(5), b"enough");
        drop(send);
    });
    let mut exchanges = exchanges(connected(&ca, address).await);
    start(&mut exchanges, "late");
    let (mut finished, end) = finish(&mut exchanges, usize::MAX).await;
    assert!(matches!(end, Some(QuicEnd::Closed(5))), "{end:?}");
    start(&mut exchanges, "never sent");
    poll_fn(|cx| {
        exchanges.disconnect(0, cx, &mut finished);
        Poll::Ready(())
    })
    .await;
    let mut errors: Vec<(&str, ErrorKind, bool)> = finished
        .iter()
        .map(|(request, result)| (*request, result.as_ref().unwrap_err()))
        .map(|(request, error): (_, &Error)| (request, error.kind(), error.is_retryable()))
        .collect();
    let expected = [("late", ErrorKind::Eof, false), ("never sent", ErrorKind::Eof, true)];
    errors.sort_by_key(|(request, ..)| *request);
    assert_eq!(errors, expected);
}

#[tokio::test]
async fn our_own_close_reaches_the_peer() {
    let ca = Ca::new();
    let endpoint = server(&ca, |_| {});
    let address = endpoint.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        connection.closed().await
    });
    let connection = connected(&ca, address).await;
    connection.close(0);
    let reason = tokio::time::timeout(Duration::from_secs(10), accepted).await.unwrap().unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = reason else { panic!("{reason:?}") };
    assert_eq!(close.error_code, VarInt::from_u32(0));
}
