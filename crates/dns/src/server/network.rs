//! Another network, or the same one after a sleep: what is known of upstreams no longer holds, and connections may be dead
//! without a word.
//!
//! Routers and containers change routes all the time, so a notice alone is no reason: connections are only given up when the
//! way to an upstream is another one, or when the machine slept.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use keepwarm_transport::network::{NetworkWatch, Notice, Way};
use tokio::time::{Instant as Clock, timeout, timeout_at};

use super::{
    Shared,
    inbox::{Address, Event},
};
use crate::upstream::count;

/// How each peer was reached when last looked at.
type Ways = HashMap<IpAddr, Option<Way>>;

/// Watches until the task is dropped.
pub(super) async fn watch(shared: Arc<Shared>, workers: Vec<Address>) {
    let mut watch = NetworkWatch::new();
    let mut ways = look(&watch, &shared).await;
    loop {
        let Ok(notice) = timeout(NEW_PEERS, watch.next()).await else {
            // Names were resolved in the meantime: what is found here is what a change is measured by.
            for (peer, way) in look(&watch, &shared).await {
                ways.entry(peer).or_insert(way);
            }
            continue;
        };
        let mut slept = asleep(notice);
        // One change comes as many notices: an address goes, a route goes, another address comes.
        let until = Clock::now() + SETTLE_MAX;
        while let Ok(Ok(more)) = timeout_at(until, timeout(SETTLE, watch.next())).await {
            slept = slept.or(asleep(more));
        }
        let before = std::mem::replace(&mut ways, look(&watch, &shared).await);
        let turned = ways.iter().filter(|(peer, way)| before.get(*peer).is_some_and(|before| before != *way)).count();
        if slept.is_some() || turned > 0 {
            tracing::info!(
                upstream_addresses = turned,
                ?slept,
                "the network changed: connections and back-offs are given up"
            );
            shared.network_changed(&workers);
        }
    }
}

fn asleep(notice: Notice) -> Option<Duration> {
    match notice {
        Notice::Look => None,
        Notice::Slept(asleep) => Some(asleep),
    }
}

async fn look(watch: &NetworkWatch, shared: &Shared) -> Ways {
    let mut ways = Ways::new();
    for endpoint in shared.upstreams.iter().flat_map(|upstream| upstream.endpoints()) {
        for peer in endpoint.known_addresses() {
            if ways.len() < PEERS_MAX && !ways.contains_key(&peer) {
                ways.insert(peer, watch.way_to(peer).await);
            }
        }
    }
    ways
}

impl Shared {
    /// Gives up idle connections, lets busy ones end, and forgets what was learned of upstreams: breakers, back-offs,
    /// latencies, idle limits, addresses of names.
    pub(super) fn network_changed(&self, workers: &[Address]) {
        count(&self.counters.network_changes);
        for endpoint in self.upstreams.iter().flat_map(|upstream| upstream.endpoints()) {
            endpoint.network_changed();
        }
        for worker in workers {
            worker.inbox.push(Event::NetworkChanged);
        }
        for pool in self.datagrams.iter().chain(std::iter::once(&self.streams)) {
            pool.network_changed();
        }
    }
}

/// A change is over when nothing more is heard for so long, or at the latest after `SETTLE_MAX`.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// How often the ways to addresses that are new are looked at.
const NEW_PEERS: Duration = Duration::from_secs(60);

/// Addresses of upstreams that are looked at.
const PEERS_MAX: usize = 256;
