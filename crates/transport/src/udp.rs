//! UDP: connected sockets towards upstreams and listening sockets towards clients.
//!
//! What is deliberately not here: which datagram answers which query, and how long a socket is kept.

mod batch;

pub use batch::{BATCH, DatagramBatch, SendQueue};

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::error::{Error, ErrorKind, Phase};

/// How a socket towards an upstream is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// Wanted receive buffer in bytes (`SO_RCVBUF`); the system may cap it. `None` keeps the system's default.
    pub recv_buffer: Option<usize>,
    /// The local address to send from. Default: the system's choice.
    pub bind: Option<IpAddr>,
}

/// Opens a socket connected to `peer`: only datagrams from that address and port come in, and ICMP errors are reported.
///
/// The local port is asked for as port 0. Linux chooses at random within `net.ipv4.ip_local_port_range` (28,232 ports
/// by default) for each datagram socket, from a cryptographic generator; so do OpenBSD, FreeBSD and macOS. That is the
/// random source port of RFC 5452 section 9.2. Windows counts upwards through its range: there the port adds next to
/// nothing, and the id, the question's case and cookies have to do it.
///
/// # Errors
/// What the system reports; [`ErrorKind::PortsExhausted`] when no port is left.
///
/// # Cancel safety
/// Completes at its first poll.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn connect(peer: SocketAddr, options: &UdpOptions) -> Result<UdpSocket, Error> {
    // Connecting a datagram socket only sets the peer: no packet leaves and nothing is waited for.
    let tried = || format!("open udp socket to {peer}");
    let fail = |error| Error::from_io(error, Phase::Connect, tried());
    let socket = new_socket(peer, options.recv_buffer).map_err(fail)?;
    let local = options.bind.unwrap_or(match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let bound = socket.bind(&SocketAddr::new(local, 0).into());
    bound.map_err(|error| explain_bind(error, local, tried()))?;
    match socket.connect(&peer.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // The port is already ours, so this is about the address.
            let happened = "this machine has no address of that family";
            Err(Error::new(ErrorKind::NetworkDown, Phase::Connect, tried(), happened).with_source(error))
        }
        result => result.and_then(|()| UdpSocket::from_std(socket.into())).map_err(fail),
    }
}

/// Listens on `addr`.
///
/// With `reuse_port`, several sockets of this user may hold the same port and the kernel spreads clients over them
/// (`SO_REUSEPORT`); where the system has no such thing it is ignored, and a second socket fails with
/// [`ErrorKind::AddressInUse`]. [`listen_group`] copes with both. An IPv6 socket takes IPv6 only.
/// `recv_buffer` is in bytes, as in [`UdpOptions`].
///
/// # Errors
/// What the system reports, such as [`ErrorKind::AddressInUse`] and
/// [`ErrorKind::Denied`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen(addr: SocketAddr, reuse_port: bool, recv_buffer: Option<usize>) -> Result<UdpSocket, Error> {
    bind(addr, reuse_port, recv_buffer)
        .and_then(UdpSocket::from_std)
        .map_err(|error| Error::from_io(error, Phase::Listen, format!("listen on {addr} (udp)")))
}

/// Opens `count` sockets (at least one) on the same address, for one receive loop each.
///
/// Where the kernel spreads clients (`SO_REUSEPORT` on Linux and Android) each has its own queue; elsewhere they are
/// handles of one socket, and any loop may get any datagram. With port 0 all get the port that the system chose for the
/// first. A port that somebody else holds is refused even when that process allows sharing.
///
/// # Errors
/// See [`listen`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen_group(addr: SocketAddr, count: usize, recv_buffer: Option<usize>) -> Result<Vec<UdpSocket>, Error> {
    let fail = |error| Error::from_io(error, Phase::Listen, format!("listen on {addr} (udp)"));
    // Without sharing, binding fails when anybody holds the port: two daemons must not split the clients between them.
    let first = bind(addr, false, recv_buffer).map_err(fail)?;
    if KERNEL_SPREADS {
        let addr = first.local_addr().map_err(fail)?;
        drop(first);
        return (0..count.max(1)).map(|_| listen(addr, true, recv_buffer)).collect();
    }
    (0..count.max(1)).map(|_| UdpSocket::from_std(first.try_clone()?)).collect::<Result<_, _>>().map_err(fail)
}

