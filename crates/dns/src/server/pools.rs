//! The pools of a server: one for connections with a stream, shared by all workers, and one a worker for UDP sockets.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use keepwarm_pool::{Limits, Options, Policy, Pool, Spawn};
use tokio::runtime::Handle;

use super::StartError;
use crate::{config::DnsConfig, upstream::DnsConnector};

fn options(config: &DnsConfig) -> Options {
    let pool = &config.pool;
    Options {
        acquire_timeout: pool.acquire_timeout,
        connect_timeout: pool.connect_timeout,
        idle_timeout: pool.idle_timeout,
        check_interval: Some(pool.check_interval),
        // Leaving an upstream alone is the breaker's business, which sees more than dials.
        unhealthy_after: None,
        backoff_max: BACKOFF_MAX,
        cleanup_interval: pool.cleanup_interval,
        keep_alive: pool.reuse,
        ..Options::default()
    }
}

pub(super) fn stream_pool(config: &DnsConfig, handles: Vec<Handle>) -> Result<Pool<DnsConnector>, StartError> {
    let pool = &config.pool;
    let defaults = Limits::default();
    // Without reuse nothing is held back: that is what is to be compared with.
    let limits = Limits {
        max_total: config.max_connections,
        max_per_host: pool.max_per_host,
        max_idle: config.max_connections,
        max_idle_per_host: pool.max_per_host,
        min_idle: if pool.reuse { pool.min_idle } else { 0 },
        max_in_flight: u32::try_from(pool.max_in_flight).unwrap_or(u32::MAX),
        max_waiters: pool.max_waiters,
        max_dials_per_host: if pool.reuse { defaults.max_dials_per_host } else { pool.max_per_host },
        max_dials: if pool.reuse { defaults.max_dials } else { config.max_connections },
    };
    let options = Options {
        name: "dns".into(),
        max_lifetime: Some(pool.max_lifetime),
        policy: Policy::OldestWithRoom,
        ..options(config)
    };
    Pool::builder(DnsConnector)
        .limits(limits)
        .options(options)
        .spawner(RoundRobin { handles, next: AtomicUsize::new(0) })
        .try_build()
        .map_err(StartError::Limits)
}

pub(super) fn datagram_pool(
    config: &DnsConfig,
    workers: usize,
    handle: &Handle,
) -> Result<Pool<DnsConnector>, StartError> {
    let pool = &config.pool;
    // Each worker has its share of the sockets of an upstream, at least one.
    let share = pool.max_per_host.div_ceil(workers).max(1);
    let defaults = Limits::default();
    let limits = Limits {
        max_total: config.max_connections,
        max_per_host: share,
        max_idle: config.max_connections,
        max_idle_per_host: share,
        min_idle: 0,
        max_in_flight: u32::try_from(pool.max_in_flight).unwrap_or(u32::MAX),
        max_waiters: pool.max_waiters,
        max_dials_per_host: if pool.reuse { defaults.max_dials_per_host } else { share },
        max_dials: if pool.reuse { defaults.max_dials } else { config.max_connections },
    };
    let options = Options {
        name: "dns-udp".into(),
        max_lifetime: Some(pool.udp_max_age),
        max_uses: Some(pool.udp_max_queries),
        policy: Policy::LeastLoaded,
        backup_dial_after: None,
        ..options(config)
    };
    Pool::builder(DnsConnector)
        .limits(limits)
        .options(options)
        .spawner(RoundRobin { handles: vec![handle.clone()], next: AtomicUsize::new(0) })
        .try_build()
        .map_err(StartError::Limits)
}

/// Spreads dials, and with them the connections' drivers, over the workers.
struct RoundRobin {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl Spawn for RoundRobin {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles[next % self.handles.len()].spawn(future);
    }
}

/// Longest pause between dials that fail: the queries of the next second want to know.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
