//! One core's worth of the proxy: its queries in flight, its sockets, its clock.
//!
//! A worker is one thread. Tasks exist per socket and per client connection, never per query: a query is an entry in a
//! slab, moved on by whoever has news of it (a client, a socket, the [`Inbox`](super::inbox), the timer wheel). Every
//! method that does so ends in [`Worker::step`], which asks the strategy's plan what to do next.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashTable;
use keepwarm_pool::{AcquireError, AcquireOptions, Acquired, CloseReason, Host, Lease, Pool};
use keepwarm_transport::error::Side;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant as Clock;

use super::{
    Shared,
    flight::{Best, Client, Exchange, Flight, Outcome, State, Token, Waiter},
    inbox::{Address, Event},
    trace::{AttemptTrace, ExchangeTrace, Trace},
};
use crate::{
    config::Strategy,
    error::{Error, ErrorKind},
    health::{Allowed, Latency},
    message::{self, AnswerInfo, ClientView, Query},
    strategy::{Candidate, Plan, Step, Verdict},
    upstream::{Connection, DnsConnector, Endpoint, EndpointKey, Family, STALLED, UdpConnection, count},
    wheel::Wheel,
};

/// One worker. It lives in an `Rc` on its own thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Vec<Route>,
    pub(crate) address: Address,
    state: RefCell<WorkerState>,
    /// Told when a timer is due earlier than the one that is slept for.
    pub(crate) sooner: tokio::sync::Notify,
    /// What is slept for.
    asleep_until: Cell<Option<Instant>>,
    pub(crate) listening: Cell<bool>,
    pub(crate) stop_listening: tokio::sync::Notify,
    flights_max: usize,
}

/// An upstream as one worker reaches it.
pub(crate) struct Route {
    pub(crate) main: Path,
    pub(crate) tcp: Option<Path>,
}

/// An endpoint as one worker reaches it.
pub(crate) struct Path {
    pub(crate) endpoint: Arc<Endpoint>,
    host: Host<DnsConnector>,
    pool: Pool<DnsConnector>,
    latency: RefCell<Latency>,
    /// When this worker last heard from it.
    heard: Cell<Option<Instant>>,
    /// Successes not yet told to the shared health, by family.
    pending: Cell<[u32; 2]>,
}

impl Path {
    pub(crate) fn new(endpoint: &Arc<Endpoint>, pool: &Pool<DnsConnector>, shard: Option<usize>) -> Path {
        let host = pool.host(&EndpointKey::new(endpoint, shard));
        Path {
            endpoint: endpoint.clone(),
            host,
            pool: pool.clone(),
            latency: RefCell::default(),
            heard: Cell::new(None),
            pending: Cell::new([0; 2]),
        }
    }

    /// Notes an answer; the shared health learns of it at the next tick, or at once while a breaker is not closed.
    fn succeeded(&self, family: Family, now: Instant, latency: Duration) {
        self.heard.set(Some(now));
        self.latency.borrow_mut().record(latency);
        let mut pending = self.pending.get();
        pending[family.index()] += 1;
        self.pending.set(pending);
        // The first answer shows at once in the status; the others wait for the tick.
        if !self.endpoint.is_well() || self.endpoint.counters.latency.load(Ordering::Relaxed) == 0 {
            self.tell(now);
        }
    }

    /// Tells the shared health what succeeded.
    fn tell(&self, now: Instant) {
        let pending = self.pending.replace([0; 2]);
        let smoothed = self.latency.borrow().smoothed();
        for (family, succeeded) in [Family::V4, Family::V6].into_iter().zip(pending) {
            if succeeded > 0 {
                let latency = smoothed.unwrap_or_default();
                self.endpoint.succeeded(family, now, latency, succeeded);
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.endpoint.counters.latency.store(micros, Ordering::Relaxed);
            }
        }
    }

