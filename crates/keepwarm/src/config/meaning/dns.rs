//! `[dns]` itself: what holds for every query, and the sections below it.

use std::{path::Path, time::Duration};

use ipnet::IpNet;
use keepwarm_dns::config::{DnsConfig, HedgeSettings, Strategy};

use super::{Check, MILLISECOND, MINUTE, count};
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, List, Section as _},
    spec::{DnsSpec, HedgeSpec, UpstreamSpec},
    words::duration_words,
};

impl Check<'_> {
    pub(super) fn dns(&mut self, spec: DnsSpec, base: &Path) -> DnsConfig {
        let timeout = self.duration("dns.timeout", spec.timeout.as_ref(), MILLISECOND..=5 * MINUTE, defaults::TIMEOUT);
        self.groups(&spec);
        // A strategy that was refused may have been meant as the one that uses these keys.
        if !spec.refused("strategy", spec.strategy.as_ref()) {
            let strategy = spec.strategy.as_ref().map_or_else(Strategy::default, |at| at.value);
            self.weights_are_used(spec.upstream.as_ref(), strategy);
            self.hedge_is_used(spec.hedge.as_ref(), strategy);
        }
        DnsConfig {
            listen: self.listen(spec.listen.as_ref()),
            tls: self.listen_tls(spec.tls.as_ref(), spec.has("tls"), spec.listen.as_ref(), base),
            racing_delay: self.racing_delay(spec.racing_delay.as_ref(), spec.timeout.as_ref(), timeout),
            hedge: self.hedge(&spec.hedge.map(|at| at.value).unwrap_or_default()),
            routes: self.routes(spec.route.as_ref()),
            fallback: spec.fallback.map(|at| at.value.0),
            strategy: spec.strategy.map(|at| at.value).unwrap_or_default(),
            timeout,
            slow: self.slow("dns.slow", spec.slow.as_ref(), DnsConfig::default().slow),
            allow: self.allow(spec.allow.as_ref()),
            clients: self.clients(&spec.clients.map(|at| at.value).unwrap_or_default(), spec.rate_limit.as_ref()),
            client_subnet: self.client_subnet(&spec.client_subnet.map(|at| at.value).unwrap_or_default()),
            local: self.local(&spec.local.map(|at| at.value).unwrap_or_default(), base),
            query_log: self.query_log(&spec.query_log.map(|at| at.value).unwrap_or_default(), base),
            bootstrap: spec.bootstrap.map(|at| at.value.iter().map(|item| item.value.0).collect()).unwrap_or_default(),
            cache: self.cache(&spec.cache.map(|at| at.value).unwrap_or_default()),
            pool: self.pool(&spec.pool.map(|at| at.value).unwrap_or_default()),
            breaker: self.breaker("dns.breaker", &spec.breaker.map(|at| at.value).unwrap_or_default()),
            upstreams: spec.upstream.map(|list| self.upstreams(list)).unwrap_or_default(),
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

    fn hedge(&mut self, spec: &HedgeSpec) -> HedgeSettings {
        let default = HedgeSettings::default();
        let budget = match &spec.budget {
            Some(at) if (0.0..=1.0).contains(&at.value) => at.value,
            Some(at) => {
                self.out_of_range("dns.hedge.budget", at.span.clone(), "a share from 0 to 1, such as 0.05");
                default.budget
            }
            None => default.budget,
        };
        HedgeSettings { budget, burst: count(spec.burst.as_ref(), default.burst) }
    }

    /// A key that shows its default asks for nothing, so it needs no warning.
    fn hedge_is_used(&mut self, spec: Option<&At<HedgeSpec>>, strategy: Strategy) {
        let Some(At { value: spec, .. }) = spec.filter(|_| strategy != Strategy::Hedged) else {
            return;
        };
        let default = HedgeSettings::default();
        let budget = spec.budget.as_ref().filter(|at| at.value != default.budget).map(|at| ("budget", &at.span));
        let burst =
            spec.burst.as_ref().filter(|at| at.value.0 != u64::from(default.burst)).map(|at| ("burst", &at.span));
        for (key, span) in budget.into_iter().chain(burst) {
            self.faults.push(
                Fault::warning(
                    span.clone(),
                    format!("`dns.hedge.{key}` is not used by the strategy \"{}\"", strategy.as_str()),
                )
                .help("write strategy = \"hedged\" in [dns], or remove it"),
            );
        }
    }

    fn weights_are_used(&mut self, upstreams: Option<&At<List<UpstreamSpec>>>, strategy: Strategy) {
        if matches!(strategy, Strategy::Random | Strategy::LeastLoaded) {
            return;
        }
        let weights =
            upstreams.iter().flat_map(|list| &list.value).filter_map(|upstream| upstream.value.weight.as_ref());
        // One warning says it all, however many upstreams have a weight.
        if let Some(at) = weights.into_iter().find(|at| at.value.0 != 1) {
            self.faults.push(
                Fault::warning(
                    at.span.clone(),
                    format!("`dns.upstream.weight` is not used by the strategy \"{}\"", strategy.as_str()),
                )
                .help("write strategy = \"random\" or strategy = \"least-loaded\" in [dns], or remove the weights"),
            );
        }
    }

    fn allow(&mut self, allow: Option<&At<List<IpNet>>>) -> Vec<IpNet> {
        let Some(allow) = allow else {
            return defaults::allow();
        };
        self.not_empty_list("dns.allow", allow, 10_000, "at least one network: with none, nobody could ask");
        allow.value.iter().map(|item| item.value).collect()
    }
}
