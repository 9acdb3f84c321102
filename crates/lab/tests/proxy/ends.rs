//! Connections that end in the midst of something, and a proxy that goes down and comes back.

use std::io;
use std::time::Duration;

use keepwarm_lab::{EchoMode, ProxyFaults, ProxyLab, ProxyPhase, Tagged};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{
    AUTH, connect, ends, exchange, greeted, is_reset, labs, never, read, read_end, request, soon, tcp, tunnel, until,
};

/// Goes as far as the proxy lets it: what came, step by step, and how it ended.
async fn far(proxy: &ProxyLab, tagged: &mut Tagged) -> (Vec<u8>, io::Result<()>) {
    let mut stream = tcp(proxy.addr()).await;
    let mut heard = Vec::new();
    let steps = [b"\x05\x01\x02".to_vec(), AUTH.to_vec(), connect("a.test", 80), tagged.request(100)];
    for (step, answer) in steps.into_iter().zip([2, 2, 10, 100]) {
        let result = async {
            stream.write_all(&step).await?;
            for _ in 0..answer {
                heard.extend(read(&mut stream, 1).await?);
            }
            io::Result::Ok(())
        };
        if let Err(error) = result.await {
            let closed = error.kind() == io::ErrorKind::UnexpectedEof;
            return (heard, if closed { Ok(()) } else { Err(error) });
        }
    }
    let end = ends(&mut stream).await;
    (heard, end)
}

#[tokio::test]
async fn every_phase_ends_by_rst_and_by_fin() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let phases = [
        (ProxyPhase::Greeting, 0),
        (ProxyPhase::Auth, 2),
        (ProxyPhase::Connect, 4),
        (ProxyPhase::Reply(0), 4),
        (ProxyPhase::Reply(7), 11),
        (ProxyPhase::Reply(100), 14),
        (ProxyPhase::Payload(0), 14),
        (ProxyPhase::Payload(33), 47),
    ];
    for (phase, length) in phases {
        proxy.set_faults(ProxyFaults { close_at: Some(phase), ..ProxyFaults::default() });
        let (heard, end) = far(&proxy, &mut Tagged::random(echo.addr(0))).await;
        assert_eq!(heard.len(), length, "{phase:?}");
        assert!(end.is_ok(), "{phase:?} {end:?}");

        proxy.set_faults(ProxyFaults { reset_at: Some(phase), ..ProxyFaults::default() });
        let (heard, end) = far(&proxy, &mut Tagged::random(echo.addr(0))).await;
        // RST may overtake what was sent before it.
        assert!(heard.len() <= length, "{phase:?}");
        assert!(is_reset(&end), "{phase:?} {end:?}");
    }
    until(|| proxy.counters().open == 0 && proxy.counters().resets == 8).await;
    until(|| echo.counters(0).connections.now == 0).await;
    assert_eq!(proxy.counters().closed_by_lab, 16);
}

#[tokio::test]
async fn a_connection_is_reset_or_closed_as_soon_as_it_is_accepted() {
    let (_echo, proxy) = labs(ProxyFaults { reset_at: Some(ProxyPhase::Accept), ..ProxyFaults::default() }).await;
    match soon(TcpStream::connect(proxy.addr())).await {
        Ok(mut stream) => assert!(is_reset(&ends(&mut stream).await)),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    proxy.set_faults(ProxyFaults { close_at: Some(ProxyPhase::Accept), ..ProxyFaults::default() });
    ends(&mut tcp(proxy.addr()).await).await.unwrap();
    assert_eq!((proxy.counters().accepted, proxy.counters().closed_by_lab, proxy.counters().resets), (2, 2, 1));
}

#[tokio::test]
async fn rst_is_passed_on_both_ways() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let mut stream = tunnel(&proxy).await;
    exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 10).await;
    echo.reset_open(0);
    assert!(is_reset(&ends(&mut stream).await));
    assert_eq!(proxy.counters().resets, 1);

    // The client's RST reaches the destination: by itself, and after half a close.
    for half in [false, true] {
        let mut stream = tunnel(&proxy).await;
        stream.write_all(&Tagged::random(echo.addr(0)).request(10)).await.unwrap();
        read(&mut stream, 10).await.unwrap();
        echo.set_mode(0, EchoMode::Silent);
        let mut silent = tunnel(&proxy).await;
        echo.set_mode(0, EchoMode::Echo);
        until(|| echo.counters(0).connections.now == 2).await;
        for stream in [&mut stream, &mut silent] {
            if half {
                stream.shutdown().await.unwrap();
            }
            stream.set_zero_linger().unwrap();
        }
        drop((stream, silent));
        until(|| proxy.counters().open == 0 && echo.counters(0).connections.now == 0).await;
    }
}

#[tokio::test]
async fn a_destination_that_resets_at_once_has_been_connected() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    echo.set_mode(0, EchoMode::Reset);
    let mut stream = tunnel(&proxy).await;
    stream.write_all(&Tagged::random(echo.addr(0)).request(0)).await.unwrap();
    assert!(is_reset(&ends(&mut stream).await));
}

