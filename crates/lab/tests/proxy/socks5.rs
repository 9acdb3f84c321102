//! SOCKS5 step by step: what is right, what is refused, and what comes too early.

use std::time::Duration;

use keepwarm_lab::{EchoMode, Pipelining, ProxyFaults, ProxyLab, ProxySpec, ReplyAddress, Tagged};
use tokio::io::AsyncWriteExt;

use crate::client::{
    AUTH, code, connect, ends, exchange, greeted, is_reset, labs, never, read, read_end, request, tcp, tunnel, until,
};

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_everything_is_counted() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let mut stream = greeted(&proxy).await;
    let counters = proxy.counters();
    assert_eq!((counters.accepted, counters.greeted, counters.auth_ok, counters.idle, counters.open), (1, 1, 1, 1, 1));
    assert_eq!(request(&mut stream, "a.test", 80).await.unwrap(), 0);
    let counters = proxy.counters();
    assert_eq!((counters.connects, counters.connects_ok, counters.idle, counters.live), (1, 1, 0, 1));
    let live = counters.destinations["a.test:80"];
    assert_eq!((live.now, live.max, live.total), (1, 1, 1));

    let mut tagged = Tagged::random(echo.addr(0));
    for length in [1, 100, 100_000] {
        exchange(&mut stream, &mut tagged, length).await;
    }
    let (sent, received) = (100_101 + 16, 100_101);
    assert_eq!((proxy.counters().sent, proxy.counters().received), (sent, received));
    let counters = echo.counters(0);
    assert_eq!((counters.received, counters.sent, counters.foreign, counters.greeted), (received, received, 0, 1));

    drop(stream);
    assert_eq!((proxy.counters().live, proxy.counters().open), (0, 0), "at once");
    until(|| proxy.counters().closed_by_peer == 1 && echo.counters(0).connections.now == 0).await;
    assert_eq!(proxy.counters().live_max, 1);
    proxy.stop().await;
    echo.stop().await;
}

#[tokio::test]
async fn half_a_close_is_passed_on() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    echo.set_mode(0, EchoMode::Digest);
    let mut stream = tunnel(&proxy).await;
    let mut tagged = Tagged::random(echo.addr(0));
    for _ in 0..5 {
        stream.write_all(&tagged.request(50_000)).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let (answer, end) = read_end(&mut stream).await;
    end.unwrap();
    assert_eq!(answer, tagged.digest());
    assert_eq!(echo.foreign(), 0);
}

#[tokio::test]
async fn whoever_gives_no_or_a_wrong_password_is_refused() {
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x00").await.unwrap();
    assert_eq!(read_end(&mut stream).await.0, b"\x05\xff");
    for wrong in [&b"\x01\x03ann\x07hunter3"[..], b"\x01\x00\x00", b"\x02\x03ann\x07hunter2"] {
        let mut stream = tcp(proxy.addr()).await;
        stream.write_all(b"\x05\x02\x00\x02").await.unwrap();
        assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
        stream.write_all(wrong).await.unwrap();
        assert_eq!(read_end(&mut stream).await.0, b"\x01\x01");
    }
    let counters = proxy.counters();
    assert_eq!((counters.auth_failed, counters.auth_ok, counters.greeted, counters.closed_by_lab), (3, 0, 0, 4));
}

#[tokio::test]
async fn without_a_credential_everyone_is_served() {
    let echo = keepwarm_lab::EchoLab::start(1).await.unwrap();
    let proxy = ProxyLab::start(ProxySpec::default()).await.unwrap();
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x02\x00\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x00");
    let port = echo.addr(0).port().to_be_bytes();
    stream.write_all(&[b"\x05\x01\x00\x01\x7f\x00\x00\x01", &port[..]].concat()).await.unwrap();
    assert_eq!(code(&mut stream).await.unwrap(), 0);
    exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 10).await;
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
    stream.write_all(AUTH).await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x01\x00");
    assert_eq!((proxy.counters().greeted, proxy.counters().auth_ok), (2, 1));
}

