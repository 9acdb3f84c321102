//! What is said and done of hot HTTPS, with a client made up.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::*;
use crate::{client::post_lines, https::*};

/// Knows one origin, `a.test`. Counts warm-ups whose listener went away.
#[derive(Default)]
pub(super) struct FakeHttps {
    given_up: Arc<AtomicUsize>,
}

fn known(origin: &str) -> Result<(), HttpsError> {
    match origin {
        "a.test" => Ok(()),
        _ => Err(HttpsError::Unknown(format!("{origin} is not an origin that is known"))),
    }
}

fn address() -> AddressRow {
    AddressRow {
        ip: IpAddr::from([192, 0, 2, 1]),
        state: AddressState::Quarantined,
        resting: None,
        quarantined: Some(Duration::from_millis(1500)),
        banned: false,
        source: "dns".into(),
        successes: 3,
        failures: 1,
        refusals: 0,
        probes: 1,
        in_flight: 0,
        latency: Some(Duration::from_millis(20)),
        last_status: None,
        last_error: Some("refused".into()),
    }
}

fn step(open: usize, done: bool) -> WarmRow {
    WarmRow { wanted: 2, open, addresses: 1, done, ..WarmRow::default() }
}

impl HttpsSnapshots for FakeHttps {
    fn status(&self) -> HttpsStatus {
        let row = OriginRow { origin: "a.test".into(), open: 2, configured: true, ..OriginRow::default() };
        HttpsStatus { origins: vec![row], gateway: Some(GatewayRow { clients: 1, ..GatewayRow::default() }) }
    }

    fn pools(&self) -> Vec<HttpsPoolRow> {
        let dial_errors = [("refused".to_owned(), 3)].into();
        vec![HttpsPoolRow { origin: "a.test".into(), open: 2, max: 10, dial_errors, ..HttpsPoolRow::default() }]
    }

    fn addresses(&self, origin: &str) -> Result<Vec<AddressRow>, HttpsError> {
        known(origin).map(|()| vec![address()])
    }

