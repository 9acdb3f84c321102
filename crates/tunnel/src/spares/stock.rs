//! How many spares are kept: by the config, by the rate of tunnels, and within what an operator has set.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use keepwarm_pool::{HostView, IdlePolicy, Limits, LimitsError, Options, Policy, Stats, Steer, WarmUp};
use tokio::time::Instant as Clock;

use super::{Spares, dial::DIALS_MAX};
use crate::{config::PoolConfig, sizing::Sizing};

/// The number of spares, and why it is that.
pub(super) struct Stock {
    /// Usual number, as the config has it.
    usual: usize,
    sizing: Sizing,
    /// -> `Kept` when it begins, -> `Retired` when its upstream is no longer in the config.
    phase: Phase,
}

/// Whether spares are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not yet. -> `Kept` on `begin`.
    New,
    /// They are. -> `Retired` on `retire`.
    Kept,
    /// No more.
    Retired,
}

impl Stock {
    pub(super) fn new(config: &PoolConfig, now: Instant) -> Stock {
        let PoolConfig { spares, spares_min, spares_max, .. } = *config;
        Stock { usual: spares, sizing: Sizing::new(spares, spares_min, spares_max, now), phase: Phase::New }
    }

    fn set_bounds(&mut self, min: usize, max: usize) {
        self.sizing.set_bounds(self.usual.clamp(min, max), min, max);
    }
}

impl Spares {
    /// Begins to keep them.
    pub(crate) fn begin(&self) {
        self.stock.lock().phase = Phase::Kept;
        self.resize();
    }

    /// Another config is in force. What an operator had set is so no longer.
    pub(crate) fn tune(&self, config: &PoolConfig) {
        let mut stock = self.stock.lock();
        stock.usual = config.spares;
        stock.set_bounds(config.spares_min, config.spares_max);
        let pool = self.host.pool();
        pool.set_options(options(&self.name, config));
        let target = self.wanted(&stock);
        pool.set_limits(limits(config, target)).expect("the target is at most spares_max");
    }

    /// Closes them and keeps no more. Connections are still made for tunnels that are on their way. Returns how many were open.
    pub(crate) fn retire(&self) -> usize {
        let mut stock = self.stock.lock();
        stock.phase = Phase::Retired;
        let pool = self.host.pool();
        let open = pool.stats().gauges.open;
        let limits = Limits { min_idle: 0, max_idle: 0, max_idle_per_host: 0, ..pool.limits() };
        pool.set_limits(limits).expect("nothing is below zero");
        open
    }

    /// A tunnel is asked for: the number of spares follows the rate.
    pub(crate) fn asked(&self) {
        self.stock.lock().sizing.asked(Clock::now().into_std(), self.lead());
        self.resize();
    }

    /// Adapts the number that is kept to what was seen of late. To be called every second or so.
    pub(crate) fn tick(&self) {
        let stats = self.host.stats();
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.limit.store(micros(stats.idle_limit), Ordering::Relaxed);
        self.resize();
    }

    fn resize(&self) {
        // Under the lock, so that nobody's limits are overwritten by older ones.
        let stock = self.stock.lock();
        let target = self.wanted(&stock);
        let pool = self.host.pool();
        let limits = pool.limits();
        if stock.phase == Phase::Kept && limits.min_idle != target {
            let limits = Limits { min_idle: target, ..limits };
            pool.set_limits(limits).expect("the target is at most the limit of idle connections");
        }
    }

    fn wanted(&self, stock: &Stock) -> usize {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => AGE_START,
            micros => Duration::from_micros(micros),
        };
        match stock.phase {
            Phase::Kept => stock.sizing.target(Clock::now().into_std(), self.lead(), limit),
            Phase::New | Phase::Retired => 0,
        }
    }

    /// How many are to be kept at the moment.
    pub(crate) fn target(&self) -> usize {
        self.host.pool().limits().min_idle
    }

    /// As many are kept at most.
    pub(crate) fn max(&self) -> usize {
        self.host.pool().limits().max_idle_per_host
    }

    /// Whether an operator has paused them.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// How long it takes to make one.
    fn lead(&self) -> Duration {
        // A little more than usual, so that a slow one is not missed.
        self.lead.lock().smoothed().map_or(LEAD_UNKNOWN, |lead| lead + lead / 4)
    }
}

/// The number of spares still follows the rate of tunnels, between what is set here: `max_idle_per_host` is the ceiling, and `min_idle`,
/// where it is set to another number than it was, the floor.
impl Steer for Spares {
    fn limits(&self) -> Limits {
        self.host.pool().limits()
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        limits.check()?;
        let mut stock = self.stock.lock();
        if stock.phase != Phase::Kept {
            return Ok(());
        }
        let pool = self.host.pool();
        let ceiling = limits.max_idle_per_host;
        let (min, _) = stock.sizing.bounds();
        let floor = if limits.min_idle == pool.limits().min_idle { min } else { limits.min_idle };
        stock.set_bounds(floor.min(ceiling), ceiling);
        pool.set_limits(Limits { min_idle: self.wanted(&stock), ..limits })
    }

    fn stats(&self) -> Stats {
        self.host.pool().stats()
    }

    fn hosts(&self) -> Vec<HostView> {
        Steer::hosts(&self.host.pool())
    }

    fn flush(&self, host: Option<&str>) -> usize {
        Steer::flush(&self.host.pool(), host)
    }

    fn pause(&self, host: Option<&str>) -> usize {
        let paused = Steer::pause(&self.host.pool(), host);
        self.is_paused.fetch_or(paused > 0, Ordering::Relaxed);
        paused
    }

    fn resume(&self, host: Option<&str>) -> usize {
        let resumed = Steer::resume(&self.host.pool(), host);
        self.is_paused.fetch_and(resumed == 0, Ordering::Relaxed);
        resumed
    }

    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp {
        Steer::warm_up(&self.host.pool(), host, n)
    }
}

pub(super) fn limits(config: &PoolConfig, spares: usize) -> Limits {
    // Dials for tunnels that found no spare come on top.
    let max = config.spares_max.max(1) + DIALS_MAX;
    Limits {
        max_total: max,
        max_per_host: max,
        max_idle: config.spares_max,
        max_idle_per_host: config.spares_max,
        min_idle: spares,
        max_dials_per_host: DIALS_MAX,
        max_dials: DIALS_MAX,
        ..Limits::default()
    }
}

pub(super) fn options(name: &Arc<str>, config: &PoolConfig) -> Options {
    Options {
        name: Arc::clone(name),
        policy: Policy::Newest,
        idle_timeout: config.idle_timeout,
        idle: IdlePolicy {
            start: Some(AGE_START),
            margin: 0.2,
            margin_max: config.idle_timeout,
            jitter: 0.25,
            replace: true,
        },
        // A little more than the dial's own, whose error says more.
        connect_timeout: config.connect_timeout + Duration::from_millis(500),
        // The breaker decides whom to ask; here the next dial must not be far when it does.
        unhealthy_after: None,
        backoff_max: Duration::from_secs(1),
        // A second dial would cost a paid proxy a connection for nothing.
        backup_dial_after: None,
        ..Options::default()
    }
}

/// Until the proxy has closed one, spares are kept for so long; it grows while they live.
const AGE_START: Duration = Duration::from_secs(12);

/// How long a dial is taken to last before there was one.
const LEAD_UNKNOWN: Duration = Duration::from_millis(500);
