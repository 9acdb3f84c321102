//! The endpoint over real loopback connections, with rows made up by a fake daemon.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keepwarm_pool::{Connected, Connector, NamedPool, Pool, Slot};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    client::{ClientError, get, post},
    https::HttpsSnapshots,
    routes::{BODY_MAX, QUERIES_MAX},
    rows::*,
    tunnel::TunnelSnapshots,
    *,
};

mod access;
mod asked;
mod https;
mod live;
mod pools;
mod tunnel;

/// Connects at once to everything but `down`.
struct Lab;

impl Connector for Lab {
    type Key = &'static str;
    type Connection = ();
    type Error = std::io::Error;

    async fn connect(&self, key: &&'static str, _: Slot<Lab>) -> Result<Connected<()>, std::io::Error> {
        match *key {
            "down" => Err(std::io::Error::other("nobody is there")),
            _ => Ok(Connected::new(())),
        }
    }

    fn label(&self, key: &&'static str) -> String {
        (*key).to_owned()
    }
}

pub(crate) struct Fake {
    pool: Pool<Lab>,
    https: Option<https::FakeHttps>,
    tunnels: Option<tunnel::FakeTunnels>,
    down: bool,
    without_dns: bool,
    reloads: Arc<AtomicUsize>,
    /// Reloads wait for this, where there is one.
    gate: Option<Arc<tokio::sync::Semaphore>>,
    pub(crate) checked: AtomicUsize,
    limits: Mutex<Vec<String>>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            pool: Pool::builder(Lab).build(),
            https: None,
            tunnels: None,
            down: false,
            without_dns: false,
            reloads: Arc::default(),
            gate: None,
            checked: AtomicUsize::default(),
            limits: Mutex::default(),
        }
    }
}

impl Snapshots for Fake {
    fn pools(&self) -> Vec<NamedPool> {
        vec![NamedPool { name: "lab".into(), pool: Arc::new(self.pool.clone()) }]
    }

    fn upstreams(&self) -> Vec<UpstreamRow> {
        let health = if self.down { Health::Down } else { Health::Up };
        let reason = self.down.then(|| "it is silent".to_owned());
        vec![UpstreamRow { name: "quad9".into(), transport: "tls".into(), health, reason, ..UpstreamRow::default() }]
    }

    fn dns(&self) -> Option<Vec<DnsUpstreamRow>> {
        let row = DnsUpstreamRow {
            upstream: "quad9".into(),
            transport: "tls".into(),
            open: 2,
            max: 10,
            reuse_ratio: Some(0.75),
            breaker: BreakerState::HalfOpen,
            latency_p50: Some(Duration::from_millis(20)),
            ..DnsUpstreamRow::default()
        };
        (!self.without_dns).then(|| vec![row])
    }

    fn listeners(&self) -> Vec<ListenerRow> {
        vec![ListenerRow { job: "dns".into(), transport: "udp".into(), address: "127.0.0.1:53".into() }]
    }

    fn recent(&self) -> Vec<RecentRow> {
        vec![RecentRow { what: "A".into(), why: "the dial took long".into(), ..RecentRow::default() }]
    }

