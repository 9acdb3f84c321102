//! UDP: connected sockets towards upstreams and listening sockets towards clients.
//!
//! What is deliberately not here: which datagram answers which query, and how long a socket is kept.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::error::{Error, Phase};

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
/// What the system reports; [`ErrorKind::PortsExhausted`](crate::error::ErrorKind::PortsExhausted) when no port is left.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn connect(peer: SocketAddr, options: &UdpOptions) -> Result<UdpSocket, Error> {
    // Connecting a datagram socket only sets the peer: no packet leaves and nothing is waited for.
    open(peer, options).map_err(|error| Error::from_io(error, Phase::Connect, format!("open udp socket to {peer}")))
}

fn open(peer: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
    let socket = new_socket(peer, options.recv_buffer)?;
    let local = options.bind.unwrap_or(match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect(&peer.into())?;
    UdpSocket::from_std(socket.into())
}

/// Listens on `addr`.
///
/// With `reuse_port`, several sockets of this user may hold the same port and the kernel spreads clients over them
/// (`SO_REUSEPORT`); where the system has no such thing it is ignored, and a second socket fails with
/// [`ErrorKind::AddressInUse`](crate::error::ErrorKind::AddressInUse). [`listen_group`] copes with both. An IPv6 socket takes IPv6 only.
/// `recv_buffer` is in bytes, as in [`UdpOptions`].
///
/// # Errors
/// What the system reports, such as [`ErrorKind::AddressInUse`](crate::error::ErrorKind::AddressInUse) and
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied).
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
