//! What clients may and may not send, as a table: at once, byte by byte, and with an end behind it.

use std::time::Duration;

use keepwarm_tunnel::{HandshakeFailure, config::TunnelConfig};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::harness::{GREETING, Running, connect_name, echo, expect, guarded, open, reply, rest, take, within};

/// What a client sends, all that it gets, and what is counted.
struct Case {
    name: &'static str,
    needs_user: bool,
    sent: Vec<u8>,
    got: Vec<u8>,
    reason: HandshakeFailure,
}

fn case(name: &'static str, sent: Vec<u8>, got: Vec<u8>, reason: HandshakeFailure) -> Case {
    Case { name, needs_user: false, sent, got, reason }
}

/// The greeting, then this.
fn request(name: &'static str, sent: &[u8], code: u8, reason: HandshakeFailure) -> Case {
    case(name, [GREETING, sent].concat(), [&[5, 0], &reply(code)[..]].concat(), reason)
}

/// The greeting with the method of users, then this.
fn user(name: &'static str, sent: &[u8], reason: HandshakeFailure) -> Case {
    Case { needs_user: true, ..case(name, [&[5, 1, 2], sent].concat(), vec![5, 2, 1, 1], reason) }
}

fn cases() -> Vec<Case> {
    use HandshakeFailure::{Command, Destination, Malformed, Method, User};
    let rejected = |code| vec![0, code, 0, 0, 0, 0, 0, 0];
    let long = |byte, length: u8| [&[length][..], &vec![byte; usize::from(length)]].concat();
    vec![
        case("no method at all", vec![5, 0], vec![5, 0xff], Method),
        case("no method of ours", vec![5, 2, 1, 3], vec![5, 0xff], Method),
        Case { needs_user: true, ..case("no user", GREETING.to_vec(), vec![5, 0xff], Method) },
        user("a wrong password", b"\x01\x03ann\x03two", User),
        user("an empty name", b"\x01\x00\x03one", User),
        user("an empty password", b"\x01\x03ann\x00", User),
        user("both empty", b"\x01\x00\x00", User),
        user("a long name and a wrong password", &[&[1][..], &long(b'n', 255), &long(b'p', 254)].concat(), User),
        user("a password of another version", b"\x05\x03ann\x03one", Malformed),
        request("another version", &[4, 1, 0, 1, 127, 0, 0, 1, 0, 80], 1, Malformed),
        request("BIND", &[5, 2, 0, 1, 127, 0, 0, 1, 0, 21], 7, Command),
        request("an unknown command", &[5, 9, 0, 1, 127, 0, 0, 1, 0, 80], 7, Command),
        request("an unknown kind of address", &[5, 1, 0, 2, 127, 0, 0, 1, 0, 80], 8, Malformed),
        request("an empty name of a host", &connect_name("", 80), 1, Destination),
        request("a name with a NUL", &connect_name("a\0b", 80), 4, Destination),
        request("a name of 255 bytes", &connect_name(&"a".repeat(255), 80), 4, Destination),
        request("a name with dots behind it", &connect_name(&format!("x.test{}", ".".repeat(249)), 80), 4, Destination),
        request("a name that is a number", &connect_name("2130706433", 80), 4, Destination),
        request("port 0", &[5, 1, 0, 1, 127, 0, 0, 1, 0, 0], 1, Destination),
        case("BIND of SOCKS4", b"\x04\x02\0\x50\x7f\0\0\x01\0".to_vec(), rejected(91), Command),
        case("SOCKS4 without a port", b"\x04\x01\0\0\x7f\0\0\x01\0".to_vec(), rejected(91), Destination),
        case("SOCKS4a without a name", b"\x04\x01\0\x50\0\0\0\x01\0\0".to_vec(), rejected(91), Destination),
        case(
            "a long user of SOCKS4",
            [&b"\x04\x01\0\x50\x7f\0\0\x01"[..], &[b'u'; 256]].concat(),
            rejected(91),
            Malformed,
        ),
        Case {
            needs_user: true,
            ..case("SOCKS4 with users", b"\x04\x01\0\x50\x7f\0\0\x01ann\0".to_vec(), rejected(93), User)
        },
    ]
}

/// How a client sends.
#[derive(Debug, Clone, Copy)]
enum Manner {
    AtOnce,
    ByteByByte,
    /// With its end behind it.
    Ended,
    /// With more behind it than anybody asked for.
    Chatty,
}

