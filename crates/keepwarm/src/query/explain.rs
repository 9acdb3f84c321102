//! What `keepwarm query --explain` adds to the answer: the cache's verdict, the route, the candidates and the exchanges.

use std::{fmt::Write as _, time::Duration};

use comfy_table::CellAlignment::{Left, Right};

use crate::{
    pools,
    table::{self, Column},
};
use keepwarm_control::explain::{Candidate, Dial, Exchange, Explain};

/// The explanation for people, at most 100 columns wide with names of a usual length.
pub(super) fn text(explain: &Explain) -> String {
    let mut text = String::from("\nwhy\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    if let Some(failure) = &explain.failure {
        line("failure", failure);
    }
    if let Some(local) = &explain.local {
        // There is more to tell where an alias leads to other names.
        line(
            "local",
            &format!("{local}{}", if explain.cache.is_empty() { "" } else { ", an alias; of what it leads to:" }),
        );
    }
    // A name that is answered here is looked for nowhere else.
    if !explain.cache.is_empty() {
        line("cache", &explain.cache);
        line("route", &route(explain));
        line("strategy", &explain.strategy);
    }
    if let Some(hedge) = &explain.hedge {
        line("hedge", hedge);
    }
    if explain.joined {
        line("joined", "an identical query was in flight; seen is what was left of it");
    }
    if let Some(decide) = explain.decide.filter(|decide| !decide.is_zero()) {
        line("decided", &format!("{} after the query", pools::short(decide)));
    }
    if !explain.candidates.is_empty() {
        text.push_str("\ncandidates, in order\n");
        text.push_str(&indented(&table::render(&CANDIDATES, explain.candidates.iter().map(candidate))));
    }
    if !explain.exchanges.is_empty() {
        text.push_str("\nexchanges\n");
        text.push_str(&indented(&table::render(&EXCHANGES, explain.exchanges.iter().map(exchange))));
        // Errors name addresses and are too long for a column.
        for exchange in &explain.exchanges {
            if let Some(details) = details(exchange) {
                let _ = writeln!(text, "  +{}: {details}", pools::short(exchange.started));
            }
        }
    }
    text
}

fn route(explain: &Explain) -> String {
    let mut route = match &explain.suffix {
        Some(suffix) => format!("`{suffix}` leads to the group `{}`", explain.group),
        None => format!("none: group `{}`", explain.group),
    };
    if let Some(fallback) = &explain.fallback {
        let _ = write!(route, ", fallback `{fallback}`");
    }
    route
}

fn candidate(candidate: &Candidate) -> Vec<String> {
    let or_dash = |time: Option<Duration>| time.map_or_else(|| "-".into(), pools::short);
    vec![
        candidate.upstream.clone(),
        candidate.group.clone(),
        candidate.breaker.as_str().into(),
        or_dash(candidate.p50),
        or_dash(candidate.p95),
        candidate.in_flight.to_string(),
        candidate.weight.to_string(),
        candidate.why.clone(),
    ]
}

fn exchange(exchange: &Exchange) -> Vec<String> {
    let connection = match &exchange.connection {
        Some(connection) if connection.reused => format!("#{} {} old", connection.id, pools::short(connection.age)),
        Some(connection) if connection.opened_ahead => format!("#{} opened ahead", connection.id),
        Some(connection) => format!("#{} new", connection.id),
        None => "-".into(),
    };
    vec![
        format!("+{}", pools::short(exchange.started)),
        exchange.upstream.clone(),
        exchange.transport.clone(),
        connection,
        exchange.connection.as_ref().map_or_else(|| "-".into(), |connection| pools::short(connection.wait)),
        pools::short(exchange.took),
        if is_long(&exchange.outcome) { "failed".into() } else { exchange.outcome.clone() },
        exchange.why.clone(),
    ]
}

/// What an exchange has to say beyond its row; `None` when that says all.
fn details(exchange: &Exchange) -> Option<String> {
    let mut details = Vec::new();
    if is_long(&exchange.outcome) {
        details.push(exchange.outcome.clone());
    }
    if exchange.designated {
        details.push("over the encrypted face that the upstream designates".to_owned());
    }
    if let Some(connection) = &exchange.connection {
        if connection.opened_ahead {
            details.push(format!("opened {} before", pools::short(connection.age)));
        }
        details.extend(connection.dial.as_ref().and_then(dial));
        let added = [(connection.cookie, "with a cookie"), (connection.random_case, "in random case (0x20)")];
        details.extend(added.into_iter().filter(|(added, _)| *added).map(|(_, words)| words.to_owned()));
    }
    (!details.is_empty()).then(|| details.join("; "))
}

