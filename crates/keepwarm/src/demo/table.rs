//! What the demo found, for a terminal: a table of two rows a transport, then in plain words what that means.
//!
//! A terminal that is too narrow for the table gets it in two parts. The figures come from `result`; here they become text.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets::NOTHING};
use keepwarm_dns::config::{PoolSettings, Transport};

use super::{
    plan::{TRANSPORTS, label},
    result::{ANSWERED_MIN, Check, CheckName, DemoResult, RunResult, WARM_DISTANCE, reuse_name},
};

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Columns of the terminal; none when it is not one.
    pub(super) width: Option<u16>,
    /// With colours and bold letters.
    pub(super) colored: bool,
}

/// All that is printed to standard output.
pub(super) fn render(result: &DemoResult, style: Style) -> String {
    let mut text = tables(result, style);
    text += &notes(result);
    text += "\n";
    text += &saved(result);
    text += "\n";
    text += &checks(result, style);
    text += &ending(result);
    text
}

/// A column: its heading, and what it says of a run. All but the first two are figures.
type Column = (&'static str, fn(&RunResult) -> String);

const NAMES: [Column; 2] = [("", |run| transport_once(run)), ("", |run| reuse_name(run.reuse).into())];
const ANSWERS: [Column; 7] = [
    ("queries", |run| count(run.total.queries)),
    ("answered\n%", |run| percent(run.total.answered_percent)),
    ("wrong", |run| count(run.total.wrong)),
    ("sockets", |run| count(run.total.seen.sockets)),
    ("ports", |run| count(run.total.seen.source_ports)),
    ("most\nopen", |run| maybe(run.total.seen.open_max.map(count))),
    ("TCP\nconn.", |run| where_it_is(run.transport != Transport::Udp, run.total.seen.tcp_connects)),
];
const COSTS: [Column; 6] = [
    ("TLS full/\nresumed", |run| handshakes(run)),
    ("burst\nms", |run| millis(run.burst.took)),
    ("p50\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p50)))),
    ("p95\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p95)))),
    ("p99\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p99)))),
    ("CPU\ns", |run| maybe(run.total.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64())))),
];

fn tables(result: &DemoResult, style: Style) -> String {
    let whole: Vec<Column> = NAMES.iter().chain(&ANSWERS).chain(&COSTS).copied().collect();
    let one = table(&result.runs, &whole, style);
    let width = plain_width(&table(&result.runs, &whole, Style { colored: false, ..style }));
    if style.width.is_none_or(|columns| width <= usize::from(columns)) {
        return one;
    }
    let part = |columns: &[Column]| {
        let columns: Vec<Column> = NAMES.iter().chain(columns).copied().collect();
        table(&result.runs, &columns, style)
    };
    format!("{}\n{}", part(&ANSWERS), part(&COSTS))
}

fn table(runs: &[RunResult], columns: &[Column], style: Style) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    match style.colored {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.set_header(columns.iter().map(|(heading, _)| Cell::new(heading).add_attribute(Attribute::Bold)));
    for run in runs {
        let cells = columns.iter().map(|(_, text)| Cell::new(text(run)));
        table.add_row(match run.reuse {
            true => cells.map(|cell| cell.add_attribute(Attribute::Bold)).collect::<Vec<_>>(),
            false => cells.collect(),
        });
    }
    for (index, _) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            let alignment = if index < NAMES.len() { CellAlignment::Left } else { CellAlignment::Right };
            column.set_padding((0, 2)).set_cell_alignment(alignment);
        }
    }
    let mut text = String::new();
    for (number, line) in table.lines().enumerate() {
        // A gap between transports: their two rows are what is to be compared.
        if number > HEADER_LINES && (number - HEADER_LINES) % 2 == 0 {
            text += "\n";
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

fn plain_width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// Whatever differs from what was planned.
fn notes(result: &DemoResult) -> String {
    let mut text = String::new();
    for run in &result.runs {
        let mut note = |words: &str| {
            let _ = writeln!(text, "note: {}: {words}", run.name());
        };
        run.note.iter().for_each(|words| note(words));
        for phase in [&run.burst, &run.paced] {
            let name = phase.phase.as_str();
            if phase.failed + phase.unanswered > 0 {
                let (failed, silent) = (count(phase.failed), count(phase.unanswered));
                note(&format!("{name}: {failed} answered with a failure, {silent} not at all"));
            }
            if let Some(why) = &phase.first_wrong {
                note(&format!("{name}: the first wrong answer: {why}"));
            }
            if phase.lag_max > LAG_WORTH_TELLING {
                note(&format!(
                    "{name}: this machine was so busy that queries left up to {} late",
                    brief(phase.lag_max)
                ));
            }
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// What pooling saved, in a sentence a transport.
fn saved(result: &DemoResult) -> String {
    let load = &result.load;
    let direct = result.direct.map(|direct| format!("; asked directly, {}", brief(direct.p50)));
    let mut text = format!(
        "{} clients ask at the same instant, each query to {} upstreams: the burst.\n\
         Then {} queries a second for {}, the upstreams in turns: p50 to p99, warm.\n\
         The upstreams take {}{}. Most open: to one upstream at one time.\n\n",
        count(load.clients as u64),
        load.upstreams,
        count(load.paced_rate as u64),
        brief(load.paced),
        brief(load.delay),
        direct.unwrap_or_default(),
    );
    for pair in result.runs.chunks_exact(2) {
        let [naive, pooled] = [&pair[0].total, &pair[1].total];
        let transport = pair[0].transport;
        let (what, before, after) = match transport {
            Transport::Udp => ("sockets", naive.seen.sockets, pooled.seen.sockets),
            Transport::Tcp => ("TCP connections", naive.seen.tcp_connects, pooled.seen.tcp_connects),
            Transport::Tls | Transport::Https => ("TLS handshakes", naive.seen.handshakes(), pooled.seen.handshakes()),
        };
        let _ = write!(text, "{}: {} {what} instead of {}", label(transport), count(after), count(before));
        if let Some((naive, pooled)) = naive.cpu.zip(pooled.cpu) {
            let (naive, pooled) = (naive.as_secs_f64(), pooled.as_secs_f64());
            let _ = write!(text, "; {pooled:.2} s of CPU time instead of {naive:.2} s");
        }
        text += ".\n";
    }
    text
}

fn checks(result: &DemoResult, style: Style) -> String {
    let per_upstream = PoolSettings::default().max_per_host;
    let promises = [
        (CheckName::Connections, format!("at most {per_upstream} connections per upstream")),
        (CheckName::Answered, format!("at least {ANSWERED_MIN} % answered")),
        (CheckName::Wrong, "no wrong answer".into()),
        (CheckName::Handshakes, handshake_words(result)),
        (CheckName::WarmP50, format!("warm p50 within {} of {}", brief(WARM_DISTANCE), brief(result.load.delay))),
    ];
    let width = promises.iter().map(|(_, words)| words.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, words) in promises {
        let found: Vec<&Check> = result.checks.iter().filter(|check| check.name == name).collect();
        let ok = found.iter().all(|check| check.ok);
        let verdict = match (ok, style.colored) {
            (true, true) => paint("yes", Color::Green),
            (false, true) => paint("NO ", Color::Red),
            (true, false) => "yes".into(),
            (false, false) => "NO ".into(),
        };
        let mut figures = Vec::new();
        for transport in TRANSPORTS {
            // Both runs are held to right answers; their wrong ones are added up.
            let of_this: Vec<&&Check> = found.iter().filter(|check| check.transport == transport).collect();
            if let Some(check) = of_this.iter().find(|check| !check.ok).or(of_this.last()) {
                figures.push(format!("{} {}", label(transport), maybe(check.value.map(|value| figure(check, value)))));
            }
        }
        let _ = writeln!(text, "{verdict}  {words:width$}  {}", figures.join(", "));
    }
    text
}

/// The promise as it holds for the load that was run.
fn handshake_words(result: &DemoResult) -> String {
    let queries = result.runs.iter().map(|run| run.total.queries).max().unwrap_or(0);
    match queries >= ENOUGH_FOR_A_RATE {
        true => "at most 40 handshakes per 10,000".into(),
        false => "at most 10 handshakes per upstream".into(),
    }
}

fn ending(result: &DemoResult) -> String {
    let machine = &result.machine;
    let what = if result.ok { "Measured on this machine" } else { "Not every promise was kept. Measured" };
    let mut text = format!(
        "\n{what} in {}: {} {}, {} cores, {} build.\n",
        brief(result.took),
        machine.os,
        machine.arch,
        machine.cores,
        machine.build
    );
    if machine.build == "debug" {
        text += "A debug build is several times slower; use: cargo run --release -p keepwarm -- demo\n";
    }
    text
}

fn figure(check: &Check, value: f64) -> String {
    match check.name {
        CheckName::Answered => format!("{} %", percent(value)),
        CheckName::WarmP50 => millis(Duration::from_secs_f64(value)),
        CheckName::Handshakes => format!("{value:.0} of {:.0}", check.limit),
        CheckName::Connections | CheckName::Wrong => format!("{value:.0}"),
    }
}

fn paint(text: &str, color: Color) -> String {
    let code = if color == Color::Green { 32 } else { 31 };
    format!("\u{1b}[1;{code}m{text}\u{1b}[0m")
}

/// The first row of a pair names the transport.
fn transport_once(run: &RunResult) -> String {
    if run.reuse { String::new() } else { label(run.transport).into() }
}

pub(super) fn handshakes(run: &RunResult) -> String {
    match run.transport {
        Transport::Udp | Transport::Tcp => NONE.into(),
        Transport::Tls | Transport::Https => {
            format!("{}/{}", count(run.total.seen.handshakes_full), count(run.total.seen.handshakes_resumed))
        }
    }
}

pub(super) fn where_it_is(is: bool, value: u64) -> String {
    if is { count(value) } else { NONE.into() }
}

pub(super) fn maybe(text: Option<String>) -> String {
    text.unwrap_or_else(|| "n/a".into())
}

/// Never rounded up to 100.
pub(super) fn percent(value: f64) -> String {
    if value >= 100.0 { "100".into() } else { format!("{:.2}", (value * 100.0).floor() / 100.0) }
}

/// Milliseconds: `20.4`, `1,234`.
pub(super) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 99.95 { format!("{millis:.1}") } else { count(millis.round() as u64) }
}

/// Thousands apart: `11,000`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time with three digits, such as `20.4 ms`.
pub(super) fn brief(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..99.95 => {
            let text = format!("{millis:.1}");
            format!("{} ms", text.strip_suffix(".0").unwrap_or(&text))
        }
        ..999.5 => format!("{millis:.0} ms"),
        ..9_995.0 => {
            let text = format!("{:.2}", millis / 1e3);
            format!("{} s", text.strip_suffix(".00").unwrap_or(&text))
        }
        _ => format!("{:.1} s", millis / 1e3),
    }
}

const NONE: &str = "-";
/// A heading and its unit.
const HEADER_LINES: usize = 2;
/// Below it the promise is 10 connections an upstream, which is more than 40 handshakes for 10,000 queries.
const ENOUGH_FOR_A_RATE: u64 = 7_500;
const LAG_WORTH_TELLING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