    fn checks(&self) -> Checks {
        self.checked.fetch_add(1, Ordering::Relaxed);
        let check = CheckRow { name: "upstreams".into(), ok: !self.down, text: "of dns".into() };
        Box::pin(std::future::ready(vec![check]))
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn config_state(&self) -> ConfigState {
        ConfigState { generation: 1, ..ConfigState::default() }
    }

    fn config(&self) -> ConfigRow {
        ConfigRow { state: self.config_state(), ..ConfigRow::default() }
    }

    fn reload(&self) -> Answer<ReloadRow> {
        let reloads = self.reloads.fetch_add(1, Ordering::Relaxed);
        let gate = self.gate.clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            match reloads {
                0 => Ok(ReloadRow { generation: 2, kept: vec!["dns.upstream.quad9".into()], ..ReloadRow::default() }),
                _ => Err(Refusal::Invalid("keepwarm.toml:3: unknown key".into())),
            }
        })
    }

    fn log(&self) -> LogRow {
        LogRow { level: "info".into(), configured: "info".into(), reverts_in: None }
    }

    fn set_log(&self, patch: LogPatch) -> Result<LogRow, Refusal> {
        match patch.level.as_str() {
            "loud" => Err(Refusal::Invalid("unknown level".into())),
            _ => Ok(LogRow { level: patch.level, reverts_in: Some(Duration::from_secs(patch.seconds)), ..self.log() }),
        }
    }

    fn limits_changed(&self, names: Vec<String>) {
        self.limits.lock().extend(names);
    }

    fn stats(&self) -> Stats {
        Stats { version: "9.9.9".into(), uptime: Duration::from_millis(1500), ..Stats::default() }
    }

    fn cache(&self) -> Option<CacheStatus> {
        Some(CacheStatus {
            size: 1 << 20,
            entries: 2,
            bytes: 300,
            hits: 3,
            misses: 1,
            hit_ratio: Some(0.75),
            stale: 4,
            prefetches: 5,
        })
    }

    fn flush_cache(&self, name: Option<&str>) -> Option<u64> {
        match name {
            None => Some(1000),
            Some("bad..name") => None,
            Some(name) => Some(name.len() as u64),
        }
    }

    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        self.https.as_ref().map(|https| https as &dyn HttpsSnapshots)
    }

    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        self.tunnels.as_ref().map(|tunnels| tunnels as &dyn TunnelSnapshots)
    }

    fn query(&self, request: QueryRequest) -> QueryFuture {
        if self.without_dns {
            return Box::pin(std::future::ready(Err(QueryError::Unknown("no [dns]".into()))));
        }
        Box::pin(async move {
            match request.name.as_str() {
                "bad..name" => Err(QueryError::Invalid("not a name".into())),
                "down.test" => Err(QueryError::Failed("no upstream answered".into())),
                "slow.test" => std::future::pending().await,
                _ => Ok(QueryReport {
                    name: request.name,
                    qtype: request.qtype,
                    rcode: "NOERROR".into(),
                    ..QueryReport::default()
                }),
            }
        })
    }
}

/// A served endpoint; dropping `stop` ends it.
struct Served {
    address: std::net::SocketAddr,
    stop: watch::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn served() -> Served {
    served_by(Fake::default()).await
}

async fn served_by(fake: Fake) -> Served {
    served_with(fake, ControlOptions::default()).await
}

async fn served_with(fake: Fake, options: ControlOptions) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(());
    let control = Control::new(Arc::new(fake), address, options, stopped);
    Served { address, stop, task: tokio::spawn(control.serve(listener)) }
}

