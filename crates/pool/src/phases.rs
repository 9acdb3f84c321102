//! Where the time of a dial went: the phases that the connector tells of, and their sums over all dials of a pool.
//!
//! Not here: a clock. The connector measures, since it alone knows where a phase ends.

use std::time::Duration;

use crate::stats::Histogram;

/// A part of a dial. A fixed list, so that a metric's label may be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialPhase {
    /// Finding the addresses of a name. Not there where an address is given.
    Resolve,
    /// The TCP handshake, addresses that did not answer included.
    Connect,
    /// What a proxy in between is told and answers: greeting, authentication, the way to the destination.
    Proxy,
    /// The TLS handshake; of each hop that has one.
    Tls,
    /// The QUIC handshake, which is that of TLS as well.
    Quic,
    /// What the protocol on top asks for before its first request: the preface of HTTP/2 and HTTP/3, key exchange and login of SSH.
    Protocol,
}

impl DialPhase {
    /// All phases, in the order in which a dial comes to them.
    pub const ALL: [Self; 6] = [Self::Resolve, Self::Connect, Self::Proxy, Self::Tls, Self::Quic, Self::Protocol];

    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Protocol => "protocol",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// How long each phase of one dial took. A phase that the dial did not come to is not there, which is not the same as zero.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use keepwarm_pool::{DialPhase, DialPhases};
///
/// let hop = Duration::from_millis(20);
/// let phases = DialPhases::default().with(DialPhase::Tls, hop).with(DialPhase::Tls, hop);
/// assert_eq!(phases.of(DialPhase::Tls), Some(2 * hop));
/// assert_eq!(phases.of(DialPhase::Quic), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialPhases([Option<Duration>; DialPhase::ALL.len()]);

impl DialPhases {
    /// Adds time to a phase, which from now on is there. A dial that comes to a phase twice, as with TLS to a proxy and through it, has
    /// the sum of both.
    #[must_use]
    pub fn with(mut self, phase: DialPhase, took: Duration) -> Self {
        let sum = &mut self.0[phase.index()];
        *sum = Some(sum.unwrap_or_default().saturating_add(took));
        self
    }

    /// As [`with`](Self::with), unless it took no time at all: for a trace in which zero is a phase that the dial did not come to.
    #[must_use]
    pub fn with_some(self, phase: DialPhase, took: Duration) -> Self {
        if took.is_zero() { self } else { self.with(phase, took) }
    }

    /// Returns how long a phase took, `None` when it is not there.
    #[must_use]
    pub fn of(&self, phase: DialPhase) -> Option<Duration> {
        self.0[phase.index()]
    }
}

/// The phases of all successful dials of a pool. One that no dial came to costs no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhaseTimes([Option<Box<Histogram>>; DialPhase::ALL.len()]);

impl PhaseTimes {
    /// Adds one dial.
    pub fn record(&mut self, dial: &DialPhases) {
        for (times, took) in self.0.iter_mut().zip(dial.0) {
            if let Some(took) = took {
                times.get_or_insert_default().record(took);
            }
        }
    }

    /// Returns the phases that dials came to, in the order of [`DialPhase::ALL`], each with its times.
    pub fn iter(&self) -> impl Iterator<Item = (DialPhase, &Histogram)> {
        DialPhase::ALL.into_iter().zip(&self.0).filter_map(|(phase, times)| Some((phase, times.as_deref()?)))
    }

    /// Returns the times of a phase, `None` when no dial came to it.
    #[must_use]
    pub fn of(&self, phase: DialPhase) -> Option<&Histogram> {
        self.0[phase.index()].as_deref()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().merge(theirs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_phase_that_took_no_time_is_there_and_one_that_never_was_is_not() {
        let dial =
            DialPhases::default().with(DialPhase::Resolve, Duration::ZERO).with_some(DialPhase::Tls, Duration::ZERO);
        let mut times = PhaseTimes::default();
        times.record(&dial);
        times.record(&DialPhases::default().with_some(DialPhase::Connect, MS));
        let counts: Vec<_> = times.iter().map(|(phase, times)| (phase, times.count())).collect();
        assert_eq!(counts, [(DialPhase::Resolve, 1), (DialPhase::Connect, 1)]);
        assert_eq!(times.of(DialPhase::Tls), None);
    }

    #[test]
    fn each_phase_is_in_its_own_place() {
        let words: std::collections::BTreeSet<_> = DialPhase::ALL.iter().map(|phase| phase.as_str()).collect();
        assert_eq!(words.len(), DialPhase::ALL.len());
        let (mut times, mut twice) = (PhaseTimes::default(), PhaseTimes::default());
        for (n, phase) in (1..).zip(DialPhase::ALL) {
            assert_eq!(phase.index(), n - 1);
            times.record(&DialPhases::default().with(phase, MS * u32::try_from(n).unwrap()));
        }
        twice.merge(&times);
        twice.merge(&times);
        for (n, (phase, times)) in (1..).zip(twice.iter()) {
            assert_eq!((phase, times.count(), times.sum()), (DialPhase::ALL[n as usize - 1], 2, 2 * n * MS));
        }
    }
}
