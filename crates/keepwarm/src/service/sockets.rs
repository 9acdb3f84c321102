//! Sockets that a service manager bound for other listeners than those of DNS.

use std::net::{SocketAddr, TcpListener};

use keepwarm_dns::server::ListenSocket;

/// Takes the socket that listens at this address out of those that were passed, if there is one. What is left is for DNS.
pub fn take_listener(sockets: &mut Vec<ListenSocket>, address: SocketAddr) -> Option<TcpListener> {
    let listens = |socket: &ListenSocket| match socket {
        ListenSocket::Tcp(listener) => listener.local_addr().is_ok_and(|at| at == address) && is_listening(listener),
        ListenSocket::Udp(_) => false,
    };
    match sockets.remove(sockets.iter().position(listens)?) {
        ListenSocket::Tcp(listener) => Some(listener),
        ListenSocket::Udp(_) => None,
    }
}

/// A connection that was passed (`Accept=yes`) has an address too, and takes no further one.
#[cfg(unix)]
fn is_listening(listener: &TcpListener) -> bool {
    rustix::net::sockopt::socket_acceptconn(listener).unwrap_or(false)
}

#[cfg(not(unix))]
fn is_listening(_: &TcpListener) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use std::{net::UdpSocket, os::fd::OwnedFd};

    use super::*;

    #[test]
    fn the_listener_of_an_address_is_taken_and_nothing_else() {
        let (ours, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, elsewhere) = (ours.local_addr().unwrap(), other.local_addr().unwrap());
        let datagrams = UdpSocket::bind(address).unwrap();
        let mut sockets = vec![ListenSocket::Udp(datagrams), ListenSocket::Tcp(other), ListenSocket::Tcp(ours)];
        assert_eq!(take_listener(&mut sockets, address).unwrap().local_addr().unwrap(), address);
        assert!(take_listener(&mut sockets, address).is_none());
        assert_eq!(sockets.len(), 2);

        let connection = std::net::TcpStream::connect(elsewhere).unwrap();
        let local = connection.local_addr().unwrap();
        let mut sockets = vec![ListenSocket::Tcp(OwnedFd::from(connection).into())];
        assert!(take_listener(&mut sockets, local).is_none(), "a connection is no listener");
    }
}
