use keepwarm_https_driver::Outcome;

use super::{super::nginx::Seen, *};

fn reading(cpu_s: f64, kib: u64) -> Reading {
    let outcome = Outcome {
        cpu_s,
        wall_s: 1.0,
        p50_us: 43.4,
        p99_us: 1234.6,
        rss_before: 1 << 20,
        rss: (1 << 20) + 500 * 1024 * kib,
        sent: 1_000,
        version: None,
    };
    let seen = Seen { connections: 1, resumed: 0, protocols: ["HTTP/2.0".to_owned()].into() };
    Reading { outcome, seen, requests: 500, foreign_cores: 0.01 }
}

fn line(kind: Kind, readings: Vec<Reading>) -> Line {
    let peer = Peer { kind, argv: Vec::new(), version: "1.2.3".to_owned() };
    Line { readings, ..Line::new(&peer) }
}

fn report(tables: Vec<Table>) -> Report {
    let machine = Machine {
        processor: "Some CPU".into(),
        cores: 2,
        kernel: "Linux 1".into(),
        load: "0.10".into(),
        date: "2026-01-01".into(),
    };
    let missed = vec!["httpx is skipped: python3 with venv is needed".to_owned()];
    Report { machine, nginx_version: "1.0".into(), is_split: true, missed, reps: 3, is_quick: false, tables }
}

#[test]
fn a_page_shows_goals_ratios_and_the_best_first() {
    let reps = |kib| [0.0075, 0.007, 0.008].map(|cpu| reading(cpu, kib)).to_vec();
    let dear = || vec![reading(0.1, 60)];
    let tables = [Row::Hot, Row::FarCold, Row::ColdTickets, Row::Idle].map(|row| Table {
        row,
        requests: 500,
        lines: vec![line(Kind::Reqwest, dear()), line(Kind::Keepwarm, reps(50))],
    });
    insta::assert_snapshot!(report(tables.into()).markdown());
}

#[test]
fn what_cannot_be_trusted_is_said() {
    let mut noisy = reading(0.1, 60);
    noisy.foreign_cores = 0.5;
    noisy.seen.protocols.insert("HTTP/1.1".to_owned());
    let broken = Line { error: Some("the client failed: a|b".to_owned()), ..line(Kind::Wreq, Vec::new()) };
    let table = Table { row: Row::Hot, requests: 500, lines: vec![broken, line(Kind::Reqwest, vec![noisy])] };
    insta::assert_snapshot!(table.markdown());
}
