//! What the readings come to: one table, the goals it is held against, and the same as Markdown and JSON.
//!
//! Not here: measuring. A goal is judged by the median of the rounds.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Reading;

/// Loads: 1, 4, 64 and 1024 tasks with connections to spare, 64 and 1024 with too few.
pub(crate) const COLUMNS: usize = 6;
/// Waiters cancelled.
pub(crate) const CANCELS: [usize; 2] = [1_000, 16_000];

const UNSATURATED: std::ops::Range<usize> = 0..4;
const SATURATED_64: usize = 4;
const SATURATED_1024: usize = 5;

/// Rows of ours, in the order in which they run.
const HANDLE: usize = 0;
const LOOK_UP: usize = 1;
const STATISTICS: usize = 2;

/// All rounds of one pool.
pub(crate) struct Row {
    name: &'static str,
    pub(crate) readings: [Vec<Reading>; COLUMNS],
    pub(crate) late_binding: Vec<Duration>,
    pub(crate) cancels: [Vec<f64>; CANCELS.len()],
}

impl Row {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, readings: Default::default(), late_binding: Vec::new(), cancels: Default::default() }
    }

    fn nanos(&self, column: usize) -> Option<Spread> {
        Spread::of(self.readings[column].iter().map(|reading| reading.nanos))
    }

    fn cpu(&self, column: usize) -> Option<Spread> {
        Spread::of(self.readings[column].iter().map(|reading| reading.cpu_nanos))
    }

    fn wait_p99(&self, column: usize) -> Option<Spread> {
        Spread::of(self.readings[column].iter().map(|reading| reading.wait_p99.as_secs_f64() * 1e6))
    }

    /// Most operations of a task over fewest; a task that had none counts as having had one.
    fn unfairness(&self, column: usize) -> Option<Spread> {
        Spread::of(self.readings[column].iter().map(|reading| reading.most as f64 / reading.fewest.max(1) as f64))
    }

    fn starves(&self, column: usize) -> bool {
        self.readings[column].iter().any(|reading| reading.fewest == 0)
    }

    fn late_binding(&self) -> Option<Spread> {
        Spread::of(self.late_binding.iter().map(|took| took.as_secs_f64() * 1e3))
    }

    fn cancel(&self, which: usize) -> Option<Spread> {
        Spread::of(self.cancels[which].iter().copied())
    }
}

#[derive(Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Self { least, median: values[values.len() / 2], most })
    }

    fn json(self) -> Value {
        json!({ "least": self.least, "median": self.median, "most": self.most })
    }
}

/// Where the figures come from.
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    system: String,
    load: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned()));
        Self {
            processor: processor.unwrap_or_else(|| "unknown processor".to_owned()),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Reads what `benches/allocations.rs` left, and removes it so that it is never shown beside another build's figures.
pub(crate) fn allocations() -> Option<Value> {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/pool-allocations.json");
    let text = std::fs::read_to_string(path).ok()?;
    std::fs::remove_file(path).ok()?;
    serde_json::from_str(&text).ok()
}

/// A finished run.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) allocations: Option<Value>,
}

