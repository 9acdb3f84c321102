//! From `Spec` to [`Config`](super::Config): defaults, ranges and the checks across keys.
//!
//! Reading and types are behind us, and the ranges of counts, which are part of their types; here a duration meets its
//! range and a key meets its neighbours. Nothing is repaired: what does not fit is a fault, and the value that stands in
//! for it only keeps the remaining checks going.

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use keepwarm_dns::config::{BreakerSettings, ClientLimits, DnsConfig, Listen, PoolSettings, Transport, UpstreamConfig};
use keepwarm_transport::tls::TlsRoots;

use super::{
    Config, ControlConfig,
    address::UpstreamAddress,
    defaults,
    fault::{Fault, Faults},
    read::{At, List, Section as _},
    spec::{BreakerSpec, ClientsSpec, ControlSpec, DnsSpec, FileSpec, LogSpec, PoolSpec, UpstreamSpec},
    value::{Count, Text},
    words::duration_words,
};
use crate::logging::LogConfig;

mod cache;

/// The one version of the file format.
const VERSION: u64 = 1;
const UPSTREAMS_MAX: usize = 64;
const LISTEN_MAX: usize = 64;
const NAME_MAX: usize = 64;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Checks the whole file; `base` is where relative paths start. The result only counts when `faults` has no error.
pub(super) fn config(spec: FileSpec, faults: &mut Faults, base: &Path) -> Config {
    let mut check = Check { faults };
    check.version(&spec);
    let dns_is_unreadable = spec.dns.is_none() && spec.has("dns");
    let limits = spec.limits.map(|at| at.value).unwrap_or_default();
    let max_connections = count(limits.max_connections.as_ref(), defaults::MAX_CONNECTIONS);
    let workers = count(limits.workers.as_ref(), defaults::WORKERS);
    let extra_roots = spec.tls.and_then(|at| at.value.extra_roots).map(|at| at.value).unwrap_or_default();
    let roots = check.roots(&extra_roots, base);
    let (dns, span) = spec.dns.map_or_else(|| (DnsSpec::default(), 0..0), |at| (at.value, at.span));
    if !dns_is_unreadable && !dns.has("upstream") {
        check.no_upstream(span);
    }
    let max_per_host = dns.pool.as_ref().and_then(|pool| pool.value.max_per_host.clone());
    let mut dns = check.dns(dns);
    if dns.pool.max_per_host > max_connections && !limits.refused("max_connections", limits.max_connections.as_ref()) {
        let (at, other) = (max_per_host.as_ref(), limits.max_connections.as_ref());
        check.order(at, other, "dns.pool.max_per_host", "limits.max_connections", &max_connections.to_string());
    }
    dns.workers = workers;
    dns.max_connections = max_connections;
    dns.roots = roots;
    Config {
        log: log(spec.log.map(|at| at.value).unwrap_or_default()),
        control: control(&spec.control.map(|at| at.value).unwrap_or_default()),
        dns,
    }
}

fn log(spec: LogSpec) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        filter: spec.level.map_or(default.filter, |at| at.value),
        format: spec.format.map_or(default.format, |at| at.value),
    }
}

fn control(spec: &ControlSpec) -> ControlConfig {
    let default = ControlConfig::default();
    ControlConfig { listen: spec.listen.as_ref().map_or(default.listen, |at| at.value.0) }
}

/// The checks; each notes its faults and goes on.
struct Check<'f> {
    faults: &'f mut Faults,
}

