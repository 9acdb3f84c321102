//! What the gateway bounds, and how it stops.

use std::{net::SocketAddr, time::Duration};

use http_body_util::BodyExt as _;
use keepwarm_https::config::GatewayConfig;
use keepwarm_lab::expected_body;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::setup::{Settings, eventually, rig, start};

#[tokio::test]
async fn one_client_too_many_is_told_so_and_served_later() {
    let gateway = GatewayConfig { max_clients: 2, ..Settings::default().gateway };
    let rig = start(Settings { gateway, ..Settings::default() }).await;
    let (first, second) = (rig.connect().await, rig.connect().await);
    eventually("both are served", || rig.watch.stats().clients == 2).await;
    for _ in 0..3 {
        let answer = rig.get("/").await;
        assert_eq!(answer.error(), (503, "too_many_clients"));
        assert!(answer.body.ends_with(b"raise max_clients in [https]\n"), "{answer:?}");
    }
    drop(first);
    eventually("one is gone", || rig.watch.stats().clients == 1).await;
    assert_eq!(rig.get("/").await.status, 200);
    drop(second);
    let stats = rig.watch.stats();
    assert_eq!((stats.accepted, stats.turned_away, stats.requests), (3, 3, 1));
}

#[tokio::test]
async fn a_head_above_the_limits_is_refused() {
    let rig = rig().await;
    let long = "x".repeat(70 * 1024);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for headers in [format!("x-long: {long}\r\n"), many] {
        let answer = rig.raw(&format!("GET {} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n", rig.path("/"))).await;
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(rig.lab.total().requests, 0);
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    let ask = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", rig.path("/bytes/0"));
    for _ in 0..100 {
        stream.write_all(ask.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    let stats = rig.watch.stats();
    assert_eq!((stats.accepted, stats.requests, rig.lab.total().accepted), (1, 100, 1));
}

#[tokio::test]
async fn a_stop_closes_who_waits_and_lets_an_answer_end() {
    let rig = rig().await;
    let (mut idle, mut fresh) = (rig.connect().await, rig.connect().await);
    let ask = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", rig.path("/status/204"));
    idle.write_all(ask.as_bytes()).await.expect("written");
    idle.read_u8().await.expect("an answer");
    let answer = rig.send(rig.request("GET", &rig.path("/stream/30"), &[])).await;
    eventually("all are served", || rig.watch.stats().clients == 3).await;
    let (gateway, watch) = (rig.gateway, rig.watch.clone());
    let (_lab, running) = rig.stop();
    fresh.read_to_end(&mut Vec::new()).await.expect("closed");
    idle.read_to_end(&mut Vec::new()).await.expect("closed");
    assert_eq!(answer.into_body().collect().await.expect("to its end").to_bytes().len(), 30 * 64);
    assert_eq!(running.await.expect("no panic"), 0);
    assert_eq!(watch.stats().clients, 0);
    assert!(TcpStream::connect(gateway).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_stop_lets_the_buffered_end_of_an_answer_be_sent() {
    let capacity = kernel_capacity().await;
    // What the kernel does not take stays with the gateway, which has then read the answer to its end.
    for beyond in [10_000, 30_000, 50_000] {
        let rig = rig().await;
        let path = format!("/bytes/{}", capacity + beyond);
        let mut client = slow_client(rig.gateway).await;
        let ask = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", rig.path(&path));
        client.write_all(ask.as_bytes()).await.expect("written");
        client.readable().await.expect("an answer");
        eventually("the origin has sent it", || rig.lab.total().answers == rig.lab.total().requests).await;
        // The gateway takes it meanwhile. A stop that came too early would be the easier case.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        let (_lab, running) = rig.stop();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("closed in order");
        let expected = expected_body(&path, 0..(capacity + beyond) as u64);
        drop(client);
        assert!(answer.ends_with(&expected), "{} of {} bytes and a head", answer.len(), expected.len());
        assert_eq!(running.await.expect("no panic"), 0);
    }
}

#[tokio::test]
async fn who_stays_after_its_answer_is_not_cut_off_by_a_stop() {
    let rig = start(Settings { patience: Duration::from_millis(50), ..Settings::default() }).await;
    let mut client = rig.connect().await;
    let ask = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", rig.path("/bytes/3"));
    client.write_all(ask.as_bytes()).await.expect("written");
    client.read_to_end(&mut Vec::new()).await.expect("an answer and the end");
    let watch = rig.watch.clone();
    assert_eq!(watch.stats().clients, 1, "the gateway waits for the client's end");
    let (_lab, running) = rig.stop();
    assert_eq!(running.await.expect("no panic"), 0);
    assert_eq!(watch.stats().clients, 0);
}

/// A client for whom the kernel keeps next to nothing.
async fn slow_client(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(server).await.expect("it listens")
}

/// Bytes that the kernel takes for a slow client that reads nothing.
async fn kernel_capacity() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let _client = slow_client(listener.local_addr().expect("bound")).await;
    let (server, _) = listener.accept().await.expect("a client");
    let mut taken = 0;
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(300), server.writable()).await {
        taken += server.try_write(&[0; 16 * 1024]).unwrap_or(0);
    }
    taken
}

#[tokio::test]
async fn a_stop_cuts_off_what_takes_longer_than_its_patience() {
    let rig = start(Settings { patience: Duration::from_millis(50), ..Settings::default() }).await;
    let mut answer = rig.send(rig.request("GET", &rig.path("/stream"), &[])).await;
    answer.body_mut().frame().await.expect("a piece").expect("data");
    // To a client of HTTP/1.0 the end of the connection is the end of the answer.
    let mut old = rig.connect().await;
    old.write_all(format!("GET {} HTTP/1.0\r\n\r\n", rig.path("/stream")).as_bytes()).await.expect("written");
    old.read_u8().await.expect("an answer");
    let watch = rig.watch.clone();
    let (_lab, running) = rig.stop();
    assert_eq!(running.await.expect("no panic"), 2);
    assert!(old.read_to_end(&mut Vec::new()).await.is_err(), "it is not taken for whole");
    assert_eq!(watch.stats().clients, 0);
    assert!(answer.into_body().collect().await.is_err(), "it is not taken for whole");
}
