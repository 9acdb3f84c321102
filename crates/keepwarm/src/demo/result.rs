//! What the demo found, as its JSON has it, and whether that is what keepwarm promises.
//!
//! Durations in JSON are seconds. A figure that this system does not tell is `null`.

use std::time::Duration;

use keepwarm_dns::config::{PoolSettings, Transport};
use serde::Serialize;

use super::{
    latency::{Latency, maybe_seconds, seconds},
    plan::{DELAY, Phase, UPSTREAMS, label},
};

/// Everything that was measured; the object that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DemoResult {
    /// Version of keepwarm.
    pub(super) version: &'static str,
    /// Whether all checks passed.
    pub(super) ok: bool,
    /// Whether the load was the small one of `--quick`.
    pub(super) quick: bool,
    /// Seed of the names.
    pub(super) seed: u64,
    /// The machine.
    pub(super) machine: Machine,
    /// The load.
    pub(super) load: Load,
    /// Latency of an upstream asked directly over UDP: what keepwarm cannot be faster than here.
    pub(super) direct: Option<Latency>,
    /// Two a transport: reuse off, then pooled.
    pub(super) runs: Vec<RunResult>,
    /// What was promised, and whether it was kept.
    pub(super) checks: Vec<Check>,
    /// How long the demo took.
    #[serde(serialize_with = "seconds")]
    pub(super) took: Duration,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// Operating system.
    pub(super) os: &'static str,
    /// Processor architecture.
    pub(super) arch: &'static str,
    /// Processors that this process may use.
    pub(super) cores: usize,
    /// `release` or `debug`.
    pub(super) build: &'static str,
    /// Files that a process may have open; none: no limit.
    pub(super) open_files: Option<u64>,
}

/// The load of every run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Load {
    /// Upstreams.
    pub(super) upstreams: usize,
    /// What an upstream takes for an answer.
    #[serde(serialize_with = "seconds")]
    pub(super) delay: Duration,
    /// Clients as planned; a run tells how many it had.
    pub(super) clients: usize,
    /// Queries a second of all clients in the paced load, as planned.
    pub(super) paced_rate: usize,
    /// Length of the paced load.
    #[serde(serialize_with = "seconds")]
    pub(super) paced: Duration,
    /// The start of the paced load that `warm` leaves out.
    #[serde(serialize_with = "seconds")]
    pub(super) warm_after: Duration,
}

/// A transport with or without reuse.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunResult {
    /// `udp`, `tcp`, `tls` or `https`.
    #[serde(serialize_with = "transport_name")]
    pub(super) transport: Transport,
    /// Pooled, or a connection per query.
    pub(super) reuse: bool,
    /// Why it is not the run that was planned; none if it is.
    pub(super) note: Option<String>,
    /// Both loads.
    pub(super) total: Totals,
    /// All clients at the same instant, each query to all upstreams.
    pub(super) burst: PhaseResult,
    /// A few queries a second and client, the upstreams in turns.
    pub(super) paced: PhaseResult,
}

/// What one load did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PhaseResult {
    /// Which load; the key of the object tells it in JSON.
    #[serde(skip)]
    pub(super) phase: Phase,
    /// Clients, each with a socket of its own.
    pub(super) clients: usize,
    /// Queries of the clients.
    pub(super) queries: u64,
    /// Right answers.
    pub(super) answered: u64,
    /// Answers that did not belong to their question.
    pub(super) wrong: u64,
    /// SERVFAIL and REFUSED.
    pub(super) failed: u64,
    /// No answer in 5 s.
    pub(super) unanswered: u64,
    /// What was wrong with the first wrong answer.
    pub(super) first_wrong: Option<String>,
    /// From the first query to the last answer.
    #[serde(serialize_with = "seconds")]
    pub(super) took: Duration,
    /// The most that a query left later than planned.
    #[serde(serialize_with = "seconds")]
    pub(super) lag_max: Duration,
    /// Of all right answers, seen by the clients.
    pub(super) latency: Option<Latency>,
    /// The same without the start of the load (`warm_after`).
    pub(super) warm: Option<Latency>,
    /// What the upstreams saw of it.
    #[serde(flatten)]
    pub(super) seen: Seen,
    /// Who told `open_max`.
    pub(super) open_max_source: Source,
    /// CPU time of the server, its start left out.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) cpu: Option<Duration>,
}

/// Both loads of a run together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Totals {
    /// Queries of the clients.
    pub(super) queries: u64,
    /// Right answers.
    pub(super) answered: u64,
    /// Right answers in percent of the queries.
    pub(super) answered_percent: f64,
    /// Answers that did not belong to their question.
    pub(super) wrong: u64,
    /// What the upstreams saw.
    #[serde(flatten)]
    pub(super) seen: Seen,
    /// CPU time of the server.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) cpu: Option<Duration>,
}

/// What the upstreams saw, all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// Queries that reached them.
    #[serde(rename = "upstream_queries")]
    pub(super) queries: u64,
    /// Distinct sockets of the server, each upstream counting for itself.
    pub(super) sockets: u64,
    /// The same of the upstream that saw the most, in one load. Never fewer than were open to it at one time.
    pub(super) sockets_per_upstream: u64,
    /// Distinct source ports of the server, each upstream counting for itself.
    pub(super) source_ports: u64,
    /// TCP connections accepted.
    pub(super) tcp_connects: u64,
    /// TLS handshakes in full.
    pub(super) handshakes_full: u64,
    /// TLS handshakes that resumed a session.
    pub(super) handshakes_resumed: u64,
    /// TLS handshakes that failed.
    pub(super) handshakes_failed: u64,
    /// The most connections open at one time to the upstream that had the most; for UDP sampled.
    pub(super) open_max: Option<u64>,
    /// Messages that were no well-formed query.
    pub(super) bad: u64,
}

