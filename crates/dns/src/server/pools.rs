//! The pools of a server: one for connections with a stream, shared by all workers, and one a worker for UDP sockets.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_pool::{Limits, NamedPool, Options, Policy, Pool, Shards, Spawn, Steer as _};
use tokio::runtime::Handle;

use super::{Server, StartError};
use crate::{
    config::{DnsConfig, Transport},
    upstream::{DnsConnector, Endpoint, EndpointKey},
};

/// All pools of a server. Clones are handles of the same.
#[derive(Clone)]
pub(crate) struct Pools {
    pub(crate) streams: Pool<DnsConnector>,
    /// One a worker.
    pub(crate) datagrams: Arc<Shards<DnsConnector>>,
}

impl Pools {
    /// Builds them for workers on these runtimes.
    pub(super) fn new(config: &DnsConfig, handles: &[Handle]) -> Result<Pools, StartError> {
        let datagram = |handle| datagram_pool(config, handles.len(), handle);
        let pools = handles.iter().map(datagram).collect::<Result<_, _>>()?;
        let streams = stream_pool(config, handles.to_vec())?;
        Ok(Pools { streams, datagrams: Arc::new(Shards::new(pools, datagram_limits(config))) })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Pool<DnsConnector>> {
        self.datagrams.pools().iter().chain(std::iter::once(&self.streams))
    }

    /// Where a worker's connections to this endpoint are, and under which key.
    pub(super) fn of(&self, endpoint: &Arc<Endpoint>, worker: usize) -> (&Pool<DnsConnector>, EndpointKey) {
        match endpoint.transport {
            Transport::Udp => (&self.datagrams.pools()[worker], EndpointKey::new(endpoint, Some(worker))),
            _ => (&self.streams, EndpointKey::new(endpoint, None)),
        }
    }

    /// Closes the connections to an endpoint that nobody asks any more.
    pub(crate) fn retire(&self, endpoint: &Arc<Endpoint>) {
        for worker in 0..self.datagrams.pools().len() {
            let (pool, key) = self.of(endpoint, worker);
            pool.retire(&key);
        }
    }

    /// Whether limits or times are others. Those that an operator has set at run time stay where they are not.
    pub(super) fn differ(old: &DnsConfig, new: &DnsConfig) -> bool {
        old.pool != new.pool || old.max_connections != new.max_connections
    }

    /// Whether limits and times of this config can be had.
    pub(super) fn check(config: &DnsConfig, workers: usize) -> Result<(), StartError> {
        let datagrams = datagram_limits(config);
        [stream_limits(config), datagrams, Shards::<DnsConnector>::share(&datagrams, workers)]
            .iter()
            .try_for_each(Limits::check)
            .map_err(StartError::Limits)
    }

    /// Puts the limits and times of a config in force that was [checked](Self::check).
    pub(super) fn adopt(&self, config: &DnsConfig) {
        let limits = self.streams.set_limits(stream_limits(config));
        let limits = limits.and_then(|()| self.datagrams.set_limits(datagram_limits(config)));
        debug_assert!(limits.is_ok(), "they were checked");
        self.streams.set_options(stream_options(config));
        self.datagrams.pools().iter().for_each(|pool| pool.set_options(datagram_options(config)));
    }
}

impl Server {
    /// The pools as operators see and steer them: `dns` of connections with a stream, `dns.udp` of the UDP sockets of all workers, whose
    /// limits are those of all workers together.
    pub fn named_pools(&self) -> Vec<NamedPool> {
        let Pools { streams, datagrams } = self.shared.pools.clone();
        vec![
            NamedPool { name: "dns".to_owned(), pool: Arc::new(streams) },
            NamedPool { name: "dns.udp".to_owned(), pool: datagrams },
        ]
    }
}

fn options(config: &DnsConfig) -> Options {
    let pool = &config.pool;
    Options {
        acquire_timeout: pool.acquire_timeout,
        // Whoever dials keeps to the limit itself and knows in which phase it passed; here it is a net below that.
        connect_timeout: pool.connect_timeout.saturating_add(Duration::from_millis(50)),
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

fn stream_limits(config: &DnsConfig) -> Limits {
    let pool = &config.pool;
    let defaults = Limits::default();
    // Without reuse nothing is held back: that is what is to be compared with.
    Limits {
        max_total: config.max_connections,
        max_per_host: pool.max_per_host,
        max_idle: config.max_connections,
        max_idle_per_host: pool.max_per_host,
        min_idle: if pool.reuse { pool.min_idle } else { 0 },
        max_in_flight: u32::try_from(pool.max_in_flight).unwrap_or(u32::MAX),
        max_waiters: pool.max_waiters,
        max_dials_per_host: if pool.reuse { defaults.max_dials_per_host } else { pool.max_per_host },
        max_dials: if pool.reuse { defaults.max_dials } else { config.max_connections },
    }
}

fn stream_options(config: &DnsConfig) -> Options {
    Options {
        name: "dns".into(),
        max_lifetime: Some(config.pool.max_lifetime),
        policy: Policy::OldestWithRoom,
        ..options(config)
    }
}

fn stream_pool(config: &DnsConfig, handles: Vec<Handle>) -> Result<Pool<DnsConnector>, StartError> {
    Pool::builder(DnsConnector)
        .limits(stream_limits(config))
        .options(stream_options(config))
        .spawner(RoundRobin { handles, next: AtomicUsize::new(0) })
        .try_build()
        .map_err(StartError::Limits)
}

/// Those of all workers together.
fn datagram_limits(config: &DnsConfig) -> Limits {
    Limits { min_idle: 0, ..stream_limits(config) }
}

fn datagram_options(config: &DnsConfig) -> Options {
    Options {
        name: "dns-udp".into(),
        max_lifetime: Some(config.pool.udp_max_age),
        max_uses: Some(config.pool.udp_max_queries),
        policy: Policy::LeastLoaded,
        backup_dial_after: None,
        ..options(config)
    }
}

/// Each worker has its share of the sockets of an upstream, at least one.
fn datagram_pool(config: &DnsConfig, workers: usize, handle: &Handle) -> Result<Pool<DnsConnector>, StartError> {
    Pool::builder(DnsConnector)
        .limits(Shards::<DnsConnector>::share(&datagram_limits(config), workers))
        .options(datagram_options(config))
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
