//! The figures of `keepwarm bench https`: its JSON, its table, and in words what warm connections save.
//!
//! Durations in JSON are seconds, as floating-point numbers. A figure that is not known is `null`.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::IpAddr,
    time::Duration,
};

use comfy_table::CellAlignment::{Left, Right};
use serde::Serialize;

use crate::{
    pools::short,
    probe::{
        ask::Failed,
        origin::Origin,
        report::{maybe_seconds, seconds},
    },
    table::{self, Column},
};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Version of keepwarm.
    version: &'static str,
    url: String,
    method: String,
    profile: String,
    proxy: Option<String>,
    addresses: Vec<IpAddr>,
    concurrency: u32,
    machine: Machine,
    runs: Vec<RunResult>,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub(in crate::bench) struct Machine {
    pub(in crate::bench) os: &'static str,
    pub(in crate::bench) arch: &'static str,
    pub(in crate::bench) cores: usize,
    /// `release` or `debug`.
    pub(in crate::bench) build: &'static str,
}

/// What one run came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunResult {
    pub(super) kind: Kind,
    /// Requests that were sent.
    pub(super) requests: u64,
    /// Requests that were planned and not sent, because too many failed.
    pub(super) left_out: u64,
    /// Whatever the status.
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<Failed>,
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Answers over a connection that had served before.
    pub(super) reused: u64,
    pub(super) handshakes_full: u64,
    pub(super) handshakes_resumed: u64,
    pub(super) handshakes_per_request: f64,
    /// Of the bodies.
    pub(super) bytes: u64,
    #[serde(serialize_with = "seconds")]
    pub(super) took: Duration,
    /// Answers a second.
    pub(super) per_second: f64,
    /// From the call to the end of the body; none without an answer.
    pub(super) latency: Option<Latency>,
    /// CPU time of this process, user and system.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) cpu: Option<Duration>,
    /// The same for 10,000 answers.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) cpu_per_10000: Option<Duration>,
}

/// The connections of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// New, with a full handshake.
    Cold,
    /// New, with a ticket.
    Resumed,
    /// Open already.
    Hot,
}

/// Percentiles of all answers: exact, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in crate::bench) struct Latency {
    #[serde(serialize_with = "seconds")]
    pub(in crate::bench) p50: Duration,
    #[serde(serialize_with = "seconds")]
    pub(in crate::bench) p90: Duration,
    #[serde(serialize_with = "seconds")]
    pub(in crate::bench) p99: Duration,
    #[serde(serialize_with = "seconds")]
    pub(in crate::bench) max: Duration,
}

impl Latency {
    /// The percentiles of these times; none of no times.
    pub(in crate::bench) fn of(mut times: Vec<Duration>) -> Option<Latency> {
        times.sort_unstable();
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Latency { p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }
}

impl Machine {
    /// The one that this runs on.
    pub(in crate::bench) fn this() -> Machine {
        Machine {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { os, arch, cores, build } = self;
        write!(f, "{os} {arch}, {cores} cores, {build} build")
    }
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Cold => "cold",
            Kind::Resumed => "resumed",
            Kind::Hot => "hot",
        }
    }
}

impl Report {
    pub(super) fn new(
        origin: &Origin,
        method: &hyper::Method,
        addresses: Vec<IpAddr>,
        concurrency: u32,
        runs: Vec<RunResult>,
    ) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            url: origin.url.to_string(),
            method: method.to_string(),
            profile: origin.profile(),
            proxy: origin.proxy(),
            addresses,
            concurrency,
            machine: Machine::this(),
            runs,
        }
    }

    /// Whether every request was answered.
    pub(super) fn ok(&self) -> bool {
        self.runs.iter().all(|run| run.failed == 0)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{} {}, profile {}", self.method, self.url, self.profile);
        if let Some(proxy) = &self.proxy {
            let _ = write!(text, ", by {proxy}");
        }
        let _ = write!(text, ", {} at a time; {}\n\n", self.concurrency, self.machine);
        text += &table::render(&RUNS, self.runs.iter().map(RunResult::cells));
        let notes: Vec<String> = self.runs.iter().flat_map(RunResult::notes).collect();
        if !notes.is_empty() {
            text.push('\n');
        }
        for note in notes {
            let _ = writeln!(text, "note: {note}");
        }
        if let Some(sentences) = self.sentences() {
            let _ = write!(text, "\n{sentences}");
        }
        text
    }

    /// Cold against hot; none without both.
    fn sentences(&self) -> Option<String> {
        let run = |kind| self.runs.iter().find(|run| run.kind == kind);
        let (cold, hot) = (run(Kind::Cold)?, run(Kind::Hot)?);
        let (slow, quick) = (cold.latency?.p50, hot.latency?.p50);
        let times = slow.as_secs_f64() / quick.as_secs_f64().max(f64::MIN_POSITIVE);
        let (slow, quick) = (short(slow), short(quick));
        let mut text = format!(
            "Over warm connections half of the requests took up to {quick}, over new ones {slow}: {times:.1} times as much.\n"
        );
        if let Some((cold, hot)) = cold.cpu_per_10000.zip(hot.cpu_per_10000) {
            let _ =
                writeln!(text, "10,000 requests cost {} of CPU, and {} over new connections.", short(hot), short(cold));
        }
        Some(text)
    }
}

impl RunResult {
    fn cells(&self) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let latency = |tell: fn(&Latency) -> Duration| or_none(self.latency.as_ref().map(tell).map(short));
        vec![
            self.kind.as_str().to_owned(),
            self.requests.to_string(),
            self.failed.to_string(),
            latency(|latency| latency.p50),
            latency(|latency| latency.p90),
            latency(|latency| latency.p99),
            latency(|latency| latency.max),
            format!("{:.0}", self.per_second),
            or_none(self.cpu_per_10000.map(short)),
            self.handshakes_full.to_string(),
            self.handshakes_resumed.to_string(),
            format!("{:.3}", self.handshakes_per_request),
        ]
    }

    /// What went otherwise than the run's name says.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let name = self.kind.as_str();
        if let Some(failure) = &self.first_failure {
            notes.push(format!("{name}: {} failed, the first: {}", self.failed, failure.error));
        }
        if self.left_out > 0 {
            notes.push(format!("{name}: ended early, {} requests were not sent", self.left_out));
        }
        let odd: Vec<String> = self
            .statuses
            .iter()
            .filter(|(status, _)| **status >= 400)
            .map(|(status, count)| format!("{count} with {status}"))
            .collect();
        if !odd.is_empty() {
            notes.push(format!("{name}: answers {}", odd.join(", ")));
        }
        if self.kind == Kind::Resumed && self.handshakes_full > 0 {
            let (full, all) = (self.handshakes_full, self.handshakes_full + self.handshakes_resumed);
            notes.push(format!(
                "{name}: {full} of {all} handshakes were full, for want of a ticket that the server takes"
            ));
        }
        if self.kind == Kind::Hot && self.reused < self.answered {
            notes.push(format!("{name}: {} answers over new connections", self.answered - self.reused));
        }
        notes
    }
}

const RUNS: [Column; 12] = [
    ("RUN", Left),
    ("REQUESTS", Right),
    ("FAILED", Right),
    ("P50", Right),
    ("P90", Right),
    ("P99", Right),
    ("MAX", Right),
    ("REQ/S", Right),
    ("CPU/10K", Right),
    ("FULL", Right),
    ("RESUMED", Right),
    ("HANDSHAKES/REQ", Right),
];

#[cfg(test)]
mod tests;
