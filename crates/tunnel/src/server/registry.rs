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

use crate::{Live, Trace, Traffic};

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

/// What is shown of a live tunnel, without its permits: a copy may outlive it. There are `max_tunnels` of them at most.
struct Entry {
    client: SocketAddr,
    target: Target,
    upstream: Arc<str>,
    since: Clock,
    spare: Option<Duration>,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
pub(crate) struct Registry(Mutex<Slab<Arc<Entry>>>);

/// A tunnel's place in the registry, and its permits: as long as this lives the tunnel counts as live.
pub(crate) struct Listed<'a> {
    registry: &'a Registry,
    key: usize,
    live: Live,
}

impl Registry {
    pub(super) fn list(&self, client: SocketAddr, live: Live) -> Listed<'_> {
        let trace = live.trace();
        let entry = Arc::new(Entry {
            client,
            target: live.target().clone(),
            upstream: trace.upstream.clone(),
            since: Clock::now(),
            spare: trace.spare,
            traffic: live.traffic().clone(),
        });
        let key = self.0.lock().insert(entry);
        Listed { registry: self, key, live }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn rows(&self) -> Vec<TunnelRow> {
        // Nobody has to wait for the rows to begin or end a tunnel.
        let entries: Vec<_> = self.0.lock().iter().map(|(_, entry)| entry.clone()).collect();
        entries.iter().map(|entry| entry.row()).collect()
    }
}

impl Entry {
    fn row(&self) -> TunnelRow {
        TunnelRow {
            client: self.client,
            target: self.target.clone(),
            upstream: self.upstream.clone(),
            age: self.since.elapsed(),
            spare: self.spare,
            sent: self.traffic.sent.load(Ordering::Relaxed),
            received: self.traffic.received.load(Ordering::Relaxed),
        }
    }
}

impl Listed<'_> {
    /// Its bytes; whoever relays them counts here.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.live.traffic()
    }

    /// How it came about.
    pub(crate) fn trace(&self) -> &Trace {
        self.live.trace()
    }

    /// By which rules and upstreams it came about.
    pub(crate) fn ways(&self) -> u64 {
        self.live.ways()
    }

    /// Whether others wait for a tunnel to the same destination.
    pub(crate) fn is_wanted(&self) -> bool {
        self.live.is_wanted()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.registry.0.lock().remove(self.key);
    }
}
