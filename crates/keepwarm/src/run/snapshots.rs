//! What the status endpoint shows of the running server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Instant,
};

use keepwarm_dns::{
    config::ListenTransport,
    message,
    server::{Server, Trace},
};

use crate::status::{
    Attempt, BreakerState, CacheStatus, Phases, PoolRow, QueryError, QueryFuture, QueryReport, QueryRequest, Snapshots,
    Stats,
};

/// The running daemon, as the status endpoint sees it. It does not keep the server alive.
#[derive(Debug)]
pub struct Daemon {
    server: Weak<Server>,
    cache_size: u64,
    started: Instant,
}

impl Daemon {
    /// Shows this server, whose cache may take `cache_size` bytes.
    pub fn new(server: &Arc<Server>, cache_size: usize) -> Daemon {
        Daemon {
            server: Arc::downgrade(server),
            cache_size: cache_size as u64,
            started: tokio::time::Instant::now().into_std(),
        }
    }
}

impl Snapshots for Daemon {
    fn pools(&self) -> Vec<PoolRow> {
        let Some(server) = self.server.upgrade() else { return Vec::new() };
        let rows = server.pools().into_iter();
        rows.map(|pool| PoolRow {
            upstream: pool.name,
            transport: pool.transport.into(),
            address: pool.address.split_once("://").map_or(pool.address.clone(), |(_, rest)| rest.to_owned()),
            open: pool.open as u64,
            max: pool.max as u64,
            idle: pool.idle as u64,
            in_use: pool.in_use as u64,
            in_flight: pool.in_flight as u64,
            dialing: pool.dialing as u64,
            waiting: pool.waiting as u64,
            hits: pool.hits,
            misses: pool.misses,
            reuse_ratio: pool.reuse_ratio,
            handshakes_full: pool.handshakes_full,
            handshakes_resumed: pool.handshakes_resumed,
            dial_errors: pool.dial_errors.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            breaker: match pool.breaker {
                "open" => BreakerState::Open,
                "half-open" => BreakerState::HalfOpen,
                _ => BreakerState::Closed,
            },
            latency_p50: pool.latency,
            idle_limit: pool.idle_limit,
        })
        .collect()
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: tokio::time::Instant::now().into_std().saturating_duration_since(self.started),
            ..Stats::default()
        };
        let Some(server) = self.server.upgrade() else { return stats };
        for listen in server.listening() {
            let schemes: &[&str] = match listen.transport {
                ListenTransport::Plain => &["udp", "tcp"],
                other => &[other.as_str()],
            };
            stats.listen.extend(schemes.iter().map(|scheme| format!("{scheme}://{}{}", listen.address, listen.path)));
        }
        let totals = server.status();
        stats.counters = BTreeMap::from(
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
                ("tcp_clients", totals.tcp_clients as u64),
                ("cache_hits", totals.cache_hits),
                ("cache_misses", totals.cache_misses),
                ("cache_stale", totals.cache_stale),
                ("cache_prefetches", totals.cache_prefetches),
                ("network_changes", totals.network_changes),
                ("cache_entries", totals.cache_entries as u64),
                ("cache_bytes", totals.cache_bytes as u64),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        if let Some(cpu) = super::cpu_time() {
            stats.counters.insert("cpu_micros".into(), u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
        }
        stats
    }

    fn cache(&self) -> CacheStatus {
        let totals = self.server.upgrade().map(|server| server.status()).unwrap_or_default();
        let lookups = totals.cache_hits + totals.cache_misses;
        CacheStatus {
            size: self.cache_size,
            entries: totals.cache_entries as u64,
            bytes: totals.cache_bytes as u64,
            hits: totals.cache_hits,
            misses: totals.cache_misses,
            hit_ratio: (lookups > 0).then(|| totals.cache_hits as f64 / lookups as f64),
            stale: totals.cache_stale,
            prefetches: totals.cache_prefetches,
        }
    }

    fn flush_cache(&self, name: Option<&str>) -> Option<u64> {
        // A server that is gone has taken its cache along.
        let Some(server) = self.server.upgrade() else { return Some(0) };
        server.flush_cache(name).map(|flushed| flushed as u64)
    }

    fn query(&self, request: QueryRequest) -> QueryFuture {
        let server = self.server.upgrade();
        Box::pin(async move {
            let server = server.ok_or_else(|| QueryError::Failed("the daemon is stopping".into()))?;
            ask(&server, request).await
        })
    }
}

/// Asks a server and tells the story.
///
/// # Errors
/// When the name or type cannot be asked, or no upstream answered.
pub async fn ask(server: &Server, request: QueryRequest) -> Result<QueryReport, QueryError> {
    let QueryRequest { name, qtype } = request;
    let number = message::type_from_name(&qtype).ok_or_else(|| {
        QueryError::Invalid(format!("unknown record type `{qtype}`; use a name such as AAAA, or TYPE65"))
    })?;
    if message::build_query(&name, number).is_none() {
        return Err(QueryError::Invalid(format!("`{name}` is not a name that can be asked")));
    }
    let trace = server.query(&name, number).await;
    let trace = trace.ok_or_else(|| QueryError::Failed("the daemon is stopping".into()))?;
    report(&name, &qtype, trace)
}

/// Turns a trace into what is shown.
///
/// # Errors
/// When no upstream answered, and neither did the cache.
pub fn report(name: &str, qtype: &str, trace: Trace) -> Result<QueryReport, QueryError> {
    // A stale answer may follow an exchange that came to nothing, which is not where it is from.
    let exchange = trace.exchange.filter(|_| !trace.cached);
    if exchange.is_none() && !trace.cached {
        let why = trace.error.unwrap_or_else(|| "no upstream answered within the deadline".into());
        return Err(QueryError::Failed(why));
    }
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
        total: trace.total,
        attempts: trace
            .attempts
            .into_iter()
            .map(|attempt| Attempt { upstream: attempt.upstream, outcome: attempt.outcome, took: attempt.took })
            .collect(),
        ..QueryReport::default()
    };
    if let Some(exchange) = exchange {
        report.upstream = Some(exchange.upstream);
        report.transport = Some(exchange.transport.into());
        report.address = Some(exchange.peer.to_string());
        report.reused = exchange.reused;
        report.phases = Phases {
            wait: Some(exchange.wait),
            resolve: exchange.dial.map(|dial| dial.resolve),
            connect: exchange.dial.map(|dial| dial.connect),
            tls: exchange.dial.and_then(|dial| dial.tls),
            exchange: Some(exchange.exchange),
        };
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keepwarm_dns::server::{AttemptTrace, ExchangeTrace};

    use super::*;

    fn trace(cached: bool, stale: bool, exchange: bool) -> Trace {
        let failed = AttemptTrace { upstream: "lab".into(), outcome: "SERVFAIL".into(), took: Duration::ZERO };
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
        Trace { answer, total: Duration::ZERO, cached, stale, exchange, attempts: vec![failed], error }
    }

    #[test]
    fn an_answer_is_of_an_upstream_or_of_the_cache() {
        let told =
            |trace| report("www.example", "A", trace).map(|report| (report.upstream, report.cached, report.stale));
        assert_eq!(told(trace(false, false, true)), Ok((Some("lab".into()), false, false)));
        assert_eq!(told(trace(true, false, false)), Ok((None, true, false)));
        assert_eq!(told(trace(true, true, true)), Ok((None, true, true)));
        assert_eq!(told(trace(false, false, false)), Err(QueryError::Failed("nobody answered".into())));
        let stale = report("www.example", "A", trace(true, true, true)).unwrap();
        assert_eq!((stale.attempts.len(), stale.phases), (1, Phases::default()));
    }
}