    fn failed(&self, family: Family, now: Instant) {
        self.tell(now);
        count(&self.endpoint.counters.failures);
        if self.endpoint.failed(family, now) && self.endpoint.has_both_families() {
            // Connections of the failed family go, so that the next dial can choose the other one.
            self.pool.flush(self.host.key());
        }
    }
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
        self.state.borrow().flights.iter().filter(|(_, flight)| !flight.answered).count()
    }

    /// A client's message came in. Answers at once what needs no upstream.
    pub(crate) fn ask(self: &Rc<Worker>, bytes: &[u8], client: Client, allowed: bool, now: Instant) {
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
            Client::Tcp(_) | Client::Daemon(_) => u16::MAX,
        };
        let view = ClientView::new(&parsed, max, limits.udp_payload_size);
        if !allowed {
            count(&self.shared.counters.refused);
            message::build_error(bytes, &view, message::REFUSED, None, &mut state.answer);
            return client.deliver(&state.answer, None);
        }
        let state = &mut *state;
        message::normalise(bytes, &parsed, &mut state.scratch);
        let question_end = parsed.question.end;
        let hash = message::hash_key(&state.scratch, state.seed);
        let flights = &state.flights;
        let same = |&index: &usize| message::same_key(&flights[index].query, &state.scratch);
        if let Some(&index) = state.by_key.find(hash, same) {
            let flight = &mut state.flights[index];
            if flight.waiters.len() < WAITERS_MAX {
                count(&self.shared.counters.coalesced);
                let question = &bytes[12..question_end];
                let differs = flight.query[12..flight.question_end] != *question;
                flight.waiters.push(Waiter { client, view, question: differs.then(|| question.into()) });
                return;
            }
        }
        if state.flights.len() >= self.flights_max {
            count(&self.shared.counters.overloaded);
            message::build_error(
                bytes,
                &view,
                message::SERVFAIL,
                Some("keepwarm: too many queries in flight"),
                &mut state.answer,
            );
            return client.deliver(&state.answer, None);
        }
        let deadline = now + self.shared.config.timeout;
        let plan = self.plan(state, now, deadline);
        state.generation = Token::next_generation(state.generation);
        let mut flight = Flight {
            generation: state.generation,
            query: Vec::with_capacity(state.scratch.len()),
            question_end,
            hash,
            waiters: SmallVec::new(),
            exchanges: SmallVec::new(),
            plan,
            started: now,
            deadline,
            timer: None,
            best: None,
            last_error: None,
            answered: false,
        };
        flight.query.extend_from_slice(&state.scratch);
        flight.waiters.push(Waiter { client, view, question: None });
        let index = state.flights.insert(flight);
        let flights = &state.flights;
        state.by_key.insert_unique(hash, index, |&index| flights[index].hash);
        self.step(state, index, now);
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
                    self.start(state, index, upstream, false, None, now);
                }
                Step::WaitUntil(at) => return self.arm(state, index, at),
                // A final answer never gets here: it concludes the flight as it comes.
                Step::Use(_) | Step::UseBest | Step::Failed => return self.finish(state, index, now),
            }
        }
    }

    /// An exchange came to nothing; when it was the upstream's last, the plan hears of it.
    fn lose(&self, flight: &mut Flight, number: usize, error: Error, now: Instant) {
        let exchange = &mut flight.exchanges[number];
        let upstream = exchange.upstream;
        exchange.state = State::Over;
        exchange.outcome = Some((Outcome::Failed(error.clone()), now));
        flight.last_error = Some(error);
        if !flight.is_live(upstream) {
            flight.plan.failed(upstream, now);
        }
    }

    /// Asks for a connection and sends, or queues for one.
    fn start(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        upstream: usize,
        over_tcp: bool,
        opened_after: Option<Instant>,
        now: Instant,
    ) {
        let flight = &mut state.flights[index];
        let number = flight.exchanges.len();
        if number >= Token::EXCHANGES_MAX {
            // Not reached: tries are limited per upstream. Were it, the plan ends at the deadline.
            return;
        }
        flight.exchanges.push(Exchange {
            upstream,
            over_tcp,
            started: now,
            state: State::Over,
            resend: None,
            blamed: false,
            outcome: None,
            question: None,
        });
        let path = self.routes[upstream].path(over_tcp);
        let token = Token { index, generation: flight.generation, exchange: number }.pack();
        let patience = self.shared.config.pool.acquire_timeout;
        let options = AcquireOptions { deadline: Some(flight.deadline), timeout: Some(patience), opened_after };
        match path.host.acquire_into(&options, &self.address.grants, token) {
            Ok(Acquired::Now(lease)) => self.send(state, index, number, lease, now),
            Ok(Acquired::Queued(ticket)) => flight.exchanges[number].state = State::Queued(ticket),
            Err(error) => {
                let error = self.no_connection(path, &error);
                self.lose(flight, number, error, now);
            }
        }
    }

    /// Puts a flight's query on a connection.
    fn send(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        number: usize,
        lease: Lease<DnsConnector>,
        now: Instant,
    ) {
        let flight = &mut state.flights[index];
        let token = Token { index, generation: flight.generation, exchange: number }.pack();
        let Exchange { upstream, over_tcp, .. } = flight.exchanges[number];
        let path = self.routes[upstream].path(over_tcp);
        count(&path.endpoint.counters.queries);
        let mut id = None;
        let patience = match &*lease {
            Connection::Udp(socket) => {
                match self.send_datagram(path, flight, number, socket, token, now) {
                    Ok(sent) => id = Some(sent),
                    Err(error) => {
                        self.blame(path, lease.family(), &error, now);
                        return self.lose(flight, number, error, now);
                    }
                }
                path.latency.borrow().try_timeout().clamp(RESEND_MIN, RESEND_MAX)
            }
            Connection::Stream(stream) => {
                stream.pipe.submit(&flight.query, flight.question_end, token, &self.address.replies);
                STALLED
            }
        };
        // Over UDP each repetition waits twice as long as the one before. A stream is repeated only when nothing at all comes
        // back, so a little longer each time is enough, and the last one comes shortly before a deadline of 4 s.
        let tries = flight.tries(upstream).clamp(1, 8);
        let patience = match id {
            Some(_) => patience * (1 << (tries - 1)),
            None => patience + patience * u32::try_from(tries - 1).unwrap_or(8) / 5,
        };
        let exchange = &mut flight.exchanges[number];
        exchange.state = State::Sent { lease, id, at: now };
        exchange.resend = (tries <= RESENDS_MAX).then_some((now + patience, patience));
    }

    /// Counts an error on the side whose it is.
    fn blame(&self, path: &Path, family: Family, error: &Error, now: Instant) {
        match error.side() {
            Side::Upstream => path.failed(family, now),
            Side::Local => {
                count(&path.endpoint.counters.local_errors);
                count(&self.shared.counters.local_errors);
            }
            Side::Client => {}
        }
    }

    fn send_datagram(
        self: &Rc<Worker>,
        path: &Path,
        flight: &mut Flight,
        number: usize,
        socket: &Arc<UdpConnection>,
        token: u64,
        now: Instant,
    ) -> Result<u16, Error> {
        if socket.claim_reader() {
            tokio::task::spawn_local(super::udp::read_upstream(self.clone(), socket.clone()));
        }
        let Some(id) = socket.allot(token, now) else {
            socket.close(CloseReason::MaxUses);
            return Err(Error::new(ErrorKind::Local, "no free id on the socket"));
        };
        let mut datagram: SmallVec<[u8; 512]> = SmallVec::from_slice(&flight.query);
        datagram[..2].copy_from_slice(&id.to_be_bytes());
        if path.endpoint.case_randomization {
            let question = &mut datagram[12..flight.question_end];
            message::randomize_case(question, rand::random);
            flight.exchanges[number].question = Some((&*question).into());
        }
        // A pending ICMP error of an earlier query is reported by the next send: that query gets its own try.
        let sent = socket.socket.try_send(&datagram).or_else(|_| socket.socket.try_send(&datagram));
        match sent {
            Ok(_) => Ok(id),
            // A full send buffer loses the datagram as the network might: the resend repairs it.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(id),
            Err(error) => {
                socket.answered(id);
                socket.close(CloseReason::PeerReset);
                Err(Error::from(keepwarm_transport::error::Error::from_io(
                    error,
                    keepwarm_transport::error::Phase::Write,
                    format!("query to {}", path.endpoint.url()),
                )))
            }
        }
    }

    /// A pool's refusal, with the side that is to blame. The dial that failed has already told the health of the endpoint.
    fn no_connection(&self, path: &Path, error: &AcquireError<Error>) -> Error {
        let error = error.dial_error().map_or_else(
            || Error::new(ErrorKind::Pool, format!("query to {}: {error}", path.endpoint.url())),
            |last| (**last).clone(),
        );
        if error.side() == Side::Local {
            count(&path.endpoint.counters.local_errors);
            count(&self.shared.counters.local_errors);
        }
        error
    }

    /// The exchange that a token names, if it still waits.
    fn find(state: &WorkerState, token: u64) -> Option<Token> {
        let token = Token::unpack(token);
        let flight = state.flights.get(token.index)?;
        let exchange = flight.exchanges.get(token.exchange)?;
        (flight.generation == token.generation && !matches!(exchange.state, State::Over)).then_some(token)
    }

    /// News from outside this thread.
    pub(crate) fn handle(self: &Rc<Worker>, event: Event, now: Instant) -> bool {
        match event {
            Event::Granted { token, result } => self.granted(token, result, now),
            Event::Replied { token, result: Ok(answer) } => self.answered(token, &answer, now),
            Event::Replied { token, result: Err(error) } => self.failed(token, error, now),
            Event::Ask { query, answer } => self.ask(&query, Client::Daemon(answer), true, now),
            Event::StopListening => {
                self.listening.set(false);
                self.stop_listening.notify_waiters();
            }
            Event::Exit => return false,
        }
        true
    }

    fn granted(self: &Rc<Worker>, token: u64, result: Result<Lease<DnsConnector>, AcquireError<Error>>, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        // A lease that came too late is dropped, which passes it on.
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let Exchange { upstream, over_tcp, .. } = flight.exchanges[number];
        flight.exchanges[number].state = State::Over;
        match result {
            Ok(_) if flight.answered => return self.settle(state, index, now),
            Ok(lease) => self.send(state, index, number, lease, now),
            Err(error) => {
                let error = self.no_connection(self.routes[upstream].path(over_tcp), &error);
                self.lose(flight, number, error, now);
            }
        }
        self.step(state, index, now);
    }

    /// A datagram came in on an upstream's socket.
    pub(crate) fn received(self: &Rc<Worker>, socket: &Arc<UdpConnection>, datagram: &[u8], now: Instant) {
        use crate::upstream::Found;
        let Some(id) = datagram.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            return self.wrong(socket, now);
        };
        let token = match socket.find(id) {
            Found::Waiting(token) => token,
            Found::Late => return,
            Found::Unknown => return self.wrong(socket, now),
        };
        let right = {
            let state = self.state.borrow();
            let Some(token) = Self::find(&state, token) else {
                socket.answered(id);
                return;
            };
            let flight = &state.flights[token.index];
            match &flight.exchanges[token.exchange].question {
                None => message::answer_matches(&flight.query[..flight.question_end], datagram, false, false),
                Some(question) => {
                    let mut head: SmallVec<[u8; 280]> = SmallVec::from_slice(&flight.query[..12]);
                    head.extend_from_slice(question);
                    message::answer_matches(&head, datagram, true, false)
                }
            }
        };
        if !right {
            return self.wrong(socket, now);
        }
        socket.answered(id);
        self.answered(token, datagram, now);
    }

    /// RFC 5452 section 9.1: a wrong answer is dropped and waiting goes on; many of them mean that somebody guesses, and
    /// the queries move to TCP.
    fn wrong(self: &Rc<Worker>, socket: &Arc<UdpConnection>, now: Instant) {
        count(&self.shared.counters.wrong_answers);
        if !socket.wrong() {
            return;
        }
        tracing::warn!(peer = %socket.peer, "many wrong answers: the queries of this socket move to tcp");
        socket.close(CloseReason::StrayBytes);
        let tokens = socket.evacuate();
        for token in tokens {
            self.move_to_tcp(token, now);
        }
    }

    fn move_to_tcp(self: &Rc<Worker>, token: u64, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let upstream = flight.exchanges[number].upstream;
        flight.exchanges[number].state = State::Over;
        if !flight.answered {
            self.start(state, index, upstream, true, None, now);
        }
        self.step(state, index, now);
    }

    /// All queries on a socket failed together.
    pub(crate) fn socket_failed(self: &Rc<Worker>, socket: &Arc<UdpConnection>, error: &std::io::Error, now: Instant) {
        socket.close(CloseReason::PeerReset);
        let error = Error::new(ErrorKind::Refused, format!("query to {}: {error}", socket.peer));
        for token in socket.evacuate() {
            self.failed(token, error.clone(), now);
        }
    }

    /// An answer came whose id and question are right.
    fn answered(self: &Rc<Worker>, token: u64, answer: &[u8], now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let exchange = &mut flight.exchanges[number];
        let Exchange { upstream, over_tcp, .. } = *exchange;
        let path = self.routes[upstream].path(over_tcp);
        let State::Sent { lease, at, .. } = std::mem::replace(&mut exchange.state, State::Over) else { return };
        let Ok(info) = message::verify_answer(answer) else {
            let error = Error::new(ErrorKind::Mismatch, format!("query to {}: malformed answer", path.endpoint.url()));
            path.failed(lease.family(), now);
            self.lose(flight, number, error, now);
            return self.step(state, index, now);
        };
        count(&path.endpoint.counters.answers);
        path.succeeded(lease.family(), now, now.saturating_duration_since(at));
        if flight.answered {
            drop(lease);
            return self.settle(state, index, now);
        }
        if info.tc && !over_tcp && self.routes[upstream].tcp.is_some() {
            // Behaviour 5: asked again over TCP; the truncated answer serves only if that brings nothing.
            count(&path.endpoint.counters.truncated);
            flight.exchanges[number].outcome = Some((Outcome::Truncated, now));
            let answer = Bytes::copy_from_slice(answer);
            flight.best.get_or_insert(Best { number, answer, lease, at });
            self.start(state, index, upstream, true, None, now);
            return self.step(state, index, now);
        }
        flight.exchanges[number].outcome = Some((Outcome::Answered(info.rcode), now));
        self.judge(state, index, Best { number, answer: Bytes::new(), lease, at }, answer, &info, now);
    }

    /// Whether an answer ends the flight. SERVFAIL and REFUSED (and the errors of a server that does not speak what we speak)
    /// may be improved on by another upstream; every other rcode is the answer (behaviours 3 and 4).
    fn judge(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        best: Best,
        answer: &[u8],
        info: &AnswerInfo,
        now: Instant,
    ) {
        let flight = &mut state.flights[index];
        if !matches!(info.rcode, message::SERVFAIL | message::REFUSED | message::FORMERR | message::NOTIMP) {
            // The usual way: no copy of the answer is kept.
            return self.conclude(state, index, Some((&best, answer)), now);
        }
        let upstream = flight.exchanges[best.number].upstream;
        flight.best.get_or_insert(Best { answer: Bytes::copy_from_slice(answer), ..best });
        flight.plan.answered(upstream, Verdict::Improvable, now);
        self.step(state, index, now);
    }

    /// An exchange failed.
    fn failed(self: &Rc<Worker>, token: u64, error: Error, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let exchange = &mut flight.exchanges[number];
        let Exchange { upstream, over_tcp, .. } = *exchange;
        let path = self.routes[upstream].path(over_tcp);
        let State::Sent { mut lease, at, .. } = std::mem::replace(&mut exchange.state, State::Over) else { return };
        let exchange_blamed = exchange.blamed;
        let family = lease.family();
        // Stale is a connection that had worked before: it served other queries, or it answered since it was opened.
        let stale = error.is_retryable() && (lease.reused() || lease.proven());
        if stale {
            lease.reuse_failed();
        }
        drop(lease);
        // With other upstreams to ask, a fresh connection that breaks is a reason to ask them; with none, to try again.
        let alone = error.is_retryable() && self.routes.len() == 1;
        let repeat = (stale || alone) && !flight.answered && flight.tries(upstream) <= FRESH_TRIES_MAX;
        if repeat {
            // Once more on a connection that was dialled after this query was sent (design: "Staleness").
            if !stale && !exchange_blamed {
                self.blame(path, family, &error, now);
            }
            count(&path.endpoint.counters.resends);
            flight.exchanges[number].outcome = Some((Outcome::Failed(error), now));
            self.start(state, index, upstream, over_tcp, Some(at), now);
        } else {
            if !exchange_blamed {
                self.blame(path, family, &error, now);
            }
            self.lose(flight, number, error, now);
        }
        self.step(state, index, now);
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
        let flight = &mut state.flights[index];
        flight.answered = true;
        let hash = flight.hash;
        if let Ok(entry) = state.by_key.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        let flight = &mut state.flights[index];
        if answer.is_none() {
            count(&self.shared.counters.failed);
        }
        let mut waiters = std::mem::take(&mut flight.waiters);
        for Waiter { client, view, question } in waiters.drain(..) {
            let own = &flight.query[12..flight.question_end];
            match answer {
                Some((_, answer)) => {
                    let question = question.as_deref().unwrap_or(own);
                    message::prepare_answer(answer, &view, question, &mut state.answer);
                }
                None => {
                    let text = flight.last_error.as_ref().map(explain);
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
                    self.routes[exchange.upstream].path(exchange.over_tcp).host.cancel(*ticket);
                    exchange.state = State::Over;
                }
                State::Sent { at, .. } => {
                    let patience = self.routes[exchange.upstream].path(exchange.over_tcp).patience();
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
        let flight = state.flights.remove(index);
        if let Some((key, _)) = flight.timer {
            state.wheel.cancel(key);
        }
    }

    /// Stops waiting for an exchange; its silence counts against an upstream that said nothing at all since it was sent.
    fn give_up(&self, exchange: &mut Exchange, now: Instant) {
        let path = self.routes[exchange.upstream].path(exchange.over_tcp);
        match std::mem::replace(&mut exchange.state, State::Over) {
            State::Sent { lease, id, at } => {
                if let (Connection::Udp(socket), Some(id)) = (&*lease, id) {
                    socket.abandon(id, now);
                }
                if !exchange.blamed && path.silent_since(at, &lease) {
                    path.failed(lease.family(), now);
                }
            }
            State::Queued(ticket) => {
                path.host.cancel(ticket);
            }
            State::Over => {}
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
            for path in std::iter::once(&route.main).chain(&route.tcp) {
                path.tell(now);
            }
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
        self.resend(state, index, now);
        self.step(state, index, now);
    }

    /// Sends again what has met with silence: UDP over another port and id, streams over a fresh connection. The first
    /// one is still listened to.
    fn resend(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        for number in 0..state.flights[index].exchanges.len() {
            let exchange = &mut state.flights[index].exchanges[number];
            let Some((_, patience)) = exchange.resend.filter(|(at, _)| *at <= now) else { continue };
            let State::Sent { lease, at, .. } = &exchange.state else { continue };
            let (at, upstream, over_tcp) = (*at, exchange.upstream, exchange.over_tcp);
            let path = self.routes[upstream].path(over_tcp);
            let is_stream = matches!(**lease, Connection::Stream(_));
            if is_stream && lease.heard() > at {
                // The connection lives, the name is slow: look again later.
                exchange.resend = Some((now + patience, patience));
                continue;
            }
            exchange.resend = None;
            if !exchange.blamed && path.silent_since(at, lease) {
                exchange.blamed = true;
                path.failed(lease.family(), now);
            }
            count(&path.endpoint.counters.resends);
            let opened_after = is_stream.then_some(at);
            self.start(state, index, upstream, over_tcp, opened_after, now);
        }
    }

    fn trace(&self, flight: &Flight, best: Option<&Best>, answer: &[u8], now: Instant) -> Trace {
        let exchange = best.map(|Best { number, lease, at, .. }| {
            let exchange = &flight.exchanges[*number];
            let endpoint = &self.routes[exchange.upstream].path(exchange.over_tcp).endpoint;
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
        let attempts = flight.exchanges.iter().map(|exchange| {
            let (outcome, at) = match &exchange.outcome {
                None => ("pending".to_owned(), now),
                Some((Outcome::Answered(rcode), at)) => (message::rcode_name(*rcode), *at),
                Some((Outcome::Truncated, at)) => ("truncated, asked again over tcp".to_owned(), *at),
                Some((Outcome::Failed(error), at)) => (error.to_string(), *at),
            };
            let upstream = self.routes[exchange.upstream].main.endpoint.name.to_string();
            AttemptTrace { upstream, outcome, took: at.saturating_duration_since(exchange.started) }
        });
        Trace {
            answer: answer.to_vec(),
            total: now.saturating_duration_since(flight.started),
            exchange,
            attempts: attempts.collect(),
            error: flight.last_error.as_ref().map(ToString::to_string),
        }
    }
}

impl Route {
    fn path(&self, over_tcp: bool) -> &Path {
        self.tcp.as_ref().filter(|_| over_tcp).unwrap_or(&self.main)
    }
}

impl Path {
    fn patience(&self) -> Duration {
        self.latency.borrow().try_timeout().max(RESEND_MAX)
    }

    /// Whether nothing at all came from here since `at`: a slow name is not a silent upstream.
    fn silent_since(&self, at: Instant, lease: &Lease<DnsConnector>) -> bool {
        self.heard.get().is_none_or(|heard| heard < at) && lease.heard() <= at
    }
}

/// What the client is told of a failure (RFC 8914): the kind, not the addresses of upstreams.
fn explain(error: &Error) -> String {
    match error.side() {
        Side::Local => format!("keepwarm: local shortage ({})", error.kind().as_str()),
        Side::Upstream | Side::Client => format!("keepwarm: no upstream answered ({})", error.kind().as_str()),
    }
}

impl Client {
    /// Sends the answer. The trace is made only for those who read it.
    fn deliver(self, answer: &[u8], trace: Option<&dyn Fn() -> Trace>) {
        match self {
            // A full send buffer drops the answer as the network might; the client asks again.
            Client::Udp { socket, peer } => drop(socket.try_send_to(answer, peer)),
            Client::Tcp(client) => client.answer(answer),
            Client::Daemon(sender) => {
                let trace = trace.map_or_else(|| Trace::own(answer), |trace| trace());
                let _ = sender.send(trace);
            }
        }
    }

    /// There is no answer to send.
    fn dismiss(self) {
        match self {
            Client::Udp { .. } | Client::Daemon(_) => {}
            Client::Tcp(client) => client.close(),
        }
    }
}

/// Clients that may wait for one flight; the next one gets a flight of its own.
const WAITERS_MAX: usize = 1024;

/// Bounds of the first patience for a datagram.
const RESEND_MIN: Duration = Duration::from_millis(250);
const RESEND_MAX: Duration = Duration::from_secs(1);

/// A silent upstream is asked again so often within the deadline.
const RESENDS_MAX: usize = 4;

/// A query that lost its connection goes over a fresh one at most so often. One is the rule; more serve upstreams that
/// close after a number of queries, whose fresh connection may end under the same burst.
const FRESH_TRIES_MAX: usize = 3;
