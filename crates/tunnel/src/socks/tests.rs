//! The codec's corner cases, byte by byte and at once.

use keepwarm_transport::proxy::Target;
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

/// `Ok` of the request, where it is complete, and how much was left over; or the refusal's answer and reason.
type End = Result<Option<(Request, usize)>, (Vec<u8>, HandshakeFailure)>;

fn feed(input: &[u8], needs_user: bool) -> (Vec<u8>, End) {
    let mut handshake = Handshake::new(needs_user);
    let (mut answers, mut consumed) = (Vec::new(), 0);
    let is_user = |name: &[u8], password: &[u8]| {
        (name, password) == (b"ann".as_slice(), b"one".as_slice()) || (name, password) == (&[b'n'; 255], &[b'p'; 255])
    };
    loop {
        let (used, step) = handshake.step(&input[consumed..], is_user);
        consumed += used;
        match step {
            Step::More => return (answers, Ok(None)),
            Step::Answer(answer) => answers.extend(answer),
            Step::Request(_, request) => return (answers, Ok(Some((request, input.len() - consumed)))),
            Step::Refused(refusal) => return (answers, Err((refusal.answer.to_vec(), refusal.reason))),
        }
    }
}

/// SOCKS5 up to the request, without users.
fn request(input: &[u8]) -> End {
    let (answers, end) = feed(&[&[5, 1, 0], input].concat(), false);
    assert_eq!(answers, [5, 0]);
    end
}

fn connect(host: &str, port: u16, left: usize) -> End {
    Ok(Some((Request::Connect(Target::new(host, port).unwrap()), left)))
}

