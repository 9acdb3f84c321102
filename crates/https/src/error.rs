//! Why a request failed, in a form that can be asked: kind, side, whether it may be sent again.
//!
//! What is deliberately not here: answers. A 500 is an answer.

use std::{error::Error as StdError, fmt, net::IpAddr, sync::Arc, time::Duration};

use keepwarm_pool::AcquireError;
pub use keepwarm_transport::error::Side;
use keepwarm_transport::error::{Error as TransportError, ErrorKind as TransportKind};

/// A request that got no answer, or an answer's body that ended early.
///
/// The text reads `get https://tiles.example.com: connect to 192.0.2.1:443: tls handshake timed out after 3s (2 tries)`: method, origin,
/// what happened. The path is left out, because paths carry secrets.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    side: Side,
    what: String,
    happened: String,
    address: Option<IpAddr>,
    tries: u32,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request names no origin that is configured, or is none that can be sent (a scheme other than https, a header that HTTP does
    /// not know).
    Request,
    /// The origin's name was not found, or none of its addresses may be used.
    NoAddress,
    /// The pool was full until the deadline, or too many were waiting.
    Exhausted,
    /// The deadline passed.
    TimedOut,
    /// Connecting, TLS or HTTP failed; the kind is the transport's.
    Transport(TransportKind),
    /// The request's own body failed.
    RequestBody,
    /// The client was closed.
    Closed,
}

impl ErrorKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Request => "request",
            ErrorKind::NoAddress => "no_address",
            ErrorKind::Exhausted => "exhausted",
            ErrorKind::TimedOut => "timeout",
            ErrorKind::Transport(kind) => kind.as_str(),
            ErrorKind::RequestBody => "request_body",
            ErrorKind::Closed => "closed",
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, side: Side, happened: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            side,
            what: String::new(),
            happened: happened.into(),
            address: None,
            tries: 0,
            source: None,
        }))
    }

    pub(crate) fn request(happened: impl Into<String>) -> Error {
        Error::new(ErrorKind::Request, Side::Client, happened)
    }

    pub(crate) fn no_address(happened: impl Into<String>) -> Error {
        Error::new(ErrorKind::NoAddress, Side::Upstream, happened)
    }

    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, Side::Local, "the client was closed")
    }

    pub(crate) fn timed_out(after: Duration, happened: impl fmt::Display) -> Error {
        Error::new(ErrorKind::TimedOut, Side::Upstream, format!("{happened} within {after:.1?}"))
    }

    pub(crate) fn request_body(error: Box<dyn StdError + Send + Sync>) -> Error {
        let mut made =
            Error::new(ErrorKind::RequestBody, Side::Client, format!("the body of the request failed: {error}"));
        made.0.source = Some(error);
        made
    }

    pub(crate) fn transport(error: TransportError) -> Error {
        let kind = match error.kind() {
            TransportKind::TimedOut(_) => ErrorKind::TimedOut,
            kind => ErrorKind::Transport(kind),
        };
        let mut made = Error::new(kind, error.side(), error.to_string());
        made.0.source = Some(Box::new(error));
        made
    }

    pub(crate) fn acquire(error: &AcquireError<TransportError>) -> Error {
        if let AcquireError::Dial(dial) = error {
            return Error::transport(TransportError::clone(dial));
        }
        let kind = match error {
            AcquireError::Closed => ErrorKind::Closed,
            AcquireError::Timeout { .. } | AcquireError::DialTimeout { .. } => ErrorKind::TimedOut,
            AcquireError::Unhealthy { last: Some(last), .. } => ErrorKind::Transport(last.kind()),
            _ => ErrorKind::Exhausted,
        };
        let side = match error.side() {
            keepwarm_pool::Side::Upstream => Side::Upstream,
            keepwarm_pool::Side::Local => Side::Local,
            keepwarm_pool::Side::Client => Side::Client,
        };
        let mut made = Error::new(kind, side, error.to_string());
        made.0.source = error.dial_error().map(|dial| TransportError::clone(dial).into());
        made
    }

    /// Says what was asked of whom, such as `get https://tiles.example.com`.
    pub(crate) fn of(mut self, what: impl FnOnce() -> String) -> Error {
        if self.0.what.is_empty() {
            self.0.what = what();
        }
        self
    }

    pub(crate) fn at(mut self, address: IpAddr, tries: u32) -> Error {
        self.0.address.get_or_insert(address);
        self.0.tries = tries;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose fault it is. Only [`Side::Upstream`] counts against an address.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::TimedOut
    }

    /// The address that the last try was made to; `None` when there was none.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Tries that were made, the last one included.
    pub fn tries(&self) -> u32 {
        self.0.tries
    }

    /// The transport's error behind this one, if there is one.
    pub fn transport_error(&self) -> Option<&TransportError> {
        self.0.source.as_ref()?.downcast_ref()
    }

    /// What happened, without what was asked.
    pub fn happened(&self) -> &str {
        &self.0.happened
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { what, happened, tries, .. } = &*self.0;
        if !what.is_empty() {
            write!(f, "{what}: ")?;
        }
        f.write_str(happened)?;
        if *tries > 1 {
            write!(f, " ({tries} tries)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("side", &self.0.side)
            .field("address", &self.0.address)
            .field("text", &format_args!("{self}"))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The transport's errors are shared by all that waited for one dial.
impl From<Arc<TransportError>> for Error {
    fn from(error: Arc<TransportError>) -> Error {
        Error::transport(TransportError::clone(&error))
    }
}
