//! How repetitions become one figure, and how figures are shown.

use std::fmt;

/// The median and the range of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { least, median, most })
    }

    /// The median, and the range where there is one.
    pub(crate) fn show(self, one: impl Fn(f64) -> String) -> String {
        let (least, most) = (one(self.least), one(self.most));
        if least == most { one(self.median) } else { format!("{} ({least}..{most})", one(self.median)) }
    }
}

/// A whole number with commas.
pub(crate) fn whole(value: f64) -> String {
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
pub(crate) fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

/// Octets in MiB.
pub(crate) fn mebibytes(octets: u64) -> String {
    tenths(octets as f64 / f64::from(1 << 20))
}

/// A share in percent, exact where it is small.
pub(crate) struct Percent(pub(crate) f64);

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
pub(crate) const FOREIGN_MAX: f64 = 0.15;

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
}
