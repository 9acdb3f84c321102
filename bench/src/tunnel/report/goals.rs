//! What keepwarm is to stay within, and whether it did.

use super::{Line, Table, millis};
use crate::{
    figures::{Percent, Spread},
    tunnel::{peers::Kind, reading::Reading, row::Figure},
};

/// A goal of a row, as it is shown and as it turned out.
struct Goal {
    what: &'static str,
    goal: String,
    measured: String,
    is_met: bool,
}

/// The section, or nothing where there is no goal.
pub(super) fn section(tables: &[Table]) -> String {
    let rows: Vec<String> = tables.iter().flat_map(rows).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n## Goals\n\n| row | what | goal | keepwarm | |\n|---|---|--:|--:|---|\n{}", rows.concat())
}

fn rows(table: &Table) -> Vec<String> {
    let Some(line) = table.line(Kind::Keepwarm) else { return Vec::new() };
    let goals = match table.row.figure() {
        Figure::Setup if table.row.has_upstream() => Vec::new(),
        Figure::Setup => setup(table, line).into_iter().collect(),
        Figure::Relay => relay(line).into_iter().collect(),
        Figure::Ready => ready(line),
        Figure::Memory => Vec::new(),
    };
    let row = |Goal { what, goal, measured, is_met }| {
        let verdict = if is_met { "met" } else { "**not met**" };
        format!("| {} | {what} | {goal} | {measured} | {verdict} |\n", table.row.title())
    };
    goals.into_iter().map(row).collect()
}

/// Not more than fast-socks5 in the same run.
fn setup(table: &Table, line: &Line) -> Option<Goal> {
    let most = table.median(Kind::FastSocks5)?;
    let figure = Figure::Setup;
    at_most("CPU per 10,000, fast-socks5's", line, figure.unit(), most, |r| r.figure(figure), |v| figure.show(v))
}

fn relay(line: &Line) -> Option<Goal> {
    let figure = Figure::Relay;
    at_most("CPU per GB", line, figure.unit(), RELAY_MAX, |r| r.figure(figure), |v| figure.show(v))
}

fn ready(line: &Line) -> Vec<Goal> {
    let soon = line.spread(Reading::soon).map(|found| Goal {
        what: "ready in one round trip",
        goal: Percent(HITS_MIN).to_string(),
        measured: found.show(|share| Percent(share).to_string()),
        is_met: found.median >= HITS_MIN,
    });
    let unit = Figure::Ready.unit();
    let p50 = at_most("ready p50", line, unit, READY_P50_MAX, |reading| reading.outcome.ready.p50, millis);
    let p90 = at_most("ready p90", line, unit, READY_P90_MAX, |reading| reading.outcome.ready.p90, millis);
    [p50, p90, soon].into_iter().flatten().collect()
}

fn at_most(
    what: &'static str,
    line: &Line,
    unit: &str,
    most: f64,
    of: impl Fn(&Reading) -> f64,
    one: impl Fn(f64) -> String,
) -> Option<Goal> {
    let found: Spread = line.spread(of)?;
    Some(Goal { what, goal: format!("{} {unit}", one(most)), measured: found.show(one), is_met: found.median <= most })
}

/// CPU seconds per GB.
const RELAY_MAX: f64 = 0.25;
/// Microseconds, with 50 ms to the proxy and back.
const READY_P50_MAX: f64 = 51_500.0;
const READY_P90_MAX: f64 = 53_000.0;
/// The share of tunnels that find a spare.
const HITS_MIN: f64 = 0.99;
