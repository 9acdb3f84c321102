//! The query log of a running server.

use std::{path::Path, time::Duration};

use keepwarm_dns::{
    config::{CacheSettings, QueryLogPrivacy, QueryLogSettings, Transport},
    server::{Server, StartError},
};
use keepwarm_lab::Faults;
use serde_json::Value;

use crate::support::*;

fn settings(path: &Path, privacy: QueryLogPrivacy) -> QueryLogSettings {
    QueryLogSettings { privacy, file: Some(path.to_owned()), ..QueryLogSettings::default() }
}

/// The lines, once the server has stopped and written all of them.
fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn each_query_is_a_line_that_says_where_its_answer_is_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.cache = CacheSettings::default();
        config.query_log = settings(&path, QueryLogPrivacy::Full);
        config.local.records = vec!["nas.lan. A 192.0.2.1".into(), "www.lan. CNAME target.example.".into()];
    })
    .await;
    for name in ["one.example", "oNe.example", "nas.lan", "wWw.lan"] {
        exchange_udp(bench.address, &query(name, 1)).await.unwrap();
    }
    let mut client = TcpClient::connect(bench.address).await;
    client.send(&query("x.test", 28)).await;
    client.receive().await.unwrap();
    drop(client);
    // What the daemon asks for itself is nobody's query.
    bench.server.query("own.example", 1).await.unwrap();
    bench.stop().await;
    let lines = read(&path);
    let told: Vec<_> = lines
        .iter()
        .map(|line| ["transport", "name", "type", "rcode", "source", "upstream"].map(|name| field(line, name)))
        .collect();
    assert_eq!(
        told,
        [
            ["udp", "one.example.", "A", "NOERROR", "upstream", "lab0"],
            ["udp", "oNe.example.", "A", "NOERROR", "cache", ""],
            ["udp", "nas.lan.", "A", "NOERROR", "local", ""],
            ["udp", "wWw.lan.", "A", "NOERROR", "upstream", "lab0"],
            ["tcp", "x.test.", "AAAA", "NXDOMAIN", "local", ""],
        ]
    );
    assert!(lines.iter().all(|line| field(line, "client") == "127.0.0.1" && line["duration"].as_f64().unwrap() >= 0.0));
}

#[tokio::test]
async fn failures_and_refusals_are_told_with_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (path, refused) = (folder.path().join("queries"), folder.path().join("refused"));
    let bench = Bench::with(Transport::Udp, [Faults { silent: true, ..Faults::default() }], |config| {
        config.query_log = settings(&path, QueryLogPrivacy::Full);
        config.timeout = Duration::from_millis(300);
    })
    .await;
    exchange_udp(bench.address, &query("gone.example", 1)).await.unwrap();
    bench.stop().await;
    let lines = read(&path);
    assert_eq!(["rcode", "source", "error"].map(|name| field(&lines[0], name)), ["SERVFAIL", "error", "timeout"]);
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.query_log = settings(&refused, QueryLogPrivacy::Full);
        config.allow = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    exchange_udp(bench.address, &query("no.example", 1)).await.unwrap();
    bench.stop().await;
    let lines = read(&refused);
    assert_eq!(["rcode", "source", "error"].map(|name| field(&lines[0], name)), ["REFUSED", "error", "refused"]);
}

#[tokio::test]
async fn every_client_that_waited_for_one_flight_has_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    let slow = Faults { delay: Duration::from_millis(200), ..Faults::default() };
    let bench = Bench::with(Transport::Udp, [slow], |config| {
        config.query_log = settings(&path, QueryLogPrivacy::Full);
        config.workers = 1;
    })
    .await;
    let asks = (0..5).map(|_| bench.ask("same.example"));
    for asked in futures_util::future::join_all(asks).await {
        assert_eq!(asked, Ok(()));
    }
    bench.stop().await;
    assert_eq!(read(&path).iter().filter(|line| field(line, "name") == "same.example.").count(), 5);
}

#[tokio::test]
async fn hashed_lines_hold_neither_names_nor_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.query_log = settings(&path, QueryLogPrivacy::Hashed);
    })
    .await;
    for _ in 0..2 {
        assert_eq!(bench.ask("secret.example").await, Ok(()));
    }
    bench.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret") && !text.contains("127.0.0.1"), "{text}");
    assert_eq!(read(&path).len(), 2);
}

#[tokio::test]
async fn nothing_is_written_when_it_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries");
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.query_log = settings(&path, QueryLogPrivacy::Off);
    })
    .await;
    assert_eq!(bench.ask("www.example").await, Ok(()));
    bench.stop().await;
    assert!(!path.exists());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_costs_lines_and_no_answers() {
    let bench = Bench::with(Transport::Udp, [Faults::default()], |config| {
        config.query_log = settings(Path::new("/dev/full"), QueryLogPrivacy::Full);
    })
    .await;
    assert_eq!(storm(bench.address, "full", 200, 8).await, [""; 0]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while bench.server.status().query_log_dropped < 200 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", bench.server.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_server_does_not_start_with_a_query_log_that_cannot_be_written() {
    let config = keepwarm_dns::config::DnsConfig {
        query_log: settings(Path::new("/does/not/exist/queries"), QueryLogPrivacy::Full),
        ..keepwarm_dns::config::DnsConfig::default()
    };
    match Server::start(config) {
        Err(error @ StartError::QueryLog(_)) => assert!(error.to_string().contains("dns.query_log"), "{error}"),
        _ => panic!("it started, or failed for another reason"),
    }
}
