use proptest::prelude::*;

use super::*;

/// The header as a client writes it.
fn written(header: &Header<'_>) -> Vec<u8> {
    let mut out = vec![0, 0, header.fragment];
    match header.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(1);
            out.extend(ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            out.push(4);
            out.extend(ip.octets());
        }
        Host::Name(name) => {
            out.extend([3, u8::try_from(name.len()).unwrap()]);
            out.extend(name);
        }
    }
    out.extend(header.port.to_be_bytes());
    out
}

fn target(host: Host<'_>, port: u16) -> Result<String, UdpDropped> {
    Header { fragment: 0, host, port }.target().map(|target| target.to_string())
}

fn ip(text: &str) -> Host<'static> {
    Host::Ip(text.parse().unwrap())
}

#[test]
fn headers_read_as_rfc_1928_section_7_writes_them() {
    let datagram = [0, 0, 0, 1, 192, 0, 2, 1, 0, 53, b'h', b'i'];
    let header = Header { fragment: 0, host: ip("192.0.2.1"), port: 53 };
    assert_eq!(parse(&datagram), Ok((header, b"hi".as_slice())));
    let datagram = b"\0\0\x81\x03\x09localhost\x01\xbb";
    let header = Header { fragment: 0x81, host: Host::Name(b"localhost"), port: 443 };
    assert_eq!(parse(datagram), Ok((header, [].as_slice())));
}

#[test]
fn what_is_no_header_is_malformed() {
    let cases: [&[u8]; 9] = [
        b"",
        b"\0\0\0",
        b"\0\x01\0\x01\x7f\0\0\x01\0\x35",
        b"\x01\0\0\x01\x7f\0\0\x01\0\x35",
        b"\0\0\0\x02\x7f\0\0\x01\0\x35",
        b"\0\0\0\0\x7f\0\0\x01\0\x35",
        b"\0\0\0\x03",
        b"\0\0\0\x03\xff\x61\0\x35",
        b"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x35",
    ];
    for case in cases {
        assert_eq!(parse(case), Err(Malformed), "{case:?}");
    }
}

#[test]
fn each_cut_of_a_header_is_malformed() {
    for host in [ip("192.0.2.1"), ip("2001:db8::1"), Host::Name(b"dns.example"), Host::Name(b"")] {
        let whole = written(&Header { fragment: 0, host, port: 53 });
        assert!(parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Err(Malformed), "{host:?} cut to {length}");
        }
    }
}

#[test]
fn destinations_that_are_none_are_refused() {
    assert_eq!(target(ip("192.0.2.1"), 53).as_deref(), Ok("192.0.2.1:53"));
    assert_eq!(target(ip("::ffff:192.0.2.1"), 53).as_deref(), Ok("192.0.2.1:53"));
    assert_eq!(target(Host::Name(b"DNS.example"), 53).as_deref(), Ok("dns.example:53"));
    assert_eq!(target(Host::Name(b"::ffff:192.0.2.1"), 53).as_deref(), Ok("192.0.2.1:53"));
    for host in [ip("0.0.0.0"), ip("::"), ip("::ffff:0.0.0.0"), Host::Name(b"0.0.0.0")] {
        assert_eq!(target(host, 53), Err(UdpDropped::Malformed), "{host:?}");
    }
    for host in [ip("192.0.2.1"), Host::Name(b"dns.example"), Host::Name(b"192.0.2.1")] {
        assert_eq!(target(host, 0), Err(UdpDropped::Malformed), "{host:?}");
    }
    // Resolvers and proxies take these for addresses, past the rules by network.
    for name in ["127.1", "2130706433", "0x7f000001", "0x7f.1", "127.0.0.1."] {
        assert_eq!(target(Host::Name(name.as_bytes()), 53), Err(UdpDropped::Malformed), "{name}");
    }
    for name in [b"".as_slice(), b"a\0b", b"a b", b"\xff\xfe", &[b'a'; 255]] {
        assert_eq!(target(Host::Name(name), 53), Err(UdpDropped::Malformed), "{name:?}");
    }
    for host in [ip("224.0.0.251"), ip("255.255.255.255"), ip("ff02::fb"), ip("::ffff:224.0.0.1")] {
        assert_eq!(target(host, 53), Err(UdpDropped::Unsupported), "{host:?}");
    }
}

#[test]
fn the_header_for_an_upstream_names_the_same_destination() {
    for host in [
        "192.0.2.1",
        "2001:db8::1",
        "dns.example",
        &["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join("."),
    ] {
        let target = Target::new(host, 53).unwrap();
        let mut datagram = Vec::new();
        append_of_target(&mut datagram, &target).unwrap();
        let (header, data) = parse(&datagram).unwrap();
        assert_eq!((header.fragment, header.target(), data), (0, Ok(target), [].as_slice()));
    }
}

fn hosts() -> impl Strategy<Value = (Option<IpAddr>, Vec<u8>)> {
    prop_oneof![
        any::<IpAddr>().prop_map(|ip| (Some(ip), Vec::new())),
        prop::collection::vec(any::<u8>(), 0..=255).prop_map(|name| (None, name)),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        (ip, name) in hosts(),
        fragment: u8,
        port: u16,
        data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let header = Header { fragment, host: ip.map_or(Host::Name(&name), Host::Ip), port };
        let mut datagram = written(&header);
        datagram.extend(&data);
        prop_assert_eq!(parse(&datagram), Ok((header, data.as_slice())));
    }

    #[test]
    fn an_answer_names_its_sender(ip: IpAddr, port: u16, data in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut datagram = of_sender(SocketAddr::new(ip, port)).to_vec();
        datagram.extend(&data);
        let header = Header { fragment: 0, host: Host::Ip(ip.to_canonical()), port };
        prop_assert_eq!(parse(&datagram), Ok((header, data.as_slice())));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        start in prop::collection::vec(0..5_u8, 0..6),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let datagram: Vec<u8> = start.into_iter().chain(rest).collect();
        if let Ok((header, data)) = parse(&datagram) {
            prop_assert!(datagram.ends_with(data));
            prop_assert_eq!(&written(&header)[..], &datagram[..datagram.len() - data.len()]);
            if let Ok(target) = header.target() {
                prop_assert!(target.port() != 0);
            }
        }
    }
}
