//! A query in flight: who waits for it, what was sent for it, and what came back.
//!
//! Flights live in a worker's slab and are named by [`Token`]s, which outlive them safely: a token of a flight that is
//! gone finds nothing. What happens next is decided in `worker`; here is only the state.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::{Lease, Ticket};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    era::Era,
    limit::Charge,
    route::{Busy, Face},
    tcp::TcpClient,
    trace::{Notes, Trace},
    udp::Listener,
};
use crate::{
    config::ListenTransport,
    error::Error,
    message::{self, ClientView},
    strategy::Plan,
    upstream::DnsConnector,
    wheel,
};

/// Names one exchange of one flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: usize,
    pub(crate) generation: u64,
    pub(crate) exchange: usize,
}

impl Token {
    const EXCHANGE_BITS: u32 = 6;
    const INDEX_BITS: u32 = 20;
    const GENERATION_BITS: u32 = 64 - Self::INDEX_BITS - Self::EXCHANGE_BITS;

    /// Flights of one worker, at most.
    pub(crate) const FLIGHTS_MAX: usize = 1 << Self::INDEX_BITS;
    /// Exchanges of one flight, at most.
    pub(crate) const EXCHANGES_MAX: usize = 1 << Self::EXCHANGE_BITS;

    pub(crate) fn pack(self) -> u64 {
        let generation = self.generation & ((1 << Self::GENERATION_BITS) - 1);
        generation << (Self::INDEX_BITS + Self::EXCHANGE_BITS)
            | (self.index as u64) << Self::EXCHANGE_BITS
            | self.exchange as u64
    }

    pub(crate) fn unpack(token: u64) -> Token {
        let field = |shift: u32, bits: u32| token >> shift & ((1 << bits) - 1);
        Token {
            generation: field(Self::INDEX_BITS + Self::EXCHANGE_BITS, Self::GENERATION_BITS),
            index: usize::try_from(field(Self::EXCHANGE_BITS, Self::INDEX_BITS)).expect("20 bits fit"),
            exchange: usize::try_from(field(0, Self::EXCHANGE_BITS)).expect("6 bits fit"),
        }
    }

    /// The next generation, which [`pack`](Self::pack) keeps whole.
    pub(crate) fn next_generation(generation: u64) -> u64 {
        (generation + 1) & ((1 << Self::GENERATION_BITS) - 1)
    }
}

/// Who waits for an answer.
pub(crate) enum Client {
    /// A datagram came in on this socket from this address.
    Udp { listener: Rc<Listener>, peer: SocketAddr },
    /// A message on a connection.
    Tcp(Rc<TcpClient>),
    /// A request of its own, such as one over HTTP or a stream of QUIC.
    Request(Box<dyn Request>),
    /// One of these, and its place among its client's queries in flight, where these are limited. Boxed, so that those who
    /// set no limit do not pay for it.
    Limited(Box<(Client, Charge)>),
    /// The daemon itself.
    Daemon(oneshot::Sender<Trace>),
}

/// One that waits for a single answer. Dropped without one, it tells its client so itself.
pub(crate) trait Request {
    /// Called at most once, on the worker's thread.
    fn answer(self: Box<Self>, message: &[u8]);

    /// As [`answer`](Self::answer), with how the answer came about, for those who tell.
    fn answer_traced(self: Box<Self>, message: &[u8], _trace: Option<&dyn Fn() -> Trace>) {
        self.answer(message);
    }

    /// Whether it tells how its answer came about.
    fn is_explained(&self) -> bool {
        false
    }

    /// The question as the client wrote it, where it is another than the one that is asked for it.
    fn asked(&self) -> Option<&[u8]> {
        None
    }

    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;
}

/// Where a query came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client's address; `None` for the daemon itself.
    pub(crate) client: Option<IpAddr>,
    pub(crate) transport: ListenTransport,
    /// Whether it may ask.
    pub(crate) allowed: bool,
}

impl Origin {
    /// The daemon itself.
    pub(crate) const DAEMON: Origin = Origin { client: None, transport: ListenTransport::Plain, allowed: true };
}

/// One client's claim to a flight's answer.
pub(crate) struct Waiter {
    pub(crate) client: Client,
    pub(crate) origin: Origin,
    pub(crate) view: ClientView,
    /// The question as this client wrote it, where its case differs from the flight's.
    pub(crate) question: Option<Box<[u8]>>,
}

/// A query in flight.
pub(crate) struct Flight {
    pub(crate) generation: u64,
    /// The settings that it began with, and ends with.
    pub(crate) era: Rc<Era>,
    /// What is forwarded, with id 0.
    pub(crate) query: Vec<u8>,
    pub(crate) question_end: usize,
    pub(crate) hash: u64,
    pub(crate) waiters: SmallVec<[Waiter; 1]>,
    pub(crate) exchanges: SmallVec<[Exchange; 1]>,
    pub(crate) plan: Plan,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// When its clients get the stale answer that there is.
    pub(crate) stale_at: Option<Instant>,
    pub(crate) timer: Option<(wheel::Key, Instant)>,
    /// The first answer that was good enough to keep and not good enough to end with.
    pub(crate) best: Option<Best>,
    pub(crate) last_error: Option<Error>,
    /// What was known when it began, where the daemon itself asks.
    pub(crate) notes: Option<Box<Notes>>,
    /// The clients have their answer; what is still in flight is awaited for the upstream's health only.
    pub(crate) answered: bool,
}

/// An answer that serves when nothing better comes.
pub(crate) struct Best {
    pub(crate) number: usize,
    pub(crate) answer: Bytes,
    pub(crate) lease: Lease<DnsConnector>,
    pub(crate) at: Instant,
}

