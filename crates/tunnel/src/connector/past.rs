//! What upstreams did that are gone: counters of a daemon only grow, whatever its config becomes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::upstream::{Upstream, UpstreamStats};

/// Counters of several upstreams together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Tunnels that were made.
    pub tunnels: u64,
    /// Of those asked for, the ones that found a spare.
    pub hits: u64,
    /// Those that had to wait for a connection.
    pub misses: u64,
    /// Spares that were dead when they were used.
    pub retries: u64,
    /// Spares that were silent: a fresh connection was tried beside them.
    pub hedged: u64,
    /// Bytes to destinations, of tunnels that have ended.
    pub sent: u64,
    /// Bytes from destinations, of tunnels that have ended.
    pub received: u64,
}

impl Totals {
    /// Adds what one did.
    pub fn add(&mut self, stats: &UpstreamStats) {
        self.tunnels += stats.tunnels;
        self.hits += stats.hits;
        self.misses += stats.misses;
        self.retries += stats.retries;
        self.hedged += stats.hedged;
        self.sent += stats.sent;
        self.received += stats.received;
    }
}

/// Upstreams that are gone.
#[derive(Default)]
pub(super) struct Past(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    ended: Totals,
    /// Those whose tunnels still live, or that somebody still asks.
    ending: Vec<Arc<Upstream>>,
}

impl Past {
    /// Remembers one that was given up. As many are kept as have a live tunnel, so no more than there are of these.
    pub(super) fn retired(&self, upstream: Arc<Upstream>) {
        let mut inner = self.0.lock();
        inner.ending.push(upstream);
        inner.sweep();
    }

    /// What all of them did.
    pub(super) fn totals(&self) -> Totals {
        let mut inner = self.0.lock();
        inner.sweep();
        let mut totals = inner.ended;
        inner.ending.iter().for_each(|upstream| totals.add(&figures(upstream)));
        totals
    }
}

impl Inner {
    /// Sums up those that can do nothing more.
    fn sweep(&mut self) {
        let Inner { ended, ending } = self;
        ending.retain_mut(|upstream| {
            let is_used = Arc::strong_count(upstream) > 1 || figures(upstream).live > 0;
            if !is_used {
                ended.add(&figures(upstream));
            }
            is_used
        });
    }
}

fn figures(upstream: &Upstream) -> UpstreamStats {
    upstream.stats((Arc::from(""), 0))
}
