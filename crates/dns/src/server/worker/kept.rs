//! Answers from the cache: fresh ones at once, stale ones when upstreams fail (RFC 8767), popular ones renewed before their
//! end.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{Worker, WorkerState};
use crate::{
    cache::{Cache, Key, Lookup},
    message::{self, ClientView, Query},
    server::{
        era::Era,
        flight::{Flight, Waiter},
        query_log::Source,
    },
    upstream::count,
};

/// What the cache has for a client's query.
pub(super) enum Kept {
    /// The answer, which is in the worker's buffer. With `refresh`, upstreams are asked for the next one.
    Answer { refresh: bool, stale: bool },
    /// Upstreams have to be asked. With `stale`, there is an answer past its end in case they fail.
    Nothing { stale: bool },
}

impl Worker {
    pub(super) fn look_up(
        &self,
        answer: &mut Vec<u8>,
        query: (&[u8], &Query),
        view: &ClientView,
        now: Instant,
    ) -> Kept {
        let nothing = Kept::Nothing { stale: false };
        let era = self.era.borrow();
        let Some(cache) = &era.cache else { return nothing };
        let Some(key) = cache.key(query.0, query.1) else { return nothing };
        let counters = &self.shared.counters;
        match cache.answer(&key, view, now, answer) {
            Lookup::Hit { prefetch } => {
                count(&counters.cache_hits);
                Kept::Answer { refresh: prefetch, stale: false }
            }
            // Upstreams failed a moment ago.
            Lookup::Stale { hold: true } if cache.stale(&key, view, now, answer) => {
                count(&counters.cache_stale);
                self.duration(Duration::ZERO);
                Kept::Answer { refresh: false, stale: true }
            }
            found => {
                count(&counters.cache_misses);
                Kept::Nothing { stale: matches!(found, Lookup::Stale { .. }) }
            }
        }
    }

    /// Asks upstreams for the next answer to a question whose last one was just given from the cache.
    pub(super) fn refresh(
        self: &Rc<Worker>,
        era: &Rc<Era>,
        state: &mut WorkerState,
        (bytes, parsed): (&[u8], &Query),
        now: Instant,
    ) {
        message::normalise(bytes, parsed, &mut state.scratch);
        let hash = message::hash_key(&state.scratch, state.seed);
        if Self::same(era, state, hash).is_none() && state.flights.len() < era.flights_max {
            count(&self.shared.counters.cache_prefetches);
            let index = self.take_off(era, state, hash, parsed.question.end, now);
            self.step(state, index, now);
        }
    }

    /// Keeps an upstream's answer; whether its TTLs were changed by the limits.
    pub(super) fn keep(flight: &Flight, answer: &[u8], now: Instant) -> bool {
        let cache = flight.era.cache.as_ref();
        cache.and_then(|cache| cache.insert(&flight.query, answer, now)).is_some_and(|inserted| inserted.clamped)
    }

    /// Renders the answer that was just kept.
    pub(super) fn render_kept(
        flight: &Flight,
        question: &[u8],
        view: &ClientView,
        answer: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let Some(cache) = &flight.era.cache else { return false };
        let Ok(parsed) = Query::parse(&flight.query) else { return false };
        let Some(key) = cache.key(&flight.query, &parsed) else { return false };
        matches!(cache.answer(&key.with_question(question), view, now, answer), Lookup::Hit { .. })
    }

    /// Upstreams failed, or take longer than clients wait: those who wait get the answer past its end, if there is one.
    /// For a while nobody else waits for upstreams either.
    pub(super) fn serve_stale(&self, state: &mut WorkerState, index: usize, now: Instant) {
        let WorkerState { flights, answer, .. } = state;
        flights[index].stale_at = None;
        let waiters = std::mem::take(&mut flights[index].waiters);
        let flight = &flights[index];
        let parsed = Query::parse(&flight.query).ok();
        let cache = flight.era.cache.as_ref();
        let kept = cache.zip(parsed).and_then(|(cache, parsed)| Some((cache, cache.key(&flight.query, &parsed)?)));
        if let Some((cache, key)) = &kept {
            cache.refresh_failed(key, now);
        }
        let mut left = SmallVec::new();
        for waiter in waiters {
            let given =
                kept.as_ref().is_some_and(|(cache, key)| self.give_stale(cache, key, flight, &waiter, answer, now));
            if given {
                let trace = || Self::trace(flight, None, answer, now).past_its_end();
                let question = waiter.question.as_deref().unwrap_or(&flight.query[12..flight.question_end]);
                self.log(&waiter.client, &waiter.origin, question, answer, || Source::Stale, flight.started);
                waiter.client.deliver(answer, Some(&trace));
            } else {
                left.push(waiter);
            }
        }
        flights[index].waiters = left;
    }

    fn give_stale(
        &self,
        cache: &Cache,
        key: &Key<'_>,
        flight: &Flight,
        waiter: &Waiter,
        answer: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let question = waiter.question.as_deref().unwrap_or(&flight.query[12..flight.question_end]);
        let given = cache.stale(&key.with_question(question), &waiter.view, now, answer);
        if given {
            count(&self.shared.counters.cache_stale);
            self.duration(now.saturating_duration_since(flight.started));
        }
        given
    }
}

/// How long a client waits for upstreams while there is a stale answer (RFC 8767 section 5, the client response timer).
pub(super) const CLIENT_RESPONSE: Duration = Duration::from_millis(1800);
