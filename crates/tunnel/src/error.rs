//! Why there is no tunnel: what was tried, and whose fault it is.
//!
//! What is deliberately not here: how a client is told (reply codes, status codes), which belongs to its protocol.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use keepwarm_transport::error as transport;
pub use keepwarm_transport::error::Side;

/// A tunnel that was not made.
///
/// The text reads `tunnel to tiles.example:443: connect to tiles.example:443 through socks5://exit.example:1080: connection refused`.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    side: Side,
    text: Cow<'static, str>,
    source: Option<transport::Error>,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A rule of ours forbids the destination.
    Rejected,
    /// The proxy's rules forbid it.
    Forbidden,
    /// Nobody listens at the destination.
    Refused,
    /// The destination's network cannot be reached.
    NetworkUnreachable,
    /// The destination cannot be reached.
    HostUnreachable,
    /// The destination's name has no address.
    Resolve,
    /// No word of the destination in time.
    TimedOut,
    /// The proxy does not take addresses of this type.
    AddressType,
    /// No upstream that the rules allow could be used: each has failed, or is left alone after failures.
    Upstream,
    /// The destination's live tunnels were at their limit until `acquire_timeout`, or as many wait as may.
    Busy,
    /// The upstream cannot do it: UDP over an HTTP proxy.
    Unsupported,
    /// A shortage of this machine, or no upstream but those that an operator has paused.
    Local,
    /// The connector was closed.
    Closed,
}

impl ErrorKind {
    /// Every kind, in the order of their counters.
    pub const ALL: [ErrorKind; 13] = [
        ErrorKind::Rejected,
        ErrorKind::Forbidden,
        ErrorKind::Refused,
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
        ErrorKind::Resolve,
        ErrorKind::TimedOut,
        ErrorKind::AddressType,
        ErrorKind::Upstream,
        ErrorKind::Busy,
        ErrorKind::Unsupported,
        ErrorKind::Local,
        ErrorKind::Closed,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Rejected => "rejected",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::Refused => "refused",
            ErrorKind::NetworkUnreachable => "network_unreachable",
            ErrorKind::HostUnreachable => "host_unreachable",
            ErrorKind::Resolve => "resolve",
            ErrorKind::TimedOut => "timed_out",
            ErrorKind::AddressType => "address_type",
            ErrorKind::Upstream => "upstream",
            ErrorKind::Busy => "busy",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Local => "local",
            ErrorKind::Closed => "closed",
        }
    }
}

impl Error {
    /// An error of our own making.
    pub(crate) fn new(kind: ErrorKind, side: Side, text: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, side, text: text.into(), source: None }
    }

    /// What a connection ended with. `kind` says what it means for the tunnel.
    pub(crate) fn from_transport(kind: ErrorKind, text: String, error: transport::Error) -> Error {
        Error { kind, side: error.side(), text: Cow::Owned(text), source: Some(error) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind, ErrorKind::TimedOut) || self.source.as_ref().is_some_and(transport::Error::is_timeout)
    }

    /// Whether the same may work a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::TimedOut | ErrorKind::Upstream | ErrorKind::Busy | ErrorKind::Local)
    }

    /// When it is worth to try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Local).then_some(Duration::from_secs(1))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Error {
    /// The words of the connection's error are part of the text.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().and_then(|error| error.source())
    }
}
