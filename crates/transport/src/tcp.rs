//! TCP: connecting by happy eyeballs (RFC 8305) under one deadline, and listening with a shared port.
//!
//! What is deliberately not here: name lookup (the caller brings addresses) and anything that is sent.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::error::{Error, ErrorKind, Phase};

/// How a connection is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    /// Sends small writes at once (`TCP_NODELAY`). Default `true`: queries are small and wait for nothing.
    pub nodelay: bool,
    /// Probes a silent connection after this time (`SO_KEEPALIVE`), so that a NAT keeps it and a dead peer is noticed.
    /// `None` leaves it off. Default 60 s.
    pub keepalive: Option<Duration>,
    /// The local address to connect from; addresses of the other family are then left out. Default: the system's choice.
    /// It costs ports: the system then picks one before it knows the destination, so none is used twice at a time.
    pub bind: Option<IpAddr>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions { nodelay: true, keepalive: Some(Duration::from_secs(60)), bind: None }
    }
}

impl TcpOptions {
    /// Whether the bind address is of its family.
    fn reaches(&self, addr: SocketAddr) -> bool {
        self.bind.is_none_or(|bind| bind.is_ipv4() == addr.is_ipv4())
    }
}

/// How a connection came about.
#[derive(Debug, Clone)]
pub struct ConnectTrace {
    /// The address that answered first.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Connections attempted, this one included.
    pub attempts: usize,
    /// Attempts that had failed by then, with their reason.
    pub failed: Vec<(SocketAddr, Error)>,
    /// Time from the first attempt to the connection.
    pub elapsed: Duration,
    /// The TCP handshake of the attempt that won: one round trip.
    pub handshake: Duration,
}

/// Connects to the first of `addrs` that answers.
///
/// Families are interleaved, starting with that of the first address (RFC 8305 section 4). The next attempt starts
/// [`ATTEMPT_DELAY`] after the one before it, or at once when an attempt has failed (section 5); the losers are closed.
/// No more than [`ADDRESSES_MAX`] addresses are tried.
///
/// # Errors
/// The most telling failure of all attempts: a shortage on this machine first, then what an upstream did, then a
/// missing route. [`ErrorKind::TimedOut`] at `deadline`. [`ErrorKind::Resolve`] when `addrs` is empty.
///
/// # Cancel safety
/// Dropping the future closes all attempts.
pub async fn connect(
    addrs: &[SocketAddr],
    options: &TcpOptions,
    deadline: Instant,
) -> Result<(TcpStream, ConnectTrace), Error> {
    match addrs {
        [only] if options.reaches(*only) => connect_to(*only, options, deadline).await,
        // Boxed, so that whoever connects to one address need not have room for a race.
        _ => Box::pin(race(addrs, options, deadline)).await,
    }
}

/// Tries one after another until one answers.
async fn race(
    addrs: &[SocketAddr],
    options: &TcpOptions,
    deadline: Instant,
) -> Result<(TcpStream, ConnectTrace), Error> {
    let mut waiting = candidates(addrs, options)?;
    let start = tokio::time::Instant::now();
    let mut trying = FuturesUnordered::new();
    let mut attempts = 0;
    let mut failed = Vec::new();
    let mut expired = pin!(tokio::time::sleep_until(deadline.into()));
    loop {
        if let Some(addr) = waiting.pop_front() {
            attempts += 1;
            trying.push(attempt(addr, options));
        }
        let next_attempt = tokio::time::sleep(ATTEMPT_DELAY);
        tokio::select! {
            biased;
            Some((peer, result)) = trying.next() => match result {
                Ok((stream, local, handshake)) => {
                    let trace = ConnectTrace { peer, local, attempts, failed, elapsed: start.elapsed(), handshake };
                    return Ok((stream, trace));
                }
                Err(error) => {
                    failed.push((peer, error));
                    if trying.is_empty() && waiting.is_empty() {
                        return Err(most_telling(failed));
                    }
                }
            },
            () = &mut expired => return Err(timed_out(addrs, failed, start.elapsed())),
            () = next_attempt, if !waiting.is_empty() => {}
        }
    }
}

