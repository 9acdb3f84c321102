use super::*;

fn latency(p50: u64) -> Option<Latency> {
    Latency::of((1..=100).map(|share| Duration::from_micros(p50 * (50 + share) / 100)).collect())
}

fn run(kind: Kind, p50: u64) -> RunResult {
    let is_spare = kind == Kind::Spare;
    RunResult {
        kind,
        tunnels: 100,
        left_out: 0,
        failed: 0,
        first_failure: None,
        hits: if is_spare { 99 } else { 0 },
        misses: if is_spare { 1 } else { 100 },
        retries: 0,
        handshakes: 100,
        ready: latency(p50),
        first_byte: None,
    }
}

fn report(runs: Vec<RunResult>) -> Report {
    Report {
        version: "1",
        upstreams: vec!["socks5://exit.example:1080".into()],
        target: "echo.lab:7".into(),
        rate: 20.0,
        lab: None,
        machine: Machine { os: "linux", arch: "x86_64", cores: 2, build: "release" },
        runs,
    }
}

#[test]
fn fresh_and_spare_are_told_side_by_side() {
    let mut spare = run(Kind::Spare, 51_000);
    spare.first_byte = latency(101_000);
    let mut report = report(vec![run(Kind::Fresh, 202_000), spare]);
    report.lab = Some(LabRow {
        round_trip: Duration::from_millis(50),
        connections: 211,
        greeted: 211,
        connects: 202,
        foreign_bytes: 0,
    });
    assert!(report.ok());
    let text = report.text();
    assert!(text.lines().all(|line| line.chars().count() <= 160), "{text}");
    insta::assert_snapshot!(text);
    report.lab.as_mut().unwrap().foreign_bytes = 1;
    assert!(!report.ok(), "a byte crossed");
}

#[test]
fn failures_and_what_was_left_out_are_noted() {
    let failed = RunResult {
        failed: 10,
        first_failure: Some("tunnel to echo.lab:7: connection refused".into()),
        left_out: 90,
        ready: None,
        ..run(Kind::Spare, 1)
    };
    let report = report(vec![run(Kind::Fresh, 202_000), failed]);
    assert!(!report.ok());
    let text = report.text();
    for part in ["spare: 10 failed, the first: tunnel to echo.lab:7: connection refused", "90 tunnels were left out"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("times as long"), "{text}");
}

#[test]
fn json_says_seconds() {
    let json = serde_json::to_value(report(vec![run(Kind::Fresh, 202_000)])).unwrap();
    assert_eq!(json["runs"][0]["ready"]["max"], 0.303);
    assert_eq!((&json["runs"][0]["kind"], &json["runs"][0]["first_byte"]), (&"fresh".into(), &serde_json::Value::Null));
}
