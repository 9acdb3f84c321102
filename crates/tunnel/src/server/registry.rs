//! The live tunnels, for those who look.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant as Clock;

use crate::{Live, Traffic};

/// A live tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelRow {
    /// The client's address.
    pub client: SocketAddr,
    /// Where it leads.
    pub target: Target,
    /// Name of the upstream, `direct` where this machine connected itself.
    pub upstream: Arc<str>,
    /// Time since it was ready.
    pub age: Duration,
    /// Age of the spare that served it; `None`: there was none.
    pub spare: Option<Duration>,
    /// Bytes from the client to the destination.
    pub sent: u64,
    /// Bytes from the destination to the client.
    pub received: u64,
}

/// What is known of a live tunnel; `max_tunnels` of them at most, since each holds a permit.
struct Entry {
    client: SocketAddr,
    since: Clock,
    live: Live,
}

#[derive(Default)]
pub(crate) struct Registry(Mutex<Slab<Arc<Entry>>>);

/// A tunnel's place in the registry, and its permits: as long as this lives the tunnel counts as live.
pub(crate) struct Listed<'a> {
    registry: &'a Registry,
    key: usize,
    entry: Arc<Entry>,
}

impl Registry {
    pub(super) fn list(&self, client: SocketAddr, live: Live) -> Listed<'_> {
        let entry = Arc::new(Entry { client, since: Clock::now(), live });
        let key = self.0.lock().insert(entry.clone());
        Listed { registry: self, key, entry }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn rows(&self) -> Vec<TunnelRow> {
        // The rows are made under the lock: a copy of the entry that outlived the tunnel would keep its permits.
        self.0.lock().iter().map(|(_, entry)| entry.row()).collect()
    }
}

impl Entry {
    fn row(&self) -> TunnelRow {
        let (trace, traffic) = (self.live.trace(), self.live.traffic());
        TunnelRow {
            client: self.client,
            target: self.live.target().clone(),
            upstream: trace.upstream.clone(),
            age: self.since.elapsed(),
            spare: trace.spare,
            sent: traffic.sent.load(Ordering::Relaxed),
            received: traffic.received.load(Ordering::Relaxed),
        }
    }
}

impl Listed<'_> {
    /// Its bytes; whoever relays them counts here.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.entry.live.traffic()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.registry.0.lock().remove(self.key);
    }
}
