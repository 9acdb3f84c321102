//! Tunnels in the daemon: the connector, its listeners, and their orderly end.
//!
//! What is deliberately not here: what is shown of them (`snapshots`).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use keepwarm_transport::{
    network::{Change, Changes},
    resolve::Resolve,
};
use keepwarm_tunnel::{
    Connector, Server, ServerWatch,
    config::{Listen, TunnelConfig},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{cli::Unavailable, config::words::io_words};

/// A connector and its listeners while they run.
pub(super) struct Tunnels {
    view: TunnelView,
    /// Ends with the number of clients that were cut off.
    server: Option<JoinHandle<usize>>,
    network: JoinHandle<()>,
}

/// What of it the status endpoint shows.
#[derive(Debug, Clone)]
pub struct TunnelView {
    pub(super) connector: Connector,
    /// What is known of its clients; none where there was no listener at the start.
    pub(super) server: Option<ServerWatch>,
}

impl Tunnels {
    /// Starts to keep spares and to listen. The listeners stop accepting once `stopped` changes or its sender is gone. `own`: what else
    /// the daemon serves, which no client is led to.
    ///
    /// # Errors
    /// [`Unavailable`] when an address cannot be listened on.
    pub(super) fn start(
        config: TunnelConfig,
        resolver: Arc<dyn Resolve>,
        own: &[SocketAddr],
        stopped: &watch::Receiver<()>,
    ) -> anyhow::Result<Tunnels> {
        let listen = config.listen.clone();
        let connector = Connector::new(config, resolver).context("start tunnels")?;
        let mut view = TunnelView { connector: connector.clone(), server: None };
        let mut task = None;
        if !listen.is_empty() {
            let server = Server::bind_with(connector.clone(), own).map_err(|error| cannot_bind(&error))?;
            let watch = server.watch();
            for Listen { address, kind } in watch.listening() {
                tracing::info!(%address, kind = kind.as_str(), "tunnel listens");
            }
            view.server = Some(watch);
            let mut stopped = stopped.clone();
            let stop = async move { drop(stopped.changed().await) };
            task = Some(tokio::spawn(server.run(stop, super::DRAIN)));
        }
        Ok(Tunnels { view, server: task, network: tokio::spawn(watch_network(connector)) })
    }

    pub(super) fn view(&self) -> TunnelView {
        self.view.clone()
    }

    /// Lets tunnels end by themselves for a while, after the listeners were told to stop, and closes the spares. Returns how many clients
    /// were cut off.
    pub(super) async fn stop(self) -> usize {
        let cut = match self.server {
            Some(server) => server.await.unwrap_or_default(),
            None => 0,
        };
        self.network.abort();
        // What is left has nobody who waits for it.
        drop(tokio::time::timeout(LINGER, self.view.connector.close()).await);
        cut
    }
}

fn cannot_bind(error: &io::Error) -> Unavailable {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port: stop it, or change tunnel.listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    Unavailable(format!("tunnel: {}{remedy}", io_words(error)))
}

async fn watch_network(connector: Connector) {
    let mut changes = Changes::new();
    loop {
        let Change { turned, slept } = changes.next(|| connector.peers()).await;
        tracing::info!(proxy_addresses = turned, ?slept, "the network changed: spares are given up");
        connector.network_changed();
    }
}

/// For how long spares may take to close.
const LINGER: Duration = Duration::from_millis(500);
