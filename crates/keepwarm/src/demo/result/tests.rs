use super::*;

/// A phase as an upstream with 20 ms delay would give it; `busy` spreads its times.
fn phase(phase: Phase, queries: u64, seen: Seen, busy: u32, cpu_millis: u64) -> PhaseResult {
    let millis = |millis: u32| Duration::from_micros(u64::from(millis) * 1_000 + 400);
    let latency =
        Latency { p50: millis(20 * busy), p95: millis(21 * busy), p99: millis(24 * busy), max: millis(31 * busy) };
    PhaseResult {
        phase,
        clients: 1_000,
        queries,
        answered: queries,
        wrong: 0,
        failed: 0,
        unanswered: 0,
        first_wrong: None,
        took: latency.max,
        lag_max: Duration::from_micros(900),
        latency: Some(latency),
        warm: Some(latency),
        seen,
        open_max_source: Source::Upstreams,
        cpu: Some(Duration::from_millis(cpu_millis)),
    }
}

/// A run with so many connections in the burst and in the paced load.
pub(in super::super) fn run(transport: Transport, reuse: bool, connections: (u64, u64), busy: u32) -> RunResult {
    let seen = |queries, sockets: u64| {
        let is_tls = matches!(transport, Transport::Tls | Transport::Https);
        let connects = if transport == Transport::Udp { 0 } else { sockets };
        let full = if is_tls { sockets.min(3) } else { 0 };
        Seen {
            queries,
            sockets,
            sockets_per_upstream: sockets.div_ceil(3),
            source_ports: sockets,
            tcp_connects: connects,
            handshakes_full: full,
            handshakes_resumed: if is_tls { sockets - full } else { 0 },
            open_max: Some(sockets.div_ceil(3)),
            ..Seen::default()
        }
    };
    let burst = phase(Phase::Burst, 1_000, seen(3_000, connections.0), 10 * busy, u64::from(busy) * 40);
    let paced = phase(Phase::Paced, 8_000, seen(8_000, connections.1), busy, u64::from(busy) * 300);
    let mut run = RunResult::new(transport, reuse, None, burst, paced);
    if transport == Transport::Udp {
        (run.burst.open_max_source, run.paced.open_max_source) = (Source::Server, Source::Server);
    }
    run
}

/// A whole demo, as it might end.
pub(in super::super) fn demo() -> DemoResult {
    let mut runs = Vec::new();
    for transport in super::super::plan::TRANSPORTS {
        runs.push(run(transport, false, (3_000, 8_000), 3));
        runs.push(run(transport, true, (24, 3), 1));
    }
    runs[0].note = Some("only 974 of 1000 clients: a process may have 4096 files open here".into());
    let checks: Vec<Check> = runs.iter().flat_map(RunResult::checks).collect();
    DemoResult {
        version: "0.1.0",
        ok: checks.iter().all(|check| check.ok),
        quick: false,
        seed: 1,
        machine: Machine { os: "linux", arch: "x86_64", cores: 2, build: "release", open_files: Some(20_000) },
        load: Load {
            upstreams: 3,
            delay: DELAY,
            clients: 1_000,
            paced_rate: 2_000,
            paced: Duration::from_secs(4),
            warm_after: Duration::from_secs(1),
        },
        direct: runs[1].paced.warm,
        runs,
        checks,
        took: Duration::from_secs(47),
    }
}

fn failed(run: &RunResult) -> Vec<CheckName> {
    run.checks().into_iter().filter(|check| !check.ok).map(|check| check.name).collect()
}

#[test]
fn a_good_pooled_run_passes_and_totals_are_sums() {
    let run = run(Transport::Tls, true, (24, 3), 1);
    assert_eq!(failed(&run), []);
    assert_eq!(run.checks().len(), 5);
    let total = &run.total;
    assert_eq!((total.queries, total.seen.queries, total.seen.handshakes()), (9_000, 11_000, 27));
    assert_eq!((total.seen.open_max, total.cpu), (Some(8), Some(Duration::from_millis(340))));
}

#[test]
fn each_promise_can_be_broken_on_its_own() {
    let good = || run(Transport::Https, true, (24, 3), 1);
    let mut bad = good();
    bad.total.wrong = 1;
    assert_eq!(failed(&bad), [CheckName::Wrong]);
    bad = good();
    bad.total.seen.open_max = Some(11);
    assert_eq!(failed(&bad), [CheckName::Connections]);
    bad.total.seen.open_max = None;
    assert_eq!(failed(&bad), [CheckName::Connections]);
    bad = good();
    bad.total.answered_percent = 99.89;
    assert_eq!(failed(&bad), [CheckName::Answered]);
    bad = good();
    bad.total.seen.handshakes_full = 20;
    assert_eq!(failed(&bad), [CheckName::Handshakes]);
    for micros in [17_900, 22_100] {
        bad = good();
        bad.paced.warm.as_mut().unwrap().p50 = Duration::from_micros(micros);
        assert_eq!(failed(&bad), [CheckName::WarmP50]);
    }
    bad.paced.warm = None;
    assert_eq!(failed(&bad), [CheckName::WarmP50]);
}

#[test]
fn sampled_udp_sockets_prove_nothing() {
    let mut udp = run(Transport::Udp, true, (24, 3), 1);
    udp.total.seen.open_max = Some(1);
    assert_eq!(failed(&udp), []);
    udp.total.seen.sockets_per_upstream = 11;
    assert_eq!(failed(&udp), [CheckName::Connections]);
}

#[test]
fn reuse_off_is_only_held_to_right_answers() {
    let mut naive = run(Transport::Tls, false, (3_000, 8_000), 30);
    assert_eq!(failed(&naive), []);
    naive.total.wrong = 2;
    assert_eq!(failed(&naive), [CheckName::Wrong]);
}

#[test]
fn a_small_load_may_open_its_pools() {
    assert_eq!(handshakes_max(600, 10), 30);
    assert_eq!(handshakes_max(9_000, 10), 36);
}

#[test]
fn json_has_seconds_and_nulls() {
    let mut demo = demo();
    demo.runs[0].total.seen.open_max = None;
    let json = serde_json::to_value(&demo).unwrap();
    assert_eq!(json["runs"][3]["paced"]["warm"]["p50"], 0.0204);
    assert_eq!(json["runs"][3]["transport"], "tcp");
    assert_eq!(json["runs"][3]["total"]["tcp_connects"], 27);
    assert_eq!(json["runs"][0]["total"]["open_max"], serde_json::Value::Null);
    assert_eq!(json["runs"][0]["burst"].get("phase"), None);
    assert_eq!(json["load"]["delay"], 0.02);
}
