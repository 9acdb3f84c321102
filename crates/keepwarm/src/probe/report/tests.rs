use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn row(kind: Kind, total: u64, reused: bool, resumed: bool) -> Row {
    let is_new = !reused;
    Row {
        round: 1,
        kind,
        answer: Some(AnswerRow {
            status: 200,
            address: "192.0.2.1:443".parse().unwrap(),
            connection: if kind == Kind::Resumed { 2 } else { 1 },
            reused,
            resumed,
            protocol: "h2",
            tls: "1.3",
            bytes: 0,
        }),
        phases: Phases {
            dns: (kind == Kind::Cold).then(|| millis(5)),
            tcp: is_new.then(|| millis(10)),
            tls: is_new.then(|| millis(12)),
            h2: is_new.then(|| millis(9)),
            first_byte: Some(millis(11)),
        },
        total: Some(millis(total)),
        failed: None,
    }
}

fn report(requests: Vec<Row>) -> Report {
    let mut report = Report {
        url: "https://tiles.test/".into(),
        method: "HEAD".into(),
        profile: "plain".into(),
        proxy: None,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        requests,
        notes: Vec::new(),
        saved: None,
        ok: false,
    };
    report.conclude();
    report
}

#[test]
fn a_report_tells_each_request_and_what_is_saved() {
    let rows = vec![
        row(Kind::Cold, 38, false, false),
        row(Kind::Reused, 11, true, false),
        row(Kind::Resumed, 30, false, true),
    ];
    let text = report(rows).text();
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    insta::assert_snapshot!(text, @r"
    HEAD https://tiles.test/
    h2 over TLS 1.3 to 192.0.2.1:443, profile plain

    REQUEST     DNS      TCP      TLS      H2  FIRST BYTE    TOTAL  STATUS  CONNECTION
    cold     5.0 ms  10.0 ms  12.0 ms  9.0 ms     11.0 ms  38.0 ms     200  #1 new, full handshake
    reused        -        -        -       -     11.0 ms  11.0 ms     200  #1 reused
    resumed       -  10.0 ms  12.0 ms  9.0 ms     11.0 ms  30.0 ms     200  #2 new, resumed

    Over a warm connection a request took 11.0 ms instead of 38.0 ms: keepwarm saves 27.0 ms of each, 71 %.
    ");
}

#[test]
fn what_went_otherwise_is_told_and_never_counted_as_saved() {
    let failed = Failed {
        phase: "tls",
        kind: "timeout",
        error: "connect to 192.0.2.1:443: tls handshake timed out after 5s".into(),
    };
    let rows = vec![
        row(Kind::Cold, 38, false, false),
        row(Kind::Reused, 36, false, true),
        row(Kind::Resumed, 30, false, false),
        Row::failed(2, Kind::Cold, None, failed),
    ];
    let report = report(rows);
    assert!(!report.ok && report.saved.is_none());
    insta::assert_snapshot!(report.text(), @r"
    HEAD https://tiles.test/
    h2 over TLS 1.3 to 192.0.2.1:443, profile plain

    REQUEST     DNS      TCP      TLS      H2  FIRST BYTE    TOTAL  STATUS  CONNECTION
    cold     5.0 ms  10.0 ms  12.0 ms  9.0 ms     11.0 ms  38.0 ms     200  #1 new, full handshake
    reused        -  10.0 ms  12.0 ms  9.0 ms     11.0 ms  36.0 ms     200  #1 new, resumed
    resumed       -  10.0 ms  12.0 ms  9.0 ms     11.0 ms  30.0 ms     200  #2 new, full handshake
    cold          -        -        -       -           -        -  failed  -

    failed: connect to 192.0.2.1:443: tls handshake timed out after 5s

    note: the connection could not be used again: the server had ended it, or the answer was too long to read
    note: the session was not resumed: the server gave no ticket, or did not take its own
    ");
}

#[test]
fn medians_are_of_the_rounds_and_nothing_is_less_than_nothing() {
    let rows = |reused: u64| {
        let round = |cold| [row(Kind::Cold, cold, false, false), row(Kind::Reused, reused, true, false)];
        [30, 90, 40].into_iter().flat_map(round).collect()
    };
    let saved = report(rows(10)).saved.unwrap();
    assert_eq!((saved.cold, saved.reused, saved.saved, saved.percent), (millis(40), millis(10), millis(30), 75.0));
    let saved = report(rows(50)).saved.unwrap();
    assert_eq!((saved.saved, saved.percent), (Duration::ZERO, 0.0));
    assert!(saved.sentence().ends_with("nothing is saved here."), "{}", saved.sentence());
}

#[test]
fn json_has_seconds_and_nulls() {
    let value = serde_json::to_value(report(vec![row(Kind::Reused, 11, true, false)])).unwrap();
    let request = &value["requests"][0];
    assert_eq!((&request["kind"], &request["total"]), (&"reused".into(), &0.011.into()));
    assert!(request["phases"]["tls"].is_null() && request["failed"].is_null() && value["saved"].is_null());
    assert_eq!(request["answer"]["status"], 200);
}
