//! A PROXY header names a client or is refused, and is the same before a datagram and on a connection.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use keepwarm_dns::fuzzing::{proxy_connection, proxy_datagram};
use libfuzzer_sys::fuzz_target;

// The size of the pieces, what comes.
fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let split = proxy_datagram(bytes, PEER);
    assert_eq!(proxy_connection(bytes, usize::from(*piece).max(1), PEER), split);
    let Some((client, rest)) = split else { return };
    let header = &bytes[..bytes.len() - rest.len()];
    assert_eq!(header.len(), 16 + usize::from(u16::from_be_bytes([header[14], header[15]])));
    let named = match (header[12], header[13] >> 4) {
        (0x21, 1) => IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).expect("it has four bytes")),
        (0x21, 2) => IpAddr::from(<[u8; 16]>::try_from(&header[16..32]).expect("it has sixteen bytes")),
        _ => PEER,
    };
    assert_eq!(client, named);
    for end in 0..header.len() {
        assert_eq!(proxy_datagram(&header[..end], PEER), None);
    }
});

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