/// The same for a host with one address, which takes half the work: most have been looked up or chosen before.
async fn connect_to(
    peer: SocketAddr,
    options: &TcpOptions,
    deadline: Instant,
) -> Result<(TcpStream, ConnectTrace), Error> {
    let start = tokio::time::Instant::now();
    match tokio::time::timeout_at(deadline.into(), attempt(peer, options)).await {
        Ok((_, Ok((stream, local, handshake)))) => {
            let trace = ConnectTrace { peer, local, attempts: 1, failed: Vec::new(), elapsed: handshake, handshake };
            Ok((stream, trace))
        }
        Ok((_, Err(error))) => Err(error),
        Err(_) => Err(timed_out(&[peer], Vec::new(), start.elapsed())),
    }
}

/// Listens on `addr`.
///
/// With `reuse_port`, several listeners of this user may hold the same port and the kernel spreads connections over
/// them (`SO_REUSEPORT`); where the system has no such thing it is ignored, and a second listener fails with
/// [`ErrorKind::AddressInUse`]. [`listen_group`] copes with both. An IPv6 listener takes IPv6 only.
///
/// # Errors
/// What the system reports, such as [`ErrorKind::AddressInUse`] and [`ErrorKind::Denied`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen(addr: SocketAddr, reuse_port: bool, backlog: u32) -> Result<TcpListener, Error> {
    let tried = || format!("listen on {addr} (tcp)");
    let socket = bind(addr, reuse_port).map_err(|error| Error::from_io(error, Phase::Listen, tried()))?;
    socket.listen(backlog).map_err(|error| Error::from_io(error, Phase::Listen, tried()))
}

/// Opens `count` listeners (at least one) on the same address, for one accept loop each.
///
/// Where the kernel spreads connections (`SO_REUSEPORT` on Linux and Android) each has its own queue; elsewhere they
/// are handles of one socket. With port 0 all get the port that the system chose for the first. A port that somebody
/// else listens on is refused even when that process allows sharing.
///
/// # Errors
/// See [`listen`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen_group(addr: SocketAddr, count: usize, backlog: u32) -> Result<Vec<TcpListener>, Error> {
    let fail = |error| Error::from_io(error, Phase::Listen, format!("listen on {addr} (tcp)"));
    if !crate::udp::KERNEL_SPREADS {
        let first = listen(addr, false, backlog)?.into_std().map_err(fail)?;
        return (0..count.max(1))
            .map(|_| TcpListener::from_std(first.try_clone()?))
            .collect::<Result<_, _>>()
            .map_err(fail);
    }
    // Without sharing, binding fails when anybody listens there: two daemons must not split the clients between them.
    let addr = bind(addr, false).and_then(|probe| probe.local_addr()).map_err(fail)?;
    (0..count.max(1)).map(|_| listen(addr, true, backlog)).collect()
}

fn bind(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if addr.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    // Connections of a daemon that was just restarted linger in TIME_WAIT. On Windows the option would mean sharing.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    if reuse_port {
        crate::udp::share_port(&SockRef::from(&socket))?;
    }
    socket.bind(addr)?;
    Ok(socket)
}

