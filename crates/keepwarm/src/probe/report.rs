//! What a probe found: its JSON, its table, and in one sentence what a warm connection saves.
//!
//! Durations in JSON are seconds, as floating-point numbers. A phase that did not happen is `null`.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use comfy_table::CellAlignment::{Left, Right};
use serde::{Serialize, Serializer};

use super::{
    ask::{Answer, Failed},
    origin::Origin,
};
use crate::{
    pools::short,
    table::{self, Column},
};

/// Everything that was asked.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    url: String,
    method: String,
    /// Label of the profile.
    profile: String,
    /// Without the credential.
    proxy: Option<String>,
    /// The addresses of the last round.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) requests: Vec<Row>,
    /// What went otherwise than planned.
    notes: Vec<String>,
    /// None when a kind of request is missing.
    saved: Option<Saved>,
    /// Whether every request was answered.
    pub(super) ok: bool,
}

/// One request.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// From 1.
    round: u16,
    kind: Kind,
    /// What went over the network; `null` when it failed.
    answer: Option<AnswerRow>,
    phases: Phases,
    /// With the look-up of the name, to the end of the body.
    #[serde(serialize_with = "maybe_seconds")]
    total: Option<Duration>,
    /// Why there is no answer.
    pub(super) failed: Option<Failed>,
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Nothing is there: look-up, connection, full handshake.
    Cold,
    /// Over the connection of the cold one.
    Reused,
    /// Over a new connection, with the ticket of the cold one.
    Resumed,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct AnswerRow {
    pub(super) status: u16,
    pub(super) address: SocketAddr,
    /// Number of the connection.
    pub(super) connection: u64,
    /// Whether the connection had served before.
    pub(super) reused: bool,
    /// Whether the connection's handshake resumed a session.
    pub(super) resumed: bool,
    /// `h2` or `http/1.1`.
    pub(super) protocol: &'static str,
    /// Version of TLS.
    pub(super) tls: &'static str,
    /// Bytes of the body.
    bytes: u64,
}

/// What the time went to.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Phases {
    /// Looking up the name.
    #[serde(serialize_with = "maybe_seconds")]
    dns: Option<Duration>,
    /// Connecting, by way of the proxy where there is one.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) tcp: Option<Duration>,
    /// The handshake.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) tls: Option<Duration>,
    /// From the handshake to the server's SETTINGS; the request is sent meanwhile, so that it is part of `first_byte`.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) h2: Option<Duration>,
    /// From sending the request to the head of the answer.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) first_byte: Option<Duration>,
}

/// What a warm connection saves; medians of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Saved {
    #[serde(serialize_with = "seconds")]
    cold: Duration,
    #[serde(serialize_with = "seconds")]
    reused: Duration,
    /// Missing when the server resumes no sessions.
    #[serde(serialize_with = "maybe_seconds")]
    resumed: Option<Duration>,
    /// `cold` without `reused`; nothing when that took longer.
    #[serde(serialize_with = "seconds")]
    saved: Duration,
    /// Of `cold`.
    percent: f64,
}

impl Report {
    pub(super) fn new(origin: &Origin, method: &hyper::Method) -> Report {
        Report {
            url: origin.url.to_string(),
            method: method.to_string(),
            profile: origin.profile(),
            proxy: origin.proxy(),
            addresses: Vec::new(),
            requests: Vec::new(),
            notes: Vec::new(),
            saved: None,
            ok: false,
        }
    }

