use super::*;

fn run(kind: Kind, requests: u64, p50: u64) -> RunResult {
    let times = |share: u64| Duration::from_micros(p50 * share / 10);
    RunResult {
        kind,
        requests,
        left_out: 0,
        answered: requests,
        failed: 0,
        first_failure: None,
        statuses: [(200, requests)].into(),
        reused: if kind == Kind::Hot { requests } else { 0 },
        handshakes_full: if kind == Kind::Cold { requests } else { 0 },
        handshakes_resumed: if kind == Kind::Resumed { requests } else { 0 },
        handshakes_per_request: if kind == Kind::Hot { 0.0 } else { 1.0 },
        bytes: 1024 * requests,
        took: Duration::from_micros(p50 * requests),
        per_second: 1e6 / p50 as f64,
        latency: Some(Latency { p50: times(10), p90: times(15), p99: times(30), max: times(90) }),
        cpu: Some(Duration::from_micros(p50 * requests / 2)),
        cpu_per_10000: Some(Duration::from_micros(p50 * 5000)),
    }
}

fn report(runs: Vec<RunResult>) -> Report {
    Report {
        version: "1",
        url: "https://tiles.test/".into(),
        method: "GET".into(),
        profile: "plain".into(),
        proxy: None,
        addresses: vec!["127.0.0.1".parse().unwrap()],
        concurrency: 1,
        machine: Machine { os: "linux", arch: "x86_64", cores: 2, build: "release" },
        runs,
    }
}

#[test]
fn a_report_compares_cold_with_hot() {
    let text =
        report(vec![run(Kind::Cold, 200, 2500), run(Kind::Resumed, 200, 1500), run(Kind::Hot, 10_000, 100)]).text();
    assert!(text.lines().take(6).all(|line| line.chars().count() <= 120), "{text}");
    insta::assert_snapshot!(text, @"");
}

#[test]
fn what_went_otherwise_is_told() {
    let failure = Failed { phase: "tcp", kind: "refused", error: "connect to 127.0.0.1:1: connection refused".into() };
    let resumed = RunResult {
        requests: 190,
        left_out: 10,
        failed: 10,
        first_failure: Some(failure),
        answered: 180,
        statuses: [(200, 179), (429, 1)].into(),
        handshakes_full: 3,
        handshakes_resumed: 177,
        ..run(Kind::Resumed, 200, 1500)
    };
    let hot = RunResult { reused: 9998, latency: None, cpu_per_10000: None, ..run(Kind::Hot, 10_000, 100) };
    let report = report(vec![resumed, hot]);
    assert!(!report.ok());
    insta::assert_snapshot!(report.text(), @"");
}

#[test]
fn percentiles_are_answers_by_nearest_rank() {
    let millis = Duration::from_millis;
    let latency = Latency::of((1..=200).rev().map(millis).collect()).unwrap();
    assert_eq!(latency, Latency { p50: millis(100), p90: millis(180), p99: millis(198), max: millis(200) });
    assert_eq!(Latency::of(Vec::new()), None);
}
