//! Pools that serve the same hosts for one thread each, seen and steered as one.

use std::collections::BTreeMap;

use super::{ConnectionView, HostView, Steer, WarmUp};
use crate::{
    connector::Connector,
    limits::{Limits, LimitsError},
    pool::Pool,
    stats::Stats,
    sync::Mutex,
};

/// Several pools as one. Hosts of one name are one host; the id of a connection is unique among all of them.
pub struct Shards<C: Connector> {
    pools: Vec<Pool<C>>,
    /// The limits of the whole.
    limits: Mutex<Limits>,
}

impl<C: Connector> Shards<C> {
    /// Has `pools` seen as one whose limits are `limits`. They are to have been built with their [`share`](Self::share) of these.
    pub fn new(pools: Vec<Pool<C>>, limits: Limits) -> Self {
        Self { pools, limits: Mutex::new(limits) }
    }

    /// The limits of one of `count` pools: its part of the numbers of connections, rounded up, and at least one; all else as it is.
    #[must_use]
    pub fn share(limits: &Limits, count: usize) -> Limits {
        let part = |whole: usize| whole.div_ceil(count.max(1));
        Limits {
            max_total: part(limits.max_total),
            max_per_host: part(limits.max_per_host).max(1),
            max_idle: part(limits.max_idle),
            max_idle_per_host: part(limits.max_idle_per_host),
            min_idle: part(limits.min_idle),
            ..*limits
        }
    }

    /// The pools.
    pub fn pools(&self) -> &[Pool<C>] {
        &self.pools
    }
}

impl<C: Connector> std::fmt::Debug for Shards<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("pools", &self.pools).field("limits", &*self.limits.lock()).finish()
    }
}

impl<C: Connector> Steer for Shards<C> {
    fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        limits.check()?;
        // Held, so that of two callers the one whose limits are shown is the one whose limits hold.
        let mut own = self.limits.lock();
        let share = Self::share(&limits, self.pools.len());
        share.check()?;
        for pool in &self.pools {
            pool.set_limits(share)?;
        }
        *own = limits;
        Ok(())
    }

    fn stats(&self) -> Stats {
        let mut whole = Stats::default();
        for pool in &self.pools {
            whole.merge(&pool.stats());
        }
        whole.hosts = self.hosts().len();
        whole
    }

    fn hosts(&self) -> Vec<HostView> {
        let mut hosts: BTreeMap<String, HostView> = BTreeMap::new();
        for (number, pool) in (0..).zip(&self.pools) {
            for mut host in Steer::hosts(pool) {
                let id = |connection: &mut ConnectionView| {
                    connection.id = connection.id * self.pools.len() as u64 + number;
                };
                host.connections.iter_mut().for_each(id);
                match hosts.get_mut(&host.name) {
                    Some(known) => {
                        known.stats.merge(&host.stats);
                        known.connections.append(&mut host.connections);
                    }
                    None => drop(hosts.insert(host.name.clone(), host)),
                }
            }
        }
        hosts.into_values().collect()
    }

    fn flush(&self, host: Option<&str>) -> usize {
        self.each(|pool| Steer::flush(pool, host))
    }

    fn pause(&self, host: Option<&str>) -> usize {
        self.each(|pool| Steer::pause(pool, host))
    }

    fn resume(&self, host: Option<&str>) -> usize {
        self.each(|pool| Steer::resume(pool, host))
    }

    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp {
        let share = n.div_ceil(self.pools.len().max(1));
        let parts: Vec<WarmUp> = self.pools.iter().map(|pool| Steer::warm_up(pool, host, share)).collect();
        Box::pin(async move {
            let mut open = 0;
            for part in parts {
                open += part.await?;
            }
            Ok(open)
        })
    }
}

impl<C: Connector> Shards<C> {
    /// Does it to each pool. Returns how many hosts that were: those of the pool that knows most of them.
    fn each(&self, act: impl Fn(&Pool<C>) -> usize) -> usize {
        self.pools.iter().map(act).max().unwrap_or(0)
    }
}
