//! Why a query went as it did, put together when its answer is there: from the plan, from the exchanges, and from what was
//! noted of the upstreams when it began. Queries of clients are never explained.

use std::time::Instant;

use super::Worker;
use crate::{
    config::Strategy,
    health::Allowed,
    message::Query,
    server::{
        era::Era,
        flight::{Best, Exchange, Flight, Outcome},
        route::Face,
        trace::{CacheVerdict, CandidateNote, CandidateTrace, Explanation, HedgeVerdict, Notes, Why},
    },
    strategy::{Rank, order::Lead},
};

impl Worker {
    /// What is known of the upstreams that a query may go to.
    pub(super) fn note(flight: &Flight, joined: bool, now: Instant) -> Box<Notes> {
        let era = &flight.era;
        let upstreams = flight.plan.ranks().map(|(upstream, _)| upstream);
        let mut candidates: Vec<CandidateNote> = upstreams.map(|upstream| era.candidate(upstream, now)).collect();
        let chosen = era.chosen(&flight.query[12..flight.question_end]);
        for &upstream in chosen.members {
            if !candidates.iter().any(|candidate| candidate.upstream == upstream) {
                candidates.push(era.candidate(upstream, now));
            }
        }
        Box::new(Notes::new(joined, candidates))
    }
}

impl Era {
    fn candidate(&self, upstream: usize, now: Instant) -> CandidateNote {
        let path = self.routes[upstream].current(now);
        let gauges = path.host.stats().gauges;
        let open_for = match path.endpoint.allowed(now) {
            Allowed::No { until } => Some(until.saturating_duration_since(now)),
            Allowed::Yes | Allowed::Probe => None,
        };
        CandidateNote {
            upstream,
            breaker: path.endpoint.breaker(),
            open_for,
            smoothed: path.latency.borrow().smoothed(),
            percentiles: path.spread.borrow_mut().percentiles(),
            expected: path.estimate.as_ref().and_then(|estimate| estimate.borrow().expected(now)),
            in_flight: gauges.in_flight + gauges.waiting,
        }
    }

    /// The story of an answer that was in the cache.
    pub(super) fn explain_kept(&self, question: &[u8], stale: bool) -> Explanation {
        let cache = if stale { CacheVerdict::Stale } else { CacheVerdict::Hit };
        let chosen = self.chosen(question);
        Explanation {
            cache,
            joined: false,
            strategy: self.config.strategy,
            group: chosen.name.to_string(),
            suffix: chosen.suffix.map(ToString::to_string),
            fallback: self.config.fallback.as_ref().map(ToString::to_string),
            candidates: Vec::new(),
            hedge: None,
        }
    }
}

impl Worker {
    /// The story of a query that upstreams were asked.
    pub(super) fn explain(flight: &Flight, best: Option<&Best>) -> Explanation {
        let era = &flight.era;
        let notes = flight.notes.as_deref();
        let candidates = notes.map(|notes| &*notes.candidates).unwrap_or_default();
        let trace = |note: &CandidateNote| {
            let config = &era.config.upstreams[note.upstream];
            CandidateTrace {
                upstream: config.name.to_string(),
                group: config.group.to_string(),
                breaker: note.breaker,
                p50: note.percentiles.map(|percentiles| percentiles.p50).or(note.smoothed),
                p95: note.percentiles.map(|percentiles| percentiles.p95),
                in_flight: note.in_flight,
                weight: config.weight,
                why: Self::why_candidate(flight, note, best.is_some()),
            }
        };
        let question = &flight.query[12..flight.question_end];
        Explanation {
            cache: Self::verdict(flight),
            joined: notes.is_some_and(|notes| notes.joined),
            candidates: candidates.iter().map(trace).collect(),
            hedge: (era.config.strategy == Strategy::Hedged).then(|| hedge(flight, best)),
            ..era.explain_kept(question, false)
        }
    }

