//! What the jobs count ([`Stats::counters`]), each with its metric: one table, so that none is forgotten and none has two names.

use super::Family;
use crate::{rows::Stats, snapshots::Snapshots, tunnel::TunnelSnapshots};

/// What a counter of the daemon is as a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterMetric {
    /// Its name in [`Stats::counters`].
    pub counter: &'static str,
    /// The metric.
    pub metric: &'static str,
    /// The label that tells it from others of the metric; none where it is alone.
    pub label: Option<(&'static str, &'static str)>,
    /// What the metric is.
    pub help: &'static str,
}

/// The counters of a daemon that have no metric: a mistake, which its tests look for.
pub fn unknown_counters(stats: &Stats) -> Vec<&str> {
    let known = |name: &str| TABLE.iter().any(|row| row.counter == name) || ELSEWHERE.contains(&name);
    stats.counters.keys().map(String::as_str).filter(|name| !known(name)).collect()
}

pub(super) fn families(snapshots: &dyn Snapshots, stats: &Stats) -> Vec<Family> {
    let mut all: Vec<Family> = Vec::new();
    for row in TABLE {
        let Some(count) = stats.counters.get(row.counter) else { continue };
        let at = all.iter().position(|family| family.name == row.metric).unwrap_or_else(|| {
            let new = if row.metric.ends_with("_total") { Family::counter } else { Family::gauge };
            all.push(new(row.metric, row.help));
            all.len() - 1
        });
        match row.label {
            Some(label) => all[at].push([label], *count),
            None => all[at].push([], *count),
        }
    }
    if let Some(cache) = snapshots.cache() {
        all.push(
            Family::gauge("keepwarm_dns_cache_limit_bytes", "Memory that the cache may take.").with([], cache.size),
        );
    }
    all.extend(tunnels(snapshots));
    all
}

/// What tunnels count by reason, and their limits.
fn tunnels(snapshots: &dyn Snapshots) -> Vec<Family> {
    let Some(status) = snapshots.tunnels().map(TunnelSnapshots::status) else { return Vec::new() };
    let mut failed = Family::counter("keepwarm_tunnel_failed_total", "Tunnels that were not made, by reason.");
    for (reason, count) in &status.failed {
        failed.push([("reason", reason)], *count);
    }
    let mut all = vec![
        failed,
        Family::gauge("keepwarm_tunnel_limit", "Tunnels that may be live.").with([], status.max),
        Family::counter("keepwarm_tunnel_opened_ahead_total", "Tunnels that were opened before they were asked for.")
            .with([], status.opened_ahead),
        Family::gauge("keepwarm_tunnel_ready", "Tunnels that were opened ahead and wait for their first use.")
            .with([], status.ready),
    ];
    if let Some(clients) = &status.clients {
        let mut handshakes =
            Family::counter("keepwarm_tunnel_handshakes_failed_total", "Handshakes of clients that failed, by reason.");
        for (reason, count) in &clients.handshakes_failed {
            handshakes.push([("reason", reason)], *count);
        }
        let mut accepted = Family::counter("keepwarm_tunnel_clients_total", "Clients that were served, by protocol.");
        let protocols = [
            ("socks5", clients.socks5),
            ("socks4", clients.socks4),
            ("http", clients.http),
            ("forward", clients.forwards),
        ];
        for (protocol, count) in protocols {
            accepted.push([("protocol", protocol)], count);
        }
        let turned_away = Family::counter("keepwarm_tunnel_turned_away_total", "Clients that found the server full.")
            .with([], clients.turned_away);
        all.extend([handshakes, accepted, turned_away]);
    }
    if let Some(udp) = &status.udp {
        let mut dropped =
            Family::counter("keepwarm_tunnel_udp_dropped_total", "Datagrams that were dropped, by reason.");
        for (reason, count) in &udp.dropped {
            dropped.push([("reason", reason)], *count);
        }
        all.extend([
            Family::gauge("keepwarm_tunnel_udp_associations", "UDP associations that live.").with([], udp.associations),
            Family::counter("keepwarm_tunnel_udp_datagrams_total", "Datagrams, by direction.")
                .with([("direction", "sent")], udp.datagrams_sent)
                .with([("direction", "received")], udp.datagrams_received),
            dropped,
        ]);
    }
    all
}

const fn row(counter: &'static str, metric: &'static str, help: &'static str) -> CounterMetric {
    CounterMetric { counter, metric, label: None, help }
}

const fn outcome(counter: &'static str, outcome: &'static str) -> CounterMetric {
    CounterMetric {
        counter,
        metric: "keepwarm_https_requests_total",
        label: Some(("outcome", outcome)),
        help: "Requests of hot HTTPS that have ended, by outcome; a 404 is an answer.",
    }
}

/// Counters of the daemon that are shown by other means: as CPU time of the process, or by reason.
const ELSEWHERE: [&str; 3] = ["cpu_micros", "tunnel_failed", "tunnel_handshakes_failed"];

