//! What hops say to each other in options, and what becomes of a query when that goes wrong: cookies (RFC 7873), options
//! that an upstream does not bear, letters whose case it changes (0x20), and the client's network (RFC 7871).

use std::{rc::Rc, sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{Worker, WorkerState};
use crate::{
    config::ClientSubnet,
    error::{Error, ErrorKind},
    message::{self, AnswerInfo, ClientView, Query},
    server::{
        flight::{Added, Exchange, Flight, Origin, Outcome, State},
        route::{Face, Path, RESEND_MIN},
    },
    upstream::{Connection, UdpConnection, Verdict, count},
};

/// How well an answer with the right id fits its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It answers it.
    Right,
    /// It answers it, with letters in another case than was sent.
    Recased,
    /// It answers another one, or nothing.
    Wrong,
}

// --- on the way out

impl Worker {
    /// The query with what upstreams are to be told of the client's network, where that differs from what the client says.
    pub(super) fn readdress(
        &self,
        bytes: &[u8],
        parsed: &Query,
        origin: &Origin,
        view: &mut ClientView,
    ) -> Option<message::Readdressed> {
        let subnet = self.era.borrow().config.client_subnet;
        if subnet == ClientSubnet::Pass {
            return None;
        }
        let readdressed = message::readdress(subnet, bytes, parsed, origin.client)?;
        if message::subnet_of(bytes, parsed) != message::subnet_of(&readdressed.message, &readdressed.query) {
            view.without_subnet();
        }
        Some(readdressed)
    }

    /// Whether the upstream of this exchange has answered this query with an error that options of ours may be the reason of.
    pub(super) fn refused_options(flight: &Flight, number: usize) -> bool {
        let upstream = flight.exchanges[number].upstream;
        flight.exchanges[..number].iter().any(|exchange| {
            exchange.upstream == upstream
                && exchange.added != Added::Nothing
                && matches!(exchange.outcome, Some((Outcome::Answered(rcode), _)) if may_be_about_options(rcode))
        })
    }

    /// Adds the cookie to a datagram, or leaves it off on purpose.
    pub(super) fn add_cookie(
        path: &Path,
        flight: &mut Flight,
        number: usize,
        (socket, datagram): (&UdpConnection, &mut Vec<u8>),
        bare: bool,
        now: Instant,
    ) {
        let (earlier, this) = flight.exchanges.split_at_mut(number);
        let [exchange, ..] = this else { return };
        let repeated =
            earlier.iter().any(|earlier| earlier.upstream == exchange.upstream && earlier.added == Added::Cookie);
        let plain = bare || path.endpoint.habits.is_plain(now);
        exchange.added = if !plain && socket.add_cookie(datagram, flight.question_end, repeated, now) {
            Added::Cookie
        } else if bare || repeated {
            Added::LeftOff
        } else {
            Added::Nothing
        };
    }
}

// --- on the way back

impl Worker {
    /// Compares an answer over UDP with its query.
    pub(super) fn fit(flight: &Flight, exchange: &Exchange, answer: &[u8]) -> Fit {
        let Some(question) = &exchange.question else {
            let right = message::answer_matches(&flight.query[..flight.question_end], answer, false, false);
            return if right { Fit::Right } else { Fit::Wrong };
        };
        let mut head: SmallVec<[u8; 280]> = SmallVec::from_slice(&flight.query[..12]);
        head.extend_from_slice(question);
        if message::answer_matches(&head, answer, true, false) {
            flight.era.routes[exchange.upstream].path(exchange.face).endpoint.habits.kept_case();
            return Fit::Right;
        }
        if message::answer_matches(&head, answer, false, false) { Fit::Recased } else { Fit::Wrong }
    }

    /// The letters came back in another case. It may be forged, so it is not used: the query goes over TCP, as with unbound.
    /// Where this is the rule, 0x20 is given up for a while, and all else is checked as ever.
    pub(super) fn recased(self: &Rc<Worker>, socket: &Arc<UdpConnection>, id: u16, token: u64, now: Instant) {
        socket.abandon(id, now);
        let state = &mut *self.state.borrow_mut();
        let Some(token) = Self::find(state, token) else { return };
        let flight = &state.flights[token.index];
        let exchange = &flight.exchanges[token.exchange];
        let endpoint = &flight.era.routes[exchange.upstream].path(exchange.face).endpoint;
        count(&endpoint.counters.wrong_answers);
        if endpoint.habits.changed_case(now) {
            tracing::warn!(
                upstream = &*endpoint.name,
                "answers do not keep the case of letters: 0x20 is off for an hour"
            );
        }
        self.ask_over_tcp(state, token.index, token.exchange, now);
        self.step(state, token.index, now);
    }

