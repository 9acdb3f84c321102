//! What is measured, and how repetitions become one figure.

use crate::figures::{FOREIGN_MAX, Spread};

/// One load on one server.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// Right answers a second.
    pub(super) rate: f64,
    /// The server's CPU time per right answer, in microseconds.
    pub(super) cpu: f64,
    /// Latency of right answers, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) sent: u64,
    pub(super) failed: u64,
    /// Of the failed ones, those whose answer was another query's or broken.
    pub(super) wrong: u64,
    /// Queries that the upstream saw for each that was sent.
    pub(super) upstream: f64,
    /// Cores that the server kept busy.
    pub(super) server_cores: f64,
    /// Cores that upstream and load generator kept busy.
    pub(super) load_cores: f64,
    /// Cores that everybody else on the machine kept busy.
    pub(super) foreign_cores: f64,
    /// Octets, at the end.
    pub(super) rss: u64,
}

impl Reading {
    /// Whether so little failed that its rate counts.
    pub(super) fn holds(&self) -> bool {
        self.failed * 1_000 <= self.sent && self.sent > 0
    }

    /// Whether others used so much of the machine that it is measured again.
    pub(super) fn is_disturbed(&self) -> bool {
        self.foreign_cores > FOREIGN_MAX
    }
}

/// All that is measured of one server in one repetition of a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Rep {
    /// As many queries as are answered; the better of 100 and 400 outstanding.
    pub(super) most: Reading,
    /// At fixed rates, unless the server cannot keep them.
    pub(super) at_5k: Option<Reading>,
    pub(super) at_20k: Option<Reading>,
    /// With the upstream 10 ms away and 1,000 outstanding.
    pub(super) delayed: Option<Reading>,
    pub(super) rss_idle: u64,
}

/// A line of a table: one server in one row.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) reps: Vec<Rep>,
    /// Why there is nothing, or not all.
    pub(super) error: Option<String>,
}

impl Line {
    pub(super) fn new(name: String) -> Line {
        Line { name, reps: Vec::new(), error: None }
    }

    /// A figure over the repetitions that have it.
    pub(super) fn spread(&self, figure: impl Fn(&Rep) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.reps.iter().filter_map(figure))
    }

    /// CPU time per query at the highest rate.
    pub(super) fn cpu(&self) -> Option<Spread> {
        self.spread(|rep| rep.most.holds().then_some(rep.most.cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_with_losses_does_not_count() {
        let reading = |sent, failed| Reading { sent, failed, ..Reading::default() };
        assert!(reading(10_000, 10).holds());
        assert!(!reading(10_000, 11).holds());
        assert!(!reading(0, 0).holds());
    }
}
