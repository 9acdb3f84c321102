//! The connections to upstreams, and the breaker that keeps queries from those that fail.

use std::time::Duration;

use keepwarm_dns::config::{BreakerSettings, PoolSettings};

use super::{Check, DAY, HOUR, MILLISECOND, MINUTE, SECOND, count};
use crate::config::{
    read::{At, Section as _},
    spec::{BreakerSpec, PoolSpec},
    words::duration_words,
};

impl Check<'_> {
    pub(super) fn pool(&mut self, spec: &PoolSpec) -> PoolSettings {
        let default = PoolSettings::default();
        let max_per_host = count(spec.max_per_host.as_ref(), default.max_per_host);
        let min_idle = count(spec.min_idle.as_ref(), default.min_idle);
        if min_idle > max_per_host && !spec.refused("max_per_host", spec.max_per_host.as_ref()) {
            let (at, other) = (spec.min_idle.as_ref(), spec.max_per_host.as_ref());
            self.order(at, other, "dns.pool.min_idle", "dns.pool.max_per_host", &max_per_host.to_string());
        }
        let duration = |check: &mut Self, key: &str, at: &Option<At<Duration>>, range, default| {
            check.duration(key, at.as_ref(), range, default)
        };
        PoolSettings {
            max_per_host,
            min_idle,
            max_in_flight: count(spec.max_in_flight.as_ref(), default.max_in_flight),
            max_waiters: count(spec.max_waiters.as_ref(), default.max_waiters),
            idle_timeout: duration(
                self,
                "dns.pool.idle_timeout",
                &spec.idle_timeout,
                100 * MILLISECOND..=DAY,
                default.idle_timeout,
            ),
            max_lifetime: duration(
                self,
                "dns.pool.max_lifetime",
                &spec.max_lifetime,
                SECOND..=7 * DAY,
                default.max_lifetime,
            ),
            connect_timeout: duration(
                self,
                "dns.pool.connect_timeout",
                &spec.connect_timeout,
                MILLISECOND..=5 * MINUTE,
                default.connect_timeout,
            ),
            acquire_timeout: duration(
                self,
                "dns.pool.acquire_timeout",
                &spec.acquire_timeout,
                MILLISECOND..=5 * MINUTE,
                default.acquire_timeout,
            ),
            check_interval: duration(
                self,
                "dns.pool.check_interval",
                &spec.check_interval,
                Duration::ZERO..=DAY,
                default.check_interval,
            ),
            cleanup_interval: duration(
                self,
                "dns.pool.cleanup_interval",
                &spec.cleanup_interval,
                10 * MILLISECOND..=HOUR,
                default.cleanup_interval,
            ),
            udp_max_queries: count(spec.udp_max_queries.as_ref(), default.udp_max_queries),
            udp_max_age: duration(
                self,
                "dns.pool.udp_max_age",
                &spec.udp_max_age,
                100 * MILLISECOND..=HOUR,
                default.udp_max_age,
            ),
            reuse: spec.reuse.as_ref().map_or(default.reuse, |at| at.value),
        }
    }

    pub(super) fn breaker(&mut self, path: &str, spec: &BreakerSpec) -> BreakerSettings {
        let default = BreakerSettings::default();
        let key = |key: &str| format!("{path}.{key}");
        let failure_ratio = match &spec.failure_ratio {
            Some(at) if at.value > 0.0 && at.value <= 1.0 => at.value,
            Some(at) => {
                self.out_of_range(&key("failure_ratio"), at.span.clone(), "a share above 0, up to 1, such as 0.5");
                default.failure_ratio
            }
            None => default.failure_ratio,
        };
        let open = self.duration(&key("open"), spec.open.as_ref(), MILLISECOND..=DAY, default.open);
        let open_max = self.duration(&key("open_max"), spec.open_max.as_ref(), MILLISECOND..=DAY, default.open_max);
        if open > open_max {
            let (at, other) = (spec.open.as_ref(), spec.open_max.as_ref());
            self.order(at, other, &key("open"), &key("open_max"), &duration_words(open_max));
        }
        BreakerSettings {
            failures: count(spec.failures.as_ref(), default.failures),
            failure_ratio,
            window: self.duration(&key("window"), spec.window.as_ref(), 100 * MILLISECOND..=HOUR, default.window),
            open,
            open_max,
            successes: count(spec.successes.as_ref(), default.successes),
        }
    }
}