impl Report {
    /// The table and the goals.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{}\n", self.where_and_how());
        text.push_str(&figures(&self.rows));
        text.push_str("\nGoals, by the median:\n\n");
        text.push_str(&table(&self.goals()));
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# The pool beside its peers\n\n");
        text.push_str(
            "Written by `cargo bench -p keepwarm-pool -- --markdown ../../docs/pool-bench.md`; not edited by hand.\n\n",
        );
        text.push_str(&self.where_and_how());
        text.push_str("\n## Figures\n\n");
        text.push_str(HOW_TO_READ);
        text.push_str(&figures(&self.rows));
        text.push_str("\n## Goals\n\n");
        text.push_str(&table(&self.goals()));
        text.push_str("\n## Against the peers\n\nTime of the peer divided by time of `keepwarm, host handle, statistics`, medians of the same rounds: above 1 the peer is slower.\n\n");
        text.push_str(&table(&self.ratios()));
        text.push_str("\n## Spread and CPU time\n\nLeast to most of the rounds, wall nanoseconds an operation; then the process's CPU nanoseconds an operation (median).\n\n");
        text.push_str(&table(&self.spreads()));
        text.push_str("\n## Allocations\n\nCounted by a program of its own on one thread, over 10,000 operations after a warm-up.\n\n");
        match &self.allocations {
            Some(counts) => text.push_str(&table(&allocation_table(counts))),
            None => text.push_str("Not measured in this run: `cargo bench -p keepwarm-pool` runs both programs.\n"),
        }
        text.push_str(NOTES);
        text
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        let goals: Vec<Value> = self
            .goals()
            .iter()
            .skip(1)
            .map(|goal| json!({ "what": goal[0], "goal": goal[1], "measured": goal[2], "verdict": goal[3] }))
            .collect();
        let machine = &self.machine;
        let value = json!({
            "machine": {
                "processor": machine.processor, "processors": machine.processors,
                "system": machine.system, "load_before": machine.load,
            },
            "rounds": self.rounds,
            "rows": rows,
            "allocations": self.allocations,
            "goals": goals,
        });
        format!("{value:#}\n")
    }

    fn where_and_how(&self) -> String {
        let Machine { processor, processors, system, load } = &self.machine;
        format!(
            "{processors} processors ({processor}), {system}, load before the run {load}. tokio with 2 workers, 10 dummy connections, \
             median of {} rounds in which each pool had its turn.\n",
            self.rounds
        )
    }

    fn goals(&self) -> Vec<Vec<String>> {
        let mut lines = vec![cells(&["what", "goal", "measured", "verdict"])];
        let hits = [
            ("hit, host handle", HANDLE, 70.0),
            ("hit, key look-up", LOOK_UP, 100.0),
            ("hit, host handle, statistics", STATISTICS, 120.0),
        ];
        for (what, row, goal) in hits {
            let row = &self.rows[row];
            lines.push(at_most(&format!("{what}, 1 task"), goal, "ns", row.nanos(0).map(|spread| spread.median)));
            let worst = UNSATURATED.filter_map(|column| Some(row.nanos(column)?.median)).reduce(f64::max);
            lines.push(at_most(&format!("{what}, worst of 1 to 1024 tasks"), goal, "ns", worst));
        }
        let handle = &self.rows[HANDLE];
        for (tasks, column) in [(64, SATURATED_64), (1024, SATURATED_1024)] {
            let nanos = handle.nanos(column).map(|spread| spread.median);
            lines.push(at_most(&format!("saturated, {tasks} tasks"), 400.0, "ns", nanos));
            // The worst round counts here: fairness is a promise, not an average.
            let unfair = handle.unfairness(column).map(|spread| spread.most);
            lines.push(at_most(
                &format!("saturated, {tasks} tasks, most : fewest operations, worst round"),
                2.0,
                ": 1",
                unfair,
            ));
        }
        for (what, name) in [("allocations a hit", "hit"), ("allocations a hand-off", "hand_off")] {
            let count = self.allocations.as_ref().and_then(|counts| counts[0][name].as_f64());
            lines.push(at_most(what, 0.0, "", count));
        }
        let growth = handle.cancel(1).zip(handle.cancel(0)).map(|(many, few)| many.median / few.median);
        // The goal says O(1) without a figure. 3, for caches that 16,000 tasks do not fit into, was set before anything was measured.
        lines.push(at_most("cost of one cancel, 16,000 waiters : 1,000 waiters (16 if O(n))", 3.0, ": 1", growth));
        let late = handle.late_binding().map(|spread| spread.median);
        lines.push(at_most("connection freed at 20 ms of a 300 ms dial serves at", 22.0, "ms", late));
        lines
    }

    fn ratios(&self) -> Vec<Vec<String>> {
        let mut lines = vec![cells(&["peer", "1 task", "4", "64", "1024", "saturated 64", "saturated 1024"])];
        let ours = &self.rows[STATISTICS];
        for row in self.rows.iter().filter(|row| !row.name.starts_with("keepwarm")) {
            let mut line = vec![row.name.to_owned()];
            line.extend((0..COLUMNS).map(|column| match row.nanos(column).zip(ours.nanos(column)) {
                Some((peer, ours)) => format!("{:.1}", peer.median / ours.median),
                None => "-".to_owned(),
            }));
            lines.push(line);
        }
        lines
    }

    fn spreads(&self) -> Vec<Vec<String>> {
        let mut lines = vec![cells(&["pool", "1 task", "4", "64", "1024", "saturated 64", "saturated 1024"])];
        for row in &self.rows {
            let mut line = vec![row.name.to_owned()];
            line.extend((0..COLUMNS).map(|column| match row.nanos(column).zip(row.cpu(column)) {
                Some((wall, cpu)) => format!("{:.0}-{:.0}; {:.0}", wall.least, wall.most, cpu.median),
                None => "-".to_owned(),
            }));
            lines.push(line);
        }
        lines
    }
}

/// The main table.
pub(crate) fn figures(rows: &[Row]) -> String {
    let mut lines = vec![cells(&[
        "pool",
        "1 task",
        "4",
        "64",
        "1024",
        "saturated 64: ns; p99 us; unfairness",
        "saturated 1024: ns; p99 us; unfairness",
        "late binding ms",
        "cancel 1,000 / 16,000: ns each",
    ])];
    for row in rows {
        let mut line = vec![row.name.to_owned()];
        line.extend(UNSATURATED.map(|column| median(row.nanos(column), 0)));
        for column in [SATURATED_64, SATURATED_1024] {
            line.push(match (row.nanos(column), row.wait_p99(column), row.unfairness(column)) {
                (Some(nanos), Some(p99), Some(unfair)) => {
                    let starves = if row.starves(column) { " (starves)" } else { "" };
                    format!("{:.0}; {:.1}; {:.2}{starves}", nanos.median, p99.median, unfair.median)
                }
                _ => "-".to_owned(),
            });
        }
        line.push(median(row.late_binding(), 1));
        line.push(match (row.cancel(0), row.cancel(1)) {
            (Some(few), Some(many)) => format!("{:.0} / {:.0}", few.median, many.median),
            _ => "-".to_owned(),
        });
        lines.push(line);
    }
    table(&lines)
}

