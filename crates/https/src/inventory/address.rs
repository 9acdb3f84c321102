//! One address: its state, and what is known of it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{book::Place, latency::Latency};

/// Names an address, for the request or probe that it was given out for. One of an address that was forgotten is ignored.
///
/// Two are equal when they name the same address.
#[derive(Debug, Clone, Copy)]
pub struct AddressId {
    pub(super) slot: u32,
    /// How many addresses the slot held before.
    pub(super) generation: u32,
    /// How often the address was put out and let in again before this was given out.
    pub(super) turn: u32,
}

impl AddressId {
    /// A small number that no other address has at the same time.
    pub(crate) fn index(self) -> usize {
        self.slot as usize
    }
}

impl PartialEq for AddressId {
    fn eq(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}

impl Eq for AddressId {}

impl Hash for AddressId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.slot, self.generation).hash(state);
    }
}

/// Who names addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceId {
    /// All addresses and networks that the config names.
    Config,
    /// The origin's DNS name.
    Dns,
    /// A file, by its place among the `addresses` of the config.
    File(u16),
}

impl fmt::Display for SourceId {
    /// `config`, `dns`, `file 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceId::Config => f.write_str("config"),
            SourceId::Dns => f.write_str("dns"),
            SourceId::File(index) => write!(f, "file {index}"),
        }
    }
}

/// Where an address stands. What the application says of it (`rest_until`) and bans are apart from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Found and never known good. -> `Probing` from `due` on, if candidates are probed. -> `Validated` when a request succeeds (without
    /// validation). -> `Quarantined` after `failures` in a row.
    Candidate { due: Instant },
    /// Being probed, `again` after a quarantine. -> `Validated` or `Quarantined` with the outcome; -> where it came from when the probe is
    /// given up; offered once more when nothing was heard of the probe for [`PROBE_MAX`].
    Probing { since: Instant, again: bool },
    /// Known good. -> `Quarantined` after `failures` in a row or a failed probe.
    Validated,
    /// Failed. -> `Probing` from `until` on, -> `Validated` when a request that was let through succeeds (without validation).
    Quarantined { until: Instant },
}

/// An address. What decides where the [`Book`](super::book::Book) lists it is changed through `Book::update` alone.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) state: State,
    /// Counts the times that it was put out or let in again.
    turn: u32,
    pub(super) in_flight: u32,
    pub(super) latency: Latency,
    /// Where the book lists it.
    pub(super) place: Place,
    /// The application's word, while it counts.
    pub(super) rest_until: Option<Instant>,
    pub(super) is_banned: bool,
    /// Who names it, and in which round it did last. Empty: it leaves once nothing is in flight.
    pub(super) sources: Vec<(SourceId, u64)>,
    /// The last pause before jitter; zero after a success.
    pub(super) pause: Duration,
    pub(super) failed_in_a_row: u32,
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) refusals: u64,
    pub(super) probes: u64,
    pub(super) last_error: Option<String>,
    pub(super) last_status: Option<StatusCode>,
}

impl Address {
    pub(super) fn new(ip: IpAddr, source: (SourceId, u64), is_banned: bool, now: Instant) -> Address {
        Address {
            ip,
            state: State::Candidate { due: now },
            turn: 0,
            in_flight: 0,
            latency: Latency::default(),
            place: Place::default(),
            rest_until: None,
            is_banned,
            sources: vec![source],
            pause: Duration::ZERO,
            failed_in_a_row: 0,
            successes: 0,
            failures: 0,
            refusals: 0,
            probes: 0,
            last_error: None,
            last_status: None,
        }
    }

    /// In quarantine, or probed after one.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.state, State::Quarantined { .. } | State::Probing { again: true, .. })
    }

    /// Whether an id was given out since the address was last put out or let in.
    pub(super) fn is_current(&self, id: AddressId) -> bool {
        self.turn == id.turn
    }

    pub(super) fn turn(&self) -> u32 {
        self.turn
    }

    /// The only place where a state changes into another; for use within `Book::update`, which moves the address between lists and
    /// counts.
    pub(super) fn set_state(&mut self, state: State) {
        let was_out = self.is_out();
        self.state = state;
        if self.is_out() != was_out {
            self.turn = self.turn.wrapping_add(1);
            self.failed_in_a_row = 0;
        }
    }

    pub(super) fn failed(&mut self, error: &str) {
        self.failures += 1;
        self.last_error = Some(bounded(error));
    }

    pub(super) fn named_by(&mut self, source: SourceId, round: u64) {
        match self.sources.iter_mut().find(|(known, _)| *known == source) {
            Some((_, last)) => *last = round,
            None => self.sources.push((source, round)),
        }
    }

    /// Whether a source named it before and not in this round.
    pub(super) fn is_outdated(&self, source: SourceId, round: u64) -> bool {
        self.sources.iter().any(|(known, last)| *known == source && *last != round)
    }

    pub(super) fn unnamed_by(&mut self, source: SourceId) {
        self.sources.retain(|(known, _)| *known != source);
    }

    pub(super) fn unnamed_by_all(&mut self) {
        self.sources.clear();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.sources.is_empty()
    }
}

/// An error's text, cut and without control characters.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `now + pause`, for pauses of any length.
pub(super) fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause.min(YEAR)).unwrap_or(now)
}

/// How long nothing may be heard of a probe until it is offered once more.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(600);

const TEXT_MAX: usize = 200;

const YEAR: Duration = Duration::from_secs(365 * 86_400);
