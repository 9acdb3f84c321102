//! The origins: hosts that are named once, and times and counts that agree with each other.

use std::{collections::HashMap, ops::Range, path::Path, time::Duration};

use ipnet::IpNet;
use keepwarm_https::config::{AddressSource, OriginConfig, Validate, Verdict};

use super::{Check, DAY, HOUR, MILLISECOND, MINUTE, SECOND, count};
use crate::config::{
    fault::Fault,
    read::{At, List, Section as _},
    spec::{OriginSpec, ValidateSpec, VerdictSpec},
    words::duration_words,
};

const ORIGINS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 10_000;
const NETWORKS_MAX: usize = 10_000;
const VERDICTS_MAX: usize = 64;
/// DNS and files are asked no more often, whatever a TTL says.
const REFRESH_MIN: Duration = Duration::from_secs(10);

impl Check<'_> {
    pub(super) fn origins(&mut self, origins: At<List<OriginSpec>>, base: &Path) -> Vec<OriginConfig> {
        self.not_too_many("https.origin", &origins, ORIGINS_MAX);
        let mut known = HashMap::new();
        origins.value.into_iter().filter_map(|origin| self.origin(origin, &mut known, base)).collect()
    }

    fn origin(
        &mut self,
        origin: At<OriginSpec>,
        known: &mut HashMap<(String, u16), Range<usize>>,
        base: &Path,
    ) -> Option<OriginConfig> {
        let At { value: spec, span } = origin;
        if !spec.has("host") {
            let help = "add the host, such as host = \"tiles.example.com\"";
            self.faults.push(Fault::error(span, "`https.origin.host` is missing").help(help));
        }
        let host = spec.host.clone();
        let port = self.port(&spec);
        let default = OriginConfig::new(host.as_ref().map_or("", |at| &at.value.host));
        let reached = self.reached("https.origin", spec, OriginConfig { port, ..default }, base);
        let host = host?;
        let (name, port) = (host.value.host, reached.port);
        match known.get(&(name.clone(), port)) {
            Some(first) => self.faults.push(
                Fault::error(host.span, format!("two origins are {name} port {port}"))
                    .also(first.clone(), "the first")
                    .help("make one of them: a request must find one way to its host"),
            ),
            None => {
                known.insert((name, port), host.span);
            }
        }
        Some(reached)
    }

    fn port(&mut self, spec: &OriginSpec) -> u16 {
        let in_host = spec.host.as_ref().and_then(|at| Some((at.value.port?, &at.span)));
        match (in_host, &spec.port) {
            (Some((_, host)), Some(port)) => {
                self.faults.push(
                    Fault::error(port.span.clone(), "`https.origin.port` is beside a port in `host`")
                        .also(host.clone(), "has a port")
                        .help("remove one of them"),
                );
                count(Some(port), 443)
            }
            (Some((port, _)), None) => port,
            (None, port) => count(port.as_ref(), OriginConfig::new("").port),
        }
    }

    /// How a host is reached: all keys but its name and port, which `default` has.
    pub(super) fn reached(&mut self, path: &str, spec: OriginSpec, default: OriginConfig, base: &Path) -> OriginConfig {
        let key = |key: &str| format!("{path}.{key}");
        let (quarantine, quarantine_max) = self.quarantine(path, &spec, &default);
        let time = MILLISECOND..=HOUR;
        OriginConfig {
            profile: spec
                .profile
                .as_ref()
                .and_then(|at| self.profile(&key("profile"), at, base))
                .unwrap_or(default.profile),
            http: spec.http.as_ref().map_or(default.http, |at| at.value),
            addresses: self.address_sources(&key("addresses"), &spec, base),
            refresh: self.refresh(&key("refresh"), spec.refresh.as_ref(), default.refresh),
            addresses_max: count(spec.addresses_max.as_ref(), default.addresses_max),
            warm: count(spec.warm.as_ref(), default.warm),
            min_idle: count(spec.min_idle.as_ref(), default.min_idle),
            allow: self.networks(&key("allow"), spec.allow.as_ref()),
            deny: self.networks(&key("deny"), spec.deny.as_ref()),
            quarantine,
            quarantine_max,
            failures: count(spec.failures.as_ref(), default.failures),
            verdicts: match &spec.verdicts {
                Some(list) => self.verdicts(&key("verdicts"), list, spec.quarantine_max.as_ref(), quarantine_max),
                None => default
                    .verdicts
                    .into_iter()
                    .map(|verdict| Verdict { rest: verdict.rest.min(quarantine_max), ..verdict })
                    .collect(),
            },
            timeout: self.duration(&key("timeout"), spec.timeout.as_ref(), time.clone(), default.timeout),
            body_timeout: self.duration(&key("body_timeout"), spec.body_timeout.as_ref(), time, default.body_timeout),
            tries: count(spec.tries.as_ref(), default.tries),
            retry_budget: self.retry_budget(&key("retry_budget"), spec.retry_budget.as_ref(), default.retry_budget),
            validate: spec.validate.and_then(|at| at.value.section()).map(|spec| self.validate(&key("validate"), spec)),
            proxy: spec.proxy.map(|at| at.value.0),
            profile_headers: spec.profile_headers.map_or(default.profile_headers, |at| at.value),
            host: default.host,
            port: default.port,
        }
    }

    fn quarantine(&mut self, path: &str, spec: &OriginSpec, default: &OriginConfig) -> (Duration, Duration) {
        let (key, max_key) = (format!("{path}.quarantine"), format!("{path}.quarantine_max"));
        let range = SECOND..=7 * DAY;
        let max = self.duration(&max_key, spec.quarantine_max.as_ref(), range.clone(), default.quarantine_max);
        let first = self.duration(&key, spec.quarantine.as_ref(), range, default.quarantine.min(max));
        let max_is_known = spec.quarantine_max.as_ref().map_or(!spec.has("quarantine_max"), |at| at.value == max);
        if first > max && max_is_known {
            self.order(spec.quarantine.as_ref(), spec.quarantine_max.as_ref(), &key, &max_key, &duration_words(max));
        }
        (first, max)
    }

    fn address_sources(&mut self, key: &str, spec: &OriginSpec, base: &Path) -> Vec<AddressSource> {
        let Some(list) = &spec.addresses else {
            return Vec::new();
        };
        self.not_too_many(key, list, ADDRESSES_MAX);
        if let Some(host) = spec.host.as_ref().filter(|at| !list.value.is_empty() && is_ip(&at.value.host)) {
            self.faults.push(
                Fault::error(list.span.clone(), format!("`{key}` has no meaning where `host` is an IP"))
                    .also(host.span.clone(), format!("already {}", host.value.host))
                    .help("remove it, or name the host in `host`"),
            );
        }
        let read = |item: &At<AddressSource>| match &item.value {
            AddressSource::File(file) => {
                self.address_file(key, file, &item.span, base);
                AddressSource::File(base.join(file))
            }
            other => other.clone(),
        };
        list.value.iter().map(read).collect()
    }

    fn refresh(&mut self, key: &str, at: Option<&At<Duration>>, default: Option<Duration>) -> Option<Duration> {
        let Some(At { value, span }) = at else {
            return default;
        };
        let range = REFRESH_MIN..=7 * DAY;
        if !value.is_zero() && !range.contains(value) {
            let (min, max) = (duration_words(*range.start()), duration_words(*range.end()));
            self.out_of_range(key, span.clone(), &format!("{min} to {max}; \"0s\" reads once"));
        }
        (!value.is_zero()).then_some(*value)
    }

    fn networks(&mut self, key: &str, list: Option<&At<List<IpNet>>>) -> Vec<IpNet> {
        if let Some(list) = list {
            self.not_too_many(key, list, NETWORKS_MAX);
        }
        list.iter().flat_map(|list| &list.value).map(|item| item.value).collect()
    }

    fn verdicts(
        &mut self,
        key: &str,
        list: &At<List<VerdictSpec>>,
        max_at: Option<&At<Duration>>,
        max: Duration,
    ) -> Vec<Verdict> {
        self.not_too_many(key, list, VERDICTS_MAX);
        list.value.iter().filter_map(|verdict| self.verdict(key, verdict, max_at, max)).collect()
    }

    fn verdict(
        &mut self,
        key: &str,
        verdict: &At<VerdictSpec>,
        max_at: Option<&At<Duration>>,
        max: Duration,
    ) -> Option<Verdict> {
        let At { value: spec, span } = verdict;
        if !spec.has("statuses") {
            self.faults.push(
                Fault::error(span.clone(), format!("`{key}.statuses` is missing"))
                    .help("add the statuses that it is about, such as statuses = \"403,429\""),
            );
        }
        let default = Verdict::default();
        let rest = spec.rest.as_ref().map_or(default.rest.min(max), |at| at.value);
        if rest > max && max_at.is_none_or(|at| at.value == max) {
            let limit = key.replace("verdicts", "quarantine_max");
            self.order(spec.rest.as_ref(), max_at, &format!("{key}.rest"), &limit, &duration_words(max));
        }
        let retry = spec.retry.as_ref().map_or(default.retry, |at| at.value);
        Some(Verdict { statuses: spec.statuses.as_ref()?.value.clone(), rest, retry })
    }

    fn validate(&mut self, key: &str, spec: ValidateSpec) -> Validate {
        let default = Validate::default();
        let timeout = format!("{key}.timeout");
        Validate {
            timeout: self.duration(&timeout, spec.timeout.as_ref(), MILLISECOND..=5 * MINUTE, default.timeout),
            method: spec.method.map_or(default.method, |at| at.value.0),
            path: spec.path.map_or(default.path, |at| at.value.0),
            statuses: spec.statuses.map_or(default.statuses, |at| at.value),
        }
    }

    fn retry_budget(&mut self, key: &str, at: Option<&At<f64>>, default: f64) -> f64 {
        match at {
            Some(at) if !(0.0..=1.0).contains(&at.value) => {
                self.out_of_range(key, at.span.clone(), "a share from 0 to 1, such as 0.2");
                default
            }
            at => at.map_or(default, |at| at.value),
        }
    }
}

fn is_ip(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
}
