//! What the status endpoint shows of what runs: the DNS server here, hot HTTPS in `https`, tunnels in `tunnel`.

mod dns;
mod explain;
mod https;
mod recent;
mod tunnel;
mod upstreams;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use keepwarm_dns::{
    config::ListenTransport,
    message,
    server::{Server, Trace},
};
use keepwarm_pool::NamedPool;

use https::Hot;
use keepwarm_control::{
    Answer, Checks, QueryFuture, Refusal, Snapshots,
    https::HttpsSnapshots,
    rows::{
        Attempt, CacheStatus, CertificateRow, ConfigRow, ConfigState, DnsUpstreamRow, ListenerRow, LogPatch, LogRow,
        Phases, QueryError, QueryReport, QueryRequest, RecentRow, ReloadRow, Stats, UpstreamRow,
    },
    tunnel::TunnelSnapshots,
};
use tunnel::Tunnels;

pub(crate) use https::{WARM_UP_MAX, address, late, step, warmable};

use super::{HttpsView, TunnelView, log::LogLevel, reload::Reloader};
use crate::service::ready::{self, Facts};

/// What of the daemon can be looked at.
#[derive(Default)]
pub(super) struct Views {
    pub(super) dns: Option<Weak<Server>>,
    pub(super) https: Option<HttpsView>,
    pub(super) tunnels: Option<TunnelView>,
}

/// The running daemon, as the status endpoint sees it. It does not keep the DNS server alive.
pub struct Daemon {
    dns: Option<Weak<Server>>,
    https: Option<Hot>,
    tunnels: Option<Tunnels>,
    started: Instant,
    stopping: AtomicBool,
    log: Arc<LogLevel>,
    reloader: Arc<Reloader>,
}

impl Daemon {
    /// Shows what runs.
    pub(super) fn new(views: Views, log: Arc<LogLevel>, reloader: Arc<Reloader>) -> Daemon {
        Daemon {
            dns: views.dns,
            https: views.https.map(Hot::new),
            tunnels: views.tunnels.map(Tunnels),
            started: tokio::time::Instant::now().into_std(),
            stopping: AtomicBool::new(false),
            log,
            reloader,
        }
    }

    /// It was told to stop, and is not ready any more.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn server(&self) -> Option<Arc<Server>> {
        self.dns.as_ref()?.upgrade()
    }
}

impl Snapshots for Daemon {
    fn pools(&self) -> Vec<NamedPool> {
        let mut pools = self.server().map(|server| server.named_pools()).unwrap_or_default();
        pools.extend(self.https.iter().flat_map(Hot::pools));
        pools.extend(self.tunnels.iter().flat_map(Tunnels::pools));
        pools
    }

    fn upstreams(&self) -> Vec<UpstreamRow> {
        let pools = self.server().map(|server| server.pools()).unwrap_or_default();
        let mut rows: Vec<UpstreamRow> = pools.into_iter().map(upstreams::dns).collect();
        if let Some(https) = &self.https {
            rows.extend(https.upstreams().map(|(row, latency)| upstreams::https(&row, latency)));
        }
        if let Some(tunnels) = &self.tunnels {
            rows.extend(tunnels.upstreams().map(|(row, ready)| upstreams::tunnel(&row, ready)));
        }
        rows
    }

    fn listeners(&self) -> Vec<ListenerRow> {
        let dns = self.server().map(|server| dns_listeners(&server)).unwrap_or_default();
        let row = |job: &str, url: &str| {
            let (transport, address) = url.split_once("://").unwrap_or(("", url));
            ListenerRow { job: job.to_owned(), transport: transport.to_owned(), address: address.to_owned() }
        };
        let mut rows: Vec<_> = dns.iter().map(|url| row("dns", url)).collect();
        rows.extend(self.https.iter().flat_map(Hot::listeners).map(|url| row("https", &url)));
        rows.extend(self.tunnels.iter().flat_map(Tunnels::listeners).map(|url| row("tunnel", &url)));
        rows
    }

    fn recent(&self) -> Vec<RecentRow> {
        recent::rows(self)
    }