fn row_json(row: &Row) -> Value {
    let loads: Vec<Value> = (0..COLUMNS)
        .map(|column| {
            json!({
                "nanos": row.nanos(column).map(Spread::json),
                "cpu_nanos": row.cpu(column).map(Spread::json),
                "wait_p99_micros": row.wait_p99(column).map(Spread::json),
                "unfairness": row.unfairness(column).map(Spread::json),
                "starves": row.starves(column),
            })
        })
        .collect();
    json!({
        "name": row.name,
        "loads": loads,
        "late_binding_millis": row.late_binding().map(Spread::json),
        "cancel_nanos": [row.cancel(0).map(Spread::json), row.cancel(1).map(Spread::json)],
    })
}

fn allocation_table(counts: &Value) -> Vec<Vec<String>> {
    let mut lines = vec![cells(&["pool", "allocations a hit", "allocations a hand-off"])];
    for row in counts.as_array().into_iter().flatten() {
        let count = |name: &str| row[name].as_f64().map_or_else(|| "-".to_owned(), |count| format!("{count:.2}"));
        lines.push(vec![row["name"].as_str().unwrap_or_default().to_owned(), count("hit"), count("hand_off")]);
    }
    lines
}

/// One line of the goals: a figure that may be at most so much.
fn at_most(what: &str, goal: f64, unit: &str, measured: Option<f64>) -> Vec<String> {
    let with_unit = |text: String| format!("{text} {unit}").trim_end().to_owned();
    let (figure, verdict) = match measured {
        None => ("-".to_owned(), "not measured".to_owned()),
        Some(measured) => {
            let decimals = if measured < 10.0 { 2 } else { 1 };
            let verdict = match (measured <= goal, goal > 0.0) {
                (true, true) => format!("met ({:.0} % below)", (1.0 - measured / goal) * 100.0),
                (true, false) => "met".to_owned(),
                (false, true) => format!("**not met** ({:.0} % above)", (measured / goal - 1.0) * 100.0),
                (false, false) => format!("**not met** ({measured:.2} above)"),
            };
            (with_unit(format!("{measured:.decimals$}")), verdict)
        }
    };
    vec![what.to_owned(), format!("<= {}", with_unit(goal.to_string())), figure, verdict]
}

fn median(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.decimals$}", spread.median))
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// A Markdown table with its columns aligned, so that it reads on a terminal as well. The first line is the head.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            write!(text, "| {cell:width$} ").expect("a string takes everything");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                write!(text, "|{:-<1$}", "", width + 2).expect("a string takes everything");
            }
            text.push_str("|\n");
        }
    }
    text
}

const HOW_TO_READ: &str = "\
Nanoseconds of wall time an acquire and release. The first four columns have connections to spare; in the saturated ones each lease is
held over one turn of the scheduler, so that all 10 are always out. *p99* is the time from asking to having, *unfairness* the
operations of the task that had most, divided by those of the task that had fewest. *Late binding*: a connection comes back 20 ms into
a 300 ms dial; when is the waiter served?

";

const NOTES: &str = "
## Notes

- Each pool is in its fastest documented configuration: no check on checkout, room for all connections to stay idle. Time-outs are the
  defaults: keepwarm 10 s, bb8 and mobc 30 s, deadpool none; so deadpool is there twice, since a pool without a time-out has less to do.
- The goal for cancels is O(1) without a figure; the 3 : 1 is this bench's reading of it, set before the first run. O(n) would be 16 : 1.
  The futures are boxed and dropped in random order, so 16,000 of them miss the caches whatever the pool does: the peers' cost grows as
  well. The ratio varies from run to run, so a verdict near the line says little.
- With more than one task a figure has two levels: where both processors are really there, the workers contend for the same cache
  lines; where a neighbour takes one, they hardly meet and every pool looks faster. The spread shows both; only pools of the same run
  can be compared, and absolute goals only with that in mind.
- Where nothing waits a task yields after each 512 operations, so that tasks take turns.
- hyper-util's legacy pool is private and cannot be reached from outside; through its `Client` one would time a whole HTTP exchange.
  What hyper-util offers as a pool to others, `client::pool::cache`, is here instead. It has no limit, so it never waits and has no
  figures where waiting is measured.
- A pool that starves some tasks has a small p99, because those that it starves are not among the samples: read p99 and unfairness
  together.
";
