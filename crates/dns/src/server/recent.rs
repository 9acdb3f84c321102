//! The last queries that were slow or failed, with their story.
//!
//! A query that was neither costs a comparison. Where many are, each worker writes down a few a second and counts no others: the last
//! ones say what is wrong as well as all of them would.

use std::{
    cell::Cell,
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use keepwarm_pool::Histogram;
use parking_lot::Mutex;

use super::{
    Server,
    flight::{Best, Flight},
    trace::{AttemptTrace, ExchangeTrace, Trace},
    worker::Worker,
};
use crate::{
    config::QueryLogPrivacy,
    message::{self, SERVFAIL, rcode_name, verify_answer},
};

/// A query that took longer than [`DnsConfig::slow`](crate::config::DnsConfig::slow), or failed.
#[derive(Debug, Clone)]
pub struct RecentQuery {
    /// When it was over, by the clock on the wall.
    pub at: SystemTime,
    /// The name that was asked for; only where the query log's privacy is `full` and was when it was asked for, else nothing at all is
    /// said of it.
    pub name: Option<String>,
    /// The type that was asked for.
    pub qtype: u16,
    /// The response code of the upstream's answer; `None` when there was none and clients got SERVFAIL, or an answer past its end.
    pub rcode: Option<String>,
    /// From the first client's question to the answer, or to giving up.
    pub total: Duration,
    /// The exchange that gave the answer: upstream, transport, connection, and how long each phase took.
    pub exchange: Option<ExchangeTrace>,
    /// The exchanges in the order in which they began; the first [`ATTEMPTS_MAX`](Self::ATTEMPTS_MAX).
    pub attempts: Vec<AttemptTrace>,
    /// The last error, where an exchange failed.
    pub error: Option<String>,
    /// One line that says where the time went, or why there is no answer.
    pub explanation: String,
}

impl RecentQuery {
    /// Exchanges that are told of one query.
    pub const ATTEMPTS_MAX: usize = 8;

    /// Whether no upstream answered, or none with more than SERVFAIL.
    pub fn is_failed(&self) -> bool {
        self.rcode.as_ref().is_none_or(|rcode| *rcode == rcode_name(SERVFAIL))
    }
}

/// The last ones of all workers.
pub(crate) struct Recent(Mutex<Queries>);

struct Queries {
    list: VecDeque<RecentQuery>,
    /// Whether names may be told now.
    names: bool,
}

impl Recent {
    pub(super) fn new(privacy: QueryLogPrivacy) -> Recent {
        Recent(Mutex::new(Queries { list: VecDeque::new(), names: privacy == QueryLogPrivacy::Full }))
    }

    /// Tells names from here on, or forgets them, also those of queries in flight.
    pub(super) fn set_privacy(&self, privacy: QueryLogPrivacy) {
        let mut queries = self.0.lock();
        queries.names = privacy == QueryLogPrivacy::Full;
        if !queries.names {
            queries.list.iter_mut().for_each(|query| query.name = None);
        }
    }

    fn push(&self, mut query: RecentQuery) {
        let mut queries = self.0.lock();
        if !queries.names {
            query.name = None;
        }
        let old = if queries.list.len() < RECENT_MAX { None } else { queries.list.pop_front() };
        queries.list.push_back(query);
        drop(queries);
        drop(old);
    }
}

impl Server {
    /// The last 128 queries that were slow or failed, the latest first.
    pub fn recent(&self) -> Vec<RecentQuery> {
        self.shared.recent.0.lock().list.iter().rev().cloned().collect()
    }

    /// How long queries took from the question to the answer, of all workers. Those answered from the cache or from names that are
    /// answered here are among them with no time at all; those refused or malformed are not.
    pub fn durations(&self) -> Histogram {
        let mut all = Histogram::default();
        for tally in &self.shared.durations {
            all.merge(&tally.read());
        }
        let status = self.status();
        all.record_many(Duration::ZERO, status.cache_hits + status.local_answers);
        all
    }
}

/// What one worker may still write down.
#[derive(Default)]
pub(crate) struct Allowance(Cell<Option<(Instant, u32)>>);

impl Allowance {
    /// Whether there is room for one more.
    fn take(&self, now: Instant) -> bool {
        let (since, used) = match self.0.get() {
            Some((since, used)) if now.saturating_duration_since(since) < WINDOW => (since, used),
            _ => (now, 0),
        };
        self.0.set(Some((since, used.saturating_add(1))));
        used < WINDOW_MAX
    }
}

impl Worker {
    /// A query has come to its end. Tells the histogram, for each client, and the list, if it was slow or failed.
    #[inline]
    pub(super) fn over(&self, flight: &Flight, best: Option<(&Best, &[u8])>, now: Instant) {
        let took = now.saturating_duration_since(flight.started);
        for _ in 0..flight.waiters.len() {
            self.duration(took);
        }
        let failed =
            best.is_none_or(|(_, answer)| answer.get(3).is_none_or(|flags| u16::from(flags & 0x0f) == SERVFAIL));
        if took >= flight.era.config.slow || failed {
            self.remember(flight, best, now);
        }
    }

    /// A client has its answer.
    pub(super) fn duration(&self, took: Duration) {
        self.shared.durations[self.number].record(took);
    }

    #[cold]
    fn remember(&self, flight: &Flight, best: Option<(&Best, &[u8])>, now: Instant) {
        if !self.recently.take(now) {
            return;
        }
        let rcode = best.map(|(_, answer)| verify_answer(answer).map_or(0, |info| info.rcode));
        let mut trace = Self::trace(flight, best.map(|(best, _)| best), &[], now);
        trace.attempts.truncate(RecentQuery::ATTEMPTS_MAX);
        let question = &flight.query[12..flight.question_end];
        let (name, rest) = question.split_at(question.len().saturating_sub(4));
        let full = flight.era.config.query_log.privacy == QueryLogPrivacy::Full;
        #[expect(clippy::disallowed_methods, reason = "people look for it by the time of day")]
        let at = SystemTime::now();
        self.shared.recent.push(RecentQuery {
            at,
            name: full.then(|| text(name)),
            qtype: rest.first_chunk().map_or(0, |qtype| u16::from_be_bytes(*qtype)),
            rcode: rcode.map(rcode_name),
            total: trace.total,
            explanation: explanation(&trace),
            exchange: trace.exchange,
            attempts: trace.attempts,
            error: trace.error,
        });
    }
}

/// Where the time went, or why there is no answer.
fn explanation(trace: &Trace) -> String {
    let Some(exchange) = &trace.exchange else {
        let why = trace.error.as_deref().unwrap_or("nobody answered in time");
        return match trace.attempts.len() {
            0 => format!("no upstream could be asked: {why}"),
            attempts => format!("no answer after {} and {}: {why}", Millis(trace.total), Times(attempts)),
        };
    };
    let ExchangeTrace { upstream, transport, decide, wait, exchange: answer, reused, .. } = exchange;
    let parts = [
        (*decide, "before it was asked, for others that were asked first"),
        (*wait, if *reused { "for a free connection" } else { "for a new connection" }),
        (*answer, "for its answer"),
    ];
    let (longest, what) = parts.into_iter().max_by_key(|(time, _)| *time).unwrap_or_default();
    let times = Times(trace.attempts.len());
    format!("{upstream} over {transport}: {} of {} {what} ({times})", Millis(longest), Millis(trace.total))
}

/// A name in wire form as people write it.
fn text(name: &[u8]) -> String {
    let mut text = String::new();
    // A question that was parsed has a name that ends.
    let _ = message::name_to_text(name, 0, &mut text);
    text
}

/// `1 attempt`, `3 attempts`.
struct Times(usize);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} attempt{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", self.0.as_millis())
    }
}

/// Queries that are remembered.
const RECENT_MAX: usize = 128;

/// So many are written down by one worker in so long.
const WINDOW_MAX: u32 = 32;
const WINDOW: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_writes_down_a_few_at_a_time() {
        let (allowance, now) = (Allowance::default(), tokio::time::Instant::now().into_std());
        let taken = |now| (0..100).filter(|_| allowance.take(now)).count();
        assert_eq!((taken(now), taken(now + WINDOW / 2), taken(now + WINDOW)), (32, 0, 32));
    }
}