    fn checks(&self) -> Checks {
        let (server, upstreams, is_stopping) = (self.server(), self.upstreams(), self.is_stopping());
        let has_dns = self.dns.is_some();
        Box::pin(async move {
            let workers_answer = match server {
                Some(server) => Some(server.is_alive(ALIVE_WITHIN).await),
                None => has_dns.then_some(false),
            };
            // Who can be asked has a config, and has bound each listener of it.
            ready::checks(&Facts { is_loaded: true, workers_answer, upstreams, is_stopping })
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn config_state(&self) -> ConfigState {
        self.reloader.state()
    }

    fn config(&self) -> ConfigRow {
        self.reloader.row()
    }

    fn reload(&self) -> Answer<ReloadRow> {
        Arc::clone(&self.reloader).reload()
    }

    fn log(&self) -> LogRow {
        self.log.row()
    }

    fn set_log(&self, patch: LogPatch) -> Result<LogRow, Refusal> {
        self.log.set(patch)
    }

    fn limits_changed(&self, names: Vec<String>) {
        self.reloader.limits_changed(names);
    }

    fn dns(&self) -> Option<Vec<DnsUpstreamRow>> {
        // A server that is gone has no upstreams any more.
        let pools = self.dns.as_ref()?.upgrade().map(|server| server.pools()).unwrap_or_default();
        Some(pools.into_iter().map(dns::row).collect())
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: tokio::time::Instant::now().into_std().saturating_duration_since(self.started),
            now: super::reload::now(),
            ..Stats::default()
        };
        if let Some(https) = &self.https {
            https.count(&mut stats);
        }
        if let Some(tunnels) = &self.tunnels {
            tunnels.count(&mut stats);
        }
        if let Some(cpu) = super::cpu_time() {
            stats.counters.insert("cpu_micros".into(), u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
        }
        let Some(server) = self.server() else { return stats };
        stats.listen.extend(dns_listeners(&server));
        stats.certificate = server.certificate().map(|certificate| CertificateRow {
            names: certificate.names(),
            not_before: unix(certificate.not_before),
            not_after: unix(certificate.not_after),
            loaded: unix(certificate.loaded),
            subject: certificate.subject,
            issuer: certificate.issuer,
        });
        let totals = server.status();
        stats.counters.extend(
            [
                ("queries", totals.queries),
                ("malformed", totals.malformed),
                ("refused", totals.refused),
                ("coalesced", totals.coalesced),
                ("overloaded", totals.overloaded),
                ("failed", totals.failed),
                ("wrong_answers", totals.wrong_answers),
                ("local_errors", totals.local_errors),
                ("tcp_rejected", totals.tcp_rejected),
                ("rate_limited", totals.rate_limited),
                ("client_limited", totals.client_limited),
                ("tcp_clients", totals.tcp_clients as u64),
                ("cache_hits", totals.cache_hits),
                ("cache_misses", totals.cache_misses),
                ("cache_stale", totals.cache_stale),
                ("cache_prefetches", totals.cache_prefetches),
                ("local_answers", totals.local_answers),
                ("query_log_dropped", totals.query_log_dropped),
                ("hedges_sent", totals.hedges_sent),
                ("hedges_won", totals.hedges_won),
                ("hedges_denied", totals.hedges_denied),
                ("network_changes", totals.network_changes),
                ("cache_entries", totals.cache_entries as u64),
                ("cache_bytes", totals.cache_bytes as u64),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        stats
    }

    fn cache(&self) -> Option<CacheStatus> {
        let cache_size = self.reloader.config().dns.as_ref()?.cache.size as u64;
        let totals = self.server().map(|server| server.status()).unwrap_or_default();
        let lookups = totals.cache_hits + totals.cache_misses;
        Some(CacheStatus {
            size: cache_size,
            entries: totals.cache_entries as u64,
            bytes: totals.cache_bytes as u64,
            hits: totals.cache_hits,
            misses: totals.cache_misses,
            hit_ratio: (lookups > 0).then(|| totals.cache_hits as f64 / lookups as f64),
            stale: totals.cache_stale,
            prefetches: totals.cache_prefetches,
        })
    }

    fn flush_cache(&self, name: Option<&str>) -> Option<u64> {
        // A server that is gone has taken its cache along.
        let Some(server) = self.server() else { return Some(0) };
        server.flush_cache(name).map(|flushed| flushed as u64)
    }

    fn query(&self, request: QueryRequest) -> QueryFuture {
        if self.dns.is_none() {
            return Box::pin(std::future::ready(Err(QueryError::Unknown(NO_DNS.into()))));
        }
        let server = self.server();
        Box::pin(async move {
            let server = server.ok_or_else(|| QueryError::Failed("the daemon is stopping".into()))?;
            ask(&server, request).await
        })
    }

    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        self.https.as_ref().map(|hot| hot as &dyn HttpsSnapshots)
    }

    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        self.tunnels.as_ref().map(|tunnels| tunnels as &dyn TunnelSnapshots)
    }
}

/// Where the DNS server listens, as URLs.
fn dns_listeners(server: &Server) -> Vec<String> {
    let mut urls = Vec::new();
    for listen in server.listening() {
        let schemes: &[&str] = match listen.transport {
            ListenTransport::Plain => &["udp", "tcp"],
            other => &[other.as_str()],
        };
        urls.extend(schemes.iter().map(|scheme| format!("{scheme}://{}{}", listen.address, listen.path)));
    }
    urls
}

const NO_DNS: &str = "the daemon's config has no [dns]: there is no upstream to ask; add [dns] and restart the daemon";

/// For how long a worker may take to answer before it counts as stuck.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// Whole seconds since 1970; 0 for times before.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Asks a server and tells the story.
///
/// # Errors
/// When the name or type cannot be asked, or no upstream answered.
pub async fn ask(server: &Server, request: QueryRequest) -> Result<QueryReport, QueryError> {
    let QueryRequest { name, qtype, explain } = request;
    let number = message::type_from_name(&qtype).ok_or_else(|| {
        QueryError::Invalid(format!("unknown record type `{qtype}`; use a name such as AAAA, or TYPE65"))
    })?;
    if message::build_query(&name, number).is_none() {
        return Err(QueryError::Invalid(format!("`{name}` is not a name that can be asked")));
    }
    let trace = server.query(&name, number).await;
    let trace = trace.ok_or_else(|| QueryError::Failed("the daemon is stopping".into()))?;
    if !explain {
        return report(&name, &qtype, trace);
    }
    let explanation = explain::explain(&trace);
    let mut report = shown(&name, &qtype, trace)?;
    report.explain = Some(explanation);
    Ok(report)
}

/// Turns a trace into what is shown.
///
/// # Errors
/// When no upstream answered, and neither did the cache or the names that are answered here.
pub fn report(name: &str, qtype: &str, trace: Trace) -> Result<QueryReport, QueryError> {
    match failure(&trace) {
        Some(why) => Err(QueryError::Failed(why)),
        None => shown(name, qtype, trace),
    }
}

/// Why there is an answer neither of an upstream nor of the cache.
fn failure(trace: &Trace) -> Option<String> {
    // Of an alias that is known here, the rest may have failed.
    let here = trace.local.is_some() && trace.error.is_none();
    let failed = trace.exchange.is_none() && !trace.cached && !here;
    let late = "no upstream answered within the deadline";
    failed.then(|| match &trace.error {
        Some(error) if trace.is_timed_out() => format!("{late}; the last error: {error}"),
        Some(error) => error.clone(),
        None => late.to_owned(),
    })
}

/// The report of whatever answer there is, be it keepwarm's own.
fn shown(name: &str, qtype: &str, trace: Trace) -> Result<QueryReport, QueryError> {
    // A stale answer may follow an exchange that came to nothing, which is not where it is from.
    let exchange = trace.exchange.filter(|_| !trace.cached);
    let shown = message::render(&trace.answer).map_err(|error| QueryError::Failed(error.to_string()))?;
    let mut report = QueryReport {
        name: name.into(),
        qtype: qtype.into(),
        rcode: shown.rcode,
        answers: shown.answers,
        authority: shown.authority,
        size: trace.answer.len() as u64,
        cached: trace.cached,
        stale: trace.stale,
        local: trace.local.is_some(),
        total: trace.total,
        attempts: trace
            .attempts
            .into_iter()
            .map(|attempt| Attempt { upstream: attempt.upstream, outcome: attempt.outcome, took: attempt.took })
            .collect(),
        ..QueryReport::default()
    };
    if let Some(exchange) = exchange {
        let opened_ahead = exchange.opened_ahead();
        report.upstream = Some(exchange.upstream);
        report.transport = Some(exchange.transport.into());
        report.address = Some(exchange.peer.to_string());
        report.reused = exchange.reused;
        report.opened_ahead = opened_ahead;
        report.age = Some(exchange.age);
        report.ech = exchange.dial.and_then(|dial| dial.ech).map(str::to_owned);
        // A dial that was over before the query is no part of its time.
        let dial = exchange.dial.filter(|_| !opened_ahead);
        let happened = |time: Duration| Some(time).filter(|time| !time.is_zero());
        report.phases = Phases {
            wait: Some(exchange.wait),
            resolve: dial.and_then(|dial| happened(dial.resolve)),
            connect: dial.and_then(|dial| happened(dial.connect)),
            tls: dial.and_then(|dial| dial.tls),
            exchange: Some(exchange.exchange),
        };
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use keepwarm_dns::{
        config::{DnsConfig, Listen, ListenTls, Transport, UpstreamConfig},
        local::Rule,
        server::{AttemptTrace, ExchangeTrace, Why},
    };
    use keepwarm_lab::Ca;

    use super::*;
    use crate::{config::Source, run::reload::Parts, service::Service};

    fn trace(cached: bool, stale: bool, exchange: bool) -> Trace {
        let failed = AttemptTrace {
            upstream: "lab".into(),
            outcome: "SERVFAIL".into(),
            took: Duration::ZERO,
            transport: "tls",
            designated: false,
            started: Duration::ZERO,
            why: Why::TakesOver,
            connection: None,
        };
        let exchange = exchange.then(|| ExchangeTrace {
            upstream: "lab".into(),
            transport: "tls",
            url: "tls://127.0.0.1:853".into(),
            peer: ([127, 0, 0, 1], 853).into(),
            connection: 1,
            reused: true,
            age: Duration::ZERO,
            decide: Duration::ZERO,
            wait: Duration::ZERO,
            dial: None,
            exchange: Duration::from_millis(8),
        });
        let mut answer = message::build_query("www.example", 1).unwrap();
        answer[2] |= 0x80;
        let error = Some("nobody answered".into());
        Trace {
            answer,
            total: Duration::ZERO,
            cached,
            stale,
            local: None,
            exchange,
            attempts: vec![failed],
            error,
            explanation: None,
        }
    }

    #[tokio::test]
    async fn the_status_shows_the_certificate_of_the_listeners_and_whose_pool_is_whose() {
        let folder = tempfile::tempdir().unwrap();
        let files = ListenTls { certificate: folder.path().join("dns.crt"), key: folder.path().join("dns.key") };
        let (certificate, key) = Ca::new().issue_pem(&["dns.example", "127.0.0.1"]).unwrap();
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        let upstream = UpstreamConfig::new("lab", Transport::Udp, "127.0.0.1", 53);
        let config = DnsConfig {
            listen: vec![Listen::new(([127, 0, 0, 1], 0).into(), ListenTransport::Tls)],
            tls: Some(files),
            upstreams: vec![UpstreamConfig { group: "home".into(), weight: 7, ..upstream }],
            fallback: Some("home".into()),
            workers: 1,
            ..DnsConfig::default()
        };
        let server = Arc::new(Server::start(config).unwrap());
        let loaded = Source::built_in().load().unwrap();
        let log = LogLevel::new("info".parse().unwrap());
        let service = Service::from_environment();
        let reloader = Reloader::new(Source::built_in(), loaded, Parts::default(), Arc::clone(&log), service);
        let views = Views { dns: Some(Arc::downgrade(&server)), ..Views::default() };
        let daemon = Daemon::new(views, log, Arc::new(reloader));
        let certificate = daemon.stats().certificate.expect("a listener is encrypted");
        assert_eq!(certificate.names, ["dns.example", "127.0.0.1"]);
        assert_eq!(certificate.subject, "CN=keepwarm lab upstream");
        assert!(certificate.not_before <= certificate.loaded && certificate.loaded < certificate.not_after);
        let row = &Snapshots::dns(&daemon).unwrap()[0];
        assert_eq!((&*row.group, row.weight, row.cookies.as_deref()), ("home", 7, Some("unknown")));
        Arc::into_inner(server).expect("the daemon does not hold it").stop(Duration::ZERO).await;
    }

    #[test]
    fn an_answer_is_of_an_upstream_or_of_the_cache() {
        let told =
            |trace| report("www.example", "A", trace).map(|report| (report.upstream, report.cached, report.stale));
        assert_eq!(told(trace(false, false, true)), Ok((Some("lab".into()), false, false)));
        assert_eq!(told(trace(true, false, false)), Ok((None, true, false)));
        assert_eq!(told(trace(true, true, true)), Ok((None, true, true)));
        assert_eq!(told(trace(false, false, false)), Err(QueryError::Failed("nobody answered".into())));
        let local =
            report("printer.lan", "A", Trace { local: Some(Rule::Hosts), error: None, ..trace(false, false, false) })
                .unwrap();
        assert_eq!((local.upstream, local.local), (None, true));
        let alias = Trace { local: Some(Rule::Record), ..trace(false, false, false) };
        assert_eq!(told(alias), Err(QueryError::Failed("nobody answered".into())), "what it leads to failed");
        let stale = report("www.example", "A", trace(true, true, true)).unwrap();
        assert_eq!((stale.attempts.len(), stale.phases), (1, Phases::default()));
    }
}
