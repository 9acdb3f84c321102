//! One core's worth of the proxy: its queries in flight, its sockets, its clock.
//!
//! A worker is one thread. Tasks exist per socket and per client connection, never per query: a query is an entry in a
//! slab, moved on by whoever has news of it (a client, a socket, the [`Inbox`](super::inbox), the timer wheel). Every
//! method that does so ends in [`Worker::step`], which asks the strategy's plan what to do next.

mod choose;
mod designated;
mod edns;
mod explain;
mod kept;
mod limited;
mod receive;
mod renew;
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
use tokio::time::Instant as Clock;

pub(super) use self::choose::{Chooser, estimate};
use self::{
    choose::HEDGE_MIN,
    kept::{CLIENT_RESPONSE, Kept},
};
use super::{
    Shared,
    entrance::Entrances,
    era::Era,
    flight::{Best, Client, Flight, Origin, State, Token, Waiter},
    inbox::Address,
    local::{self, Here},
    query_log::Source,
    recent::Allowance,
    route::Way,
    trace::Trace,
    udp::Outbox,
};
use crate::{
    config::Strategy,
    health::Allowed,
    local::Local,
    message::{self, ClientView, Query},
    strategy::{Candidate, Plan, Step},
    upstream::count,
    wheel::Wheel,
};

/// One worker. It lives in an `Rc` on its own thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// The settings in force.
    pub(crate) era: RefCell<Rc<Era>>,
    /// Its place among the workers.
    pub(super) number: usize,
    /// How much of slow and failed queries it may write down now.
    pub(super) recently: Allowance,
    pub(crate) address: Address,
    /// Receives and sends the datagrams of all sockets in turn.
    pub(super) batch: RefCell<DatagramBatch>,
    pub(crate) outbox: Rc<Outbox>,
    pub(super) entrances: Entrances,
    /// No clients come in any more, for ever.
    pub(super) stopped: Cell<bool>,
    state: RefCell<WorkerState>,
    /// Told when a timer is due earlier than the one that is slept for.
    pub(crate) sooner: tokio::sync::Notify,
    /// What is slept for.
    asleep_until: Cell<Option<Instant>>,
}