fn reply(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn named(name: &[u8]) -> Vec<u8> {
    [&[5, 1, 0, 3, u8::try_from(name.len()).unwrap()], name, &[1, 187]].concat()
}

#[test]
fn methods_are_chosen_by_what_is_needed() {
    for (greeting, needs_user, answer) in [
        (&[5, 1, 0][..], false, Ok([5, 0])),
        (&[5, 2, 0, 2], false, Ok([5, 0])),
        (&[5, 2, 2, 0], false, Ok([5, 0])),
        (&[5, 1, 2], false, Ok([5, 2])),
        (&[5, 3, 0, 1, 2], true, Ok([5, 2])),
        (&[5, 1, 0], true, Err([5, 0xff])),
        (&[5, 2, 0, 1], true, Err([5, 0xff])),
        (&[5, 0], false, Err([5, 0xff])),
        (&[5, 1, 1], false, Err([5, 0xff])),
        (&[5, 1, 0xff], true, Err([5, 0xff])),
    ] {
        match answer {
            Ok(chosen) => assert_eq!(feed(greeting, needs_user), (chosen.to_vec(), Ok(None)), "{greeting:?}"),
            Err(answer) => {
                let refused = Err((answer.to_vec(), HandshakeFailure::Method));
                assert_eq!(feed(greeting, needs_user), (Vec::new(), refused), "{greeting:?}");
            }
        }
    }
    let every: Vec<u8> = [5, 255].into_iter().chain(1..=255).collect();
    assert_eq!(feed(&every, true).0, [5, 2]);
    assert_eq!(feed(b"\x06\x01\x00", false), (Vec::new(), Err((Vec::new(), HandshakeFailure::Version))));
}

#[test]
fn users_and_passwords_have_up_to_255_bytes() {
    let ask = |name: &[u8], password: &[u8], needs_user| {
        let length = |part: &[u8]| u8::try_from(part.len()).unwrap();
        let input = [&[5, 1, 2, 1, length(name)], name, &[length(password)], password].concat();
        feed(&input, needs_user)
    };
    let accepted = (vec![5, 2, 1, 0], Ok(None));
    let refused = (vec![5, 2], Err((vec![1, 1], HandshakeFailure::User)));
    assert_eq!(ask(b"ann", b"one", true), accepted);
    assert_eq!(ask(&[b'n'; 255], &[b'p'; 255], true), accepted);
    for (name, password) in [
        (&b"ann"[..], &b"two"[..]),
        (b"", b"one"),
        (b"ann", b""),
        (b"", b""),
        (&[b'n'; 255], &[b'p'; 254]),
        (b"ann\0", b"one"),
        (b"\xff\xfe", b"\0"),
    ] {
        assert_eq!(ask(name, password, true), refused, "{name:?}");
        assert_eq!(ask(name, password, false), accepted, "{name:?}: nobody is asked for");
    }
    assert_eq!(feed(&[5, 1, 2, 5, 1, b'a', 1, b'b'], true).1, Err((vec![1, 1], HandshakeFailure::Malformed)));
}

#[test]
fn destinations_are_names_and_addresses_of_both_families() {
    assert_eq!(request(&[5, 1, 0, 1, 192, 0, 2, 1, 1, 187]), connect("192.0.2.1", 443, 0));
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(request(&[&[5, 1, 0, 4], &v6[..], &[1, 187]].concat()), connect("2001:db8::1", 443, 0));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    assert_eq!(request(&[&[5, 1, 0, 4], &mapped[..], &[1, 187]].concat()), connect("192.0.2.1", 443, 0));
    assert_eq!(request(&named(b"Tiles.example")), connect("tiles.example", 443, 0));
    assert_eq!(request(&named(b"192.0.2.1")), connect("192.0.2.1", 443, 0));
    assert_eq!(request(&named(b"[::1]")), connect("::1", 443, 0));
    assert_eq!(request(&[&named(b"a.example")[..], b"GET / HTTP/1.0"].concat()), connect("a.example", 443, 14));
    // Reserved, and not looked at.
    assert_eq!(request(&[5, 1, 7, 1, 192, 0, 2, 1, 1, 187]), connect("192.0.2.1", 443, 0));
    let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(longest.len(), 253);
    assert_eq!(request(&named(longest.as_bytes())), connect(&longest, 443, 0));
}

#[test]
fn what_is_no_destination_has_its_reply() {
    for (name, code) in [
        (&b""[..], 1),
        (&[b'a'; 255], 4),
        (&[b'a'; 254], 4),
        (b"a\0b.example", 4),
        (b"a b", 4),
        (b"a\r\nb", 4),
        (b"\xff\xfe", 4),
        ("ä.example".as_bytes(), 4),
        (b"127.1", 4),
    ] {
        assert_eq!(request(&named(name)), Err((reply(code), HandshakeFailure::Destination)), "{name:?}");
    }
    for input in [&[5, 1, 0, 1, 192, 0, 2, 1, 0, 0][..], &[5, 1, 0, 3, 1, b'a', 0, 0]] {
        assert_eq!(request(input), Err((reply(1), HandshakeFailure::Destination)), "port 0");
    }
}

#[test]
fn what_is_not_offered_has_its_reply() {
    assert_eq!(request(&[5, 2, 0, 1, 192, 0, 2, 1, 0, 21]), Err((reply(7), HandshakeFailure::Command)), "BIND");
    for command in [0, 4, 0xf0, 0xff] {
        assert_eq!(request(&[5, command]), Err((reply(7), HandshakeFailure::Command)), "{command}");
    }
    for kind in [0, 2, 5, 0xff] {
        assert_eq!(request(&[5, 1, 0, kind]), Err((reply(8), HandshakeFailure::Malformed)), "{kind}");
    }
    assert_eq!(request(&[4, 1]), Err((reply(1), HandshakeFailure::Malformed)));
}

#[test]
fn associations_may_leave_open_where_they_send_from() {
    let associate = |address: &str, left| Ok(Some((Request::Associate(address.parse().unwrap()), left)));
    assert_eq!(request(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]), associate("0.0.0.0:0", 0));
    assert_eq!(request(&[5, 3, 0, 1, 127, 0, 0, 1, 16, 0, 9]), associate("127.0.0.1:4096", 1));
    assert_eq!(request(&[5, 3, 0, 3, 1, b'a', 16, 0]), associate("0.0.0.0:4096", 0));
    assert_eq!(request(&[5, 3, 0, 3, 0, 0, 0]), associate("0.0.0.0:0", 0));
    assert_eq!(request(&[&[5, 3, 0, 4][..], &[0; 18]].concat()), associate("[::]:0", 0));
}

#[test]
fn socks4_connects_by_address_and_4a_by_name() {
    let none = Vec::new();
    let rejected = |code, reason| (Vec::new(), Err((vec![0, code, 0, 0, 0, 0, 0, 0], reason)));
    let ask = |input: &[u8]| feed(input, false);
    assert_eq!(ask(b"\x04\x01\x01\xbb\xc0\x00\x02\x01\0"), (none.clone(), connect("192.0.2.1", 443, 0)));
    assert_eq!(ask(b"\x04\x01\x01\xbb\xc0\x00\x02\x01ann\0rest"), (none.clone(), connect("192.0.2.1", 443, 4)));
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\x01ann\0a.example\0rest"), (none.clone(), connect("a.example", 443, 4)));
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\xff\x00127.0.0.1\0"), (none.clone(), connect("127.0.0.1", 443, 0)));
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\0\0"), rejected(91, HandshakeFailure::Destination), "not 4a");
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\x01ann\0a.exam"), (none, Ok(None)));
    assert_eq!(ask(b"\x04\x02"), rejected(91, HandshakeFailure::Command), "BIND");
    assert_eq!(ask(b"\x04\x01\0\0\xc0\x00\x02\x01\0"), rejected(91, HandshakeFailure::Destination), "port 0");
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\x01\0\0"), rejected(91, HandshakeFailure::Destination), "no name");
    assert_eq!(ask(b"\x04\x01\x01\xbb\0\0\0\x01\0a b\0"), rejected(91, HandshakeFailure::Destination));
    assert_eq!(feed(b"\x04\x01\x01\xbb", true), rejected(93, HandshakeFailure::User), "it has no password");
}

