//! Addresses as SOCKS5 writes them, in requests, replies and the headers of datagrams (RFC 1928 sections 4 to 7): ATYP, address, port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use keepwarm_transport::proxy::Target;

use crate::server::destination::{self, BadDestination, destination};

/// A host and a port as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    Ip(IpAddr),
    /// At most 255 bytes, not checked any further.
    Name(&'a [u8]),
}

/// The first byte is no type of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownType;

/// Reads an address, and tells what follows it; `None` where it is not complete.
///
/// # Errors
/// As soon as the type is there and is none.
pub(crate) fn read(input: &[u8]) -> Result<Option<(Address<'_>, &[u8])>, UnknownType> {
    let Some((kind, rest)) = input.split_first() else { return Ok(None) };
    let host = match *kind {
        IPV4 => rest.split_first_chunk::<4>().map(|(octets, rest)| (Host::Ip(Ipv4Addr::from(*octets).into()), rest)),
        IPV6 => rest.split_first_chunk::<16>().map(|(octets, rest)| (Host::Ip(Ipv6Addr::from(*octets).into()), rest)),
        NAME => rest
            .split_first()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
            .map(|(name, rest)| (Host::Name(name), rest)),
        _ => return Err(UnknownType),
    };
    Ok(host.and_then(|(host, rest)| {
        let (port, rest) = rest.split_first_chunk()?;
        Some((Address { host, port: u16::from_be_bytes(*port) }, rest))
    }))
}

/// Writes an address. An IPv4-mapped one is written as the IPv4 address it is.
pub(crate) fn append(out: &mut impl Extend<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend([IPV4].into_iter().chain(ip.octets())),
        IpAddr::V6(ip) => out.extend([IPV6].into_iter().chain(ip.octets())),
    }
    out.extend(address.port().to_be_bytes());
}

/// Writes a destination, whose name whoever reads it looks up.
///
/// # Errors
/// When the name has no room. Nothing is written then.
pub(crate) fn append_target(out: &mut impl Extend<u8>, target: &Target) -> Result<(), BadDestination> {
    if let Some(ip) = target.ip() {
        append(out, SocketAddr::new(ip, target.port()));
        return Ok(());
    }
    let name = target.host();
    let length = u8::try_from(name.len()).map_err(|_| BadDestination::Name)?;
    out.extend([NAME, length].into_iter().chain(name.bytes()).chain(target.port().to_be_bytes()));
    Ok(())
}

impl Address<'_> {
    /// The destination that a client means by it.
    ///
    /// # Errors
    /// See [`BadDestination`].
    pub(crate) fn destination(&self) -> Result<Target, BadDestination> {
        match self.host {
            Host::Ip(ip) => destination::address(ip, self.port),
            Host::Name(name) => {
                str::from_utf8(name).map_err(|_| BadDestination::Name).and_then(|name| destination(name, self.port))
            }
        }
    }
}

/// Bytes of the longest address that is not a name: IPv6.
pub(crate) const IP_MAX: usize = 1 + 16 + 2;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
