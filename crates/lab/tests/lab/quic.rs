//! DNS over QUIC and over HTTP/3: answers, faults, and how connections end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use keepwarm_lab::{CloseKind, Faults, Lab, TransportCounters, answer_matches, build_query};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;

use crate::client::{A, lab, never, soon, until};

/// A client whose connections resume each other's sessions.
fn endpoint(lab: &Lab, protocol: &str) -> Endpoint {
    let mut roots = RootCertStore::empty();
    roots.add(lab.ca_root()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    endpoint
}

async fn connect(endpoint: &Endpoint, address: SocketAddr) -> Result<Connection, ConnectionError> {
    soon(endpoint.connect(address, "upstream.lab").unwrap()).await
}

async fn doq(lab: &Lab) -> Connection {
    connect(&endpoint(lab, "doq"), lab.quic_addr()).await.unwrap()
}

/// What comes back on a stream of its own.
async fn exchange(connection: &Connection, sent: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
    send.write_all(sent).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    recv.read_to_end(70_000).await.map_err(|error| error.to_string())
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&u16::try_from(query.len()).unwrap().to_be_bytes()[..], query].concat()
}

async fn ask(connection: &Connection, name: &str) -> Result<(), String> {
    let query = build_query(0, name, A, Some(1232));
    let answer = soon(exchange(connection, &framed(&query))).await?;
    assert_eq!(usize::from(u16::from_be_bytes([answer[0], answer[1]])), answer.len() - 2, "one answer and FIN");
    answer_matches(&query, &answer[2..])
}

