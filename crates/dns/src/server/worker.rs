//! One core's worth of the proxy: its queries in flight, its sockets, its clock.
//!
//! A worker is one thread. Tasks exist per socket and per client connection, never per query: a query is an entry in a
//! slab, moved on by whoever has news of it (a client, a socket, the [`Inbox`](super::inbox), the timer wheel). Every
//! method that does so ends in [`Worker::step`], which asks the strategy's plan what to do next.

mod kept;
mod receive;
mod send;
mod story;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use hashbrown::HashTable;
use keepwarm_transport::udp::DatagramBatch;
use slab::Slab;
use smallvec::SmallVec;
use tokio::{task::AbortHandle, time::Instant as Clock};

use self::kept::{CLIENT_RESPONSE, Kept};
use super::{
    Shared,
    flight::{Best, Client, Flight, Origin, State, Token, Waiter},
    inbox::Address,
    route::{Face, Route},
    trace::Trace,
    udp::Outbox,
};
use crate::{
    config::Strategy,
    health::Allowed,
    message::{self, ClientView, Query},
    strategy::{Candidate, Plan, Step},
    upstream::count,
    wheel::Wheel,
};

/// One worker. It lives in an `Rc` on its own thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Vec<Route>,
    pub(crate) address: Address,
    /// Receives and sends the datagrams of all sockets in turn.
    pub(super) batch: RefCell<DatagramBatch>,
    pub(crate) outbox: Rc<Outbox>,
    /// The tasks that read the UDP listeners.
    pub(crate) readers: RefCell<Vec<AbortHandle>>,
    state: RefCell<WorkerState>,
    /// Told when a timer is due earlier than the one that is slept for.
    pub(crate) sooner: tokio::sync::Notify,
    /// What is slept for.
    asleep_until: Cell<Option<Instant>>,
    pub(crate) listening: Cell<bool>,
    pub(crate) stop_listening: tokio::sync::Notify,
    flights_max: usize,
}

