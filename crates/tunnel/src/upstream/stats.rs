//! What an operator sees of one upstream.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use keepwarm_pool::{
    Histogram, HostStats,
    health::{BreakerState, HealthSnapshot},
};
use tokio::time::Instant as Clock;

use super::{Upstream, Way};
use crate::{config::UpstreamKind, spares::Pipelining};

/// The figures of one upstream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpstreamStats {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is, without credentials: `socks5://exit.example:1080`, or `direct`.
    pub address: String,
    /// The proxy before it.
    pub through: Option<String>,
    /// Its group.
    pub group: Arc<str>,
    /// Lower first.
    pub priority: u32,
    /// Breaker and latency.
    pub health: HealthSnapshot,
    /// What it was last blamed for, and how long ago.
    pub last_failure: Option<(Duration, Arc<str>)>,
    /// Live tunnels.
    pub live: usize,
    /// Tunnels that were made.
    pub tunnels: u64,
    /// Of those asked for, the ones that found a spare.
    pub hits: u64,
    /// Those that had to wait for a connection.
    pub misses: u64,
    /// Spares that were dead when they were used: the tunnel was made over a fresh connection.
    pub retries: u64,
    /// Spares that were silent: a fresh connection was tried beside them.
    pub hedged: u64,
    /// Answers that were no: of the destination, or by the proxy's rules.
    pub refused: u64,
    /// Failures of the upstream itself.
    pub failed: u64,
    /// Bytes to destinations, of tunnels that have ended.
    pub sent: u64,
    /// Bytes from destinations, of tunnels that have ended.
    pub received: u64,
    /// From the request to the destination's word.
    pub ready: Histogram,
    /// Spares; none of an upstream that has none.
    pub spares: Option<SpareStats>,
}

/// The figures of the spares of one upstream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpareStats {
    /// How many are to be kept at the moment.
    pub target: usize,
    /// As many are kept at most.
    pub max: usize,
    /// What may be sent ahead of the proxy's word.
    pub pipelining: Pipelining,
    /// Ages of spares when they were used.
    pub ages: Histogram,
    /// The pool that keeps them: gauges, counters, waits, dials, the learned limit.
    pub pool: HostStats,
}

impl Upstream {
    pub(crate) fn stats(&self, (group, priority): (Arc<str>, u32)) -> UpstreamStats {
        let now = Clock::now().into_std();
        let standing = self.vitals.standing(now);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        UpstreamStats {
            name: Arc::clone(&self.config.name),
            address: match &self.config.kind {
                UpstreamKind::Direct => "direct".to_owned(),
                UpstreamKind::Proxy(proxy) => proxy.to_string(),
                UpstreamKind::Ssh(ssh) => format!("ssh://{}:{}", ssh.host, ssh.port),
            },
            through: self.config.through.as_ref().map(ToString::to_string),
            group,
            priority,
            health: standing.snapshot,
            last_failure: standing.last_failure.map(|(at, text)| (now.saturating_duration_since(at), text)),
            live: self.load.live.load(Ordering::Relaxed),
            tunnels: count(&counters.tunnels),
            hits: count(&counters.hits),
            misses: count(&counters.misses),
            retries: count(&counters.retries),
            hedged: count(&counters.hedged),
            refused: count(&counters.refused),
            failed: standing.failed,
            sent: count(&self.load.sent),
            received: count(&self.load.received),
            ready: counters.ready.lock().clone(),
            spares: match &self.way {
                Way::Proxy(spares) => Some(SpareStats {
                    target: spares.target(),
                    max: spares.max(),
                    pipelining: spares.level(),
                    ages: counters.ages.lock().clone(),
                    pool: spares.stats(),
                }),
                Way::Direct(_) => None,
                #[cfg(feature = "ssh")]
                Way::Ssh(sessions) => {
                    let pool = sessions.stats();
                    let (pipelining, ages) = (Pipelining::None, Histogram::default());
                    Some(SpareStats { target: sessions.target(), max: sessions.max(), pipelining, ages, pool })
                }
            },
        }
    }
}

impl UpstreamStats {
    /// Share of tunnels that found a spare, 0 to 1; `None` before the first.
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.hits + self.misses;
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }

    /// Whether its breaker lets tunnels through.
    pub fn is_well(&self) -> bool {
        self.health.state == BreakerState::Closed
    }
}
