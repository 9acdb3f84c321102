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

    /// What is spoken by this kind of socket alone, of those of `transport`.
    fn alone(self, transport: ListenTransport) -> ListenTransport {
        match (self, transport) {
            (Kind::Udp, ListenTransport::Plain) => ListenTransport::Udp,
            (Kind::Tcp, ListenTransport::Plain) => ListenTransport::Tcp,
            (_, transport) => transport,
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
    let mut left = Left(old.iter().map(|bound| (bound.clone(), Kind::of(bound.wanted.transport).to_vec())).collect());
    // Those that are as they were come first, so that nobody else takes their sockets.
    let exact: Vec<Option<Bound>> = listen.iter().map(|listen| left.exact(listen)).collect();
    let workers = runtimes.len();
    let mut rebinding =
        Rebinding { binding: Binding::new(workers), closed: Vec::new(), opened: Vec::new(), undone: false };
    let mut turning = Vec::new();
    for (listen, exact) in listen.iter().zip(exact) {
        if let Some(known) = exact {
            rebinding.binding.push(listen, kept(&known.listen, workers));
            continue;
        }
        let address = left.address(listen);
        if let Some(address) = address.filter(|address| left.turns(*address, listen.transport)) {
            turning.push(address);
            continue;
        }
        let now = Listen { address: address.unwrap_or(listen.address), ..listen.clone() };
        let missing =
            Kind::of(listen.transport).iter().copied().filter(|kind| !left.take(now.address, *kind)).collect();
        rebinding.binding.push(listen, renewed(&now, missing, runtimes)?);
        rebinding.opened.push(listen.clone());
    }
    // After those that take something of the same address.
    for address in turning {
        rebinding.undone = true;
        for bound in left.all(address) {
            rebinding.binding.push(&bound.wanted, kept(&bound.listen, workers));
        }
    }
    rebinding.closed = left.0.into_iter().filter(|(_, kinds)| !kinds.is_empty()).map(|(bound, _)| bound).collect();
    Ok(rebinding)
}

/// A listener with new sockets of these kinds only.
fn renewed(listen: &Listen, kinds: Vec<Kind>, runtimes: &[Handle]) -> Result<Vec<Sockets>, StartError> {
    if kinds.len() == Kind::of(listen.transport).len() {
        let Binding { sockets, .. } = bind(std::slice::from_ref(listen), Vec::new(), runtimes)?;
        return Ok(sockets.into_iter().flatten().collect());
    }
    let mut sockets = kept(listen, runtimes.len());
    for kind in kinds {
        let alone = Listen { transport: kind.alone(listen.transport), ..listen.clone() };
        let Binding { sockets: new, .. } = bind(&[alone], Vec::new(), runtimes)?;
        for (own, new) in sockets.iter_mut().zip(new.into_iter().flatten()) {
            own.udp = new.udp.or(own.udp.take());
            own.tcp = new.tcp.or(own.tcp.take());
        }
    }
    Ok(sockets)
}

/// Old listeners with the sockets of them that nobody has asked for yet.
struct Left(Vec<(Bound, Vec<Kind>)>);

impl Left {
    /// The old one that is the same, whole.
    fn exact(&mut self, listen: &Listen) -> Option<Bound> {
        let whole = |kinds: &[Kind]| kinds == Kind::of(listen.transport);
        let place = self.0.iter().position(|(bound, kinds)| bound.wanted == *listen && whole(kinds))?;
        Some(self.0.remove(place).0)
    }

    /// Where this is to listen because an old one does: the same address, or one whose port the system chose for the same.
    fn address(&self, listen: &Listen) -> Option<SocketAddr> {
        let chooses = listen.address.port() == 0;
        let fits = |(bound, kinds): &&(Bound, Vec<Kind>)| {
            let shares = Kind::of(listen.transport).iter().any(|kind| kinds.contains(kind));
            [bound.wanted.address, bound.listen.address].contains(&listen.address)
                && !kinds.is_empty()
                && (shares || !chooses)
        };
        self.0.iter().find(fits).map(|(bound, _)| bound.listen.address)
    }

    /// Whether this would need another kind of socket for datagrams than there is.
    fn turns(&self, address: SocketAddr, transport: ListenTransport) -> bool {
        let other = match Kind::of(transport).iter().find(|kind| **kind != Kind::Tcp) {
            Some(Kind::Udp) => Kind::Quic,
            Some(_) => Kind::Udp,
            None => return false,
        };
        self.at(address).any(|(_, kinds)| kinds.contains(&other))
    }

    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &(Bound, Vec<Kind>)> {
        self.0.iter().filter(move |(bound, _)| bound.listen.address == address)
    }

    /// Takes the socket of this kind; whether there was one.
    fn take(&mut self, address: SocketAddr, kind: Kind) -> bool {
        let mut kinds = self.0.iter_mut().filter(|(bound, _)| bound.listen.address == address).map(|(_, kinds)| kinds);
        kinds.any(|kinds| kinds.iter().position(|own| *own == kind).map(|place| kinds.swap_remove(place)).is_some())
    }

    /// Takes all that is left there.
    fn all(&mut self, address: SocketAddr) -> Vec<Bound> {
        let at = |(bound, kinds): &mut (Bound, Vec<Kind>)| bound.listen.address == address && !kinds.is_empty();
        let mut all = Vec::new();
        for (mut bound, kinds) in self.0.extract_if(.., at) {
            if let [kind] = kinds[..] {
                bound.wanted.transport = kind.alone(bound.wanted.transport);
                bound.listen.transport = kind.alone(bound.listen.transport);
            }
            all.push(bound);
        }
        all
    }
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
