//! The page: where and how it was measured, the goals, then a table a row.

use std::fmt::Write as _;

use super::{
    peers::Kind,
    reading::Reading,
    row::{Figure, Row},
};
use crate::{
    figures::{Percent, Spread, tenths, whole},
    machine::Machine,
};

mod goals;

/// A finished run.
pub(super) struct Report {
    pub(super) machine: Machine,
    /// Names and versions of the proxies.
    pub(super) versions: Vec<String>,
    /// The proxy that is far away.
    pub(super) far: &'static str,
    /// Whether the load and the proxies had a core each.
    pub(super) is_split: bool,
    /// Proxies that are not there, and why.
    pub(super) missed: Vec<String>,
    pub(super) reps: u32,
    pub(super) is_quick: bool,
    pub(super) tables: Vec<Table>,
}

/// What was measured of a row.
pub(super) struct Table {
    pub(super) row: Row,
    pub(super) quick: bool,
    pub(super) lines: Vec<Line>,
}

/// One proxy in one row.
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) readings: Vec<Reading>,
    /// Why there is nothing, or not all.
    pub(super) error: Option<String>,
}

impl Line {
    pub(super) fn new(kind: Kind, row: Row) -> Line {
        Line { kind, name: kind.title(row), readings: Vec::new(), error: None }
    }

    fn spread(&self, figure: impl Fn(&Reading) -> f64) -> Option<Spread> {
        Spread::of(self.readings.iter().map(figure))
    }

    /// The median of what its row compares.
    fn median(&self, figure: Figure) -> Option<f64> {
        self.spread(|reading| reading.figure(figure)).map(|spread| spread.median)
    }

    fn show(&self, of: impl Fn(&Reading) -> f64, one: impl Fn(f64) -> String) -> String {
        self.spread(of).map_or("-".to_owned(), |spread| spread.show(one))
    }
}

impl Report {
    /// The page.
    pub(super) fn markdown(&self) -> String {
        let mut out = self.head();
        out.push_str(&goals::section(&self.tables));
        for table in self.tables.iter().filter(|table| !table.lines.is_empty()) {
            out.push_str(&table.markdown());
        }
        out
    }

    fn head(&self) -> String {
        let Machine { processor, cores, kernel, load, date } = &self.machine;
        let missed: String = self.missed.iter().map(|line| format!("- {line}\n")).collect();
        let pinned = if self.is_split { "the proxy on one core, everything else on another" } else { "nothing pinned" };
        let reps = if self.reps == 1 { "1 repetition".to_owned() } else { format!("{} repetitions", self.reps) };
        let quick = if self.is_quick { " A quick run: these figures only show that it works." } else { "" };
        format!(
            "# SOCKS5 proxies beside each other\n\n\
             `cargo run --release -p keepwarm-bench -- tunnel` makes this page.{quick}\n\n\
             - {date}, {processor}, {cores} cores, {kernel}, load {load} before the run\n\
             - {versions}\n\
             - loopback; {pinned}; upstream proxies want user and password: the near one is the bench's own relay, the one 50 ms away \
             {far} behind a relay that holds everything for 25 ms in each direction, and what a client says first for as long as its \
             SYN would have taken\n\
             - {reps}, proxies in turn within each, each started anew; median (lowest..highest)\n{missed}\n\
             CPU is user and system time of the proxy and all its threads and processes, ended ones included. *Core used* is that time \
             by the time that passed: where it is far below 100 % the load was the limit, and the rate says little about the proxy. \
             Ratios are keepwarm's figure divided by that proxy's: below 1 keepwarm needs less. *Survey* is what another machine showed \
             when the goals were set; this machine's floors and peers beside it tell how the two compare.\n",
            versions = self.versions.join(", "),
            far = self.far,
        )
    }
}

impl Table {
    fn line(&self, kind: Kind) -> Option<&Line> {
        self.lines.iter().find(|line| line.kind == kind)
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        self.line(kind)?.median(self.row.figure())
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
        for note in self.lines.iter().flat_map(notes) {
            let _ = write!(out, "\n- {note}");
        }
        if out.ends_with('\n') { out } else { out + "\n" }
    }

