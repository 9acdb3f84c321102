//! A daemon that is made up: everything that it can show is there, and every figure is another one.

use std::{sync::Arc, time::Duration};

use keepwarm_control::{
    Answer, Checks, QueryFuture, Refusal, Snapshots,
    https::{
        AccessChanged, AddressRow, HttpsError, HttpsPoolRow, HttpsSnapshots, HttpsStatus, OriginRow, WarmRequest,
        WarmRow,
    },
    rows::{
        BreakerState, CacheStatus, CertificateRow, ConfigRow, ConfigState, DnsUpstreamRow, Health, Job, ListenerRow,
        LogPatch, LogRow, PhaseRow, QueryError, QueryRequest, RecentRow, ReloadRow, Stats, UpstreamRow,
    },
    tunnel::{ClientsRow, DestinationRow, LiveRow, TunnelSnapshots, TunnelStatus, UdpRow},
};
use keepwarm_pool::{
    Connected, Connector, DialPhase, DialPhases, Histogram, HostView, Limits, LimitsError, NamedPool, Pool, Slot,
    Stats as PoolStats, Steer, WarmUp,
};

/// A daemon with `pools` and `upstreams` of each job.
pub(crate) struct Fake {
    pub(crate) pools: Vec<NamedPool>,
    pub(crate) upstreams: Vec<UpstreamRow>,
    pub(crate) failed: bool,
    https: Https,
    tunnels: Tunnels,
}

impl Fake {
    /// One of everything.
    pub(crate) async fn whole() -> Fake {
        let mut fake = Fake::of(&["dns", "dns.udp", "https", "tunnel.exit-a"], 20);
        // One that has failed: its kinds of error are labels.
        let pool = lab(Limits::per_host(10));
        pool.acquire(&0).await.unwrap_err();
        fake.pools.push(NamedPool { name: "tunnel.exit-b".into(), pool: Arc::new(pool) });
        fake
    }

    pub(crate) fn of(pools: &[&str], upstreams: usize) -> Fake {
        let pools = pools.iter().map(|name| NamedPool { name: (*name).into(), pool: Arc::new(Still::busy()) });
        let jobs = [(Job::Dns, "tls"), (Job::Https, "https"), (Job::Tunnel, "socks5")];
        let upstreams = (0..upstreams).map(|i| {
            let (job, transport) = jobs[i % jobs.len()];
            upstream(job, &format!("up-{i}"), transport, i as u64)
        });
        let mut rows: Vec<UpstreamRow> = upstreams.collect();
        let configured = rows.iter().filter(|row| row.job == Job::Https).map(|row| row.name.clone()).collect();
        // One that the config names is down; one that it does not name was brought by a client.
        if let Some(row) = rows.first_mut() {
            (row.health, row.breaker) = (Health::Down, BreakerState::Open);
        }
        rows.push(upstream(Job::Https, "brought-by-a-client.example", "https", 9));
        Fake { pools: pools.collect(), upstreams: rows, failed: false, https: Https(configured), tunnels: Tunnels }
    }
}

fn upstream(job: Job, name: &str, transport: &str, i: u64) -> UpstreamRow {
    let mut latency = Histogram::default();
    (0..50).for_each(|n| latency.record(Duration::from_micros(300 * (n + i + 1))));
    let figures: &[&str] = match job {
        Job::Dns => &["wrong_answers", "resends", "reuse_failures", "cookie_errors"],
        Job::Https => &["addresses_validated", "addresses_quarantined", "retried", "reused"],
        Job::Tunnel => {
            &["spares_idle", "spares_target", "hits", "misses", "retries", "hedged", "refused", "sent", "received"]
        }
    };
    UpstreamRow {
        job,
        name: name.into(),
        transport: transport.into(),
        address: format!("192.0.2.{i}:853"),
        health: Health::Up,
        open: 3 + i,
        in_use: 1,
        requests: 1000 + i,
        failures: 10 + i,
        local_errors: 2,
        handshakes: 40 + i,
        handshakes_resumed: 30 + i,
        latency: Some(latency),
        idle_limit: Some(Duration::from_millis(7500 + i)),
        figures: figures.iter().map(|name| ((*name).to_owned(), 5 + i)).collect(),
        ..UpstreamRow::default()
    }
}

impl Snapshots for Fake {
    fn pools(&self) -> Vec<NamedPool> {
        self.pools.clone()
    }

    fn upstreams(&self) -> Vec<UpstreamRow> {
        self.upstreams.clone()
    }

    fn dns(&self) -> Option<Vec<DnsUpstreamRow>> {
        Some(Vec::new())
    }

