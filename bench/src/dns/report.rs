//! The page: where and how it was measured, then a table a row.

use std::{fmt::Write as _, time::Duration};

use super::{
    figures::{Line, Reading, Rep},
    memory::Held,
    peers::{Kind, Peer},
    plan::Row,
    scaling::Scaled,
};
use crate::{
    figures::{Percent, Spread, mebibytes, tenths, whole},
    machine::Machine,
};

mod chart;

/// A finished run.
pub(super) struct Report {
    pub(super) machine: Machine,
    /// What was run, after the program's name.
    pub(super) command: String,
    pub(super) peers: Vec<Peer>,
    /// Servers that are not there, and why.
    pub(super) missed: Vec<String>,
    pub(super) threads: u32,
    pub(super) reps: u32,
    pub(super) length: Duration,
    pub(super) tables: Vec<Table>,
}

/// What was measured of a row.
pub(super) enum Table {
    Servers { row: Row, lines: Vec<Line> },
    Memory(Vec<Held>),
    Scaling(Vec<Scaled>),
}

impl Report {
    /// The page, with a chart if there is one.
    pub(super) fn markdown(&self, chart: Option<&str>) -> String {
        let mut out = self.head();
        if let Some(chart) = chart {
            let _ = writeln!(out, "\n![CPU time per query, by server and path]({chart})");
        }
        for table in &self.tables {
            out.push_str(&match table {
                Table::Servers { row, lines } => servers(*row, lines),
                Table::Memory(held) => memory(held),
                Table::Scaling(scaled) => scaling(scaled),
            });
        }
        out
    }

    /// The chart, as SVG.
    pub(super) fn chart(&self) -> anyhow::Result<String> {
        let groups: Vec<chart::Group<'_>> = self
            .tables
            .iter()
            .filter_map(|table| match table {
                Table::Servers { row, lines } => Some(chart::Group { title: row.title(), lines: sorted(lines) }),
                Table::Memory(_) | Table::Scaling(_) => None,
            })
            .collect();
        chart::draw(&groups)
    }

    fn head(&self) -> String {
        let Machine { processor, cores, kernel, load, date } = &self.machine;
        let versions: Vec<String> = self
            .peers
            .iter()
            .filter(|peer| peer.kind != Kind::Floor)
            .map(|peer| format!("{} {}", peer.kind.name(), peer.version))
            .collect();
        let missed: String = self.missed.iter().map(|line| format!("- {line}\n")).collect();
        format!(
            "# DNS forwarders beside each other\n\n\
             `cargo run --release -p keepwarm-bench -- {command}` made this page, and makes it again.\n\n\
             - {date}, {processor}, {cores} cores, {kernel}, load {load} before the run\n\
             - {versions}; {threads} threads each unless the name says otherwise\n\
             - loopback; upstream and load generator on one core, the server on another; every answer checked for id, \
             question, rcode and address\n\
             - {repetitions} of {length} s, servers in turn within each; median (lowest..highest)\n{missed}\n\
             CPU is the server's user and system time per right answer, in microseconds, at its highest rate. It tells more \
             than the rate, which follows the other load of the machine. At a fixed 20,000 queries a second each wake-up \
             serves fewer queries, so those figures compare with each other only. Latencies are what a client sees, in \
             microseconds.\n",
            command = self.command,
            versions = versions.join(", "),
            threads = self.threads,
            repetitions = if self.reps == 1 { "1 repetition".to_owned() } else { format!("{} repetitions", self.reps) },
            length = self.length.as_secs_f64(),
        )
    }
}

/// The cheapest first.
fn sorted(lines: &[Line]) -> Vec<&Line> {
    let mut lines: Vec<&Line> = lines.iter().collect();
    let cpu = |line: &Line| line.cpu().map_or(f64::INFINITY, |cpu| cpu.median);
    lines.sort_by(|a, b| cpu(a).total_cmp(&cpu(b)));
    lines
}

