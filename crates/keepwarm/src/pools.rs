//! `keepwarm pools`: one row a pool of the running daemon; those of DNS here, those of hot HTTPS in `https`, the spares of tunnels as
//! `keepwarm tunnels` shows them.
//!
//! The figures are the daemon's; here they only become a table.

use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment};
use keepwarm_dns::config::DEFAULT_GROUP;

use crate::{
    cli::{Exit, PoolsArgs, Unavailable, print},
    table, tunnels,
};
use keepwarm_control::{
    client::{self, ClientError},
    https::HttpsPoolRow,
    rows::{DdrRow, DnsUpstreamRow},
    tunnel::TunnelStatus,
};

mod https;

/// Asks the daemon and prints its pools.
///
/// # Errors
/// [`Unavailable`] when no daemon answers at the address.
pub fn main(args: &PoolsArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let dns = async || -> anyhow::Result<Vec<DnsUpstreamRow>> {
        client::get(args.control, "/api/v1/dns/upstreams").await.map_err(unavailable)
    };
    let https = async || -> anyhow::Result<Vec<HttpsPoolRow>> {
        client::get(args.control, "/api/v1/https/pools").await.map_err(unavailable)
    };
    let text = runtime.block_on(async {
        Ok::<_, anyhow::Error>(match (args.json, args.https) {
            (true, false) => json(&dns().await?)?,
            (true, true) => json(&https().await?)?,
            (false, true) => https::table(&https().await?),
            (false, false) => all(&dns().await?, &https().await?, tunnel(args).await?.as_ref()),
        })
    })?;
    print(&text)
}

fn json<T: serde::Serialize>(rows: &[T]) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(rows).context("write json")?))
}

/// The tunnels of the daemon; none where it has none.
async fn tunnel(args: &PoolsArgs) -> anyhow::Result<Option<TunnelStatus>> {
    match client::get(args.control, "/api/v1/tunnel").await {
        Ok(status) => Ok(Some(status)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

/// A table for each of the three that has rows.
fn all(dns: &[DnsUpstreamRow], https: &[HttpsPoolRow], tunnel: Option<&TunnelStatus>) -> String {
    let tables = [
        (!dns.is_empty()).then(|| table(dns)),
        (!https.is_empty()).then(|| https::table(https)),
        tunnel.and_then(tunnels::spares),
    ];
    let tables: Vec<String> = tables.into_iter().flatten().collect();
    if tables.is_empty() { table(dns) } else { tables.join("\n") }
}

/// Gives the errors of a daemon that is not there their exit code.
pub fn unavailable(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::NotRunning { .. } => Unavailable(error.to_string()).into(),
        ClientError::Refused { .. } | ClientError::Protocol { .. } => error.into(),
    }
}

/// The pools as a table for people, with what is rare below it.
pub fn table(rows: &[DnsUpstreamRow]) -> String {
    if rows.is_empty() {
        return "no pools yet: no upstream was asked\n".into();
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

/// A measured duration with three digits: `412 us`, `20.4 ms`, `1.25 s`.
pub fn short(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..999.5 => format!("{micros:.0} us"),
        ..99_950.0 => format!("{:.1} ms", micros / 1e3),
        ..999_500.0 => format!("{:.0} ms", micros / 1e3),
        ..9_995_000.0 => format!("{:.2} s", micros / 1e6),
        ..99_950_000.0 => format!("{:.1} s", micros / 1e6),
        _ => format!("{:.0} s", micros / 1e6),
    }
}

const NONE: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;
    use keepwarm_control::rows::BreakerState;

    #[test]
    fn a_table_has_a_row_for_each_pool() {
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

    #[test]
    fn durations_are_short() {
        for (micros, words) in [
            (0, "0 us"),
            (412, "412 us"),
            (1_000, "1.0 ms"),
            (20_440, "20.4 ms"),
            (99_960, "100 ms"),
            (999_600, "1.00 s"),
            (61_000_000, "61.0 s"),
            (298_400_000, "298 s"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)), words);
        }
    }
}
