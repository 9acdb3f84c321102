//! Writes families as `OpenMetrics` text, and as the older text format that is made of it.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{self, Registry},
};

use super::{Family, Kind, Unit, Value, buckets, family::Point};

/// A format of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text 0.0.4, which everything reads.
    Plain,
    /// `OpenMetrics` 1.0.
    Open,
}

impl Format {
    /// What an `Accept` prefers (RFC 9110 section 12.5.1); who names none of the two gets the older one.
    pub(super) fn wanted(accept: &str) -> Format {
        let quality = |kind: &str| accept.split(',').filter_map(|range| weight(range, kind)).fold(0.0, f64::max);
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") { Format::Open } else { Format::Plain }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Plain => PLAIN,
            Format::Open => OPEN,
        }
    }
}

/// The weight that a range of media types gives `kind`; none where it is about another.
fn weight(range: &str, kind: &str) -> Option<f64> {
    let mut parts = range.split(';').map(str::trim);
    parts.next()?.eq_ignore_ascii_case(kind).then(|| {
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0))
    })
}

pub(super) fn write(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::new(Look(families))));
    let mut open = String::with_capacity(CAPACITY);
    text::encode(&mut open, &registry).expect("a text takes whatever is written to it");
    match format {
        Format::Open => open,
        Format::Plain => plain(&open),
    }
}

/// The text format 0.0.4 of an `OpenMetrics` text: the name in the head of a counter has its `_total`, units have no line, and there is
/// no end mark.
fn plain(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut push = |parts: &[&str]| {
        parts.iter().for_each(|part| plain.push_str(part));
        plain.push('\n');
    };
    let mut help = ("", "");
    for line in open.lines() {
        let Some(head) = line.strip_prefix("# ") else {
            push(&[line]);
            continue;
        };
        let (word, rest) = head.split_once(' ').unwrap_or((head, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "HELP" => help = (name, rest),
            "TYPE" => {
                let total = if rest == "counter" { "_total" } else { "" };
                push(&["# HELP ", help.0, total, " ", help.1]);
                push(&["# TYPE ", name, total, " ", rest]);
            }
            _ => {}
        }
    }
    plain
}

#[derive(Debug)]
struct Look(Vec<Family>);

impl Collector for Look {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let unit = family.unit.map(|unit| match unit {
                Unit::Seconds => registry::Unit::Seconds,
                Unit::Bytes => registry::Unit::Bytes,
            });
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.stem(), family.help, unit.as_ref(), kind)?;
            for Point { labels, value } in &family.points {
                match labels.is_empty() {
                    true => encode(&mut metric, family.kind, value)?,
                    false => encode(&mut metric.encode_family(labels)?, family.kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    const NONE: Option<&Exemplar<NoLabelSet, f64>> = None;
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => metric.encode_counter(value, NONE),
        (Kind::Counter, Value::Real(value)) => metric.encode_counter(value, NONE),
        (_, Value::Whole(value)) => metric.encode_gauge(value),
        (_, Value::Real(value)) => metric.encode_gauge(value),
        (_, Value::Times(histogram, bounds)) => {
            let merged: Vec<(f64, u64)> = buckets::merged(histogram, *bounds)
                .into_iter()
                .map(|(bound, count)| (bound.unwrap_or(f64::INFINITY), count))
                .collect();
            metric.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), histogram.count(), &merged, None)
        }
    }
}

pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A text of a few pools and upstreams.
const CAPACITY: usize = 64 * 1024;