    /// Adds what went otherwise than planned, once.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Says what all requests together mean.
    pub(super) fn conclude(&mut self) {
        self.ok = self.requests.iter().all(|row| row.failed.is_none());
        let median = |kind: Kind, counts: fn(&AnswerRow) -> bool| {
            let rows = self.requests.iter().filter(|row| row.kind == kind && row.answer.as_ref().is_some_and(counts));
            median(rows.filter_map(|row| row.total).collect())
        };
        let (cold, reused) = (median(Kind::Cold, |_| true), median(Kind::Reused, |answer| answer.reused));
        let resumed = median(Kind::Resumed, |answer| answer.resumed);
        self.saved = cold.zip(reused).map(|(cold, reused)| {
            let saved = cold.saturating_sub(reused);
            let percent = saved.as_secs_f64() * 100.0 / cold.as_secs_f64().max(f64::MIN_POSITIVE);
            Saved { cold, reused, resumed, saved, percent }
        });
        let any = |kind: Kind, is: fn(&AnswerRow) -> bool| {
            self.requests.iter().any(|row| row.kind == kind && row.answer.as_ref().is_some_and(is))
        };
        let misses = [
            (any(Kind::Reused, |answer| !answer.reused), NOT_REUSED),
            (any(Kind::Resumed, |answer| !answer.resumed), NOT_RESUMED),
        ];
        for (_, words) in misses.into_iter().filter(|(missed, _)| *missed) {
            self.note(words.to_owned());
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(answer) = self.requests.iter().find_map(|row| row.answer.as_ref()) {
            let AnswerRow { protocol, tls, address, .. } = answer;
            let proxy = self.proxy.as_ref().map_or_else(String::new, |proxy| format!(", by {proxy}"));
            let _ = writeln!(text, "{} {}", self.method, self.url);
            let _ = writeln!(text, "{protocol} over TLS {tls} to {address}{proxy}, profile {}\n", self.profile);
        }
        text += &table::render(&REQUESTS, self.requests.iter().map(Row::cells));
        for failed in self.requests.iter().filter_map(|row| row.failed.as_ref()) {
            let _ = writeln!(text, "\nfailed: {}", explained(failed));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if let Some(saved) = &self.saved {
            let _ = writeln!(text, "\n{}", saved.sentence());
        }
        text
    }
}

impl Saved {
    fn sentence(&self) -> String {
        let Saved { cold, reused, saved, percent, .. } = *self;
        let (cold_text, reused_text) = (short(cold), short(reused));
        if saved.is_zero() {
            return format!(
                "Over a warm connection a request took {reused_text}, cold {cold_text}: nothing is saved here."
            );
        }
        format!(
            "Over a warm connection a request took {reused_text} instead of {cold_text}: keepwarm saves {} of each, {percent:.0} %.",
            short(saved)
        )
    }
}

impl Row {
    pub(super) fn answered(round: u16, kind: Kind, dns: Option<Duration>, answer: &Answer) -> Row {
        Row {
            round,
            kind,
            answer: Some(AnswerRow::new(answer)),
            phases: Phases { dns, ..Phases::new(answer) },
            total: Some(answer.total + dns.unwrap_or_default()),
            failed: None,
        }
    }

    pub(super) fn failed(round: u16, kind: Kind, dns: Option<Duration>, failed: Failed) -> Row {
        let phases = Phases { dns, ..Phases::default() };
        Row { round, kind, answer: None, phases, total: None, failed: Some(failed) }
    }

    fn cells(&self) -> Vec<String> {
        let Phases { dns, tcp, tls, h2, first_byte } = self.phases;
        let mut cells = vec![self.kind.as_str().to_owned()];
        cells.extend([dns, tcp, tls, h2, first_byte, self.total].map(or_none));
        cells.push(self.answer.as_ref().map_or_else(|| "failed".to_owned(), |answer| answer.status.to_string()));
        cells.push(self.answer.as_ref().map_or_else(|| NONE.to_owned(), AnswerRow::connection));
        cells
    }
}

impl AnswerRow {
    pub(super) fn new(Answer { status, served, bytes, .. }: &Answer) -> AnswerRow {
        AnswerRow {
            status: status.as_u16(),
            address: served.address,
            connection: served.connection,
            reused: served.reused,
            resumed: served.resumed,
            protocol: served.protocol.as_str(),
            tls: served.tls,
            bytes: *bytes,
        }
    }

    fn connection(&self) -> String {
        let how = match (self.reused, self.resumed) {
            (true, _) => "reused",
            (false, true) => "new, resumed",
            (false, false) => "new, full handshake",
        };
        format!("#{} {how}", self.connection)
    }
}

impl Phases {
    pub(super) fn new(Answer { served, .. }: &Answer) -> Phases {
        let keepwarm_https::Phases { connect, tls, head, .. } = served.phases;
        Phases { dns: None, tcp: connect, tls, h2: served.settings, first_byte: Some(head) }
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Cold => "cold",
            Kind::Reused => "reused",
            Kind::Resumed => "resumed",
        }
    }
}

/// An error, and what may be done about it.
pub(super) fn explained(failed: &Failed) -> String {
    let is_distrusted = ["unknown issuer", "bad signature"].iter().any(|words| failed.error.contains(words));
    match failed.kind {
        "certificate" if is_distrusted => format!("{} (--cacert trusts an authority of your own)", failed.error),
        _ => failed.error.clone(),
    }
}

pub(super) fn or_none(duration: Option<Duration>) -> String {
    duration.map_or_else(|| NONE.to_owned(), short)
}

/// The middle one, by nearest rank.
fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len().div_ceil(2).checked_sub(1)?).copied()
}

/// A duration in JSON.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// The same where there may be none.
pub(crate) fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

const NONE: &str = "-";
const NOT_REUSED: &str =
    "the connection could not be used again: the server had ended it, or the answer was too long to read";
const NOT_RESUMED: &str = "the session was not resumed: the server gave no ticket, or did not take its own";

const REQUESTS: [Column; 9] = [
    ("REQUEST", Left),
    ("DNS", Right),
    ("TCP", Right),
    ("TLS", Right),
    ("H2", Right),
    ("FIRST BYTE", Right),
    ("TOTAL", Right),
    ("STATUS", Right),
    ("CONNECTION", Left),
];

#[cfg(test)]
mod tests;
