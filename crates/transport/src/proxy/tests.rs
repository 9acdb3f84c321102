//! Proxies that follow a script, byte by byte and in one piece, on a virtual clock.

mod dialer;
mod pipelined;

use std::net::{IpAddr, Ipv4Addr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
};

use super::*;
use crate::{
    error::{ErrorKind, Side},
    resolve::Fixed,
    testing::{after, soon},
};

fn proxy(url: &str) -> Proxy {
    Proxy::parse(url).unwrap()
}

/// Waits for whatever comes of a connection that waits: a byte, the end or an error.
async fn spoilt<S: AsyncRead + Unpin>(greeted: &mut Greeted<S>) {
    let _ = greeted.stream_mut().read(&mut [0]).await;
}

fn target() -> Target {
    Target::new("tiles.example", 443).unwrap()
}

/// What a proxy hears and says, in turns.
enum Turn {
    Hear(Vec<u8>),
    Say(Vec<u8>),
}
use Turn::{Hear, Say};

fn hear(bytes: &[u8]) -> Turn {
    Hear(bytes.to_vec())
}

fn say(bytes: &[u8]) -> Turn {
    Say(bytes.to_vec())
}

const CONNECT_NAME: &[u8] = b"\x05\x01\x00\x03\x0dtiles.example\x01\xbb";
const CONNECTED: &[u8] = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38";
const HTTP_REQUEST: &[u8] = b"CONNECT tiles.example:443 HTTP/1.1\r\nHost: tiles.example:443\r\n\r\n";

/// Plays a proxy. The last thing said is followed by `rest` without a pause, then by silence.
async fn play(mut stream: DuplexStream, turns: Vec<Turn>, rest: &'static [u8]) -> DuplexStream {
    let last = turns.len() - 1;
    for (number, turn) in turns.into_iter().enumerate() {
        match turn {
            Hear(expected) => {
                let mut heard = vec![0; expected.len()];
                stream.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, expected, "turn {number}");
            }
            Say(mut bytes) => {
                if number == last {
                    bytes.extend_from_slice(rest);
                }
                stream.write_all(&bytes).await.unwrap();
            }
        }
    }
    stream
}

/// Greets and connects through the script, over a pipe that holds `size` bytes, and checks that what follows the proxy's words is
/// whole.
async fn through(url: &str, size: usize, turns: Vec<Turn>) {
    const REST: &[u8] = b"220 first bytes of the destination\r\n\r\n";
    let (ours, theirs) = duplex(size);
    let proxy = proxy(url);
    let us = async {
        let mut stream = proxy.greet(ours, soon()).await.unwrap().connect(&target(), soon()).await.unwrap();
        let mut rest = vec![0; REST.len()];
        stream.read_exact(&mut rest).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        rest
    };
    let them = async {
        let mut hello = [0; 5];
        play(theirs, turns, REST).await.read_exact(&mut hello).await.unwrap();
        hello
    };
    let (rest, hello) = tokio::join!(us, them);
    assert_eq!(&hello, b"hello");
    assert_eq!(rest, REST);
}

/// The failure of a script that is played to its end and followed by silence, or by the end of the stream.
async fn fails(url: &str, turns: Vec<Turn>, closes: bool) -> Error {
    let (ours, theirs) = duplex(64 * 1024);
    let proxy = proxy(url);
    let us = async {
        match proxy.greet(ours, after(Duration::from_secs(3))).await {
            Ok(greeted) => greeted.connect(&target(), after(Duration::from_secs(3))).await.unwrap_err(),
            Err(error) => error,
        }
    };
    let them = async {
        let stream = play(theirs, turns, b"").await;
        (!closes).then_some(stream)
    };
    tokio::join!(us, them).0
}