/// What a dial took, in the phases that took any time to speak of.
fn dial(dial: &Dial) -> Option<String> {
    let mut phases = Vec::new();
    if dial.resolve >= RESOLVE_MIN {
        phases.push(format!("resolve {}", pools::short(dial.resolve)));
    }
    if dial.connect > Duration::ZERO {
        phases.push(format!("connect {}", pools::short(dial.connect)));
    }
    if let Some(tls) = dial.tls {
        phases.push(format!("tls {}{}", pools::short(tls), if dial.resumed { " (resumed)" } else { "" }));
    }
    if let Some(ech) = dial.ech.as_deref().filter(|ech| *ech != "off") {
        phases.push(format!("ech {ech}"));
    }
    (!phases.is_empty()).then(|| phases.join(", "))
}

/// Addresses that are fixed or known are found in less.
const RESOLVE_MIN: Duration = Duration::from_micros(100);

fn is_long(outcome: &str) -> bool {
    outcome.len() > 20
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

const CANDIDATES: [Column; 8] = [
    ("upstream", Left),
    ("group", Left),
    ("breaker", Left),
    ("p50", Right),
    ("p95", Right),
    ("in flight", Right),
    ("weight", Right),
    ("why", Left),
];

const EXCHANGES: [Column; 8] = [
    ("at", Left),
    ("upstream", Left),
    ("over", Left),
    ("connection", Left),
    ("wait", Right),
    ("took", Right),
    ("outcome", Left),
    ("why", Left),
];

#[cfg(test)]
mod tests {
    use super::*;
    use keepwarm_control::{explain::Connection, rows::BreakerState};

    fn explain() -> Explain {
        let ms = Duration::from_millis;
        let quick = Candidate {
            upstream: "quad9".into(),
            group: "default".into(),
            asked: true,
            why: "first: lowest estimate 8.1 ms".into(),
            p50: Some(Duration::from_micros(8100)),
            p95: Some(ms(12)),
            in_flight: 3,
            weight: 1,
            ..Candidate::default()
        };
        let broken = Candidate {
            upstream: "mullvad".into(),
            asked: false,
            why: "not asked: open for 800.0 ms more".into(),
            breaker: BreakerState::Open,
            p50: None,
            p95: None,
            ..quick.clone()
        };
        let spare = Candidate {
            upstream: "spare".into(),
            group: "spare".into(),
            why: "hedge after p95 12.0 ms".into(),
            ..quick.clone()
        };
        let connection = Connection {
            id: 12,
            address: "9.9.9.9:853".into(),
            age: ms(4200),
            reused: true,
            wait: Duration::from_micros(3),
            ..Connection::default()
        };
        let first = Exchange {
            upstream: "quad9".into(),
            transport: "tls".into(),
            started: Duration::ZERO,
            took: ms(12),
            designated: false,
            why: "first: lowest estimate 8.1 ms".into(),
            outcome: "pending".into(),
            connection: Some(connection.clone()),
        };
        let second = Exchange {
            started: ms(12),
            upstream: "spare".into(),
            outcome: "connect to 9.9.9.10:853: connection refused".into(),
            connection: None,
            why: "hedge after p95 12.0 ms".into(),
            ..first.clone()
        };
        Explain {
            cache: "miss".into(),
            strategy: "hedged".into(),
            group: "default".into(),
            suffix: Some("corp.example".into()),
            fallback: Some("spare".into()),
            hedge: Some("sent, and the first to answer".into()),
            decide: Some(Duration::from_micros(40)),
            candidates: vec![quick, spare, broken],
            exchanges: vec![first, second],
            ..Explain::default()
        }
    }

    #[test]
    fn an_explanation_fits_a_hundred_columns() {
        let text = text(&explain());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text, @r"

        why
          cache     miss
          route     `corp.example` leads to the group `default`, fallback `spare`
          strategy  hedged
          hedge     sent, and the first to answer
          decided   40 us after the query

        candidates, in order
          upstream  group    breaker     p50      p95  in flight  weight  why
          quad9     default  closed   8.1 ms  12.0 ms          3       1  first: lowest estimate 8.1 ms
          spare     spare    closed   8.1 ms  12.0 ms          3       1  hedge after p95 12.0 ms
          mullvad   default  open          -        -          3       1  not asked: open for 800.0 ms more

        exchanges
          at        upstream  over  connection      wait     took  outcome  why
          +0 us     quad9     tls   #12 4.20 s old  3 us  12.0 ms  pending  first: lowest estimate 8.1 ms
          +12.0 ms  spare     tls   -                  -  12.0 ms  failed   hedge after p95 12.0 ms
          +12.0 ms: connect to 9.9.9.10:853: connection refused
        ");
    }

    #[test]
    fn a_hit_is_explained_without_tables() {
        let hit =
            Explain { cache: "hit".into(), strategy: "racing".into(), group: "default".into(), ..Explain::default() };
        insta::assert_snapshot!(text(&hit), @r"

        why
          cache     hit
          route     none: group `default`
          strategy  racing
        ");
    }
}