    /// Gives an exchange over UDP up, for one over TCP.
    pub(super) fn ask_over_tcp(self: &Rc<Worker>, state: &mut WorkerState, index: usize, number: usize, now: Instant) {
        let flight = &mut state.flights[index];
        let exchange = &mut flight.exchanges[number];
        let upstream = exchange.upstream;
        if let State::Sent { lease, id: Some(id), .. } = std::mem::replace(&mut exchange.state, State::Over)
            && let Connection::Udp(socket) = &*lease
        {
            socket.abandon(id, now);
        }
        let error = Error::new(ErrorKind::Mismatch, "the answer was doubted, asked again over tcp");
        exchange.outcome = Some((Outcome::Failed(error.into()), now));
        if !flight.answered {
            self.start(state, index, upstream, Face::Tcp, None, now);
        }
    }

    /// Whether the cookie of an answer over UDP lets it pass (RFC 7873 section 5.3). A wrong one is dropped like any forged
    /// answer. So is an answer without from a server that has them; when nothing better comes for a while, the query goes
    /// over TCP.
    pub(super) fn bears_cookie(
        self: &Rc<Worker>,
        (token, added): (u64, Added),
        socket: &Arc<UdpConnection>,
        (answer, info): (&[u8], Option<AnswerInfo>),
        now: Instant,
    ) -> bool {
        if added != Added::Cookie {
            socket.answered_bare(now);
            return true;
        }
        let cookie = info.as_ref().and_then(|info| info.cookie_of(answer));
        let renew = info.is_some_and(|info| info.rcode == message::BADCOOKIE);
        let verdict = socket.check_cookie(cookie, renew, now);
        if verdict == Verdict::Good {
            return true;
        }
        self.doubt(token, verdict, now);
        if verdict == Verdict::Wrong {
            self.wrong(socket, now);
        }
        false
    }

    /// Counts an answer that is dropped for its cookie, and sees to it that one without leads to TCP.
    fn doubt(self: &Rc<Worker>, token: u64, verdict: Verdict, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let Some(token) = Self::find(state, token) else { return };
        let flight = &mut state.flights[token.index];
        let exchange = &mut flight.exchanges[token.exchange];
        count(&flight.era.routes[exchange.upstream].path(exchange.face).endpoint.counters.cookie_errors);
        if verdict == Verdict::Missing && !exchange.doubted {
            exchange.doubted = true;
            let at = now + RESEND_MIN;
            exchange.resend = Some(exchange.resend.map_or((at, RESEND_MIN), |(due, patience)| (due.min(at), patience)));
            self.step(state, token.index, now);
        }
    }

    /// Whether an answer may say something of our options and nothing of the query. Learns from one that came without them.
    pub(super) fn is_about_options(flight: &Flight, number: usize, rcode: u16, now: Instant) -> bool {
        let exchange = &flight.exchanges[number];
        if rcode == message::BADCOOKIE {
            return true;
        }
        match exchange.added {
            Added::Nothing => false,
            Added::Options | Added::Cookie => may_be_about_options(rcode),
            Added::LeftOff => {
                let endpoint = &flight.era.routes[exchange.upstream].path(exchange.face).endpoint;
                if !may_be_about_options(rcode)
                    && Self::refused_options(flight, number)
                    && endpoint.habits.refused_options(now)
                {
                    tracing::warn!(
                        upstream = &*endpoint.name,
                        "queries with cookie, keepalive or padding are refused: sent without for five minutes"
                    );
                }
                false
            }
        }
    }

    /// Asks again after an answer that [is about options](Self::is_about_options): after BADCOOKIE once with the new cookie,
    /// then over TCP (RFC 7873 section 5.3); after another error without options.
    pub(super) fn settle_options(
        self: &Rc<Worker>,
        state: &mut WorkerState,
        index: usize,
        number: usize,
        rcode: u16,
        now: Instant,
    ) {
        let flight = &mut state.flights[index];
        let Exchange { upstream, face, .. } = flight.exchanges[number];
        let era = flight.era.clone();
        let endpoint = &era.routes[upstream].path(face).endpoint;
        let is_bad_cookie = |exchange: &&Exchange| {
            exchange.upstream == upstream
                && matches!(exchange.outcome, Some((Outcome::Answered(message::BADCOOKIE), _)))
        };
        if rcode != message::BADCOOKIE {
            count(&endpoint.counters.resends);
            self.start(state, index, upstream, face, None, now);
        } else {
            count(&endpoint.counters.cookie_errors);
            match flight.exchanges.iter().filter(is_bad_cookie).count() {
                1 => self.start(state, index, upstream, face, None, now),
                2 if face == Face::Main => self.start(state, index, upstream, Face::Tcp, None, now),
                _ => {
                    let text = format!("query to {}: the cookie is refused", endpoint.url());
                    Self::lose(flight, number, Error::new(ErrorKind::Mismatch, text), now);
                }
            }
        }
        self.step(state, index, now);
    }
}

/// The errors of servers that do not know EDNS, or not these options of it (RFC 6891 section 7).
fn may_be_about_options(rcode: u16) -> bool {
    matches!(rcode, message::FORMERR | message::NOTIMP | message::BADVERS)
}
