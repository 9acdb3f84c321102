//! A trace's explanation as the status API tells it.

use keepwarm_dns::server::{AttemptTrace, CandidateTrace, Trace};

use crate::status::{
    BreakerState,
    explain::{Candidate, Connection, Exchange, Explain},
};

/// Why a query went as it did; `None` for answers that need neither cache nor upstream.
pub(super) fn explain(trace: &Trace) -> Option<Explain> {
    let explanation = trace.explanation.as_ref()?;
    Some(Explain {
        cache: explanation.cache.to_string(),
        joined: explanation.joined,
        strategy: explanation.strategy.as_str().into(),
        group: explanation.group.clone(),
        suffix: explanation.suffix.clone(),
        fallback: explanation.fallback.clone(),
        hedge: explanation.hedge.map(|hedge| hedge.to_string()),
        decide: trace.exchange.as_ref().map(|exchange| exchange.decide),
        candidates: explanation.candidates.iter().map(candidate).collect(),
        exchanges: trace.attempts.iter().map(exchange).collect(),
        failure: super::failure(trace),
    })
}

fn candidate(candidate: &CandidateTrace) -> Candidate {
    Candidate {
        upstream: candidate.upstream.clone(),
        group: candidate.group.clone(),
        asked: candidate.why.is_asked(),
        why: candidate.why.to_string(),
        breaker: match candidate.breaker {
            "open" => BreakerState::Open,
            "half-open" => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        },
        p50: candidate.p50,
        p95: candidate.p95,
        in_flight: candidate.in_flight as u64,
        weight: candidate.weight,
    }
}

fn exchange(attempt: &AttemptTrace) -> Exchange {
    Exchange {
        upstream: attempt.upstream.clone(),
        transport: attempt.transport.into(),
        started: attempt.started,
        took: attempt.took,
        why: attempt.why.to_string(),
        outcome: attempt.outcome.clone(),
        connection: attempt.connection.map(|connection| Connection {
            id: connection.id,
            address: connection.peer.to_string(),
            age: connection.age,
            reused: connection.reused,
        }),
    }
}
