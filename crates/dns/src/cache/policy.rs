//! What may be kept, and for how long.

use std::time::Duration;

use crate::{
    config::CacheSettings,
    message::{
        AnswerInfo, Header, NOERROR, NXDOMAIN, SERVFAIL, TYPE_SOA,
        wire::{Record, Records, name_end, u32_at},
    },
};

/// The limits of TTLs, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    min_ttl: u32,
    max_ttl: u32,
    negative_ttl: u32,
}

/// What kind of answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With data.
    Positive,
    /// The name exists and has no such data (RFC 2308 section 2.2).
    NoData,
    /// The name does not exist.
    NxDomain,
    /// SERVFAIL.
    Failure,
}

impl Policy {
    pub(super) fn new(settings: &CacheSettings) -> Policy {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(TTL_MAX).min(TTL_MAX);
        Policy {
            min_ttl: seconds(settings.min_ttl),
            max_ttl: seconds(settings.max_ttl),
            negative_ttl: seconds(settings.negative_ttl),
        }
    }

    /// The kind of an answer that may be kept. `info` is what [`verify_answer`](crate::message::verify_answer) found in it.
    pub(super) fn kind(answer: &[u8], header: Header, info: AnswerInfo) -> Option<Kind> {
        if info.tc {
            return None;
        }
        match info.rcode {
            NOERROR if !info.is_nodata => Some(Kind::Positive),
            // RFC 2308 section 5: without a SOA a negative answer is not kept; with NS alone it is a referral.
            NOERROR => has_soa(answer, header).then_some(Kind::NoData),
            NXDOMAIN => has_soa(answer, header).then_some(Kind::NxDomain),
            SERVFAIL => Some(Kind::Failure),
            _ => None,
        }
    }

    /// The TTL that a record of the answer is given, in seconds; `None` when the record is malformed.
    pub(super) fn ttl(&self, kind: Kind, answer: &[u8], record: &Record, authority: bool) -> Option<u32> {
        // RFC 2181 section 8: with the top bit set it counts as 0.
        let ttl = if record.ttl > TTL_MAX { 0 } else { record.ttl };
        let clamp = |ttl: u32| ttl.max(self.min_ttl).min(self.max_ttl);
        if authority && record.rtype == TYPE_SOA && matches!(kind, Kind::NoData | Kind::NxDomain) {
            let minimum = soa_minimum(answer, record)?;
            // A ceiling above the floor: who sets both wants negative answers short.
            return Some(clamp(ttl.min(minimum)).min(self.negative_ttl));
        }
        Some(clamp(ttl))
    }

    /// For how long an answer with this smallest TTL is fresh; `None` when not at all.
    pub(super) fn lifetime(kind: Kind, smallest: Option<u32>) -> Option<u32> {
        match kind {
            Kind::Failure => Some(FAILURE_LIFETIME),
            _ => smallest.filter(|ttl| *ttl > 0),
        }
    }
}

fn has_soa(answer: &[u8], header: Header) -> bool {
    let Ok(records) = Records::of(answer) else { return false };
    let mut authority = records.skip(header.answers().into()).take(header.authorities().into()).flatten();
    authority.any(|record| record.rtype == TYPE_SOA)
}

/// The last of the five numbers behind two names (RFC 1035 section 3.3.13).
fn soa_minimum(answer: &[u8], record: &Record) -> Option<u32> {
    let numbers = name_end(answer, name_end(answer, record.rdata.start)?)?;
    let minimum = record.rdata.end.checked_sub(4)?;
    (numbers + 16 == minimum).then(|| u32_at(answer, minimum))?
}

/// The largest that there is, in seconds (RFC 2181 section 8).
const TTL_MAX: u32 = 0x7fff_ffff;

/// RFC 9520 section 3.2: failures are kept for at least 1 s.
const FAILURE_LIFETIME: u32 = 1;
