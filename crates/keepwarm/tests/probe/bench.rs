//! `keepwarm bench https`: which connections its runs make, by the origin's own count.

use keepwarm_lab::{OriginFaults, OriginSpec};
use serde_json::Value;

use crate::support::Before;

fn run<'a>(report: &'a Value, kind: &str) -> &'a Value {
    report["runs"].as_array().unwrap().iter().find(|run| run["kind"] == kind).unwrap()
}

/// Requests, failures, full and resumed handshakes, and answers over connections that had served before.
fn counts(report: &Value, kind: &str) -> [u64; 5] {
    let run = run(report, kind);
    ["requests", "failed", "handshakes_full", "handshakes_resumed", "reused"].map(|key| run[key].as_u64().unwrap())
}

#[tokio::test]
async fn each_run_makes_the_handshakes_that_it_is_named_for() {
    let before = Before::new().await;
    let url = before.url("/bytes/1024");
    let report = before.json(&["bench", "https", &url, "--cold", "7", "--requests", "40"], 0).await;
    assert_eq!(counts(&report, "cold"), [7, 0, 7, 0, 0]);
    assert_eq!(counts(&report, "resumed"), [7, 0, 0, 7, 0]);
    assert_eq!(counts(&report, "hot"), [40, 0, 0, 0, 40]);
    for (kind, answers) in [("cold", 7), ("resumed", 7), ("hot", 40)] {
        let run = run(&report, kind);
        assert_eq!((&run["statuses"]["200"], &run["bytes"]), (&answers.into(), &(answers * 1024).into()));
        assert_eq!(run["handshakes_per_request"], if kind == "hot" { 0.0 } else { 1.0 });
        let latency = ["p50", "p90", "p99", "max"].map(|rank| run["latency"][rank].as_f64().unwrap());
        assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
        assert!(run["per_second"].as_f64().unwrap() > 0.0 && run["cpu_per_10000"].as_f64().unwrap() > 0.0);
    }
    // Beside the measured ones: one before all, one for the ticket, and two for the warm connection.
    let total = before.lab.total();
    assert_eq!((total.handshakes_full, total.handshakes_resumed, total.handshakes_failed), (7 + 3, 7, 0));
    assert_eq!(total.paths, [("GET /bytes".to_owned(), 7 + 7 + 40 + 4)].into());
}

#[tokio::test]
async fn several_at_a_time_are_as_cold_and_as_hot() {
    for http in ["http1", "http2"] {
        let before = Before::new().await;
        let sizes = ["--cold", "30", "--requests", "90", "--concurrency", "3", "--http", http];
        let report = before.json(&[&["bench", "https", &before.url("/")], &sizes[..]].concat(), 0).await;
        assert_eq!(counts(&report, "cold"), [30, 0, 30, 0, 0], "{http}");
        assert_eq!(counts(&report, "resumed"), [30, 0, 0, 30, 0], "{http}");
        assert_eq!(counts(&report, "hot")[..2], [90, 0], "{http}");
        // Beside the measured ones: one before all, one a worker for its ticket, and the first warm connection.
        assert_eq!(before.lab.total().handshakes_full, 30 + 1 + 3 + 1, "{http}");
        assert!(before.lab.total().handshakes_resumed >= 30, "{http}");
    }
}

#[tokio::test]
async fn a_run_that_fails_too_often_ends_early() {
    let faults = OriginFaults { refuse_stream_every: Some(2), ..OriginFaults::default() };
    let before = Before::with(OriginSpec { faults, ..OriginSpec::default() }).await;
    let sizes = ["--cold", "3", "--requests", "100"];
    let report = before.json(&[&["bench", "https", &before.url("/")], &sizes[..]].concat(), 1).await;
    assert_eq!(counts(&report, "cold"), [3, 0, 3, 0, 0], "the first stream of each connection is served");
    let hot = run(&report, "hot");
    assert_eq!((&hot["failed"], &hot["first_failure"]["phase"]), (&10.into(), &"http".into()), "{hot}");
    assert_eq!(hot["requests"].as_u64().unwrap() + hot["left_out"].as_u64().unwrap(), 100);
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_once_is_not_measured() {
    let faults = OriginFaults { refuse: true, ..OriginFaults::default() };
    let before = Before::with(OriginSpec { faults, ..OriginSpec::default() }).await;
    let (code, text, errors) = before.run(&["bench", "https", &before.url("/")]).await;
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(errors.starts_with("keepwarm: get https://tiles.test:") && errors.contains("refused"), "{errors}");
}

#[tokio::test]
async fn people_get_a_table_and_a_sentence() {
    let before = Before::new().await;
    let (code, text, errors) =
        before.run(&["bench", "https", &before.url("/"), "--cold", "2", "--requests", "5"]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(text.contains("HANDSHAKES/REQ") && text.contains("profile plain, 1 at a time"), "{text}");
    assert!(text.contains("\nOver warm connections half of the requests took up to "), "{text}");
}
