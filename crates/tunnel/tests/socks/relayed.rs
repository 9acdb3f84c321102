//! What clients are told of their tunnels, and what others can see of these.

use std::{net::SocketAddr, sync::Arc};

use keepwarm_tunnel::{
    Connector, ErrorKind, Server,
    config::{ListenKind, UdpConfig},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    GREETING, Names, Running, broken, connect, connect_name, destination, echo, expect, listen, nobody, open, pair,
    reply, rest, target, through, within,
};

#[tokio::test]
async fn the_reply_has_our_address_as_the_destination_sees_it() {
    let (listener, _) = destination().await;
    let running = Running::start(open());
    let ((_client, bound), (_server, peer)) = pair(&running, &listener).await;
    let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
    assert_eq!(bound, [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat());
}

#[tokio::test]
async fn success_is_not_said_before_the_destination_is_there() {
    let address = echo("127.0.0.1").await;
    let names = Names::with("waits.example", address.ip());
    let running = Running::start_with(open(), &names, std::time::Duration::ZERO);
    let mut client = running.client().await;
    client.write_all(&[GREETING, &connect_name("waits.example", address.port())].concat()).await.unwrap();
    expect(&mut client, &[5, 0]).await;
    names.until_waiting(1).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    names.may_end.send_replace(true);
    expect(&mut client, &[5, 0, 0, 1]).await;
}

#[tokio::test]
async fn what_went_wrong_is_said_by_reply() {
    let running = Running::start(open());
    let closed = nobody().await;
    let own = running.addresses[0];
    for (request, code, kind) in [
        (connect(closed), 5, ErrorKind::Refused),
        (connect_name("nowhere.example", 80), 4, ErrorKind::Resolve),
        (connect(own), 2, ErrorKind::Rejected),
        (connect_name("localhost", own.port()), 2, ErrorKind::Rejected),
    ] {
        let before = running.watch.stats().tunnels_failed(kind);
        let mut client = running.client().await;
        // More than the request, so that closing without care would destroy the reply.
        client.write_all(&[GREETING, &request, b"GET / HTTP/1.0\r\n\r\n"].concat()).await.unwrap();
        running.until(|stats| stats.tunnels_failed(kind) == before + 1).await;
        assert_eq!(rest(&mut client).await, [&[5, 0], &reply(code)[..]].concat(), "{kind:?}");
    }
    // No destination at all: systems would take it for this machine.
    let unspecified = SocketAddr::new([0, 0, 0, 0].into(), own.port());
    let mut client = running.client().await;
    client.write_all(&[GREETING, &connect(unspecified)].concat()).await.unwrap();
    assert_eq!(rest(&mut client).await, [&[5, 0], &reply(4)[..]].concat());
    let mut client = running.client().await;
    client.write_all(&[&[4, 1], &closed.port().to_be_bytes()[..], &[127, 0, 0, 1, 0]].concat()).await.unwrap();
    assert_eq!(rest(&mut client).await, [0, 91, 0, 0, 0, 0, 0, 0]);
    assert_eq!((running.watch.stats().socks5, running.watch.stats().socks4), (4, 1));
}

/// Whoever owns the name chooses its address.
#[tokio::test]
async fn a_name_that_is_found_at_this_process_leads_nowhere() {
    let names = Names::with("loops.example", [127, 0, 0, 1].into());
    let connector = Connector::new(open(), Arc::new(names)).unwrap();
    let served = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = served.local_addr().unwrap();
    let running = Running::of(Server::bind_with(connector, &[service]).unwrap());
    for port in [running.addresses[0].port(), service.port()] {
        let mut client = running.client().await;
        client.write_all(&[GREETING, &connect_name("loops.example", port)].concat()).await.unwrap();
        assert_eq!(rest(&mut client).await, [&[5, 0], &reply(2)[..]].concat());
    }
    assert_eq!((running.watch.stats().accepted, running.watch.stats().tunnels_opened), (2, 0));
    let other = echo("127.0.0.1").await;
    through(&running, &connect_name("loops.example", other.port())).await;
}

#[tokio::test]
async fn associations_that_are_not_offered_are_said_to_be_so() {
    let mut config = open();
    config.udp = UdpConfig { enabled: false, ..UdpConfig::default() };
    let running = Running::start(config);
    let mut client = running.client().await;
    client.write_all(&[GREETING, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]].concat()).await.unwrap();
    assert_eq!(rest(&mut client).await, [&[5, 0], &reply(7)[..]].concat());
}

#[tokio::test]
async fn an_association_carries_datagrams_as_long_as_its_connection() {
    let echo = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let destination = echo.local_addr().unwrap();
    let running = Running::start(open());
    let mut client = running.client().await;
    client.write_all(&[GREETING, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]].concat()).await.unwrap();
    expect(&mut client, &[5, 0, 5, 0, 0, 1, 127, 0, 0, 1]).await;
    let port = client.read_u16().await.unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let head = [&[0, 0, 0, 1, 127, 0, 0, 1][..], &destination.port().to_be_bytes()].concat();
    socket.send_to(&[&head[..], b"ping"].concat(), ("127.0.0.1", port)).await.unwrap();
    let mut buffer = [0; 64];
    let (length, from) = within(echo.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"ping");
    echo.send_to(b"pong", from).await.unwrap();
    let length = within(socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..length], [&head[..], b"pong"].concat());
    assert_eq!(running.watch.udp().associations, 1);
    drop(client);
    running.until(|stats| stats.clients == 0).await;
    assert_eq!(running.watch.udp().associations, 0);
}

#[tokio::test]
async fn live_tunnels_are_shown_with_their_bytes_until_they_end() {
    let address = echo("127.0.0.1").await;
    let running = Running::start(open());
    // One payload comes with the request, one later: both count.
    let mut client = running.client().await;
    client.write_all(&[GREETING, &connect(address), b"12345"].concat()).await.unwrap();
    expect(&mut client, &[5, 0, 5, 0, 0, 1]).await;
    crate::harness::take(&mut client, 6).await;
    client.write_all(b"678").await.unwrap();
    expect(&mut client, b"12345678").await;
    let rows = running.watch.tunnels();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.client, row.target.clone()), (client.local_addr().unwrap(), target(address)));
    assert_eq!((row.sent, row.received, &*row.upstream, row.spare), (8, 8, "direct", None));
    drop(client);
    running.until(|stats| stats.tunnels == 0).await;
    assert!(running.watch.tunnels().is_empty());
    assert_eq!(running.watch.stats().tunnels_opened, 1);
}

#[tokio::test]
async fn a_forward_leads_to_its_destination_and_fails_as_a_broken_connection() {
    let there = echo("127.0.0.1").await;
    let nowhere = nobody().await;
    let mut config = open();
    config.listen = vec![listen(ListenKind::Forward(target(there))), listen(ListenKind::Forward(target(nowhere)))];
    let running = Running::start(config);
    let mut client = running.client().await;
    client.write_all(b"\x05\x01\x00 is payload here").await.unwrap();
    expect(&mut client, b"\x05\x01\x00 is payload here").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    let mut client = tokio::net::TcpStream::connect(running.addresses[1]).await.unwrap();
    broken(&mut client).await;
    assert_eq!(running.watch.stats().forwards, 2);
    assert_eq!(running.watch.stats().tunnels_failed(ErrorKind::Refused), 1);
}
