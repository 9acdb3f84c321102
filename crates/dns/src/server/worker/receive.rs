//! News of exchanges: connections granted, answers, failures, and what is made of them.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::{AcquireError, CloseReason, Lease};

use super::{Worker, WorkerState, edns::Fit, send::refused};
use crate::{
    error::{Error, ErrorKind, Retry},
    message::{self, AnswerError, AnswerInfo},
    server::{
        flight::{Added, Best, Client, Exchange, Origin, Outcome, State, Token},
        inbox::Event,
        route::{Face, Path},
    },
    strategy::Verdict,
    upstream::{DnsConnector, Found, UdpConnection, count},
};

impl Worker {
    /// News from outside this thread.
    pub(crate) fn handle(self: &Rc<Worker>, event: Event, now: Instant) -> bool {
        match event {
            Event::Granted { token, result } => self.granted(token, result, now),
            Event::Answered(answers) => {
                for (token, answer) in answers.iter() {
                    self.answered(token, answer, now);
                }
                self.address.inbox.recycle(answers);
            }
            Event::Replied { token, result: Ok(answer) } => self.answered(token, &answer, now),
            Event::Replied { token, result: Err(error) } => self.failed(token, error, now),
            Event::Ask { query, answer } => self.ask(&query, Client::Daemon(answer), Origin::DAEMON, now),
            Event::Local { number, local } => self.renamed(number, local),
            Event::Reload(news) => self.reload(*news, now),
            Event::NetworkChanged => {
                for route in &self.era().routes {
                    route.paths().for_each(Path::network_changed);
                }
            }
            Event::Designated { upstream } => self.designated(&upstream, now),
            Event::Ping => self.address.inbox.pulse.beat(),
            Event::StopListening => self.stop_listening(),
            Event::Exit => return false,
        }
        true
    }

    pub(super) fn granted(
        self: &Rc<Worker>,
        token: u64,
        result: Result<Lease<DnsConnector>, AcquireError<Error>>,
        now: Instant,
    ) {
        let state = &mut *self.state.borrow_mut();
        // A lease that came too late is dropped, which passes it on.
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let Exchange { upstream, face, .. } = flight.exchanges[number];
        flight.exchanges[number].state = State::Over;
        match result {
            Ok(_) if flight.answered => return self.settle(state, index, now),
            Ok(lease) => self.send(state, index, number, lease, now),
            Err(error) => {
                let era = flight.era.clone();
                let error = self.no_connection(era.routes[upstream].path(face), &error, now);
                Self::lose(flight, number, error, now);
            }
        }
        self.step(state, index, now);
    }