fn bind(addr: SocketAddr, reuse_port: bool, recv_buffer: Option<usize>) -> io::Result<std::net::UdpSocket> {
    let socket = new_socket(addr, recv_buffer)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reuse_port {
        share_port(&SockRef::from(&socket))?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn new_socket(addr: SocketAddr, recv_buffer: Option<usize>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(socket)
}

/// What a failed bind to an address of the config and port 0 means. The code for "that address is not ours" is also that
/// for "no port is left" of connect(2), which would send the operator looking in the wrong place.
pub(crate) fn explain_bind(error: io::Error, local: IpAddr, tried: String) -> Error {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        let happened = format!("the bind address {local} is not an address of this machine");
        return Error::new(ErrorKind::Other, Phase::Connect, tried, happened).with_source(error);
    }
    Error::from_io(error, Phase::Connect, tried)
}

/// Whether nothing can be sent to `peer` for want of an address to send from. Linux reports that with the same code as a
/// want of ports where IPv6 is turned off; connecting a datagram socket, which sends nothing, tells the two apart.
pub(crate) fn lacks_source_address(peer: SocketAddr) -> bool {
    let connected = new_socket(peer, None).and_then(|socket| socket.connect(&peer.into()));
    connected.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Sets `SO_REUSEPORT` where it spreads the load. Elsewhere sharing a port would at best be useless (BSD hands all to the
/// last socket) and at worst let another process take clients over (Windows).
pub(crate) fn share_port(socket: &SockRef<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_reuse_port(true)?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = socket;
    Ok(())
}

/// Whether the kernel spreads datagrams and connections over sockets that share a port.
pub(crate) const KERNEL_SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::error::Side;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn only_the_peer_is_heard() {
        let server = listen(LOOPBACK, false, Some(1 << 16)).unwrap();
        let stranger = listen(LOOPBACK, false, None).unwrap();
        let client = connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap();
        let client_addr = client.local_addr().unwrap();
        stranger.send_to(b"forged", client_addr).await.unwrap();
        server.send_to(b"real", client_addr).await.unwrap();
        let mut buffer = [0; 16];
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"real");
    }

    #[tokio::test]
    async fn ports_differ_from_socket_to_socket() {
        let server = listen(LOOPBACK, false, None).unwrap();
        let mut sockets = Vec::new();
        for _ in 0..32 {
            sockets.push(connect(server.local_addr().unwrap(), &UdpOptions::default()).await.unwrap());
        }
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        #[cfg(target_os = "linux")]
        assert!(
            ports.windows(2).any(|pair| pair[1] != pair[0] + 1 && pair[1] != pair[0] + 2),
            "ports count up: {ports:?}"
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused() {
        let gone = listen(LOOPBACK, false, None).unwrap().local_addr().unwrap();
        let client = connect(gone, &UdpOptions::default()).await.unwrap();
        client.send(b"?").await.unwrap();
        let error = client.recv(&mut [0; 16]).await.unwrap_err();
        let error = Error::from_io(error, Phase::Read, format!("query to {gone}"));
        assert_eq!((error.kind(), error.side()), (ErrorKind::Refused, Side::Upstream));
    }

    #[tokio::test]
    async fn a_bind_address_that_is_not_ours_is_not_called_a_shortage() {
        let bind = Some("192.0.2.7".parse().unwrap());
        let error =
            connect("192.0.2.1:53".parse().unwrap(), &UdpOptions { bind, ..Default::default() }).await.unwrap_err();
        assert_eq!(error.side(), Side::Local);
        assert!(error.to_string().contains("192.0.2.7 is not an address of this machine"), "{error}");
    }

    #[tokio::test]
    async fn a_group_shares_its_port_and_nobody_else_may_join() {
        let group = listen_group(LOOPBACK, 3, None).unwrap();
        let addr = group[0].local_addr().unwrap();
        assert!(group.iter().all(|socket| socket.local_addr().unwrap() == addr));
        let error = listen_group(addr, 2, None).unwrap_err();
        assert_eq!((error.kind(), error.side(), error.phase()), (ErrorKind::AddressInUse, Side::Local, Phase::Listen));
        assert_eq!(error.to_string(), format!("listen on {addr} (udp): address already in use"));
    }

    #[tokio::test]
    async fn every_datagram_reaches_one_of_the_group() {
        let group = listen_group(LOOPBACK, 4, None).unwrap();
        let addr = group[0].local_addr().unwrap();
        for number in 0..32_u8 {
            connect(addr, &UdpOptions::default()).await.unwrap().send(&[number]).await.unwrap();
        }
        let (found, mut seen) = tokio::sync::mpsc::channel(32);
        for socket in group {
            let found = found.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1];
                while socket.recv(&mut buffer).await.is_ok() && found.send(buffer[0]).await.is_ok() {}
            });
        }
        let mut distinct = HashSet::new();
        while distinct.len() < 32 {
            distinct.insert(seen.recv().await.unwrap());
        }
    }
}
