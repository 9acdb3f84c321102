//! Queries to plain upstreams with an encrypted face (RFC 9462): held until it is known where it is required, sent in plain
//! where it fails and is not.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::{Worker, WorkerState};
use crate::{
    error::{Error, ErrorKind},
    server::{
        flight::{Added, Exchange, Flight, State},
        route::{Face, Way},
    },
    upstream::Endpoint,
};

impl Worker {
    /// Has a query wait for an encrypted face that is required, or fail when there is none.
    pub(super) fn hold(flight: &mut Flight, upstream: usize, way: Way, now: Instant) {
        let exchange = Exchange {
            upstream,
            face: Face::Main,
            started: now,
            state: State::Held,
            resend: None,
            blamed: false,
            added: Added::Nothing,
            doubted: false,
            outcome: None,
            question: None,
        };
        let url = flight.era.routes[upstream].main.endpoint.url();
        let error = |why: &str| {
            let text = format!("query to {url}: its encrypted face (ddr) is required, and {why}");
            Error::new(ErrorKind::Ddr, text)
        };
        flight.exchanges.push(exchange);
        match way {
            Way::Closed(why) => {
                let number = flight.exchanges.len() - 1;
                Self::lose(flight, number, error(&format!("there is none: {why}")), now);
            }
            // What the clients are told if nothing else comes until their deadline.
            Way::Unknown | Way::Open(_) => flight.last_error = Some(error("not known yet")),
        }
    }

    /// There is news of an upstream's encrypted face: what was held for it goes on.
    pub(super) fn designated(self: &Rc<Worker>, upstream: &Arc<Endpoint>, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let held = |(index, flight): (usize, &Flight)| {
            let is_held = |exchange: &Exchange| {
                let main = &flight.era.routes[exchange.upstream].main;
                matches!(exchange.state, State::Held) && Arc::ptr_eq(&main.endpoint, upstream)
            };
            flight.exchanges.iter().position(is_held).map(|number| (index, number))
        };
        let held: Vec<(usize, usize)> = state.flights.iter().filter_map(held).collect();
        for (index, number) in held {
            let flight = &mut state.flights[index];
            let upstream = flight.exchanges[number].upstream;
            let way = flight.era.routes[upstream].way(now);
            if way == Way::Unknown {
                continue;
            }
            flight.exchanges[number].state = State::Over;
            if !flight.answered {
                match way {
                    Way::Open(face) => self.start(state, index, upstream, face, None, now),
                    way => Self::hold(flight, upstream, way, now),
                }
            }
            self.step(state, index, now);
        }
    }

    /// Whether a query that an encrypted face does not answer is to go out in plain: it has not yet, and may.
    pub(super) fn should_retreat(flight: &Flight, upstream: usize) -> bool {
        let mut tried = flight.exchanges.iter().filter(|exchange| exchange.upstream == upstream);
        flight.era.designates
            && !flight.answered
            && flight.era.routes[upstream].may_retreat()
            && tried.clone().next().is_some()
            && tried.all(|exchange| matches!(exchange.face, Face::Designated(_)))
    }

    /// Sends in plain what came to nothing on an encrypted face; `false` when there is no such thing.
    pub(super) fn retreat(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) -> bool {
        let flight = &state.flights[index];
        let lost = flight.exchanges.iter().find(|exchange| {
            let upstream = exchange.upstream;
            matches!(exchange.face, Face::Designated(_))
                && exchange.is_lost()
                && !flight.is_live(upstream)
                && Self::should_retreat(flight, upstream)
        });
        let Some(upstream) = lost.map(|exchange| exchange.upstream) else { return false };
        self.start(state, index, upstream, Face::Main, None, now);
        true
    }
}
