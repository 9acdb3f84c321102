//! What is said and done of tunnels, with tunnels made up.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::tunnel::*;

/// Has one upstream, and a file for browsers if `pac` is one. Counts flushes.
#[derive(Default)]
pub(super) struct FakeTunnels {
    pac: Option<String>,
    flushes: Arc<AtomicU64>,
}

impl TunnelSnapshots for FakeTunnels {
    fn status(&self) -> TunnelStatus {
        let upstream = TunnelUpstreamRow {
            name: "exit".into(),
            breaker: BreakerState::Open,
            retry_in: Some(Duration::from_millis(1500)),
            spares: Some(SparesRow { target: 8, age_limit: Duration::from_secs(12), ..SparesRow::default() }),
            ..TunnelUpstreamRow::default()
        };
        let failed = [("refused".to_owned(), 3)].into();
        TunnelStatus { live: 2, hit_ratio: Some(0.75), failed, upstreams: vec![upstream], ..TunnelStatus::default() }
    }

    fn destinations(&self) -> Vec<DestinationRow> {
        vec![DestinationRow { destination: "a.test:443".into(), live: 2, max: 10, waiting: 1, total: 7 }]
    }

    fn tunnels(&self) -> Vec<LiveRow> {
        vec![LiveRow { client: "127.0.0.1:1".into(), spare: Some(Duration::from_millis(250)), ..LiveRow::default() }]
    }

    fn flush(&self) -> u64 {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        8
    }

    fn pac(&self) -> Option<String> {
        self.pac.clone()
    }
}

async fn served_with_tunnels(pac: Option<&str>) -> (Served, Arc<AtomicU64>) {
    let tunnels = FakeTunnels { pac: pac.map(str::to_owned), ..FakeTunnels::default() };
    let flushes = tunnels.flushes.clone();
    (served_by(Fake { tunnels: Some(tunnels), ..Fake::default() }).await, flushes)
}

/// The whole answer, head included.
async fn whole(address: std::net::SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_is_shown_of_tunnels_comes_through_unchanged() {
    let (served, _) = served_with_tunnels(None).await;
    let fake = FakeTunnels::default();
    assert_eq!(get::<TunnelStatus>(served.address, "/api/v1/tunnel").await.unwrap(), fake.status());
    let rows: Vec<DestinationRow> = get(served.address, "/api/v1/tunnel/destinations").await.unwrap();
    assert_eq!(rows, fake.destinations());
    let rows: Vec<LiveRow> = get(served.address, "/api/v1/tunnel/tunnels").await.unwrap();
    assert_eq!(rows, fake.tunnels());
    let json = serde_json::to_value(fake.status()).unwrap();
    let upstream = &json["upstreams"][0];
    assert_eq!((&upstream["retry_in"], &upstream["breaker"]), (&1.5.into(), &"open".into()));
    assert_eq!((&upstream["spares"]["age_limit"], &upstream["ready"]["p50"]), (&12.0.into(), &Value::Null));
}

#[tokio::test]
async fn without_tunnels_it_is_said_so() {
    let served = served().await;
    for path in ["", "/destinations", "/tunnels"] {
        let asked = get::<Value>(served.address, &format!("/api/v1/tunnel{path}")).await;
        let Err(ClientError::Refused { status, error }) = asked else { panic!("{path}: {asked:?}") };
        assert_eq!(
            (status, error.as_str()),
            (404, "the daemon's config has no [tunnel]: add it and restart the daemon")
        );
    }
    let (path, request) = ("/api/v1/tunnel/flush", TunnelFlushRequest::default());
    let flush = post::<Flushed>(served.address, path, &request, Duration::from_secs(5));
    assert!(matches!(flush.await, Err(ClientError::Refused { status: 404, .. })));
    let answer = whole(served.address, "/proxy.pac", "localhost").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("has no [tunnel]"), "{answer}");
}

#[tokio::test]
async fn a_browser_gets_its_file_with_its_type() {
    let (served, _) = served_with_tunnels(Some("function FindProxyForURL() {}")).await;
    for path in ["/proxy.pac", "/wpad.dat"] {
        let answer = whole(served.address, path, "127.0.0.1").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(head.contains(&format!("content-type: {PAC_TYPE}")), "{answer}");
        assert_eq!(body, "function FindProxyForURL() {}");
    }
    let (served, _) = served_with_tunnels(None).await;
    let answer = whole(served.address, "/proxy.pac", "127.0.0.1").await;
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("no listener of [tunnel] is for a browser"),
        "{answer}"
    );
}

/// What a page of another site can make a browser send without asking first.
#[tokio::test]
async fn no_page_elsewhere_can_flush_spares_or_read_where_tunnels_lead() {
    let (served, flushes) = served_with_tunnels(Some("file")).await;
    for (headers, body, wanted) in [
        ("Host: localhost\nContent-Type: text/plain", "{}", 415),
        ("Host: localhost", "{}", 415),
        ("Host: localhost\nOrigin: http://evil.example\nContent-Type: application/json", "{}", 403),
        ("Host: evil.example\nContent-Type: application/json", "{}", 403),
        ("Host: localhost\nContent-Type: application/json", "[]", 400),
        ("Host: localhost\nContent-Type: application/json", "{\"name\":1}", 400),
        ("Host: localhost\nContent-Type: application/json", "{}", 200),
    ] {
        let length = body.len();
        let head = format!(
            "POST /api/v1/tunnel/flush HTTP/1.1\n{headers}\nConnection: close\nContent-Length: {length}\n\n{body}"
        );
        let (status, said) = raw(served.address, &head).await;
        assert_eq!(status, wanted, "{headers} {body}: {said}");
    }
    assert_eq!(flushes.load(Ordering::Relaxed), 1);
    let get = "GET /api/v1/tunnel/flush HTTP/1.1\nHost: localhost\nConnection: close\n\n";
    assert_eq!(raw(served.address, get).await.0, 405);
    for path in ["/proxy.pac", "/api/v1/tunnel/tunnels"] {
        let answer = whole(served.address, path, "wpad.example").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}
