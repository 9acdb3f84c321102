//! The limits of a pool, and how they are changed.

use keepwarm_pool::Limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a pool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LimitsRow {
    /// Connections of all hosts together.
    pub max_total: u64,
    /// Connections of one host.
    pub max_per_host: u64,
    /// Idle connections of all hosts together.
    pub max_idle: u64,
    /// Idle connections of one host.
    pub max_idle_per_host: u64,
    /// Connections of each host that are kept open even when nothing asks.
    pub min_idle: u64,
    /// Leases that one connection carries at once.
    pub max_in_flight: u64,
    /// Acquires of one host that may wait.
    pub max_waiters: u64,
    /// Dials of one host at the same time.
    pub max_dials_per_host: u64,
    /// Dials of all hosts at the same time.
    pub max_dials: u64,
}

/// Limits to change; what is left out stays. In force until the next change, a restart, or a reload that changes the pool's section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsPatch {
    /// Connections of all hosts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total: Option<usize>,
    /// Connections of one host. What follows from it and is not named here (`max_idle_per_host`, `min_idle`) is lowered along.
    /// `max_idle_per_host` is raised along only where it equals `max_per_host` before the change; a lower one was meant to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_host: Option<usize>,
    /// Idle connections of all hosts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle: Option<usize>,
    /// Idle connections of one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle_per_host: Option<usize>,
    /// Connections of each host that are kept open even when nothing asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle: Option<usize>,
    /// Leases that one connection carries at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Acquires of one host that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiters: Option<usize>,
    /// Dials of one host at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dials_per_host: Option<usize>,
    /// Dials of all hosts at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dials: Option<usize>,
}

impl LimitsPatch {
    /// The limits with these changes. A lowered limit takes along those below it that are not named; a raised one of these was meant
    /// to be.
    pub fn over(&self, mut limits: Limits) -> Limits {
        let all_idle = limits.max_idle_per_host == limits.max_per_host;
        limits.max_total = self.max_total.unwrap_or(limits.max_total);
        limits.max_per_host = self.max_per_host.unwrap_or(limits.max_per_host.min(limits.max_total));
        limits.max_idle = self.max_idle.unwrap_or(limits.max_idle.min(limits.max_total));
        // Where all may stay idle, who sets only how many there may be means those too.
        let idle = match self.max_per_host {
            Some(max) if all_idle => max.min(limits.max_idle),
            _ => limits.max_idle_per_host,
        };
        limits.max_idle_per_host = self.max_idle_per_host.unwrap_or(idle.min(limits.max_per_host));
        limits.min_idle = self.min_idle.unwrap_or(limits.min_idle.min(limits.max_idle_per_host));
        limits.max_in_flight = self.max_in_flight.unwrap_or(limits.max_in_flight);
        limits.max_waiters = self.max_waiters.unwrap_or(limits.max_waiters);
        limits.max_dials = self.max_dials.unwrap_or(limits.max_dials);
        limits.max_dials_per_host = self.max_dials_per_host.unwrap_or(limits.max_dials_per_host);
        limits
    }

    /// The limits that are named.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let named = [
            (self.max_total.is_some(), "max_total"),
            (self.max_per_host.is_some(), "max_per_host"),
            (self.max_idle.is_some(), "max_idle"),
            (self.max_idle_per_host.is_some(), "max_idle_per_host"),
            (self.min_idle.is_some(), "min_idle"),
            (self.max_in_flight.is_some(), "max_in_flight"),
            (self.max_waiters.is_some(), "max_waiters"),
            (self.max_dials_per_host.is_some(), "max_dials_per_host"),
            (self.max_dials.is_some(), "max_dials"),
        ];
        named.into_iter().filter_map(|(is_named, name)| is_named.then_some(name))
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == LimitsPatch::default()
    }
}

impl From<Limits> for LimitsRow {
    fn from(limits: Limits) -> LimitsRow {
        LimitsRow {
            max_total: limits.max_total as u64,
            max_per_host: limits.max_per_host as u64,
            max_idle: limits.max_idle as u64,
            max_idle_per_host: limits.max_idle_per_host as u64,
            min_idle: limits.min_idle as u64,
            max_in_flight: limits.max_in_flight.into(),
            max_waiters: limits.max_waiters as u64,
            max_dials_per_host: limits.max_dials_per_host as u64,
            max_dials: limits.max_dials as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_limit_takes_along_what_follows_from_it() {
        let limits = Limits { min_idle: 4, ..Limits::per_host(10) };
        let lower = LimitsPatch { max_per_host: Some(2), ..LimitsPatch::default() }.over(limits);
        assert_eq!((lower.max_per_host, lower.max_idle_per_host, lower.min_idle), (2, 2, 2));
        lower.check().unwrap();
        let back = LimitsPatch { max_per_host: Some(10), ..LimitsPatch::default() }.over(lower);
        assert_eq!((back.max_per_host, back.max_idle_per_host, back.min_idle), (10, 10, 2));
        back.check().unwrap();
        let few_idle = Limits { max_idle_per_host: 3, ..Limits::per_host(10) };
        for (max, idle) in [(20, 3), (5, 3), (2, 2)] {
            let changed = LimitsPatch { max_per_host: Some(max), ..LimitsPatch::default() }.over(few_idle);
            assert_eq!((changed.max_per_host, changed.max_idle_per_host), (max, idle), "3 idle were meant");
        }
        let wrong = LimitsPatch { min_idle: Some(11), ..LimitsPatch::default() }.over(limits);
        assert!(wrong.check().is_err());
    }
}