impl Check<'_> {
    fn version(&mut self, spec: &FileSpec) {
        match &spec.version {
            Some(at) if at.value == VERSION => {}
            Some(at) => self.faults.push(
                Fault::error(at.span.clone(), format!("`version` {} is not known", at.value))
                    .help(format!("accepted: {VERSION}, the only version of the file format so far")),
            ),
            None if spec.has("version") => {}
            None => self.faults.push(
                Fault::error(0..0, "`version` is missing")
                    .help(format!("write `version = {VERSION}` at the top of the file")),
            ),
        }
    }

    fn roots(&mut self, files: &List<Text>, base: &Path) -> TlsRoots {
        let mut roots = TlsRoots::system();
        for file in files {
            let path = base.join(&file.value.0);
            match roots.clone().with_pem_file(&path) {
                Ok(more) => roots = more,
                Err(error) => self.faults.push(
                    Fault::error(file.span.clone(), format!("`tls.extra_roots`: {error}"))
                        .help("accepted: the path of a PEM file with at least one certificate; a relative path starts at this file's folder"),
                ),
            }
        }
        roots
    }

    fn dns(&mut self, spec: DnsSpec) -> DnsConfig {
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

    fn listen(&mut self, listen: Option<&At<List<Listen>>>) -> Vec<Listen> {
        let Some(listen) = listen else {
            return vec![defaults::listen()];
        };
        self.not_empty_list("dns.listen", listen, LISTEN_MAX, "at least one address, such as \"127.0.0.1:5300\"");
        for (index, item) in listen.value.iter().enumerate() {
            let clash = listen.value[..index].iter().find(|earlier| {
                let same = earlier.value.address == item.value.address && item.value.address.port() != 0;
                let (a, b) = (earlier.value.transport, item.value.transport);
                same && (a.over_udp() && b.over_udp() || a.over_tcp() && b.over_tcp())
            });
            if let Some(earlier) = clash {
                self.faults.push(
                    Fault::error(item.span.clone(), format!("`dns.listen` has {} twice", item.value.address))
                        .also(earlier.span.clone(), "first here; a plain address is UDP and TCP")
                        .help("remove one of them"),
                );
            }
        }
        listen.value.iter().map(|item| item.value.clone()).collect()
    }

    fn allow(&mut self, allow: Option<&At<List<IpNet>>>) -> Vec<IpNet> {
        let Some(allow) = allow else {
            return defaults::allow();
        };
        self.not_empty_list("dns.allow", allow, 10_000, "at least one network: with none, nobody could ask");
        allow.value.iter().map(|item| item.value).collect()
    }

    fn clients(&mut self, spec: &ClientsSpec) -> ClientLimits {
        let default = ClientLimits::default();
        let tcp_max = count(spec.tcp_max.as_ref(), default.tcp_max);
        let tcp_max_per_client = count(spec.tcp_max_per_client.as_ref(), default.tcp_max_per_client.min(tcp_max));
        if tcp_max_per_client > tcp_max && !spec.refused("tcp_max", spec.tcp_max.as_ref()) {
            let (at, other) = (spec.tcp_max_per_client.as_ref(), spec.tcp_max.as_ref());
            self.order(at, other, "dns.clients.tcp_max_per_client", "dns.clients.tcp_max", &tcp_max.to_string());
        }
        ClientLimits {
            tcp_max,
            tcp_max_per_client,
            tcp_idle_timeout: self.duration(
                "dns.clients.tcp_idle_timeout",
                spec.tcp_idle_timeout.as_ref(),
                100 * MILLISECOND..=HOUR,
                default.tcp_idle_timeout,
            ),
            tcp_max_in_flight: count(spec.tcp_max_in_flight.as_ref(), default.tcp_max_in_flight),
            max_in_flight: count(spec.max_in_flight.as_ref(), default.max_in_flight),
            udp_payload_size: count(spec.udp_payload_size.as_ref(), default.udp_payload_size),
            ..default
        }
    }

    fn pool(&mut self, spec: &PoolSpec) -> PoolSettings {
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

    fn breaker(&mut self, spec: &BreakerSpec) -> BreakerSettings {
        let default = BreakerSettings::default();
        let failure_ratio = match &spec.failure_ratio {
            Some(at) if at.value > 0.0 && at.value <= 1.0 => at.value,
            Some(at) => {
                self.out_of_range(
                    "dns.breaker.failure_ratio",
                    at.span.clone(),
                    "a share above 0, up to 1, such as 0.5",
                );
                default.failure_ratio
            }
            None => default.failure_ratio,
        };
        let open = self.duration("dns.breaker.open", spec.open.as_ref(), MILLISECOND..=DAY, default.open);
        let open_max =
            self.duration("dns.breaker.open_max", spec.open_max.as_ref(), MILLISECOND..=DAY, default.open_max);
        if open > open_max {
            let (at, other) = (spec.open.as_ref(), spec.open_max.as_ref());
            self.order(at, other, "dns.breaker.open", "dns.breaker.open_max", &duration_words(open_max));
        }
        BreakerSettings {
            failures: count(spec.failures.as_ref(), default.failures),
            failure_ratio,
            window: self.duration("dns.breaker.window", spec.window.as_ref(), 100 * MILLISECOND..=HOUR, default.window),
            open,
            open_max,
            successes: count(spec.successes.as_ref(), default.successes),
        }
    }

    fn no_upstream(&mut self, span: Range<usize>) {
        const REMEDY: &str = "add one, such as:\n[[dns.upstream]]\nname = \"quad9\"\naddress = \"tls://dns.quad9.net\"\naddresses = [\"9.9.9.9\", \"2620:fe::fe\"]";
        self.faults.push(Fault::error(span, "there is no upstream to ask").help(REMEDY));
    }

    fn upstreams(&mut self, upstreams: At<List<UpstreamSpec>>) -> Vec<UpstreamConfig> {
        if upstreams.value.is_empty() {
            self.no_upstream(upstreams.span.clone());
        }
        if let Some(first_over) = upstreams.value.get(UPSTREAMS_MAX) {
            self.faults.push(
                Fault::error(first_over.span.clone(), format!("`dns.upstream` has {} entries", upstreams.value.len()))
                    .help(format!("accepted: at most {UPSTREAMS_MAX}")),
            );
        }
        let mut names: HashMap<String, Range<usize>> = HashMap::new();
        upstreams.value.into_iter().filter_map(|upstream| self.upstream(upstream, &mut names)).collect()
    }

    fn upstream(
        &mut self,
        upstream: At<UpstreamSpec>,
        names: &mut HashMap<String, Range<usize>>,
    ) -> Option<UpstreamConfig> {
        let At { value: spec, span } = upstream;
        self.required("name", &spec, &span, "a name of your choice, such as name = \"quad9\"");
        self.required("address", &spec, &span, "where it is, such as address = \"tls://dns.quad9.net\"");
        if let Some(name) = &spec.name {
            self.name(name);
            if let Some(first) = names.get(&name.value.0) {
                self.faults.push(
                    Fault::error(name.span.clone(), format!("two upstreams are named \"{}\"", name.value.0))
                        .also(first.clone(), "the first")
                        .help("give each upstream a name of its own"),
                );
            } else {
                names.insert(name.value.0.clone(), name.span.clone());
            }
        }
        let address = spec.address?;
        let encrypted = matches!(address.value.transport, Transport::Tls | Transport::Https);
        if let Some(server_name) = spec.server_name.as_ref().filter(|_| !encrypted) {
            let scheme = address.value.transport.as_str();
            self.faults.push(
                Fault::error(
                    server_name.span.clone(),
                    format!("`dns.upstream.server_name` has no meaning with {scheme}://"),
                )
                .also(address.span.clone(), "not encrypted, so there is no certificate")
                .help("remove it, or use tls:// or https://"),
            );
        }
        if let Some(addresses) = spec.addresses.as_ref().filter(|list| !list.value.is_empty())
            && let Some(ip) = address.value.ip()
        {
            self.faults.push(
                Fault::error(
                    addresses.span.clone(),
                    "`dns.upstream.addresses` has no meaning where `address` is an IP",
                )
                .also(address.span.clone(), format!("already {ip}"))
                .help("remove it, or name the host in `address`"),
            );
        }
        let addresses: Vec<IpAddr> =
            spec.addresses.map(|list| list.value.into_iter().map(|item| item.value.0).collect()).unwrap_or_default();
        let UpstreamAddress { transport, host, port, path } = address.value;
        Some(UpstreamConfig {
            path,
            addresses,
            server_name: spec.server_name.map(|at| at.value.0),
            case_randomization: spec.case_randomization.is_some_and(|at| at.value),
            ..UpstreamConfig::new(&spec.name?.value.0, transport, &host, port)
        })
    }

    fn name(&mut self, name: &At<Text>) {
        let text = &name.value.0;
        let usable = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !usable || text.len() > NAME_MAX {
            self.faults.push(
                Fault::error(name.span.clone(), "`dns.upstream.name` cannot be used in logs and metrics")
                    .help(format!("accepted: up to {NAME_MAX} of the characters A-Z a-z 0-9 . _ -")),
            );
        }
    }

    fn required(&mut self, key: &str, spec: &UpstreamSpec, section: &Range<usize>, what: &str) {
        if !spec.has(key) {
            let title = format!("`dns.upstream.{key}` is missing");
            self.faults.push(Fault::error(section.clone(), title).help(format!("add {what}")));
        }
    }

    fn duration(
        &mut self,
        key: &str,
        at: Option<&At<Duration>>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        match at {
            None => default,
            Some(at) if range.contains(&at.value) => at.value,
            Some(at) => {
                let accepted = format!("{} to {}", duration_words(*range.start()), duration_words(*range.end()));
                self.out_of_range(key, at.span.clone(), &accepted);
                default
            }
        }
    }

    fn out_of_range(&mut self, key: &str, span: Range<usize>, accepted: &str) {
        self.faults.push(Fault::error(span, format!("`{key}` is out of range")).help(format!("accepted: {accepted}")));
    }

    /// Notes that `key` is larger than `limit`; at least one of them is in the file, because the defaults agree.
    fn order<T, U>(&mut self, at: Option<&At<T>>, other: Option<&At<U>>, key: &str, limit: &str, limit_value: &str) {
        let title = format!("`{key}` is larger than `{limit}`");
        let fault = match (at, other) {
            (Some(at), Some(other)) => Fault::error(at.span.clone(), title).also(other.span.clone(), "the limit"),
            (Some(at), None) => {
                Fault::error(at.span.clone(), title).label(format!("the default of `{limit}` is {limit_value}"))
            }
            (None, Some(other)) => {
                Fault::error(other.span.clone(), title).label(format!("smaller than the default of `{key}`"))
            }
            (None, None) => return,
        };
        self.faults.push(fault.help(format!("accepted for `{key}`: up to {limit_value}; or raise `{limit}`")));
    }

    fn not_empty_list<T>(&mut self, key: &str, list: &At<List<T>>, max: usize, accepted: &str) {
        let refused = self.faults.iter().any(|fault| section_of(&list.span, fault));
        if list.value.is_empty() && !refused {
            self.faults.push(
                Fault::error(list.span.clone(), format!("`{key}` is empty")).help(format!("accepted: {accepted}")),
            );
        } else if list.value.len() > max {
            self.faults.push(
                Fault::error(list.span.clone(), format!("`{key}` has {} entries", list.value.len()))
                    .help(format!("accepted: at most {max}")),
            );
        }
    }
}

/// A count of the file, or its default. What is out of range was refused when it was read.
fn count<T, const MIN: u64, const MAX: u64>(at: Option<&At<Count<MIN, MAX>>>, default: T) -> T
where
    T: TryFrom<u64, Error: std::fmt::Debug>,
{
    at.map_or(default, |at| T::try_from(at.value.0).expect("each count's range fits its type"))
}

fn section_of(section: &Range<usize>, fault: &Fault) -> bool {
    section.start <= fault.span.start && fault.span.end <= section.end
}
