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
    time::Duration,
};

use keepwarm_transport::proxy::Target;
use tokio::sync::watch;

use crate::{
    Connector, UdpStats,
    config::{Listen, TunnelConfig},
};
pub use counters::{HandshakeFailure, ServerStats};
use destination::Own;
use door::Door;
use reception::Reception;
pub use registry::TunnelRow;
pub(crate) use shared::{ClientInfo, Shared, is_remote};
pub(crate) use terms::Terms;

mod check;
mod counters;
pub(crate) mod destination;
mod door;
mod gone;
mod handshake;
pub(crate) mod linger;
mod listen;
mod reception;
mod registry;
pub(crate) mod reload;
mod session;
mod shared;
mod terms;

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
    addresses: Vec<SocketAddr>,
    open: Open,
}

/// Closes the listeners when it is dropped.
struct Open(Arc<Shared>);

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
        let of = connector.clone();
        Server::open(connector, &config, own, |target| of.is_direct(target))
    }

    fn open(
        connector: Connector,
        config: &TunnelConfig,
        own: &[SocketAddr],
        is_direct: impl Fn(&Target) -> bool,
    ) -> io::Result<Server> {
        check::check_any(config)?;
        check::check(config)?;
        let doors: Vec<_> = config.listen.iter().map(Door::open).collect::<io::Result<_>>()?;
        let addresses: Vec<_> = doors.iter().map(|door| door.address()).collect();
        let own = Own::new(addresses.clone(), own);
        check::check_forwards(config, &addresses, &own, is_direct)?;
        let shared = Arc::new(Shared::with(connector, config, own));
        shared.set_doors(doors);
        Ok(Server { addresses, open: Open(shared) })
    }

    /// Where it was told to listen first, in the order of the settings; ports that the system chose are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the figures, also while the server runs.
    pub fn watch(&self) -> ServerWatch {
        ServerWatch(self.open.0.clone())
    }

    /// Serves until `stop` is ready. Then no client is accepted, handshakes end at once, and tunnels may take `patience` to end by
    /// themselves. Returns how many clients were cut off after it, once every task has ended.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listeners and every connection at once.
    pub async fn run(self, stop: impl Future, patience: Duration) -> usize {
        let Server { open, .. } = self;
        let mut reception = Reception::new(Arc::clone(&open.0));
        let mut stop = pin!(stop);
        loop {
            let error = tokio::select! {
                biased;
                _ = &mut stop => break,
                error = poll_fn(|cx| reception.poll(cx)) => error,
            };
            // EMFILE and the like: the connection stays in the backlog, so give others time to end.
            tracing::warn!(%error, "cannot accept a client of the tunnel: local shortage");
            let pause = tokio::time::sleep(ACCEPT_PAUSE);
            tokio::select! { _ = &mut stop => break, () = pause => {} }
        }
        drop(open);
        reception.finish(patience).await
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

    /// The listeners that are served now, with the ports that the system chose, in the order of the settings.
    pub fn listening(&self) -> Vec<Listen> {
        let listen = |door: &Arc<Door>| Listen { address: door.address(), kind: door.listen.kind.clone() };
        self.0.doors().iter().map(listen).collect()
    }

    /// The live tunnels, at most `max_tunnels` of them, in no particular order.
    pub fn tunnels(&self) -> Vec<TunnelRow> {
        self.0.tunnels.rows()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close_doors();
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

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
