//! `[https]`: that there is something to serve, and that its limits agree with each other and with those of the daemon.

use std::{ops::Range, path::Path, time::Duration};

use keepwarm_https::config::{HttpsConfig, OriginConfig, PoolConfig};
use keepwarm_transport::tls::TlsRoots;

use super::{Check, DAY, HOUR, MILLISECOND, MINUTE, SECOND, count};
use crate::config::{
    example::NOT_FOR_ANY_HOST,
    fault::Fault,
    read::{At, Section as _, Switch},
    spec::{HttpsPoolSpec, HttpsSpec, OriginSpec},
    value::Count,
};

mod gateway;
mod origin;
mod sources;

pub(super) use gateway::Taken;

impl Check<'_> {
    pub(super) fn https(&mut self, spec: At<HttpsSpec>, taken: &Taken, roots: TlsRoots, base: &Path) -> HttpsConfig {
        let At { value: spec, span } = spec;
        let default = HttpsConfig::default();
        self.has_origins(&spec, span);
        let gateway = self.gateway(&spec, taken, base);
        let pool_spec = spec.pool.clone().map(|at| at.value).unwrap_or_default();
        let pool = self.https_pool(&pool_spec);
        if !pool_spec.refused("max_idle", pool_spec.max_idle.as_ref()) {
            self.ready_fits(&spec, &pool_spec, pool.max_idle);
        }
        self.any_host_max_is_used(&spec);
        HttpsConfig {
            gateway,
            pool,
            slow: self.slow("https.slow", spec.slow.as_ref(), default.slow),
            any_host: spec.any_host.and_then(|at| self.any_host(at, base)),
            any_host_max: count(spec.any_host_max.as_ref(), default.any_host_max),
            origins: spec.origin.map(|list| self.origins(list, base)).unwrap_or_default(),
            roots,
        }
    }

    fn has_origins(&mut self, spec: &HttpsSpec, span: Range<usize>) {
        let any_host = match &spec.any_host {
            Some(at) => !matches!(at.value, Switch::Off),
            None => spec.has("any_host"),
        };
        let some = match &spec.origin {
            Some(list) => {
                !list.value.is_empty() || self.faults.iter().any(|fault| super::section_of(&list.span, fault))
            }
            None => spec.has("origin"),
        };
        if !some && !any_host {
            let span = spec.origin.as_ref().map_or(span, |list| list.span.clone());
            let help = format!("add one, such as:\n{ORIGIN_FORM}\nor write any_host = true in [https]");
            self.faults.push(Fault::error(span, "there is no origin to connect to").help(help));
        }
    }

    fn https_pool(&mut self, spec: &HttpsPoolSpec) -> PoolConfig {
        let default = PoolConfig::default();
        let max_total = count(spec.max_total.as_ref(), default.max_total);
        let max_per_host = count(spec.max_per_host.as_ref(), default.max_per_host.min(max_total));
        let max_idle = count(spec.max_idle.as_ref(), default.max_idle.min(max_total));
        for (key, at, value) in [
            ("https.pool.max_per_host", &spec.max_per_host, max_per_host),
            ("https.pool.max_idle", &spec.max_idle, max_idle),
        ] {
            if value > max_total && !spec.refused("max_total", spec.max_total.as_ref()) {
                let other = spec.max_total.as_ref();
                self.order(at.as_ref(), other, key, "https.pool.max_total", &max_total.to_string());
            }
        }
        let mut time = |key: &str, at: &Option<At<Duration>>, range, default| {
            self.duration(&format!("https.pool.{key}"), at.as_ref(), range, default)
        };
        let short = MILLISECOND..=5 * MINUTE;
        PoolConfig {
            max_total,
            max_per_host,
            max_idle,
            max_in_flight: count(spec.max_in_flight.as_ref(), default.max_in_flight),
            max_waiters: count(spec.max_waiters.as_ref(), default.max_waiters),
            idle_timeout: time("idle_timeout", &spec.idle_timeout, 100 * MILLISECOND..=DAY, default.idle_timeout),
            max_lifetime: time("max_lifetime", &spec.max_lifetime, SECOND..=7 * DAY, default.max_lifetime),
            connect_timeout: time("connect_timeout", &spec.connect_timeout, short.clone(), default.connect_timeout),
            acquire_timeout: time("acquire_timeout", &spec.acquire_timeout, short, default.acquire_timeout),
            check_interval: time("check_interval", &spec.check_interval, SECOND..=DAY, default.check_interval),
            cleanup_interval: time(
                "cleanup_interval",
                &spec.cleanup_interval,
                10 * MILLISECOND..=HOUR,
                default.cleanup_interval,
            ),
        }
    }

    /// Connections that are ready are idle: what all origins together want ready must be let idle, and so be allowed at all.
    fn ready_fits(&mut self, spec: &HttpsSpec, pool: &HttpsPoolSpec, max_idle: usize) {
        let origins = spec.origin.iter().flat_map(|list| &list.value).map(|origin| &origin.value);
        let origins: Vec<&OriginSpec> = origins.collect();
        let warm = origins.iter().filter_map(|origin| origin.warm.as_ref());
        self.sum_fits("warm", warm, pool, max_idle);
        let min_idle = origins.iter().filter_map(|origin| origin.min_idle.as_ref());
        self.sum_fits("min_idle", min_idle, pool, max_idle);
        if let Some(At { value: Switch::With(any), .. }) = &spec.any_host {
            self.sum_fits("min_idle", any.min_idle.iter(), pool, max_idle);
        }
    }

    /// Notes the first origin with which the sum is too large.
    fn sum_fits<'s>(
        &mut self,
        key: &str,
        counts: impl Iterator<Item = &'s At<Count<0, 65_535>>>,
        pool: &HttpsPoolSpec,
        max_idle: usize,
    ) {
        let mut sum = 0;
        for at in counts {
            sum += at.value.0;
            if sum <= max_idle as u64 {
                continue;
            }
            let fault = Fault::error(
                at.span.clone(),
                format!(
                    "`{key}` wants {sum} connections ready, and `https.pool.max_idle` closes all beyond {max_idle}"
                ),
            );
            self.faults.push(
                match &pool.max_idle {
                    Some(limit) => fault.also(limit.span.clone(), "the limit"),
                    None => fault.label("of all origins up to here"),
                }
                .help(format!("accepted: {max_idle} in all origins together; or raise `https.pool.max_idle`")),
            );
            return;
        }
    }

    fn any_host_max_is_used(&mut self, spec: &HttpsSpec) {
        let is_off = !spec.has("any_host") || matches!(&spec.any_host, Some(at) if matches!(at.value, Switch::Off));
        let default = HttpsConfig::default().any_host_max as u64;
        if let Some(at) = spec.any_host_max.as_ref().filter(|at| is_off && at.value.0 != default) {
            self.faults.push(
                Fault::warning(at.span.clone(), "`https.any_host_max` is not used: `any_host` is false")
                    .help("write any_host = true, or remove it"),
            );
        }
    }

    fn any_host(&mut self, any_host: At<Switch<OriginSpec>>, base: &Path) -> Option<Box<OriginConfig>> {
        let spec = any_host.value.section()?;
        let spans = [
            spec.host.as_ref().map(|at| &at.span),
            spec.port.as_ref().map(|at| &at.span),
            spec.addresses.as_ref().map(|at| &at.span),
            spec.warm.as_ref().map(|at| &at.span),
        ];
        for (key, span) in NOT_FOR_ANY_HOST.into_iter().zip(spans) {
            if let Some(span) = span {
                self.faults.push(
                    Fault::error(
                        span.clone(),
                        format!("`https.any_host.{key}` belongs to one host, and this is for all others"),
                    )
                    .help("remove it, or write an [[https.origin]] for that host"),
                );
            }
        }
        Some(Box::new(self.reached("https.any_host", spec, OriginConfig::new(""), base)))
    }
}

/// How an origin is written.
pub(in crate::config::meaning) const ORIGIN_FORM: &str = "[[https.origin]]\nhost = \"tiles.example.com\"";
