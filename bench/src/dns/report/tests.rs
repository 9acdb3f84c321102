use super::*;

fn reading(rate: f64, cpu: f64) -> Reading {
    Reading {
        rate,
        cpu,
        p50: 101.2,
        p99: 1234.6,
        sent: 100_000,
        upstream: 1.0,
        server_cores: 0.98,
        rss: 5 << 20,
        ..Reading::default()
    }
}

fn line(name: &str, cpus: [f64; 3]) -> Line {
    let rep = |cpu: f64| Rep {
        most: reading(1e6 / cpu, cpu),
        at_5k: Some(reading(5_000.0, 2.0 * cpu)),
        at_20k: (cpu < 20.0).then(|| reading(20_000.0, 1.5 * cpu)),
        delayed: Some(Reading { failed: 250, ..reading(70_000.0, cpu) }),
        rss_idle: 3 << 20,
    };
    Line { reps: cpus.into_iter().map(rep).collect(), ..Line::new(name.to_owned()) }
}

fn report(lines: Vec<Line>) -> Report {
    let machine = Machine {
        processor: "Some CPU".into(),
        cores: 2,
        kernel: "Linux 6.1".into(),
        load: "0.10".into(),
        date: "2026-01-31".into(),
    };
    let peer = |kind, version: &str| Peer { kind, program: "program".into(), version: version.into() };
    let held = Held {
        name: "keepwarm".into(),
        idle: 6 << 20,
        full: 20 << 20,
        in_flight: 31 << 20,
        reached: 9_998,
        failed: 0.0,
    };
    let scaled = |workers, readings| Scaled { load: "cache hits", workers, readings };
    Report {
        machine,
        command: "dns --reps 3".into(),
        peers: vec![peer(Kind::Keepwarm, "0.1.0"), peer(Kind::Dnsdist, "1.9.10"), peer(Kind::Floor, "")],
        missed: vec!["smartdns is skipped: not installed; `apt-get install smartdns`".into()],
        threads: 2,
        reps: 3,
        length: Duration::from_millis(1_500),
        tables: vec![
            Table::Servers { row: Row::Udp, lines },
            Table::Memory(vec![held]),
            Table::Scaling(vec![
                scaled(1, vec![reading(250_000.0, 3.9)]),
                scaled(2, vec![Reading { server_cores: 1.1, load_cores: 0.85, ..reading(300_000.0, 4.0) }]),
            ]),
        ],
    }
}

#[test]
fn a_page_shows_where_how_and_what() {
    let lines = vec![
        line("dnsdist", [25.0, 24.0, 26.0]),
        line("keepwarm", [8.0, 7.9, 8.2]),
        Line { error: Some("unbound ended at its start".into()), ..Line::new("unbound".into()) },
        line("*relay (floor)*", [6.5, 6.5, 6.5]),
    ];
    insta::assert_snapshot!(report(lines).markdown(Some("dns-bench.svg")));
}

#[test]
fn what_cannot_be_trusted_is_said() {
    let mut bad = line("dnsdist", [10.0, 10.0, 10.0]);
    bad.reps[0].most = Reading { wrong: 3, failed: 3, foreign_cores: 0.4, ..bad.reps[0].most.clone() };
    for rep in &mut bad.reps {
        (rep.most.upstream, rep.most.server_cores) = (1.3, 0.5);
    }
    insta::assert_snapshot!(notes(Row::Udp, &bad).join("\n"));
    assert!(notes(Row::Cache, &bad).iter().any(|note| note.contains("no hits")));
    assert!(notes(Row::Udp, &line("dnsdist", [10.0, 10.0, 10.0])).is_empty());
}

#[test]
fn a_server_that_loses_queries_has_no_highest_rate() {
    let mut losing = line("dnsdist", [10.0, 10.0, 10.0]);
    losing.reps.iter_mut().for_each(|rep| rep.most.failed = 5_000);
    assert_eq!(losing.cpu(), None);
    assert_eq!(server_cells(Row::Udp, &losing)[..2], ["-", "-"]);
}

#[test]
fn the_chart_has_every_server_and_longer_bars_for_more() {
    let lines = vec![line("dnsdist", [25.0, 24.0, 26.0]), line("keepwarm", [8.0; 3]), Line::new("unbound".into())];
    let svg = report(lines).chart().unwrap();
    for words in ["dnsdist", "keepwarm", "unbound", "not measured", "25.0", "8.0", "UDP client, UDP upstream"] {
        assert!(svg.contains(words), "{words}");
    }
    let widths: Vec<f64> = svg
        .lines()
        .filter(|line| line.contains("<rect") && (line.contains("#D95F02") || line.contains("#7589AA")))
        .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
        .collect();
    assert!(widths.len() == 2 && widths[0] < widths[1], "{widths:?}");
}
