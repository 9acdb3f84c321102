//! Why a query went as it did: the cache's verdict, the route, and for each candidate why it was or was not asked.
//!
//! Reasons are closed enums, rendered in words by their `Display`; programs compare variants, people read the words.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use keepwarm_pool::Lease;

use crate::{config::Strategy, health::Percentiles, strategy::order::Lead, upstream::DnsConnector};

use super::{DialTrace, Trace};
use crate::server::flight::{Added, Exchange};

/// Why a query went as it did.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What the cache had to say.
    pub cache: CacheVerdict,
    /// It joined an identical query that was in flight, and saw what was left of its course.
    pub joined: bool,
    /// How upstreams are chosen.
    pub strategy: Strategy,
    /// The group that answers for the name.
    pub group: String,
    /// The suffix of the route that led there; `None` for names without a route.
    pub suffix: Option<String>,
    /// The group that is asked when this one fails.
    pub fallback: Option<String>,
    /// Who could be asked, in order; empty when the cache answered.
    pub candidates: Vec<CandidateTrace>,
    /// What became of the second try; `None` where the strategy makes none.
    pub hedge: Option<HedgeVerdict>,
}

/// What the cache had to say to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheVerdict {
    /// There is no cache.
    Off,
    /// It had the answer.
    Hit,
    /// It had an answer past its end, which was given because upstreams fail (RFC 8767).
    Stale,
    /// It did not have the answer.
    Miss,
    /// The query passes it by, for this reason.
    Bypass(&'static str),
}

impl fmt::Display for CacheVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheVerdict::Off => f.write_str("off"),
            CacheVerdict::Hit => f.write_str("hit"),
            CacheVerdict::Stale => f.write_str("stale: past its end, served because upstreams failed"),
            CacheVerdict::Miss => f.write_str("miss"),
            CacheVerdict::Bypass(why) => write!(f, "bypassed: {why}"),
        }
    }
}

/// What became of the second try of the hedged strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeVerdict {
    /// The first answered, or failed, before one was due; or there was nobody to ask.
    NotDue,
    /// The budget was used up.
    Denied,
    /// It was made, and another's answer was the first.
    Lost,
    /// It was made and gave the answer.
    Won,
    /// It was made, and neither gave an answer.
    InVain,
}

impl fmt::Display for HedgeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HedgeVerdict::NotDue => "not due",
            HedgeVerdict::Denied => "due, and denied: the budget is used up",
            HedgeVerdict::Lost => "sent, and not the first to answer",
            HedgeVerdict::Won => "sent, and the first to answer",
            HedgeVerdict::InVain => "sent, and not answered either",
        })
    }
}

/// One upstream that could be asked, as it stood when the query began.
#[derive(Debug, Clone)]
pub struct CandidateTrace {
    /// Its name in the config.
    pub upstream: String,
    /// Its group.
    pub group: String,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Median of its recent answers; the smoothed latency while there are too few of them. `None` before the first.
    pub p50: Option<Duration>,
    /// 95th percentile of its recent answers.
    pub p95: Option<Duration>,
    /// Queries that it had not answered yet: all workers' over streams, this worker's over UDP.
    pub in_flight: usize,
    /// Its weight.
    pub weight: u32,
    /// Why it was asked, or why not.
    pub why: Why,
}

/// Why an upstream was asked, was asked again, or was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was the first, for this reason. With the latency that was believed, where that is the reason.
    First(Lead, Option<Duration>),
    /// All are asked at once.
    All,
    /// One before it failed, or answered SERVFAIL or REFUSED.
    TakesOver,
    /// Racing: nothing had come for so long.
    Joins(Duration),
    /// One before it had said nothing for so long.
    Silence(Duration),
    /// A second try, because the first had not answered within its 95th percentile, this one.
    Hedge(Duration),
    /// Its breaker lets one query through to see whether it is back.
    Probe,
    /// Its breaker is open, and nobody else was left to ask.
    LeastBad,
    /// It belongs to the fallback group, and all of the query's own group failed or stayed silent.
    Fallback,
    /// Once more, over TCP: the answer was truncated.
    Truncated,
    /// Once more, over TCP: too many wrong answers came in over UDP.
    Doubtful,
    /// Once more, over a fresh connection: the one before was lost.
    Fresh,
    /// Once more, after so much silence.
    Repeat(Duration),
    /// Not asked: its breaker is open for so long.
    BreakerOpen(Duration),
    /// Not asked: another answered.
    NotNeeded,
    /// Not asked: the time was up, or the answer past its end was given.
    TimeUp,
    /// Not asked: more candidates than a query takes.
    TooMany,
}