/// One query to one upstream over one connection.
pub(crate) struct Exchange {
    pub(crate) upstream: usize,
    pub(crate) face: Face,
    pub(crate) started: Instant,
    pub(crate) state: State,
    /// When it is sent once more if nothing came, and how patient that was.
    pub(crate) resend: Option<(Instant, Duration)>,
    /// Its silence was held against the upstream.
    pub(crate) blamed: bool,
    /// What of ours went with the query.
    pub(crate) added: Added,
    /// An answer came that has to be doubted: the query goes over TCP next.
    pub(crate) doubted: bool,
    /// How it ended, for the trace.
    pub(crate) outcome: Option<(Outcome, Instant)>,
    /// The question with the random case it was sent in (0x20).
    pub(crate) question: Option<Box<[u8]>>,
}

/// What of ours went with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// Nothing: it went as it stands in the flight.
    Nothing,
    /// Nothing, on purpose: it went before with something added, and came to nothing or to an error.
    LeftOff,
    /// Options that the answer need not repeat.
    Options,
    /// A cookie (RFC 7873) over UDP.
    Cookie,
}

/// How an exchange ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// With an answer of this rcode.
    Answered(u16),
    /// With a truncated answer.
    Truncated,
    /// With an error.
    Failed(Box<Error>),
}

pub(crate) enum State {
    /// Waits for a connection. -> `Sent` when granted, -> `Over` when not.
    Queued(Ticket, #[expect(dead_code, reason = "counts for as long as it is here")] Option<Busy>),
    /// Waits for the encrypted face of its upstream. -> `Over` with the news, or at the deadline.
    Held,
    /// Sent with this id (UDP) over this connection. -> `Over` with the answer, an error or the end of patience.
    Sent {
        lease: Lease<DnsConnector>,
        id: Option<u16>,
        at: Instant,
        #[expect(dead_code, reason = "counts for as long as it is here")]
        busy: Option<Busy>,
    },
    /// Answered, failed or given up.
    Over,
}

impl Exchange {
    /// Whether it ended with an answer about the name, be it that there is none, and not with an upstream's failure
    /// (RFC 8767 section 4).
    pub(crate) fn has_resolved(&self) -> bool {
        matches!(self.outcome, Some((Outcome::Answered(message::NOERROR | message::NXDOMAIN), _)))
    }
}

impl Exchange {
    /// Whether it ended without any answer.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.outcome, Some((Outcome::Failed(_), _)))
    }
}

impl Flight {
    /// Exchanges from which something may still come.
    pub(crate) fn live(&self) -> impl Iterator<Item = (usize, &Exchange)> {
        self.exchanges.iter().enumerate().filter(|(_, exchange)| !matches!(exchange.state, State::Over))
    }

    /// Whether something may still come from this upstream.
    pub(crate) fn is_live(&self, upstream: usize) -> bool {
        self.live().any(|(_, exchange)| exchange.upstream == upstream)
    }

    /// Exchanges with this upstream so far.
    pub(crate) fn tries(&self, upstream: usize) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.upstream == upstream).count()
    }
}

impl Client {
    /// Sends the answer. The trace is made only for those who read it.
    pub(super) fn deliver(self, answer: &[u8], trace: Option<&dyn Fn() -> Trace>) {
        match self {
            Client::Udp { listener, peer } => listener.answer(answer, peer),
            Client::Tcp(client) => client.answer(answer),
            Client::Request(request) => request.answer_traced(answer, trace),
            Client::Limited(limited) => limited.0.deliver(answer, trace),
            Client::Daemon(sender) => {
                let trace = trace.map_or_else(|| Trace::own(answer), |trace| trace());
                let _ = sender.send(trace);
            }
        }
    }

    /// The question as the client wrote it, where it is another than the one that is asked for it.
    pub(super) fn asked(&self) -> Option<&[u8]> {
        match self {
            Client::Request(request) => request.asked(),
            Client::Limited(limited) => limited.0.asked(),
            Client::Udp { .. } | Client::Tcp(_) | Client::Daemon(_) => None,
        }
    }

    /// Whether it wants to know how its answer came about.
    pub(super) fn is_explained(&self) -> bool {
        match self {
            Client::Udp { .. } | Client::Tcp(_) | Client::Limited(_) => false,
            Client::Request(request) => request.is_explained(),
            Client::Daemon(_) => true,
        }
    }

    /// Whether the answer has somebody to go to. Who asked in a datagram cannot take the question back.
    pub(super) fn is_waiting(&self) -> bool {
        match self {
            Client::Udp { .. } => true,
            Client::Tcp(client) => !client.has_gone(),
            Client::Request(request) => request.is_wanted(),
            Client::Limited(limited) => limited.0.is_waiting(),
            Client::Daemon(sender) => !sender.is_closed(),
        }
    }

    /// There is no answer to send.
    pub(super) fn dismiss(self) {
        match self {
            Client::Udp { .. } | Client::Request(_) | Client::Daemon(_) => {}
            Client::Tcp(client) => client.close(),
            Client::Limited(limited) => limited.0.dismiss(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_flights_take_eight_megabytes() {
        assert!(size_of::<Flight>() <= 800, "{}", size_of::<Flight>());
    }

    #[test]
    fn tokens_unpack_to_what_was_packed() {
        let last = Token {
            index: Token::FLIGHTS_MAX - 1,
            generation: (1 << Token::GENERATION_BITS) - 1,
            exchange: Token::EXCHANGES_MAX - 1,
        };
        for token in
            [Token { index: 0, generation: 0, exchange: 0 }, Token { index: 5, generation: 77, exchange: 3 }, last]
        {
            assert_eq!(Token::unpack(token.pack()), token);
        }
        assert_eq!(Token::next_generation(last.generation), 0);
    }
}
