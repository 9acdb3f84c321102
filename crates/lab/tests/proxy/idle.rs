//! Connections that wait for a request: how they end by time, by order, and by what they get that they never asked for.

use std::time::Duration;

use keepwarm_lab::{IdleFrom, ProxyClose, ProxyFaults};
use tokio::io::AsyncWriteExt;

use crate::client::{connect, ends, greeted, is_reset, labs, never, read, request, tcp, tunnel, until};

const SHORT: Option<Duration> = Some(Duration::from_millis(100));

#[tokio::test]
async fn idle_connections_end_in_every_way() {
    for kind in [ProxyClose::Fin, ProxyClose::Reset, ProxyClose::Silent, ProxyClose::SilentReset] {
        let faults = ProxyFaults { close_idle: SHORT, close_kind: kind, ..ProxyFaults::default() };
        let (_echo, proxy) = labs(faults).await;
        // A tunnel is none of them.
        let mut live = tunnel(&proxy).await;
        let mut stream = greeted(&proxy).await;
        until(|| proxy.counters().closed_idle == 1).await;
        assert_eq!((proxy.counters().idle, proxy.counters().idle_max), (0, 1));
        match kind {
            ProxyClose::Fin => {
                ends(&mut stream).await.unwrap();
                // As behind every server that has closed.
                stream.write_all(&connect("a.test", 80)).await.unwrap();
                until(|| stream.try_write(b"x").is_err()).await;
            }
            ProxyClose::Reset => assert!(is_reset(&ends(&mut stream).await)),
            ProxyClose::Silent => {
                stream.write_all(&connect("a.test", 80)).await.unwrap();
                never(read(&mut stream, 1)).await;
                assert_eq!(proxy.counters().open, 2);
            }
            ProxyClose::SilentReset => {
                never(stream.peek(&mut [0])).await;
                stream.write_all(&connect("a.test", 80)).await.unwrap();
                assert!(is_reset(&ends(&mut stream).await));
            }
        }
        assert_eq!((proxy.counters().connects, proxy.counters().closed_idle, proxy.counters().live), (1, 1, 1));
        never(read(&mut live, 1)).await;
    }
}

#[tokio::test]
async fn the_time_counts_from_the_greeting_or_from_the_beginning() {
    let faults = ProxyFaults { close_idle: SHORT, ..ProxyFaults::default() };
    let (_echo, proxy) = labs(faults).await;
    let mut stream = tcp(proxy.addr()).await;
    never(stream.peek(&mut [0])).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
    assert_eq!((proxy.counters().closed_idle, proxy.counters().open), (0, 1), "it was never greeted");
    proxy.update_faults(|faults| {
        faults.idle_from = IdleFrom::Accepted;
        faults.close_idle = Some(Duration::from_millis(200));
    });
    // That time is over already.
    stream.write_all(crate::client::AUTH).await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x01\x00");
    ends(&mut stream).await.unwrap();
    assert_eq!(proxy.counters().closed_idle, 1);
}

#[tokio::test]
async fn a_stray_reply_comes_before_the_end_or_without_one() {
    let faults = ProxyFaults { stray_reply: SHORT, ..ProxyFaults::default() };
    let (_echo, proxy) = labs(faults).await;
    let mut stream = greeted(&proxy).await;
    assert_eq!(read(&mut stream, 10).await.unwrap(), b"\x05\x00\x00\x01\0\0\0\0\0\0");
    never(read(&mut stream, 1)).await;
    // The connection is good still, but who took the first reply for its own would be wrong.
    assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
    proxy.update_faults(|faults| faults.close_idle = Some(Duration::from_millis(150)));
    let mut stream = greeted(&proxy).await;
    assert_eq!(read(&mut stream, 10).await.unwrap()[1], 0);
    ends(&mut stream).await.unwrap();
    assert_eq!((proxy.counters().strays, proxy.counters().closed_idle), (2, 1));
}

#[tokio::test]
async fn orders_reach_idle_connections_alone() {
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    let mut live = tunnel(&proxy).await;
    let mut young = tcp(proxy.addr()).await;
    let mut stream = greeted(&proxy).await;
    until(|| proxy.counters().idle == 1).await;
    proxy.stray();
    assert_eq!(read(&mut stream, 1).await.unwrap(), b"\x05");
    proxy.close_idle();
    ends(&mut stream).await.unwrap();
    let mut stream = greeted(&proxy).await;
    proxy.reset_idle();
    assert!(is_reset(&ends(&mut stream).await));
    let counters = proxy.counters();
    assert_eq!((counters.closed_idle, counters.strays, counters.resets, counters.open), (2, 1, 1, 2));
    never(read(&mut live, 1)).await;
    young.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut young, 2).await.unwrap(), b"\x05\x02");
}

#[tokio::test]
async fn who_closes_one_before_opening_the_next_never_has_two() {
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    for _ in 0..200 {
        drop(greeted(&proxy).await);
        let mut stream = greeted(&proxy).await;
        assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
        drop(stream);
    }
    let counters = proxy.counters();
    assert_eq!((counters.open_max, counters.idle_max, counters.live_max), (1, 1, 1));
    assert_eq!((counters.destinations["a.test:80"].max, counters.live, counters.open), (1, 0, 0));
    assert_eq!((counters.accepted, counters.connects_ok), (400, 200));
}
