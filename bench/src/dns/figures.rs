//! What is measured, and how repetitions become one figure.

use std::fmt;

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

/// The median and the range of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { least, median, most })
    }

    /// The median, and the range where there is one.
    pub(super) fn show(self, one: impl Fn(f64) -> String) -> String {
        let (least, most) = (one(self.least), one(self.most));
        if least == most { one(self.median) } else { format!("{} ({least}..{most})", one(self.median)) }
    }
}

/// A whole number with commas.
pub(super) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One digit after the point.
pub(super) fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

/// Octets in MiB.
pub(super) fn mebibytes(octets: u64) -> String {
    tenths(octets as f64 / f64::from(1 << 20))
}

/// A share in percent, exact where it is small.
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 * 100.0 {
            0.0 => f.write_str("0 %"),
            small if small < 1.0 => write!(f, "{small:.2} %"),
            share => write!(f, "{share:.1} %"),
        }
    }
}

/// Cores of foreign use beyond which a reading is taken again.
const FOREIGN_MAX: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_range() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { least: 1.0, median: 2.0, most: 3.0 }));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().show(tenths), "1.5 (1.0..2.0)");
        assert_eq!(Spread::of([7.04, 7.01]).unwrap().show(tenths), "7.0");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0.0, 999.4, 1_000.0, 123_456.0, 1_234_567.0].map(whole),
            ["0", "999", "1,000", "123,456", "1,234,567"]
        );
        assert_eq!([0.0, 0.0001, 0.25].map(|share| Percent(share).to_string()), ["0 %", "0.01 %", "25.0 %"]);
        assert_eq!(mebibytes(3 << 19), "1.5");
    }

    #[test]
    fn a_rate_with_losses_does_not_count() {
        let reading = |sent, failed| Reading { sent, failed, ..Reading::default() };
        assert!(reading(10_000, 10).holds());
        assert!(!reading(10_000, 11).holds());
        assert!(!reading(0, 0).holds());
    }
}
