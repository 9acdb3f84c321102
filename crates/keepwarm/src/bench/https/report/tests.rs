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
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    insta::assert_snapshot!(text, @r"
    GET https://tiles.test/, profile plain, 1 at a time; linux x86_64, 2 cores, release build

    RUN      REQUESTS  FAILED     P50     P90     P99      MAX  REQ/S  CPU/10K  FULL  RESUMED  HANDSHAKES/REQ
    cold          200       0  2.5 ms  3.8 ms  7.5 ms  22.5 ms    400   12.5 s   200        0           1.000
    resumed       200       0  1.5 ms  2.2 ms  4.5 ms  13.5 ms    667   7.50 s     0      200           1.000
    hot         10000       0  100 us  150 us  300 us   900 us  10000   500 ms     0        0           0.000

    Over warm connections half of the requests took up to 100 us, over new ones 2.5 ms: 25.0 times as much.
    10,000 requests cost 500 ms of CPU, and 12.5 s over new connections.
    ");
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
    insta::assert_snapshot!(report.text(), @r"
    GET https://tiles.test/, profile plain, 1 at a time; linux x86_64, 2 cores, release build

    RUN      REQUESTS  FAILED     P50     P90     P99      MAX  REQ/S  CPU/10K  FULL  RESUMED  HANDSHAKES/REQ
    resumed       190      10  1.5 ms  2.2 ms  4.5 ms  13.5 ms    667   7.50 s     3      177           1.000
    hot         10000       0       -       -       -        -  10000        -     0        0           0.000

    note: resumed: 10 failed, the first: connect to 127.0.0.1:1: connection refused
    note: resumed: ended early, 10 requests were not sent
    note: resumed: answers 1 with 429
    note: resumed: 3 of 180 handshakes were full, for want of a ticket that the server takes
    note: hot: 2 answers over new connections
    ");
}

#[test]
fn percentiles_are_answers_by_nearest_rank() {
    let millis = Duration::from_millis;
    let latency = Latency::of((1..=200).rev().map(millis).collect()).unwrap();
    assert_eq!(latency, Latency { p50: millis(100), p90: millis(180), p99: millis(198), max: millis(200) });
    assert_eq!(Latency::of(Vec::new()), None);
}
