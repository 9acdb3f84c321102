//! The figures of `keepwarm bench tunnel`: its JSON, its table, and in words what spares save.
//!
//! Durations in JSON are seconds, as floating-point numbers. A figure that is not known is `null`.

use std::{fmt::Write as _, time::Duration};

use comfy_table::CellAlignment::{Left, Right};
use serde::Serialize;

use super::subject::Subject;
use crate::{
    bench::https::report::{Latency, Machine},
    pools::short,
    probe::report::seconds,
    table::{self, Column},
};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Version of keepwarm.
    version: &'static str,
    /// Without credentials.
    upstreams: Vec<String>,
    target: String,
    /// Tunnels a second.
    rate: f64,
    /// None where the proxy is not the lab's.
    lab: Option<LabRow>,
    machine: Machine,
    runs: Vec<RunResult>,
}

/// What the lab saw, everything before and between the runs included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct LabRow {
    #[serde(serialize_with = "seconds")]
    pub(super) round_trip: Duration,
    /// Connections to the proxy.
    pub(super) connections: u64,
    /// Of these, those greeted.
    pub(super) greeted: u64,
    /// Tunnels that the proxy made.
    pub(super) connects: u64,
    /// Bytes that reached the destination and were another tunnel's.
    pub(super) foreign_bytes: u64,
}

/// What one run came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunResult {
    pub(super) kind: Kind,
    /// Tunnels that were asked for.
    pub(super) tunnels: u64,
    /// Tunnels that were planned and not asked for: too many were under way, or too many failed.
    pub(super) left_out: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    /// Tunnels that found a spare.
    pub(super) hits: u64,
    /// Tunnels that waited for a connection.
    pub(super) misses: u64,
    /// Spares that were dead when they were used.
    pub(super) retries: u64,
    /// Connections to proxies that were made meanwhile.
    pub(super) handshakes: u64,
    /// From the call to the destination's word.
    pub(super) ready: Option<Latency>,
    /// From the call to the destination's first byte; none where none was asked for.
    pub(super) first_byte: Option<Latency>,
}

/// The connections of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Made for each tunnel, as clients of a proxy do.
    Fresh,
    /// Ready before.
    Spare,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Fresh => "fresh",
            Kind::Spare => "spare",
        }
    }
}

impl Report {
    pub(super) fn new(subject: &Subject, rate: f64, runs: Vec<RunResult>) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            upstreams: subject.upstreams(),
            target: subject.target.to_string(),
            rate,
            lab: subject.lab(),
            machine: Machine::this(),
            runs,
        }
    }

    /// Whether every tunnel was made, and no byte was another's.
    pub(super) fn ok(&self) -> bool {
        self.runs.iter().all(|run| run.failed == 0) && self.lab.is_none_or(|lab| lab.foreign_bytes == 0)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("tunnels to {} through {}", self.target, self.upstreams.join(", "));
        if let Some(lab) = &self.lab {
            let _ = write!(text, ", a proxy of the lab {} away", short(lab.round_trip));
        }
        let _ = write!(text, "; {} a second, at random; {}\n\n", self.rate, self.machine);
        for (what, latency) in [("ready", ready as Tell), ("first byte", first_byte as Tell)] {
            if self.runs.iter().any(|run| latency(run).is_some()) || what == "ready" {
                let rows = self.runs.iter().map(|run| run.cells(what, latency(run)));
                text += &table::render(&COLUMNS, rows);
                text.push('\n');
            }
        }
        let counts = self.runs.iter().map(RunResult::counts);
        text += &table::render(&COUNTS, counts);
        let notes: Vec<String> = self.runs.iter().flat_map(RunResult::notes).collect();
        for note in notes {
            let _ = write!(text, "\nnote: {note}\n");
        }
        if let Some(sentence) = self.sentence() {
            let _ = write!(text, "\n{sentence}");
        }
        text
    }

    /// Fresh against spare; none without both.
    fn sentence(&self) -> Option<String> {
        let run = |kind| self.runs.iter().find(|run| run.kind == kind)?.ready;
        let (fresh, spare) = (run(Kind::Fresh)?.p50, run(Kind::Spare)?.p50);
        let times = fresh.as_secs_f64() / spare.as_secs_f64().max(f64::MIN_POSITIVE);
        let (fresh, spare) = (short(fresh), short(spare));
        Some(format!(
            "Over spares half of the tunnels were ready within {spare}, over fresh connections within {fresh}: {times:.1} times as long.\n"
        ))
    }
}

type Tell = fn(&RunResult) -> Option<Latency>;

fn ready(run: &RunResult) -> Option<Latency> {
    run.ready
}

fn first_byte(run: &RunResult) -> Option<Latency> {
    run.first_byte
}

impl RunResult {
    fn cells(&self, what: &str, latency: Option<Latency>) -> Vec<String> {
        let of = |tell: fn(&Latency) -> Duration| latency.as_ref().map(tell).map_or_else(|| "-".to_owned(), short);
        vec![
            what.to_owned(),
            self.kind.as_str().to_owned(),
            of(|latency| latency.p50),
            of(|latency| latency.p90),
            of(|latency| latency.p99),
            of(|latency| latency.max),
        ]
    }

    fn counts(&self) -> Vec<String> {
        let asked = self.hits + self.misses;
        let is_told = asked > 0 && self.kind == Kind::Spare;
        let ratio = is_told.then(|| format!("{:.1} %", self.hits as f64 / asked as f64 * 100.0));
        vec![
            "tunnels".to_owned(),
            self.kind.as_str().to_owned(),
            self.tunnels.to_string(),
            self.failed.to_string(),
            ratio.unwrap_or_else(|| "-".to_owned()),
            self.handshakes.to_string(),
        ]
    }

    /// What went otherwise than the run's name says.
    fn notes(&self) -> Vec<String> {
        let (name, mut notes) = (self.kind.as_str(), Vec::new());
        if let Some(failure) = &self.first_failure {
            notes.push(format!("{name}: {} failed, the first: {failure}", self.failed));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{name}: {} tunnels were left out, because too many were under way or failed",
                self.left_out
            ));
        }
        if self.retries > 0 {
            notes.push(format!("{name}: {} spares were dead and replaced", self.retries));
        }
        notes
    }
}

const COLUMNS: [Column; 6] =
    [("TIME TO", Left), ("OVER", Left), ("P50", Right), ("P90", Right), ("P99", Right), ("MAX", Right)];

const COUNTS: [Column; 6] =
    [("COUNT", Left), ("OVER", Left), ("ASKED", Right), ("FAILED", Right), ("HITS", Right), ("HANDSHAKES", Right)];

#[cfg(test)]
mod tests;