#[test]
fn texts_of_socks4_have_up_to_255_bytes() {
    let head = b"\x04\x01\x01\xbb\0\0\0\x01";
    let user = |length| [&head[..], &vec![b'u'; length], b"\0a.example\0"].concat();
    assert_eq!(feed(&user(255), false).1, connect("a.example", 443, 0));
    let malformed = Err((vec![0, 91, 0, 0, 0, 0, 0, 0], HandshakeFailure::Malformed));
    assert_eq!(feed(&user(256), false).1, malformed);
    assert_eq!(feed(&user(256)[..8 + 256], false).1, malformed, "nothing more is waited for");
    assert_eq!(feed(&user(255)[..8 + 255], false).1, Ok(None));
    let name = |length| [&head[..], b"\0", &vec![b'n'; length], b"\0"].concat();
    assert_eq!(feed(&name(256), false).1, malformed);
    assert!(MESSAGE_MAX >= name(255).len() + 255);
}

#[test]
fn replies_have_the_address_of_our_end_where_it_is_known() {
    assert_eq!(Version::V5.success(None)[..], [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let v4 = Version::V5.success(Some("192.0.2.1:4096".parse().unwrap()));
    assert_eq!(v4[..], [5, 0, 0, 1, 192, 0, 2, 1, 16, 0]);
    let v6 = Version::V5.success(Some("[2001:db8::1]:4096".parse().unwrap()));
    assert_eq!(v6[..], [5, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0]);
    assert!(!v6.spilled());
    assert_eq!(Version::V4.success(Some("192.0.2.1:4096".parse().unwrap()))[..], [0, 90, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn each_kind_of_error_has_its_reply() {
    for (kind, code) in [
        (ErrorKind::Rejected, 2),
        (ErrorKind::Forbidden, 2),
        (ErrorKind::NetworkUnreachable, 3),
        (ErrorKind::HostUnreachable, 4),
        (ErrorKind::Resolve, 4),
        (ErrorKind::Refused, 5),
        (ErrorKind::TimedOut, 6),
        (ErrorKind::Unsupported, 7),
        (ErrorKind::AddressType, 8),
        (ErrorKind::Upstream, 1),
        (ErrorKind::Busy, 1),
        (ErrorKind::Local, 1),
        (ErrorKind::Closed, 1),
    ] {
        assert_eq!(Version::V5.failure(kind).to_vec(), reply(code), "{kind:?}");
        assert_eq!(Version::V4.failure(kind)[..2], [0, 91], "{kind:?}");
    }
}

/// A handshake as clients send it, in one piece.
fn handshake() -> impl Strategy<Value = Vec<u8>> {
    let host = prop_oneof![
        Just(vec![1, 192, 0, 2, 1]),
        prop::array::uniform16(any::<u8>()).prop_map(|ip| [&[4], &ip[..]].concat()),
        "[a-z0-9.-]{0,20}".prop_map(|name| [&[3, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()),
    ];
    let v5 = (prop::bool::ANY, 0..5_u8, host, any::<u16>(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(
        |(has_user, command, host, port, payload)| {
            let start: &[u8] = if has_user { b"\x05\x02\0\x02\x01\x03ann\x03one" } else { b"\x05\x01\0" };
            [start, &[5, command, 0], &host, &port.to_be_bytes(), &payload].concat()
        },
    );
    let v4 = (1..3_u8, any::<u16>(), prop::array::uniform4(0..3_u8), "[a-z.\0]{0,300}")
        .prop_map(|(command, port, ip, text)| [&[4, command], &port.to_be_bytes()[..], &ip, text.as_bytes()].concat());
    prop_oneof![v5, v4]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn whatever_comes_is_taken_the_same_in_pieces(
        sizes in any::<[u8; 2]>(),
        mut input in handshake(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        for (place, byte) in mutations {
            let place = place.index(input.len());
            input[place] = byte;
        }
        input.truncate(end.index(input.len() + 1).max(input.len() / 2));
        invariants::check(&[&sizes[..], &input].concat());
    }

    #[test]
    fn noise_is_taken_the_same_in_pieces(data in prop::collection::vec(any::<u8>(), 0..700)) {
        invariants::check(&data);
    }
}
