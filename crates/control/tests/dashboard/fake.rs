//! A daemon that is made up: real pools under a load that follows the clock, upstreams and requests as a script has them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keepwarm_control::{
    Answer, Checks, QueryFuture, Refusal, Snapshots,
    https::{
        AddressCounts, AddressRow, HttpsError, HttpsPoolRow, HttpsSnapshots, HttpsStatus, OriginRow, RequestCounts,
        WarmRequest, WarmRow,
    },
    rows::{
        BreakerState, CacheStatus, CheckRow, ConfigRow, ConfigState, DnsUpstreamRow, Health, Job, ListenerRow,
        LogPatch, LogRow, PhaseRow, QueryError, QueryRequest, RecentRow, ReloadRow, Stats, UpstreamRow,
    },
    tunnel::{DestinationRow, LiveRow, SparesRow, TunnelSnapshots, TunnelStatus, TunnelUpstreamRow},
};
use keepwarm_pool::{Connected, Connector, Limits, NamedPool, Pool, Slot};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

/// Connections to nothing.
pub struct Nothing;

impl Connector for Nothing {
    type Key = &'static str;
    type Connection = ();
    type Error = std::io::Error;

    async fn connect(&self, _: &&'static str, _: Slot<Nothing>) -> Result<Connected<()>, std::io::Error> {
        tokio::time::sleep(Duration::from_millis(18)).await;
        Ok(Connected::new(()))
    }

    fn label(&self, key: &&'static str) -> String {
        (*key).to_owned()
    }
}

/// A pool, and who uses it.
struct Used {
    name: String,
    pool: Pool<Nothing>,
    hosts: &'static [&'static str],
    users: Mutex<Vec<JoinHandle<()>>>,
}

/// What the script has changed.
pub struct Script {
    pub breaker: BreakerState,
    /// An upstream whose name is markup.
    pub markup: bool,
    /// As many more pools and upstreams, with long names.
    pub many: usize,
    /// More want a connection than there may be.
    pub rush: bool,
    pub queries: u64,
    /// What was asked for, in words.
    pub calls: Vec<String>,
    pub log: String,
    pub changed: Vec<String>,
    pub generation: u64,
    pub last_error: Option<String>,
    pub started: Instant,
    /// Nothing moves: what is shown can be compared.
    pub frozen: Option<Instant>,
}

pub struct Fake {
    pools: Vec<Used>,
    pub script: Mutex<Script>,
    began: Instant,
    pub stopping: AtomicBool,
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let pool = |name: &str, max, hosts| {
            let limits = Limits { min_idle: 1, max_total: 64, max_idle: 64, ..Limits::per_host(max) };
            Used {
                name: name.into(),
                pool: Pool::builder(Nothing).limits(limits).build(),
                hosts,
                users: Mutex::default(),
            }
        };
        let now = Instant::now();
        Arc::new(Fake {
            pools: vec![
                pool("dns", 6, &["tls://9.9.9.9:853", "https://1.1.1.1:443/dns-query", "udp://192.0.2.53:53"]),
                pool("https", 8, &["https://tiles.example.org", "https://api.example.net"]),
                pool("tunnel.exit-a", 10, &["socks5://198.51.100.7:1080"]),
            ],
            script: Mutex::new(Script {
                breaker: BreakerState::Closed,
                markup: false,
                many: 0,
                rush: false,
                queries: 0,
                calls: Vec::new(),
                log: "info".into(),
                changed: Vec::new(),
                generation: 1,
                last_error: None,
                started: now,
                frozen: None,
            }),
            began: now,
            stopping: AtomicBool::new(false),
        })
    }

    /// Seconds since it began, as far as anything moves.
    fn seconds(&self) -> f64 {
        let until = self.script.lock().frozen.unwrap_or_else(Instant::now);
        (until - self.began).as_secs_f64()
    }

    /// A tick of the load: users come and go, and more come than there is room for while an hour has its worst minutes.
    pub fn tick(&self) {
        if self.script.lock().frozen.is_some() {
            return;
        }
        let seconds = self.seconds();
        let wave = |period: f64, shift: f64| (seconds / period * std::f64::consts::TAU + shift).sin();
        let rush = (2200.0..2420.0).contains(&seconds) || self.script.lock().rush;
        for (at, used) in self.pools.iter().enumerate() {
            let shift = at as f64;
            let level = 4.0 + 2.0 * wave(1400.0, shift) + 1.5 * wave(310.0, shift * 2.0) + wave(47.0, shift);
            let wanted =
                if rush && at == 1 { 21 } else { (1..9).filter(|user| f64::from(*user) <= level).count().max(1) };
            let mut users = used.users.lock();
            users.retain(|user| !user.is_finished());
            let going = (users.len() + 2).saturating_sub(wanted).min(users.len());
            users.drain(..going).for_each(|user| user.abort());
            for _ in users.len()..wanted {
                let (pool, host) = (used.pool.clone(), used.hosts[users.len() % used.hosts.len()]);
                users.push(tokio::spawn(async move {
                    if let Ok(_lease) = pool.acquire(&host).await {
                        std::future::pending::<()>().await;
                    }
                }));
            }
        }
        self.script.lock().queries += 40;
    }

    fn upstream(&self, job: Job, name: &str, transport: &str, address: &str, latency: f64) -> UpstreamRow {
        let seconds = self.seconds();
        let shift = latency * 100.0;
        let now = latency * (1.0 + 0.25 * (seconds / 90.0 + shift).sin() + 0.15 * (seconds / 23.0 + shift).cos());
        UpstreamRow {
            job,
            name: name.into(),
            transport: transport.into(),
            address: address.into(),
            health: Health::Up,
            open: 3,
            in_use: 1,
            requests: 18_000 + 11 * Duration::from_secs_f64(seconds).as_secs(),
            failures: 3,
            handshakes: 41,
            handshakes_resumed: 380,
            latency_p50: Some(Duration::from_secs_f64(now)),
            latency_p95: Some(Duration::from_secs_f64(now * 2.4)),
            ..UpstreamRow::default()
        }
    }
}

