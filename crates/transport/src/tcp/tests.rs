//! Happy eyeballs and listening, over loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::error::Side;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn in_time(seconds: u64) -> Instant {
    tokio::time::Instant::now().into_std() + Duration::from_secs(seconds)
}

/// A port that is held, so that no other test gets it, but not listened on.
struct Refusing(socket2::Socket);

impl Refusing {
    fn new() -> Refusing {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&LOOPBACK.into()).unwrap();
        Refusing(socket)
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// A listener whose accept queue is full, so that the kernel leaves further SYNs unanswered.
struct BlackHole {
    listener: socket2::Socket,
    _queued: Vec<std::net::TcpStream>,
}

impl BlackHole {
    fn new() -> BlackHole {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&LOOPBACK.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 64, "the accept queue never fills");
        }
        BlackHole { listener, _queued: queued }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

#[tokio::test]
async fn a_refused_address_gives_way_at_once() {
    let listener = listen(LOOPBACK, false, 16).unwrap();
    let refusing = Refusing::new();
    let (dead, live) = (refusing.addr(), listener.local_addr().unwrap());
    let mut quickest = Duration::MAX;
    // On a busy machine one try may take long; waiting for the timer would make each of them do so.
    for _ in 0..5 {
        let (stream, trace) = connect(&[dead, live], &TcpOptions::default(), in_time(10)).await.unwrap();
        assert_eq!((trace.peer, trace.attempts), (live, 2));
        assert_eq!(trace.local, stream.local_addr().unwrap());
        assert_eq!(trace.failed.len(), 1);
        assert_eq!((trace.failed[0].0, trace.failed[0].1.kind()), (dead, ErrorKind::Refused));
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        quickest = quickest.min(trace.elapsed);
    }
    assert!(quickest < ATTEMPT_DELAY, "{quickest:?}");
}

#[tokio::test]
async fn a_silent_address_gives_way_after_the_attempt_delay() {
    let hole = BlackHole::new();
    let listener = listen(LOOPBACK, false, 16).unwrap();
    let live = listener.local_addr().unwrap();
    let (_stream, trace) = connect(&[hole.addr(), live], &TcpOptions::default(), in_time(10)).await.unwrap();
    assert_eq!((trace.peer, trace.attempts, trace.failed.len()), (live, 2, 0));
    assert!(trace.elapsed >= ATTEMPT_DELAY, "{:?}", trace.elapsed);
}

#[tokio::test]
async fn a_dead_v6_address_leads_to_the_v4_one() {
    let listener = listen(LOOPBACK, false, 16).unwrap();
    let live = listener.local_addr().unwrap();
    // Whether this machine has IPv6 or not: refused in the one case, no route in the other.
    let dead = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), live.port());
    let (_stream, trace) = connect(&[dead, live], &TcpOptions::default(), in_time(5)).await.unwrap();
    assert_eq!((trace.peer, trace.attempts), (live, 2));
}

#[tokio::test]
async fn the_deadline_ends_a_silent_attempt() {
    let hole = BlackHole::new();
    let start = tokio::time::Instant::now();
    let deadline = start.into_std() + Duration::from_millis(300);
    let error = connect(&[hole.addr()], &TcpOptions::default(), deadline).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Connect), Side::Upstream));
    assert!(error.is_timeout());
    assert!(
        error.to_string().starts_with(&format!("connect to {}: tcp handshake timed out after ", hole.addr())),
        "{error}"
    );
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn when_all_fail_the_error_names_the_first() {
    let refusing = [Refusing::new(), Refusing::new()];
    let [first, second] = [refusing[0].addr(), refusing[1].addr()];
    let error = connect(&[first, second], &TcpOptions::default(), in_time(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.side(), error.phase()), (ErrorKind::Refused, Side::Upstream, Phase::Connect));
    let text = error.to_string();
    assert!([first, second].iter().any(|addr| text == format!("connect to {addr}: connection refused")), "{text}");
    let error = connect(&[], &TcpOptions::default(), in_time(5)).await.unwrap_err();
    assert_eq!(error.to_string(), "connect: no address to connect to");
}

#[tokio::test]
async fn a_bind_address_that_is_not_ours_is_not_called_a_shortage() {
    let options = TcpOptions { bind: Some("192.0.2.7".parse().unwrap()), ..Default::default() };
    let error = connect(&[Refusing::new().addr()], &options, in_time(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Other, Side::Local));
    assert!(error.to_string().contains("192.0.2.7 is not an address of this machine"), "{error}");
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 53);
    let error = connect(&[v6], &options, in_time(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::NetworkDown, Side::Local));
}

#[tokio::test]
async fn a_connection_leaves_from_the_bind_address() {
    let listener = listen(LOOPBACK, false, 16).unwrap();
    let options = TcpOptions { bind: Some(Ipv4Addr::LOCALHOST.into()), keepalive: None, ..Default::default() };
    let (stream, trace) = connect(&[listener.local_addr().unwrap()], &options, in_time(5)).await.unwrap();
    assert_eq!(trace.local.ip(), Ipv4Addr::LOCALHOST);
    assert!(!SockRef::from(&stream).keepalive().unwrap());
}

#[test]
fn families_take_turns_and_the_list_is_bounded() {
    let v4 = |last| SocketAddr::new([192, 0, 2, last].into(), 53);
    let v6 = |last| SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into(), 53);
    let order = candidates(&[v6(1), v6(2), v6(3), v4(1), v4(2)], &TcpOptions::default()).unwrap();
    assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
    let many: Vec<SocketAddr> = (0..30).map(v4).chain([v6(1)]).collect();
    let order = candidates(&many, &TcpOptions::default()).unwrap();
    assert_eq!((order.len(), order[0], order[1]), (ADDRESSES_MAX, v4(0), v6(1)));
    let options = TcpOptions { bind: Some(Ipv4Addr::LOCALHOST.into()), ..Default::default() };
    assert_eq!(candidates(&[v6(1), v4(1), v6(2)], &options).unwrap(), [v4(1)]);
}

#[test]
fn a_local_shortage_outweighs_what_another_address_did() {
    let addr = LOOPBACK;
    let of = |kind| (addr, Error::new(kind, Phase::Connect, "connect", "x"));
    let failed = vec![of(ErrorKind::Refused), of(ErrorKind::FilesExhausted), of(ErrorKind::NetworkDown)];
    assert_eq!(most_telling(failed.clone()).kind(), ErrorKind::FilesExhausted);
    assert_eq!(timed_out(&[addr], failed, Duration::ZERO).kind(), ErrorKind::FilesExhausted);
    assert_eq!(most_telling(vec![of(ErrorKind::NetworkDown), of(ErrorKind::Refused)]).kind(), ErrorKind::Refused);
    assert_eq!(most_telling(vec![of(ErrorKind::Refused), of(ErrorKind::Unreachable)]).kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_group_shares_its_port_and_nobody_else_may_join() {
    let group = listen_group(LOOPBACK, 3, 16).unwrap();
    let addr = group[0].local_addr().unwrap();
    assert!(group.len() == 3 && group.iter().all(|listener| listener.local_addr().unwrap() == addr));
    let error = listen_group(addr, 1, 16).unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::AddressInUse, Side::Local));
    assert_eq!(error.to_string(), format!("listen on {addr} (tcp): address already in use"));
    let accepts: Vec<_> =
        group.into_iter().map(|listener| tokio::spawn(async move { listener.accept().await })).collect();
    let _client = connect(&[addr], &TcpOptions::default(), in_time(5)).await.unwrap();
    let (accepted, ..) = futures_util::future::select_all(accepts).await;
    accepted.unwrap().unwrap();
}