    /// A datagram came in on an upstream's socket.
    pub(crate) fn received(self: &Rc<Worker>, socket: &Arc<UdpConnection>, datagram: &[u8], now: Instant) {
        let Some(id) = datagram.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            return self.wrong(socket, now);
        };
        let token = match socket.find(id) {
            Found::Waiting(token) => token,
            Found::Late => return,
            Found::Unknown => return self.wrong(socket, now),
        };
        let (fit, added) = {
            let state = self.state.borrow();
            let Some(token) = Self::find(&state, token) else {
                socket.answered(id);
                return;
            };
            let flight = &state.flights[token.index];
            let exchange = &flight.exchanges[token.exchange];
            (Self::fit(flight, exchange, datagram), exchange.added)
        };
        match fit {
            Fit::Right => {}
            Fit::Recased => return self.recased(socket, id, token, now),
            Fit::Wrong => return self.wrong(socket, now),
        }
        let info = message::verify_answer(datagram);
        if added != Added::Nothing && !self.bears_cookie((token, added), socket, (datagram, info.ok()), now) {
            return;
        }
        socket.answered(id);
        self.take(token, datagram, info, now);
    }

    /// RFC 5452 section 9.1: a wrong answer is dropped and waiting goes on; many of them mean that somebody guesses, and
    /// the queries move to TCP.
    pub(super) fn wrong(self: &Rc<Worker>, socket: &Arc<UdpConnection>, now: Instant) {
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

    pub(super) fn move_to_tcp(self: &Rc<Worker>, token: u64, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let upstream = flight.exchanges[number].upstream;
        flight.exchanges[number].state = State::Over;
        if !flight.answered {
            self.start(state, index, upstream, Face::Tcp, None, now);
        }
        self.step(state, index, now);
    }

    /// All queries on a socket failed together.
    pub(crate) fn socket_failed(self: &Rc<Worker>, socket: &Arc<UdpConnection>, error: &std::io::Error, now: Instant) {
        socket.close(CloseReason::PeerReset);
        let error = refused(socket, error);
        for token in socket.evacuate() {
            self.failed(token, error.clone(), now);
        }
    }

    /// An answer came whose id and question are right.
    pub(super) fn answered(self: &Rc<Worker>, token: u64, answer: &[u8], now: Instant) {
        self.take(token, answer, message::verify_answer(answer), now);
    }

    /// As [`answered`](Self::answered), of an answer that was walked.
    fn take(self: &Rc<Worker>, token: u64, answer: &[u8], info: Result<AnswerInfo, AnswerError>, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let exchange = &mut flight.exchanges[number];
        let Exchange { upstream, face, .. } = *exchange;
        let era = flight.era.clone();
        let path = era.routes[upstream].path(face);
        let State::Sent { lease, at, .. } = std::mem::replace(&mut exchange.state, State::Over) else { return };
        let Ok(info) = info else {
            let error = Error::new(ErrorKind::Mismatch, format!("query to {}: malformed answer", path.endpoint.url()));
            path.failed(lease.family(), now);
            Self::lose(flight, number, error, now);
            return self.step(state, index, now);
        };
        count(&path.endpoint.counters.answers);
        path.succeeded(lease.family(), now, now.saturating_duration_since(at));
        if flight.answered {
            drop(lease);
            return self.settle(state, index, now);
        }
        if Self::is_about_options(flight, number, info.rcode, now) {
            flight.exchanges[number].outcome = Some((Outcome::Answered(info.rcode), now));
            drop(lease);
            return self.settle_options(state, index, number, info.rcode, now);
        }
        if info.tc && face == Face::Main && era.routes[upstream].tcp.is_some() {
            // Behaviour 5: asked again over TCP; the truncated answer serves only if that brings nothing.
            count(&path.endpoint.counters.truncated);
            flight.exchanges[number].outcome = Some((Outcome::Truncated, now));
            let answer = Bytes::copy_from_slice(answer);
            flight.best.get_or_insert(Best { number, answer, lease, at });
            self.start(state, index, upstream, Face::Tcp, None, now);
            return self.step(state, index, now);
        }
        flight.exchanges[number].outcome = Some((Outcome::Answered(info.rcode), now));
        self.judge(state, index, Best { number, answer: Bytes::new(), lease, at }, answer, &info, now);
    }

    /// Whether an answer ends the flight. SERVFAIL and REFUSED (and the errors of a server that does not speak what we speak)
    /// may be improved on by another upstream; every other rcode is the answer (behaviours 3 and 4).
    pub(super) fn judge(
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
    pub(crate) fn failed(self: &Rc<Worker>, token: u64, error: Error, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(Token { index, exchange: number, .. }) = Self::find(state, token) else { return };
        let flight = &mut state.flights[index];
        let exchange = &mut flight.exchanges[number];
        let Exchange { upstream, face, .. } = *exchange;
        let era = flight.era.clone();
        let path = era.routes[upstream].path(face);
        let State::Sent { mut lease, at, .. } = std::mem::replace(&mut exchange.state, State::Over) else { return };
        let exchange_blamed = exchange.blamed;
        let family = lease.family();
        // Stale is a connection that had worked before: it served other queries, or it answered since it was opened.
        let stale = error.retry() == Retry::Fresh && (lease.reused() || lease.proven());
        if stale {
            lease.reuse_failed();
        }
        let opened_at = lease.opened_at();
        if error.kind() == ErrorKind::Refused {
            path.turn_from(family);
        }
        drop(lease);
        // With other upstreams to ask, a fresh connection that breaks is a reason to ask them; with none, to try again.
        let alone = error.is_retryable() && flight.plan.candidates() == 1;
        let (repeat, opened_after) = match error.retry() {
            // Any connection but this one, which may be saying goodbye.
            Retry::Anywhere => (true, Some(opened_at + Duration::from_nanos(1))),
            // On a connection that was dialled after this query was sent (design: "Staleness").
            Retry::Fresh => (stale || alone, Some(at)),
            Retry::No => (false, None),
        };
        let innocent = repeat && (stale || error.retry() == Retry::Anywhere);
        if !exchange_blamed && !innocent {
            self.blame(path, family, &error, now);
        }
        let tries_max = if error.retry() == Retry::Anywhere { REFUSED_TRIES_MAX } else { FRESH_TRIES_MAX };
        if repeat && !flight.answered && flight.tries(upstream) <= tries_max {
            count(&path.endpoint.counters.resends);
            flight.exchanges[number].outcome = Some((Outcome::Failed(error.into()), now));
            self.start(state, index, upstream, face, opened_after, now);
        } else {
            Self::lose(flight, number, error, now);
        }
        self.step(state, index, now);
    }

    /// The exchange that a token names, if it still waits.
    pub(super) fn find(state: &WorkerState, token: u64) -> Option<Token> {
        let token = Token::unpack(token);
        let flight = state.flights.get(token.index)?;
        let exchange = flight.exchanges.get(token.exchange)?;
        (flight.generation == token.generation && !matches!(exchange.state, State::Over)).then_some(token)
    }
}

/// A query that lost its connection goes over a fresh one at most so often. One is the rule; more serve upstreams that
/// close after a number of queries, whose fresh connection may end under the same burst.
const FRESH_TRIES_MAX: usize = 3;

/// A stream that was refused cost the upstream nothing; new connections may refuse some until their SETTINGS have come.
const REFUSED_TRIES_MAX: usize = 8;
