//! The listeners: each address bound once a worker, or taken over from whoever started the daemon.

use std::{io, net::SocketAddr};

use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind, Phase},
    quic::server::listen_group as listen_quic_group,
    tcp::{listen as listen_tcp, listen_group as listen_tcp_group},
    udp::{listen as listen_udp, listen_group as listen_udp_group},
};
use socket2::SockRef;
use tokio::runtime::Handle;

use super::StartError;
use crate::config::{Listen, ListenTransport};

/// A socket that was bound before the daemon started, as by systemd.
#[derive(Debug)]
pub enum ListenSocket {
    /// For datagrams.
    Udp(std::net::UdpSocket),
    /// For connections; it listens.
    Tcp(std::net::TcpListener),
}

/// One address's sockets for one worker.
pub(super) struct Sockets {
    /// What is spoken there, with the port that the system chose.
    pub(super) listen: Listen,
    pub(super) udp: Option<std::net::UdpSocket>,
    pub(super) tcp: Option<std::net::TcpListener>,
}

/// What a socket of a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    Quic,
    Tcp,
}

impl Kind {
    /// The sockets that this takes.
    pub(super) fn of(transport: ListenTransport) -> &'static [Kind] {
        match transport {
            ListenTransport::Plain => &[Kind::Udp, Kind::Tcp],
            ListenTransport::Udp => &[Kind::Udp],
            ListenTransport::Tcp | ListenTransport::Tls | ListenTransport::Https => &[Kind::Tcp],
            ListenTransport::H3 | ListenTransport::Quic => &[Kind::Quic],
        }
    }
}

/// A listener as the config has it, and as it is: with the port that the system chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) wanted: Listen,
    pub(super) listen: Listen,
}

/// Sockets for each worker, and whose they are.
pub(super) struct Binding {
    pub(super) sockets: Vec<Vec<Sockets>>,
    pub(super) bound: Vec<Bound>,
}

impl Binding {
    pub(super) fn new(workers: usize) -> Binding {
        Binding { sockets: (0..workers).map(|_| Vec::new()).collect(), bound: Vec::new() }
    }

    fn push(&mut self, wanted: &Listen, sockets: Vec<Sockets>) {
        self.bound.push(Bound { wanted: wanted.clone(), listen: sockets[0].listen.clone() });
        self.sockets.iter_mut().zip(sockets).for_each(|(own, sockets)| own.push(sockets));
    }
}

/// Has each address once a worker, bound here or `passed` in; the sockets belong to no runtime yet.
pub(super) fn bind(listen: &[Listen], passed: Vec<ListenSocket>, runtimes: &[Handle]) -> Result<Binding, StartError> {
    let _guard = runtimes[0].enter();
    let mut binding = Binding::new(runtimes.len());
    let mut passed = Passed(passed);
    for listen in listen {
        let mut tries = 0;
        let sockets = loop {
            match bind_one(listen, &mut passed, runtimes.len()) {
                // The port that the system chose for UDP may be taken over TCP: let it choose again.
                Err(StartError::Listen(error))
                    if listen.address.port() == 0
                        && error.kind() == TransportKind::AddressInUse
                        && tries < PORT_TRIES =>
                {
                    tries += 1;
                }
                other => break other?,
            }
        };
        binding.push(listen, sockets);
    }
    passed.none_left()?;
    Ok(binding)
}

/// What becomes of the listeners of a server whose config changes.
pub(super) struct Rebinding {
    pub(super) binding: Binding,
    /// Listeners of the old config that nobody comes in by any more.
    pub(super) closed: Vec<Bound>,
    /// The new config's, where they are other than before.
    pub(super) opened: Vec<Listen>,
    /// Where a socket for datagrams would have to be given up for another on the same port, all stays as it is.
    pub(super) undone: bool,
}