    fn verdict(flight: &Flight) -> CacheVerdict {
        let Some(cache) = &flight.era.cache else { return CacheVerdict::Off };
        let Ok(query) = Query::parse(&flight.query) else { return CacheVerdict::Bypass("malformed") };
        if cache.key(&flight.query, &query).is_some() {
            return CacheVerdict::Miss;
        }
        CacheVerdict::Bypass(match () {
            () if query.signed => "the query is signed",
            () if matches!(query.question.qtype, 0 | 128..=255) => "its type asks for more than one kind of data",
            () => "the answer may depend on more than the question",
        })
    }

    fn why_candidate(flight: &Flight, note: &CandidateNote, answered: bool) -> Why {
        match flight.exchanges.iter().position(|exchange| exchange.upstream == note.upstream) {
            Some(number) => Self::why(flight, number),
            None if !flight.plan.ranks().any(|(upstream, _)| upstream == note.upstream) => Why::TooMany,
            None => match note.open_for {
                Some(left) => Why::BreakerOpen(left),
                None if answered => Why::NotNeeded,
                None => Why::TimeUp,
            },
        }
    }

    /// Why an exchange was made.
    pub(super) fn why(flight: &Flight, number: usize) -> Why {
        let exchange = &flight.exchanges[number];
        let before = &flight.exchanges[..number];
        if let Some(last) = before.iter().rev().find(|other| other.upstream == exchange.upstream) {
            return again(last, exchange);
        }
        let rank = flight.plan.ranks().find(|(upstream, _)| *upstream == exchange.upstream).map(|(_, rank)| rank);
        match rank {
            Some(Rank::Probe) => return Why::Probe,
            Some(Rank::Open) => return Why::LeastBad,
            Some(Rank::Fallback) => return Why::Fallback,
            Some(Rank::Closed) | None => {}
        }
        let Some(previous) = before.iter().rev().find(|other| !Self::is_probe(flight, other)) else {
            let lead = flight.plan.lead();
            let noted = flight.notes.as_ref().and_then(|notes| {
                notes.candidates.iter().find(|candidate| candidate.upstream == exchange.upstream)?.expected
            });
            return Why::First(lead, noted.filter(|_| matches!(lead, Lead::Lowest | Lead::Exploration)));
        };
        let ended = |other: &Exchange| other.outcome.as_ref().is_some_and(|(_, at)| *at <= exchange.started);
        let after = exchange.started.saturating_duration_since(previous.started);
        match flight.era.config.strategy {
            Strategy::Parallel => Why::All,
            _ if flight.plan.hedged() == Some(exchange.upstream) => Why::Hedge(flight.plan.join_delay()),
            _ if ended(previous) => Why::TakesOver,
            Strategy::Racing => Why::Joins(after),
            _ => Why::Silence(after),
        }
    }

    fn is_probe(flight: &Flight, exchange: &Exchange) -> bool {
        flight.plan.ranks().any(|(upstream, rank)| upstream == exchange.upstream && rank == Rank::Probe)
    }
}

/// Why the same upstream was asked once more.
fn again(last: &Exchange, exchange: &Exchange) -> Why {
    let to_tcp = last.face == Face::Main && exchange.face == Face::Tcp;
    match &last.outcome {
        Some((Outcome::Truncated, _)) => Why::Truncated,
        _ if to_tcp => Why::Doubtful,
        Some((Outcome::Failed(_), at)) if *at <= exchange.started => Why::Fresh,
        _ => Why::Repeat(exchange.started.saturating_duration_since(last.started)),
    }
}

fn hedge(flight: &Flight, best: Option<&Best>) -> HedgeVerdict {
    match flight.plan.hedged() {
        Some(hedged) if best.is_some_and(|best| flight.exchanges[best.number].upstream == hedged) => HedgeVerdict::Won,
        Some(_) if best.is_some() => HedgeVerdict::Lost,
        Some(_) => HedgeVerdict::InVain,
        None if flight.notes.as_ref().is_some_and(|notes| notes.hedge_denied) => HedgeVerdict::Denied,
        None => HedgeVerdict::NotDue,
    }
}