    fn listeners(&self) -> Vec<ListenerRow> {
        Vec::new()
    }

    fn recent(&self) -> Vec<RecentRow> {
        let phase = |phase: &str, ms| PhaseRow { phase: phase.into(), took: Duration::from_millis(ms) };
        vec![RecentRow {
            job: Job::Https,
            age: Duration::from_secs(1),
            failed: true,
            what: "GET brought-by-a-client.example".into(),
            upstream: Some("up-1".into()),
            total: Duration::from_millis(1250),
            phases: vec![phase("wait", 250), phase("connect", 400), phase("tls", 600)],
            reused: Some(false),
            tries: 2,
            why: "the dial took longer than 1 s".into(),
        }]
    }

    fn checks(&self) -> Checks {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn stats(&self) -> Stats {
        let counters = COUNTERS.iter().enumerate().map(|(i, name)| ((*name).to_owned(), 100 + i as u64));
        Stats {
            version: "9.9.9".into(),
            uptime: Duration::from_secs(100),
            now: 1_800_000_000,
            certificate: Some(CertificateRow { not_after: 1_900_000_000, ..CertificateRow::default() }),
            counters: counters.collect(),
            ..Stats::default()
        }
    }

    fn config_state(&self) -> ConfigState {
        let last_error = self.failed.then(|| "dns.timeout: no duration".to_owned());
        ConfigState { generation: 3, loaded: 1_799_999_990, last_error, ..ConfigState::default() }
    }

    fn config(&self) -> ConfigRow {
        ConfigRow::default()
    }

    fn reload(&self) -> Answer<ReloadRow> {
        Box::pin(std::future::ready(Err(Refusal::Failed("there is nothing to read".into()))))
    }

    fn log(&self) -> LogRow {
        LogRow::default()
    }

    fn set_log(&self, _: LogPatch) -> Result<LogRow, Refusal> {
        Ok(LogRow::default())
    }

    fn limits_changed(&self, _: Vec<String>) {}

    fn cache(&self) -> Option<CacheStatus> {
        Some(CacheStatus { size: 1 << 20, ..CacheStatus::default() })
    }

    fn flush_cache(&self, _: Option<&str>) -> Option<u64> {
        Some(0)
    }

    fn query(&self, _: QueryRequest) -> QueryFuture {
        Box::pin(std::future::ready(Err(QueryError::Failed("nobody to ask".into()))))
    }

    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        Some(&self.https)
    }

    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        Some(&self.tunnels)
    }
}

/// The origins that the config names.
struct Https(Vec<String>);

impl HttpsSnapshots for Https {
    fn status(&self) -> HttpsStatus {
        let row = |origin: &String| OriginRow { origin: origin.clone(), configured: true, ..OriginRow::default() };
        let mut origins: Vec<OriginRow> = self.0.iter().map(row).collect();
        origins.push(OriginRow { origin: "brought-by-a-client.example".into(), ..OriginRow::default() });
        HttpsStatus { origins, gateway: None }
    }

    fn pools(&self) -> Vec<HttpsPoolRow> {
        Vec::new()
    }

    fn addresses(&self, _: &str) -> Result<Vec<AddressRow>, HttpsError> {
        Ok(Vec::new())
    }

    fn warm(&self, _: &WarmRequest) -> Result<tokio::sync::mpsc::Receiver<WarmRow>, HttpsError> {
        Err(HttpsError::Busy("it is made up".into()))
    }

    fn ban(&self, _: &str, _: ipnet::IpNet) -> Result<u64, HttpsError> {
        Ok(AccessChanged { addresses: 0 }.addresses)
    }

    fn allow(&self, _: &str, _: ipnet::IpNet) -> Result<u64, HttpsError> {
        Ok(0)
    }
}

struct Tunnels;

impl TunnelSnapshots for Tunnels {
    fn status(&self) -> TunnelStatus {
        let one = |name: &str, count| [(name.to_owned(), count)].into();
        TunnelStatus {
            max: 512,
            opened_ahead: 21,
            ready: 2,
            failed: one("refused", 17),
            clients: Some(ClientsRow {
                socks5: 6,
                http: 7,
                turned_away: 3,
                handshakes_failed: one("version", 4),
                ..ClientsRow::default()
            }),
            udp: Some(UdpRow {
                associations: 1,
                datagrams_sent: 8,
                datagrams_received: 9,
                dropped: one("size", 5),
                ..UdpRow::default()
            }),
            ..TunnelStatus::default()
        }
    }

