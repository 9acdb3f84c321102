//! The limits of a config as the pool takes them.

use std::{sync::Arc, time::Duration};

use keepwarm_pool::{Limits, Options, Policy};
use parking_lot::RwLock;

use super::{Pool, StartError};
use crate::{
    config::{HttpsConfig, PoolConfig},
    connection::{DialTimes, Dialer},
};

/// Makes the pool. The times are those of its dials, to be changed with its options.
pub(super) fn pool(config: &PoolConfig) -> Result<(Pool, Arc<RwLock<DialTimes>>), StartError> {
    let times = Arc::new(RwLock::new(times(config)));
    let dialer = Dialer { times: times.clone() };
    let pool = Pool::builder(dialer).limits(limits(config)).options(options(config)).try_build();
    Ok((pool.map_err(StartError::Limits)?, times))
}

pub(super) fn times(config: &PoolConfig) -> DialTimes {
    DialTimes { connect_timeout: config.connect_timeout, check_interval: config.check_interval }
}

pub(super) fn options(config: &PoolConfig) -> Options {
    Options {
        acquire_timeout: config.acquire_timeout,
        // The dialer's own limit comes first, and names phase and side.
        connect_timeout: config.connect_timeout.saturating_add(Duration::from_millis(50)),
        idle_timeout: config.idle_timeout,
        max_lifetime: Some(config.max_lifetime),
        check_interval: Some(config.check_interval),
        cleanup_interval: config.cleanup_interval,
        // Another address is the better second try, and addresses that fail are put aside by the inventory.
        backup_dial_after: None,
        unhealthy_after: None,
        policy: Policy::OldestWithRoom,
        name: Arc::from("https"),
        ..Options::default()
    }
}

pub(super) fn limits(config: &PoolConfig) -> Limits {
    let per_host = config.max_per_host.min(config.max_total);
    Limits {
        max_total: config.max_total,
        max_per_host: per_host,
        max_idle: config.max_idle,
        max_idle_per_host: per_host.min(config.max_idle.max(1)),
        min_idle: 0,
        max_in_flight: config.max_in_flight,
        max_waiters: config.max_waiters,
        ..Limits::default()
    }
}

/// How many addresses of an origin get its requests: as many as can have an idle connection, so that those are hot.
pub(super) fn focus(config: &HttpsConfig) -> usize {
    (config.pool.max_idle / config.origins.len().max(1)).max(FOCUS_MIN)
}

/// Addresses in focus, however many origins share the idle connections.
const FOCUS_MIN: usize = 2;
