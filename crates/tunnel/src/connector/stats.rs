//! What an operator sees of all tunnels.

use std::sync::atomic::Ordering;

use keepwarm_pool::Histogram;
use keepwarm_transport::proxy::Target;

use super::{Connector, Totals};
use crate::{error::ErrorKind, upstream::UpstreamStats};

/// The figures of a connector.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectorStats {
    /// Tunnels that were asked for.
    pub asked: u64,
    /// Tunnels that were made.
    pub opened: u64,
    /// Tunnels that were not made, by reason; reasons that did not happen are left out.
    pub failed: Vec<(ErrorKind, u64)>,
    /// Live tunnels.
    pub live: usize,
    /// Live tunnels at most.
    pub max_tunnels: usize,
    /// Tunnels that wait for a permit.
    pub waiting: usize,
    /// What upstreams did that are gone since.
    pub past: Totals,
    /// Upstreams that were tried after another one.
    pub failovers: u64,
    /// Tunnels that were opened ahead.
    pub opened_ahead: u64,
    /// Tunnels that wait for their first use, or for the next.
    pub ready: usize,
    /// Tunnels that were there when they were asked for.
    pub ready_used: u64,
    /// Waits for permits.
    pub waits: Histogram,
    /// Every upstream in the order of the config, and `direct` at the end.
    pub upstreams: Vec<UpstreamStats>,
    /// Destinations in use, the busiest first, at most [`DestinationStats::MAX`].
    pub destinations: Vec<DestinationStats>,
}

/// The figures of one destination while it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationStats {
    /// Where it is.
    pub target: Target,
    /// Live tunnels.
    pub live: usize,
    /// Live tunnels at most.
    pub max: usize,
    /// Tunnels that wait for one of these to end.
    pub waiting: usize,
    /// Tunnels since it came into use.
    pub total: u64,
}

impl DestinationStats {
    /// Destinations that are told.
    pub const MAX: usize = 100;
}

impl Connector {
    /// The figures now.
    pub fn stats(&self) -> ConnectorStats {
        let (inner, state) = (&self.inner, self.inner.state());
        let counters = &inner.counters;
        let mut destinations: Vec<_> = inner
            .permits
            .destinations()
            .into_iter()
            .map(|gauges| DestinationStats {
                target: (*gauges.target).clone(),
                live: gauges.live,
                max: state.config.max_per_destination,
                waiting: gauges.waiting,
                total: gauges.total,
            })
            .collect();
        let waiting = destinations.iter().map(|destination| destination.waiting).sum();
        destinations.sort_by_cached_key(|row| (std::cmp::Reverse((row.waiting, row.live)), row.target.to_string()));
        destinations.truncate(DestinationStats::MAX);
        let failed = ErrorKind::ALL.iter().zip(&counters.failed);
        let (ready, ready_used) = inner.ready.gauges();
        ConnectorStats {
            asked: counters.asked.load(Ordering::Relaxed),
            opened: counters.opened.load(Ordering::Relaxed),
            failed: failed
                .map(|(kind, count)| (*kind, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            live: inner.permits.live(),
            max_tunnels: state.config.max_tunnels,
            waiting,
            past: inner.past.totals(),
            failovers: counters.failovers.load(Ordering::Relaxed),
            opened_ahead: counters.ahead.load(Ordering::Relaxed),
            ready,
            ready_used,
            waits: counters.waits.lock().clone(),
            upstreams: state
                .upstreams
                .iter()
                .enumerate()
                .map(|(index, upstream)| upstream.stats(state.place(index)))
                .collect(),
            destinations,
        }
    }
}
