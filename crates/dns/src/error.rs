//! What can go wrong between a query and an upstream's answer, with the side that is to blame.

use std::{fmt, sync::Arc};

use keepwarm_transport::error::{Error as TransportError, Side};

/// A failed exchange with an upstream. Cheap to clone: it may reach many waiting queries.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    text: Arc<str>,
    source: Option<TransportError>,
    retry: Retry,
}

/// Whether the same query may be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It may not: the upstream had its chance.
    No,
    /// The connection was stale: over a fresh one.
    Fresh,
    /// The upstream has certainly not looked at it: over another connection.
    Anywhere,
}

/// What went wrong, in the terms of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Connecting failed; the transport's error is the source.
    Connect,
    /// The connection ended before the answer.
    Closed,
    /// Nothing came back in time.
    TimedOut,
    /// The answer was to another question, or not a DNS message.
    Mismatch,
    /// An ICMP message says that nobody listens.
    Refused,
    /// A DoH answer with another status than 200, another content type, or too large a body.
    Http,
    /// No connection was to be had: the pool is exhausted, paused or closed.
    Pool,
    /// Encrypted client hello is required and not to be had.
    Ech,
    /// The encrypted face of a plain upstream is required and not to be had.
    Ddr,
    /// This machine ran out of ports, files or buffers.
    Local,
}

impl ErrorKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Connect => "connect",
            ErrorKind::Closed => "closed",
            ErrorKind::TimedOut => "timeout",
            ErrorKind::Mismatch => "mismatch",
            ErrorKind::Refused => "refused",
            ErrorKind::Http => "http",
            ErrorKind::Pool => "pool",
            ErrorKind::Ech => "ech",
            ErrorKind::Ddr => "ddr",
            ErrorKind::Local => "local",
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<Arc<str>>) -> Error {
        Error { kind, text: text.into(), source: None, retry: Retry::No }
    }

    /// Marks an error after which the same query may go once more over a fresh connection.
    pub(crate) fn or_fresh(mut self) -> Error {
        self.retry = Retry::Fresh;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Who is to blame. Only `Side::Upstream` counts against an upstream.
    pub fn side(&self) -> Side {
        match (&self.source, self.kind) {
            (Some(source), _) => source.side(),
            (None, ErrorKind::Pool | ErrorKind::Local) => Side::Local,
            (None, _) => Side::Upstream,
        }
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        self.kind == ErrorKind::TimedOut || self.source.as_ref().is_some_and(TransportError::is_timeout)
    }

    /// Whether the query may be repeated: the connection it was sent on was stale, or the upstream did not look at it.
    pub fn is_retryable(&self) -> bool {
        self.retry != Retry::No
    }

    /// What a dial died of, in the words that the pools of all jobs count by: the transport's where it is the transport's failure. Those of
    /// [`kind`](Self::kind) tell queries apart, for which it is enough that there was no connection.
    pub(crate) fn dial_kind(&self) -> &'static str {
        self.source.as_ref().map_or(self.kind.as_str(), |source| source.kind().as_str())
    }

    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }
}

impl From<TransportError> for Error {
    fn from(source: TransportError) -> Error {
        let kind = if source.side() == Side::Local { ErrorKind::Local } else { ErrorKind::Connect };
        let retry = if source.is_retryable() { Retry::Anywhere } else { Retry::No };
        Error { kind, text: source.to_string().into(), retry, source: Some(source) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use keepwarm_transport::error::{ErrorKind as TransportKind, Phase};

    use super::*;

    #[test]
    fn a_dial_is_counted_by_the_transports_word_and_a_query_by_a_coarser_one() {
        for (kind, dial, query) in [
            (TransportKind::PortsExhausted, "ports_exhausted", "local"),
            (TransportKind::FilesExhausted, "files_exhausted", "local"),
            (TransportKind::Certificate, "certificate", "connect"),
            (TransportKind::TimedOut(Phase::Tls), "timeout_tls", "connect"),
        ] {
            let error = Error::from(TransportError::new(kind, Phase::Connect, "connect to 192.0.2.1:853", "it failed"));
            assert_eq!((error.dial_kind(), error.kind().as_str()), (dial, query));
        }
        assert_eq!(Error::new(ErrorKind::Ech, "no keys").dial_kind(), "ech");
    }
}
