//! Other listeners, users and limits while the server runs.

use std::{io, net::SocketAddr, sync::Arc};

use keepwarm_transport::reload::Changes;
use keepwarm_tunnel::{
    Connector, Server,
    config::{Listen, ListenKind, TunnelConfig, User},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    GREETING, Names, Running, connect, destination, echo, expect, guarded, listen, open, rest, target, through, within,
};

/// A server, and the connector whose config it has.
fn start(config: TunnelConfig) -> (Connector, Running) {
    let connector = Connector::new(config, Arc::new(Names::default())).unwrap();
    let running = Running::of(Server::bind(connector.clone()).unwrap());
    (connector, running)
}

fn reload(connector: &Connector, running: &Running, config: TunnelConfig) -> io::Result<Changes> {
    Ok(connector.prepare(config).unwrap().listen(&running.watch, &[])?.apply())
}

fn at(address: SocketAddr, kind: ListenKind) -> Listen {
    Listen { address, kind }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether a client gets a tunnel by SOCKS5 there.
async fn serves(listener: SocketAddr, to: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(listener).await else { return false };
    let mut answer = [0; 4];
    let asked = [GREETING, &connect(to)].concat();
    client.write_all(&asked).await.is_ok() && within(client.read_exact(&mut answer)).await.is_ok() && answer[3] == 0
}

#[tokio::test]
async fn listeners_come_and_go_and_tunnels_live_on() {
    let echo = echo("127.0.0.1").await;
    let [stays, goes, comes] = [free(), free(), free()];
    let (connector, running) = start(TunnelConfig {
        listen: vec![at(goes, ListenKind::Mixed), at(stays, ListenKind::Mixed)],
        ..TunnelConfig::default()
    });
    let (mut tunnel, _) = through(&running, &connect(echo)).await;
    tunnel.write_all(b"one").await.unwrap();
    expect(&mut tunnel, b"one").await;

    let config = TunnelConfig {
        listen: vec![at(stays, ListenKind::Mixed), at(comes, ListenKind::Forward(target(echo)))],
        ..TunnelConfig::default()
    };
    let changes = reload(&connector, &running, config.clone()).unwrap();
    assert_eq!(changes.changed, ["tunnel.listen"]);
    assert_eq!((&*changes.drained[0].name, changes.drained[0].connections), ("tunnel.listen", 1));
    assert!(TcpStream::connect(goes).await.is_err(), "it listens no more");
    assert!(serves(stays, echo).await);
    let mut forward = TcpStream::connect(comes).await.unwrap();
    forward.write_all(b"two").await.unwrap();
    expect(&mut forward, b"two").await;
    tunnel.write_all(b"three").await.unwrap();
    expect(&mut tunnel, b"three").await;
    assert_eq!(running.watch.listening(), config.listen);

    let changes = reload(&connector, &running, config).unwrap();
    assert_eq!((changes.kept, changes.changed), (vec!["tunnel.listen".to_owned()], Vec::new()));
    // None at all, and one again.
    let none = reload(&connector, &running, TunnelConfig::default()).unwrap();
    assert_eq!((none.drained.len(), running.watch.listening().len()), (1, 0));
    assert!(TcpStream::connect(stays).await.is_err());
    let again = TunnelConfig { listen: vec![at(stays, ListenKind::Socks)], ..TunnelConfig::default() };
    drop(reload(&connector, &running, again).unwrap());
    assert!(serves(stays, echo).await);
    tunnel.write_all(b"four").await.unwrap();
    expect(&mut tunnel, b"four").await;
    drop((tunnel, forward));
    assert_eq!(running.stop().await, 0);
    assert!(TcpStream::connect(stays).await.is_err());
}

#[tokio::test]
async fn a_socket_stays_where_something_else_is_spoken_and_where_the_system_chose_its_port() {
    let echo = echo("127.0.0.1").await;
    let fixed = free();
    let (connector, running) = start(TunnelConfig {
        listen: vec![listen(ListenKind::Mixed), at(fixed, ListenKind::Mixed)],
        ..TunnelConfig::default()
    });
    let chosen = running.addresses[0];
    // Waits in the backlog, or is served already: it is not lost in either case.
    let mut client = TcpStream::connect(chosen).await.unwrap();
    let config = TunnelConfig {
        listen: vec![at(fixed, ListenKind::Forward(target(echo))), listen(ListenKind::Mixed)],
        ..TunnelConfig::default()
    };
    drop(reload(&connector, &running, config).unwrap());
    assert_eq!(running.watch.listening()[1].address, chosen);
    client.write_all(GREETING).await.unwrap();
    expect(&mut client, &[5, 0]).await;
    let mut forward = TcpStream::connect(fixed).await.unwrap();
    forward.write_all(GREETING).await.unwrap();
    expect(&mut forward, GREETING).await;
}

#[tokio::test]
async fn a_config_that_cannot_be_listened_by_changes_nothing() {
    let echo = echo("127.0.0.1").await;
    let [own, free] = [free(), free()];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (connector, running) = start(TunnelConfig { listen: vec![at(own, ListenKind::Mixed)], ..guarded() });
    let beyond = SocketAddr::from(([0, 0, 0, 0], own.port()));
    let on = |listen| TunnelConfig { listen, max_clients: 1, ..TunnelConfig::default() };
    for (config, words) in [
        (on(vec![at(free, ListenKind::Socks), at(taken.local_addr().unwrap(), ListenKind::Socks)]), "listen on 127"),
        (on(vec![at(beyond, ListenKind::Socks)]), "set users"),
        (TunnelConfig { users: guarded().users, ..on(vec![at(beyond, ListenKind::Socks)]) }, "restart for this change"),
        (on(vec![at(free, ListenKind::Forward(target(free)))]), "leads back to the tunnel itself"),
        (TunnelConfig { max_clients: 0, ..on(vec![at(own, ListenKind::Socks)]) }, "0 clients"),
    ] {
        let error = reload(&connector, &running, config).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert!(TcpStream::connect(free).await.is_err(), "{words}: what was opened for it is closed");
    }
    assert!(!serves(own, echo).await, "it still wants a password");
    assert_eq!(running.watch.listening(), [at(own, ListenKind::Mixed)]);
    let (other, _) = start(open());
    let text = other.prepare(open()).unwrap().listen(&running.watch, &[]).unwrap_err().to_string();
    assert!(text.contains("another server"), "{text}");
}

#[tokio::test]
async fn other_users_hold_for_handshakes_that_begin() {
    let echo = echo("127.0.0.1").await;
    let (connector, running) = start(open());
    let (mut tunnel, _) = through(&running, &connect(echo)).await;
    let users = vec![User { name: "bob".to_owned(), password: "two".to_owned() }];
    let changes = reload(&connector, &running, TunnelConfig { users, ..open() }).unwrap();
    assert_eq!((changes.changed, changes.kept), (vec!["tunnel.users".to_owned()], vec!["tunnel.listen".to_owned()]));
    assert!(!serves(running.addresses[0], echo).await);
    let mut bob = running.client().await;
    bob.write_all(&[5, 1, 2]).await.unwrap();
    expect(&mut bob, &[5, 2]).await;
    bob.write_all(b"\x01\x03bob\x03two").await.unwrap();
    expect(&mut bob, &[1, 0]).await;
    tunnel.write_all(b"it goes on").await.unwrap();
    expect(&mut tunnel, b"it goes on").await;
    drop(reload(&connector, &running, open()).unwrap());
    assert!(serves(running.addresses[0], echo).await);
}

#[tokio::test]
async fn room_for_clients_changes_while_they_are_there() {
    let echo = echo("127.0.0.1").await;
    let (connector, running) = start(TunnelConfig { max_clients: 2, ..open() });
    let (first, second) = (through(&running, &connect(echo)).await.0, through(&running, &connect(echo)).await.0);
    let changes = reload(&connector, &running, TunnelConfig { max_clients: 1, ..open() }).unwrap();
    assert_eq!(changes.changed, ["tunnel.max_clients"]);
    drop(first);
    running.until(|stats| stats.clients == 1).await;
    assert_eq!(rest(&mut running.client().await).await, b"", "one is as many as there may be");
    drop(reload(&connector, &running, TunnelConfig { max_clients: 3, ..open() }).unwrap());
    let third = through(&running, &connect(echo)).await.0;
    assert_eq!(running.watch.stats().clients, 2);
    drop((second, third));
}

#[tokio::test]
async fn a_process_without_listeners_opens_some() {
    let echo = echo("127.0.0.1").await;
    let connector = Connector::new(TunnelConfig::default(), Arc::new(Names::default())).unwrap();
    let prepared = connector.prepare(guarded()).unwrap();
    let server = prepared.bind(&[]).unwrap();
    drop(prepared.apply());
    let running = Running::of(server);
    assert!(!serves(running.addresses[0], echo).await, "its users are those of the new config");
    drop(reload(&connector, &running, open()).unwrap());
    assert!(serves(running.addresses[0], echo).await);
}

/// A config that is put in force when the server has stopped opens nothing.
#[tokio::test]
async fn a_server_that_has_stopped_listens_no_more() {
    let (connector, running) = start(open());
    let (watch, late) = (running.watch.clone(), free());
    let config = TunnelConfig { listen: vec![at(late, ListenKind::Mixed)], ..TunnelConfig::default() };
    let prepared = connector.prepare(config).unwrap().listen(&watch, &[]).unwrap();
    assert_eq!(running.stop().await, 0);
    drop(prepared.apply());
    assert!(TcpStream::connect(late).await.is_err());
}

/// Those who came in by a listener that asks for a password are never let through by users that hold for others.
#[tokio::test]
async fn a_listener_that_goes_with_its_users_takes_http_connections_along() {
    let (origin, address) = destination().await;
    let [goes, stays] = [free(), free()];
    let on = |address, config| TunnelConfig { listen: vec![at(address, ListenKind::Mixed)], ..config };
    let (connector, running) = start(on(goes, guarded()));
    let request =
        |lines: &str| format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n").into_bytes();
    let mut refused = running.client().await;
    refused.write_all(&request("")).await.unwrap();
    expect(&mut refused, b"HTTP/1.1 407 ").await;
    let mut busy = running.client().await;
    // ann:one
    busy.write_all(&request("Proxy-Authorization: Basic YW5uOm9uZQ==\r\n")).await.unwrap();
    let (mut answering, _) = within(origin.accept()).await.unwrap();
    expect(&mut answering, b"GET / ").await;

    drop(reload(&connector, &running, on(stays, open())).unwrap());
    assert!(serves(stays, address).await, "nobody there is asked for a password");
    drop(within(origin.accept()).await.unwrap());
    // It has its answer, and the end. What it asks then is nothing to anybody.
    refused.write_all(&request("")).await.ok();
    let mut rest = Vec::new();
    within(refused.read_to_end(&mut rest)).await.ok();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{}", String::from_utf8_lossy(&rest));
    busy.write_all(&request("")).await.unwrap();
    answering.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    let mut answer = Vec::new();
    within(busy.read_to_end(&mut answer)).await.ok();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(
        tokio::time::timeout(std::time::Duration::ZERO, origin.accept()).await.is_err(),
        "nothing was asked for anybody"
    );
}
