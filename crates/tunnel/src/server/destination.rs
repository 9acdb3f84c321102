//! What a client may ask for at all: names that are names, and not ourselves.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use keepwarm_transport::{proxy::Target, resolve::literal};

/// Why a host and port are no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadDestination {
    /// No host at all.
    Empty,
    /// No such name can exist.
    Name,
    /// Port 0.
    Port,
}

/// A destination that a client named. A name that is a literal address is that address, and an IPv4 address in IPv6 form is that of
/// IPv4, so that rules by network see it.
///
/// # Errors
/// See [`BadDestination`]. Names whose last label is a number are among those that cannot exist: no top-level domain is one, but
/// `inet_aton` and thus resolvers and proxies take `127.1` and `0x7f000001` for addresses, past the rules by network.
pub(crate) fn destination(host: &str, port: u16) -> Result<Target, BadDestination> {
    if host.is_empty() {
        return Err(BadDestination::Empty);
    }
    if port == 0 {
        return Err(BadDestination::Port);
    }
    if let Some(ip) = literal(host) {
        return Ok(address(ip, port));
    }
    if is_numeric(host) {
        return Err(BadDestination::Name);
    }
    Target::new(host, port).map_err(|_| BadDestination::Name)
}

/// The same, of an address.
pub(crate) fn address(ip: IpAddr, port: u16) -> Target {
    SocketAddr::new(ip.to_canonical(), port).into()
}

/// As in the URL standard (WHATWG, "ends in a number").
fn is_numeric(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Our own listeners, as destinations.
pub(super) struct Own(Vec<SocketAddr>);

impl Own {
    pub(super) fn new(listeners: Vec<SocketAddr>) -> Own {
        Own(listeners)
    }

    /// Whether `target` is one of them: a tunnel that would lead back here. Names are not looked up, but `localhost` needs no look-up.
    pub(super) fn is(&self, target: &Target) -> bool {
        let mut same_port = self.0.iter().filter(|own| own.port() == target.port()).peekable();
        if same_port.peek().is_none() {
            return false;
        }
        match target.ip().or_else(|| localhost(&target.host())) {
            Some(ip) => {
                let ip = ip.to_canonical();
                same_port.any(|own| reaches(ip, own.ip().to_canonical()))
            }
            None => false,
        }
    }
}

/// Whether a connection to `ip` ends at a listener on `own`.
fn reaches(ip: IpAddr, own: IpAddr) -> bool {
    // A connection to 0.0.0.0 or :: is one to loopback; which of its addresses is the system's matter.
    if ip.is_unspecified() {
        return own.is_unspecified() || own.is_loopback();
    }
    ip == own || own.is_unspecified() && ip.is_ipv4() == own.is_ipv4() && is_local(ip)
}

/// Whether an address is this machine's. Asked for the port of a listener of ours only.
fn is_local(ip: IpAddr) -> bool {
    // Sends nothing. The system reaches an address of its own from that very address.
    let from = || {
        let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 9))?;
        io::Result::Ok(socket.local_addr()?.ip())
    };
    ip.is_loopback() || from().is_ok_and(|from| from == ip)
}

/// RFC 6761 section 6.3.
fn localhost(host: &str) -> Option<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    (host == "localhost" || host.ends_with(".localhost")).then_some(Ipv4Addr::UNSPECIFIED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_addresses_are_addresses() {
        for (host, ip) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(destination(host, 443).unwrap().ip(), Some(ip.parse().unwrap()), "{host}");
        }
        assert_eq!(destination("Tiles.Example.", 443).unwrap().to_string(), "tiles.example.:443");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for host in
            ["a b", "a\0b", "a/b", "ä.example", ".a", "a@b", "127.1", "1", "0x7f.0x1", "a.0X", "1.2.3.4.5", "9."]
        {
            assert_eq!(destination(host, 443), Err(BadDestination::Name), "{host:?}");
        }
        for host in ["_dmarc.example", "1.example", "0x1.example", "a.x0", "3com"] {
            assert!(destination(host, 443).is_ok(), "{host:?}");
        }
        assert_eq!(destination("", 443), Err(BadDestination::Empty));
        assert_eq!(destination("a.example", 0), Err(BadDestination::Port));
    }

    #[test]
    fn our_own_listeners_are_known_by_every_address_that_reaches_them() {
        let own = |listener: &str, host: &str, port| {
            Own::new(vec![listener.parse().unwrap()]).is(&Target::new(host, port).unwrap())
        };
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "localhost", "a.LOCALHOST."] {
            assert!(own("127.0.0.1:1080", host, 1080), "{host}");
            assert!(!own("127.0.0.1:1080", host, 1081), "{host}");
        }
        for host in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "localhost"] {
            assert!(own("0.0.0.0:1080", host, 1080), "{host}");
        }
        assert!(own("[::1]:1080", "::1", 1080) && own("[::]:1080", "::1", 1080) && own("[::1]:1080", "::", 1080));
        for host in ["127.0.0.2", "192.0.2.1", "tiles.example", "localhost.example"] {
            assert!(!own("127.0.0.1:1080", host, 1080), "{host}");
        }
        assert!(!own("0.0.0.0:1080", "192.0.2.1", 1080) && !own("0.0.0.0:1080", "::1", 1080));
    }
}
