//! The header of a relayed datagram (RFC 1928 section 7): bytes in, fields out.
//!
//! ```text
//! +-----+------+------+----------+----------+------+
//! | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA |
//! |  2  |  1   |  1   | variable |    2     |      |
//! +-----+------+------+----------+----------+------+
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use keepwarm_transport::proxy::Target;
use smallvec::SmallVec;

use super::counters::UdpDropped;
pub(super) use crate::socks::address::Host;
use crate::socks::address::{self, Address};

/// What stands before the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// 0: a datagram of its own. Else a part of one.
    pub(super) fragment: u8,
    pub(super) host: Host<'a>,
    pub(super) port: u16,
}

/// No header: cut short, a reserved byte that is not 0, or an address of a type that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes a datagram apart: its header and its data, which may be empty.
pub(super) fn parse(datagram: &[u8]) -> Result<(Header<'_>, &[u8]), Malformed> {
    let ([0, 0, fragment], rest) = datagram.split_first_chunk().ok_or(Malformed)? else { return Err(Malformed) };
    match address::read(rest) {
        Ok(Some((Address { host, port }, data))) => Ok((Header { fragment: *fragment, host, port }, data)),
        Ok(None) | Err(address::UnknownType) => Err(Malformed),
    }
}

/// The header of an answer that came from `sender`.
pub(super) fn of_sender(sender: SocketAddr) -> SmallVec<[u8; SENDER_MAX]> {
    let mut header = SmallVec::from_slice(&[0, 0, 0]);
    address::append(&mut header, sender);
    header
}

/// Writes the header of a datagram for `target`.
pub(super) fn append_of_target(out: &mut Vec<u8>, target: &Target) -> Result<(), UdpDropped> {
    out.extend_from_slice(&[0, 0, 0]);
    address::append_target(out, target).map_err(|_| UdpDropped::Malformed)
}

impl Header<'_> {
    /// Where the datagram is to go.
    ///
    /// By the same rules as for CONNECT; multicast and broadcast have no single host to answer.
    pub(super) fn target(&self) -> Result<Target, UdpDropped> {
        let address = Address { host: self.host, port: self.port };
        let target = address.destination().map_err(|_| UdpDropped::Malformed)?;
        match target.ip() {
            Some(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => Err(UdpDropped::Unsupported),
            _ => Ok(target),
        }
    }
}

/// Longest header of an answer: that of an IPv6 sender.
pub(super) const SENDER_MAX: usize = 3 + address::IP_MAX;

#[cfg(test)]
mod tests;
