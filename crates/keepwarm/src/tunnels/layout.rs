//! Tunnels for people: totals in words, then upstreams, destinations and live tunnels as tables.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::CellAlignment::{Left, Right};

use super::{
    View,
    sheet::{self, Field},
};
use crate::{cache::bytes, pools::short};
use keepwarm_control::{
    rows::BreakerState,
    tunnel::{ClientsRow, DestinationRow, LiveRow, SparesRow, TunnelStatus, TunnelUpstreamRow},
};

impl View {
    /// Its text for a terminal of this width; `None`: as wide as it is.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let mut text = totals(&self.tunnel);
        let upstreams: Vec<_> = self.tunnel.upstreams.iter().filter(|row| is_told(row)).collect();
        let rows: Vec<_> = upstreams.iter().map(|row| upstream(row)).collect();
        if !rows.is_empty() {
            let _ = write!(text, "\n{}", sheet::render(&UPSTREAMS, &rows, width));
        }
        let notes: Vec<_> = upstreams.iter().filter_map(|row| notes(row)).collect();
        if !notes.is_empty() {
            let _ = write!(text, "\n{}\n", notes.join("\n"));
        }
        if !self.destinations.is_empty() {
            let rows: Vec<_> = self.destinations.iter().map(destination).collect();
            let _ = write!(text, "\n{}", sheet::render(&DESTINATIONS, &rows, width));
        }
        match self.tunnels.as_deref() {
            None => {}
            Some([]) => text += "\nno live tunnels of clients\n",
            Some(tunnels) => {
                let rows: Vec<_> = tunnels.iter().map(live).collect();
                let _ = write!(text, "\n{}", sheet::render(&TUNNELS, &rows, width));
            }
        }
        text
    }
}

/// The spares of tunnels as a table; none where no upstream has any.
pub(crate) fn spares(status: &TunnelStatus) -> Option<String> {
    let rows: Vec<_> = status.upstreams.iter().filter(|row| row.spares.is_some()).map(upstream).collect();
    (!rows.is_empty()).then(|| sheet::render(&UPSTREAMS, &rows, None))
}

/// `direct` is always there, and worth a row only once it was used.
fn is_told(row: &TunnelUpstreamRow) -> bool {
    row.spares.is_some() || row.tunnels + row.refused + row.failed + row.live > 0
}

fn totals(status: &TunnelStatus) -> String {
    let mut text = format!("tunnels     {} of {} live", status.live, status.max);
    let _ = write!(text, ", {} waiting, {} made", status.waiting, status.opened);
    let failed: u64 = status.failed.values().sum();
    if failed > 0 {
        let _ = write!(text, ", {failed} failed ({})", reasons(&status.failed));
    }
    text.push('\n');
    if status.ready + status.ready_used > 0 {
        let _ = writeln!(text, "ahead       {} ready, {} used", status.ready, status.ready_used);
    }
    if status.waits.max.is_some_and(|max| max >= WORTH_TELLING) {
        let [mean, p50, p99] = [status.waits.mean, status.waits.p50, status.waits.p99].map(time);
        let _ = writeln!(text, "waits       mean {mean}, p50 {p50}, p99 {p99}");
    }
    let listen: Vec<_> = status
        .listen
        .iter()
        .map(|row| match &row.target {
            Some(target) => format!("{} (to {target})", row.address),
            None => format!("{} ({})", row.address, row.kind),
        })
        .collect();
    if !listen.is_empty() {
        let _ = writeln!(text, "listeners   {}", listen.join(", "));
    }
    text += &status.clients.as_ref().map(clients).unwrap_or_default();
    if let Some(udp) = status.udp.as_ref().filter(|udp| udp.opened + udp.refused > 0) {
        let dropped: u64 = udp.dropped.values().sum();
        let _ = writeln!(
            text,
            "udp         {} of {} associations, {} datagrams sent, {} received, {dropped} dropped",
            udp.associations, udp.max, udp.datagrams_sent, udp.datagrams_received
        );
    }
    text
}

fn clients(clients: &ClientsRow) -> String {
    let mut text = format!("clients     {} connected, {} served", clients.connected, clients.accepted);
    let kinds: Vec<_> = [
        ("socks5", clients.socks5),
        ("socks4", clients.socks4),
        ("http", clients.http),
        ("forwards", clients.forwards),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(kind, count)| format!("{kind} {count}"))
    .collect();
    if !kinds.is_empty() {
        let _ = write!(text, " ({})", kinds.join(", "));
    }
    if clients.turned_away > 0 {
        let _ = write!(text, ", {} turned away", clients.turned_away);
    }
    let failed: u64 = clients.handshakes_failed.values().sum();
    if failed > 0 {
        let _ = write!(text, ", {failed} handshakes failed ({})", reasons(&clients.handshakes_failed));
    }
    text + "\n"
}

