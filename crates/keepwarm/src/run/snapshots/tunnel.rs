//! What the status endpoint shows of tunnels.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use keepwarm_pool::{CloseReason, Histogram, HostStats, NamedPool, health};
use keepwarm_tunnel::{
    DestinationStats, HandshakeFailure, RecentTunnel, ServerWatch, SpareStats, TunnelRow, UdpDropped, UpstreamStats,
    config::{Listen, ListenKind},
};

use crate::{pac::pac, run::TunnelView};
use keepwarm_control::{
    rows::{BreakerState, Stats},
    tunnel::{
        ClientsRow, DestinationRow, LiveRow, SparesRow, TimesRow, TunnelListenRow, TunnelSnapshots, TunnelStatus,
        TunnelUpstreamRow, UdpRow,
    },
};

/// Running tunnels, as the status endpoint sees them.
#[derive(Debug)]
pub(super) struct Tunnels(pub(super) TunnelView);

impl Tunnels {
    /// Adds what there is to the counters of the whole daemon.
    pub(super) fn count(&self, stats: &mut Stats) {
        let status = self.status();
        let failed = status.failed.values().sum();
        let of = |count: fn(&TunnelUpstreamRow) -> u64| status.upstreams.iter().map(count).sum();
        // Those that are gone too: a counter that falls would be taken for a restart.
        let figures = self.0.connector.stats();
        let mut totals = figures.past;
        figures.upstreams.iter().for_each(|upstream| totals.add(upstream));
        let mut counts = vec![
            ("tunnel_asked", status.asked),
            ("tunnel_opened", status.opened),
            ("tunnel_failed", failed),
            ("tunnel_live", status.live),
            ("tunnel_waiting", status.waiting),
            ("tunnel_hits", totals.hits),
            ("tunnel_misses", totals.misses),
            ("tunnel_retries", totals.retries),
            ("tunnel_hedged", totals.hedged),
            ("tunnel_failovers", status.failovers),
            ("tunnel_spares", of(|upstream| upstream.spares.as_ref().map_or(0, |spares| spares.idle))),
            ("tunnel_sent", totals.sent),
            ("tunnel_received", totals.received),
        ];
        if let Some(clients) = &status.clients {
            counts.push(("tunnel_clients", clients.connected));
            counts.push(("tunnel_handshakes_failed", clients.handshakes_failed.values().sum()));
        }
        stats.counters.extend(counts.into_iter().map(|(name, count)| (name.to_owned(), count)));
        stats.listen.extend(self.listeners());
    }

    pub(super) fn pools(&self) -> Vec<NamedPool> {
        self.0.connector.pools()
    }

    /// The upstreams, each with the durations from the request to the destination's word.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (TunnelUpstreamRow, Histogram)> {
        self.0.connector.stats().upstreams.into_iter().map(|mut stats| {
            let row = upstream(&stats);
            (row, std::mem::take(&mut stats.ready))
        })
    }

    pub(super) fn recent(&self) -> Vec<RecentTunnel> {
        self.0.connector.recent()
    }

    /// Where clients come in, as URLs.
    pub(super) fn listeners(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for Listen { address, kind } in self.listen() {
            let schemes: &[&str] = match kind {
                ListenKind::Mixed => &["socks5", "http"],
                other => &[other.as_str()],
            };
            urls.extend(schemes.iter().map(|scheme| format!("{scheme}://{address}")));
        }
        urls
    }

    fn watch(&self) -> Option<&ServerWatch> {
        self.0.server.as_ref()
    }

    fn listen(&self) -> Vec<Listen> {
        self.watch().map(ServerWatch::listening).unwrap_or_default()
    }
}

impl TunnelSnapshots for Tunnels {
    fn status(&self) -> TunnelStatus {
        let (stats, config) = (self.0.connector.stats(), self.0.connector.config());
        let sum = |of: fn(&UpstreamStats) -> u64| stats.upstreams.iter().map(of).sum();
        let (hits, misses) = (sum(|upstream| upstream.hits), sum(|upstream| upstream.misses));
        TunnelStatus {
            listen: self.listen().iter().map(listener).collect(),
            asked: stats.asked,
            opened: stats.opened,
            live: stats.live as u64,
            max: stats.max_tunnels as u64,
            waiting: stats.waiting as u64,
            hits,
            misses,
            hit_ratio: ratio(hits, misses),
            failed: named(stats.failed.iter().map(|(kind, count)| (kind.as_str(), *count))),
            failovers: stats.failovers,
            opened_ahead: stats.opened_ahead,
            ready: stats.ready as u64,
            ready_used: stats.ready_used,
            sent: sum(|upstream| upstream.sent),
            received: sum(|upstream| upstream.received),
            waits: times(&stats.waits),
            clients: self.watch().map(|watch| clients(watch, config.max_clients)),
            udp: self.watch().filter(|_| config.udp.enabled).map(|watch| udp(watch, config.udp.max_associations)),
            upstreams: stats.upstreams.iter().map(upstream).collect(),
        }
    }

    fn destinations(&self) -> Vec<DestinationRow> {
        self.0.connector.stats().destinations.iter().map(destination).collect()
    }

    fn tunnels(&self) -> Vec<LiveRow> {
        let mut rows = self.watch().map(ServerWatch::tunnels).unwrap_or_default();
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        rows.truncate(LiveRow::MAX);
        rows.iter().map(live).collect()
    }

    fn flush(&self) -> u64 {
        let stats = self.0.connector.stats();
        let idle = |upstream: &UpstreamStats| upstream.spares.as_ref().map_or(0, |spares| spares.pool.gauges.idle);
        let spares: usize = stats.upstreams.iter().map(idle).sum();
        self.0.connector.flush();
        (spares + stats.ready) as u64
    }

