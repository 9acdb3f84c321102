//! HTTP CONNECT, with and without TLS.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keepwarm_lab::{EchoLab, LabProxyProtocol, ProxyClose, ProxyFaults, ProxyLab, ProxyPhase, ProxySpec, Tagged};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{ends, exchange, is_reset, labs_with, never, read, read_end, soon, tcp, until};

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

async fn http(faults: ProxyFaults) -> (EchoLab, ProxyLab) {
    labs_with(ProxySpec { protocol: LabProxyProtocol::Http, faults, ..ProxySpec::default() }).await
}

fn connect(target: &str) -> Vec<u8> {
    let secret = BASE64_STANDARD.encode("ann:hunter2");
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {secret}\r\n\r\n").into_bytes()
}

/// Reads a head, and no more.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(stream, 1).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_tunnel_carries_bytes() {
    let (echo, proxy) = http(ProxyFaults::default()).await;
    let mut stream = tcp(proxy.addr()).await;
    until(|| proxy.counters().idle == 1).await;
    let target = format!("127.0.0.1:{}", echo.addr(1).port());
    for piece in connect(&target).chunks(10) {
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(head(&mut stream).await, ESTABLISHED);
    exchange(&mut stream, &mut Tagged::random(echo.addr(1)), 50_000).await;
    let counters = proxy.counters();
    assert_eq!((counters.auth_ok, counters.connects_ok, counters.idle, counters.live), (1, 1, 0, 1));
    assert_eq!(counters.destinations[&target].now, 1);
}

#[tokio::test]
async fn refusals_have_a_status() {
    let (_echo, proxy) = http(ProxyFaults::default()).await;
    let cases = [
        (b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), "407"),
        (b"CONNECT a.test:80 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n".to_vec(), "407"),
        (b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), "405"),
        (b"nonsense\r\n\r\n".to_vec(), "400"),
        (connect("unknown.test:80"), "502"),
        (vec![b'x'; 20_000], "431"),
    ];
    for (request, status) in cases {
        let mut stream = tcp(proxy.addr()).await;
        stream.write_all(&request).await.unwrap();
        let (answer, end) = read_end(&mut stream).await;
        end.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("Proxy-Authenticate: Basic"), status == "407");
    }
    let counters = proxy.counters();
    assert_eq!((counters.auth_failed, counters.connects, counters.connects_failed), (2, 3, 3));
}

#[tokio::test]
async fn faults_choose_the_status_and_the_words() {
    let (_echo, proxy) = http(ProxyFaults { status: Some(503), ..ProxyFaults::default() }).await;
    for (change, expected) in [
        (ProxyFaults { status: Some(503), ..ProxyFaults::default() }, "HTTP/1.1 503 Service Unavailable\r\n"),
        (ProxyFaults { reply: Some(2), ..ProxyFaults::default() }, "HTTP/1.1 403 Forbidden\r\n"),
        (ProxyFaults { reply_for: [("a.test".to_owned(), 6)].into(), ..ProxyFaults::default() }, "HTTP/1.1 504 "),
        (ProxyFaults { auth_fails: true, ..ProxyFaults::default() }, "HTTP/1.1 407 "),
        (ProxyFaults { bad_version: true, ..ProxyFaults::default() }, "ICY 200 OK\r\n"),
        (ProxyFaults { close_at: Some(ProxyPhase::Reply(9)), ..ProxyFaults::default() }, "HTTP/1.1 "),
    ] {
        proxy.set_faults(ProxyFaults { fragments: true, ..change });
        let mut stream = tcp(proxy.addr()).await;
        stream.write_all(&connect("a.test:80")).await.unwrap();
        let answer = String::from_utf8(read_end(&mut stream).await.0).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn idle_connections_time_out_with_or_without_a_word() {
    let short = Some(std::time::Duration::from_millis(50));
    let faults = ProxyFaults { stray_reply: short, close_idle: short.map(|short| 2 * short), ..ProxyFaults::default() };
    let (_echo, proxy) = http(faults).await;
    let mut stream = tcp(proxy.addr()).await;
    let (answer, end) = read_end(&mut stream).await;
    end.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "));
    proxy.set_faults(ProxyFaults { close_idle: short, close_kind: ProxyClose::Reset, ..ProxyFaults::default() });
    assert!(is_reset(&ends(&mut tcp(proxy.addr()).await).await));
    assert_eq!((proxy.counters().closed_idle, proxy.counters().strays), (2, 1));
}

async fn tls(proxy: &ProxyLab, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(proxy.ca_der()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, tcp(proxy.addr()).await)).await
}

#[tokio::test]
async fn all_of_it_is_spoken_over_tls_too() {
    let (echo, proxy) = labs_with(ProxySpec { protocol: LabProxyProtocol::Https, ..ProxySpec::default() }).await;
    for name in [ProxyLab::NAME, "127.0.0.1"] {
        let mut stream = tls(&proxy, name).await.unwrap();
        stream.write_all(&connect("a.test:443")).await.unwrap();
        assert_eq!(head(&mut stream).await, ESTABLISHED);
        let mut tagged = Tagged::random(echo.addr(0));
        exchange(&mut stream, &mut tagged, 100_000).await;
        stream.shutdown().await.unwrap();
        ends(&mut stream).await.unwrap();
    }
    tls(&proxy, "other.test").await.unwrap_err();
    until(|| proxy.counters().open == 0).await;
    assert_eq!((proxy.counters().connects_ok, proxy.counters().live_max, proxy.counters().idle_max), (2, 1, 1));

    let mut stream = tls(&proxy, ProxyLab::NAME).await.unwrap();
    until(|| proxy.counters().idle == 1).await;
    proxy.reset_idle();
    assert!(is_reset(&read_end(&mut stream).await.1));
    proxy.update_faults(|faults| faults.hang_accept = true);
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x16\x03\x01").await.unwrap();
    never(read(&mut stream, 1)).await;
}
