//! Where a proxy is to connect to.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::ProxyParseError;
use crate::resolve::literal;

/// A destination: an address, or a name that the proxy looks up, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target(pub(super) Place, pub(super) u16);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Address(IpAddr),
    /// Labels of letters, digits, `-` and `_` with a dot between them, at most [`NAME_MAX`] bytes: nothing that could end a line.
    Name(String),
}

impl Target {
    /// A host name or a literal address, with or without brackets, and a port. A name is kept in lower case and without a final dot, so
    /// that one host has one spelling wherever it is compared.
    ///
    /// # Errors
    /// When `host` is no name, or `port` is 0. A name has labels of 1 to 63 letters, digits, `-` and `_` with a dot between them, and at
    /// most 253 characters (RFC 1035 section 2.3.4); names in other letters are given in their `xn--` form. One whose last label is a
    /// number is none: no top-level domain is one, but `inet_aton`, and with it resolvers and proxies, take `127.1`, `2130706433` and
    /// `0x7f000001` for addresses.
    pub fn new(host: &str, port: u16) -> Result<Target, ProxyParseError> {
        let place = match literal(host) {
            Some(ip) => Place::Address(ip),
            None => Place::Name(name(host)?),
        };
        if port == 0 {
            return Err(ProxyParseError::new("port 0 cannot be connected to"));
        }
        Ok(Target(place, port))
    }

    /// The name, or the address without brackets.
    pub fn host(&self) -> Cow<'_, str> {
        match &self.0 {
            Place::Address(ip) => Cow::Owned(ip.to_string()),
            Place::Name(name) => Cow::Borrowed(name),
        }
    }

    /// The address, where it is given by one.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.0 {
            Place::Address(ip) => Some(*ip),
            Place::Name(_) => None,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.1
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target(Place::Address(address.ip()), address.port())
    }
}

impl fmt::Display for Target {
    /// Writes `tiles.example:443` or `[2001:db8::1]:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Address(ip) => SocketAddr::new(*ip, self.1).fmt(f),
            Place::Name(host) => write_authority(f, host, self.1),
        }
    }
}

/// A host name in lower case, without its final dot.
pub(super) fn name(host: &str) -> Result<String, ProxyParseError> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(may);
    if name.len() > NAME_MAX || !name.split('.').all(is_label) || ends_in_a_number(name) {
        return Err(ProxyParseError::new(format!("\"{}\" is not a host name", host.escape_debug())));
    }
    Ok(name.to_ascii_lowercase())
}

/// As in the URL standard (WHATWG, "ends in a number").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `host:port`, with the brackets that a literal IPv6 address needs.
pub(super) fn write_authority(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    match literal(host) {
        Some(ip) => write!(f, "{}", SocketAddr::new(ip, port)),
        None => write!(f, "{host}:{port}"),
    }
}

/// Longest name in presentation form (RFC 1035 section 2.3.4), the final dot not counted. SOCKS5 has room for 255.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
