//! UDP ASSOCIATE.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use keepwarm_lab::{EchoMode, ProxyFaults, ProxyLab, ProxySpec, ReplyAddress, Tagged};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{code, greeted, is_reset, labs, labs_with, never, read, read_end, soon, until};

const ANY: &[u8] = b"\x05\x03\x00\x01\0\0\0\0\0\0";

/// An association, and where its relay is.
async fn associate(proxy: &ProxyLab) -> (TcpStream, SocketAddr) {
    let mut control = greeted(proxy).await;
    control.write_all(ANY).await.unwrap();
    let reply = read(&mut control, 10).await.unwrap();
    assert_eq!(reply[..4], [5, 0, 0, 1]);
    let ip = Ipv4Addr::new(reply[4], reply[5], reply[6], reply[7]);
    (control, (ip, u16::from_be_bytes([reply[8], reply[9]])).into())
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

fn name(host: &str, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [b"\0\0\0\x03", &[length][..], host.as_bytes(), b"\0\x50", payload].concat()
}

/// The next answer's payload, and whom it is from.
async fn answer(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_535];
    let (length, _) = soon(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..4], [0, 0, 0, 1]);
    let ip = Ipv4Addr::new(buffer[4], buffer[5], buffer[6], buffer[7]);
    let port = u16::from_be_bytes([buffer[8], buffer[9]]);
    (buffer[10..length].to_vec(), (ip, port).into())
}

#[tokio::test]
async fn datagrams_go_and_come_back() {
    for delay in [Duration::ZERO, Duration::from_millis(2)] {
        let (echo, proxy) = labs_with(ProxySpec { delay, ..ProxySpec::default() }).await;
        let (control, relay) = associate(&proxy).await;
        let socket = socket().await;
        let (ours, other) = (Tagged::random(echo.addr(0)), Tagged::random(echo.addr(1)));
        for number in 0..50 {
            socket.send_to(&name("a.test", &ours.datagram(number, 100)), relay).await.unwrap();
            let (bytes, from) = answer(&socket).await;
            assert_eq!(ours.check_datagram(&bytes, 100), Ok(number));
            assert_eq!(from, echo.addr(0));
            other.check_datagram(&bytes, 100).unwrap_err();
        }
        socket.send_to(&name("b.test", &other.datagram(7, 60_000)), relay).await.unwrap();
        let (bytes, from) = answer(&socket).await;
        assert_eq!((other.check_datagram(&bytes, 60_000), from), (Ok(7), echo.addr(1)));
        let counters = proxy.counters();
        assert_eq!((counters.associations, counters.datagrams_sent, counters.datagrams_received), (1, 51, 51));
        assert_eq!((echo.counters(0).datagrams, echo.foreign(), counters.idle, counters.live), (50, 0, 0, 0));
        drop(control);
        until(|| proxy.counters().associations == 0 && proxy.counters().open == 0).await;
        until(|| std::net::UdpSocket::bind(relay).is_ok()).await;
        assert_eq!((proxy.counters().associations_total, proxy.counters().datagrams_dropped), (1, 0));
    }
}

#[tokio::test]
async fn what_is_not_the_clients_or_not_whole_is_dropped() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let (_control, relay) = associate(&proxy).await;
    let (socket, stranger) = (socket().await, socket().await);
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let ours = Tagged::random(echo.addr(0));
    let datagram = name("a.test", &ours.datagram(1, 10));
    // From another address, before the client's port is known.
    elsewhere.send_to(&datagram, relay).await.unwrap();
    until(|| proxy.counters().datagrams_dropped == 1).await;
    socket.send_to(&datagram, relay).await.unwrap();
    answer(&socket).await;
    stranger.send_to(&datagram, relay).await.unwrap();
    let mut fragment = datagram.clone();
    fragment[2] = 1;
    let mut reserved = datagram.clone();
    reserved[0] = 1;
    let mut kind = datagram.clone();
    kind[3] = 2;
    for bad in [fragment, reserved, kind, name("unknown.test", b"x"), datagram[..8].to_vec(), Vec::new()] {
        socket.send_to(&bad, relay).await.unwrap();
    }
    until(|| proxy.counters().datagrams_dropped == 8).await;
    never(stranger.recv(&mut [0; 100])).await;
    assert_eq!((proxy.counters().datagrams_sent, echo.counters(0).datagrams), (1, 1));
}

#[tokio::test]
async fn it_is_refused_or_names_no_address_by_fault() {
    let (echo, proxy) = labs(ProxyFaults { no_udp: true, ..ProxyFaults::default() }).await;
    let mut control = greeted(&proxy).await;
    control.write_all(ANY).await.unwrap();
    assert_eq!(code(&mut control).await.unwrap(), 7);
    proxy.set_faults(ProxyFaults { reply_address: ReplyAddress::Unspecified, ..ProxyFaults::default() });
    let (mut control, relay) = associate(&proxy).await;
    assert_eq!(relay.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (socket, ours) = (socket().await, Tagged::random(echo.addr(0)));
    let relay = SocketAddr::new(proxy.addr().ip(), relay.port());
    socket.send_to(&name("a.test", &ours.datagram(1, 10)), relay).await.unwrap();
    ours.check_datagram(&answer(&socket).await.0, 10).unwrap();
    echo.set_mode(0, EchoMode::Silent);
    socket.send_to(&name("a.test", &ours.datagram(2, 10)), relay).await.unwrap();
    until(|| echo.counters(0).datagrams == 2).await;
    never(socket.recv(&mut [0; 100])).await;
    proxy.reset_open();
    assert!(is_reset(&read_end(&mut control).await.1));
    until(|| proxy.counters().associations == 0).await;
}
