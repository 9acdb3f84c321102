//! The PROXY protocol, version 2: a header before a connection's or a datagram's own bytes, in which a proxy names the
//! client (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Only peers that the config lists are read this way, and from those a header has to come. What is deliberately not here:
//! version 1, and headers towards upstreams.

use std::net::IpAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant as Clock, timeout_at},
};

/// The bytes do not begin with a whole and valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHeader;

/// Reads a connection's header and not a byte more. Returns the client, which is `peer` when the proxy speaks for itself or
/// names no IP address.
///
/// # Errors
/// When the header is not there at `deadline`, or is none.
pub(crate) async fn read_header<R>(reader: &mut R, peer: IpAddr, deadline: Clock) -> Result<IpAddr, NoHeader>
where
    R: AsyncRead + Unpin,
{
    let read = async {
        let mut header = vec![0; FIXED];
        reader.read_exact(&mut header).await.map_err(|_| NoHeader)?;
        if !header.starts_with(PROTOCOL_PREFIX) {
            return Err(NoHeader);
        }
        let length = u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]);
        header.resize(FIXED + usize::from(length), 0);
        reader.read_exact(&mut header[FIXED..]).await.map_err(|_| NoHeader)?;
        client(&header, peer).map(|(client, _)| client)
    };
    timeout_at(deadline, read).await.unwrap_or(Err(NoHeader))
}

/// Takes a datagram's header off: the client, as in [`read_header`], and the message.
///
/// # Errors
/// When there is no whole and valid header.
pub(crate) fn split_datagram(datagram: &[u8], peer: IpAddr) -> Result<(IpAddr, &[u8]), NoHeader> {
    let (client, length) = client(datagram, peer)?;
    Ok((client, &datagram[length..]))
}

/// The client that a header names, and the header's length. What else it says (TLVs) is skipped.
fn client(bytes: &[u8], peer: IpAddr) -> Result<(IpAddr, usize), NoHeader> {
    let header = Header::try_from(bytes).map_err(|_| NoHeader)?;
    let client = match (header.command, header.addresses) {
        // The proxy's own connection, such as a health check.
        (Command::Local, _) => peer,
        (Command::Proxy, Addresses::IPv4(addresses)) => addresses.source_address.into(),
        (Command::Proxy, Addresses::IPv6(addresses)) => addresses.source_address.into(),
        // Section 2.2: the receiver uses the addresses of the connection.
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => peer,
    };
    Ok((client, header.len()))
}

/// The part of the header that tells its length.
const FIXED: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        [PROTOCOL_PREFIX, &[0x20 | command, family], &length.to_be_bytes(), payload].concat()
    }

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        header(1, 0x11, &[&[192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 0, 53][..], tlvs].concat())
    }

    #[test]
    fn the_header_names_the_client_and_the_rest_is_the_message() {
        let mut v6 = vec![0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        v6[15] = 9;
        for (header, expected) in [
            (v4(&[]), "192.0.2.7"),
            (v4(&[4, 0, 3, 0, 0, 0]), "192.0.2.7"),
            (header(1, 0x22, &v6), "2001:db8::9"),
            (header(0, 0x11, &[1; 12]), "127.0.0.1"),
            (header(0, 0, &[]), "127.0.0.1"),
            (header(1, 0, &[]), "127.0.0.1"),
            (header(1, 0x31, &[1; 216]), "127.0.0.1"),
        ] {
            let datagram = [&header[..], b"message"].concat();
            assert_eq!(split_datagram(&datagram, PEER), Ok((expected.parse().unwrap(), &b"message"[..])));
            for length in 0..header.len() {
                assert_eq!(split_datagram(&header[..length], PEER), Err(NoHeader));
            }
        }
    }

    #[test]
    fn what_is_no_header_of_version_2_is_refused() {
        let mut version = v4(&[]);
        version[12] = 0x11;
        let mut command = v4(&[]);
        command[12] = 0x22;
        let short = header(1, 0x11, &[1; 11]);
        for bytes in [&b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n"[..], b"", &version, &command, &short, &[0; 40]] {
            assert_eq!(split_datagram(bytes, PEER), Err(NoHeader), "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connections_header_is_read_to_its_end_and_waited_for_only_so_long() {
        let deadline = Clock::now() + Duration::from_secs(5);
        let bytes = [v4(&[4, 0, 1, 0]), b"message".to_vec()].concat();
        let mut reader = &bytes[..];
        assert_eq!(read_header(&mut reader, PEER, deadline).await, Ok("192.0.2.7".parse().unwrap()));
        assert_eq!(reader, b"message");
        let mut reader = &b"\0\x1cplain dns over tcp, no header"[..];
        assert_eq!(read_header(&mut reader, PEER, deadline).await, Err(NoHeader));
        let (mut slow, mut writer) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut writer, &v4(&[])[..20]).await.unwrap();
        assert_eq!(read_header(&mut slow, PEER, deadline).await, Err(NoHeader));
        assert!(Clock::now() >= deadline);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(command: u8, family: u8, payload in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..100) {
            let mut bytes = header(command & 0x0f, family, &payload);
            bytes.truncate(cut);
            let _ = split_datagram(&bytes, PEER);
        }
    }
}