/// Everything else. A metric that ends with `_total` is a counter, any other a gauge.
const TABLE: &[CounterMetric] = &[
    row("queries", "keepwarm_dns_queries_total", "Queries of clients."),
    row("malformed", "keepwarm_dns_malformed_total", "Messages of clients that are no query."),
    row("refused", "keepwarm_dns_refused_total", "Queries refused because of who asks."),
    row("coalesced", "keepwarm_dns_coalesced_total", "Queries that joined an identical one in flight."),
    row("overloaded", "keepwarm_dns_overloaded_total", "Queries turned away because too many were in flight."),
    row("failed", "keepwarm_dns_failed_total", "Queries that no upstream answered."),
    row(
        "wrong_answers",
        "keepwarm_dns_wrong_answers_total",
        "Answers dropped because nobody asked, or asked otherwise.",
    ),
    row("local_errors", "keepwarm_dns_local_errors_total", "Tries that failed and this machine is to blame for."),
    row("tcp_rejected", "keepwarm_dns_tcp_rejected_total", "Connections of clients that found the server full."),
    row("rate_limited", "keepwarm_dns_rate_limited_total", "Queries beyond a client's rate."),
    row(
        "client_limited",
        "keepwarm_dns_client_limited_total",
        "Queries and connections beyond what one client may have.",
    ),
    row("tcp_clients", "keepwarm_dns_tcp_clients", "Connections of clients that are open."),
    row("cache_hits", "keepwarm_dns_cache_hits_total", "Queries answered from the cache within the answer's time."),
    row("cache_misses", "keepwarm_dns_cache_misses_total", "Queries that could have been in the cache and were not."),
    row(
        "cache_stale",
        "keepwarm_dns_cache_stale_total",
        "Queries answered past the answer's time as upstreams failed.",
    ),
    row("cache_prefetches", "keepwarm_dns_cache_prefetches_total", "Answers asked for again before their end."),
    row("cache_entries", "keepwarm_dns_cache_entries", "Answers in the cache."),
    row("cache_bytes", "keepwarm_dns_cache_bytes", "Memory of the cache's entries."),
    row("local_answers", "keepwarm_dns_local_answers_total", "Queries for names that are answered here."),
    row("query_log_dropped", "keepwarm_dns_query_log_dropped_total", "Lines that the query log had no room for."),
    row("hedges_sent", "keepwarm_dns_hedges_sent_total", "Second tries while the first was only slow."),
    row("hedges_won", "keepwarm_dns_hedges_won_total", "Of these, those that answered first."),
    row("hedges_denied", "keepwarm_dns_hedges_denied_total", "Second tries that the budget had nothing left for."),
    row(
        "network_changes",
        "keepwarm_network_changes_total",
        "Changes of addresses, routes or sleep that were noticed.",
    ),
    row("https_requests", "keepwarm_https_received_total", "Requests that came to hot HTTPS."),
    outcome("https_answered", "answered"),
    outcome("https_failed", "failed"),
    outcome("https_cancelled", "cancelled"),
    row("https_retried", "keepwarm_https_retries_total", "Tries beyond the first of a request."),
    row("https_reused", "keepwarm_https_reused_total", "Requests over a connection that had served before."),
    row("https_open", "keepwarm_https_connections", "Connections of hot HTTPS that are open."),
    row("gateway_requests", "keepwarm_https_gateway_requests_total", "Requests that came to the gateway."),
    row("tunnel_asked", "keepwarm_tunnel_asked_total", "Tunnels that were asked for."),
    row("tunnel_opened", "keepwarm_tunnel_opened_total", "Tunnels that were made."),
    row("tunnel_live", "keepwarm_tunnel_live", "Live tunnels."),
    row("tunnel_waiting", "keepwarm_tunnel_waiting", "Tunnels that wait for a place among the live ones."),
    row("tunnel_hits", "keepwarm_tunnel_spare_hits_total", "Tunnels that found a spare."),
    row("tunnel_misses", "keepwarm_tunnel_spare_misses_total", "Tunnels that waited for a connection to the proxy."),
    row("tunnel_retries", "keepwarm_tunnel_dead_spares_total", "Spares that were dead when they were used."),
    row("tunnel_hedged", "keepwarm_tunnel_hedged_total", "Spares that were silent and got company."),
    row("tunnel_failovers", "keepwarm_tunnel_failovers_total", "Upstreams that were tried after another one."),
    row("tunnel_spares", "keepwarm_tunnel_spares", "Spares that are ready."),
    row("tunnel_sent", "keepwarm_tunnel_sent_bytes_total", "Bytes to destinations, of tunnels that have ended."),
    row(
        "tunnel_received",
        "keepwarm_tunnel_received_bytes_total",
        "Bytes from destinations, of tunnels that have ended.",
    ),
    row("tunnel_clients", "keepwarm_tunnel_clients", "Clients that are connected."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_one_row_and_a_metric_one_meaning() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(!ELSEWHERE.contains(&row.counter), "{row:?}");
            for other in &TABLE[at + 1..] {
                assert_ne!(row.counter, other.counter);
                let same = row.metric == other.metric;
                assert!(
                    !same || (row.help == other.help && row.label.is_some() && row.label != other.label),
                    "{row:?}"
                );
            }
        }
    }
}