fn servers(row: Row, lines: &[Line]) -> String {
    let mut heads = vec!["server", "CPU", "queries/s", "CPU at 20k/s", "p50 / p99 at 5k/s", "p50 / p99 at 20k/s"];
    if row.has_delay() {
        heads.extend(["queries/s, upstream 10 ms away", "lost there"]);
    }
    heads.extend(["RSS MiB idle, loaded", "failed"]);
    let mut out = table_head(row.title(), &heads);
    let sorted = sorted(lines);
    for line in &sorted {
        let mut cells = vec![line.name.clone()];
        if line.reps.is_empty() {
            cells.push("not measured".to_owned());
        } else {
            cells.extend(server_cells(row, line));
        }
        cells.resize(heads.len(), "-".to_owned());
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let notes: Vec<String> = sorted.into_iter().flat_map(|line| notes(row, line)).collect();
    if !notes.is_empty() {
        let _ = write!(out, "\n{}", notes.into_iter().map(|note| format!("- {note}\n")).collect::<String>());
    }
    out
}

fn server_cells(row: Row, line: &Line) -> Vec<String> {
    let show =
        |spread: Option<Spread>, one: fn(f64) -> String| spread.map_or("-".to_owned(), |spread| spread.show(one));
    let latencies = |at: fn(&Rep) -> Option<&Reading>| {
        let median =
            |figure: fn(&Reading) -> f64| line.spread(|rep| at(rep).map(figure)).map(|spread| whole(spread.median));
        match (median(|reading| reading.p50), median(|reading| reading.p99)) {
            (Some(p50), Some(p99)) => format!("{p50} / {p99}"),
            _ => "-".to_owned(),
        }
    };
    let mut cells = vec![
        show(line.cpu(), tenths),
        show(line.spread(|rep| rep.most.holds().then_some(rep.most.rate)), |rate| {
            whole((rate / 100.0).round() * 100.0)
        }),
        show(line.spread(|rep| Some(rep.at_20k.as_ref()?.cpu)), tenths),
        latencies(|rep| rep.at_5k.as_ref()),
        latencies(|rep| rep.at_20k.as_ref()),
    ];
    if row.has_delay() {
        let rate = line.spread(|rep| Some(rep.delayed.as_ref()?.rate));
        cells.push(show(rate, |rate| whole((rate / 100.0).round() * 100.0)));
        let lost = line.spread(|rep| rep.delayed.as_ref().map(|found| share(found.failed, found.sent)));
        cells.push(lost.map_or("-".to_owned(), |lost| Percent(lost.median).to_string()));
    }
    let idle = line.spread(|rep| Some(rep.rss_idle as f64));
    let loaded = line.spread(|rep| Some(loads(rep).map(|reading| reading.rss).max()? as f64));
    let memory =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| tenths(spread.median / f64::from(1 << 20)));
    cells.push(format!("{}, {}", memory(idle), memory(loaded)));
    let (failed, sent) =
        undelayed(line).fold((0, 0), |(failed, sent), found| (failed + found.failed, sent + found.sent));
    cells.push(format!("{} of {}", whole(failed as f64), whole(sent as f64)));
    cells
}

/// All readings of a repetition.
fn loads(rep: &Rep) -> impl Iterator<Item = &Reading> {
    [Some(&rep.most), rep.at_5k.as_ref(), rep.at_20k.as_ref(), rep.delayed.as_ref()].into_iter().flatten()
}

