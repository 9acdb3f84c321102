//! A metric with its points, before it is written in any format.

use keepwarm_pool::Histogram;

use super::buckets::Bounds;

/// One metric: a name, what it means, and a value for each set of labels.
#[derive(Debug)]
pub(crate) struct Family {
    /// As a query names it, with the unit and `_total`; of a histogram without `_bucket`.
    pub(crate) name: &'static str,
    /// What it is, in one sentence.
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Option<Unit>,
    pub(crate) points: Vec<Point>,
}

/// What a value may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It grows until a restart.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts durations.
    Histogram,
}

/// The base unit that a name ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
}

impl Unit {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        }
    }
}

/// A value and its labels, in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
    Times(Box<Histogram>, Bounds),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}

impl From<(&Histogram, Bounds)> for Value {
    fn from((histogram, bounds): (&Histogram, Bounds)) -> Value {
        Value::Times(Box::new(histogram.clone()), bounds)
    }
}

impl Family {
    pub(crate) fn counter(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, Kind::Counter)
    }

    pub(crate) fn gauge(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, Kind::Gauge)
    }

    pub(crate) fn histogram(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, Kind::Histogram)
    }

    fn new(name: &'static str, help: &'static str, kind: Kind) -> Family {
        let stem = name.strip_suffix("_total").unwrap_or(name);
        let unit = [Unit::Seconds, Unit::Bytes].into_iter().find(|unit| stem.ends_with(unit.suffix()));
        Family { name, help, kind, unit, points: Vec::new() }
    }

    /// The name without unit and `_total`, which formats add by themselves.
    pub(crate) fn stem(&self) -> &'static str {
        let stem = self.name.strip_suffix("_total").unwrap_or(self.name);
        self.unit.and_then(|unit| stem.strip_suffix(unit.suffix())).unwrap_or(stem)
    }

    /// Adds a value.
    pub(crate) fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: impl Into<Value>) -> Family {
        self.push(labels, value);
        self
    }

    /// Adds a value.
    pub(crate) fn push<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: impl Into<Value>) {
        let labels = labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        self.points.push(Point { labels, value: value.into() });
    }
}