/// As [`bind`], with the sockets of `old` where they serve: those have no socket here.
pub(super) fn rebind(listen: &[Listen], old: &[Bound], runtimes: &[Handle]) -> Result<Rebinding, StartError> {
    let mut left = old.to_vec();
    let mut take = |fits: &dyn Fn(&Bound) -> bool| left.iter().position(fits).map(|place| left.remove(place));
    // Those that are as they were come first, so that nobody else takes their sockets.
    let mut known: Vec<Option<Bound>> = listen.iter().map(|listen| take(&|bound| bound.wanted == *listen)).collect();
    for (listen, known) in listen.iter().zip(&mut known) {
        if known.is_none() {
            *known = take(&|bound| [bound.wanted.address, bound.listen.address].contains(&listen.address));
        }
    }
    let workers = runtimes.len();
    let mut rebinding = Rebinding { binding: Binding::new(workers), closed: left, opened: Vec::new(), undone: false };
    for (listen, known) in listen.iter().zip(known) {
        let Some(known) = known else {
            let Binding { sockets, bound } = bind(std::slice::from_ref(listen), Vec::new(), runtimes)?;
            rebinding.binding.bound.extend(bound);
            rebinding.binding.sockets.iter_mut().zip(sockets).for_each(|(own, sockets)| own.extend(sockets));
            rebinding.opened.push(listen.clone());
            continue;
        };
        if turns(known.wanted.transport, listen.transport) {
            rebinding.undone = true;
            rebinding.binding.push(&known.wanted, kept(&known.listen, workers));
            continue;
        }
        let now = Listen { address: known.listen.address, ..listen.clone() };
        let (had, wants) = (Kind::of(known.wanted.transport), Kind::of(listen.transport));
        let mut sockets = kept(&now, workers);
        for kind in wants.iter().filter(|kind| !had.contains(kind)) {
            let transport = if *kind == Kind::Tcp { ListenTransport::Tcp } else { listen.transport };
            let transport = if *kind == Kind::Udp { ListenTransport::Udp } else { transport };
            let alone = Listen { transport, ..now.clone() };
            let Binding { sockets: new, .. } = bind(&[alone], Vec::new(), runtimes)?;
            for (own, new) in sockets.iter_mut().zip(new.into_iter().flatten()) {
                own.udp = new.udp.or(own.udp.take());
                own.tcp = new.tcp.or(own.tcp.take());
            }
        }
        if known.wanted != *listen {
            rebinding.opened.push(listen.clone());
        }
        rebinding.binding.push(listen, sockets);
    }
    Ok(rebinding)
}

/// Whether one needs another kind of socket for datagrams than the other has on the same port.
fn turns(before: ListenTransport, after: ListenTransport) -> bool {
    let datagrams = |transport| Kind::of(transport).iter().find(|kind| **kind != Kind::Tcp);
    datagrams(before).zip(datagrams(after)).is_some_and(|(before, after)| before != after)
}

fn kept(listen: &Listen, workers: usize) -> Vec<Sockets> {
    (0..workers).map(|_| Sockets { listen: listen.clone(), udp: None, tcp: None }).collect()
}

fn bind_one(listen: &Listen, passed: &mut Passed, workers: usize) -> Result<Vec<Sockets>, StartError> {
    let mut address = listen.address;
    let mut bound: Vec<Sockets> =
        (0..workers).map(|_| Sockets { listen: listen.clone(), udp: None, tcp: None }).collect();
    if listen.transport.over_udp() {
        let is_quic = matches!(listen.transport, ListenTransport::H3 | ListenTransport::Quic);
        let (share, listen_group) = if is_quic {
            (share_quic as Share, listen_quic_group as Group)
        } else {
            (share_udp as Share, listen_udp_group as Group)
        };
        let group = match passed.udp(address) {
            Some(socket) => share(socket, address, workers).map_err(|error| taking_over(error, address, "udp"))?,
            None => listen_group(address, workers, Some(LISTEN_BUFFER))
                .map_err(StartError::Listen)?
                .into_iter()
                .map(tokio::net::UdpSocket::into_std)
                .collect::<Result<_, _>>()
                .map_err(StartError::Runtime)?,
        };
        for (sockets, socket) in bound.iter_mut().zip(group) {
            address = socket.local_addr().map_err(StartError::Runtime)?;
            sockets.udp = Some(socket);
        }
    }
    if listen.transport.over_tcp() {
        let group = match passed.tcp(address) {
            Some(socket) => share_tcp(socket, address, workers).map_err(|error| taking_over(error, address, "tcp"))?,
            None => listen_tcp_group(address, workers, LISTEN_BACKLOG)
                .map_err(StartError::Listen)?
                .into_iter()
                .map(tokio::net::TcpListener::into_std)
                .collect::<Result<_, _>>()
                .map_err(StartError::Runtime)?,
        };
        for (sockets, listener) in bound.iter_mut().zip(group) {
            address = listener.local_addr().map_err(StartError::Runtime)?;
            sockets.tcp = Some(listener);
        }
    }
    bound.iter_mut().for_each(|sockets| sockets.listen.address = address);
    Ok(bound)
}

/// Sockets that no listener has asked for yet.
struct Passed(Vec<ListenSocket>);

impl Passed {
    fn udp(&mut self, address: SocketAddr) -> Option<std::net::UdpSocket> {
        let is_it = |socket: &ListenSocket| matches!(socket, ListenSocket::Udp(_)) && socket.address() == Some(address);
        match self.0.swap_remove(self.0.iter().position(is_it)?) {
            ListenSocket::Udp(socket) => Some(socket),
            ListenSocket::Tcp(_) => None,
        }
    }

