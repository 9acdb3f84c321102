use super::*;
use crate::tunnel::{
    load::{Outcome, Percentiles},
    reading::Held,
};

fn reading(row: Row, cpu_s: f64) -> Reading {
    let ready = Percentiles { p50: 50_712.4, p90: 51_900.0, p99: 203_456.0 };
    let bytes = if row.figure() == Figure::Relay { 4_000_000_000 } else { 0 };
    let outcome = Outcome {
        tunnels: 10_000,
        failed: 0,
        error: None,
        wall_s: 5.0,
        ready,
        first: Percentiles { p50: 101_234.0, ..ready },
        soon: 9_950,
        bytes,
    };
    let held =
        [Held { memory: 8 << 20, sockets: 2, threads: 2 }, Held { memory: 108 << 20, sockets: 20_002, threads: 2 }];
    Reading { outcome, cpu_s, held, foreign_cores: 0.01 }
}

fn line(kind: Kind, row: Row, cpu_s: &[f64]) -> Line {
    Line { readings: cpu_s.iter().map(|cpu_s| reading(row, *cpu_s)).collect(), ..Line::new(kind, row) }
}

fn report(tables: Vec<Table>) -> Report {
    let machine = Machine {
        processor: "Some CPU".into(),
        cores: 2,
        kernel: "Linux 1".into(),
        load: "0.10".into(),
        date: "2026-01-01".into(),
    };
    let missed = vec!["dante is skipped: not installed; `apt-get install dante-server`".to_owned()];
    let versions = vec!["keepwarm 0.1.0".to_owned(), "fast-socks5 1.0.0".to_owned()];
    Report { machine, versions, far: "microsocks", is_split: true, missed, reps: 3, is_quick: false, tables }
}

#[test]
fn a_page_shows_goals_ratios_and_the_best_first() {
    let table = |row| Table {
        row,
        quick: false,
        lines: vec![
            line(Kind::FastSocks5, row, &[1.0]),
            line(Kind::Keepwarm, row, &[0.9, 0.8, 1.1]),
            line(Kind::Splice, row, &[0.5]),
        ],
    };
    let tables = vec![
        table(Row::Setup),
        Table {
            lines: vec![line(Kind::FastSocks5, Row::Upstream, &[2.0]), line(Kind::Keepwarm, Row::Upstream, &[3.0])],
            ..table(Row::Upstream)
        },
        Table {
            lines: vec![line(Kind::Keepwarm, Row::Down, &[2.0]), line(Kind::Splice, Row::Down, &[0.8])],
            ..table(Row::Down)
        },
        Table { lines: vec![line(Kind::Keepwarm, Row::Ready20, &[0.1])], ..table(Row::Ready20) },
        Table { lines: vec![line(Kind::Keepwarm, Row::Idle, &[0.1])], ..table(Row::Idle) },
    ];
    insta::assert_snapshot!(report(tables).markdown());
}

#[test]
fn what_cannot_be_trusted_is_said() {
    let mut noisy = reading(Row::Setup, 1.0);
    noisy.foreign_cores = 0.5;
    noisy.outcome.failed = 3;
    noisy.outcome.error = Some("the proxy did not connect".to_owned());
    let noisy = Line { readings: vec![noisy], ..Line::new(Kind::Danted, Row::Setup) };
    let broken = Line { error: Some("the client failed: a|b".to_owned()), ..Line::new(Kind::Keepwarm, Row::Setup) };
    let table = Table { row: Row::Setup, quick: false, lines: vec![broken, noisy] };
    insta::assert_snapshot!(table.markdown());
}
