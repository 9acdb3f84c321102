//! Where the time of one query went.

mod explain;

pub use explain::{CacheVerdict, CandidateTrace, ConnectionTrace, Explanation, HedgeVerdict, Why};
pub(crate) use explain::{CandidateNote, Notes};

use std::{net::SocketAddr, time::Duration};

use crate::local::Rule;

/// The story of one query, as `keepwarm query` tells it.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The answer as a client would get it.
    pub answer: Vec<u8>,
    /// From the question to the answer. For an answer that needed no upstream, the way to the worker and back is part of it.
    pub total: Duration,
    /// The answer came from the cache, within its time or past it; `exchange` did not give it.
    pub cached: bool,
    /// The answer came from the cache past its end, because upstreams failed (RFC 8767). Never without `cached`.
    pub stale: bool,
    /// What of the names that are answered here the answer is from; `None` when it is not. Where that is an alias for another
    /// name, the rest tells how that one was answered.
    pub local: Option<Rule>,
    /// The exchange that gave the answer; `None` when there was none and the answer is keepwarm's own.
    pub exchange: Option<ExchangeTrace>,
    /// Every exchange, in the order in which they began.
    pub attempts: Vec<AttemptTrace>,
    /// The last error, where an exchange failed.
    pub error: Option<String>,
    /// Why it went as it did; `None` for answers that need neither cache nor upstream.
    pub explanation: Option<Explanation>,
}

/// The exchange that gave the answer.
#[derive(Debug, Clone)]
pub struct ExchangeTrace {
    /// The upstream's name in the config.
    pub upstream: String,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`.
    pub transport: &'static str,
    /// `tls://dns.quad9.net:853`.
    pub url: String,
    /// The address that the connection goes to.
    pub peer: SocketAddr,
    /// The pool's number for the connection.
    pub connection: u64,
    /// Whether the connection had served before.
    pub reused: bool,
    /// The connection's age when the query was sent.
    pub age: Duration,
    /// From the question to the decision to ask this upstream.
    pub decide: Duration,
    /// Waiting for a connection; a dial is part of it when the connection is new.
    pub wait: Duration,
    /// How long each phase of the dial took, which may have begun before the query; `None` where the connection had served
    /// before.
    pub dial: Option<DialTrace>,
    /// From sending to the answer.
    pub exchange: Duration,
}

impl ExchangeTrace {
    /// Whether the connection had been opened before the query needed one, and nothing had gone over it: the query did not
    /// wait for its dial.
    pub fn opened_ahead(&self) -> bool {
        !self.reused && self.wait.is_zero()
    }
}

/// How long the phases of a dial took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DialTrace {
    /// Finding the upstream's addresses; zero where they are fixed or known.
    pub resolve: Duration,
    /// The TCP handshake; zero over UDP and QUIC, whose handshake is that of TLS.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// The TLS session was resumed.
    pub resumed: bool,
    /// What became of encrypted client hello: `off`, `unavailable`, `grease`, `accepted` or `rejected`; `None` without TLS
    /// over TCP.
    pub ech: Option<&'static str>,
}

/// One exchange and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptTrace {
    /// The upstream's name in the config.
    pub upstream: String,
    /// The response code, `truncated, asked again over tcp`, `pending` when the query ended before it, [`NO_ANSWER`], or what
    /// went wrong.
    pub outcome: String,
    /// From the decision to the outcome.
    pub took: Duration,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`.
    pub transport: &'static str,
    /// It went to the encrypted face that a plain upstream designates (RFC 9462).
    pub designated: bool,
    /// From the question to the decision.
    pub started: Duration,
    /// Why it was made.
    pub why: Why,
    /// The connection; `None` while there was none.
    pub connection: Option<ConnectionTrace>,
}

/// The outcome of an exchange that the query's deadline ended.
pub const NO_ANSWER: &str = "no answer";

impl Trace {
    /// Whether the deadline ended an exchange without an answer.
    pub fn is_timed_out(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.outcome == NO_ANSWER)
    }

    /// An answer that needed no upstream.
    pub(crate) fn own(answer: &[u8]) -> Trace {
        Trace {
            answer: answer.to_vec(),
            total: Duration::ZERO,
            cached: false,
            stale: false,
            local: None,
            exchange: None,
            attempts: Vec::new(),
            error: None,
            explanation: None,
        }
    }
}