    fn destinations(&self) -> Vec<DestinationRow> {
        vec![DestinationRow { destination: "secret-destination.example:443".into(), ..DestinationRow::default() }]
    }

    fn tunnels(&self) -> Vec<LiveRow> {
        Vec::new()
    }

    fn flush(&self) -> u64 {
        0
    }

    fn pac(&self) -> Option<String> {
        None
    }
}

/// A pool whose figures stand still.
pub(crate) struct Still(pub(crate) PoolStats);

impl Still {
    fn busy() -> Still {
        let mut stats = PoolStats::default();
        let (gauges, counters) = (&mut stats.gauges, &mut stats.counters);
        (gauges.open, gauges.idle, gauges.in_use, gauges.draining, gauges.validating) = (10, 3, 6, 2, 1);
        (gauges.dialing, gauges.waiting, gauges.oldest_wait) = (4, 5, Duration::from_millis(1500));
        (counters.acquires, counters.hits, counters.shared_hits, counters.waited) = (100, 60, 20, 14);
        (counters.cancelled, counters.reused, counters.opened) = (1, 77, 33);
        stats.hosts = 10;
        for n in 1..2000_u64 {
            stats.wait.record(Duration::from_micros(n * n));
            stats.dial.record(Duration::from_micros(n * 100));
            let phases = DialPhases::default().with(DialPhase::Connect, Duration::from_micros(n * 60));
            stats.dial_phases.record(&phases.with(DialPhase::Tls, Duration::from_micros(n * 40)));
            stats.lease.record(Duration::from_millis(n * 3));
            stats.idle_age.record(Duration::from_millis(n * 70));
        }
        Still(stats)
    }
}

impl Steer for Still {
    fn limits(&self) -> Limits {
        Limits::per_host(10)
    }

    fn set_limits(&self, _: Limits) -> Result<(), LimitsError> {
        Ok(())
    }

    fn stats(&self) -> PoolStats {
        self.0.clone()
    }

    fn hosts(&self) -> Vec<HostView> {
        Vec::new()
    }

    fn flush(&self, _: Option<&str>) -> usize {
        0
    }

    fn pause(&self, _: Option<&str>) -> usize {
        0
    }

    fn resume(&self, _: Option<&str>) -> usize {
        0
    }

    fn warm_up(&self, _: Option<&str>, _: usize) -> WarmUp {
        Box::pin(std::future::ready(Ok(0)))
    }
}

/// Connects at once; key 0 cannot be connected to.
pub(crate) struct Lab;

impl Connector for Lab {
    type Key = u16;
    type Connection = u16;
    type Error = std::io::Error;

    async fn connect(&self, key: &u16, _: Slot<Lab>) -> Result<Connected<u16>, std::io::Error> {
        match key {
            0 => Err(std::io::Error::other("nobody is there")),
            // Only the even ones speak TLS.
            key => {
                let phases = DialPhases::default().with(DialPhase::Connect, Duration::from_micros(300));
                let tls = if key % 2 == 0 { Duration::from_millis(3) } else { Duration::ZERO };
                Ok(Connected::new(*key).phases(phases.with_some(DialPhase::Tls, tls)))
            }
        }
    }

    fn kind(&self, _: &std::io::Error) -> &'static str {
        "refused"
    }
}

pub(crate) fn lab(limits: Limits) -> Pool<Lab> {
    Pool::builder(Lab).limits(limits).build()
}

/// The names that the daemon counts under.
pub(crate) const COUNTERS: [&str; 48] = [
    "queries",
    "malformed",
    "refused",
    "coalesced",
    "overloaded",
    "failed",
    "wrong_answers",
    "local_errors",
    "tcp_rejected",
    "rate_limited",
    "client_limited",
    "tcp_clients",
    "cache_hits",
    "cache_misses",
    "cache_stale",
    "cache_prefetches",
    "local_answers",
    "query_log_dropped",
    "hedges_sent",
    "hedges_won",
    "hedges_denied",
    "network_changes",
    "cache_entries",
    "cache_bytes",
    "https_requests",
    "https_answered",
    "https_failed",
    "https_cancelled",
    "https_retried",
    "https_reused",
    "https_open",
    "gateway_requests",
    "tunnel_asked",
    "tunnel_opened",
    "tunnel_failed",
    "tunnel_live",
    "tunnel_waiting",
    "tunnel_hits",
    "tunnel_misses",
    "tunnel_retries",
    "tunnel_hedged",
    "tunnel_failovers",
    "tunnel_spares",
    "tunnel_sent",
    "tunnel_received",
    "tunnel_clients",
    "tunnel_handshakes_failed",
    "cpu_micros",
];
