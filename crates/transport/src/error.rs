//! One error for everything that a socket can do wrong: what was tried, in which phase, and whose fault it is.
//!
//! The side matters more than the kind: a pool that runs out of ports or files here must never mark an upstream down.
//! What is deliberately not here: DNS and pool errors, which wrap this one.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

#[cfg(unix)]
use rustix::io::Errno;

/// A failed connection or exchange. Cheap to clone: one failed dial may answer many waiters.
///
/// The text reads `connect to 9.9.9.9:853: tls handshake timed out after 3s`: lower case, what was tried before what
/// happened, no secrets and no query names.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    phase: Phase,
    side: Side,
    not_processed: bool,
    /// What was tried: `connect to 9.9.9.9:853`.
    tried: String,
    /// What happened: `tls handshake timed out after 3s`.
    happened: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name has no address, or the resolver failed.
    Resolve,
    /// Nobody listens there (RST, or an ICMP port unreachable).
    Refused,
    /// The host cannot be reached although the network is there.
    Unreachable,
    /// The proxy that we connect through has no way to the destination's network. Of this machine's own network it is
    /// [`NetworkDown`](Self::NetworkDown).
    NetworkUnreachable,
    /// The deadline passed in this phase.
    TimedOut(Phase),
    /// The peer reset the connection.
    Reset,
    /// The peer closed the connection before the exchange was complete.
    Eof,
    /// No local port is left for that destination (`EADDRNOTAVAIL`, or `EADDRINUSE` for a port that the system chose).
    PortsExhausted,
    /// No file descriptor is left, in the process (`EMFILE`) or in the system (`ENFILE`).
    FilesExhausted,
    /// The kernel has no buffers or memory left (`ENOBUFS`, `ENOMEM`).
    Buffers,
    /// This machine has no network or no route of that family (`ENETDOWN`, `ENETUNREACH`, `EAFNOSUPPORT`).
    NetworkDown,
    /// This machine forbids it (`EACCES`, `EPERM`): a firewall rule or a privileged port.
    Denied,
    /// The address to listen on is taken.
    AddressInUse,
    /// The certificate was not accepted.
    Certificate,
    /// The TLS handshake or a TLS record failed for another reason.
    Tls,
    /// No common application protocol.
    Alpn,
    /// QUIC: a stream that the peer gave up, or a violated rule.
    Quic,
    /// HTTP/3: a reset stream, a GOAWAY or a violated rule.
    Http3,
    /// HTTP/2: a reset stream, a GOAWAY or a violated rule.
    Http2,
    /// HTTP/1.1: a malformed answer.
    Http1,
    /// What came back breaks a rule of ours, such as a body above the limit.
    Protocol,
    /// The proxy that we connect through failed: it cannot be reached, closed, or broke its protocol.
    /// The server behind it was never asked, so this says nothing of it.
    Proxy,
    /// The proxy wants a user and password, or does not accept ours.
    ProxyAuth,
    /// The key of an SSH server is not the one that it is known by.
    HostKey,
    /// The proxy's rules forbid this destination.
    ProxyDenied,
    /// The proxy answers that it failed, and not why.
    ProxyGeneral,
    /// The proxy answers that it does not do what it was asked for.
    ProxyUnsupported,
    /// The proxy does not take destinations of this type: names, or addresses of this family.
    AddressType,
    /// An HTTP proxy answers that there is no way, and not whether the destination or itself is at fault; mostly it is the destination.
    BadGateway,
    /// We gave up ourselves: the connection was closed or replaced on this side.
    Cancelled,
    /// The system reported something else, or what was asked for cannot be done (a host name that is none); the text and the
    /// source have the words.
    Other,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whoever asked us.
    Client,
    /// The server that we connect to. The only side that counts against its health.
    Upstream,
    /// This machine or this process.
    Local,
}

/// The part of a connection's life in which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up the host name.
    Resolve,
    /// Opening a listener.
    Listen,
    /// Opening the socket and the TCP handshake.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The QUIC handshake, which is that of TLS as well.
    Quic,
    /// Connecting to a proxy and greeting it. What the proxy then does for us is [`Connect`](Self::Connect).
    Proxy,
    /// Setting up HTTP, or an HTTP exchange as a whole.
    Http,
    /// Sending.
    Write,
    /// Waiting for bytes.
    Read,
}

