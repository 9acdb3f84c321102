//! Percentiles of measured times: exact, over every sample, by nearest rank.

use std::time::Duration;

use serde::Serialize;

/// Times of a phase. In JSON: seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    /// Half of the queries took at most this.
    #[serde(serialize_with = "seconds")]
    pub(super) p50: Duration,
    /// 95 of 100 took at most this.
    #[serde(serialize_with = "seconds")]
    pub(super) p95: Duration,
    /// 99 of 100 took at most this.
    #[serde(serialize_with = "seconds")]
    pub(super) p99: Duration,
    /// None took longer.
    #[serde(serialize_with = "seconds")]
    pub(super) max: Duration,
}

impl Latency {
    /// The percentiles of these times; none of no times.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Latency> {
        times.sort_unstable();
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Latency { p50: rank(50)?, p95: rank(95)?, p99: rank(99)?, max: rank(100)? })
    }
}

/// A duration in JSON: seconds, as a floating-point number.
pub(super) fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// The same where there may be none (`null`).
pub(super) fn maybe_seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let millis = Duration::from_millis;
        let latency = Latency::of((1..=200).rev().map(millis).collect()).unwrap();
        assert_eq!(latency, Latency { p50: millis(100), p95: millis(190), p99: millis(198), max: millis(200) });
        let one = Latency::of(vec![millis(7)]).unwrap();
        assert_eq!((one.p50, one.p99), (millis(7), millis(7)));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
