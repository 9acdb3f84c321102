//! A TCP relay that puts a round trip between client and server, before a lab's proxy or a real one.

mod direction;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::crowd::{Crowd, Live};
use super::gate::Gate;
use crate::core::now;
use direction::{Direction, End};

/// A relay that delivers each byte, FIN and RST half a round trip later, whatever the throughput, and shakes hands in one.
///
/// Since the system's own handshake on loopback takes no time, what a client sends at once arrives after one and a half round trips,
/// as if the client had waited for the handshake, and what a server sends first arrives after two. So a SOCKS5 proxy with user and password is ready after four round trips, and a
/// greeted one after one.
///
/// In each direction of a connection up to 16 MiB are on their way, in up to 1024 pieces: a window that limits the throughput where
/// `bytes per second * round trip / 2` is more. Delays are late by about 0.1 ms, and never early. They need a clock that runs, not
/// a paused one. Dropping the relay ends it, without waiting.
#[derive(Debug)]
pub struct DelayRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    clock_ended: Option<oneshot::Receiver<()>>,
}

/// What a [`DelayRelay`] has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DelayCounters {
    /// Connections of clients.
    pub connections: Live,
    /// Connections that the server did not accept; the clients' were reset.
    pub refused: u64,
    /// Connections that ended with RST from one side, passed on to the other.
    pub resets: u64,
    /// Bytes delivered to the server.
    pub sent: u64,
    /// Bytes delivered to clients.
    pub received: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    gate: Gate,
    line: Line,
    counters: Mutex<(Crowd, DelayCounters)>,
    stop: watch::Sender<bool>,
    reset: watch::Sender<u64>,
}

/// Half a round trip.
#[derive(Debug, Clone)]
pub(super) struct Line {
    clock: Option<Clock>,
    half: Duration,
}

impl Line {
    /// No delay.
    pub(super) fn immediate() -> Self {
        Self { clock: None, half: Duration::ZERO }
    }

    /// When something arrives that was sent at `sent`.
    pub(super) fn due(&self, sent: Instant) -> Instant {
        sent + self.half
    }

    /// Waits until then. Cancel safe.
    pub(super) async fn until(&self, due: Instant) {
        if let Some(clock) = &self.clock {
            clock.until(due).await;
        }
    }
}

impl DelayRelay {
    /// Listens on 127.0.0.1, at a port of the system's choice, for connections to `upstream`.
    ///
    /// # Errors
    /// Without file descriptors or threads.
    pub async fn start(upstream: SocketAddr, round_trip: Duration) -> io::Result<Self> {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), upstream, round_trip).await
    }

    /// The same on another address.
    ///
    /// # Errors
    /// As [`start`](Self::start), or an address that cannot be bound.
    pub async fn start_on(ip: IpAddr, upstream: SocketAddr, round_trip: Duration) -> io::Result<Self> {
        let gate = Gate::bind(SocketAddr::new(ip, 0))?;
        let address = gate.address()?;
        let (clock, clock_ended) = Clock::start()?;
        let shared = Arc::new(Shared {
            upstream,
            gate,
            line: Line { clock: Some(clock), half: round_trip / 2 },
            counters: Mutex::default(),
            stop: watch::Sender::new(false),
            reset: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Arc::clone(&shared)));
        Ok(Self { address, shared, tasks, clock_ended: Some(clock_ended) })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen up to now. Bytes are counted before they can be seen.
    #[must_use]
    pub fn counters(&self) -> DelayCounters {
        let counters = self.shared.counters.lock();
        DelayCounters { connections: counters.0.live(), ..counters.1 }
    }

    /// Refuses new connections, and resets the open ones.
    ///
    /// # Panics
    /// If the system does not let it; Linux does.
    pub fn down(&self) {
        self.refuse(true).expect("a listener can be shut");
        self.shared.reset.send_modify(|count| *count += 1);
    }

    /// Takes connections again, at the same port.
    ///
    /// # Panics
    /// Without file descriptors.
    pub fn up(&self) {
        self.refuse(false).expect("the port was kept and there are file descriptors");
    }

    pub(super) fn refuse(&self, refuse: bool) -> io::Result<()> {
        self.shared.gate.set(refuse)
    }

    pub(super) fn line(&self) -> Line {
        self.shared.line.clone()
    }

    /// Ends all connections and tasks and waits until they are gone.
    ///
    /// # Cancel safety
    /// Once polled, the relay ends even if the future is dropped.
    pub async fn stop(mut self) {
        self.order_stop();
        while self.tasks.join_next().await.is_some() {}
        if let Some(ended) = self.clock_ended.take() {
            // An error is what says that the thread has ended.
            let _ = ended.await;
        }
    }

    fn order_stop(&self) {
        self.shared.stop.send_replace(true);
        if let Some(clock) = &self.shared.line.clock {
            clock.stop();
        }
    }
}

impl Drop for DelayRelay {
    fn drop(&mut self) {
        self.order_stop();
        self.tasks.detach_all();
    }
}

async fn serve(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut connections = JoinSet::new();
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = stop.changed() => {}
            client = shared.gate.accept() => {
                while connections.try_join_next().is_some() {}
                if connections.len() < CONNECTIONS_MAX {
                    connections.spawn(run(Arc::clone(&shared), Arc::new(client)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

/// Leaves the crowd, before the sockets close.
struct Member<'a>(&'a Shared, u64);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.counters.lock().0.leave(self.1);
    }
}

async fn run(shared: Arc<Shared>, client: Arc<TcpStream>) {
    let shared = &*shared;
    let accepted = now();
    let member = Member(shared, shared.counters.lock().0.join(&client));
    let mut resets = shared.reset.subscribe();
    resets.mark_unchanged();
    let line = &shared.line;
    // SYN arrives, and so the server's answer comes back one round trip after the client began.
    line.until(accepted + line.half).await;
    let Ok(Ok(server)) = tokio::time::timeout(DIAL_MAX, TcpStream::connect(shared.upstream)).await else {
        shared.counters.lock().1.refused += 1;
        line.until(accepted + 2 * line.half).await;
        return abort(&[&client], member);
    };
    // Without effect on a socket that its peer has reset already.
    let _ = server.set_nodelay(true);
    let server = Arc::new(server);
    let ended = AtomicBool::new(false);
    let up = Direction { from: &client, to: &server, line, ready: accepted + 2 * line.half, ended: &ended };
    // A server's accept returns with the client's ACK.
    let down = Direction { from: &server, to: &client, ready: accepted + 3 * line.half, ..up };
    let end = tokio::select! {
        end = up.run(|count| shared.counters.lock().1.sent += count) => end,
        end = down.run(|count| shared.counters.lock().1.received += count) => end,
        _ = resets.changed() => End::Reset,
    };
    if end == End::Unwritable {
        line.until(now() + line.half).await;
    }
    if end != End::Both {
        shared.counters.lock().1.resets += 1;
        abort(&[&client, &server], member);
    }
}

/// Closing a socket with SO_LINGER 0 sends RST. The callers own the sockets and drop them next.
fn abort(sockets: &[&TcpStream], member: Member<'_>) {
    drop(member);
    for socket in sockets {
        let _ = socket.set_zero_linger();
    }
}

/// Marks the end of one direction; whether it was the second one.
fn both(ended: &AtomicBool) -> bool {
    ended.swap(true, Ordering::Relaxed)
}

const DIAL_MAX: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 16_384;