#[tokio::test(start_paused = true)]
async fn socks5_reads_its_answers_and_no_more_in_one_piece_and_byte_by_byte() {
    for size in [1, 64 * 1024] {
        for answer in [
            CONNECTED,
            b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x04\x38",
            b"\x05\x00\x00\x03\x05proxy\x04\x38",
            b"\x05\x00\x00\x03\x00\x04\x38",
        ] {
            let plain = vec![hear(b"\x05\x01\x00"), say(b"\x05\x00"), hear(CONNECT_NAME), say(answer)];
            through("socks5://p", size, plain).await;
            let known = vec![
                hear(b"\x05\x02\x00\x02"),
                say(b"\x05\x02"),
                hear(b"\x01\x03ann\x07hunter2"),
                say(b"\x01\x00"),
                hear(CONNECT_NAME),
                say(answer),
            ];
            through("socks5://ann:hunter2@p", size, known).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_socks5_proxy_that_knows_us_needs_no_password() {
    let turns = vec![hear(b"\x05\x02\x00\x02"), say(b"\x05\x00"), hear(CONNECT_NAME), say(CONNECTED)];
    through("socks5://ann:hunter2@p", 1, turns).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_before_they_are_due_are_not_lost() {
    let turns = vec![say(&[b"\x05\x02", b"\x01\x00", CONNECTED].concat())];
    let (ours, theirs) = duplex(64 * 1024);
    let mut theirs = play(theirs, turns, b"rest").await;
    let greeted = proxy("socks5://ann:hunter2@p").greet(ours, soon()).await.unwrap();
    let mut stream = greeted.connect(&target(), soon()).await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "rest");
}

#[tokio::test(start_paused = true)]
async fn http_reads_its_answer_and_no_more_in_one_piece_and_byte_by_byte() {
    for size in [1, 64 * 1024] {
        for answer in [
            &b"HTTP/1.1 200 Connection established\r\n\r\n"[..],
            b"HTTP/1.0 200\r\nVia: 1.1 p\r\n\r\n",
            // RFC 9110 section 9.3.6: these fields mean nothing here.
            b"HTTP/1.1 204 x\r\nContent-Length: 20\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\nA: b\n\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            through("http://p:1", size, vec![hear(HTTP_REQUEST), say(answer)]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn socks5_replies_are_the_proxys_or_the_destinations() {
    let (upstream, local) = (Side::Upstream, Side::Local);
    for (code, kind, side) in [
        (1, ErrorKind::ProxyGeneral, local),
        (2, ErrorKind::ProxyDenied, upstream),
        (3, ErrorKind::NetworkUnreachable, upstream),
        (4, ErrorKind::Unreachable, upstream),
        (5, ErrorKind::Refused, upstream),
        (6, ErrorKind::TimedOut(Phase::Connect), upstream),
        (7, ErrorKind::ProxyUnsupported, local),
        (8, ErrorKind::AddressType, upstream),
        (9, ErrorKind::ProxyGeneral, local),
        (255, ErrorKind::ProxyGeneral, local),
    ] {
        // The rest of the reply may be missing.
        let turns = vec![hear(b"\x05\x01\x00"), say(b"\x05\x00"), hear(CONNECT_NAME), say(&[5, code])];
        let error = fails("socks5://p", turns, true).await;
        assert_eq!((error.kind(), error.side(), error.is_proxy()), (kind, side, side == local), "{error}");
        let blame = match code {
            3..=6 => Blame::Destination,
            1 | 2 | 7..=255 => Blame::Declined,
            _ => Blame::Proxy,
        };
        assert_eq!(Blame::of(&error), blame, "{error}");
        assert!(error.to_string().starts_with("connect to tiles.example:443 through socks5://p:1080: "), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_statuses_are_the_proxys_or_the_destinations() {
    let (upstream, local) = (Side::Upstream, Side::Local);
    for (status, kind, side) in [
        (401, ErrorKind::ProxyAuth, local),
        (407, ErrorKind::ProxyAuth, local),
        (403, ErrorKind::ProxyDenied, upstream),
        (451, ErrorKind::ProxyDenied, upstream),
        (500, ErrorKind::BadGateway, upstream),
        (502, ErrorKind::BadGateway, upstream),
        (503, ErrorKind::BadGateway, upstream),
        (504, ErrorKind::TimedOut(Phase::Connect), upstream),
        (101, ErrorKind::Proxy, local),
        (302, ErrorKind::ProxyGeneral, local),
        (400, ErrorKind::ProxyGeneral, local),
        (404, ErrorKind::ProxyGeneral, local),
        (408, ErrorKind::Proxy, local),
        (405, ErrorKind::ProxyUnsupported, local),
        (501, ErrorKind::ProxyUnsupported, local),
    ] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\nbody");
        let error = fails("http://p:1", vec![hear(HTTP_REQUEST), say(answer.as_bytes())], false).await;
        assert_eq!((error.kind(), error.side(), error.is_proxy()), (kind, side, side == local), "{error}");
        let blame = match status {
            504 => Blame::Destination,
            302 | 400 | 403 | 404 | 405 | 451 | 500..=503 => Blame::Declined,
            _ => Blame::Proxy,
        };
        assert_eq!(Blame::of(&error), blame, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_told_from_a_missing_one() {
    let missing = "the proxy wants a user and password";
    let wrong = "the proxy does not accept the user and password";
    let neither = "the proxy takes neither a user and password nor none";
    let (plain, known) = (b"\x05\x01\x00", b"\x05\x02\x00\x02");
    let http = b"HTTP/1.1 407 x\r\n\r\n";
    let authorized =
        [&HTTP_REQUEST[..HTTP_REQUEST.len() - 2], b"Proxy-Authorization: Basic YW5uOmh1bnRlcjI=\r\n\r\n"].concat();
    for (url, turns, expected) in [
        ("socks5://p", vec![hear(plain), say(b"\x05\xff")], missing),
        ("socks5://p", vec![hear(plain), say(b"\x05\x02")], missing),
        ("socks5://ann:hunter2@p", vec![hear(known), say(b"\x05\xff")], neither),
        (
            "socks5://ann:hunter2@p",
            vec![hear(known), say(b"\x05\x02"), hear(b"\x01\x03ann\x07hunter2"), say(b"\x01\x01")],
            wrong,
        ),
        ("http://p:1", vec![hear(HTTP_REQUEST), say(http)], missing),
        ("http://ann:hunter2@p:1", vec![hear(&authorized), say(http)], wrong),
    ] {
        let error = fails(url, turns, false).await;
        assert_eq!((error.kind(), error.side()), (ErrorKind::ProxyAuth, Side::Local));
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.is_proxy() && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_closes_at_any_byte_has_failed() {
    let said = [b"\x05\x02", b"\x01\x00", CONNECTED].concat();
    for (url, answer) in
        [("socks5://u:p@p", &said[..]), ("http://p:1", b"HTTP/1.1 200 Connection established\r\nVia: 1.1 p\r\n\r\n")]
    {
        for length in 0..answer.len() {
            let error = fails(url, vec![say(&answer[..length])], true).await;
            assert_eq!((error.kind(), error.side()), (ErrorKind::Proxy, Side::Local), "{length}: {error}");
            assert!(error.is_proxy() && error.to_string().contains("the proxy "), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_left_at_the_deadline() {
    let error = fails("socks5://p", vec![hear(b"\x05\x01\x00")], false).await;
    assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Proxy), Side::Local));
    assert!(error.is_proxy() && error.is_timeout());
    assert_eq!(error.to_string(), "greet socks5://p:1080: greeting timed out after 3s");
    // Once it has greeted, it waits for the destination, as far as can be told.
    let turns = vec![hear(b"\x05\x01\x00"), say(b"\x05\x00"), hear(CONNECT_NAME)];
    let socks = fails("socks5://p", turns, false).await;
    let http = fails("http://p:1", vec![hear(HTTP_REQUEST), say(b"HTTP/1.1 20")], false).await;
    for error in [socks, http] {
        assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Connect), Side::Upstream), "{error}");
        assert!(!error.is_proxy() && error.is_timeout());
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_as_soon_as_it_is_seen() {
    for (url, answer) in [
        ("socks5://p", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]),
        ("socks5://p", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("socks5://p", b"\x04\x5a"),
        ("socks5://p", b"\x05\x01"),
        ("socks5://p", b"\x05\x00\x04\x00"),
        ("socks5://p", b"\x05\x00\x05\x00\x00\x02\x00"),
        ("socks5://u:p@p", b"\x05\x02\x02\x00"),
        ("socks5://u:p@p", b"\x05\x03"),
        ("http://p:1", b"S"),
        ("http://p:1", b"\x05\x00"),
        ("http://p:1", b"HTTP/2 200 \r\n"),
        ("http://p:1", b"HTTP/1.1 2OO OK\r\n\r\n"),
        ("http://p:1", b"HTTP/1.1 2000 OK\r\n\r\n"),
        ("http://p:1", b"HTTP/1.1  200 OK\r\n\r\n"),
        ("http://p:1", b"HTTP/1.1 099 OK\r\n\r\n"),
    ] {
        // Nothing follows, and the deadline is not waited for.
        let start = Clock::now();
        let error = fails(url, vec![say(answer)], false).await;
        assert_eq!((error.kind(), error.side()), (ErrorKind::Proxy, Side::Local), "{answer:?}: {error}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_byte_makes_it_panic() {
    let good: [(&str, &[u8]); 2] = [
        ("socks5://u:p@p", b"\x05\x02\x01\x00\x05\x00\x00\x03\x05proxy\x04\x38"),
        ("http://p:1", b"HTTP/1.1 200 OK\r\n\r\n"),
    ];
    for (url, good) in good {
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                let (ours, theirs) = duplex(1024);
                let mut theirs = play(theirs, vec![Say(bytes)], b"").await;
                theirs.shutdown().await.unwrap();
                if let Ok(greeted) = proxy(url).greet(ours, soon()).await {
                    let _ = greeted.connect(&target(), soon()).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_an_http_answer_is_bounded() {
    let endless = [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(4 * 1024)].concat();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1024);
    for answer in [endless, interim] {
        let (ours, theirs) = duplex(64 * 1024);
        let mut theirs = play(theirs, vec![Say(answer.clone())], b"").await;
        let greeted = proxy("http://p:1").greet(ours, soon()).await.unwrap();
        let error = greeted.connect(&target(), soon()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy);
        assert!(error.to_string().ends_with("the head of its answer is too long"), "{error}");
        theirs.shutdown().await.unwrap();
    }
}

#[test]
fn a_target_cannot_end_a_line() {
    for host in ["", ".", "a b", "a\r\nHost: b", "a:1", "[::1", "é.example", "a/b", "a@b", ".a", &"x".repeat(254)] {
        assert!(Target::new(host, 443).is_err(), "{host:?}");
    }
    assert!(Target::new("a", 0).is_err());
    for (host, shown) in [
        ("Tiles.Example.", "tiles.example.:443"),
        ("192.0.2.1", "192.0.2.1:443"),
        ("[2001:db8::1]", "[2001:db8::1]:443"),
        ("2001:db8::1", "[2001:db8::1]:443"),
        ("_dns.xn--bcher-kva.example", "_dns.xn--bcher-kva.example:443"),
    ] {
        assert_eq!(Target::new(host, 443).unwrap().to_string(), shown);
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_are_sent_as_addresses() {
    let v6 = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb";
    for (host, expected) in [("192.0.2.1", &b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"[..]), ("2001:db8::1", v6)] {
        let (ours, theirs) = duplex(1024);
        let greeted = Greeted { stream: ours, proxy: proxy("socks5://p") };
        let target = Target::new(host, 443).unwrap();
        let (connected, _) =
            tokio::join!(greeted.connect(&target, soon()), play(theirs, vec![hear(expected), say(CONNECTED)], b""));
        connected.unwrap();
    }
}

/// A proxy on loopback that says this to whoever comes, and then what it hears.
async fn listen(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(says).await;
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    addr
}

/// Pools dial in tasks.
fn spawnable<T: Send>(future: T) -> T {
    future
}

#[tokio::test]
async fn the_whole_way_is_traced_and_the_proxys_name_looked_up() {
    let addr = listen(b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38").await;
    let proxy = proxy(&format!("socks5://proxy.example:{}", addr.port()));
    let resolver = Fixed(vec![addr.ip()]);
    let (mut stream, trace) =
        spawnable(proxy.connect(&resolver, &target(), &TcpOptions::default(), soon())).await.unwrap();
    assert_eq!((trace.peer, trace.local), (addr, stream.local_addr().unwrap()));
    let mut heard = vec![0; 3 + CONNECT_NAME.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[3..], *CONNECT_NAME);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_says_nothing_of_the_destination() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dead = proxy(&format!("http://127.0.0.1:{port}"));
    let resolver = Fixed(Vec::new());
    let error = dead.connect(&resolver, &target(), &TcpOptions::default(), soon()).await.unwrap_err();
    assert_eq!((error.kind(), error.side(), error.is_proxy()), (ErrorKind::Proxy, Side::Local, true));
    let expected = format!("connect to http://127.0.0.1:{port}: connect to 127.0.0.1:{port}: connection refused");
    assert_eq!(error.to_string(), expected);
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
    assert_eq!(source.map(Error::kind), Some(ErrorKind::Refused));
    let nameless = proxy("http://proxy.example:1");
    let error = nameless.connect(&resolver, &target(), &TcpOptions::default(), soon()).await.unwrap_err();
    assert_eq!((error.kind(), error.side(), error.is_proxy()), (ErrorKind::Resolve, Side::Local, false));
}

#[tokio::test]
async fn a_shortage_of_this_machine_is_not_the_proxys() {
    let options = TcpOptions { bind: Some(IpAddr::from([0; 16])), ..TcpOptions::default() };
    let error = proxy("http://127.0.0.1:1").connect(&Fixed(Vec::new()), &target(), &options, soon()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_proxy(), Blame::of(&error)), (ErrorKind::NetworkDown, false, Blame::Local));
}

#[tokio::test(start_paused = true)]
async fn a_name_of_the_proxy_that_is_not_found_in_time_is_given_up() {
    #[derive(Debug)]
    struct Never;
    impl Resolve for Never {
        fn resolve(&self, _host: &str) -> crate::resolve::Resolving {
            Box::pin(std::future::pending())
        }
    }
    let proxy = proxy("socks5://proxy.example");
    let deadline = after(Duration::from_secs(2));
    let error = proxy.connect(&Never, &target(), &TcpOptions::default(), deadline).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::TimedOut(Phase::Resolve), Side::Local));
    assert_eq!(error.to_string(), "connect to socks5://proxy.example:1080: name lookup timed out after 2s");
}