struct WorkerState {
    flights: Slab<Flight>,
    by_key: HashTable<usize>,
    wheel: Wheel<u64>,
    expired: Vec<u64>,
    generation: u64,
    rotation: u32,
    seed: u64,
    scratch: Vec<u8>,
    answer: Vec<u8>,
    /// Buffers of queries that ended, for those to come.
    spare: Vec<Vec<u8>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, routes: Vec<Route>, address: Address) -> Rc<Worker> {
        let workers = shared.workers;
        let flights_max = (shared.config.clients.max_in_flight / workers).clamp(1, Token::FLIGHTS_MAX - 1);
        let now = Clock::now().into_std();
        Rc::new(Worker {
            shared,
            routes,
            address,
            batch: RefCell::default(),
            outbox: Rc::default(),
            readers: RefCell::default(),
            state: RefCell::new(WorkerState {
                flights: Slab::with_capacity(256),
                by_key: HashTable::new(),
                wheel: Wheel::new(now),
                expired: Vec::new(),
                generation: 0,
                rotation: 0,
                seed: rand::random(),
                scratch: Vec::with_capacity(512),
                answer: Vec::with_capacity(4096),
                spare: Vec::new(),
            }),
            sooner: tokio::sync::Notify::new(),
            asleep_until: Cell::new(None),
            listening: Cell::new(true),
            stop_listening: tokio::sync::Notify::new(),
            flights_max,
        })
    }

    /// Queries whose clients still wait.
    pub(crate) fn in_flight(&self) -> usize {
        let waited_for = |(_, flight): &(usize, &Flight)| !flight.answered && !flight.waiters.is_empty();
        self.state.borrow().flights.iter().filter(waited_for).count()
    }

    /// A client's message came in. Answers at once what needs no upstream.
    pub(crate) fn ask(self: &Rc<Worker>, bytes: &[u8], client: Client, origin: Origin, now: Instant) {
        count(&self.shared.counters.queries);
        let mut state = self.state.borrow_mut();
        let limits = &self.shared.config.clients;
        let parsed = match Query::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                count(&self.shared.counters.malformed);
                let answered = message::build_query_error(bytes, &error, limits.udp_payload_size, &mut state.answer);
                return if answered { client.deliver(&state.answer, None) } else { client.dismiss() };
            }
        };
        let max = match client {
            Client::Udp { .. } => limits.udp_payload_size,
            Client::Tcp(_) | Client::Request(_) | Client::Daemon(_) => u16::MAX,
        };
        let view = ClientView::new(&parsed, max, limits.udp_payload_size);
        if !origin.allowed {
            count(&self.shared.counters.refused);
            message::build_error(bytes, &view, message::REFUSED, None, &mut state.answer);
            return client.deliver(&state.answer, None);
        }
        let state = &mut *state;
        let stale = match self.look_up(&mut state.answer, (bytes, &parsed), &view, now) {
            Kept::Answer { refresh, stale } => {
                let trace = || Trace { cached: true, stale, ..Trace::own(&state.answer) };
                client.deliver(&state.answer, Some(&trace));
                if refresh {
                    self.refresh(state, bytes, &parsed, now);
                }
                return;
            }
            Kept::Nothing { stale } => stale,
        };
        message::normalise(bytes, &parsed, &mut state.scratch);
        let hash = message::hash_key(&state.scratch, state.seed);
        let question = &bytes[12..parsed.question.end];
        if let Some(index) = Self::same(state, hash)
            && state.flights[index].waiters.len() < WAITERS_MAX
        {
            count(&self.shared.counters.coalesced);
            let flight = &mut state.flights[index];
            let differs = flight.query[12..flight.question_end] != *question;
            flight.waiters.push(Waiter { client, origin, view, question: differs.then(|| question.into()) });
            if stale && flight.stale_at.is_none() {
                flight.stale_at = Some(now + CLIENT_RESPONSE);
                self.step(state, index, now);
            }
            return;
        }
        if state.flights.len() >= self.flights_max {
            count(&self.shared.counters.overloaded);
            let text = Some("keepwarm: too many queries in flight");
            message::build_error(bytes, &view, message::SERVFAIL, text, &mut state.answer);
            return client.deliver(&state.answer, None);
        }
        let index = self.take_off(state, hash, parsed.question.end, now);
        let flight = &mut state.flights[index];
        flight.waiters.push(Waiter { client, origin, view, question: None });
        flight.stale_at = stale.then_some(now + CLIENT_RESPONSE);
        self.step(state, index, now);
    }

    /// The flight of the query in `scratch`, if there is one.
    fn same(state: &WorkerState, hash: u64) -> Option<usize> {
        let same = |&index: &usize| message::same_key(&state.flights[index].query, &state.scratch);
        state.by_key.find(hash, same).copied()
    }

    /// A flight of the query in `scratch`, which nobody waits for yet.
    fn take_off(&self, state: &mut WorkerState, hash: u64, question_end: usize, now: Instant) -> usize {
        let deadline = now + self.shared.config.timeout;
        let plan = self.plan(state, now, deadline);
        state.generation = Token::next_generation(state.generation);
        let mut query = state.spare.pop().unwrap_or_default();
        query.extend_from_slice(&state.scratch);
        let flight = Flight {
            generation: state.generation,
            query,
            question_end,
            hash,
            waiters: SmallVec::new(),
            exchanges: SmallVec::new(),
            plan,
            started: now,
            deadline,
            stale_at: None,
            timer: None,
            best: None,
            last_error: None,
            answered: false,
        };
        let index = state.flights.insert(flight);
        let flights = &state.flights;
        state.by_key.insert_unique(hash, index, |&index| flights[index].hash);
        index
    }

    fn plan(&self, state: &mut WorkerState, now: Instant, deadline: Instant) -> Plan {
        let config = &self.shared.config;
        let candidates: SmallVec<[Candidate; 8]> = self
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| Candidate {
                index,
                allowed: route.main.endpoint.allowed(now),
                try_timeout: route.main.latency.borrow().try_timeout(),
            })
            .collect();
        if config.strategy == Strategy::RoundRobin {
            state.rotation = state.rotation.wrapping_add(1);
        }
        Plan::start(config.strategy, &candidates, state.rotation, now, deadline, config.racing_delay)
    }

    /// Does what the plan says until it says wait or done.
    fn step(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        loop {
            let flight = &mut state.flights[index];
            if flight.answered {
                return self.settle(state, index, now);
            }
            match flight.plan.next(now) {
                Step::Send(upstream) => {
                    let endpoint = &self.routes[upstream].main.endpoint;
                    if matches!(endpoint.allowed(now), Allowed::Probe) {
                        endpoint.probe_started(now);
                    }
                    self.start(state, index, upstream, Face::Main, None, now);
                }
                Step::WaitUntil(at) => return self.arm(state, index, at),
                // A final answer never gets here: it concludes the flight as it comes.
                Step::Use(_) | Step::UseBest | Step::Failed => return self.finish(state, index, now),
            }
        }
    }

    /// Ends a flight with what there is: the best answer, or an error of our own.
    fn finish(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        let best = state.flights[index].best.take();
        let answer = best.as_ref().map(|best| (best, &*best.answer));
        self.conclude(state, index, answer, now);
    }

    /// Gives every waiting client its answer.
    fn conclude(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        answer: Option<(&Best, &[u8])>,
        now: Instant,
    ) {
        let flight = &state.flights[index];
        let sound = answer.is_some_and(|(best, _)| flight.exchanges[best.number].has_resolved());
        if !sound && flight.stale_at.is_some() {
            self.serve_stale(state, index, now);
        }
        let mut clamped = false;
        if let Some((_, answer)) = answer {
            clamped = self.keep(&state.flights[index], answer, now);
        }
        let flight = &mut state.flights[index];
        flight.answered = true;
        let hash = flight.hash;
        if let Ok(entry) = state.by_key.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        let flight = &mut state.flights[index];
        if answer.is_none() && !flight.waiters.is_empty() {
            count(&self.shared.counters.failed);
        }
        let mut waiters = std::mem::take(&mut flight.waiters);
        for Waiter { client, view, question, .. } in waiters.drain(..) {
            let own = &flight.query[12..flight.question_end];
            match answer {
                Some((best, answer)) => {
                    let question = question.as_deref().unwrap_or(own);
                    // Whoever asks first sees the limits of the TTLs like all who come later.
                    if clamped && self.render_kept(flight, question, &view, &mut state.answer, now) {
                        let trace = || self.trace(flight, Some(best), &state.answer, now);
                        client.deliver(&state.answer, Some(&trace));
                        continue;
                    }
                    message::prepare_answer(answer, &view, question, &mut state.answer);
                }
                None => {
                    let text = flight.last_error.as_ref().map(story::explain);
                    let text = text.as_deref().or(Some("keepwarm: no upstream answered in time"));
                    message::build_error(&flight.query, &view, message::SERVFAIL, text, &mut state.answer);
                    if let Some(question) = question {
                        state.answer[12..12 + question.len()].copy_from_slice(&question);
                    }
                }
            }
            let trace = || self.trace(flight, answer.map(|(best, _)| best), &state.answer, now);
            client.deliver(&state.answer, Some(&trace));
        }
        self.settle(state, index, now);
    }

    /// What still runs of an answered flight is awaited within its try time-out, so that the silence of an upstream that
    /// always loses the race is seen. Nothing is held against an upstream that merely came second.
    fn settle(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        let flight = &mut state.flights[index];
        let mut until = None;
        for exchange in &mut flight.exchanges {
            match &exchange.state {
                State::Over => {}
                State::Queued(ticket) => {
                    self.routes[exchange.upstream].path(exchange.face).host.cancel(*ticket);
                    exchange.state = State::Over;
                }
                State::Sent { at, .. } => {
                    let patience = self.routes[exchange.upstream].path(exchange.face).patience();
                    let end = *at + patience;
                    if end <= now {
                        self.give_up(exchange, now);
                    } else {
                        until = Some(until.map_or(end, |until: Instant| until.min(end)));
                    }
                }
            }
        }
        match until {
            Some(until) => self.arm(state, index, until),
            None => self.remove(state, index),
        }
    }

    fn remove(&self, state: &mut WorkerState, index: usize) {
        let mut flight = state.flights.remove(index);
        if state.spare.len() < SPARE_MAX && flight.query.capacity() <= SPARE_SIZE_MAX {
            flight.query.clear();
            state.spare.push(flight.query);
        }
        if let Some((key, _)) = flight.timer {
            state.wheel.cancel(key);
        }
    }

    /// Sets a flight's timer to the earliest of what it waits for.
    fn arm(&self, state: &mut WorkerState, index: usize, wake: Instant) {
        let flight = &mut state.flights[index];
        let mut wake = wake;
        if !flight.answered {
            wake = wake.min(flight.deadline);
            for (_, exchange) in flight.live() {
                if let Some((at, _)) = exchange.resend {
                    wake = wake.min(at);
                }
            }
            if let Some(at) = flight.stale_at {
                wake = wake.min(at);
            }
        }
        match flight.timer {
            // A timer that fires early only looks around and is set again.
            Some((_, at)) if at <= wake => {}
            old => {
                if let Some((key, _)) = old {
                    state.wheel.cancel(key);
                }
                let token = Token { index, generation: flight.generation, exchange: 0 }.pack();
                flight.timer = Some((state.wheel.insert(wake, token), wake));
                if self.asleep_until.get().is_none_or(|asleep| wake < asleep) {
                    self.asleep_until.set(Some(wake));
                    self.sooner.notify_one();
                }
            }
        }
    }

    /// Moves the clock: timers that are due, and successes that the shared health has not heard of. Returns when to come
    /// again; `None` when nothing is in flight.
    pub(crate) fn tick(self: &Rc<Worker>, now: Instant) -> Option<Instant> {
        let mut expired = {
            let mut state = self.state.borrow_mut();
            let mut expired = std::mem::take(&mut state.expired);
            state.wheel.advance(now, &mut expired);
            expired
        };
        for token in expired.drain(..) {
            self.expire(token, now);
        }
        for route in &self.routes {
            route.paths().for_each(|path| path.tell(now));
        }
        let mut state = self.state.borrow_mut();
        state.expired = expired;
        self.asleep_until.set(state.wheel.next_tick(now));
        self.asleep_until.get()
    }

    fn expire(self: &Rc<Worker>, token: u64, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Token { index, generation, .. } = Token::unpack(token);
        let Some(flight) = state.flights.get_mut(index).filter(|flight| flight.generation == generation) else {
            return;
        };
        flight.timer = None;
        if flight.answered {
            return self.settle(state, index, now);
        }
        if now >= flight.deadline {
            for exchange in &mut flight.exchanges {
                self.give_up(exchange, now);
            }
            return self.finish(state, index, now);
        }
        if flight.stale_at.is_some_and(|at| now >= at) {
            // The clients have waited long enough; what upstreams still say is for the next ones.
            self.serve_stale(state, index, now);
        }
        self.resend(state, index, now);
        self.step(state, index, now);
    }
}

/// Buffers kept for queries to come, and the largest of them in bytes.
const SPARE_MAX: usize = 1024;
const SPARE_SIZE_MAX: usize = 1024;

/// Clients that may wait for one flight; the next one gets a flight of its own.
const WAITERS_MAX: usize = 1024;
