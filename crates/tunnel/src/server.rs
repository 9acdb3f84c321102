//! The listeners: accepts clients, finds out what they speak, and serves them until told to stop.
//!
//! One client is in `session`, what SOCKS means in [`socks`](crate::socks), what the status view shows in `registry` and `counters`.
//! What is deliberately not here: HTTP, datagrams and the relay, which have modules of their own.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};

use crate::{Connector, UdpStats};
use counters::Counters;
pub use counters::{HandshakeFailure, ServerStats};
use destination::Own;
pub use registry::TunnelRow;
pub(crate) use shared::{ClientInfo, Shared, is_remote};

mod check;
mod counters;
pub(crate) mod destination;
mod gone;
mod handshake;
pub(crate) mod linger;
mod listen;
mod registry;
mod session;
mod shared;

/// Takes clients in and relays their bytes through tunnels.
///
/// # Examples
/// ```no_run
/// use keepwarm_tunnel::{Connector, Server};
///
/// # async fn example(connector: Connector) -> std::io::Result<()> {
/// let server = Server::bind(connector)?;
/// println!("curl --proxy socks5h://{} https://example.com/", server.addresses()[0]);
/// let stop = tokio::signal::ctrl_c();
/// let cut_off = server.run(stop, std::time::Duration::from_secs(10)).await;
/// # drop(cut_off); Ok(()) }
/// ```
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// Reads the figures of a server and its live tunnels, also while it runs.
#[derive(Clone)]
pub struct ServerWatch(Arc<Shared>);

impl Server {
    /// [`bind_with`](Self::bind_with) for a process that serves nothing else.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn bind(connector: Connector) -> io::Result<Server> {
        Server::bind_with(connector, &[])
    }

    /// Opens the listeners of the connector's settings. Clients wait in the backlog until [`run`](Self::run).
    ///
    /// `own` is what else this process serves, by TCP or UDP. Where this machine would connect to one of these itself, nobody gets a
    /// tunnel: the service would take him for somebody on this machine.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the settings have no listener, no room for clients, a listener beyond loopback
    /// that asks nobody who he is (none without users does, and a forward never), a user that SOCKS or HTTP cannot express, or a forward
    /// to a listener of this server or to one of `own`; and what the system reports, with the address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn bind_with(connector: Connector, own: &[SocketAddr]) -> io::Result<Server> {
        let config = connector.config();
        check::check(config)?;
        let listeners: Vec<_> =
            config.listen.iter().map(|listen| listen::listen(listen.address)).collect::<io::Result<_>>()?;
        let addresses: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let own = Own::new(addresses.clone(), own);
        check::check_forwards(config, &addresses, &own, |target| connector.is_direct(target))?;
        let shared = Arc::new(Shared::new(connector, own));
        Ok(Server { listeners, addresses, shared })
    }

    /// Where it listens, in the order of the settings; ports that the system chose are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the figures, also while the server runs.
    pub fn watch(&self) -> ServerWatch {
        ServerWatch(self.shared.clone())
    }

    /// Serves until `stop` is ready. Then no client is accepted, handshakes end at once, and tunnels may take `patience` to end by
    /// themselves. Returns how many clients were cut off after it, once every task has ended.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listeners and every connection at once.
    pub async fn run(self, stop: impl Future, patience: Duration) -> usize {
        let Server { listeners, shared, .. } = self;
        let places = Arc::new(Semaphore::new(shared.connector.config().max_clients));
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
                Ok((stream, client)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        clients.spawn(session::serve(stream, client, shared.clone(), place));
                    }
                    Err(_) => Counters::count(&shared.counters.turned_away),
                },
                // The client gave up while it waited in the backlog.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // EMFILE and the like: the connection stays in the backlog, so give others time to end.
                    tracing::warn!(%error, "cannot accept a client of the tunnel: local shortage");
                    let pause = tokio::time::sleep(ACCEPT_PAUSE);
                    tokio::select! { _ = &mut stop => break, () = pause => {} }
                }
            }
        }
        drop(listeners);
        shared.closing.send_replace(true);
        finish(clients, &shared.counters, patience).await
    }
}

impl ServerWatch {
    /// The figures now.
    pub fn stats(&self) -> ServerStats {
        self.0.counters.read(self.0.tunnels.len())
    }

    /// The figures of UDP ASSOCIATE now.
    pub fn udp(&self) -> UdpStats {
        self.0.udp.stats()
    }

    /// The live tunnels, at most `max_tunnels` of them, in no particular order.
    pub fn tunnels(&self) -> Vec<TunnelRow> {
        self.0.tunnels.rows()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerWatch").field(&self.stats()).finish()
    }
}

/// Becomes ready when the server stops, or is gone.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// The next client of any listener; each listener is looked at first in turn.
async fn accept(listeners: &[TcpListener], next: &mut usize) -> io::Result<(TcpStream, ClientInfo)> {
    poll_fn(|cx| {
        for offset in 0..listeners.len() {
            let listener = (*next + offset) % listeners.len();
            if let Poll::Ready(accepted) = listeners[listener].poll_accept(cx) {
                *next = listener + 1;
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, ClientInfo { peer, listener })));
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits for tasks to end, and ends those that take longer. Returns how many of these had something left to do.
async fn finish(mut clients: JoinSet<()>, counters: &Counters, patience: Duration) -> usize {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(patience, all).await.is_ok() {
        return 0;
    }
    let cut_off = counters.unserved();
    clients.shutdown().await;
    cut_off
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a client's task of the tunnel ended by a panic");
    }
}

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