    fn pac(&self) -> Option<String> {
        pac(&self.listen(), !self.0.connector.config().users.is_empty(), REACHED)
    }
}

fn listener(Listen { address, kind }: &Listen) -> TunnelListenRow {
    let target = match kind {
        ListenKind::Forward(target) => Some(target.to_string()),
        ListenKind::Mixed | ListenKind::Socks | ListenKind::Http => None,
    };
    TunnelListenRow { address: address.to_string(), kind: kind.as_str().to_owned(), target }
}

fn clients(watch: &ServerWatch, max: usize) -> ClientsRow {
    let stats = watch.stats();
    ClientsRow {
        connected: stats.clients as u64,
        max: max as u64,
        accepted: stats.accepted,
        turned_away: stats.turned_away,
        socks5: stats.socks5,
        socks4: stats.socks4,
        http: stats.http,
        forwards: stats.forwards,
        handshakes_failed: named(
            HandshakeFailure::ALL.map(|reason| (reason.as_str(), stats.handshakes_failed(reason))).into_iter(),
        ),
        gone_early: stats.gone_early,
    }
}

fn udp(watch: &ServerWatch, max: usize) -> UdpRow {
    let stats = watch.udp();
    UdpRow {
        associations: stats.associations as u64,
        max: max as u64,
        opened: stats.opened,
        refused: stats.refused,
        datagrams_sent: stats.datagrams_sent,
        datagrams_received: stats.datagrams_received,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        dropped: named(UdpDropped::ALL.map(|reason| (reason.as_str(), stats.dropped(reason))).into_iter()),
    }
}

fn upstream(stats: &UpstreamStats) -> TunnelUpstreamRow {
    let (breaker, retry_in) = breaker(&stats.health.state, tokio::time::Instant::now().into_std());
    TunnelUpstreamRow {
        name: stats.name.to_string(),
        address: stats.address.clone(),
        through: stats.through.clone(),
        group: stats.group.to_string(),
        priority: stats.priority,
        breaker,
        retry_in,
        failures_in_a_row: stats.health.consecutive_failures,
        last_failure: stats.last_failure.as_ref().map(|(_, text)| text.to_string()),
        last_failure_ago: stats.last_failure.as_ref().map(|(ago, _)| *ago),
        live: stats.live as u64,
        tunnels: stats.tunnels,
        hits: stats.hits,
        misses: stats.misses,
        hit_ratio: stats.hit_ratio(),
        retries: stats.retries,
        hedged: stats.hedged,
        refused: stats.refused,
        failed: stats.failed,
        sent: stats.sent,
        received: stats.received,
        ready: times(&stats.ready),
        spares: stats.spares.as_ref().map(spares),
    }
}

/// With the rest of the pause of one that is left alone.
fn breaker(state: &health::BreakerState, now: Instant) -> (BreakerState, Option<Duration>) {
    match state {
        health::BreakerState::Closed => (BreakerState::Closed, None),
        health::BreakerState::Open { until } => (BreakerState::Open, Some(until.saturating_duration_since(now))),
        health::BreakerState::HalfOpen { .. } => (BreakerState::HalfOpen, None),
    }
}

fn spares(stats: &SpareStats) -> SparesRow {
    let HostStats { gauges, counters, .. } = &stats.pool;
    SparesRow {
        target: stats.target as u64,
        max: stats.max as u64,
        idle: gauges.idle as u64,
        dialing: gauges.dialing as u64,
        opened: counters.opened,
        age_limit: stats.pool.idle_limit,
        pipelining: stats.pipelining.as_str().to_owned(),
        ages: times(&stats.ages),
        dials: times(&stats.pool.dial),
        closed: named(CloseReason::ALL.iter().map(|reason| (reason.as_str(), counters.closed(*reason)))),
        dial_errors: named(counters.dial_errors().iter().copied()),
    }
}

fn destination(stats: &DestinationStats) -> DestinationRow {
    DestinationRow {
        destination: stats.target.to_string(),
        live: stats.live as u64,
        max: stats.max as u64,
        waiting: stats.waiting as u64,
        total: stats.total,
    }
}

fn live(row: &TunnelRow) -> LiveRow {
    LiveRow {
        client: row.client.to_string(),
        destination: row.target.to_string(),
        upstream: row.upstream.to_string(),
        age: row.age,
        spare: row.spare,
        sent: row.sent,
        received: row.received,
    }
}

/// What was counted at all, by name.
fn named<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let asked = hits + misses;
    (asked > 0).then(|| hits as f64 / asked as f64)
}

fn times(histogram: &Histogram) -> TimesRow {
    let count = histogram.count();
    let any = |time: Duration| (count > 0).then_some(time);
    TimesRow {
        count,
        mean: mean(histogram),
        p50: any(histogram.quantile(0.5)),
        p90: any(histogram.quantile(0.9)),
        p99: any(histogram.quantile(0.99)),
        max: any(histogram.max()),
    }
}

/// The mean as far as the buckets tell: each duration counts as the middle of its bucket.
fn mean(histogram: &Histogram) -> Option<Duration> {
    let middle = |bucket: usize| {
        let lower = bucket.checked_sub(1).map_or(Duration::ZERO, Histogram::upper);
        f64::midpoint(lower.as_secs_f64(), Histogram::upper(bucket).min(histogram.max()).as_secs_f64())
    };
    let counted = histogram.buckets().iter().enumerate().filter(|(_, count)| **count > 0);
    let sum: f64 = counted.map(|(bucket, count)| middle(bucket) * *count as f64).sum();
    (histogram.count() > 0).then(|| Duration::from_secs_f64(sum / histogram.count() as f64))
}

/// The address at which clients reach the endpoint: it listens on loopback alone.
const REACHED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests;