impl Why {
    /// Whether the upstream was asked.
    pub fn is_asked(self) -> bool {
        !matches!(self, Why::BreakerOpen(_) | Why::NotNeeded | Why::TimeUp | Why::TooMany)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::First(lead, expected) => first(*lead, *expected, f),
            Why::All => f.write_str("all are asked at once"),
            Why::TakesOver => f.write_str("took over: the one before failed"),
            Why::Joins(after) => write!(f, "joined the race after {}", Millis(*after)),
            Why::Silence(after) => write!(f, "took over: {} of silence", Millis(*after)),
            Why::Hedge(after) => write!(f, "hedge after p95 {}", Millis(*after)),
            Why::Probe => f.write_str("probe: is it back?"),
            Why::LeastBad => f.write_str("breaker open, but nobody else was left"),
            Why::Fallback => f.write_str("fallback: its own group failed"),
            Why::Truncated => f.write_str("again over tcp: truncated"),
            Why::Doubtful => f.write_str("again over tcp: too many wrong answers"),
            Why::Fresh => f.write_str("again on a fresh connection"),
            Why::Repeat(after) => write!(f, "again after {} of silence", Millis(*after)),
            Why::BreakerOpen(left) => write!(f, "not asked: open for {} more", Millis(*left)),
            Why::NotNeeded => f.write_str("not needed: another answered"),
            Why::TimeUp => f.write_str("not asked: the time was up"),
            Why::TooMany => f.write_str("not asked: too many candidates"),
        }
    }
}

fn first(lead: Lead, expected: Option<Duration>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("first: ")?;
    f.write_str(match lead {
        Lead::Order => "order of the config",
        Lead::All => "all are asked at once",
        Lead::Turn => "its turn",
        Lead::Draw => "drawn by weight",
        Lead::LeastLoaded => "fewest in flight",
        Lead::Lowest => "lowest estimate",
        Lead::Unknown => "never asked before",
        Lead::Exploration => "exploration",
    })?;
    match expected {
        Some(expected) => write!(f, " {}", Millis(expected)),
        None => Ok(()),
    }
}

/// `8.1 ms`, `1.20 s`.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            long if long >= Duration::from_secs(1) => write!(f, "{:.2} s", long.as_secs_f64()),
            short => write!(f, "{:.1} ms", short.as_secs_f64() * 1000.0),
        }
    }
}

/// A connection that a query went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTrace {
    /// The pool's number for it.
    pub id: u64,
    /// Where it goes to.
    pub peer: SocketAddr,
    /// Its age when the query was sent.
    pub age: Duration,
    /// It had served before.
    pub reused: bool,
    /// From the decision to the query's departure: waiting for the connection, the dial of a new one included.
    pub wait: Duration,
    /// How long each phase of the dial took; `None` where the connection was there before.
    pub dial: Option<DialTrace>,
    /// A cookie went along (RFC 7873).
    pub cookie: bool,
    /// The question's letters had a random case (0x20).
    pub random_case: bool,
}

impl ConnectionTrace {
    /// Whether it had been opened before the query needed one, and nothing had gone over it: the query did not wait for its
    /// dial.
    pub fn opened_ahead(&self) -> bool {
        !self.reused && self.wait.is_zero()
    }
}

/// What is written down of a query while it runs; only of those that the daemon itself asks.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) joined: bool,
    pub(crate) hedge_denied: bool,
    pub(crate) candidates: Vec<CandidateNote>,
    /// By the exchange's number.
    connections: Vec<(usize, ConnectionTrace)>,
}

/// An upstream as it stood when the query began.
#[derive(Debug)]
pub(crate) struct CandidateNote {
    pub(crate) upstream: usize,
    pub(crate) breaker: &'static str,
    /// For how long its breaker stays open.
    pub(crate) open_for: Option<Duration>,
    pub(crate) smoothed: Option<Duration>,
    pub(crate) percentiles: Option<Percentiles>,
    pub(crate) expected: Option<Duration>,
    pub(crate) in_flight: usize,
}

impl Notes {
    pub(crate) fn new(joined: bool, candidates: Vec<CandidateNote>) -> Notes {
        Notes { joined, candidates, ..Notes::default() }
    }

    /// An exchange went out on this connection.
    pub(crate) fn sent(&mut self, number: usize, exchange: &Exchange, lease: &Lease<DnsConnector>, now: Instant) {
        let connection = ConnectionTrace {
            id: lease.id(),
            peer: lease.peer(),
            age: now.saturating_duration_since(lease.opened_at()),
            reused: lease.reused(),
            wait: now.saturating_duration_since(exchange.started),
            dial: (!lease.reused()).then(|| lease.dial()),
            cookie: exchange.added == Added::Cookie,
            random_case: exchange.question.is_some(),
        };
        self.connections.push((number, connection));
    }

    /// The connection of an exchange.
    pub(crate) fn connection(&self, exchange: usize) -> Option<ConnectionTrace> {
        self.connections.iter().find(|(number, _)| *number == exchange).map(|(_, connection)| *connection)
    }
}

impl Trace {
    /// The same story for a client who was given the answer past its end.
    pub(crate) fn past_its_end(mut self) -> Trace {
        (self.cached, self.stale) = (true, true);
        if let Some(explanation) = &mut self.explanation {
            explanation.cache = CacheVerdict::Stale;
        }
        self
    }
}
