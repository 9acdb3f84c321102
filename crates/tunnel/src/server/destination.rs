//! What a client may ask for at all: names that are names, and not ourselves.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use keepwarm_transport::{proxy::Target, resolve::literal};
use parking_lot::RwLock;

use crate::rules::is_localhost;

/// Why a host and port are no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadDestination {
    /// No host at all.
    Empty,
    /// No such host can exist: no name, or the unspecified address, which systems take for this machine, past the rules.
    Name,
    /// Port 0.
    Port,
}

/// A destination that a client named. A name that is a literal address is that address, and an IPv4 address in IPv6 form is that of
/// IPv4, so that rules by network see it.
///
/// # Errors
/// See [`BadDestination`], and [`Target::new`] for what is a name.
pub(crate) fn destination(host: &str, port: u16) -> Result<Target, BadDestination> {
    if host.is_empty() {
        return Err(BadDestination::Empty);
    }
    if port == 0 {
        return Err(BadDestination::Port);
    }
    match literal(host) {
        Some(ip) => address(ip, port),
        None => Target::new(host, port).map_err(|_| BadDestination::Name),
    }
}

/// The same, of an address.
pub(crate) fn address(ip: IpAddr, port: u16) -> Result<Target, BadDestination> {
    let ip = ip.to_canonical();
    match (ip.is_unspecified(), port) {
        (_, 0) => Err(BadDestination::Port),
        (true, _) => Err(BadDestination::Name),
        (false, _) => Ok(SocketAddr::new(ip, port).into()),
    }
}

/// What is this process itself, as destinations.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// A tunnel to one of these would lead back here.
    listeners: Vec<SocketAddr>,
    /// What else is served, by TCP or by UDP, to those that reach it themselves: by a tunnel they would come from this machine.
    services: Vec<SocketAddr>,
}

/// The same as it is at any time. Clones are handles of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnNow(Arc<RwLock<Arc<Own>>>);

impl OwnNow {
    pub(crate) fn new(own: Own) -> OwnNow {
        OwnNow(Arc::new(RwLock::new(Arc::new(own))))
    }

    pub(crate) fn now(&self) -> Arc<Own> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn put(&self, own: Own) {
        *self.0.write() = Arc::new(own);
    }
}

impl Own {
    pub(crate) fn new(listeners: Vec<SocketAddr>, services: &[SocketAddr]) -> Own {
        Own { listeners, services: services.to_vec() }
    }

    /// Whether `target` is one of them. Names are not looked up, but `localhost` needs no look-up.
    pub(crate) fn is(&self, target: &Target) -> bool {
        let ip = || target.ip().or_else(|| is_localhost(&target.host()).then_some(Ipv4Addr::UNSPECIFIED.into()));
        let mut same_port =
            self.listeners.iter().chain(&self.services).filter(|own| own.port() == target.port()).peekable();
        same_port.peek().is_some() && ip().is_some_and(|ip| same_port.any(|own| reaches(ip, own.ip())))
    }

    /// Whether datagrams to `address` come to a service of our own. The listeners take none at ports that are known.
    pub(crate) fn serves(&self, address: SocketAddr) -> bool {
        let same_port = |own: &&SocketAddr| own.port() == address.port();
        self.services.iter().filter(same_port).any(|own| reaches(address.ip(), own.ip()))
    }
}

impl From<Vec<SocketAddr>> for Own {
    fn from(listeners: Vec<SocketAddr>) -> Own {
        Own::new(listeners, &[])
    }
}

/// Whether a connection to `ip` ends at a listener on `own`.
fn reaches(ip: IpAddr, own: IpAddr) -> bool {
    let (ip, own) = (ip.to_canonical(), own.to_canonical());
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
        assert_eq!(destination("Tiles.Example.", 443).unwrap().to_string(), "tiles.example:443");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for host in [
            "a b",
            "a\0b",
            "a/b",
            "ä.example",
            ".a",
            "a..b",
            "a@b",
            "127.1",
            "1",
            "0x7f.0x1",
            "a.0X",
            "1.2.3.4.5",
            "9.",
            "a..",
        ] {
            assert_eq!(destination(host, 443), Err(BadDestination::Name), "{host:?}");
        }
        for host in ["_dmarc.example", "1.example", "0x1.example", "a.x0", "3com"] {
            assert!(destination(host, 443).is_ok(), "{host:?}");
        }
        // Systems connect to this machine then, past a rule for loopback.
        for host in ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0"] {
            assert_eq!(destination(host, 443), Err(BadDestination::Name), "{host:?}");
        }
        assert_eq!(destination("", 443), Err(BadDestination::Empty));
        assert_eq!(destination("a.example", 0), Err(BadDestination::Port));
    }

    #[test]
    fn our_own_listeners_are_known_by_every_address_that_reaches_them() {
        let own = |listener: &str, host: &str, port| {
            Own::new(vec![listener.parse().unwrap()], &[]).is(&Target::new(host, port).unwrap())
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
    #[test]
    fn our_own_services_are_known_for_tunnels_and_for_datagrams() {
        let own = Own::new(Vec::new(), &["127.0.0.1:9180".parse().unwrap(), "0.0.0.0:53".parse().unwrap()]);
        for (host, port) in [("127.0.0.1", 9180), ("localhost", 9180), ("127.8.8.8", 53)] {
            assert!(own.is(&Target::new(host, port).unwrap()), "{host}:{port}");
        }
        for (address, is) in [
            ("127.0.0.1:9180", true),
            ("[::ffff:127.0.0.1]:9180", true),
            ("127.8.8.8:53", true),
            ("127.0.0.2:9180", false),
            ("127.0.0.1:9181", false),
            ("192.0.2.1:53", false),
        ] {
            assert_eq!(own.serves(address.parse().unwrap()), is, "{address}");
        }
        let listener = Own::new(vec!["127.0.0.1:1080".parse().unwrap()], &[]);
        assert!(!listener.serves("127.0.0.1:1080".parse().unwrap()), "it takes no datagrams");
    }
}
