//! What is shown of the addresses: `keepwarm addresses`, the status API, metrics.

use std::{net::IpAddr, time::Instant};

use serde::{Deserialize, Serialize};

use super::{address::State, book::Book};

/// One address as it is shown. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressRow {
    /// The address.
    pub ip: IpAddr,
    /// Where it stands.
    pub state: AddressState,
    /// For how long it still rests, because of what the application answered; none: it does not.
    pub resting_for: Option<f64>,
    /// For how long it is still in quarantine; 0: its probe is due. None: it is not in quarantine.
    pub quarantined_for: Option<f64>,
    /// Whether it was banned at run time.
    pub banned: bool,
    /// Who names it, such as `config,dns`.
    pub source: String,
    /// Requests that were answered, whatever the status.
    pub successes: u64,
    /// Requests and probes that failed.
    pub failures: u64,
    /// Answers that a verdict let the address rest for.
    pub refusals: u64,
    /// Requests in flight.
    pub in_flight: u32,
    /// What its answers took lately; none before the first.
    pub latency_s: Option<f64>,
    /// The last failure's text.
    pub last_error: Option<String>,
    /// The last answer's status.
    pub last_status: Option<u16>,
    /// Probes that were begun.
    pub probes: u64,
}

/// Where an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// Found and never known good.
    Candidate,
    /// Known good.
    Validated,
    /// Failed, and left alone until its pause has ended.
    Quarantined,
    /// Being probed, for the first time or after a quarantine.
    Probing,
}

/// Addresses by state; each is in one of the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Found and never known good.
    pub candidate: usize,
    /// Known good.
    pub validated: usize,
    /// Failed, and left alone until their pause has ended.
    pub quarantined: usize,
    /// Being probed.
    pub probing: usize,
    /// Of all: those that rest, because of what the application answered.
    pub resting: usize,
    /// Of all: those banned at run time.
    pub banned: usize,
}

impl Counts {
    pub(super) fn len(self) -> usize {
        self.candidate + self.validated + self.quarantined + self.probing
    }
}

impl AddressState {
    /// The metric label: `candidate`, `validated`, `quarantined`, `probing`.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressState::Candidate => "candidate",
            AddressState::Validated => "validated",
            AddressState::Quarantined => "quarantined",
            AddressState::Probing => "probing",
        }
    }

    pub(super) fn of(state: State) -> AddressState {
        match state {
            State::Candidate { .. } => AddressState::Candidate,
            State::Probing { .. } => AddressState::Probing,
            State::Validated => AddressState::Validated,
            State::Quarantined { .. } => AddressState::Quarantined,
        }
    }
}

pub(super) fn rows(book: &Book, now: Instant) -> Vec<AddressRow> {
    let slots = book.all().into_iter().filter(|slot| !book.address(*slot).is_leaving());
    slots.map(|slot| row(book, slot, now)).collect()
}

fn row(book: &Book, slot: u32, now: Instant) -> AddressRow {
    let address = book.address(slot);
    let left = |until: Instant| until.saturating_duration_since(now).as_secs_f64();
    let quarantined_until = match address.state {
        State::Quarantined { until } => Some(until),
        State::Candidate { .. } | State::Probing { .. } | State::Validated => None,
    };
    let mut sources: Vec<_> = address.sources.iter().map(|(source, _)| *source).collect();
    sources.sort_unstable();
    AddressRow {
        ip: address.ip,
        state: AddressState::of(address.state),
        resting_for: address.rest_until.filter(|until| *until > now).map(left),
        quarantined_for: quarantined_until.map(left),
        banned: address.is_banned,
        source: sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        successes: address.successes,
        failures: address.failures,
        refusals: address.refusals,
        in_flight: address.in_flight,
        latency_s: address.latency.seen().map(|seen| seen.as_secs_f64()),
        last_error: address.last_error.clone(),
        last_status: address.last_status.map(|status| status.as_u16()),
        probes: address.probes,
    }
}
