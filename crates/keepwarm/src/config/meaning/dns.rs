//! `[dns]` itself: what holds for every query, and the sections below it.

use std::time::Duration;

use ipnet::IpNet;
use keepwarm_dns::config::DnsConfig;

use super::{Check, MILLISECOND, MINUTE};
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, List},
    spec::DnsSpec,
    words::duration_words,
};

impl Check<'_> {
    pub(super) fn dns(&mut self, spec: DnsSpec) -> DnsConfig {
        let timeout = self.duration("dns.timeout", spec.timeout.as_ref(), MILLISECOND..=5 * MINUTE, defaults::TIMEOUT);
        let racing_delay = self.racing_delay(spec.racing_delay.as_ref(), spec.timeout.as_ref(), timeout);
        if let Some(limit) = spec.rate_limit.as_ref().filter(|at| at.value != 0) {
            self.faults.push(
                Fault::error(limit.span.clone(), "`dns.rate_limit` is known, but not part of this version")
                    .help("accepted: 0 (no limit)"),
            );
        }
        DnsConfig {
            listen: self.listen(spec.listen.as_ref()),
            strategy: spec.strategy.map(|at| at.value.0).unwrap_or_default(),
            timeout,
            racing_delay,
            allow: self.allow(spec.allow.as_ref()),
            clients: self.clients(&spec.clients.map(|at| at.value).unwrap_or_default()),
            bootstrap: spec.bootstrap.map(|at| at.value.iter().map(|item| item.value.0).collect()).unwrap_or_default(),
            cache: self.cache(&spec.cache.map(|at| at.value).unwrap_or_default()),
            pool: self.pool(&spec.pool.map(|at| at.value).unwrap_or_default()),
            breaker: self.breaker(&spec.breaker.map(|at| at.value).unwrap_or_default()),
            upstreams: spec.upstream.map(|list| self.upstreams(list)).unwrap_or_default(),
            workers: defaults::WORKERS,
            max_connections: defaults::MAX_CONNECTIONS,
            ..DnsConfig::default()
        }
    }

    fn racing_delay(
        &mut self,
        delay: Option<&At<Duration>>,
        written: Option<&At<Duration>>,
        timeout: Duration,
    ) -> Duration {
        let read = self.duration("dns.racing_delay", delay, Duration::ZERO..=5 * MINUTE, defaults::RACING_DELAY);
        let Some(delay) = delay.filter(|_| read > timeout) else {
            return read;
        };
        let fault = Fault::error(delay.span.clone(), "`dns.racing_delay` is longer than `dns.timeout`")
            .label("no second upstream would ever join")
            .help(format!("accepted: 0s to {}", duration_words(timeout)));
        self.faults.push(match written {
            Some(at) => fault.also(at.span.clone(), "the deadline of the whole query"),
            None => fault,
        });
        read
    }

    fn allow(&mut self, allow: Option<&At<List<IpNet>>>) -> Vec<IpNet> {
        let Some(allow) = allow else {
            return defaults::allow();
        };
        self.not_empty_list("dns.allow", allow, 10_000, "at least one network: with none, nobody could ask");
        allow.value.iter().map(|item| item.value).collect()
    }
}