    fn warm(&self, request: &WarmRequest) -> Result<mpsc::Receiver<WarmRow>, HttpsError> {
        known(&request.origin)?;
        let (steps, heard) = mpsc::channel(4);
        let (given_up, wanted) = (self.given_up.clone(), request.connections);
        tokio::spawn(async move {
            for row in [step(0, false), step(1, false)] {
                steps.send(row).await.unwrap();
            }
            match wanted {
                2 => steps.send(step(2, true)).await.unwrap(),
                _ => {
                    steps.closed().await;
                    given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(heard)
    }

    fn ban(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError> {
        known(origin).map(|()| u64::from(net.prefix_len()))
    }

    fn allow(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError> {
        known(origin).map(|()| 100 + u64::from(net.prefix_len()))
    }
}

async fn served_with_https() -> (Served, Arc<AtomicUsize>) {
    let https = FakeHttps::default();
    let given_up = https.given_up.clone();
    (served_by(Fake { https: Some(https), ..Fake::default() }).await, given_up)
}

#[tokio::test]
async fn what_is_shown_of_https_comes_through_unchanged() {
    let (served, _) = served_with_https().await;
    let status: HttpsStatus = get(served.address, "/api/v1/https").await.unwrap();
    assert_eq!(status, FakeHttps::default().status());
    let pools: Vec<HttpsPoolRow> = get(served.address, "/api/v1/https/pools").await.unwrap();
    assert_eq!(pools, FakeHttps::default().pools());
    let rows: Vec<AddressRow> = get(served.address, "/api/v1/https/addresses?origin=a.test").await.unwrap();
    assert_eq!(rows, [address()]);
    let row = serde_json::to_value(&rows[0]).unwrap();
    assert_eq!(
        (&row["quarantined"], &row["state"], &row["resting"]),
        (&1.5.into(), &"quarantined".into(), &Value::Null)
    );
}

#[tokio::test]
async fn without_https_it_is_said_so() {
    let served = served().await;
    for path in ["", "/pools", "/addresses?origin=a.test"] {
        let asked = get::<Value>(served.address, &format!("/api/v1/https{path}")).await;
        let Err(ClientError::Refused { status, error }) = asked else { panic!("{path}: {asked:?}") };
        assert_eq!(
            (status, error.as_str()),
            (404, "the daemon's config has no [https]: add it and restart the daemon")
        );
    }
}

#[tokio::test]
async fn an_origin_must_be_named_and_known() {
    let (served, _) = served_with_https().await;
    for (path, wanted, words) in [
        ("/api/v1/https/addresses", 400, "?origin=HOST"),
        ("/api/v1/https/addresses?orgin=a.test", 400, "?origin=HOST"),
        ("/api/v1/https/addresses?origin=b.test", 404, "b.test is not an origin"),
        ("/api/v1/https/addresses?origin=%5B::1%5D", 404, "[::1] is not an origin"),
    ] {
        let asked = get::<Vec<AddressRow>>(served.address, path).await;
        let Err(ClientError::Refused { status, error }) = asked else { panic!("{path}: {asked:?}") };
        assert!(status == wanted && error.contains(words), "{path}: {status} {error}");
    }
}

#[tokio::test]
async fn bans_are_of_networks_and_told_by_what_they_contain() {
    let (served, _) = served_with_https().await;
    let change = async |what: &str, origin: &str, net: &str| {
        let request = AccessRequest { origin: origin.into(), net: net.into() };
        let path = format!("/api/v1/https/{what}");
        post::<AccessChanged>(served.address, &path, &request, Duration::from_secs(5)).await
    };
    assert_eq!(change("ban", "a.test", "192.0.2.0/24").await.unwrap().addresses, 24);
    assert_eq!(change("allow", "a.test", "192.0.2.1").await.unwrap().addresses, 132);
    for (origin, net, wanted, words) in [
        ("b.test", "192.0.2.1", 404, "not an origin"),
        ("a.test", "192.0.2.1/24", 400, "write 192.0.2.0/24"),
        ("a.test", "", 400, "such as"),
        ("a.test", "a.test", 400, "such as"),
    ] {
        let asked = change("ban", origin, net).await;
        let Err(ClientError::Refused { status, error }) = asked else { panic!("{net}: {asked:?}") };
        assert!(status == wanted && error.contains(words), "{net}: {status} {error}");
    }
}

#[tokio::test]
async fn a_warm_up_is_told_step_by_step() {
    let (served, _) = served_with_https().await;
    let warm = async |origin: &str, connections| {
        let (request, mut heard) = (WarmRequest { origin: origin.into(), connections }, Vec::new());
        let wait = Duration::from_secs(5);
        let told =
            post_lines(served.address, "/api/v1/https/warm", &request, wait, |row: WarmRow| heard.push(row)).await;
        told.map(|()| heard)
    };
    assert_eq!(warm("a.test", 2).await.unwrap(), [step(0, false), step(1, false), step(2, true)]);
    let asked = warm("b.test", 2).await;
    assert!(matches!(asked, Err(ClientError::Refused { status: 404, .. })), "{asked:?}");
}

#[tokio::test]
async fn a_listener_that_goes_away_ends_the_warm_up() {
    let (served, given_up) = served_with_https().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let body = "{\"origin\":\"a.test\",\"connections\":3}";
    let head = format!(
        "POST /api/v1/https/warm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("\"open\":1") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
    drop(stream);
    while given_up.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}

/// What a page of another site can make a browser send without asking first.
#[tokio::test]
async fn no_page_elsewhere_can_ban_allow_or_warm() {
    let (served, _) = served_with_https().await;
    for (path, body) in [
        ("ban", "{\"origin\":\"a.test\",\"net\":\"0.0.0.0/0\"}"),
        ("allow", "{\"origin\":\"a.test\",\"net\":\"0.0.0.0/0\"}"),
        ("warm", "{\"origin\":\"a.test\",\"connections\":2}"),
    ] {
        for (headers, wanted) in [
            ("Host: localhost\nContent-Type: text/plain", 415),
            ("Host: localhost", 415),
            ("Host: localhost\nOrigin: http://evil.example\nContent-Type: application/json", 403),
            ("Host: evil.example\nContent-Type: application/json", 403),
            ("Host: localhost\nContent-Type: application/json", 200),
        ] {
            let length = body.len();
            let head = format!(
                "POST /api/v1/https/{path} HTTP/1.1\n{headers}\nConnection: close\nContent-Length: {length}\n\n{body}"
            );
            let (status, said) = raw(served.address, &head).await;
            assert_eq!(status, wanted, "{path} {headers}: {said}");
        }
        let (status, _) =
            raw(served.address, &format!("GET /api/v1/https/{path} HTTP/1.1\nHost: localhost\nConnection: close\n\n"))
                .await;
        assert_eq!(status, 405, "{path}");
    }
}
