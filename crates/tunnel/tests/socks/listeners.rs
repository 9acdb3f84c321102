//! Listeners: who gets in, how many, and how they stop.

use std::{io, sync::Arc, time::Duration};

use keepwarm_tunnel::{
    Connector, Server,
    config::{Listen, ListenKind, TunnelConfig},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    GREETING, Names, Running, connect, connect_name, echo, expect, listen, open, rest, target, through, within,
};

fn bind(config: TunnelConfig) -> io::Result<Server> {
    Server::bind(Connector::new(config, Arc::new(Names::default())).unwrap())
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let beyond = Listen { address: "0.0.0.0:0".parse().unwrap(), kind: ListenKind::Mixed };
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Listen { address: used.local_addr().unwrap(), kind: ListenKind::Mixed };
    let itself =
        Listen { address: used.local_addr().unwrap(), kind: ListenKind::Forward(target(used.local_addr().unwrap())) };
    drop(used);
    for (listen, words) in [
        (Vec::new(), "no address to listen on"),
        (vec![beyond], "set users"),
        (vec![taken.clone(), taken], "listen on 127.0.0.1:"),
        (vec![itself], "leads back to the tunnel itself"),
    ] {
        let error = bind(TunnelConfig { listen, ..TunnelConfig::default() }).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn one_client_too_many_is_closed_at_once_and_finds_room_later() {
    let address = echo("127.0.0.1").await;
    let running = Running::start(TunnelConfig { max_clients: 2, ..open() });
    let (first, second) = (through(&running, &connect(address)).await.0, running.client().await);
    running.until(|stats| stats.clients == 2).await;
    assert_eq!(rest(&mut running.client().await).await, b"");
    let stats = running.watch.stats();
    assert_eq!((stats.clients, stats.accepted, stats.turned_away), (2, 2, 1));
    drop((first, second));
    running.until(|stats| stats.clients == 0).await;
    // The place is given back with the task, a moment after the count.
    within(async {
        loop {
            let mut client = running.client().await;
            let _ = client.write_all(GREETING).await;
            if client.read_u8().await.is_ok_and(|version| version == 5) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn all_listeners_serve_side_by_side() {
    let address = echo("127.0.0.1").await;
    let v6 = Listen { address: "[::1]:0".parse().unwrap(), kind: ListenKind::Socks };
    let config = TunnelConfig { listen: vec![listen(ListenKind::Mixed), v6], ..TunnelConfig::default() };
    let running = Running::start(config);
    for listener in running.addresses.clone() {
        let mut client = TcpStream::connect(listener).await.unwrap();
        client.write_all(&[GREETING, &connect(address), b"echo"].concat()).await.unwrap();
        crate::harness::take(&mut client, 2 + 10).await;
        expect(&mut client, b"echo").await;
    }
}

#[tokio::test]
async fn the_first_byte_tells_what_is_spoken() {
    let address = echo("127.0.0.1").await;
    let config =
        TunnelConfig { listen: [ListenKind::Mixed, ListenKind::Http].map(listen).to_vec(), ..TunnelConfig::default() };
    let running = Running::start(config);
    let asked = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    for listener in running.addresses.clone() {
        let mut client = TcpStream::connect(listener).await.unwrap();
        client.write_all(asked.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(crate::harness::take(&mut client, 1).await[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        client.write_all(b"echo").await.unwrap();
        expect(&mut client, b"echo").await;
    }
    through(&running, &connect(address)).await;
    let stats = running.watch.stats();
    assert_eq!((stats.http, stats.socks5, stats.tunnels_opened), (2, 1, 3));
    // Where only HTTP is spoken, SOCKS is no request.
    let mut client = TcpStream::connect(running.addresses[1]).await.unwrap();
    client.write_all(GREETING).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(!rest(&mut client).await.starts_with(&[5]));
}

#[tokio::test]
async fn a_stop_ends_handshakes_at_once_and_leaves_tunnels_their_time() {
    let address = echo("127.0.0.1").await;
    let names = Names::default();
    // Neither the handshakes' limit nor the patience ends anything here.
    let config = TunnelConfig { handshake_timeout: Duration::from_secs(3600), ..open() };
    let running = Running::start_with(config, &names, Duration::from_secs(3600));
    let listener = running.addresses[0];
    let mut idle = running.client().await;
    let mut greeted = running.client().await;
    greeted.write_all(GREETING).await.unwrap();
    expect(&mut greeted, &[5, 0]).await;
    let mut tunnel = through(&running, &connect(address)).await.0;
    running.until(|stats| stats.clients == 3).await;
    let watch = running.watch.clone();
    let stopping = running.tell();
    assert_eq!(rest(&mut idle).await, b"");
    assert_eq!(rest(&mut greeted).await, b"");
    assert!(TcpStream::connect(listener).await.is_err(), "it still listens");
    tunnel.write_all(b"it goes on").await.unwrap();
    expect(&mut tunnel, b"it goes on").await;
    assert_eq!(watch.stats().clients, 1);
    drop(tunnel);
    assert_eq!(within(stopping).await.unwrap(), 0);
    assert_eq!(watch.stats().clients, 0);
}

#[tokio::test]
async fn what_outlasts_the_patience_is_cut_off_and_counted() {
    let address = echo("127.0.0.1").await;
    let names = Names::default();
    let running = Running::start_with(open(), &names, Duration::from_millis(50));
    let mut tunnel = through(&running, &connect(address)).await.0;
    let mut asking = running.client().await;
    asking.write_all(&[GREETING, &connect_name("waits.example", 80)].concat()).await.unwrap();
    names.until_waiting(1).await;
    let watch = running.watch.clone();
    assert_eq!(running.stop().await, 2);
    assert_eq!((watch.stats().clients, watch.stats().tunnels, *names.waiting.borrow()), (0, 0, 0));
    let mut end = Vec::new();
    let _ = within(tunnel.read_to_end(&mut end)).await;
    assert!(end.is_empty());
}
