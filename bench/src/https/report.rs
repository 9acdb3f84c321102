//! The page: where and how it was measured, the goals, then a table a row.

use std::fmt::Write as _;

use super::{
    clients::{Kind, Peer},
    measure::Reading,
    row::{Figure, Row},
};
use crate::{
    figures::{Spread, tenths, whole},
    machine::Machine,
};

/// A finished run.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) nginx_version: String,
    /// Whether origin and clients had a core each.
    pub(super) is_split: bool,
    /// Clients that are not there, and why.
    pub(super) missed: Vec<String>,
    pub(super) reps: u32,
    pub(super) is_quick: bool,
    pub(super) tables: Vec<Table>,
}

/// What was measured of a row.
pub(super) struct Table {
    pub(super) row: Row,
    pub(super) requests: usize,
    pub(super) lines: Vec<Line>,
}

/// One client in one row.
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) name: String,
    version: String,
    pub(super) readings: Vec<Reading>,
    /// Why there is nothing, or not all.
    pub(super) error: Option<String>,
}

impl Line {
    pub(super) fn new(peer: &Peer) -> Line {
        let (kind, version) = (peer.kind, peer.version.clone());
        Line { kind, name: kind.name().to_owned(), version, readings: Vec::new(), error: None }
    }

    fn spread(&self, figure: impl Fn(&Reading) -> f64) -> Option<Spread> {
        Spread::of(self.readings.iter().map(figure))
    }

    /// The median of what its row compares.
    fn median(&self, figure: Figure) -> Option<f64> {
        self.spread(|reading| reading.figure(figure)).map(|spread| spread.median)
    }

    /// Its name and version.
    fn title(&self) -> String {
        let said = self.readings.iter().find_map(|reading| reading.outcome.version.as_deref());
        format!("{} {}", self.name, said.unwrap_or(&self.version)).trim_end().to_owned()
    }
}

impl Report {
    /// The page.
    pub(super) fn markdown(&self) -> String {
        let mut out = self.head();
        out.push_str(&self.goals());
        for table in self.tables.iter().filter(|table| !table.lines.is_empty()) {
            out.push_str(&table.markdown());
        }
        out
    }

    fn head(&self) -> String {
        let Machine { processor, cores, kernel, load, date } = &self.machine;
        let missed: String = self.missed.iter().map(|line| format!("- {line}\n")).collect();
        let pinned = if self.is_split { "nginx on one core, the client on another" } else { "nothing pinned" };
        let reps = if self.reps == 1 { "1 repetition".to_owned() } else { format!("{} repetitions", self.reps) };
        let quick = if self.is_quick { " A quick run: these figures only show that it works." } else { "" };
        format!(
            "# HTTPS clients beside each other\n\n\
             `cargo run --release -p keepwarm-bench --features browser -- https` makes this page.{quick}\n\n\
             - {date}, {processor}, {cores} cores, {kernel}, load {load} before the run\n\
             - {versions}\n\
             - loopback; nginx {nginx}, HTTP/2 (requests: HTTP/1.1), one worker, a file of 1 KiB, a P-256 certificate; {pinned}; \
             every client a process with one thread but for the threads that it starts itself\n\
             - {reps}, clients in turn within each; median (lowest..highest)\n{missed}\n\
             CPU is the client's user and system time. Ratios are keepwarm's figure divided by that client's: below 1 keepwarm needs \
             less. Handshakes are the connections that nginx accepted per request, those included that prepare.\n",
            versions = self.versions().join(", "),
            nginx = self.nginx_version,
        )
    }

    fn versions(&self) -> Vec<String> {
        let mut titles: Vec<String> = Vec::new();
        for line in self.tables.iter().flat_map(|table| &table.lines).filter(|line| !line.readings.is_empty()) {
            let title = line.title();
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
        titles
    }

    fn goals(&self) -> String {
        let goals: Vec<String> = self.tables.iter().flat_map(Table::goals).collect();
        if goals.is_empty() {
            return String::new();
        }
        format!("\n## Goals\n\n| row | client | goal | measured | |\n|---|---|--:|--:|---|\n{}", goals.concat())
    }
}

impl Table {
    fn goals(&self) -> Vec<String> {
        let Some(goal) = self.row.goal() else { return Vec::new() };
        let figure = self.row.figure();
        let lines = self.lines.iter().filter(|line| line.kind.is_ours());
        let one = |line: &Line| {
            let found = line.spread(|reading| reading.figure(figure))?;
            let verdict = if found.median <= goal { "met" } else { "**not met**" };
            let unit = figure.unit();
            let shown = found.show(|value| figure.show(value));
            let goal = figure.show(goal);
            Some(format!("| {} | {} | {goal} {unit} | {shown} | {verdict} |\n", self.row.title(), line.name))
        };
        lines.filter_map(one).collect()
    }

