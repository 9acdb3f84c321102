//! Clients behind a proxy that names them (PROXY protocol, version 2).

use std::{net::SocketAddr, time::Duration};

use keepwarm_dns::config::{DnsConfig, ListenTransport, Transport};
use keepwarm_lab::{Faults, answer_matches};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{certificate::*, support::*};

/// A server that serves 192.0.2.0/24, with a proxy at 127.0.0.1.
async fn start(transports: &[ListenTransport], change: impl FnOnce(&mut DnsConfig)) -> (Bench, Certificate) {
    let certificate = Certificate::new();
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        certificate.serve(config, transports);
        config.allow = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        config.clients.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
        change(config);
    })
    .await;
    (bench, certificate)
}

/// A header: command, family and protocol, and what follows the length.
fn header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, payload].concat()
}

/// The header of a client with this IPv4 address, and a TLV.
fn from(source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[127, 0, 0, 1, 0x30, 0x39, 0, 53], &[4, 0, 5, 1, 2, 3, 4, 5]].concat();
    header(1, 0x11, &addresses)
}

async fn proxied(server: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(header).await.unwrap();
    stream
}

const LISTED: [u8; 4] = [192, 0, 2, 7];
const OTHER: [u8; 4] = [198, 51, 100, 7];

#[tokio::test]
async fn the_client_that_the_header_names_is_the_one_that_the_access_list_judges() {
    let (bench, _) = start(&[ListenTransport::Plain], |_| {}).await;
    let query = query("proxied.example", 1);
    let mut v6 = vec![0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    for (header, expected) in [
        (from(LISTED), 0),
        (from(OTHER), 5),
        (header(1, 0x21, &v6), 0),
        // The proxy itself, which is not on the list: a health check, and one that names no address.
        (header(0, 0x11, &[192, 0, 2, 7, 127, 0, 0, 1, 0, 1, 0, 53]), 5),
        (header(1, 0, &[]), 5),
    ] {
        let mut tcp = Messages(proxied(bench.address, &header).await);
        assert_eq!(rcode(&tcp.ask(&query).await), expected, "tcp {header:?}");
        let datagram = [&header[..], &query].concat();
        assert_eq!(rcode(&exchange_udp(bench.address, &datagram).await.unwrap()), expected, "udp {header:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let (bench, certificate) = start(&[ListenTransport::Tls, ListenTransport::Https], |_| {}).await;
    let listening = bench.server.listening();
    let [dot, doh] = &listening[..] else { panic!("two listeners") };
    let query = query("proxied.example", 1);
    for (source, expected) in [(LISTED, 0), (OTHER, 5)] {
        let stream = proxied(dot.address, &from(source)).await;
        let (stream, _) = handshake(&certificate.client(&[b"dot"]), stream).await.unwrap();
        assert_eq!(rcode(&Messages(stream).ask(&query).await), expected);
        let stream = proxied(doh.address, &from(source)).await;
        let (mut stream, _) = handshake(&certificate.client(&[b"http/1.1"]), stream).await.unwrap();
        let head = format!(
            "POST /dns-query HTTP/1.1\r\nhost: dns.example\r\nconnection: close\r\n\
             content-type: application/dns-message\r\ncontent-length: {}\r\n\r\n",
            query.len()
        );
        stream.write_all(&[head.as_bytes(), &query].concat()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let answer = &response[end + 4..];
        assert_eq!(rcode(answer), expected);
        if expected == 0 {
            assert_eq!(answer_matches(&query, answer), Ok(()));
        }
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_proxy_without_a_header_is_refused_and_not_waited_for_long() {
    let (bench, _) = start(&[ListenTransport::Plain], |config| {
        config.clients.tcp_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let query = query("bare.example", 1);
    let framed = [&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat();
    let mut version_1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 53\r\n".to_vec();
    version_1.extend_from_slice(&framed);
    for bytes in [&framed[..], &version_1, &from(LISTED)[..20], b""] {
        let mut stream = proxied(bench.address, bytes).await;
        let end = tokio::time::timeout(Duration::from_secs(6), stream.read(&mut [0; 1])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "closed without a byte: {bytes:?}");
    }
    assert_eq!(bench.server.status().tcp_rejected, 4);
    // The datagram without one is dropped; the next one, with it, is answered.
    let socket = client().await;
    socket.send_to(&query, bench.address).await.unwrap();
    socket.send_to(&[&from(OTHER)[..], &query].concat(), bench.address).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(rcode(&buffer[..length]), 5, "the second one's answer");
    assert_eq!((bench.server.status().malformed, bench.server.status().queries), (1, 1));
    bench.stop().await;
}

#[tokio::test]
async fn from_anybody_else_the_bytes_are_no_header() {
    let (bench, _) = start(&[ListenTransport::Plain], |config| {
        config.clients.proxy_protocol = vec!["127.0.0.9/32".parse().unwrap()];
        config.clients.tcp_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let query = query("forged.example", 1);
    let datagram = [&from(LISTED)[..], &query].concat();
    // Read as DNS, the header has the opcode 1.
    assert_eq!(rcode(&exchange_udp(bench.address, &datagram).await.unwrap()), 4);
    let mut stream = proxied(bench.address, &datagram).await;
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "half a message of 3,338 bytes");
    assert_eq!(bench.labs[0].counters().udp.queries, 0);
    bench.stop().await;
}

#[tokio::test]
async fn connections_are_counted_for_the_clients_and_not_for_the_proxy() {
    let (bench, _) = start(&[ListenTransport::Tcp], |config| config.clients.tcp_max_per_client = 2).await;
    let query = query("counted.example", 1);
    let mut open = Vec::new();
    for last in 1..=3 {
        for _ in 0..2 {
            let mut client = Messages(proxied(bench.address, &from([192, 0, 2, last])).await);
            assert_eq!(rcode(&client.ask(&query).await), 0);
            open.push(client);
        }
        let mut more = proxied(bench.address, &from([192, 0, 2, last])).await;
        assert!(matches!(more.read(&mut [0; 1]).await, Ok(0) | Err(_)), "client {last} holds two");
    }
    assert_eq!((bench.server.status().tcp_clients, bench.server.status().tcp_rejected), (6, 3));
    bench.stop().await;
}
