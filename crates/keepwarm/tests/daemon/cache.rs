//! The cache as its operator sees and steers it.

use std::time::Duration;

use serde_json::Value;

use crate::support::*;

/// A command that asks this daemon: its exit code, and what it printed.
fn run(daemon: &Daemon, command: &[&str]) -> (Option<i32>, String) {
    let output = keepwarm().args(command).args(["--control", &daemon.control.to_string()]).output().unwrap();
    (output.status.code(), text(&output))
}

/// What a command with `--json` printed.
fn json(daemon: &Daemon, command: &[&str]) -> Value {
    let (code, shown) = run(daemon, &[command, &["--json"]].concat());
    assert_eq!(code, Some(0), "{shown}");
    serde_json::from_str(&shown).expect("json")
}

/// Asks for a name, and whether the upstream was asked for it.
fn reaches_the_upstream(daemon: &Daemon, name: &str) -> bool {
    let before = daemon.lab.counters().tcp.queries;
    let report = json(daemon, &["query", name]);
    assert_eq!(report["rcode"], "NOERROR", "{report}");
    let address = keepwarm_lab::expected_a(name).to_string();
    assert!(report["answers"][0].as_str().unwrap().ends_with(&address), "{report}");
    let asked = daemon.lab.counters().tcp.queries - before;
    assert_eq!(report["cached"], asked == 0, "{report}");
    assert_eq!(report["upstream"].is_null(), asked == 0, "{report}");
    asked > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_flushed_is_asked_for_again_and_the_rest_stays() {
    let daemon = Daemon::start_with_cache("tcp", "prefetch = false").await;
    for name in ["one.example", "two.example", "sub.one.example"] {
        assert!(reaches_the_upstream(&daemon, name), "{name}");
        assert!(!reaches_the_upstream(&daemon, name), "{name}");
    }
    let before = json(&daemon, &["cache"]);
    // The three names and that of the start.
    assert_eq!(before["entries"], 4, "{before}");

    assert_eq!(run(&daemon, &["cache", "flush", "ONE.example."]).1, "flushed 1 answer about ONE.example.\n");
    assert_eq!(json(&daemon, &["cache"])["entries"], 3);
    assert!(!reaches_the_upstream(&daemon, "two.example"));
    assert!(!reaches_the_upstream(&daemon, "sub.one.example"));
    assert!(reaches_the_upstream(&daemon, "one.example"));
    let again = run(&daemon, &["cache", "flush", "never-asked.example"]);
    assert_eq!(again, (Some(0), "nothing to flush: no answer about never-asked.example was in the cache\n".into()));

    let csv = run(&daemon, &["cache", "-o", "csv"]).1;
    assert!(csv.starts_with("size,bytes,entries,") && csv.lines().count() == 2, "{csv}");
    assert_eq!(json(&daemon, &["cache", "flush", "--all"])["flushed"], 4);
    assert_eq!(json(&daemon, &["cache"])["entries"], 0);
    assert!(reaches_the_upstream(&daemon, "two.example"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_counted_and_shown_with_its_limit() {
    let daemon = Daemon::start_with_cache("tcp", "size = \"1MiB\"\nprefetch = false").await;
    let before = json(&daemon, &["cache"]);
    for _ in 0..3 {
        reaches_the_upstream(&daemon, "www.example");
    }
    let after = json(&daemon, &["cache"]);
    let grown = |key: &str| after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
    assert_eq!((grown("hits"), grown("misses"), grown("entries")), (2, 1, 1), "{before} {after}");
    assert_eq!((&after["size"], &after["stale"], &after["prefetches"]), (&(1 << 20).into(), &0.into(), &0.into()));
    assert!((1..=1 << 20).contains(&after["bytes"].as_u64().unwrap()), "{after}");
    assert!(after["hit_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0 && ratio < 1.0), "{after}");
    let (code, shown) = run(&daemon, &["cache"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("HIT RATIO") && shown.contains("1 MiB"), "{shown}");
    let (_, shown) = run(&daemon, &["query", "www.example"]);
    assert!(shown.contains("cache       hit"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_none_is_refused() {
    let daemon = Daemon::start_with_cache("tcp", "").await;
    for name in ["one..example", ""] {
        let (code, shown) = run(&daemon, &["cache", "flush", name]);
        assert_eq!(code, Some(1), "{shown}");
        assert_eq!(shown, format!("keepwarm: `{name}` is not a name that can be in the cache\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_past_its_end_serves_while_the_upstream_fails_and_says_so() {
    let daemon = Daemon::start_with_cache("tcp", "max_ttl = \"1s\"\nprefetch = false").await;
    assert!(reaches_the_upstream(&daemon, "www.example"));
    daemon.lab.update_faults(|faults| faults.rcode = Some(2));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    // The first second it is a plain hit.
    let report = loop {
        let report = json(&daemon, &["query", "www.example"]);
        assert_eq!((&report["rcode"], &report["cached"]), (&"NOERROR".into(), &true.into()), "{report}");
        if report["stale"] == true {
            break report;
        }
        assert!(tokio::time::Instant::now() < deadline, "{report}");
    };
    assert!(report["upstream"].is_null(), "{report}");
    assert!(json(&daemon, &["cache"])["stale"].as_u64().unwrap() >= 1);
    let (_, shown) = run(&daemon, &["query", "www.example"]);
    assert!(shown.contains("cache       stale"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_off_asks_each_time_and_says_that_it_is_off() {
    let daemon = Daemon::start("tcp").await;
    for _ in 0..2 {
        assert!(reaches_the_upstream(&daemon, "www.example"));
    }
    let (code, shown) = run(&daemon, &["cache"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with("the cache is off"), "{shown}");
    assert_eq!(run(&daemon, &["cache", "flush", "--all"]).1, "nothing to flush: the cache was empty\n");
    let status = json(&daemon, &["cache"]);
    assert_eq!((&status["size"], &status["hit_ratio"]), (&0.into(), &Value::Null), "{status}");
}
