//! The header of a relayed datagram (RFC 1928 section 7): bytes in, fields out.
//!
//! ```text
//! +-----+------+------+----------+----------+------+
//! | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA |
//! |  2  |  1   |  1   | variable |    2     |      |
//! +-----+------+------+----------+----------+------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use keepwarm_transport::proxy::Target;
use smallvec::SmallVec;

use super::counters::UdpDropped;

/// What stands before the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// 0: a datagram of its own. Else a part of one.
    pub(super) fragment: u8,
    pub(super) host: Host<'a>,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host<'a> {
    Ip(IpAddr),
    /// At most 255 bytes, not checked any further.
    Name(&'a [u8]),
}

/// No header: cut short, a reserved byte that is not 0, or an address of a type that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes a datagram apart: its header and its data, which may be empty.
pub(super) fn parse(datagram: &[u8]) -> Result<(Header<'_>, &[u8]), Malformed> {
    let ([0, 0, fragment, kind], rest) = datagram.split_first_chunk().ok_or(Malformed)? else { return Err(Malformed) };
    let (host, rest) = match *kind {
        IPV4 => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            (Host::Ip(Ipv4Addr::from(*octets).into()), rest)
        }
        IPV6 => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            (Host::Ip(Ipv6Addr::from(*octets).into()), rest)
        }
        NAME => {
            let (length, rest) = rest.split_first().ok_or(Malformed)?;
            let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Malformed)?;
            (Host::Name(name), rest)
        }
        _ => return Err(Malformed),
    };
    let (port, data) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    Ok((Header { fragment: *fragment, host, port: u16::from_be_bytes(*port) }, data))
}

/// The header of an answer that came from `sender`.
pub(super) fn of_sender(sender: SocketAddr) -> SmallVec<[u8; SENDER_MAX]> {
    let mut header = SmallVec::from_slice(&[0, 0, 0]);
    append_address(&mut header, sender);
    header
}

/// Writes the header of a datagram for `target`.
pub(super) fn append_of_target(out: &mut Vec<u8>, target: &Target) {
    if let Some(ip) = target.ip() {
        out.extend_from_slice(&of_sender(SocketAddr::new(ip, target.port())));
        return;
    }
    let name = target.host();
    let length = u8::try_from(name.len()).expect("the length of a target's name is checked");
    out.extend_from_slice(&[0, 0, 0, NAME, length]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&target.port().to_be_bytes());
}

/// Writes ATYP, the address and the port, as headers and replies end. An IPv4-mapped address is written as the IPv4 address it is.
pub(super) fn append_address(out: &mut SmallVec<[u8; SENDER_MAX]>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

impl Header<'_> {
    /// Where the datagram is to go.
    ///
    /// An IPv4-mapped address is the IPv4 address it is, so that rules for networks hold for it too. The unspecified address is
    /// no destination (systems take it for this machine), and multicast and broadcast have no single host to answer.
    pub(super) fn target(&self) -> Result<Target, UdpDropped> {
        let target = match self.host {
            Host::Ip(ip) if self.port != 0 => Target::from(SocketAddr::new(ip.to_canonical(), self.port)),
            Host::Ip(_) => return Err(UdpDropped::Malformed),
            Host::Name(name) => {
                let name = std::str::from_utf8(name).map_err(|_| UdpDropped::Malformed)?;
                let target = Target::new(name, self.port).map_err(|_| UdpDropped::Malformed)?;
                match target.ip() {
                    Some(ip) => SocketAddr::new(ip.to_canonical(), self.port).into(),
                    None => target,
                }
            }
        };
        match target.ip() {
            Some(ip) if ip.is_unspecified() => Err(UdpDropped::Malformed),
            Some(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => Err(UdpDropped::Unsupported),
            _ => Ok(target),
        }
    }
}

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Longest header of an answer: that of an IPv6 sender.
pub(super) const SENDER_MAX: usize = 3 + 1 + 16 + 2;

#[cfg(test)]
mod tests;