/// Sends `head` as it is and returns status and body of the answer.
async fn raw(address: std::net::SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

#[tokio::test]
async fn pools_and_stats_come_through_unchanged() {
    let served = served().await;
    let rows: Vec<DnsUpstreamRow> = get(served.address, "/api/v1/dns/upstreams").await.unwrap();
    assert_eq!(Some(rows), Fake::default().dns());
    let stats: Stats = get(served.address, "/api/v1/stats").await.unwrap();
    assert_eq!(stats, Fake::default().stats());
    let cache: CacheStatus = get(served.address, "/api/v1/cache").await.unwrap();
    assert_eq!(Some(cache), Fake::default().cache());
    let (status, body) = raw(served.address, "GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn without_dns_it_is_said_so() {
    let served = served_by(Fake { without_dns: true, ..Fake::default() }).await;
    let asked = get::<Vec<DnsUpstreamRow>>(served.address, "/api/v1/dns/upstreams").await;
    let Err(ClientError::Refused { status, error }) = asked else { panic!("{asked:?}") };
    assert_eq!((status, error.as_str()), (404, "the daemon's config has no [dns]: add it and restart the daemon"));
    let request = QueryRequest { name: "a.test".into(), qtype: "A".into(), explain: false };
    let asked = post::<QueryReport>(served.address, "/api/v1/query", &request, Duration::from_secs(5)).await;
    assert!(matches!(asked, Err(ClientError::Refused { status: 404, .. })), "{asked:?}");
}

#[tokio::test]
async fn json_says_seconds_and_words() {
    let row = serde_json::to_value(&Fake::default().dns().unwrap()[0]).unwrap();
    assert_eq!(row["latency_p50"], 0.02);
    assert_eq!(row["breaker"], "half-open");
    assert_eq!(row["idle_limit"], Value::Null);
}

#[tokio::test]
async fn a_query_is_asked_and_its_errors_keep_their_words() {
    let served = served().await;
    let ask = async |name: &str| {
        let request = QueryRequest { name: name.into(), qtype: "A".into(), explain: false };
        post::<QueryReport>(served.address, "/api/v1/query", &request, Duration::from_secs(5)).await
    };
    assert_eq!(ask("good.test").await.unwrap().rcode, "NOERROR");
    for (name, wanted, words) in [("bad..name", 400, "not a name"), ("down.test", 502, "no upstream answered")] {
        let Err(ClientError::Refused { status, error }) = ask(name).await else { panic!("{name} was answered") };
        assert_eq!((status, error.as_str()), (wanted, words));
    }
}

#[tokio::test]
async fn a_flush_is_of_one_name_or_of_all() {
    let served = served().await;
    let flush = async |name: Option<&str>| {
        let request = FlushRequest { name: name.map(str::to_owned) };
        post::<Flushed>(served.address, "/api/v1/cache/flush", &request, Duration::from_secs(5)).await
    };
    assert_eq!(flush(None).await.unwrap().flushed, 1000);
    assert_eq!(flush(Some("six.ch")).await.unwrap().flushed, 6);
    let Err(ClientError::Refused { status, error }) = flush(Some("bad..name")).await else { panic!("flushed") };
    assert_eq!((status, error.as_str()), (400, "`bad..name` is not a name that can be in the cache"));
    assert_eq!(serde_json::to_string(&FlushRequest::default()).unwrap(), "{}");
}

/// What a page of another site can make a browser send without asking first.
#[tokio::test]
async fn no_page_elsewhere_can_flush() {
    let served = served().await;
    for (headers, wanted) in [
        ("Host: localhost\nContent-Type: text/plain", 415),
        ("Host: localhost\nContent-Type: application/x-www-form-urlencoded", 415),
        ("Host: localhost\nContent-Type: text/plain; application/json", 415),
        ("Host: localhost\nContent-Type: application/jsonp", 415),
        ("Host: localhost", 415),
        ("Host: localhost\nOrigin: http://evil.example\nContent-Type: application/json", 403),
        ("Host: evil.example\nContent-Type: application/json", 403),
        ("Host: localhost\nContent-Type: Application/JSON; charset=utf-8", 200),
    ] {
        let head =
            format!("POST /api/v1/cache/flush HTTP/1.1\n{headers}\nConnection: close\nContent-Length: 2\n\n{{}}");
        let (status, body) = raw(served.address, &head).await;
        assert_eq!(status, wanted, "{headers}: {body}");
    }
}

#[tokio::test]
async fn requests_by_another_name_are_refused() {
    let served = served().await;
    for headers in [
        "Host: evil.example",
        "Host: localhost.evil.example",
        "Host: 127.0.0.1.evil.example:80",
        "Host: 192.168.1.1:9180",
        "Host: [::1]evil",
        "Host: localhost\nHost: evil.example",
        "Host: localhost\nOrigin: http://evil.example",
        "Host: localhost\nOrigin: http://localhost:80",
        "Host: localhost\nOrigin: null",
        "X-No-Host: 1",
    ] {
        let (status, body) =
            raw(served.address, &format!("GET /api/v1/upstreams HTTP/1.1\n{headers}\nConnection: close\n\n")).await;
        assert!(matches!(status, 400 | 403), "{headers}: {status}");
        assert!(!body.contains("quad9"), "{headers}: {body}");
    }
    for headers in
        ["Host: LOCALHOST:1", "Host: 127.0.0.1", "Host: [::1]:9180", "Host: localhost:80\nOrigin: http://LOCALHOST:80"]
    {
        let (status, _) = raw(served.address, &format!("GET /livez HTTP/1.1\n{headers}\nConnection: close\n\n")).await;
        assert_eq!(status, 200, "{headers}");
    }
}

#[tokio::test]
async fn wrong_methods_types_and_bodies_are_refused() {
    let served = served().await;
    let request = |line: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "{line} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Type: {kind}\nContent-Length: {length}\n\n{body}"
        )
    };
    let json = "application/json";
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(BODY_MAX));
    for (line, kind, body, wanted) in [
        ("GET /api/v1/query", json, "", 405),
        ("POST /api/v1/pools", json, "{}", 405),
        ("GET /nothing", json, "", 404),
        ("POST /api/v1/query", "text/plain", "{\"name\":\"a\",\"qtype\":\"A\"}", 415),
        ("GET /api/v1/cache/flush", json, "{}", 405),
        ("POST /api/v1/cache", json, "{}", 405),
        ("POST /api/v1/cache/flush", json, "", 400),
        ("POST /api/v1/cache/flush", json, "[]", 400),
        ("POST /api/v1/cache/flush", json, "{\"nmae\":\"a.test\"}", 400),
        ("POST /api/v1/cache/flush", json, "{\"name\":7}", 400),
        ("POST /api/v1/query", json, "{", 400),
        ("POST /api/v1/query", json, "{\"name\":\"a\",\"qtype\":\"A\",\"more\":1}", 400),
        ("POST /api/v1/query", json, long.as_str(), 413),
    ] {
        let (status, said) = raw(served.address, &request(line, kind, body)).await;
        assert_eq!(status, wanted, "{line} {kind}");
        assert!(serde_json::from_str::<ErrorBody>(&said).is_ok_and(|body| !body.error.is_empty()), "{line}: {said}");
    }
}