struct WorkerState {
    local: Local,
    /// Which settings `local` is of.
    local_number: u64,
    flights: Slab<Flight>,
    by_key: HashTable<usize>,
    wheel: Wheel<u64>,
    expired: Vec<u64>,
    generation: u64,
    rotation: u32,
    seed: u64,
    scratch: Vec<u8>,
    /// A query on its way into a datagram.
    datagram: Vec<u8>,
    answer: Vec<u8>,
    /// Buffers of queries that ended, for those to come.
    spare: Vec<Vec<u8>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, number: usize, local: Local, address: Address) -> Rc<Worker> {
        let era = Rc::new(Era::new(&shared, shared.setup(), number, None));
        let now = Clock::now().into_std();
        let wheel = wheel(era.config.strategy, now);
        Rc::new(Worker {
            shared,
            era: RefCell::new(era),
            number,
            recently: Allowance::default(),
            address,
            batch: RefCell::default(),
            outbox: Rc::default(),
            entrances: Entrances::default(),
            stopped: Cell::new(false),
            state: RefCell::new(WorkerState {
                local,
                local_number: 0,
                flights: Slab::with_capacity(256),
                by_key: HashTable::new(),
                wheel,
                expired: Vec::new(),
                generation: 0,
                rotation: 0,
                seed: rand::random(),
                scratch: Vec::with_capacity(512),
                datagram: Vec::with_capacity(512),
                answer: Vec::with_capacity(4096),
                spare: Vec::new(),
            }),
            sooner: tokio::sync::Notify::new(),
            asleep_until: Cell::new(None),
        })
    }

    /// Queries whose clients still wait. Who has gone, or reset the stream, does not.
    pub(crate) fn in_flight(&self) -> usize {
        let waited_for = |(_, flight): &(usize, &Flight)| {
            !flight.answered && flight.waiters.iter().any(|waiter| waiter.client.is_waiting())
        };
        self.state.borrow().flights.iter().filter(waited_for).count()
    }

    /// A client's message came in. Answers at once what needs no upstream.
    pub(crate) fn ask(self: &Rc<Worker>, bytes: &[u8], client: Client, origin: Origin, now: Instant) {
        let era = self.era();
        // A connection may be older than the access list.
        let allowed = origin.client.is_none_or(|client| era.access.allows(client));
        self.ask_in(&era, bytes, client, Origin { allowed, ..origin }, now);
    }

    /// The settings in force.
    pub(crate) fn era(&self) -> Rc<Era> {
        self.era.borrow().clone()
    }

    /// As [`ask`](Self::ask), with the settings in force, for those who ask many times.
    pub(super) fn ask_in(self: &Rc<Worker>, era: &Rc<Era>, bytes: &[u8], client: Client, origin: Origin, now: Instant) {
        count(&self.shared.counters.queries);
        if let Some(limiter) = &era.limiter
            && let Some(verdict) = self.over_rate(limiter, &origin, now)
        {
            return self.turn_away(&mut self.state.borrow_mut().answer, bytes, client, verdict);
        }
        self.ask_for(era, bytes, client, origin, now);
    }

    /// As [`ask_in`](Self::ask_in), for a query that is counted.
    fn ask_for(self: &Rc<Worker>, era: &Rc<Era>, bytes: &[u8], client: Client, origin: Origin, now: Instant) {
        let mut state = self.state.borrow_mut();
        let limits = &era.config.clients;
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
            _ => u16::MAX,
        };
        let mut view = ClientView::new(&parsed, max, limits.udp_payload_size);
        if let Some(hop) = self.hop(origin.transport) {
            view = view.with_hop(bytes, &parsed, hop);
        }
        if !origin.allowed {
            count(&self.shared.counters.refused);
            message::build_error(bytes, &view, message::REFUSED, None, &mut state.answer);
            let question = &bytes[12..parsed.question.end];
            self.log(&client, &origin, question, &state.answer, || Source::Error("refused"), now);
            return client.deliver(&state.answer, None);
        }
        let question = &bytes[12..parsed.question.end];
        if state.local.may_concern(bytes, &parsed) {
            let WorkerState { local, scratch, answer, .. } = &mut *state;
            match local::answer(local, (bytes, &parsed), &view, scratch, answer) {
                Here::Nothing => {}
                Here::Answer => {
                    count(&self.shared.counters.local_answers);
                    self.log(&client, &origin, question, answer, || Source::Local, now);
                    let trace = || Trace { local: local.rule(bytes, &parsed), ..Trace::own(answer) };
                    return client.deliver(answer, Some(&trace));
                }
                Here::Alias(alias) => {
                    let alias = alias.told(client.is_explained().then(|| local.rule(bytes, &parsed)).flatten());
                    drop(state);
                    let (query, client) = alias.ask(client);
                    return self.ask_for(era, &query, client, origin, now);
                }
            }
        }
        let readdressed = self.readdress(bytes, &parsed, &origin, &mut view);
        let (bytes, parsed) = match &readdressed {
            None => (bytes, &parsed),
            Some(readdressed) => (&readdressed.message[..], &readdressed.query),
        };
        let state = &mut *state;
        let stale = match self.look_up(&mut state.answer, (bytes, parsed), &view, now) {
            Kept::Answer { refresh, stale } => {
                let source = || if stale { Source::Stale } else { Source::Cache };
                self.log(&client, &origin, question, &state.answer, source, now);
                let explanation = || Some(era.explain_kept(question, stale));
                let trace = || Trace { cached: true, stale, explanation: explanation(), ..Trace::own(&state.answer) };
                client.deliver(&state.answer, Some(&trace));
                if refresh {
                    self.refresh(era, state, (bytes, parsed), now);
                }
                return;
            }
            Kept::Nothing { stale } => stale,
        };
        let client = match &era.limiter {
            None => Ok(client),
            Some(limiter) => self.charge(limiter, client, &origin),
        };
        let client = match client {
            Ok(client) => client,
            Err((client, text)) => {
                message::build_error(bytes, &view, message::REFUSED, Some(text), &mut state.answer);
                return client.deliver(&state.answer, None);
            }
        };
        message::normalise(bytes, parsed, &mut state.scratch);
        let hash = message::hash_key(&state.scratch, state.seed);
        if let Some(index) = Self::same(era, state, hash)
            && state.flights[index].waiters.len() < WAITERS_MAX
        {
            count(&self.shared.counters.coalesced);
            let flight = &mut state.flights[index];
            let differs = flight.query[12..flight.question_end] != *question;
            if client.is_explained() && flight.notes.is_none() {
                flight.notes = Some(Self::note(flight, true, now));
            }
            let question = differs.then(|| question.into());
            flight.waiters.push(Waiter { client, origin, view, question });
            if stale && flight.stale_at.is_none() {
                flight.stale_at = Some(now + CLIENT_RESPONSE);
                self.step(state, index, now);
            }
            return;
        }
        if state.flights.len() >= era.flights_max {
            count(&self.shared.counters.overloaded);
            let text = Some("keepwarm: too many queries in flight");
            message::build_error(bytes, &view, message::SERVFAIL, text, &mut state.answer);
            self.log(&client, &origin, question, &state.answer, || Source::Error("overloaded"), now);
            let why = || Some("too many queries in flight (dns.clients.max_in_flight)".to_owned());
            let trace = || Trace { error: why(), ..Trace::own(&state.answer) };
            return client.deliver(&state.answer, Some(&trace));
        }
        let index = self.take_off(era, state, hash, parsed.question.end, now);
        let flight = &mut state.flights[index];
        if client.is_explained() {
            flight.notes = Some(Self::note(flight, false, now));
        }
        flight.waiters.push(Waiter { client, origin, view, question: None });
        flight.stale_at = stale.then_some(now + CLIENT_RESPONSE);
        self.step(state, index, now);
    }

    /// The flight of the query in `scratch` under these settings, if there is one.
    fn same(era: &Rc<Era>, state: &WorkerState, hash: u64) -> Option<usize> {
        let same = |&index: &usize| {
            let flight = &state.flights[index];
            message::same_key(&flight.query, &state.scratch) && Rc::ptr_eq(&flight.era, era)
        };
        state.by_key.find(hash, same).copied()
    }

    /// A flight of the query in `scratch`, which nobody waits for yet.
    fn take_off(&self, era: &Rc<Era>, state: &mut WorkerState, hash: u64, question_end: usize, now: Instant) -> usize {
        let deadline = now + era.config.timeout;
        let plan = Self::plan(era, state, question_end, now, deadline);
        state.generation = Token::next_generation(state.generation);
        let mut query = state.spare.pop().unwrap_or_default();
        query.extend_from_slice(&state.scratch);
        let flight = Flight {
            generation: state.generation,
            era: era.clone(),
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
            notes: None,
            answered: false,
        };
        let index = state.flights.insert(flight);
        let flights = &state.flights;
        state.by_key.insert_unique(hash, index, |&index| flights[index].hash);
        index
    }

    fn plan(era: &Era, state: &mut WorkerState, question_end: usize, now: Instant, deadline: Instant) -> Plan {
        let config = &era.config;
        if let Some(chooser) = &era.chooser {
            return era.choose(chooser, &state.scratch[12..question_end], now, deadline);
        }
        let candidates: SmallVec<[Candidate; 8]> = era
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                let path = route.current(now);
                let (allowed, try_timeout) = (path.endpoint.allowed(now), path.latency.borrow().try_timeout());
                Candidate { index, allowed, try_timeout, hedge_after: config.racing_delay }
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
            if flight.era.designates && self.retreat(state, index, now) {
                continue;
            }
            let flight = &mut state.flights[index];
            match flight.plan.next(now) {
                Step::Send(upstream) => self.begin(state, index, upstream, now),
                Step::Hedge(upstream) => {
                    if self.may_hedge(&flight.era) {
                        flight.plan.hedge(upstream, now);
                        self.begin(state, index, upstream, now);
                    } else if let Some(notes) = &mut flight.notes {
                        notes.hedge_denied = true;
                    }
                }
                Step::WaitUntil(at) => return self.arm(state, index, at),
                // A final answer never gets here: it concludes the flight as it comes.
                Step::Use(_) | Step::UseBest | Step::Failed => return self.finish(state, index, now),
            }
        }
    }

    /// Asks an upstream the way that leads there now, or waits for one.
    fn begin(self: &Rc<Worker>, state: &mut WorkerState, index: usize, upstream: usize, now: Instant) {
        let era = state.flights[index].era.clone();
        let face = match era.routes[upstream].way(now) {
            Way::Open(face) => face,
            closed => return Self::hold(&mut state.flights[index], upstream, closed, now),
        };
        let endpoint = &era.routes[upstream].path(face).endpoint;
        if matches!(endpoint.allowed(now), Allowed::Probe) {
            endpoint.probe_started(now);
        }
        self.start(state, index, upstream, face, None, now);
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
        self.over(&state.flights[index], answer, now);
        let mut clamped = false;
        if let Some((_, answer)) = answer {
            clamped = Self::keep(&state.flights[index], answer, now);
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
        if let Some(hedged) = flight.plan.hedged()
            && answer.is_some_and(|(best, _)| flight.exchanges[best.number].upstream == hedged)
        {
            count(&self.shared.counters.hedges_won);
        }
        let mut waiters = std::mem::take(&mut flight.waiters);
        for Waiter { client, origin, view, question } in waiters.drain(..) {
            let own = &flight.query[12..flight.question_end];
            let asked = question.as_deref().unwrap_or(own);
            let source = || Self::source(flight, answer.map(|(best, _)| best));
            match answer {
                Some((best, answer)) => {
                    // Whoever asks first sees the limits of the TTLs like all who come later.
                    if clamped && Self::render_kept(flight, asked, &view, &mut state.answer, now) {
                        self.log(&client, &origin, asked, &state.answer, source, flight.started);
                        let trace = || Self::trace(flight, Some(best), &state.answer, now);
                        client.deliver(&state.answer, Some(&trace));
                        continue;
                    }
                    message::prepare_answer(answer, &view, asked, &mut state.answer);
                }
                None => {
                    let text = flight.last_error.as_ref().map(story::explain);
                    let text = text.as_deref().or(Some("keepwarm: no upstream answered in time"));
                    message::build_error(&flight.query, &view, message::SERVFAIL, text, &mut state.answer);
                    if let Some(question) = &question {
                        state.answer[12..12 + question.len()].copy_from_slice(question);
                    }
                }
            }
            self.log(&client, &origin, asked, &state.answer, source, flight.started);
            let trace = || Self::trace(flight, answer.map(|(best, _)| best), &state.answer, now);
            client.deliver(&state.answer, Some(&trace));
        }
        self.settle(state, index, now);
    }

    /// What still runs of an answered flight is awaited within its try time-out, so that the silence of an upstream that
    /// always loses the race is seen. Nothing is held against an upstream that merely came second.
    fn settle(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        let Flight { era, exchanges, .. } = &mut state.flights[index];
        let mut until = None;
        for exchange in exchanges {
            match &exchange.state {
                State::Over => {}
                State::Held => exchange.state = State::Over,
                State::Queued(ticket, _) => {
                    era.routes[exchange.upstream].path(exchange.face).host.cancel(*ticket);
                    exchange.state = State::Over;
                }
                State::Sent { at, .. } => {
                    let patience = era.routes[exchange.upstream].path(exchange.face).patience();
                    let end = *at + patience;
                    if end <= now {
                        Self::give_up(era, exchange, now);
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
        for route in &self.era().routes {
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
            let Flight { era, exchanges, .. } = flight;
            for exchange in exchanges {
                Self::give_up(era, exchange, now);
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

/// Second tries are due after a few milliseconds, all else after many.
fn wheel(strategy: Strategy, now: Instant) -> Wheel<u64> {
    if strategy == Strategy::Hedged { Wheel::with_tick(now, HEDGE_MIN) } else { Wheel::new(now) }
}

/// Buffers kept for queries to come, and the largest of them in bytes.
const SPARE_MAX: usize = 1024;
const SPARE_SIZE_MAX: usize = 1024;

/// Clients that may wait for one flight; the next one gets a flight of its own.
const WAITERS_MAX: usize = 1024;
