//! The listeners: accepts clients, finds out what they speak, and serves them until told to stop.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::{Connector, udp};

/// Takes clients in and relays their bytes through tunnels.
pub struct Server {
    shared: Arc<Shared>,
}

/// What all clients have in common.
pub(crate) struct Shared {
    /// Makes their tunnels; has the settings.
    pub(crate) connector: Connector,
    /// Becomes true when the server stops: idle clients end at once, tunnels get the drain's patience.
    pub(crate) closing: watch::Sender<bool>,
    /// Figures of UDP ASSOCIATE.
    pub(crate) udp: Arc<udp::Counters>,
}

impl Server {
    /// A server that takes its settings from the connector's.
    pub fn new(connector: Connector) -> Server {
        Server { shared: Arc::new(Shared { connector, closing: watch::Sender::new(false), udp: Arc::default() }) }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connector", &self.shared.connector).finish_non_exhaustive()
    }
}
