//! The last requests that were slow or failed, so that an operator can see what they waited for.
//!
//! What is deliberately not here: paths, queries, headers, bodies. They carry secrets.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use http::StatusCode;
use parking_lot::Mutex;

use crate::{
    error::{Error, ErrorKind, Side},
    inventory::bounded,
    served::Phases,
};

/// A request that was slow, or got no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentRequest {
    /// How long ago it ended, as far as this is about it: with the head of its answer, its failure, or when its caller gave it up.
    pub age: Duration,
    /// Host and port as requests name them.
    pub origin: String,
    /// The address that was tried last; none: there was none to try.
    pub address: Option<IpAddr>,
    /// The method, its first 16 letters.
    pub method: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What its time went to, up to then. Without an answer `head` is the time that was waited for one over the last connection.
    pub phases: Phases,
    /// Whether the last connection had served before; none: it got no connection.
    pub reused: Option<bool>,
    /// Tries that were sent.
    pub tries: u32,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, late.
    Answered(StatusCode),
    /// No answer.
    Failed {
        /// What went wrong.
        kind: ErrorKind,
        /// Whose fault it is.
        side: Side,
        /// In words; at most 200 letters, without control characters.
        text: String,
    },
    /// No answer yet when its caller, who had waited for long, dropped it.
    GivenUp,
}

impl Outcome {
    /// `answered`, `given_up`, or the [kind](ErrorKind::as_str) of the failure.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Answered(_) => "answered",
            Outcome::Failed { kind, .. } => kind.as_str(),
            Outcome::GivenUp => "given_up",
        }
    }
}

impl RecentRequest {
    /// Says in one line what came of it and what took longest: `answered 200 after 5.2s: 5.1s from the request to the head of the answer`.
    pub fn explanation(&self) -> String {
        let total = self.phases.total;
        let outcome = match &self.outcome {
            Outcome::Answered(status) => format!("answered {} after {total:.1?}", status.as_u16()),
            Outcome::Failed { text, .. } => format!("failed after {total:.1?}: {text}"),
            Outcome::GivenUp => format!("given up by who asked after {total:.1?}"),
        };
        let (longest, time) = self.longest();
        let tries = if self.tries > 1 { format!(", {} tries", self.tries) } else { String::new() };
        format!("{outcome}; {time:.1?} {longest}{tries}")
    }

    /// The part that took longest, in words.
    fn longest(&self) -> (&'static str, Duration) {
        let Phases { wait, connect, tls, head, .. } = self.phases;
        let (connect, tls) = (connect.unwrap_or_default(), tls.unwrap_or_default());
        let before =
            if self.tries > 1 { "on earlier tries and waiting" } else { "waiting for an address or a connection" };
        let asked = match self.outcome {
            Outcome::Answered(_) => "from the request to the head of the answer",
            Outcome::Failed { .. } | Outcome::GivenUp => "since the request was sent last",
        };
        let parts = [
            (before, wait.saturating_sub(connect).saturating_sub(tls)),
            ("connecting", connect),
            ("on the TLS handshake", tls),
            (asked, head),
        ];
        parts.into_iter().max_by_key(|(_, time)| *time).unwrap_or(parts[0])
    }
}

/// Keeps them; the oldest make room.
pub(crate) struct Recent {
    /// In nanoseconds.
    slow: AtomicU64,
    ring: Mutex<VecDeque<(Instant, RecentRequest)>>,
}

impl Recent {
    pub(super) fn new(slow: Duration) -> Recent {
        let recent = Recent { slow: AtomicU64::new(0), ring: Mutex::default() };
        recent.set_slow(slow);
        recent
    }

    pub(super) fn set_slow(&self, slow: Duration) {
        self.slow.store(u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether a request that took so long is noted although nothing went wrong.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took.as_nanos() > u128::from(self.slow.load(Ordering::Relaxed))
    }

    pub(super) fn add(&self, request: RecentRequest, now: Instant) {
        let mut ring = self.ring.lock();
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back((now, request));
    }

    /// The last one first.
    pub(super) fn read(&self, now: Instant) -> Vec<RecentRequest> {
        let ring = self.ring.lock().clone();
        let aged = |(at, request): (Instant, RecentRequest)| RecentRequest {
            age: now.saturating_duration_since(at),
            ..request
        };
        ring.into_iter().rev().map(aged).collect()
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Outcome {
        Outcome::Failed { kind: error.kind(), side: error.side(), text: bounded(error.happened()) }
    }
}

/// Requests that are kept.
const RING: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tries: u32, outcome: Outcome, phases: Phases) -> RecentRequest {
        let (age, origin, method) = (Duration::ZERO, "a.example".to_owned(), "GET".to_owned());
        RecentRequest { age, origin, address: None, method, outcome, phases, reused: None, tries }
    }

    #[test]
    fn the_phase_that_took_longest_is_named() {
        let ms = Duration::from_millis;
        let answered = |phases| request(1, Outcome::Answered(StatusCode::OK), phases).explanation();
        let phases = Phases { wait: ms(100), head: ms(5100), total: ms(5200), ..Phases::default() };
        assert_eq!(answered(phases), "answered 200 after 5.2s; 5.1s from the request to the head of the answer");
        let dialled =
            Phases { connect: Some(ms(3000)), tls: Some(ms(2000)), wait: ms(6000), total: ms(6000), ..phases };
        let head = ms(1);
        assert!(answered(Phases { head, ..dialled }).ends_with("3.0s connecting"));
        let tls = Some(ms(2900));
        let (connect, dialled) = (Some(ms(100)), Phases { head, tls, ..dialled });
        assert!(answered(Phases { connect, ..dialled }).ends_with("3.0s waiting for an address or a connection"));
        assert!(answered(Phases { connect, wait: ms(3000), ..dialled }).ends_with("2.9s on the TLS handshake"));
        let failed = Outcome::from(&Error::no_address("none\nof them"));
        let text =
            request(3, failed.clone(), Phases { wait: ms(200), total: ms(200), ..Phases::default() }).explanation();
        assert_eq!(text, "failed after 200.0ms: none of them; 200.0ms on earlier tries and waiting, 3 tries");
        assert_eq!((failed.as_str(), Outcome::GivenUp.as_str()), ("no_address", "given_up"));
    }

    #[test]
    fn the_last_128_are_kept() {
        let recent = Recent::new(Duration::from_secs(5));
        assert!(!recent.is_slow(Duration::from_secs(5)) && recent.is_slow(Duration::from_millis(5001)));
        recent.set_slow(Duration::MAX);
        assert!(!recent.is_slow(Duration::from_secs(1 << 30)));
        let start = tokio::time::Instant::now().into_std();
        let second = Duration::from_secs(1);
        for index in 0..200 {
            recent.add(request(index, Outcome::GivenUp, Phases::default()), start + second * index);
        }
        let rows = recent.read(start + second * 200);
        assert_eq!((rows.len(), rows[0].tries, rows[127].tries), (128, 199, 72));
        assert_eq!((rows[0].age, rows[127].age), (second, second * 128));
    }
}