fn phase((name, milliseconds): (&str, u64)) -> PhaseRow {
    PhaseRow { phase: name.into(), took: Duration::from_millis(milliseconds) }
}

fn recent(
    job: Job,
    age: f64,
    failed: bool,
    what: &str,
    upstream: &str,
    phases: &[(&str, u64)],
    why: &str,
) -> RecentRow {
    let phases: Vec<PhaseRow> = phases.iter().copied().map(phase).collect();
    RecentRow {
        job,
        age: Duration::from_secs_f64(age),
        failed,
        what: what.into(),
        upstream: Some(upstream.into()),
        total: phases.iter().map(|phase| phase.took).sum(),
        phases,
        reused: Some(false),
        tries: 1,
        why: why.into(),
    }
}

impl Snapshots for Fake {
    fn pools(&self) -> Vec<NamedPool> {
        let many = self.script.lock().many;
        let pool = |name: String, pool: &Pool<Nothing>| NamedPool { name, pool: Arc::new(pool.clone()) };
        let all = self.pools.iter().map(|used| pool(used.name.clone(), &used.pool));
        all.chain((0..many).map(|at| pool(format!("{at}.{}", "pool".repeat(30)), &self.pools[0].pool))).collect()
    }

    fn upstreams(&self) -> Vec<UpstreamRow> {
        let breaker = self.script.lock().breaker;
        let markup = self.script.lock().markup;
        let mut cloudflare = self.upstream(Job::Dns, "cloudflare", "https", "1.1.1.1:443/dns-query", 0.014);
        if breaker != BreakerState::Closed {
            cloudflare.breaker = breaker;
            cloudflare.health = Health::Down;
            cloudflare.retry_in = Some(Duration::from_millis(3_800));
            cloudflare.failures = 57;
            cloudflare.reason = Some("connect to 1.1.1.1:443: tls handshake timed out after 3s".into());
        }
        let mut all = vec![
            self.upstream(Job::Dns, "quad9", "tls", "9.9.9.9:853", 0.021),
            cloudflare,
            self.upstream(Job::Dns, "router", "udp", "192.0.2.53:53", 0.0012),
            self.upstream(Job::Https, "tiles.example.org", "h2", "tiles.example.org:443", 0.048),
            self.upstream(Job::Https, "api.example.net", "h2", "api.example.net:443", 0.093),
            self.upstream(Job::Tunnel, "exit-a", "socks5", "198.51.100.7:1080", 0.182),
        ];
        let many = self.script.lock().many;
        all.extend((0..many).map(|at| {
            let reason = Some("why ".repeat(100));
            UpstreamRow {
                reason,
                ..self.upstream(Job::Dns, &format!("{at}.{}", "name".repeat(30)), "tls", "192.0.2.1:853", 0.01)
            }
        }));
        if markup {
            let name = "<img src=x onerror=\"window.broken=1\">";
            all.push(UpstreamRow {
                reason: Some("</td><script>window.broken=1</script>".into()),
                ..self.upstream(Job::Dns, name, "udp", name, 0.01)
            });
        }
        all
    }

    fn dns(&self) -> Option<Vec<DnsUpstreamRow>> {
        Some(Vec::new())
    }

    fn listeners(&self) -> Vec<ListenerRow> {
        Vec::new()
    }

    fn recent(&self) -> Vec<RecentRow> {
        let since = self.seconds() % 30.0;
        vec![
            recent(
                Job::Dns,
                4.0 + since,
                true,
                "A query over udp",
                "cloudflare",
                &[("wait", 40), ("connect", 31), ("tls", 3000)],
                "tls handshake timed out after 3s; answered by quad9 in the end",
            ),
            recent(
                Job::Https,
                19.0 + since,
                false,
                "GET tiles.example.org",
                "tiles.example.org",
                &[("wait", 1240), ("exchange", 51)],
                "every connection of the host was in use: 8 of 8",
            ),
            recent(
                Job::Tunnel,
                62.0 + since,
                false,
                "CONNECT db.example.com:5432",
                "exit-a",
                &[("wait", 2), ("connect", 212), ("exchange", 604)],
                "no spare was ready; the proxy took 604 ms to reach the destination",
            ),
            recent(
                Job::Dns,
                300.0 + since,
                false,
                "HTTPS query over tcp",
                "quad9",
                &[("resolve", 12), ("connect", 35), ("tls", 88), ("exchange", 410)],
                "the upstream took 410 ms",
            ),
        ]
    }

