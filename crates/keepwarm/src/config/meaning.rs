//! From `Spec` to [`Config`](super::Config): defaults, ranges and the checks across keys.
//!
//! Reading and types are behind us, and the ranges of counts, which are part of their types; here a duration meets its
//! range and a key meets its neighbours. Nothing is repaired: what does not fit is a fault, and the value that stands in
//! for it only keeps the remaining checks going.

use std::{
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use keepwarm_dns::config::DnsConfig;
use keepwarm_transport::tls::TlsRoots;

use super::{
    Config, defaults,
    fault::{Fault, Faults},
    read::{At, List, Section as _},
    spec::{FileSpec, LogSpec},
    value::{Count, Text},
    words::duration_words,
};
use crate::logging::LogConfig;

mod answers;
mod cache;
mod clients;
mod control;
mod dns;
mod groups;
mod https;
mod listen;
mod pool;
mod shares;
mod tunnel;
mod upstream;

use https::{ORIGIN_FORM, Taken};
use shares::Places;
use tunnel::TUNNEL_FORM;
use upstream::UPSTREAM_FORM;

/// The one version of the file format.
const VERSION: u64 = 1;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Checks the whole file; `base` is where relative paths start. The result only counts when `faults` has no error.
pub(super) fn config(spec: FileSpec, faults: &mut Faults, base: &Path) -> Config {
    let mut check = Check { faults };
    check.version(&spec);
    check.has_a_gateway(&spec);
    let places = Places::of(&spec);
    let limits = spec.limits.map(|at| at.value).unwrap_or_default();
    let extra_roots = spec.tls.and_then(|at| at.value.extra_roots).map(|at| at.value).unwrap_or_default();
    let roots = check.roots(&extra_roots, base);
    let control = spec.control.map(|at| at.value).unwrap_or_default();
    let taken = Taken::by(&control, spec.dns.as_ref().map(|at| &at.value));
    let workers = count(limits.workers.as_ref(), defaults::WORKERS);
    let gateway = spec.https.as_ref().map(|at| at.value.clone());
    let https = spec.https.map(|at| check.https(at, &taken, roots.clone(), base));
    let taken = taken.and_gateway(gateway.as_ref());
    let tunnel = spec.tunnel.map(|at| check.tunnel(at, &taken, roots.clone(), base));
    let dns = spec.dns.map(|At { value: dns, span }| {
        if !dns.has("upstream") {
            check.no_upstream(span);
        }
        check.control_fits(&control, &dns);
        DnsConfig { workers, roots, ..check.dns(dns, base) }
    });
    let mut config = Config {
        log: log(spec.log.map(|at| at.value).unwrap_or_default()),
        control: check.control(&control, base),
        dns,
        https,
        tunnel,
        workers,
    };
    if !limits.refused("max_connections", limits.max_connections.as_ref()) {
        check.connections(&mut config, &places, limits.max_connections.as_ref());
    }
    config
}

fn log(spec: LogSpec) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        filter: spec.level.map_or(default.filter, |at| at.value),
        format: spec.format.map_or(default.format, |at| at.value),
    }
}

/// The checks; each notes its faults and goes on.
struct Check<'f> {
    faults: &'f mut Faults,
}

impl Check<'_> {
    fn has_a_gateway(&mut self, spec: &FileSpec) {
        if !spec.has("dns") && !spec.has("https") && !spec.has("tunnel") {
            let help = format!(
                "add an upstream, such as:\n{UPSTREAM_FORM}\nor an origin, such as:\n{ORIGIN_FORM}\nor tunnels, such as:\n{TUNNEL_FORM}"
            );
            let title = "there is nothing to do: neither [dns] nor [https] nor [tunnel]";
            self.faults.push(Fault::error(0..0, title).help(help));
        }
    }

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

    /// From when on something is kept in mind as slow.
    fn slow(&mut self, key: &str, at: Option<&At<Duration>>, default: Duration) -> Duration {
        self.duration(key, at, MILLISECOND..=HOUR, default)
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
        }
        self.not_too_many(key, list, max);
    }

    fn not_too_many<T>(&mut self, key: &str, list: &At<List<T>>, max: usize) {
        if list.value.len() > max {
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