#[tokio::test]
async fn all_connections_are_reset_by_order() {
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    let mut streams = vec![tcp(proxy.addr()).await, greeted(&proxy).await, tunnel(&proxy).await];
    proxy.update_faults(|faults| faults.silent_connect = true);
    let mut silent = greeted(&proxy).await;
    silent.write_all(&connect("a.test", 80)).await.unwrap();
    until(|| proxy.counters().connects == 2).await;
    streams.push(silent);
    assert_eq!(proxy.counters().open, 4);
    proxy.reset_open();
    for stream in &mut streams {
        assert!(is_reset(&ends(stream).await));
    }
    assert_eq!((proxy.counters().open, proxy.counters().resets), (0, 4));
}

#[tokio::test]
async fn a_proxy_goes_down_and_comes_back_at_its_port() {
    for delay in [Duration::ZERO, Duration::from_millis(2)] {
        let spec = keepwarm_lab::ProxySpec { delay, ..keepwarm_lab::ProxySpec::default() };
        let (echo, proxy) = crate::client::labs_with(spec).await;
        for round in 1..=3 {
            let mut stream = tunnel(&proxy).await;
            let mut idle = greeted(&proxy).await;
            proxy.down();
            assert!(is_reset(&ends(&mut stream).await));
            assert!(is_reset(&ends(&mut idle).await));
            let error = soon(TcpStream::connect(proxy.addr())).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            proxy.up();
            exchange(&mut tunnel(&proxy).await, &mut Tagged::random(echo.addr(0)), 10).await;
            assert_eq!(proxy.counters().connects_ok, 2 * round);
        }
        assert!(!proxy.faults().refuse);
    }
}

#[tokio::test]
async fn refusing_leaves_open_connections_alone() {
    let (echo, proxy) = labs(ProxyFaults { refuse: true, ..ProxyFaults::default() }).await;
    soon(TcpStream::connect(proxy.addr())).await.unwrap_err();
    proxy.update_faults(|faults| faults.refuse = false);
    let mut stream = greeted(&proxy).await;
    proxy.update_faults(|faults| faults.refuse = true);
    soon(TcpStream::connect(proxy.addr())).await.unwrap_err();
    assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
    exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 10).await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let (_echo, proxy) = labs(ProxyFaults { max_connections: Some(2), ..ProxyFaults::default() }).await;
    let (one, two) = (greeted(&proxy).await, greeted(&proxy).await);
    let (heard, end) = read_end(&mut tcp(proxy.addr()).await).await;
    assert_eq!((heard.len(), end.is_ok()), (0, true));
    assert_eq!((proxy.counters().accepted, proxy.counters().over_limit, proxy.counters().open_max), (2, 1, 2));
    drop(one);
    let three = greeted(&proxy).await;
    never(two.peek(&mut [0])).await;
    drop(three);
}

#[tokio::test]
async fn stopping_ends_everything() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let mut stream = tunnel(&proxy).await;
    let address = proxy.addr();
    proxy.stop().await;
    let (_, _) = read_end(&mut stream).await;
    soon(TcpStream::connect(address)).await.unwrap_err();
    let address = echo.addr(0);
    echo.stop().await;
    soon(TcpStream::connect(address)).await.unwrap_err();
}

/// A client that gives up at a random point, or ends as it should.
async fn client(proxy: std::net::SocketAddr, destination: std::net::SocketAddr, host: &'static str) {
    let mut stream = tcp(proxy).await;
    let mut tagged = Tagged::random(destination);
    let steps = [(b"\x05\x01\x02".to_vec(), 2), (AUTH.to_vec(), 2), (connect(host, 80), 10)];
    for (step, answer) in steps {
        stream.write_all(&step).await.unwrap();
        if rand::random_range(0..8) == 0 {
            return;
        }
        read(&mut stream, answer).await.unwrap();
    }
    for _ in 0..rand::random_range(0..4) {
        let length = rand::random_range(1..20_000);
        stream.write_all(&tagged.request(length)).await.unwrap();
        let part = rand::random_range(1..=length);
        tagged.check(&read(&mut stream, part).await.unwrap()).unwrap();
        if rand::random_range(0..8) == 0 {
            stream.set_zero_linger().unwrap();
            return;
        }
        tagged.check(&read(&mut stream, length - part).await.unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_give_up_anywhere_leave_nothing_behind() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..1000_usize {
        let destination = echo.addr(number % 2);
        clients.spawn(client(proxy.addr(), destination, ["a.test", "b.test"][number % 2]));
        if clients.len() >= 20 {
            soon(clients.join_next()).await.unwrap().unwrap();
        }
    }
    while let Some(client) = soon(clients.join_next()).await {
        client.unwrap();
    }
    until(|| proxy.counters().closed_by_peer == 1000).await;
    until(|| (0..2).all(|index| echo.counters(index).connections.now == 0)).await;
    let counters = proxy.counters();
    assert_eq!((counters.open, counters.idle, counters.live, counters.closed_by_lab), (0, 0, 0, 0));
    assert_eq!((counters.accepted, counters.connects_failed, echo.foreign()), (1000, 0, 0));
    assert_eq!(counters.connects, counters.connects_ok);
    assert!(counters.live_max <= 20, "{}", counters.live_max);
    let total: u64 = counters.destinations.values().map(|live| live.total).sum();
    assert_eq!(total, counters.connects_ok);
}
