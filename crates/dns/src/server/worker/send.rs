//! Exchanges on their way out: a connection asked for, a query sent, sent again, given up.

use std::{rc::Rc, sync::Arc, time::Instant};

use keepwarm_pool::{AcquireError, AcquireOptions, Acquired, CloseReason, Lease};
use keepwarm_transport::error::Side;

use super::{Worker, WorkerState};
use crate::{
    error::{Error, ErrorKind},
    exchange::Outgoing,
    message,
    server::{
        era::Era,
        flight::{Added, Exchange, Flight, Outcome, State, Token},
        route::{Face, Path, REPEAT, RESEND_MAX, RESEND_MIN},
        udp::read_upstream,
    },
    upstream::{Connection, DnsConnector, Family, STALLED, UdpConnection, count},
};

impl Worker {
    /// Asks for a connection and sends, or queues for one.
    pub(super) fn start(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        upstream: usize,
        face: Face,
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
            face,
            started: now,
            state: State::Over,
            resend: None,
            blamed: false,
            added: Added::Nothing,
            doubted: false,
            outcome: None,
            question: None,
        });
        let era = flight.era.clone();
        let path = era.routes[upstream].path(face);
        let token = Token { index, generation: flight.generation, exchange: number }.pack();
        let patience = era.config.pool.acquire_timeout;
        let options = AcquireOptions { deadline: Some(flight.deadline), timeout: Some(patience), opened_after };
        match path.host.acquire_into(&options, &self.address.grants, token) {
            Ok(Acquired::Now(lease)) => self.send(state, index, number, lease, now),
            Ok(Acquired::Queued(ticket)) => flight.exchanges[number].state = State::Queued(ticket, path.busy()),
            Err(error) => {
                let error = self.no_connection(path, &error, now);
                Self::lose(flight, number, error, now);
            }
        }
    }

    /// Puts a flight's query on a connection.
    pub(super) fn send(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        number: usize,
        lease: Lease<DnsConnector>,
        now: Instant,
    ) {
        let WorkerState { flights, datagram, .. } = state;
        let flight = &mut flights[index];
        let token = Token { index, generation: flight.generation, exchange: number };
        let Exchange { upstream, face, .. } = flight.exchanges[number];
        let era = flight.era.clone();
        let path = era.routes[upstream].path(face);
        count(&path.endpoint.counters.queries);
        let bare = number > 0 && Self::refused_options(flight, number);
        let mut id = None;
        let patience = match &*lease {
            Connection::Udp(socket) => {
                match self.send_datagram(path, flight, token, (socket, datagram), bare, now) {
                    Ok(sent) => id = sent,
                    Err(error) => {
                        self.blame(path, lease.family(), &error, now);
                        return Self::lose(flight, number, error, now);
                    }
                }
                path.latency.borrow().try_timeout().clamp(RESEND_MIN, RESEND_MAX)
            }
            Connection::Stream(stream) => {
                let Flight { query, question_end, exchanges, .. } = flight;
                exchanges[number].added = match (bare, path.endpoint.adds_options()) {
                    (true, _) => Added::LeftOff,
                    (false, true) => Added::Options,
                    (false, false) => Added::Nothing,
                };
                let query = Outgoing { message: query, question_end: *question_end, bare, now };
                stream.pipe.submit(query, token.pack(), &self.address.replies);
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
        // Silence is noticed as soon as answers usually come, though a stream is given more time before it is repeated.
        let look = patience.min(path.latency.borrow().try_timeout().clamp(RESEND_MIN, RESEND_MAX));
        let look = if id.is_some() { patience } else { look };
        let exchange = &mut flight.exchanges[number];
        if let Some(notes) = &mut flight.notes {
            notes.sent(number, exchange, &lease, now);
        }
        exchange.state = State::Sent { lease, id, at: now, busy: path.busy() };
        exchange.resend = (tries <= RESENDS_MAX).then_some((now + look, patience));
    }

    fn send_datagram(
        self: &Rc<Worker>,
        path: &Path,
        flight: &mut Flight,
        token: Token,
        (socket, datagram): (&Arc<UdpConnection>, &mut Vec<u8>),
        bare: bool,
        now: Instant,
    ) -> Result<Option<u16>, Error> {
        let (number, token) = (token.exchange, token.pack());
        socket.read_by(|| tokio::task::spawn_local(read_upstream(self.clone(), socket.clone())).abort_handle());
        if socket.is_closed() {
            let text = format!("query to {}: the socket was retired", socket.peer);
            self.address.replies.reply(token, Err(Error::new(ErrorKind::Closed, text).or_fresh()));
            return Ok(None);
        }
        let Some(id) = socket.allot(token, now) else {
            socket.close(CloseReason::MaxUses);
            return Err(Error::new(ErrorKind::Local, "no free id on the socket"));
        };
        datagram.clear();
        datagram.extend_from_slice(&flight.query);
        datagram[..2].copy_from_slice(&id.to_be_bytes());
        if path.endpoint.case_randomization && path.endpoint.habits.keeps_case(now) {
            let question = &mut datagram[12..flight.question_end];
            message::randomize_case(question, rand::random);
            flight.exchanges[number].question = Some((&*question).into());
        }
        if bare || socket.has_cookie(now) {
            Self::add_cookie(path, flight, number, (socket, datagram), bare, now);
        }
        self.outbox.query(socket, datagram);
        Ok(Some(id))
    }

    /// Sends again what has met with silence: UDP over another port and id, streams over a fresh connection. The first
    /// one is still listened to.
    pub(super) fn resend(self: &Rc<Worker>, state: &mut WorkerState, index: usize, now: Instant) {
        let era = state.flights[index].era.clone();
        for number in 0..state.flights[index].exchanges.len() {
            let exchange = &mut state.flights[index].exchanges[number];
            let Some((_, patience)) = exchange.resend.filter(|(at, _)| *at <= now) else { continue };
            if exchange.doubted {
                self.ask_over_tcp(state, index, number, now);
                continue;
            }
            let State::Sent { lease, at, .. } = &exchange.state else { continue };
            let (at, upstream, face) = (*at, exchange.upstream, exchange.face);
            let path = era.routes[upstream].path(face);
            let is_stream = matches!(**lease, Connection::Stream(_));
            let quiet_at = lease.heard() + patience;
            if is_stream && lease.heard() > at && now < quiet_at {
                // The connection lives, the name is slow: look again when nothing has come for a while.
                exchange.resend = Some((quiet_at, patience));
                continue;
            }
            let silent = path.silent_since(at, lease);
            let family = lease.family();
            exchange.resend = None;
            if silent && !exchange.blamed {
                exchange.blamed = true;
                path.failed(family, now);
                if !is_stream {
                    path.turn_from(family);
                }
            }
            if !is_stream && silent && !path.may_repeat(now) {
                exchange.resend = Some((now + REPEAT, patience));
                continue;
            }
            // The upstream speaks, and may have become slower than it was when this query was sent.
            let due = at + path.latency.borrow().try_timeout().clamp(RESEND_MIN, RESEND_MAX * 2);
            if !is_stream && !silent && now < due {
                exchange.resend = Some((due, patience));
                continue;
            }
            if is_stream && now < at + patience {
                exchange.resend = Some((at + patience, patience));
                continue;
            }
            count(&path.endpoint.counters.resends);
            let opened_after = is_stream.then_some(at);
            let face = if silent && Self::should_retreat(&state.flights[index], upstream) { Face::Main } else { face };
            self.start(state, index, upstream, face, opened_after, now);
        }
    }

    /// An exchange came to nothing; when it was the upstream's last, the plan hears of it.
    pub(super) fn lose(flight: &mut Flight, number: usize, error: Error, now: Instant) {
        let exchange = &mut flight.exchanges[number];
        let upstream = exchange.upstream;
        exchange.state = State::Over;
        exchange.outcome = Some((Outcome::Failed(error.clone().into()), now));
        flight.last_error = Some(error);
        if !flight.is_live(upstream) && !Self::should_retreat(flight, upstream) {
            flight.plan.failed(upstream, now);
        }
    }

    /// Stops waiting for an exchange; its silence counts against an upstream that said nothing at all since it was sent.
    pub(super) fn give_up(era: &Era, exchange: &mut Exchange, now: Instant) {
        let path = era.routes[exchange.upstream].path(exchange.face);
        match std::mem::replace(&mut exchange.state, State::Over) {
            State::Sent { lease, id, at, .. } => {
                if let (Connection::Udp(socket), Some(id)) = (&*lease, id) {
                    socket.abandon(id, now);
                }
                if !exchange.blamed && path.silent_since(at, &lease) {
                    path.failed(lease.family(), now);
                }
            }
            State::Queued(ticket, _) => {
                path.host.cancel(ticket);
            }
            State::Held | State::Over => {}
        }
    }

    /// Counts an error on the side whose it is.
    pub(super) fn blame(&self, path: &Path, family: Family, error: &Error, now: Instant) {
        match error.side() {
            Side::Upstream => path.failed(family, now),
            Side::Local => {
                count(&path.endpoint.counters.local_errors);
                count(&self.shared.counters.local_errors);
            }
            Side::Client => {}
        }
    }

    /// A pool's refusal, with the side that is to blame. The dial that failed has already told the health of the endpoint.
    pub(super) fn no_connection(&self, path: &Path, error: &AcquireError<Error>, now: Instant) -> Error {
        let error = error.dial_error().map_or_else(
            || Error::new(ErrorKind::Pool, format!("query to {}: {error}", path.endpoint.url())),
            |last| (**last).clone(),
        );
        match error.side() {
            Side::Local => {
                count(&path.endpoint.counters.local_errors);
                count(&self.shared.counters.local_errors);
            }
            Side::Upstream => path.penalise(now),
            Side::Client => {}
        }
        error
    }
}

/// A silent upstream is asked again so often within the deadline.
const RESENDS_MAX: usize = 4;

/// Nobody listens there. Another address family may be answered where this one is not.
pub(super) fn refused(socket: &UdpConnection, error: &std::io::Error) -> Error {
    let text = error.to_string().to_lowercase();
    let what = text.split(" (os error").next().unwrap_or(&text);
    Error::new(ErrorKind::Refused, format!("query to {}: {what}", socket.peer)).or_fresh()
}