    fn tcp(&mut self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let is_it = |socket: &ListenSocket| matches!(socket, ListenSocket::Tcp(_)) && socket.address() == Some(address);
        match self.0.swap_remove(self.0.iter().position(is_it)?) {
            ListenSocket::Tcp(listener) => Some(listener),
            ListenSocket::Udp(_) => None,
        }
    }

    /// A socket that nobody serves would leave its clients without an answer and without an error.
    fn none_left(self) -> Result<(), StartError> {
        self.0.into_iter().next().map_or(Ok(()), |socket| Err(StartError::PassedSocket(socket.to_string())))
    }
}

impl ListenSocket {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            ListenSocket::Udp(socket) => socket.local_addr().ok(),
            ListenSocket::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

impl std::fmt::Display for ListenSocket {
    /// The address and `udp` or `tcp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if matches!(self, ListenSocket::Udp(_)) { "udp" } else { "tcp" };
        match self.address() {
            Some(address) => write!(f, "{address} ({protocol})"),
            None => write!(f, "a socket without an address ({protocol})"),
        }
    }
}

/// A socket for each worker. One that allows sharing its port gets siblings, over which the kernel spreads datagrams;
/// where that cannot be had, all have handles of the same, and are woken together.
fn share_udp(socket: std::net::UdpSocket, address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    socket.set_nonblocking(true)?;
    let mut group = Vec::with_capacity(workers);
    for _ in 1..workers {
        let sibling = shares_port(&SockRef::from(&socket))
            .then(|| listen_udp(address, true, Some(LISTEN_BUFFER)).ok()?.into_std().ok())
            .flatten();
        group.push(sibling.map_or_else(|| socket.try_clone(), Ok)?);
    }
    group.push(socket);
    Ok(group)
}

/// As [`share_udp`], for QUIC: all packets of a connection have to reach the same worker, so where the kernel does not see to
/// that, one worker has them all.
fn share_quic(
    socket: std::net::UdpSocket,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<std::net::UdpSocket>> {
    socket.set_nonblocking(true)?;
    let siblings = if shares_port(&SockRef::from(&socket)) { workers - 1 } else { 0 };
    let sibling = || listen_udp(address, true, Some(LISTEN_BUFFER)).ok()?.into_std().ok();
    let group = (0..siblings).map_while(|_| sibling());
    Ok(group.chain(std::iter::once(socket)).collect())
}

/// As [`share_udp`], for connections.
fn share_tcp(
    socket: std::net::TcpListener,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    if !is_listener(&SockRef::from(&socket)) {
        return Err(io::Error::other("it is a connection, not a listener (systemd: Accept=no)"));
    }
    socket.set_nonblocking(true)?;
    let mut group = Vec::with_capacity(workers);
    for _ in 1..workers {
        let sibling = shares_port(&SockRef::from(&socket))
            .then(|| listen_tcp(address, true, LISTEN_BACKLOG).ok()?.into_std().ok())
            .flatten();
        group.push(sibling.map_or_else(|| socket.try_clone(), Ok)?);
    }
    group.push(socket);
    Ok(group)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn shares_port(socket: &SockRef<'_>) -> bool {
    socket.reuse_port().unwrap_or(false)
}

/// Elsewhere the kernel does not spread the load over sockets that share a port.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn shares_port(_: &SockRef<'_>) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn is_listener(socket: &SockRef<'_>) -> bool {
    socket.is_listener().unwrap_or(true)
}

/// Not every system tells; accepting then says so.
#[cfg(not(target_os = "linux"))]
fn is_listener(_: &SockRef<'_>) -> bool {
    true
}

type Share = fn(std::net::UdpSocket, SocketAddr, usize) -> io::Result<Vec<std::net::UdpSocket>>;
type Group = fn(SocketAddr, usize, Option<usize>) -> Result<Vec<tokio::net::UdpSocket>, TransportError>;

fn taking_over(error: io::Error, address: SocketAddr, protocol: &str) -> StartError {
    let tried = format!("take over the socket of {address} ({protocol})");
    StartError::Listen(TransportError::from_io(error, Phase::Listen, tried))
}

/// Receive buffer of a listener: bursts of a thousand clients are not lost (the system may give less).
const LISTEN_BUFFER: usize = 4 * 1024 * 1024;

const LISTEN_BACKLOG: u32 = 1024;

/// How often the system is asked for another port.
const PORT_TRIES: usize = 16;
