//! What is told of a query: its trace, and the reason of a failure.

use std::time::Instant;

use keepwarm_transport::error::Side;

use super::Worker;
use crate::{
    error::Error,
    message,
    server::{
        flight::{Best, Flight, Outcome},
        query_log::Source,
        route::Face,
        trace::{AttemptTrace, ExchangeTrace, NO_ANSWER, Trace},
    },
};

impl Worker {
    /// Where the answer of a flight is from, for the query log.
    pub(super) fn source(flight: &Flight, best: Option<&Best>) -> Source {
        let Some(best) = best else {
            return Source::Error(flight.last_error.as_ref().map_or("timeout", |error| error.kind().as_str()));
        };
        let exchange = &flight.exchanges[best.number];
        Source::Upstream(flight.era.routes[exchange.upstream].path(exchange.face).endpoint.name.clone())
    }

    pub(in crate::server) fn trace(flight: &Flight, best: Option<&Best>, answer: &[u8], now: Instant) -> Trace {
        let exchange = best.map(|Best { number, lease, at, .. }| {
            let exchange = &flight.exchanges[*number];
            let endpoint = &flight.era.routes[exchange.upstream].path(exchange.face).endpoint;
            ExchangeTrace {
                upstream: endpoint.name.to_string(),
                transport: endpoint.transport.as_str(),
                url: endpoint.url(),
                peer: lease.peer(),
                connection: lease.id(),
                reused: lease.reused(),
                age: at.saturating_duration_since(lease.opened_at()),
                decide: exchange.started.saturating_duration_since(flight.started),
                wait: at.saturating_duration_since(exchange.started),
                dial: (!lease.reused()).then(|| lease.dial()),
                exchange: now.saturating_duration_since(*at),
            }
        });
        let attempts = flight.exchanges.iter().enumerate().map(|(number, exchange)| {
            let (outcome, at) = match &exchange.outcome {
                None if now >= flight.deadline => (NO_ANSWER.to_owned(), now),
                None => ("pending".to_owned(), now),
                Some((Outcome::Answered(rcode), at)) => (message::rcode_name(*rcode), *at),
                Some((Outcome::Truncated, at)) => ("truncated, asked again over tcp".to_owned(), *at),
                Some((Outcome::Failed(error), at)) => (error.to_string(), *at),
            };
            let upstream = flight.era.routes[exchange.upstream].main.endpoint.name.to_string();
            AttemptTrace {
                upstream,
                outcome,
                took: at.saturating_duration_since(exchange.started),
                transport: flight.era.routes[exchange.upstream].path(exchange.face).endpoint.transport.as_str(),
                designated: matches!(exchange.face, Face::Designated(_)),
                started: exchange.started.saturating_duration_since(flight.started),
                why: Self::why(flight, number),
                connection: flight.notes.as_ref().and_then(|notes| notes.connection(number)),
            }
        });
        Trace {
            answer: answer.to_vec(),
            total: now.saturating_duration_since(flight.started),
            cached: false,
            stale: false,
            local: None,
            exchange,
            attempts: attempts.collect(),
            error: flight.last_error.as_ref().map(ToString::to_string),
            explanation: Some(Self::explain(flight, best)),
        }
    }
}

/// What the client is told of a failure (RFC 8914): the kind, not the addresses of upstreams.
pub(super) fn explain(error: &Error) -> String {
    match error.side() {
        Side::Local => format!("keepwarm: local shortage ({})", error.kind().as_str()),
        Side::Upstream | Side::Client => format!("keepwarm: no upstream answered ({})", error.kind().as_str()),
    }
}