    fn heads(&self) -> Vec<&'static str> {
        match self.row.figure() {
            Figure::Setup => vec![
                "proxy",
                "CPU s per 10,000",
                "tunnels/s",
                "ready p50 us",
                "ready p99 us",
                "core used",
                "keepwarm's ratio",
                "survey",
            ],
            Figure::Relay => {
                vec!["proxy", "CPU s per GB", "GB/s", "core used", "by the floor", "keepwarm's ratio", "survey"]
            }
            Figure::Ready => vec![
                "proxy",
                "ready p50 ms",
                "p90",
                "p99",
                "first byte p50 ms",
                "p90",
                "in one round trip",
                "keepwarm's ratio",
                "survey",
            ],
            Figure::Memory => {
                vec!["proxy", "KiB per tunnel", "MiB before", "sockets per tunnel", "threads", "keepwarm's ratio"]
            }
        }
    }

    fn cells(&self, line: &Line) -> Vec<String> {
        let figure = self.row.figure();
        let mut cells = vec![line.show(|reading| reading.figure(figure), |value| figure.show(value))];
        let core = || line.show(Reading::busy, |share| format!("{:.0} %", 100.0 * share));
        match figure {
            Figure::Setup => cells.extend([
                line.show(|reading| reading.rate(self.row), whole),
                line.show(|reading| reading.outcome.ready.p50, whole),
                line.show(|reading| reading.outcome.ready.p99, whole),
                core(),
            ]),
            Figure::Relay => cells.extend([
                line.show(|reading| reading.rate(self.row), |value| format!("{value:.2}")),
                core(),
                self.by_the_floor(line),
            ]),
            Figure::Ready => cells.extend([
                line.show(|reading| reading.outcome.ready.p90, millis),
                line.show(|reading| reading.outcome.ready.p99, millis),
                line.show(|reading| reading.outcome.first.p50, millis),
                line.show(|reading| reading.outcome.first.p90, millis),
                line.show(Reading::soon, |share| Percent(share).to_string()),
            ]),
            Figure::Memory => cells.extend([
                line.show(|reading| reading.held[0].memory as f64 / f64::from(1 << 20), tenths),
                line.show(Reading::sockets, tenths),
                line.show(|reading| reading.held[1].threads as f64, whole),
            ]),
        }
        cells.push(ratio(self.median(Kind::Keepwarm), line.median(figure)));
        if figure != Figure::Memory {
            cells.push(self.row.survey(line.kind).map_or("-".to_owned(), |value| figure.show(value)));
        }
        cells
    }

    /// How many times what splice(2) alone needs.
    fn by_the_floor(&self, line: &Line) -> String {
        ratio(line.median(self.row.figure()), self.median(Kind::Splice))
    }

    /// The best first.
    fn sorted(&self) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        let median = |line: &Line| line.median(self.row.figure()).unwrap_or(f64::INFINITY);
        lines.sort_by(|a, b| median(a).total_cmp(&median(b)));
        lines
    }

    fn how(&self) -> String {
        let amount = self.row.amount(Kind::Keepwarm, self.quick);
        match self.row.figure() {
            Figure::Setup => {
                let others = if self.row.has_upstream() { " The upstream's CPU is not counted" } else { "" };
                let end = if others.is_empty() { "" } else { "." };
                format!(
                    "{} tunnels each: connect, greeting, CONNECT by address, one byte there and back, close{end}{others}",
                    whole(amount as f64)
                )
            }
            Figure::Relay => format!("{} GB each, in all streams together", amount as f64 / 1e9),
            Figure::Ready => format!(
                "{} tunnels of keepwarm and {} of the others, at random moments that are the same for all, after those of three seconds \
                 that do not count. *Ready* is from the client's connect to the proxy's word, *first byte* to the destination's answer to \
                 one byte. A tunnel that failed counts as not ready in one round trip",
                whole(amount as f64),
                whole(self.row.amount(Kind::Microsocks, self.quick) as f64),
            ),
            Figure::Memory => format!(
                "Growth of resident memory by {} tunnels that carried one byte there and back, divided by their number; a page that several \
                 processes share counts once. Threads are those with all tunnels open",
                whole(amount as f64)
            ),
        }
    }
}

/// What a reader has to know to trust a line, or not to.
fn notes(line: &Line) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(error) = &line.error {
        notes.push(format!("{}: {}", line.name, error.replace('|', "/")));
    }
    let failed: u64 = line.readings.iter().map(|reading| reading.outcome.failed).sum();
    if failed > 0 {
        let why = line.readings.iter().find_map(|reading| reading.outcome.error.as_deref()).unwrap_or("unknown");
        notes.push(format!("{}: {} tunnels failed, the first one with: {why}", line.name, whole(failed as f64)));
    }
    if line.readings.iter().any(Reading::is_disturbed) {
        let most = line.spread(|reading| reading.foreign_cores).map_or(0.0, |spread| spread.most);
        notes.push(format!("{}: others used up to {most:.2} cores meanwhile", line.name));
    }
    notes
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    let both = ours.zip(theirs).filter(|(_, theirs)| *theirs > 0.0);
    both.map_or("-".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs))
}

fn millis(micros: f64) -> String {
    format!("{:.2}", micros / 1e3)
}

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Figure::Setup | Figure::Relay => "s",
            Figure::Ready => "ms",
            Figure::Memory => "KiB",
        }
    }

    /// A value of it; times are kept in microseconds and shown in milliseconds.
    fn show(self, value: f64) -> String {
        match self {
            Figure::Setup | Figure::Relay if value < 1.0 => format!("{value:.3}"),
            Figure::Setup | Figure::Relay => format!("{value:.2}"),
            Figure::Ready => millis(value),
            Figure::Memory => tenths(value),
        }
    }
}

#[cfg(test)]
mod tests;
