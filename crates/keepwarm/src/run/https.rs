//! Hot HTTPS in the daemon: the client, its gateway, and their orderly end.
//!
//! What is deliberately not here: what is shown of them (`snapshots`).

mod network;
mod own;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_https::{Client, Gateway, GatewayWatch, Key, config::HttpsConfig};
use keepwarm_pool::{Event, EventKind};
use keepwarm_transport::resolve::Resolve;
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        watch,
    },
    task::JoinHandle,
    time::Instant,
};

use crate::{cli::Unavailable, config::words::io_words};

pub use own::{OwnClient, Validation};

/// A client and its gateway while they run.
pub(super) struct Https {
    client: Client,
    gateway: Served,
    /// The log of events and the watch on the network.
    beside: [JoinHandle<()>; 2],
}

/// A gateway that serves until told to stop.
struct Served {
    watch: GatewayWatch,
    /// Ends with the number of clients that were cut off.
    task: JoinHandle<usize>,
}

/// What of it the status endpoint shows.
#[derive(Debug, Clone)]
pub struct HttpsView {
    pub(super) client: Client,
    pub(super) gateway: GatewayWatch,
    /// Changes, or is gone, when the daemon stops.
    pub(super) stopped: watch::Receiver<()>,
}

impl Https {
    /// Starts to connect and to listen. The gateway stops accepting once `stopped` changes or its sender is gone.
    ///
    /// # Errors
    /// [`Unavailable`] when an address cannot be listened on.
    pub(super) fn start(
        config: HttpsConfig,
        resolver: Arc<dyn Resolve>,
        stopped: &watch::Receiver<()>,
    ) -> anyhow::Result<Https> {
        let gateway = config.gateway.clone();
        let proxies = proxies(&config);
        let client = Client::new(config, resolver)?;
        // Before the first connection can be there, so that the log has it.
        let events = client.events();
        // Without a listener too, since a reload may bring one.
        let gateway = match gateway {
            Some(config) => Gateway::bind(&config, client.clone()).map_err(|error| cannot_bind(&error))?,
            None => Gateway::closed(client.clone()),
        };
        for address in gateway.addresses() {
            tracing::info!(%address, "https gateway listens");
        }
        let mut stopped = stopped.clone();
        let stop = async move { drop(stopped.changed().await) };
        let gateway = Served { watch: gateway.watch(), task: tokio::spawn(gateway.run(stop, super::DRAIN)) };
        let network = tokio::spawn(network::watch(client.clone(), proxies));
        Ok(Https { client, gateway, beside: [tokio::spawn(log_events(events)), network] })
    }

    /// Where the gateway listens, with the ports that it really has.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.gateway.watch.addresses()
    }

    pub(super) fn view(&self, stopped: watch::Receiver<()>) -> HttpsView {
        HttpsView { client: self.client.clone(), gateway: self.gateway.watch.clone(), stopped }
    }

    /// Lets requests in flight end within `patience`, after the gateway was told to stop, and closes every connection. Returns how many
    /// requests were cut off.
    pub(super) async fn stop(self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut cut = self.gateway.task.await.unwrap_or_default();
        // The gateway's own have ended; what is left has little to wait for.
        cut += self.client.close(deadline.saturating_duration_since(Instant::now()).max(LINGER)).await;
        let [mut events, network] = self.beside;
        network.abort();
        // What the end closed is to be in the log; the pool's other handles keep its events open.
        let _ = tokio::time::timeout(LAST_WORDS, &mut events).await;
        events.abort();
        cut
    }
}

fn cannot_bind(error: &io::Error) -> Unavailable {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port: stop it, or change https.gateway",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    Unavailable(format!("https gateway: {}{remedy}", io_words(error)))
}

/// The proxies that are given by address.
fn proxies(config: &HttpsConfig) -> Vec<IpAddr> {
    let origins = config.origins.iter().chain(config.any_host.as_deref());
    origins.filter_map(|origin| origin.proxy.as_ref()?.host.parse().ok()).collect()
}

/// One line for each thing that happens to connections, as for those of DNS.
async fn log_events(mut events: Receiver<Event<Key>>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            // A log that is too slow misses events, and delays nobody.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let (origin, ip, profile) = (authority(&event.key), event.key.ip(), event.key.profile());
        match event.kind {
            EventKind::Leak { .. } => tracing::warn!(target: "keepwarm_pool", origin, %ip, profile, "{event}"),
            EventKind::DialFailed { .. } | EventKind::DialCancelled => {
                tracing::debug!(target: "keepwarm_pool", origin, %ip, profile, "{event}");
            }
            _ => tracing::info!(target: "keepwarm_pool", origin, %ip, profile, "{event}"),
        }
    }
}

/// The origin of a connection as it is shown.
pub(super) fn authority(key: &Key) -> String {
    shown(key.host(), key.port())
}

/// Host, in brackets where it is an IPv6 address, and the port where it is not 443.
fn shown(host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == 443 { host } else { format!("{host}:{port}") }
}

/// For how long the log may take for what the end closed.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// For how long connections may close in order when nobody waits for them any more.
const LINGER: Duration = Duration::from_millis(100);