    /// keepwarm's figure, the plain profile's first.
    fn ours(&self) -> Option<f64> {
        self.lines.iter().find(|line| line.kind.is_ours())?.median(self.row.figure())
    }

    fn markdown(&self) -> String {
        let heads = self.heads();
        let rule: Vec<&str> = heads.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "--:" }).collect();
        let mut out = format!("\n## {}\n\n| {} |\n| {} |\n", self.row.title(), heads.join(" | "), rule.join(" | "));
        for line in self.sorted() {
            let cells = if line.readings.is_empty() { vec!["not measured".to_owned()] } else { self.cells(line) };
            let mut cells = [vec![line.name.clone()], cells].concat();
            cells.resize(heads.len(), "-".to_owned());
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        let _ = writeln!(out, "\n{}.", self.how());
        for note in self.lines.iter().flat_map(|line| self.notes(line)) {
            let _ = write!(out, "\n- {note}");
        }
        if out.ends_with('\n') { out } else { out + "\n" }
    }

    fn heads(&self) -> Vec<&'static str> {
        match self.row.figure() {
            Figure::Cpu if self.row.has_tickets() => {
                vec![
                    "client",
                    "CPU s per 10,000",
                    "p50 us",
                    "p99 us",
                    "handshakes per request",
                    "resumed",
                    "keepwarm's ratio",
                ]
            }
            Figure::Cpu => {
                vec!["client", "CPU s per 10,000", "p50 us", "p99 us", "handshakes per request", "keepwarm's ratio"]
            }
            Figure::Latency => vec!["client", "p50 ms", "p99 ms", "handshakes per request", "keepwarm's ratio"],
            Figure::Memory => vec!["client", "KiB per connection", "keepwarm's ratio"],
        }
    }

    fn cells(&self, line: &Line) -> Vec<String> {
        let figure = self.row.figure();
        let show = |of: &dyn Fn(&Reading) -> f64, one: &dyn Fn(f64) -> String| {
            line.spread(of).map_or("-".to_owned(), |spread| spread.show(one))
        };
        let mut cells = vec![show(&|reading| reading.figure(figure), &|value| figure.show(value))];
        match figure {
            Figure::Cpu => {
                cells.push(show(&|reading| reading.outcome.p50_us, &whole));
                cells.push(show(&|reading| reading.outcome.p99_us, &whole));
            }
            Figure::Latency => cells.push(show(&|reading| reading.outcome.p99_us, &|value| figure.show(value))),
            Figure::Memory => {}
        }
        if figure != Figure::Memory {
            cells.push(show(&Reading::handshakes, &|value| format!("{value:.4}")));
        }
        if figure == Figure::Cpu && self.row.has_tickets() {
            let share =
                |reading: &Reading| 100.0 * reading.seen.resumed as f64 / reading.seen.connections.max(1) as f64;
            cells.push(show(&share, &|value| format!("{value:.0} %")));
        }
        let ratio = self.ours().zip(line.median(figure)).filter(|(_, theirs)| *theirs > 0.0);
        cells.push(ratio.map_or("-".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs)));
        cells
    }

    /// The best first.
    fn sorted(&self) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        let median = |line: &Line| line.median(self.row.figure()).unwrap_or(f64::INFINITY);
        lines.sort_by(|a, b| median(a).total_cmp(&median(b)));
        lines
    }

    fn how(&self) -> String {
        let count = whole(self.requests as f64);
        match self.row.figure() {
            Figure::Cpu | Figure::Latency => format!("{count} requests each"),
            Figure::Memory => {
                format!(
                    "Growth of resident memory by {count} connections that had one request each, divided by their number"
                )
            }
        }
    }

    /// What a reader has to know to trust a line, or not to.
    fn notes(&self, line: &Line) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(error) = &line.error {
            notes.push(format!("{}: {}", line.name, error.replace('|', "/")));
        }
        if line.readings.iter().any(Reading::is_disturbed) {
            let most = line.spread(|reading| reading.foreign_cores).map_or(0.0, |spread| spread.most);
            notes.push(format!("{}: others used up to {most:.2} cores meanwhile", line.name));
        }
        let spoken = |reading: &Reading| reading.seen.protocols.iter().any(|protocol| protocol != "HTTP/2.0");
        if line.kind != Kind::Requests && line.readings.iter().any(spoken) {
            notes.push(format!("{}: not all of its requests were HTTP/2", line.name));
        }
        notes
    }
}

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Figure::Cpu => "s",
            Figure::Memory => "KiB",
            Figure::Latency => "ms",
        }
    }

    /// A value of it; latencies are kept in microseconds and shown in milliseconds.
    fn show(self, value: f64) -> String {
        match self {
            Figure::Cpu if value < 1.0 => format!("{value:.3}"),
            Figure::Cpu => format!("{value:.2}"),
            Figure::Memory => tenths(value),
            Figure::Latency => format!("{:.2}", value / 1e3),
        }
    }
}

#[cfg(test)]
mod tests;
