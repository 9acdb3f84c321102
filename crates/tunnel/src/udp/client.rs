//! Whose datagrams an association takes.

use std::net::{IpAddr, SocketAddr};

/// The client of an association, as far as it is known.
///
/// Its address is that of its TCP connection, whatever it declared: that one is proven by the handshake, and a client behind a NAT
/// declares an address that nobody here has ever seen. Such a client does not know its outer port either, so a declared port counts
/// only where the declared address is the client's own or unspecified. Without a declared port, the port of its first datagram
/// with a whole header is the client's.
#[derive(Debug)]
pub(super) struct Client {
    ip: IpAddr,
    port: Option<u16>,
    /// Where its first datagram came from.
    address: Option<SocketAddr>,
}

impl Client {
    /// `peer` is the other end of the control connection, `declared` DST.ADDR and DST.PORT of its request.
    pub(super) fn new(peer: SocketAddr, declared: SocketAddr) -> Client {
        let (ip, claimed) = (peer.ip().to_canonical(), declared.ip().to_canonical());
        let holds = declared.port() != 0 && (claimed.is_unspecified() || claimed == ip);
        Client { ip, port: holds.then_some(declared.port()), address: None }
    }

    /// Whether a datagram from there is the client's.
    pub(super) fn is(&self, from: SocketAddr) -> bool {
        from.ip().to_canonical() == self.ip && self.port.is_none_or(|port| port == from.port())
    }

    /// Learns where the client sends from; only the first counts.
    pub(super) fn sends_from(&mut self, from: SocketAddr) {
        self.port = Some(from.port());
        self.address.get_or_insert(from);
    }

    /// Where its answers go; `None` before its first datagram.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn is(client: &Client, from: &str) -> bool {
        client.is(address(from))
    }

    #[test]
    fn the_first_port_is_the_clients_where_none_was_declared() {
        for declared in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
            let mut client = Client::new(address("192.0.2.1:40000"), address(declared));
            assert!(is(&client, "192.0.2.1:1000") && is(&client, "192.0.2.1:2000") && !is(&client, "192.0.2.2:1000"));
            assert_eq!(client.address(), None);
            client.sends_from(address("192.0.2.1:1000"));
            assert!(is(&client, "192.0.2.1:1000") && !is(&client, "192.0.2.1:2000") && !is(&client, "192.0.2.2:1000"));
            assert_eq!(client.address(), Some(address("192.0.2.1:1000")));
        }
    }

    #[test]
    fn a_declared_port_holds_from_the_start() {
        for declared in ["0.0.0.0:1000", "192.0.2.1:1000", "[::]:1000", "[::ffff:192.0.2.1]:1000"] {
            let client = Client::new(address("192.0.2.1:40000"), address(declared));
            assert!(is(&client, "192.0.2.1:1000") && !is(&client, "192.0.2.1:2000"), "{declared}");
        }
    }

    #[test]
    fn who_declares_an_address_behind_a_nat_is_known_by_that_of_its_connection() {
        let client = Client::new(address("192.0.2.1:40000"), address("10.0.0.7:1000"));
        assert!(is(&client, "192.0.2.1:2000") && !is(&client, "10.0.0.7:1000"));
    }

    #[test]
    fn an_ipv4_mapped_address_is_that_address() {
        let client = Client::new(address("[::ffff:192.0.2.1]:40000"), address("0.0.0.0:0"));
        assert!(is(&client, "192.0.2.1:1000") && is(&client, "[::ffff:192.0.2.1]:1000"));
    }
}
