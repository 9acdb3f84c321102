//! The local HTTP gateway: any program that speaks HTTP/1.1 uses the hot connections, as a prefix of its URLs or as a forward proxy.
//!
//! What a request means is in `route`, who may ask in `guard`, one request in `serve`, one client's connection in `connection`, another
//! config in `reload`. What is deliberately not here: tunnels (CONNECT), since what goes through them could not use a connection that is
//! open already; upgrades; caching.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinError, JoinSet},
};

use crate::{Client, config::GatewayConfig};
use guard::Guard;
use listener::Listener;
pub use reload::PreparedGateway;

mod answer;
mod connection;
mod guard;
mod io_limits;
mod listener;
mod location;
mod options;
mod refusal;
mod reload;
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
    /// Where it listened at first.
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// What all clients' connections have in common.
struct Shared {
    client: Client,
    rules: RwLock<Arc<Rules>>,
    listeners: RwLock<Listeners>,
    /// Told when listeners come or go.
    changed: Notify,
    counters: Counters,
    /// Connections of clients that are served, or about to be.
    taken: AtomicUsize,
    /// Has a permit for the one reload at a time.
    reload: Arc<Semaphore>,
}

/// What requests and clients are let in by.
struct Rules {
    guard: Guard,
    upgrade: bool,
    max_clients: usize,
}

#[derive(Default)]
struct Listeners {
    open: Vec<Arc<Listener>>,
    is_stopped: bool,
}

/// Room for one client, until it is dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Has clients accepted by these listeners and no others.
    fn open(&self, listeners: Vec<Arc<Listener>>) {
        let mut all = self.listeners.write();
        if !all.is_stopped {
            all.open = listeners;
            self.changed.notify_one();
        }
    }

    /// Lets all listeners and their clients go.
    fn stop(&self) {
        let all = std::mem::replace(&mut *self.listeners.write(), Listeners { open: Vec::new(), is_stopped: true });
        all.open.iter().for_each(|listener| listener.door.close());
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    /// Whoever accepts asks for it, and nobody else: between the look and the count nobody takes a place.
    fn place(self: &Arc<Shared>) -> Option<Place> {
        let is_free = self.taken.load(Ordering::Relaxed) < self.rules.read().max_clients;
        is_free.then(|| {
            self.taken.fetch_add(1, Ordering::Relaxed);
            Place(self.clone())
        })
    }
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

/// Reads the figures of a gateway while it runs, and gives it [another config](Self::prepare).
#[derive(Clone)]
pub struct GatewayWatch(Arc<Shared>);

impl GatewayWatch {
    /// Where it listens now, in the order of the config; ports that the system chose are filled in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.listeners.read().open.iter().map(|listener| listener.address).collect()
    }

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
        let gateway = Gateway::closed(client);
        let prepared = gateway.watch().prepare(Some(config))?;
        let addresses = prepared.addresses();
        prepared.apply();
        Ok(Gateway { addresses, ..gateway })
    }

    /// One that listens nowhere until a config is [put in force](GatewayWatch::prepare).
    pub fn closed(client: Client) -> Gateway {
        let shared = Shared {
            client,
            rules: RwLock::new(Arc::new(Rules::new(&GatewayConfig::default()))),
            listeners: RwLock::default(),
            changed: Notify::new(),
            counters: Counters::default(),
            taken: AtomicUsize::new(0),
            reload: Arc::new(Semaphore::new(1)),
        };
        Gateway { addresses: Vec::new(), shared: Arc::new(shared) }
    }

    /// Where it was [bound](Self::bind), in the order of the config; ports that the system chose are filled in. Where it listens after
    /// another config has come is known to [`GatewayWatch::addresses`].
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
        let Gateway { shared, .. } = self;
        let waiting_room = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let mut listeners = shared.listeners.read().open.clone();
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
                () = shared.changed.notified() => {
                    listeners.clone_from(&shared.listeners.read().open);
                    continue;
                }
                accepted = listener::accept(&listeners, &mut next) => accepted,
            };
            match accepted {
                Ok((stream, door)) => {
                    if let Some(place) = shared.place() {
                        clients.spawn(connection::serve(stream, shared.clone(), door, place));
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
        shared.stop();
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

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at a time that are told that the gateway is full.
const TURNED_AWAY_MAX: usize = 64;