/// All readings but those with a far upstream, whose losses have a column.
fn undelayed(line: &Line) -> impl Iterator<Item = &Reading> {
    line.reps.iter().flat_map(|rep| [Some(&rep.most), rep.at_5k.as_ref(), rep.at_20k.as_ref()]).flatten()
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What a reader has to know to trust a line, or not to.
fn notes(row: Row, line: &Line) -> Vec<String> {
    let name = &line.name;
    let mut notes = Vec::new();
    if let Some(error) = &line.error {
        notes.push(format!("{name}: {}", error.replace('|', "/")));
    }
    let wrong: u64 = line.reps.iter().flat_map(loads).map(|reading| reading.wrong).sum();
    if wrong > 0 {
        notes.push(format!("{name}: {} answers were **wrong** (id, question or address)", whole(wrong as f64)));
    }
    let foreign = line.spread(|rep| Some(rep.most.foreign_cores));
    if let Some(foreign) = foreign.filter(|_| line.reps.iter().any(|rep| rep.most.is_disturbed())) {
        notes.push(format!("{name}: others used up to {:.2} cores meanwhile", foreign.most));
    }
    let idle = line.spread(|rep| Some(rep.most.server_cores)).filter(|cores| cores.median < 0.9);
    if let Some(cores) = idle.filter(|_| !line.reps.is_empty()) {
        notes.push(format!(
            "{name}: kept {:.2} of its core busy at its highest rate; something else was the limit",
            cores.median
        ));
    }
    let asked = line.spread(|rep| Some(rep.most.upstream)).map_or(1.0, |asked| asked.median);
    let is_floor = name.starts_with('*');
    if row == Row::Cache && asked > 0.01 && !is_floor {
        notes.push(format!("{name}: {} of the queries went to the upstream, so those are no hits", Percent(asked)));
    }
    if row != Row::Cache && !(0.98..=1.02).contains(&asked) {
        notes.push(format!("{name}: the upstream saw {asked:.2} queries for each of a client"));
    }
    notes
}

fn memory(held: &[Held]) -> String {
    let heads =
        ["server", "RSS MiB idle", "full cache of 16 MiB", "and 10,000 in flight", "reached the upstream", "failed"];
    let mut out = table_head(Row::Memory.title(), &heads);
    for Held { name, idle, full, in_flight, reached, failed } in held {
        let [idle, full, in_flight] = [idle, full, in_flight].map(|octets| mebibytes(*octets));
        let (reached, failed) = (whole(*reached as f64), Percent(*failed));
        let _ = writeln!(out, "| {name} | {idle} | {full} | {in_flight} | {reached} | {failed} |");
    }
    out.push_str(
        "\nResident memory, shared pages included, after 200,000 names; then 10,000 queries a second whose answers take a \
         second. Servers whose cache counts entries have 65,536, which is 16 MiB at 256 octets each.\n",
    );
    out
}

fn scaling(scaled: &[Scaled]) -> String {
    if scaled.is_empty() {
        return format!("\n## {}\n\nNeeds keepwarm and two cores.\n", Row::Scaling.title());
    }
    let heads = ["load", "workers", "queries/s", "CPU", "queries/s and core, 1 s / CPU", "limit"];
    let mut out = table_head(Row::Scaling.title(), &heads);
    for line in scaled {
        let show = |spread: Option<Spread>, one: fn(f64) -> String| spread.map_or("-".to_owned(), |s| s.show(one));
        let rate = show(line.spread(|reading| reading.rate), |rate| whole((rate / 100.0).round() * 100.0));
        let cpu = line.spread(|reading| reading.cpu);
        let capacity = cpu.map_or("-".to_owned(), |cpu| whole((1e4 / cpu.median).round() * 100.0));
        let cpu = show(cpu, tenths);
        let _ = writeln!(out, "| {} | {} | {rate} | {cpu} | {capacity} | {} |", line.load, line.workers, line.limit());
    }
    out.push_str(
        "\nOne worker has a core of its own; two share both cores with upstream and load generator. Where CPU per query does \
         not grow with the workers, capacity is the cores divided by it.\n",
    );
    out
}

fn table_head(title: &str, heads: &[&str]) -> String {
    let rule = heads.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "--:" }).collect::<Vec<_>>();
    format!("\n## {title}\n\n| {} |\n| {} |\n", heads.join(" | "), rule.join(" | "))
}

#[cfg(test)]
mod tests;