const UPSTREAMS: [Field; 11] = [
    Field { column: ("UPSTREAM", Left), expendable: None },
    Field { column: ("ADDRESS", Left), expendable: Some(9) },
    Field { column: ("STATE", Left), expendable: None },
    Field { column: ("SPARES", Right), expendable: None },
    Field { column: ("LIVE", Right), expendable: None },
    Field { column: ("MADE", Right), expendable: Some(6) },
    Field { column: ("HITS", Right), expendable: None },
    Field { column: ("READY P50", Right), expendable: Some(3) },
    Field { column: ("P99", Right), expendable: Some(4) },
    Field { column: ("AGE LIMIT", Right), expendable: Some(5) },
    Field { column: ("FAILED", Right), expendable: Some(2) },
];

fn upstream(row: &TunnelUpstreamRow) -> Vec<String> {
    vec![
        row.name.clone(),
        row.address.clone(),
        state(row).to_owned(),
        row.spares.as_ref().map_or_else(none, kept),
        row.live.to_string(),
        row.tunnels.to_string(),
        row.hit_ratio.map_or_else(none, |ratio| format!("{:.1} %", ratio * 100.0)),
        time(row.ready.p50),
        time(row.ready.p99),
        row.spares.as_ref().map_or_else(none, |spares| short(spares.age_limit)),
        row.failed.to_string(),
    ]
}

/// What its breaker says, in words that say what becomes of tunnels.
fn state(row: &TunnelUpstreamRow) -> &'static str {
    match row.breaker {
        BreakerState::Closed if row.failures_in_a_row > 0 => "failing",
        BreakerState::Closed => "well",
        BreakerState::Open => "left alone",
        BreakerState::HalfOpen => "on trial",
    }
}

/// Ready ones and how many there should be; sessions of SSH are only counted.
fn kept(spares: &SparesRow) -> String {
    match spares.max {
        0 => spares.idle.to_string(),
        _ => format!("{}/{}", spares.idle, spares.target),
    }
}

/// What most upstreams have nothing of, in one line; `None` where there is nothing to say.
fn notes(row: &TunnelUpstreamRow) -> Option<String> {
    let mut notes = Vec::new();
    notes.extend(row.through.as_ref().map(|through| format!("through {through}")));
    for (name, count) in [("dead spares replaced", row.retries), ("hedged", row.hedged), ("refused", row.refused)] {
        if count > 0 {
            notes.push(format!("{name} {count}"));
        }
    }
    if let Some(spares) = &row.spares {
        if spares.dialing > 0 {
            notes.push(format!("{} dialing", spares.dialing));
        }
        if spares.pipelining != "none" && !spares.pipelining.is_empty() {
            notes.push(format!("{} sent ahead", spares.pipelining));
        }
        if let (Some(p50), Some(p90)) = (spares.ages.p50, spares.ages.p90) {
            notes.push(format!("age of spares used p50 {}, p90 {}", short(p50), short(p90)));
        }
        if !spares.dial_errors.is_empty() {
            notes.push(format!("dial errors: {}", reasons(&spares.dial_errors)));
        }
    }
    if let Some(left) = row.retry_in {
        notes.push(format!("tried again in {}", short(left)));
    }
    if let (Some(text), Some(ago)) = (&row.last_failure, row.last_failure_ago) {
        notes.push(format!("last failure {} ago: {}", short(ago), printable(text)));
    }
    (!notes.is_empty()).then(|| format!("{}: {}", row.name, notes.join("; ")))
}

const DESTINATIONS: [Field; 4] = [
    Field { column: ("DESTINATION", Left), expendable: None },
    Field { column: ("LIVE", Right), expendable: None },
    Field { column: ("WAITING", Right), expendable: None },
    Field { column: ("TOTAL", Right), expendable: Some(1) },
];

fn destination(row: &DestinationRow) -> Vec<String> {
    vec![row.destination.clone(), format!("{}/{}", row.live, row.max), row.waiting.to_string(), row.total.to_string()]
}

const TUNNELS: [Field; 7] = [
    Field { column: ("CLIENT", Left), expendable: Some(1) },
    Field { column: ("DESTINATION", Left), expendable: None },
    Field { column: ("UPSTREAM", Left), expendable: Some(2) },
    Field { column: ("AGE", Right), expendable: None },
    Field { column: ("SPARE", Right), expendable: Some(3) },
    Field { column: ("SENT", Right), expendable: None },
    Field { column: ("RECEIVED", Right), expendable: None },
];

fn live(row: &LiveRow) -> Vec<String> {
    vec![
        row.client.clone(),
        row.destination.clone(),
        row.upstream.clone(),
        short(row.age),
        time(row.spare),
        bytes(row.sent),
        bytes(row.received),
    ]
}

fn time(time: Option<Duration>) -> String {
    time.map_or_else(none, short)
}

fn none() -> String {
    "-".to_owned()
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

/// Part of it may be a proxy's words.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// Shorter waits are those of tunnels that found a place at once.
const WORTH_TELLING: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
