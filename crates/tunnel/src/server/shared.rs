//! What all clients have in common.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use keepwarm_transport::proxy::Target;
use tokio::sync::watch;

use super::{
    counters::Counters,
    destination::Own,
    registry::{Listed, Registry},
};
use crate::{ConnectOptions, Connector, Error, ErrorKind, Side, Stream, udp, users::Users};

/// What all clients have in common.
pub(crate) struct Shared {
    /// Makes their tunnels; has the settings.
    pub(crate) connector: Connector,
    /// Who may come.
    pub(crate) users: Users,
    /// Becomes true when the server stops: idle clients end at once, tunnels get the drain's patience.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) counters: Counters,
    /// Figures of UDP ASSOCIATE.
    pub(crate) udp: Arc<udp::Counters>,
    pub(super) tunnels: Registry,
    own: Own,
}

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// Its address.
    pub(crate) peer: SocketAddr,
    /// Place in [`TunnelConfig::listen`](crate::config::TunnelConfig::listen) of the listener that it came to.
    pub(crate) listener: usize,
}

impl Shared {
    /// For a server that listens on `addresses`.
    pub(crate) fn new(connector: Connector, addresses: Vec<SocketAddr>) -> Shared {
        let users = Users::new(&connector.config().users);
        Shared {
            connector,
            users,
            closing: watch::Sender::new(false),
            counters: Counters::default(),
            udp: Arc::default(),
            tunnels: Registry::default(),
            own: Own::new(addresses),
        }
    }

    /// Makes a tunnel for a client, counts it, and shows it among the live ones. `payload`: what the client sent for the destination
    /// already; it is on its way when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] for a destination that is one of our own listeners; those of the connector.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was begun.
    pub(crate) async fn open(
        &self,
        client: ClientInfo,
        target: Target,
        payload: Bytes,
    ) -> Result<(Stream, Listed<'_>), Error> {
        let sent = payload.len() as u64;
        let made = if self.own.is(&target) {
            let text = format!("tunnel to {target}: it leads back to a listener of this server");
            Err(Error::new(ErrorKind::Rejected, Side::Client, text))
        } else {
            self.connector.connect_with(&target, ConnectOptions { payload, ..ConnectOptions::default() }).await
        };
        match made {
            Ok(tunnel) => {
                Counters::count(&self.counters.tunnels_opened);
                let (stream, live) = tunnel.into_parts();
                let listed = self.tunnels.list(client.peer, live);
                listed.traffic().sent.fetch_add(sent, Ordering::Relaxed);
                Ok((stream, listed))
            }
            Err(error) => {
                self.counters.tunnel_failed(error.kind());
                tracing::debug!(client = %client.peer, %error, "no tunnel for a client");
                Err(error)
            }
        }
    }
}

/// The address that a tunnel's connection has on this side, where it is a socket.
pub(crate) fn local_address(stream: &Stream) -> Option<SocketAddr> {
    let local = |stream: &tokio::net::TcpStream| -> io::Result<SocketAddr> {
        let address = stream.local_addr()?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    stream.as_tcp().and_then(|stream| local(stream).ok())
}
