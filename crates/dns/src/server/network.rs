//! Another network, or the same one after a sleep: what is known of upstreams no longer holds, and connections may be dead
//! without a word.

use std::sync::Arc;

use keepwarm_transport::network::{Change, Changes};

use super::{
    Shared,
    inbox::{Address, Event},
};
use crate::upstream::count;

/// Watches until the task is dropped.
pub(super) async fn watch(shared: Arc<Shared>, workers: Vec<Address>) {
    let mut changes = Changes::new();
    let peers = || {
        let setup = shared.setup();
        let endpoints = setup.upstreams.iter().flat_map(|upstream| upstream.endpoints());
        endpoints.flat_map(|endpoint| endpoint.known_addresses()).collect()
    };
    loop {
        let Change { turned, slept } = changes.next(peers).await;
        tracing::info!(
            upstream_addresses = turned,
            ?slept,
            "the network changed: connections and back-offs are given up"
        );
        shared.network_changed(&workers);
    }
}

impl Shared {
    /// Gives up idle connections, lets busy ones end, and forgets what was learned of upstreams: breakers, back-offs,
    /// latencies, idle limits, addresses of names.
    pub(super) fn network_changed(&self, workers: &[Address]) {
        count(&self.counters.network_changes);
        for endpoint in self.setup().upstreams.iter().flat_map(|upstream| upstream.endpoints()) {
            endpoint.network_changed();
        }
        for worker in workers {
            worker.inbox.push(Event::NetworkChanged);
        }
        for pool in self.pools.all() {
            pool.network_changed();
        }
    }
}
