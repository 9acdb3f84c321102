//! DNS stamps (`sdns://`): an upstream with all its parameters in one word, base64url without padding.
//!
//! Plain DNS, DoH, DoT and DoQ are read; DNSCrypt and the relays are named and refused. Properties (DNSSEC, no log, no filter)
//! are claims of the stamp's author and are not looked at.

use std::net::{IpAddr, SocketAddr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// What a stamp says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The upstream as a URL that [`parse_upstream`](crate::config::address::parse_upstream) reads.
    pub(super) url: String,
    /// Its IP, where the URL has a host name.
    pub(super) address: Option<IpAddr>,
    /// It pins certificates, which keepwarm does not: it verifies them.
    pub(super) has_pins: bool,
}

/// Reads a stamp, with its `sdns://`.
pub(super) fn parse(text: &str) -> Result<Stamp, String> {
    let encoded = text.strip_prefix("sdns://").ok_or("is not a DNS stamp")?.trim_end_matches('=');
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "is not base64url")?;
    let (&protocol, rest) = bytes.split_first().ok_or("is empty")?;
    let scheme = match protocol {
        0x00 => "udp",
        0x01 => return Err("is for DNSCrypt, which keepwarm does not speak".into()),
        0x02 => "https",
        0x03 => "tls",
        0x04 => "quic",
        0x05 | 0x81 | 0x85 => return Err("is for a relay or ODoH, which keepwarm does not speak".into()),
        other => return Err(format!("is of the unknown kind {other:#04x}")),
    };
    let mut rest = rest.get(8..).ok_or(CUT)?;
    let address = text_of(prefixed(&mut rest)?)?;
    if scheme == "udp" {
        let host =
            if address.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{address}]") } else { address.to_owned() };
        return Ok(Stamp { url: format!("udp://{host}"), address: None, has_pins: false });
    }
    let mut has_pins = false;
    loop {
        let (pin, more) = element(&mut rest)?;
        has_pins |= !pin.is_empty();
        if !more {
            break;
        }
    }
    let host = text_of(prefixed(&mut rest)?)?;
    let path = if scheme == "https" { text_of(prefixed(&mut rest)?)? } else { "" };
    // The address may be an IP, an IP and port, or a port alone, for the name.
    let (ip, port) = split_address(address);
    let port = match (host.contains(':') && !host.ends_with(']'), port) {
        (false, Some(port)) => format!(":{port}"),
        _ => String::new(),
    };
    Ok(Stamp { url: format!("{scheme}://{host}{port}{path}"), address: ip, has_pins })
}

fn split_address(text: &str) -> (Option<IpAddr>, Option<u16>) {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return (Some(socket.ip()), Some(socket.port()));
    }
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return (None, Some(port));
    }
    (text.trim_matches(['[', ']']).parse().ok(), None)
}

/// A byte string after its length.
fn prefixed<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], String> {
    let (&length, after) = rest.split_first().ok_or(CUT)?;
    let (value, after) = after.split_at_checked(length.into()).ok_or(CUT)?;
    *rest = after;
    Ok(value)
}

/// An item of a list: the highest bit of its length says that another follows.
fn element<'b>(rest: &mut &'b [u8]) -> Result<(&'b [u8], bool), String> {
    let (&length, after) = rest.split_first().ok_or(CUT)?;
    let (value, after) = after.split_at_checked((length & 0x7f).into()).ok_or(CUT)?;
    *rest = after;
    Ok((value, length & 0x80 != 0))
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "has a name that is no text".into())
}

const CUT: &str = "is cut off";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stamp of these parts, each after its length.
    fn stamp(protocol: u8, parts: &[&[u8]]) -> String {
        let mut bytes = vec![protocol];
        bytes.extend([0; 8]);
        for part in parts {
            bytes.push(u8::try_from(part.len()).unwrap());
            bytes.extend_from_slice(part);
        }
        format!("sdns://{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn stamps_become_urls() {
        for (protocol, parts, url, address) in [
            (0, &[&b"9.9.9.9"[..]][..], "udp://9.9.9.9", None),
            (0, &[b"[2620:fe::fe]:53"], "udp://[2620:fe::fe]:53", None),
            (2, &[b"1.0.0.1", b"pin", b"dns.example", b"/dns-query"], "https://dns.example/dns-query", Some("1.0.0.1")),
            (2, &[b":8443", b"", b"dns.example", b"/q"], "https://dns.example:8443/q", None),
            (3, &[b"9.9.9.9:8853", b"", b"dns.example"], "tls://dns.example:8853", Some("9.9.9.9")),
            (4, &[b"[2620:fe::fe]", b"", b"dns.example"], "quic://dns.example", Some("2620:fe::fe")),
        ] {
            let read = parse(&stamp(protocol, parts)).unwrap();
            assert_eq!((&*read.url, read.address), (url, address.map(|ip: &str| ip.parse().unwrap())));
            assert!(crate::config::address::parse_upstream(&read.url).is_ok(), "{url}");
        }
        assert!(parse(&stamp(2, &[b"1.0.0.1", b"pin", b"dns.example", b"/dns-query"])).unwrap().has_pins);
    }

    #[test]
    fn other_stamps_are_refused_by_name() {
        assert!(parse(&stamp(1, &[b"1.1.1.1"])).unwrap_err().contains("DNSCrypt"));
        assert!(parse(&stamp(0x81, &[b"1.1.1.1"])).unwrap_err().contains("relay"));
        assert!(parse("sdns://!!").unwrap_err().contains("base64"));
        assert!(parse("sdns://AgcAAAAAAAAABzEu").unwrap_err().contains("cut off"));
    }

    proptest! {
        #[test]
        fn any_stamp_is_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&format!("sdns://{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