#[tokio::test]
async fn what_cannot_be_connected_gets_its_code() {
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let refused = [b"\x05\x01\x00\x01\x7f\x00\x00\x01", &port.to_be_bytes()[..]].concat();
    let cases = [
        (refused, 5),
        (connect("unknown.test", 80), 4),
        (b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50".to_vec(), 3),
        (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50".to_vec(), 7),
        (b"\x05\x01\x00\x02".to_vec(), 8),
    ];
    for (request, expected) in cases {
        let mut stream = greeted(&proxy).await;
        stream.write_all(&request).await.unwrap();
        assert_eq!(code(&mut stream).await.unwrap(), expected);
        ends(&mut stream).await.unwrap();
    }
    let counters = proxy.counters();
    assert_eq!((counters.connects, counters.connects_failed, counters.connects_ok), (4, 4, 0));
}

#[tokio::test]
async fn codes_are_given_by_fault_to_one_host_or_all() {
    let faults = ProxyFaults { reply_for: [("a.test".to_owned(), 2)].into(), ..ProxyFaults::default() };
    let (_echo, proxy) = labs(faults).await;
    assert_eq!(request(&mut greeted(&proxy).await, "a.test", 80).await.unwrap(), 2);
    assert_eq!(request(&mut greeted(&proxy).await, "b.test", 80).await.unwrap(), 0);
    proxy.update_faults(|faults| faults.reply = Some(1));
    let mut stream = greeted(&proxy).await;
    assert_eq!(request(&mut stream, "b.test", 80).await.unwrap(), 1);
    ends(&mut stream).await.unwrap();
    assert_eq!((proxy.counters().connects_ok, proxy.counters().connects_failed), (1, 2));
}

#[tokio::test]
async fn the_bound_address_has_any_form() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    for (address, kind, length) in [
        (ReplyAddress::V4, 1, 4),
        (ReplyAddress::Unspecified, 1, 4),
        (ReplyAddress::V6, 4, 16),
        (ReplyAddress::Name, 3, 10),
    ] {
        for fragments in [false, true] {
            proxy.set_faults(ProxyFaults { reply_address: address, fragments, ..ProxyFaults::default() });
            let mut stream = greeted(&proxy).await;
            stream.write_all(&connect("a.test", 80)).await.unwrap();
            let reply = read(&mut stream, 4 + length + 2).await.unwrap();
            assert_eq!(reply[..4], [5, 0, 0, kind]);
            exchange(&mut stream, &mut Tagged::random(echo.addr(0)), 10).await;
        }
    }
}

#[tokio::test]
async fn steps_that_are_not_answered_leave_the_client_waiting() {
    let (_echo, proxy) = labs(ProxyFaults { silent_greeting: true, ..ProxyFaults::default() }).await;
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    never(read(&mut stream, 1)).await;
    proxy.set_faults(ProxyFaults { silent_auth: true, ..ProxyFaults::default() });
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
    stream.write_all(AUTH).await.unwrap();
    never(read(&mut stream, 1)).await;
    proxy.set_faults(ProxyFaults { silent_connect: true, ..ProxyFaults::default() });
    let mut stream = greeted(&proxy).await;
    stream.write_all(&connect("a.test", 80)).await.unwrap();
    never(read(&mut stream, 1)).await;
    proxy.set_faults(ProxyFaults { hang_accept: true, ..ProxyFaults::default() });
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    never(read(&mut stream, 1)).await;
    assert_eq!((proxy.counters().open, proxy.counters().connects), (4, 1));
}

#[tokio::test]
async fn first_answers_can_be_wrong() {
    let faults = |change: fn(&mut ProxyFaults)| {
        let mut faults = ProxyFaults::default();
        change(&mut faults);
        faults
    };
    let (_echo, proxy) = labs(ProxyFaults::default()).await;
    for (faults, answer) in [
        (faults(|faults| faults.bad_version = true), b"\x04\x00"),
        (faults(|faults| faults.no_acceptable = true), b"\x05\xff"),
    ] {
        proxy.set_faults(faults);
        let mut stream = tcp(proxy.addr()).await;
        stream.write_all(b"\x05\x01\x02").await.unwrap();
        assert_eq!(read_end(&mut stream).await.0, answer);
    }
    proxy.set_faults(faults(|faults| faults.method = Some(1)));
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x01");
    never(read(&mut stream, 1)).await;
    proxy.set_faults(faults(|faults| faults.auth_fails = true));
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(&[b"\x05\x01\x02", AUTH].concat()).await.unwrap();
    assert_eq!(read_end(&mut stream).await.0, b"\x05\x02\x01\x01");
}

#[tokio::test]
async fn what_comes_too_early_is_borne_ignored_or_reset_and_counted() {
    let (echo, proxy) = labs(ProxyFaults::default()).await;
    let mut tagged = Tagged::random(echo.addr(0));
    let all = [b"\x05\x01\x02", AUTH, &connect("a.test", 80), &tagged.request(100)].concat();
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(&all).await.unwrap();
    assert_eq!(read(&mut stream, 4).await.unwrap(), b"\x05\x02\x01\x00");
    assert_eq!(code(&mut stream).await.unwrap(), 0);
    tagged.check(&read(&mut stream, 100).await.unwrap()).unwrap();
    let counters = proxy.counters();
    assert_eq!((counters.pipelined, counters.payload_early, counters.idle_max), (1, 1, 0));

    proxy.update_faults(|faults| faults.pipelining = Pipelining::Ignores);
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(&[b"\x05\x01\x02", AUTH].concat()).await.unwrap();
    assert_eq!(read(&mut stream, 2).await.unwrap(), b"\x05\x02");
    never(read(&mut stream, 1)).await;
    let mut stream = greeted(&proxy).await;
    stream.write_all(&[&connect("a.test", 80)[..], &tagged.request(10)].concat()).await.unwrap();
    assert_eq!(code(&mut stream).await.unwrap(), 0);
    never(read(&mut stream, 1)).await;

    proxy.update_faults(|faults| faults.pipelining = Pipelining::Resets);
    let mut stream = tcp(proxy.addr()).await;
    stream.write_all(&[b"\x05\x01\x02", AUTH].concat()).await.unwrap();
    assert!(is_reset(&ends(&mut stream).await));
    assert_eq!((proxy.counters().pipelined, proxy.counters().payload_early), (3, 2));
    drop(tunnel(&proxy).await);
    assert_eq!((proxy.counters().pipelined, proxy.counters().payload_early), (3, 2), "who waits is not counted");
}

#[tokio::test]
async fn who_speaks_first_can_come_with_the_reply() {
    let faults = ProxyFaults { coalesce_greeting_payload: true, ..ProxyFaults::default() };
    let (echo, proxy) = labs(faults).await;
    echo.set_mode(0, EchoMode::Banner);
    let mut stream = greeted(&proxy).await;
    stream.write_all(&connect("a.test", 80)).await.unwrap();
    let mut tagged = Tagged::random(echo.addr(0));
    stream.peek(&mut [0]).await.unwrap();
    let mut bytes = [0; 100];
    assert_eq!(stream.try_read(&mut bytes).unwrap(), 26, "in one segment");
    assert_eq!(bytes[10..26], tagged.banner());
    exchange(&mut stream, &mut tagged, 1000).await;
    assert_eq!(proxy.counters().received, 1016);
}

#[tokio::test]
async fn a_slow_reply_is_slow_and_the_client_may_go() {
    let faults = ProxyFaults { slow_connect: Duration::from_millis(300), ..ProxyFaults::default() };
    let (echo, proxy) = labs(faults).await;
    let mut stream = greeted(&proxy).await;
    stream.write_all(&connect("a.test", 80)).await.unwrap();
    never(stream.peek(&mut [0])).await;
    assert_eq!(code(&mut stream).await.unwrap(), 0);
    let mut stream = greeted(&proxy).await;
    stream.write_all(&connect("b.test", 80)).await.unwrap();
    until(|| proxy.counters().connects == 2).await;
    drop(stream);
    until(|| proxy.counters().closed_by_peer == 1).await;
    until(|| echo.counters(1).connections.now == 0).await;
    assert_eq!((proxy.counters().live_max, proxy.counters().open), (1, 1));
}