/// Who counted open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// The upstreams, exactly.
    Upstreams,
    /// The server's status endpoint, sampled: an upstream cannot see a UDP socket being closed.
    Server,
}

/// A promise, and whether a run kept it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Check {
    /// What was checked.
    pub(super) name: CheckName,
    /// Of which transport.
    #[serde(serialize_with = "transport_name")]
    pub(super) transport: Transport,
    /// Of the pooled run, or of that with reuse off.
    pub(super) reuse: bool,
    /// Whether the promise was kept. A figure that is missing keeps none.
    pub(super) ok: bool,
    /// The figure; times in seconds.
    pub(super) value: Option<f64>,
    /// What the figure may be at most; for `answered` at least, for `warm_p50` the distance from the delay.
    pub(super) limit: f64,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CheckName {
    /// Connections open to one upstream at one time; for UDP all sockets that it saw in one load.
    Connections,
    /// Right answers in percent of the queries.
    Answered,
    /// Wrong answers.
    Wrong,
    /// TLS handshakes of both loads.
    Handshakes,
    /// Median of the warm paced load.
    WarmP50,
}

impl Seen {
    /// Takes in what another upstream, or another load, saw.
    pub(super) fn add(&mut self, other: &Seen) {
        self.queries += other.queries;
        self.sockets += other.sockets;
        self.sockets_per_upstream = self.sockets_per_upstream.max(other.sockets_per_upstream);
        self.source_ports += other.source_ports;
        self.tcp_connects += other.tcp_connects;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.handshakes_failed += other.handshakes_failed;
        self.open_max = self.open_max.max(other.open_max);
        self.bad += other.bad;
    }

    /// Handshakes that succeeded.
    pub(super) fn handshakes(&self) -> u64 {
        self.handshakes_full + self.handshakes_resumed
    }
}

impl RunResult {
    /// Puts both loads together.
    pub(super) fn new(
        transport: Transport,
        reuse: bool,
        note: Option<String>,
        burst: PhaseResult,
        paced: PhaseResult,
    ) -> RunResult {
        let queries = burst.queries + paced.queries;
        let answered = burst.answered + paced.answered;
        let mut seen = burst.seen;
        seen.add(&paced.seen);
        let total = Totals {
            queries,
            answered,
            answered_percent: answered as f64 * 100.0 / queries.max(1) as f64,
            wrong: burst.wrong + paced.wrong,
            seen,
            cpu: burst.cpu.zip(paced.cpu).map(|(burst, paced)| burst + paced),
        };
        RunResult { transport, reuse, note, total, burst, paced }
    }

    /// What this run had to show. A run with reuse off is there to be compared with; still no answer of it may be wrong.
    pub(super) fn checks(&self) -> Vec<Check> {
        let at_most =
            |name, value: Option<f64>, limit| self.check(name, value.is_some_and(|v| v <= limit), value, limit);
        let total = &self.total;
        let mut checks = vec![at_most(CheckName::Wrong, Some(total.wrong as f64), 0.0)];
        if !self.reuse {
            return checks;
        }
        let per_upstream = PoolSettings::default().max_per_host;
        // What was sampled may have missed the moment; what an upstream saw in all cannot be too few.
        let open = match self.transport {
            Transport::Udp => Some(total.seen.sockets_per_upstream),
            _ => total.seen.open_max,
        };
        checks.push(at_most(CheckName::Connections, open.map(|open| open as f64), per_upstream as f64));
        let answered = total.answered_percent;
        checks.push(self.check(CheckName::Answered, answered >= ANSWERED_MIN, Some(answered), ANSWERED_MIN));
        if self.transport.is_encrypted() {
            let limit = handshakes_max(total.queries, per_upstream);
            checks.push(at_most(CheckName::Handshakes, Some(total.seen.handshakes() as f64), limit as f64));
        }
        let p50 = self.paced.warm.map(|warm| warm.p50);
        let near = p50.is_some_and(|p50| p50.abs_diff(DELAY) <= WARM_DISTANCE);
        checks.push(self.check(
            CheckName::WarmP50,
            near,
            p50.map(|p50| p50.as_secs_f64()),
            WARM_DISTANCE.as_secs_f64(),
        ));
        checks
    }

    fn check(&self, name: CheckName, ok: bool, value: Option<f64>, limit: f64) -> Check {
        Check { name, transport: self.transport, reuse: self.reuse, ok, value, limit }
    }

    /// `DoT, reuse off` and the like.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", label(self.transport), reuse_name(self.reuse))
    }
}

/// How the two runs of a transport are called.
pub(super) fn reuse_name(reuse: bool) -> &'static str {
    if reuse { "pooled" } else { "reuse off" }
}

/// Handshakes that so many queries may cost: 40 for 10,000. A load too small for that rate may still open its pools.
fn handshakes_max(queries: u64, per_upstream: usize) -> u64 {
    (queries * 40 / 10_000).max((UPSTREAMS * per_upstream) as u64)
}

fn transport_name<S: serde::Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.as_str())
}

/// Right answers in percent that a pooled run must have.
pub(super) const ANSWERED_MIN: f64 = 99.9;
/// How far the warm median may be from the upstreams' delay.
pub(super) const WARM_DISTANCE: Duration = Duration::from_millis(2);

#[cfg(test)]
pub(super) mod tests;
