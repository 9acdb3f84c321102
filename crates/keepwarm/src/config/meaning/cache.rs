//! The cache: bounds of its size, and times that are held against the longest.

use std::{ops::RangeInclusive, time::Duration};

use keepwarm_dns::config::CacheSettings;

use super::{Check, DAY, SECOND};
use crate::config::{
    fault::Fault,
    read::{At, Section as _},
    spec::CacheSpec,
    value::Size,
    words::{duration_words, size_words},
};

impl Check<'_> {
    pub(super) fn cache(&mut self, spec: &CacheSpec) -> CacheSettings {
        let default = CacheSettings::default();
        let max_ttl = self.duration("dns.cache.max_ttl", spec.max_ttl.as_ref(), SECOND..=7 * DAY, default.max_ttl);
        // A limit that was refused is no limit to hold others against.
        let max_is_known = match &spec.max_ttl {
            Some(at) => at.value == max_ttl,
            None => !spec.has("max_ttl"),
        };
        let mut ttl = |key: &str, at: Option<&At<Duration>>, default| {
            let ttl = at.map_or(default, |at| at.value);
            if ttl > max_ttl && max_is_known {
                let limit = "dns.cache.max_ttl";
                self.order(at, spec.max_ttl.as_ref(), key, limit, &duration_words(max_ttl));
            }
            ttl
        };
        let min_ttl = ttl("dns.cache.min_ttl", spec.min_ttl.as_ref(), default.min_ttl);
        let negative_ttl = ttl("dns.cache.negative_ttl", spec.negative_ttl.as_ref(), default.negative_ttl.min(max_ttl));
        if let Some(at) = spec.min_ttl.as_ref().filter(|_| min_ttl > MIN_TTL_UNSUSPICIOUS && min_ttl <= max_ttl) {
            self.long_min_ttl(at);
        }
        CacheSettings {
            size: self.cache_size(spec.size.as_ref(), default.size),
            min_ttl,
            max_ttl,
            negative_ttl,
            stale: self.duration("dns.cache.stale", spec.stale.as_ref(), Duration::ZERO..=7 * DAY, default.stale),
            prefetch: spec.prefetch.as_ref().map_or(default.prefetch, |at| at.value),
        }
    }

    fn cache_size(&mut self, size: Option<&At<Size>>, default: usize) -> usize {
        let Some(At { value: Size(size), span }) = size else {
            return default;
        };
        // Where addresses have 32 bits, the upper bound is out of reach.
        let usable = (*size == 0 || SIZE.contains(size)).then(|| usize::try_from(*size).ok()).flatten();
        usable.unwrap_or_else(|| {
            let (min, max) = (size_words(*SIZE.start()), size_words(*SIZE.end()));
            self.out_of_range("dns.cache.size", span.clone(), &format!("{min} to {max}; \"0\" turns the cache off"));
            default
        })
    }

    fn long_min_ttl(&mut self, min_ttl: &At<Duration>) {
        let title = format!(
            "`dns.cache.min_ttl` keeps answers up to {} longer than their owner allows",
            duration_words(min_ttl.value)
        );
        self.faults.push(Fault::warning(min_ttl.span.clone(), title).help(format!(
            "a server that moves is looked for at its old address for so long; {} or less gets no warning",
            duration_words(MIN_TTL_UNSUSPICIOUS)
        )));
    }
}

/// Less holds a few hundred answers; more is a slip of the unit.
const SIZE: RangeInclusive<u64> = 64 << 10..=64 << 30;
/// Owners who choose less than this mostly mean to be able to move within minutes.
const MIN_TTL_UNSUSPICIOUS: Duration = Duration::from_secs(300);