impl Error {
    /// Makes an error, for crates that extend this one (a resolver of their own). `tried` and `happened` are the two halves
    /// of the text: `resolve dns.example`, `the name has no address`.
    pub fn new(kind: ErrorKind, phase: Phase, tried: impl Into<String>, happened: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            kind,
            phase,
            side: kind.side(),
            not_processed: false,
            tried: tried.into(),
            happened: happened.into(),
            source: None,
        }))
    }

    /// Makes the error of a deadline that passed `after` this time in `phase`.
    pub fn timed_out(phase: Phase, tried: impl Into<String>, after: Duration) -> Error {
        let what = match phase {
            Phase::Resolve => "name lookup",
            Phase::Listen => "listen",
            Phase::Connect => "tcp handshake",
            Phase::Tls => "tls handshake",
            Phase::Quic => "quic handshake",
            Phase::Proxy => "greeting",
            Phase::Http => "http exchange",
            Phase::Write => "write",
            Phase::Read => "read",
        };
        let happened = format!("{what} timed out after {}", Rounded(after));
        Error::new(ErrorKind::TimedOut(phase), phase, tried, happened)
    }

    /// Wraps an I/O error, for crates that drive the sockets opened here. `tried` reads like `query to 9.9.9.9:53`.
    ///
    /// # Examples
    /// ```
    /// use keepwarm_transport::error::{Error, ErrorKind, Phase, Side};
    ///
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let error = Error::from_io(refused, Phase::Read, "query to 192.0.2.1:53");
    /// assert_eq!(error.kind(), ErrorKind::Refused);
    /// assert_eq!(error.side(), Side::Upstream);
    /// assert_eq!(error.to_string(), "query to 192.0.2.1:53: connection refused");
    /// ```
    pub fn from_io(source: io::Error, phase: Phase, tried: impl Into<String>) -> Error {
        let kind = ErrorKind::from_io(&source, phase);
        let happened = kind.words().map_or_else(|| source.to_string().to_lowercase(), str::to_owned);
        Error::new(kind, phase, tried, happened).with_source(source)
    }

    /// Adds what is behind it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.map(|inner| inner.source = Some(source.into()))
    }

    /// Marks an error after which the peer has certainly not acted on the request.
    #[must_use]
    pub fn not_processed(self) -> Error {
        self.map(|inner| inner.not_processed = true)
    }

    fn map(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose fault it is. Only [`Side::Upstream`] may count against an upstream's health.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// In which phase.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Whether a deadline passed, ours or the kernel's.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::TimedOut(_))
    }

    /// Whether the failure is that of the proxy that we connect through: nothing is known of the server behind it. Whether the proxy's
    /// own health should count it is told by [`Blame`](crate::proxy::Blame).
    pub fn is_proxy(&self) -> bool {
        self.0.kind.is_proxy()
    }

    /// Whether the peer has certainly not acted on the request, so that it may be repeated whatever it was: it never
    /// left, its stream was refused (RFC 9113 section 8.7), or a GOAWAY named an earlier stream as the last one.
    ///
    /// A connection that ended while the request was under way is not among these: the answer to whether that may be
    /// repeated (it may, for a query on a reused connection) is the caller's, from [`ErrorKind::Eof`] and
    /// [`ErrorKind::Reset`].
    pub fn is_retryable(&self) -> bool {
        self.0.not_processed
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.tried, self.0.happened)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("phase", &self.0.phase)
            .field("side", &self.0.side)
            .field("text", &format_args!("{self}"))
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl ErrorKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Resolve => "resolve",
            ErrorKind::Refused => "refused",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::NetworkUnreachable => "network_unreachable",
            ErrorKind::TimedOut(phase) => match phase {
                Phase::Resolve => "timeout_resolve",
                Phase::Listen => "timeout_listen",
                Phase::Connect => "timeout_connect",
                Phase::Tls => "timeout_tls",
                Phase::Quic => "timeout_quic",
                Phase::Proxy => "timeout_proxy",
                Phase::Http => "timeout_http",
                Phase::Write => "timeout_write",
                Phase::Read => "timeout_read",
            },
            ErrorKind::Reset => "reset",
            ErrorKind::Eof => "eof",
            ErrorKind::PortsExhausted => "ports_exhausted",
            ErrorKind::FilesExhausted => "files_exhausted",
            ErrorKind::Buffers => "buffers",
            ErrorKind::NetworkDown => "network_down",
            ErrorKind::Denied => "denied",
            ErrorKind::AddressInUse => "address_in_use",
            ErrorKind::Certificate => "certificate",
            ErrorKind::Tls => "tls",
            ErrorKind::Alpn => "alpn",
            ErrorKind::Quic => "quic",
            ErrorKind::Http3 => "http3",
            ErrorKind::Http2 => "http2",
            ErrorKind::Http1 => "http1",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Proxy => "proxy",
            ErrorKind::ProxyAuth => "proxy_auth",
            ErrorKind::HostKey => "host_key",
            ErrorKind::ProxyDenied => "proxy_denied",
            ErrorKind::ProxyGeneral => "proxy_general",
            ErrorKind::ProxyUnsupported => "proxy_unsupported",
            ErrorKind::AddressType => "address_type",
            ErrorKind::BadGateway => "bad_gateway",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Other => "other",
        }
    }

    /// What a system call's error means in this phase.
    pub fn from_io(error: &io::Error, phase: Phase) -> ErrorKind {
        #[cfg(unix)]
        if let Some(kind) = Errno::from_io_error(error).and_then(|errno| ErrorKind::from_errno(errno, phase)) {
            return kind;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            io::ErrorKind::HostUnreachable => ErrorKind::Unreachable,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => ErrorKind::NetworkDown,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut(phase),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                ErrorKind::Reset
            }
            io::ErrorKind::UnexpectedEof => ErrorKind::Eof,
            // No system call says this; rustls does, of a broken record or an alert after the handshake.
            io::ErrorKind::InvalidData => ErrorKind::Tls,
            io::ErrorKind::AddrNotAvailable => ErrorKind::PortsExhausted,
            io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::OutOfMemory => ErrorKind::Buffers,
            _ => ErrorKind::Other,
        }
    }

    /// The codes that std has no kind for, or that mean something else while connecting.
    #[cfg(unix)]
    fn from_errno(errno: Errno, phase: Phase) -> Option<ErrorKind> {
        Some(match errno {
            Errno::MFILE | Errno::NFILE => ErrorKind::FilesExhausted,
            Errno::NOBUFS | Errno::NOMEM => ErrorKind::Buffers,
            Errno::AFNOSUPPORT => ErrorKind::NetworkDown,
            Errno::HOSTDOWN => ErrorKind::Unreachable,
            Errno::NETRESET => ErrorKind::Reset,
            // Binding to port 0 fails with EADDRINUSE, and Linux' implicit bind of connect(2) on a datagram socket with
            // EAGAIN, when the whole ephemeral range is taken.
            Errno::ADDRINUSE | Errno::AGAIN if phase == Phase::Connect => ErrorKind::PortsExhausted,
            _ => return None,
        })
    }

    /// Connect errors to several addresses become one; the one that explains most comes first: a shortage here means
    /// that nothing is known of the upstream, while a missing route of one family says less than an answer over the other.
    pub(crate) fn weight(self) -> u8 {
        match self {
            ErrorKind::FilesExhausted | ErrorKind::PortsExhausted | ErrorKind::Buffers => 3,
            kind if kind.side() == Side::Upstream => 2,
            ErrorKind::Denied => 1,
            _ => 0,
        }
    }

    pub(crate) fn is_proxy(self) -> bool {
        matches!(
            self,
            ErrorKind::Proxy
                | ErrorKind::ProxyAuth
                | ErrorKind::HostKey
                | ErrorKind::ProxyGeneral
                | ErrorKind::ProxyUnsupported
                | ErrorKind::TimedOut(Phase::Proxy)
        )
    }

    pub(crate) fn side(self) -> Side {
        match self {
            // The server itself was never asked: whoever resolves names, or the proxy, is at fault, and that is configured here.
            ErrorKind::Resolve
            | ErrorKind::Proxy
            | ErrorKind::ProxyAuth
            | ErrorKind::HostKey
            | ErrorKind::ProxyGeneral
            | ErrorKind::ProxyUnsupported
            | ErrorKind::TimedOut(Phase::Resolve | Phase::Listen | Phase::Proxy)
            | ErrorKind::PortsExhausted
            | ErrorKind::FilesExhausted
            | ErrorKind::Buffers
            | ErrorKind::NetworkDown
            | ErrorKind::Denied
            | ErrorKind::AddressInUse
            | ErrorKind::Cancelled
            | ErrorKind::Other => Side::Local,
            _ => Side::Upstream,
        }
    }

    /// Our own words where the system's are vague.
    fn words(self) -> Option<&'static str> {
        Some(match self {
            ErrorKind::Refused => "connection refused",
            ErrorKind::Unreachable => "host unreachable",
            ErrorKind::TimedOut(_) => "timed out in the system",
            ErrorKind::Reset => "connection reset by peer",
            ErrorKind::Eof => "connection closed by peer",
            ErrorKind::PortsExhausted => "no local port is free for this destination (local shortage)",
            ErrorKind::FilesExhausted => "too many open files (local shortage)",
            ErrorKind::Buffers => "no buffer space left (local shortage)",
            ErrorKind::NetworkDown => "this machine has no route or network for that address",
            ErrorKind::Denied => "not permitted on this machine (firewall or privileged port)",
            ErrorKind::AddressInUse => "address already in use",
            _ => return None,
        })
    }
}

impl Side {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Upstream => "upstream",
            Side::Local => "local",
        }
    }
}

impl Phase {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Resolve => "resolve",
            Phase::Listen => "listen",
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Quic => "quic",
            Phase::Proxy => "proxy",
            Phase::Http => "http",
            Phase::Write => "write",
            Phase::Read => "read",
        }
    }
}

/// A duration in few digits: `3s`, `250ms`.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis < 1000 {
            return write!(f, "{millis}ms");
        }
        let tenths = (millis + 50) / 100;
        if tenths.is_multiple_of(10) {
            write!(f, "{}s", tenths / 10)
        } else {
            write!(f, "{}.{}s", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(all(test, unix))]
mod tests;
