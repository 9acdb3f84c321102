//! The local HTTP gateway: any program that speaks HTTP/1.1 uses the hot connections, as a prefix of its URLs or as a forward proxy.
//!
//! What a request means is in `route`, who may ask in `guard`, one request in `serve`, one client's connection in `connection`. What is
//! deliberately not here: tunnels (CONNECT), since what goes through them could not use a connection that is open already; upgrades;
//! caching.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};

use crate::{Client, config::GatewayConfig};
use guard::Guard;

mod answer;
mod connection;
mod guard;
mod io_limits;
mod location;
mod options;
mod refusal;
mod route;
mod serve;

/// Listens for HTTP/1.1 and answers with what a [`Client`] gets.
///
/// # Examples
/// ```no_run
/// use keepwarm_https::{Client, Gateway, config::GatewayConfig};
///
/// # async fn example(client: Client) -> std::io::Result<()> {
/// let gateway = Gateway::bind(&GatewayConfig::default(), client)?;
/// println!("curl http://{}/https/tiles.example.com/0/0/0.png", gateway.addresses()[0]);
/// let stop = tokio::signal::ctrl_c();
/// let cut_off = gateway.run(stop, std::time::Duration::from_secs(10)).await;
/// # drop(cut_off); Ok(()) }
/// ```
pub struct Gateway {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    max_clients: usize,
}

/// What all clients' connections have in common.
struct Shared {
    client: Client,
    guard: Guard,
    upgrade: bool,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    clients: AtomicUsize,
    /// Of the clients, those to whom something may still have to be sent.
    unserved: AtomicUsize,
    accepted: AtomicU64,
    turned_away: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    broken: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a gateway does and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Connections of clients that are open; at most [`GatewayConfig::max_clients`].
    pub clients: usize,
    /// Connections of clients that were served.
    pub accepted: u64,
    /// Connections of clients that found the gateway full.
    pub turned_away: u64,
    /// Requests that came, refused ones included.
    pub requests: u64,
    /// Requests that the gateway itself refused: a wrong form, no user, a web page's.
    pub refused: u64,
    /// Requests that got no answer from an origin.
    pub failed: u64,
    /// Answers that ended early after their head.
    pub broken: u64,
}

/// Reads the figures of a gateway while it runs.
#[derive(Clone)]
pub struct GatewayWatch(Arc<Shared>);

impl GatewayWatch {
    /// The figures now.
    pub fn stats(&self) -> GatewayStats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GatewayStats {
            clients: counters.clients.load(Ordering::Relaxed),
            accepted: read(&counters.accepted),
            turned_away: read(&counters.turned_away),
            requests: read(&counters.requests),
            refused: read(&counters.refused),
            failed: read(&counters.failed),
            broken: read(&counters.broken),
        }
    }
}

impl Gateway {
    /// Opens the listeners. Must be called in a tokio runtime. Clients wait in the backlog until [`run`](Self::run).
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the config has no address, an address beyond loopback without users, a user
    /// whose name has a colon (RFC 7617 section 2), or no room for clients; and what the system reports, with the address.
    pub fn bind(config: &GatewayConfig, client: Client) -> io::Result<Gateway> {
        check(config)?;
        let listeners: Vec<_> = config.listen.iter().map(|address| listen(*address)).collect::<io::Result<_>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let guard = Guard::new(&config.users);
        let shared = Shared { client, guard, upgrade: config.upgrade, counters: Counters::default() };
        Ok(Gateway { listeners, addresses, shared: Arc::new(shared), max_clients: config.max_clients })
    }

    /// Where it listens, in the order of the config; ports that the system chose are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the figures, also while the gateway runs.
    pub fn watch(&self) -> GatewayWatch {
        GatewayWatch(self.shared.clone())
    }

    /// Serves until `stop` is ready. Then no connection is accepted, idle ones are closed, and answers under way may take `patience`,
    /// up to the last byte that a client takes. Returns how many were cut off after it, once every task has ended.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listeners and every connection at once.
    pub async fn run(self, stop: impl Future, patience: Duration) -> usize {
        let Gateway { listeners, shared, max_clients, .. } = self;
        let places = Arc::new(Semaphore::new(max_clients));
        let waiting_room = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let closing = watch::Sender::new(false);
        let (mut clients, mut next) = (JoinSet::new(), 0);
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(ended) = clients.join_next() => {
                    note(ended);
                    continue;
                }
                accepted = accept(&listeners, &mut next) => accepted,
            };
            match accepted {
                Ok(stream) => {
                    if let Ok(place) = places.clone().try_acquire_owned() {
                        clients.spawn(connection::serve(stream, shared.clone(), closing.subscribe(), place));
                    } else {
                        Counters::count(&shared.counters.turned_away);
                        // Beyond these a connection is closed without a word.
                        if let Ok(place) = waiting_room.clone().try_acquire_owned() {
                            clients.spawn(connection::turn_away(stream, place));
                        }
                    }
                }
                Err(error) => {
                    // EMFILE and the like: the connection stays in the backlog, so give others time to end.
                    tracing::warn!(%error, "cannot accept a client of the gateway: local shortage");
                    let pause = tokio::time::sleep(ACCEPT_PAUSE);
                    tokio::select! { _ = &mut stop => break, () = pause => {} }
                }
            }
        }
        drop(listeners);
        closing.send_replace(true);
        finish(clients, &shared.counters, patience).await
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl fmt::Debug for GatewayWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GatewayWatch").field(&self.stats()).finish()
    }
}

/// Waits for tasks to end, and ends those that take longer. Returns how many of these were not at the end of their answer.
async fn finish(mut clients: JoinSet<()>, counters: &Counters, patience: Duration) -> usize {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(patience, all).await.is_ok() {
        return 0;
    }
    let cut_off = counters.unserved.load(Ordering::Relaxed);
    clients.shutdown().await;
    cut_off
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection of the gateway ended by a panic");
    }
}

fn check(config: &GatewayConfig) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if config.listen.is_empty() {
        return wrong("the gateway has no address to listen on".to_owned());
    }
    if config.max_clients == 0 || config.max_clients > Semaphore::MAX_PERMITS {
        return wrong(format!("the gateway cannot serve {} clients", config.max_clients));
    }
    let is_open = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    if let Some(address) = config.listen.iter().find(is_open).filter(|_| config.users.is_empty()) {
        return wrong(format!(
            "the gateway on {address} could be used by everyone who reaches it: set users, or listen on a loopback address \
             such as 127.0.0.1:{}",
            address.port()
        ));
    }
    if let Some(user) = config.users.iter().find(|user| user.name.contains(':')) {
        return wrong(format!(
            "user {:?} of the gateway has a colon in the name, which Basic cannot express",
            user.name
        ));
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Without it a restart would wait for connections of the last run to leave TIME_WAIT. On Windows it would share the port.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))
}

/// The next client of any listener; each is looked at first in turn.
async fn accept(listeners: &[TcpListener], next: &mut usize) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for offset in 0..listeners.len() {
            let index = (*next + offset) % listeners.len();
            if let Poll::Ready(accepted) = listeners[index].poll_accept(cx) {
                *next = index + 1;
                return Poll::Ready(accepted.map(|(stream, _)| stream));
            }
        }
        Poll::Pending
    })
    .await
}

/// Connections that wait in the system to be accepted.
const BACKLOG: i32 = 1024;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at a time that are told that the gateway is full.
const TURNED_AWAY_MAX: usize = 64;