/// What the framework refuses before any handler of ours is asked.
#[tokio::test]
async fn every_error_of_the_api_is_json() {
    let served = served().await;
    let post = "POST /api/v1/query HTTP/1.1\nHost: localhost\nConnection: close\nContent-Type: application/json";
    for (request, wanted, word) in [
        ("GET /api/v1/pools/%FF HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(), 400, "name"),
        ("GET /api/v1/nothing HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(), 404, "openapi.json"),
        ("DELETE /api/v1/status HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(), 405, "Allow"),
        (format!("{post}\nContent-Length: 9000\n\n{}", "a".repeat(9000)), 413, "8 KiB"),
        (format!("{post}\nContent-Length: 1\n\n\u{1}"), 400, "not a query"),
    ] {
        let (status, said) = raw(served.address, &request).await;
        let error = serde_json::from_str::<ErrorBody>(&said).map(|body| body.error).unwrap_or_default();
        assert!(status == wanted && error.contains(word), "{status} {said}");
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(format!("{post}\nContent-Length: 2\n\n").replace('\n', "\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"\xff\xfe").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("content-type: application/json"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(serde_json::from_str::<ErrorBody>(body).unwrap().error.contains("UTF-8"), "{answer}");
}

#[tokio::test]
async fn queries_at_once_are_bounded() {
    let served = served().await;
    let request = QueryRequest { name: "slow.test".into(), qtype: "A".into(), explain: false };
    let wait = Duration::from_secs(30);
    let mut slow = JoinSet::new();
    for _ in 0..=QUERIES_MAX {
        let request = request.clone();
        slow.spawn(async move { post::<QueryReport>(served.address, "/api/v1/query", &request, wait).await });
    }
    // All but one wait for ever; the one too many is refused at once, whichever it is.
    let first = slow.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Err(ClientError::Refused { status: 429, .. })), "{first:?}");
    slow.abort_all();
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_closes_the_listener() {
    let served = served().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    let livez = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.write_all(livez.as_bytes()).await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    served.stop.send(()).unwrap();
    served.task.await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = get::<Vec<PoolRow>>(closed, "/api/v1/pools").await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    let words = error.to_string();
    assert!(words.contains(&closed.to_string()) && words.contains("keepwarm run"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = get::<Stats>(address, "/api/v1/stats").await.unwrap_err();
    assert!(error.to_string().contains("no answer within 2s"), "{error}");
}

#[tokio::test]
async fn another_server_is_not_taken_for_keepwarm() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        for answer in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
            "+OK\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..3 {
        let error = get::<Stats>(address, "/api/v1/stats").await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }
    other.await.unwrap();
}
