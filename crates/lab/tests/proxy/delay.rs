//! Round trips. That they are no shorter than they should be is checked; that they are hardly longer is for benches.

use std::time::Duration;

use keepwarm_lab::{DelayRelay, EchoLab, EchoMode, ProxyFaults, ProxySpec, Tagged};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::client::{ends, exchange, greeted, is_reset, labs_with, read_end, request, tcp, until};

const ROUND_TRIP: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_fresh_connection_takes_four_round_trips_and_a_greeted_one_takes_one() {
    let (echo, proxy) = labs_with(ProxySpec { delay: ROUND_TRIP, ..ProxySpec::default() }).await;
    let start = Instant::now();
    let mut stream = greeted(&proxy).await;
    assert!(start.elapsed() >= 3 * ROUND_TRIP);
    let start = Instant::now();
    assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
    assert!(start.elapsed() >= ROUND_TRIP);
    let start = Instant::now();
    exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 100_000).await;
    assert!(start.elapsed() >= ROUND_TRIP);
    drop(stream);
    until(|| proxy.counters().open == 0 && echo.counters(0).connections.now == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_two_round_trips() {
    let echo = EchoLab::start(1).await.unwrap();
    echo.set_mode(0, EchoMode::Banner);
    let relay = DelayRelay::start(echo.addr(0), ROUND_TRIP).await.unwrap();
    let start = Instant::now();
    let mut stream = tcp(relay.addr()).await;
    let mut tagged = Tagged::random(echo.addr(0));
    assert_eq!(crate::client::read(&mut stream, 16).await.unwrap(), tagged.banner());
    assert!(start.elapsed() >= 2 * ROUND_TRIP);
    exchange(&mut stream, &mut tagged, 10).await;
}

#[tokio::test]
async fn every_byte_arrives_in_order_and_ends_are_passed_on() {
    let echo = EchoLab::start(1).await.unwrap();
    for round_trip in [Duration::ZERO, Duration::from_millis(5)] {
        let relay = DelayRelay::start(echo.addr(0), round_trip).await.unwrap();
        echo.set_mode(0, EchoMode::Source);
        let (mut stream, mut tagged) = (tcp(relay.addr()).await, Tagged::random(echo.addr(0)));
        stream.write_all(&tagged.source(30_000_000)).await.unwrap();
        let (bytes, end) = read_end(&mut stream).await;
        end.unwrap();
        assert_eq!(bytes.len(), 30_000_000);
        tagged.check_source(&bytes).unwrap();
        drop(stream);

        echo.set_mode(0, EchoMode::Digest);
        let (mut stream, mut tagged) = (tcp(relay.addr()).await, Tagged::random(echo.addr(0)));
        for length in (0..3000).map(|length| length % 50).chain([1_000_000]) {
            stream.write_all(&tagged.request(length)).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert_eq!(read_end(&mut stream).await.0, tagged.digest());

        echo.set_mode(0, EchoMode::Reset);
        let (mut stream, mut tagged) = (tcp(relay.addr()).await, Tagged::random(echo.addr(0)));
        stream.write_all(&tagged.request(0)).await.unwrap();
        assert!(is_reset(&ends(&mut stream).await));

        echo.set_mode(0, EchoMode::Silent);
        for half in [false, true] {
            let (mut stream, mut tagged) = (tcp(relay.addr()).await, Tagged::random(echo.addr(0)));
            stream.write_all(&tagged.request(10)).await.unwrap();
            until(|| echo.counters(0).connections.now == 1).await;
            if half {
                stream.shutdown().await.unwrap();
            }
            stream.set_zero_linger().unwrap();
            drop(stream);
            until(|| echo.counters(0).connections.now == 0).await;
        }
        until(|| relay.counters().connections.now == 0 && relay.counters().resets >= 2).await;
        let counters = relay.counters();
        assert_eq!((counters.connections.total, counters.refused), (5, 0));
        assert_eq!(counters.received, 30_000_000 + 40);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_seen_as_one_that_resets_and_a_relay_goes_down_itself() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let relay = DelayRelay::start(gone, ROUND_TRIP).await.unwrap();
    let mut stream = tcp(relay.addr()).await;
    assert!(is_reset(&ends(&mut stream).await));
    assert_eq!(relay.counters().refused, 1);

    let echo = EchoLab::start(1).await.unwrap();
    let relay = DelayRelay::start(echo.addr(0), ROUND_TRIP).await.unwrap();
    let mut stream = tcp(relay.addr()).await;
    exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 10).await;
    relay.down();
    assert!(is_reset(&ends(&mut stream).await));
    tokio::net::TcpStream::connect(relay.addr()).await.unwrap_err();
    relay.up();
    exchange(&mut tcp(relay.addr()).await, &mut Tagged::random(echo.addr(0)), 10).await;
}

#[tokio::test]
async fn faults_reach_through_the_delay() {
    let faults = ProxyFaults { close_idle: Some(ROUND_TRIP), ..ProxyFaults::default() };
    let (_echo, proxy) = labs_with(ProxySpec { delay: ROUND_TRIP, faults, ..ProxySpec::default() }).await;
    let mut stream = greeted(&proxy).await;
    ends(&mut stream).await.unwrap();
    proxy.update_faults(|faults| faults.close_idle = None);
    let mut stream = greeted(&proxy).await;
    proxy.reset_idle();
    assert!(is_reset(&ends(&mut stream).await));
    assert_eq!((proxy.counters().closed_idle, proxy.counters().resets), (2, 1));
}