    fn checks(&self) -> Checks {
        Box::pin(async { vec![CheckRow { name: "listeners".into(), ok: true, text: "all are bound".into() }] })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn stats(&self) -> Stats {
        let script = self.script.lock();
        let until = script.frozen.unwrap_or_else(Instant::now);
        let counters = [
            ("queries", script.queries),
            ("https_requests", script.queries / 5),
            ("tunnel_asked", script.queries / 60),
        ];
        Stats {
            version: "9.9.9".into(),
            uptime: until - script.started,
            // Some day in 2026, so that pictures are the same whenever they are taken.
            now: 1_780_000_000 + (until - self.began).as_secs(),
            counters: counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            ..Stats::default()
        }
    }

    fn config_state(&self) -> ConfigState {
        let script = self.script.lock();
        ConfigState {
            file: Some("/etc/keepwarm/keepwarm.toml".into()),
            generation: script.generation,
            loaded: 1_780_000_000,
            needs_restart: Vec::new(),
            last_error: script.last_error.clone(),
            changed_at_run_time: script.changed.clone(),
        }
    }

    fn config(&self) -> ConfigRow {
        ConfigRow::default()
    }

    fn reload(&self) -> Answer<ReloadRow> {
        let mut script = self.script.lock();
        script.calls.push("reload".into());
        let refused = script.last_error.clone();
        script.generation += u64::from(refused.is_none());
        let row = ReloadRow { generation: script.generation, kept: vec!["dns".into()], ..ReloadRow::default() };
        Box::pin(async move { refused.map_or(Ok(row), |why| Err(Refusal::Invalid(why))) })
    }

    fn log(&self) -> LogRow {
        LogRow { level: self.script.lock().log.clone(), configured: "info".into(), reverts_in: None }
    }

    fn set_log(&self, patch: LogPatch) -> Result<LogRow, Refusal> {
        let mut script = self.script.lock();
        script.calls.push(format!("log {} {}", patch.level, patch.seconds));
        script.log = patch.level;
        drop(script);
        Ok(self.log())
    }

    fn limits_changed(&self, names: Vec<String>) {
        let mut script = self.script.lock();
        script.calls.extend(names.iter().map(|name| format!("limits {name}")));
        script.changed = names;
    }

    fn cache(&self) -> Option<CacheStatus> {
        Some(CacheStatus {
            size: 32 << 20,
            entries: 4123,
            bytes: 3_400_000,
            hits: 91_200,
            misses: 13_800,
            hit_ratio: Some(0.869),
            stale: 12,
            prefetches: 803,
        })
    }

    fn flush_cache(&self, name: Option<&str>) -> Option<u64> {
        self.script.lock().calls.push(format!("flush {}", name.unwrap_or("all")));
        Some(4123)
    }

    fn query(&self, _: QueryRequest) -> QueryFuture {
        Box::pin(async { Err(QueryError::Failed("there is nothing to ask".into())) })
    }

    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        Some(self)
    }

    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        Some(self)
    }
}

impl HttpsSnapshots for Fake {
    fn status(&self) -> HttpsStatus {
        let origin = |origin: &str, validated, quarantined| OriginRow {
            origin: origin.into(),
            configured: true,
            addresses: AddressCounts { validated, quarantined, ..AddressCounts::default() },
            in_flight: 2,
            requests: RequestCounts { failed: 4, ..RequestCounts::default() },
            ..OriginRow::default()
        };
        HttpsStatus {
            origins: vec![origin("tiles.example.org", 38, 2), origin("api.example.net", 6, 0)],
            gateway: None,
        }
    }

    fn pools(&self) -> Vec<HttpsPoolRow> {
        Vec::new()
    }

    fn addresses(&self, _: &str) -> Result<Vec<AddressRow>, HttpsError> {
        Ok(Vec::new())
    }

    fn warm(&self, _: &WarmRequest) -> Result<mpsc::Receiver<WarmRow>, HttpsError> {
        Err(HttpsError::Busy("not here".into()))
    }

    fn ban(&self, _: &str, _: ipnet::IpNet) -> Result<u64, HttpsError> {
        Ok(0)
    }

    fn allow(&self, _: &str, _: ipnet::IpNet) -> Result<u64, HttpsError> {
        Ok(0)
    }
}

impl TunnelSnapshots for Fake {
    fn status(&self) -> TunnelStatus {
        let spares = SparesRow { target: 4, idle: 4, ..SparesRow::default() };
        TunnelStatus {
            live: 9,
            max: 256,
            hit_ratio: Some(0.964),
            failed: BTreeMap::new(),
            upstreams: vec![TunnelUpstreamRow {
                name: "exit-a".into(),
                spares: Some(spares),
                ..TunnelUpstreamRow::default()
            }],
            ..TunnelStatus::default()
        }
    }

    fn destinations(&self) -> Vec<DestinationRow> {
        Vec::new()
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
