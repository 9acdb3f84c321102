//! What the demo found in words and figures, the same for the terminal and for the report page.
//!
//! Layout is not here, and neither is any figure that was not measured: these functions only choose and format.

use std::{fmt::Write as _, time::Duration};

use keepwarm_dns::config::{PoolSettings, Transport};

use super::{
    plan::{TRANSPORTS, label},
    result::{ANSWERED_MIN, Check, CheckName, DemoResult, RunResult, Source, WARM_DISTANCE, reuse_name},
};

/// A column: its heading, and what it says of a run. All but the first two are figures.
pub(super) type Column = (&'static str, fn(&RunResult) -> String);

/// Which run it is; the first row of a pair names the transport.
pub(super) const NAMES: [Column; 2] = [("", |run| transport_once(run)), ("", |run| reuse_name(run.reuse).into())];
/// What came back, and over how many connections.
pub(super) const ANSWERS: [Column; 7] = [
    ("queries", |run| count(run.total.queries)),
    ("answered\n%", |run| percent(run.total.answered_percent)),
    ("wrong", |run| count(run.total.wrong)),
    ("sockets", |run| count(run.total.seen.sockets)),
    ("ports", |run| count(run.total.seen.source_ports)),
    ("most\nopen", |run| most_open(run)),
    ("TCP\nconn.", |run| where_it_is(run.transport != Transport::Udp, run.total.seen.tcp_connects)),
];
/// What it cost.
pub(super) const COSTS: [Column; 6] = [
    ("TLS full/\nresumed", |run| handshakes(run)),
    ("burst\nms", |run| millis(run.burst.took)),
    ("p50\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p50)))),
    ("p95\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p95)))),
    ("p99\nms", |run| maybe(run.paced.warm.map(|warm| millis(warm.p99)))),
    ("CPU\ns", |run| maybe(run.total.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64())))),
];

/// Whatever differs from what was planned.
pub(super) fn notes(result: &DemoResult) -> Vec<String> {
    let mut notes = Vec::new();
    for run in &result.runs {
        let mut note = |words: &str| notes.push(format!("{}: {words}", run.name()));
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
    notes
}

/// What was done, a line a sentence.
pub(super) fn load(result: &DemoResult) -> [String; 4] {
    let load = &result.load;
    let direct = result.direct.map(|direct| format!("; asked directly, {}", brief(direct.p50)));
    [
        format!(
            "{} clients ask at the same instant, each query to {} upstreams: the burst.",
            count(load.clients as u64),
            load.upstreams
        ),
        format!(
            "Then {} queries a second for {}, the upstreams in turns: p50 to p99, warm.",
            count(load.paced_rate as u64),
            brief(load.paced)
        ),
        format!("The upstreams take {}{}. The cache is off.", brief(load.delay), direct.unwrap_or_default()),
        "Most open: to one upstream at one time (~ sampled). CPU: of the server.".into(),
    ]
}

/// What pooling saved, a line a transport.
pub(super) fn savings(result: &DemoResult) -> Vec<String> {
    let mut lines = Vec::new();
    for pair in result.runs.chunks_exact(2) {
        let [naive, pooled] = [&pair[0].total, &pair[1].total];
        let transport = pair[0].transport;
        let (what, before, after) = match transport {
            Transport::Udp => ("sockets", naive.seen.sockets, pooled.seen.sockets),
            Transport::Tcp => ("TCP connections", naive.seen.tcp_connects, pooled.seen.tcp_connects),
            _ => ("TLS handshakes", naive.seen.handshakes(), pooled.seen.handshakes()),
        };
        let mut line = format!("{}: {} {what} instead of {}", label(transport), count(after), count(before));
        if let Some((naive, pooled)) = naive.cpu.zip(pooled.cpu) {
            let (naive, pooled) = (naive.as_secs_f64(), pooled.as_secs_f64());
            let _ = write!(line, "; {pooled:.2} s of CPU time instead of {naive:.2} s");
        }
        if naive.queries != pooled.queries {
            let _ = write!(line, ", for {} queries instead of {}", count(pooled.queries), count(naive.queries));
        }
        lines.push(line + ".");
    }
    lines
}

/// A promise, whether it was kept by all, and the figures.
#[derive(Debug)]
pub(super) struct Promise {
    /// Kept by every run that it is asked of.
    pub(super) ok: bool,
    /// What was promised.
    pub(super) words: String,
    /// What came of it for each transport.
    pub(super) figures: String,
}

/// All promises.
pub(super) fn promises(result: &DemoResult) -> Vec<Promise> {
    let per_upstream = PoolSettings::default().max_per_host;
    let near = format!("warm p50 within {} of {}", brief(WARM_DISTANCE), brief(result.load.delay));
    let promises = [
        (CheckName::Connections, format!("at most {per_upstream} connections per upstream")),
        (CheckName::Answered, format!("at least {ANSWERED_MIN} % answered")),
        (CheckName::Wrong, "no wrong answer".into()),
        (CheckName::Handshakes, handshake_words(result)),
        (CheckName::WarmP50, near),
    ];
    let promises = promises.into_iter();
    promises
        .map(|(name, words)| {
            let found: Vec<&Check> = result.checks.iter().filter(|check| check.name == name).collect();
            let mut figures = Vec::new();
            for transport in TRANSPORTS {
                let of_this: Vec<&&Check> = found.iter().filter(|check| check.transport == transport).collect();
                // Both runs are held to right answers: the one that failed is the one to show.
                if let Some(check) = of_this.iter().find(|check| !check.ok).or(of_this.last()) {
                    figures.push(format!(
                        "{} {}",
                        label(transport),
                        maybe(check.value.map(|value| figure(check, value)))
                    ));
                }
            }
            Promise { ok: found.iter().all(|check| check.ok), words, figures: figures.join(", ") }
        })
        .collect()
}

/// The promise as it holds for the load that was run.
fn handshake_words(result: &DemoResult) -> String {
    let queries = result.runs.iter().map(|run| run.total.queries).max().unwrap_or(0);
    match queries >= ENOUGH_FOR_A_RATE {
        true => "at most 40 handshakes per 10,000".into(),
        false => "at most 10 handshakes per upstream".into(),
    }
}

/// Where and how long it ran.
pub(super) fn ending(result: &DemoResult) -> String {
    let what = if result.ok { "Measured on this machine" } else { "Not every promise was kept. Measured" };
    let (took, machine) = (brief(result.took), &result.machine);
    let mut text =
        format!("{what} in {took}: {} {}, {} cores, {} build.", machine.os, machine.arch, machine.cores, machine.build);
    if machine.build == "debug" {
        text += "\nA debug build is several times slower: cargo run --release -p keepwarm -- demo";
    }
    text
}

fn figure(check: &Check, value: f64) -> String {
    match check.name {
        CheckName::Answered => percent(value),
        CheckName::WarmP50 => millis(Duration::from_secs_f64(value)),
        CheckName::Handshakes => format!("{value:.0} of {:.0}", check.limit),
        CheckName::Connections | CheckName::Wrong => format!("{value:.0}"),
    }
}

/// The first row of a pair names the transport.
fn transport_once(run: &RunResult) -> String {
    if run.reuse { String::new() } else { label(run.transport).into() }
}

fn handshakes(run: &RunResult) -> String {
    match run.transport {
        Transport::Udp | Transport::Tcp => NONE.into(),
        _ => {
            format!("{}/{}", count(run.total.seen.handshakes_full), count(run.total.seen.handshakes_resumed))
        }
    }
}

fn most_open(run: &RunResult) -> String {
    let about = if run.burst.open_max_source == Source::Server { "~" } else { "" };
    maybe(run.total.seen.open_max.map(|open| format!("{about}{}", count(open))))
}

fn where_it_is(is: bool, value: u64) -> String {
    if is { count(value) } else { NONE.into() }
}

fn maybe(text: Option<String>) -> String {
    text.unwrap_or_else(|| "n/a".into())
}

/// Never rounded up to 100.
pub(super) fn percent(value: f64) -> String {
    if value >= 100.0 { "100".into() } else { format!("{:.2}", (value * 100.0).floor() / 100.0) }
}

/// Milliseconds: `20.4`, `1,234`.
pub(super) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 99.95 { format!("{millis:.1}") } else { whole(millis) }
}

/// Thousands apart: `11,000`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// The nearest whole number, thousands apart.
pub(super) fn whole(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
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
/// Below it the promise is 10 connections an upstream, which is more than 40 handshakes for 10,000 queries.
const ENOUGH_FOR_A_RATE: u64 = 7_500;
const LAG_WORTH_TELLING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_easily_and_are_not_made_better() {
        assert_eq!([0, 999, 1_000, 11_000, 1_234_567].map(count), ["0", "999", "1,000", "11,000", "1,234,567"]);
        assert_eq!([100.0, 99.999, 99.9, 0.0].map(percent), ["100", "99.99", "99.90", "0.00"]);
        let times = [900, 20_000, 20_440, 101_000, 1_234_000, 4_000_000, 12_345_000].map(Duration::from_micros);
        assert_eq!(times.map(brief), ["0.9 ms", "20 ms", "20.4 ms", "101 ms", "1.23 s", "4 s", "12.3 s"]);
        assert_eq!(times.map(millis), ["0.9", "20.0", "20.4", "101", "1,234", "4,000", "12,345"]);
    }
}