async fn send(stream: &mut TcpStream, bytes: &[u8], manner: Manner) {
    match manner {
        Manner::AtOnce => stream.write_all(bytes).await.unwrap(),
        Manner::ByteByByte => {
            for byte in bytes {
                stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        Manner::Ended => {
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        Manner::Chatty => stream.write_all(&[bytes, &[b'x'; 20_000]].concat()).await.unwrap(),
    }
}

#[tokio::test]
async fn what_cannot_be_is_answered_and_closed() {
    let (without, with) = (Running::start(open()), Running::start(guarded()));
    for case in cases() {
        let running = if case.needs_user { &with } else { &without };
        for manner in [Manner::AtOnce, Manner::ByteByByte, Manner::Ended, Manner::Chatty] {
            let before = running.watch.stats().handshakes_failed(case.reason);
            let mut stream = running.client().await;
            send(&mut stream, &case.sent, manner).await;
            // Read only once the server is done: what a reset would destroy would be gone by now.
            running.until(|stats| stats.handshakes_failed(case.reason) == before + 1).await;
            assert_eq!(rest(&mut stream).await, case.got, "{} {manner:?}", case.name);
        }
    }
    for running in [without, with] {
        running.until(|stats| stats.clients == 0).await;
        assert_eq!(running.watch.stats().tunnels_opened, 0);
    }
}

#[tokio::test]
async fn another_version_is_closed_without_a_word_where_only_socks_is_spoken() {
    let mut config = open();
    config.listen[0].kind = keepwarm_tunnel::config::ListenKind::Socks;
    let running = Running::start(config);
    let mut stream = running.client().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    assert_eq!(running.watch.stats().handshakes_failed(HandshakeFailure::Version), 1);
}

#[tokio::test]
async fn handshakes_in_pieces_and_at_once_lead_to_the_destination_with_what_follows() {
    let v4 = echo("127.0.0.1").await;
    let v6 = echo("::1").await;
    let (without, with) = (Running::start(open()), Running::start(guarded()));
    let user = |name: &[u8], password: &[u8]| {
        let length = |part: &[u8]| u8::try_from(part.len()).unwrap();
        [&[5, 2, 0, 2, 1, length(name)], name, &[length(password)], password].concat()
    };
    let socks4 = |end: &[u8]| [&[4, 1], &v4.port().to_be_bytes()[..], end].concat();
    let request = |address| crate::harness::connect(address);
    for (name, running, sent, answers) in [
        ("no user", &without, [GREETING, &request(v4)].concat(), vec![5, 0]),
        ("IPv6", &without, [GREETING, &request(v6)].concat(), vec![5, 0]),
        ("a literal as a name", &without, [GREETING, &connect_name("127.0.0.1", v4.port())].concat(), vec![5, 0]),
        ("IPv6 as a name", &without, [GREETING, &connect_name("::1", v6.port())].concat(), vec![5, 0]),
        ("a user that nobody asked for", &without, [&[5, 1, 2, 1, 0, 0][..], &request(v4)].concat(), vec![5, 2, 1, 0]),
        ("a user", &with, [user(b"ann", b"one"), request(v4)].concat(), vec![5, 2, 1, 0]),
        ("the longest user", &with, [user(&[b'n'; 255], &[b'p'; 255]), request(v6)].concat(), vec![5, 2, 1, 0]),
        ("SOCKS4", &without, socks4(b"\x7f\0\0\x01ann\0"), vec![]),
        ("SOCKS4a", &without, socks4(b"\0\0\0\x01\x00127.0.0.1\0"), vec![]),
        (
            "the longest SOCKS4a",
            &without,
            socks4(&[&b"\0\0\0\x09"[..], &[b'u'; 255], b"\x00127.0.0.1\0"].concat()),
            vec![],
        ),
    ] {
        for manner in [Manner::AtOnce, Manner::ByteByByte, Manner::Ended] {
            let mut stream = running.client().await;
            let payload = b"the first bytes";
            send(&mut stream, &[&sent[..], payload].concat(), manner).await;
            assert_eq!(take(&mut stream, answers.len()).await, answers, "{name} {manner:?}");
            let head = take(&mut stream, 4).await;
            let rest_of_reply = match head[..] {
                [5, 0, 0, 1] => 6,
                [5, 0, 0, 4] => 18,
                [0, 90, 0, 0] => 4,
                _ => panic!("{name} {manner:?}: {head:?}"),
            };
            take(&mut stream, rest_of_reply).await;
            expect(&mut stream, payload).await;
            if !matches!(manner, Manner::Ended) {
                stream.write_all(b" and more").await.unwrap();
                expect(&mut stream, b" and more").await;
                stream.shutdown().await.unwrap();
            }
            assert_eq!(rest(&mut stream).await, b"", "{name} {manner:?}");
        }
    }
    for running in [without, with] {
        running.until(|stats| stats.tunnels == 0).await;
        assert_eq!(running.watch.stats().handshakes_failed.iter().sum::<u64>(), 0);
    }
}

#[tokio::test]
async fn a_payload_larger_than_the_first_read_arrives_whole() {
    let address = echo("127.0.0.1").await;
    let running = Running::start(open());
    let payload: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut stream = running.client().await;
    let (mut read, mut write) = stream.split();
    let sent = [GREETING, &crate::harness::connect(address), &payload].concat();
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    within(async { tokio::join!(sending, tokio::io::AsyncReadExt::read_to_end(&mut read, &mut got)) }).await.1.unwrap();
    assert!(got[2 + 10..] == payload, "{} bytes came back", got.len());
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_cut_off() {
    let running = Running::start(TunnelConfig { handshake_timeout: Duration::from_millis(300), ..open() });
    let mut silent = running.client().await;
    let mut slow = running.client().await;
    let drip = async {
        // As long as it likes: each byte is in time, all of them are not.
        for byte in [&[5, 255][..], &[0; 255]].concat() {
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it could send its greeting to the end");
    };
    within(drip).await;
    assert_eq!(rest(&mut silent).await, b"");
    running.until(|stats| stats.handshakes_failed(HandshakeFailure::TimedOut) == 2 && stats.clients == 0).await;
}