/// One request on a connection of its own, and the status and body that came.
async fn ask_h3(lab: &Lab, name: &str) -> Result<(u16, Vec<u8>), String> {
    let connection = connect(&endpoint(lab, "h3"), lab.h3_addr()).await.map_err(|error| error.to_string())?;
    let (mut driver, mut sender) =
        h3::client::new(h3_quinn::Connection::new(connection)).await.map_err(|error| error.to_string())?;
    let driven = tokio::spawn(async move { driver.wait_idle().await });
    let request = http::Request::post("https://upstream.lab/dns-query")
        .header("content-type", "application/dns-message")
        .body(())
        .unwrap();
    let query = build_query(0, name, A, None);
    let exchange = async {
        let mut stream = sender.send_request(request).await?;
        stream.send_data(Bytes::from(query)).await?;
        stream.finish().await?;
        let status = stream.recv_response().await?.status().as_u16();
        let mut body = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await? {
            body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        Ok((status, body))
    };
    let result = soon(exchange).await.map_err(|error: h3::error::StreamError| error.to_string());
    drop(sender);
    let _ = soon(driven).await;
    result
}

fn open(counters: TransportCounters) -> (u64, u64, u64) {
    (counters.open, counters.closed_by_lab, counters.closed_by_peer)
}

#[tokio::test]
async fn a_quic_stream_is_answered_and_a_second_handshake_is_counted_as_resumed() {
    let lab = lab(Faults::default()).await;
    let endpoint = endpoint(&lab, "doq");
    for _ in 0..2 {
        let connection = connect(&endpoint, lab.quic_addr()).await.unwrap();
        ask(&connection, "a.test").await.unwrap();
        connection.close(VarInt::from_u32(0), b"");
        until(|| lab.counters().quic.open == 0).await;
    }
    let counters = lab.counters().quic;
    assert_eq!((counters.queries, counters.answers, counters.accepted), (2, 2, 2));
    assert_eq!((counters.handshakes_full, counters.handshakes_resumed, counters.handshakes_failed), (1, 1, 0));
    assert_eq!(open(counters), (0, 0, 2));
}

#[tokio::test]
async fn what_is_no_query_of_rfc_9250_ends_the_connection_with_a_protocol_error() {
    let lab = lab(Faults::default()).await;
    let query = build_query(0, "a.test", A, None);
    let with_id = build_query(7, "a.test", A, None);
    let twice = [framed(&query), framed(&query)].concat();
    for sent in [framed(&with_id), twice, framed(&query)[..20].to_vec(), Vec::new()] {
        let connection = doq(&lab).await;
        let _ = exchange(&connection, &sent).await;
        let ConnectionError::ApplicationClosed(close) = soon(connection.closed()).await else { panic!("{sent:?}") };
        assert_eq!(close.error_code, VarInt::from_u32(2), "{sent:?}");
    }
    assert_eq!(lab.counters().quic.bad, 4);
    assert_eq!(lab.counters().quic.queries, 0);
}

#[tokio::test]
async fn quic_connections_end_in_each_way() {
    for kind in [CloseKind::Notify, CloseKind::Fin, CloseKind::Reset, CloseKind::Silence] {
        let lab = lab(Faults::default()).await;
        let connection = doq(&lab).await;
        ask(&connection, "a.test").await.unwrap();
        lab.close_all(kind);
        match kind {
            CloseKind::Notify | CloseKind::Fin => {
                let ended = soon(connection.closed()).await;
                let ConnectionError::ApplicationClosed(close) = ended else { panic!("{kind:?}: {ended:?}") };
                assert_eq!(close.error_code, VarInt::from_u32(0), "{kind:?}");
                assert_eq!(open(lab.counters().quic), (0, 1, 0), "{kind:?}");
            }
            CloseKind::Reset => {
                until(|| lab.counters().quic.open == 0).await;
                assert!(connection.close_reason().is_none(), "nothing is said until something is asked");
                assert!(ask(&connection, "b.test").await.is_err());
                assert_eq!(soon(connection.closed()).await, ConnectionError::Reset, "a stateless reset");
                assert_eq!(open(lab.counters().quic), (0, 1, 0), "{kind:?}");
            }
            CloseKind::Silence => {
                never(ask(&connection, "b.test")).await;
                assert_eq!(open(lab.counters().quic), (1, 0, 0), "{kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_quic_connection_is_closed_after_so_many_queries_with_all_of_them_answered() {
    let lab = lab(Faults { close_after: Some(3), ..Faults::default() }).await;
    let connection = doq(&lab).await;
    for name in ["a.test", "b.test", "c.test"] {
        ask(&connection, name).await.unwrap();
    }
    assert!(matches!(soon(connection.closed()).await, ConnectionError::ApplicationClosed(_)));
    assert_eq!(open(lab.counters().quic), (0, 1, 0));
}

#[tokio::test]
async fn a_quic_connection_is_reset_after_so_many_queries() {
    let lab = lab(Faults { reset_after: Some(1), ..Faults::default() }).await;
    let connection = doq(&lab).await;
    ask(&connection, "a.test").await.unwrap();
    assert!(ask(&connection, "b.test").await.is_err());
    assert_eq!(soon(connection.closed()).await, ConnectionError::Reset);
}

#[tokio::test]
async fn new_quic_connections_can_be_refused() {
    let lab = lab(Faults { refuse: true, ..Faults::default() }).await;
    let error = connect(&endpoint(&lab, "doq"), lab.quic_addr()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert_eq!(open(lab.counters().quic), (0, 1, 0));
}

#[tokio::test]
async fn forged_quic_answers_never_match() {
    let lab = lab(Faults { forge: 1.0, ..Faults::default() }).await;
    let connection = doq(&lab).await;
    for _ in 0..20 {
        assert!(ask(&connection, "a.test").await.is_err());
    }
}

#[tokio::test]
async fn http_3_answers_with_the_faults_of_http() {
    let lab = lab(Faults::default()).await;
    let query = build_query(0, "a.test", A, None);
    let (status, body) = ask_h3(&lab, "a.test").await.unwrap();
    assert_eq!((status, answer_matches(&query, &body)), (200, Ok(())));
    lab.update_faults(|faults| faults.http_status = Some(503));
    assert_eq!(ask_h3(&lab, "a.test").await, Ok((503, Vec::new())));
    lab.set_faults(Faults { body_size: Some(70_000), ..Faults::default() });
    assert_eq!(ask_h3(&lab, "a.test").await.unwrap().1.len(), 70_000);
    let counters = lab.counters().h3;
    assert_eq!((counters.queries, counters.answers, counters.accepted), (3, 3, 3));
}