/// Interleaves the families, keeping the order within each, and leaves out what the bind address cannot reach.
pub(crate) fn candidates(addrs: &[SocketAddr], options: &TcpOptions) -> Result<VecDeque<SocketAddr>, Error> {
    let usable = |addr: &&SocketAddr| options.reaches(**addr);
    let Some(first) = addrs.iter().find(usable) else {
        let tried = match addrs.first() {
            Some(addr) => format!("connect to {addr}"),
            None => "connect".to_owned(),
        };
        return Err(match options.bind {
            Some(bind) if !addrs.is_empty() => {
                let happened = format!("no address of the family of the bind address {bind}");
                Error::new(ErrorKind::NetworkDown, Phase::Connect, tried, happened)
            }
            _ => Error::new(ErrorKind::Resolve, Phase::Resolve, tried, "no address to connect to"),
        });
    };
    let (mut first_family, mut second_family): (VecDeque<SocketAddr>, VecDeque<SocketAddr>) =
        addrs.iter().filter(usable).partition(|addr| addr.is_ipv4() == first.is_ipv4());
    let mut order = VecDeque::with_capacity(ADDRESSES_MAX);
    while order.len() < ADDRESSES_MAX {
        let before = order.len();
        order.extend(first_family.pop_front());
        order.extend(second_family.pop_front());
        if order.len() == before {
            break;
        }
    }
    order.truncate(ADDRESSES_MAX);
    Ok(order)
}

async fn attempt(
    peer: SocketAddr,
    options: &TcpOptions,
) -> (SocketAddr, Result<(TcpStream, SocketAddr, Duration), Error>) {
    let start = tokio::time::Instant::now();
    let tried = || format!("connect to {peer}");
    let socket = match open(peer, options) {
        Ok(socket) => socket,
        Err(error) => return (peer, Err(error)),
    };
    let result = match socket.connect(peer).await.and_then(|stream| Ok((stream.local_addr()?, stream))) {
        // With a port of the ephemeral range that nobody listens on, TCP may connect a socket to itself.
        Ok((local, _)) if local == peer => {
            Err(Error::new(ErrorKind::Refused, Phase::Connect, tried(), "connection refused (it was our own socket)"))
        }
        Ok((local, stream)) => Ok((stream, local, start.elapsed())),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && crate::udp::lacks_source_address(peer) => {
            let happened = "this machine has no address of that family";
            Err(Error::new(ErrorKind::NetworkDown, Phase::Connect, tried(), happened).with_source(error))
        }
        Err(error) => Err(Error::from_io(error, Phase::Connect, tried())),
    };
    (peer, result)
}

fn open(peer: SocketAddr, options: &TcpOptions) -> Result<TcpSocket, Error> {
    let prepare = || {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(options.nodelay)?;
        if let Some(idle) = options.keepalive {
            SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        Ok(socket)
    };
    let tried = || format!("connect to {peer}");
    let socket = prepare().map_err(|error| Error::from_io(error, Phase::Connect, tried()))?;
    if let Some(local) = options.bind {
        socket.bind(SocketAddr::new(local, 0)).map_err(|error| crate::udp::explain_bind(error, local, tried()))?;
    }
    Ok(socket)
}

pub(crate) fn most_telling(failed: Vec<(SocketAddr, Error)>) -> Error {
    // `max_by_key` takes the last of equals; reversed, that is the address tried first.
    failed
        .into_iter()
        .rev()
        .map(|(_, error)| error)
        .max_by_key(|error| error.kind().weight())
        .expect("an attempt failed before its error is asked for")
}

fn timed_out(addrs: &[SocketAddr], failed: Vec<(SocketAddr, Error)>, after: Duration) -> Error {
    let shortage = failed.into_iter().map(|(_, error)| error).find(|error| error.kind().weight() == SHORTAGE);
    if let Some(shortage) = shortage {
        return shortage;
    }
    let tried = match addrs {
        [] => "connect".to_owned(),
        [addr] => format!("connect to {addr}"),
        [addr, rest @ ..] => format!("connect to {addr} and {} more", rest.len()),
    };
    Error::timed_out(Phase::Connect, tried, after)
}

/// Time between the starts of two attempts (RFC 8305 section 5, the recommended value).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of a host that are tried, the rest is ignored.
pub const ADDRESSES_MAX: usize = 10;

/// [`ErrorKind::weight`] of a shortage on this machine.
const SHORTAGE: u8 = 3;

#[cfg(test)]
mod tests;
