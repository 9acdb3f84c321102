//! The limits of a config as the pool takes them.

use std::{sync::Arc, time::Duration};

use keepwarm_pool::{Limits, Options, Policy};

use super::{Pool, StartError};
use crate::{
    config::{HttpsConfig, PoolConfig},
    connection::Dialer,
};

pub(super) fn pool(config: &PoolConfig) -> Result<Pool, StartError> {
    let options = Options {
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
    };
    let dialer = Dialer { connect_timeout: config.connect_timeout, check_interval: config.check_interval };
    Pool::builder(dialer).limits(limits(config)).options(options).try_build().map_err(StartError::Limits)
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

/// The times of a config that differ from those that the pool was made with, as keys of `[https.pool]`.
pub(super) fn other_times(made: &PoolConfig, config: &PoolConfig) -> Vec<&'static str> {
    let times = |config: &PoolConfig| {
        [
            ("acquire_timeout", config.acquire_timeout),
            ("check_interval", config.check_interval),
            ("cleanup_interval", config.cleanup_interval),
            ("connect_timeout", config.connect_timeout),
            ("idle_timeout", config.idle_timeout),
            ("max_lifetime", config.max_lifetime),
        ]
    };
    let both = times(made).into_iter().zip(times(config));
    both.filter(|(made, other)| made != other).map(|((key, _), _)| key).collect()
}

/// The limits of a config with the times that the pool was made with.
pub(super) fn with_times(config: &PoolConfig, made: &PoolConfig) -> PoolConfig {
    PoolConfig {
        max_total: config.max_total,
        max_per_host: config.max_per_host,
        max_idle: config.max_idle,
        max_in_flight: config.max_in_flight,
        max_waiters: config.max_waiters,
        ..made.clone()
    }
}

/// Addresses in focus, however many origins share the idle connections.
const FOCUS_MIN: usize = 2;
