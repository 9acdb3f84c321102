//! The upstreams of DNS as a table, with what only DNS knows of them.

use comfy_table::{Cell, CellAlignment};
use keepwarm_dns::config::DEFAULT_GROUP;

use crate::{pools::short, table};
use keepwarm_control::rows::{DdrRow, DnsUpstreamRow};

/// The upstreams as a table for people, with what is rare below it.
pub(super) fn table(rows: &[DnsUpstreamRow]) -> String {
    if rows.is_empty() {
        return "no upstreams of dns yet: none was asked, or the config has none\n".into();
    }
    let mut text = table::render(&COLUMNS, rows.iter().map(cells));
    let notes: Vec<String> = rows.iter().filter_map(notes).collect();
    if !notes.is_empty() {
        text += &format!("\n{}\n", notes.join("\n"));
    }
    text
}

const COLUMNS: [table::Column; 9] = [
    ("UPSTREAM", CellAlignment::Left),
    ("ADDRESS", CellAlignment::Left),
    ("OPEN", CellAlignment::Right),
    ("IN USE", CellAlignment::Right),
    ("IN FLIGHT", CellAlignment::Right),
    ("REUSE", CellAlignment::Right),
    ("P50", CellAlignment::Right),
    ("P95", CellAlignment::Right),
    ("BREAKER", CellAlignment::Left),
];

fn cells(row: &DnsUpstreamRow) -> [Cell; COLUMNS.len()] {
    [
        Cell::new(&row.upstream),
        Cell::new(format!("{}://{}", row.transport, row.address)),
        Cell::new(format!("{}/{}", row.open, row.max)),
        Cell::new(row.in_use),
        Cell::new(row.in_flight),
        Cell::new(row.reuse_ratio.map_or_else(|| NONE.to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))),
        Cell::new(row.latency_p50.map_or_else(|| NONE.to_owned(), short)),
        Cell::new(row.latency_p95.map_or_else(|| NONE.to_owned(), short)),
        Cell::new(row.breaker.as_str()),
    ]
}

/// What most pools have nothing of, in one line; `None` where there is nothing to say.
fn notes(row: &DnsUpstreamRow) -> Option<String> {
    let mut notes = Vec::new();
    if row.group != DEFAULT_GROUP && !row.group.is_empty() {
        notes.push(format!("group {}", row.group));
    }
    for (name, count) in [("dialing", row.dialing), ("waiting", row.waiting)] {
        if count > 0 {
            notes.push(format!("{count} {name}"));
        }
    }
    if row.handshakes_full + row.handshakes_resumed > 0 {
        notes.push(format!("handshakes {} full, {} resumed", row.handshakes_full, row.handshakes_resumed));
    }
    if let Some(ech) = row.ech.as_deref().filter(|ech| *ech != "off" && *ech != "unavailable") {
        notes.push(format!("ech {ech}"));
    }
    notes.extend(row.ddr.as_ref().map(ddr));
    if let Some(limit) = row.idle_limit {
        notes.push(format!("idle limit {}", short(limit)));
    }
    match row.cookies.as_deref() {
        Some("yes") => notes.push("cookies".into()),
        Some("no") => notes.push("no cookies".into()),
        _ => {}
    }
    match row.keeps_case {
        Some(true) => notes.push("0x20".into()),
        Some(false) => notes.push("0x20 given up".into()),
        None => {}
    }
    for (name, count) in [
        ("failures", row.failures),
        ("local errors", row.local_errors),
        ("wrong answers", row.wrong_answers),
        ("cookie errors", row.cookie_errors),
    ] {
        if count > 0 {
            notes.push(format!("{name} {count}"));
        }
    }
    if !row.dial_errors.is_empty() {
        let errors: Vec<String> = row.dial_errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        notes.push(format!("dial errors: {}", errors.join(", ")));
    }
    (!notes.is_empty()).then(|| format!("{} ({}): {}", row.upstream, row.transport, notes.join("; ")))
}

fn ddr(ddr: &DdrRow) -> String {
    match (&ddr.address, &ddr.reason) {
        (Some(address), _) => format!("designates {address}"),
        (None, Some(reason)) => format!("no encrypted face: {reason}"),
        (None, None) => format!("encrypted face {}", ddr.state),
    }
}

const NONE: &str = "-";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use keepwarm_control::rows::BreakerState;

    #[test]
    fn a_table_has_a_row_for_each_upstream() {
        let rows = [
            DnsUpstreamRow {
                upstream: "quad9".into(),
                transport: "tls".into(),
                address: "dns.quad9.net:853".into(),
                open: 3,
                max: 10,
                idle: 2,
                in_use: 1,
                in_flight: 17,
                hits: 990,
                misses: 10,
                reuse_ratio: Some(0.99),
                handshakes_full: 1,
                handshakes_resumed: 2,
                latency_p50: Some(Duration::from_micros(20_400)),
                latency_p95: Some(Duration::from_micros(31_000)),
                ech: Some("accepted".into()),
                idle_limit: Some(Duration::from_secs(9)),
                ..DnsUpstreamRow::default()
            },
            DnsUpstreamRow {
                upstream: "router".into(),
                transport: "udp".into(),
                address: "192.168.1.1:53".into(),
                max: 10,
                group: "home".into(),
                waiting: 4,
                failures: 3,
                cookies: Some("yes".into()),
                keeps_case: Some(false),
                ddr: Some(DdrRow { state: "pending".into(), ..DdrRow::default() }),
                breaker: BreakerState::HalfOpen,
                dial_errors: [("refused".to_owned(), 3)].into(),
                ..DnsUpstreamRow::default()
            },
        ];
        let text = table(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        insta::assert_snapshot!(text);
    }
}
