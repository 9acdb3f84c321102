//! Why an acquire failed, in a form that can be asked: kind, side, phase, retry.
//!
//! Not here: the connector's own errors, which pass through as `Arc<E>` because one failed dial may fail several waiters.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This machine's: out of descriptors, ports, memory, pool exhausted, network down. Never touches an upstream's health.
    Local,
    /// The upstream's.
    Upstream,
    /// The client's.
    Client,
}

impl Side {
    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Upstream => "upstream",
            Self::Client => "client",
        }
    }
}

/// What a timed-out acquire was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A connection to come back: the limits allowed no dial.
    Queue,
    /// A dial in flight.
    Dial,
    /// The pause after a failed dial.
    Backoff,
    /// The check of a connection that had idled for long.
    Validate,
}

impl Phase {
    /// All phases, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Dial, Self::Backoff, Self::Validate];

    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Dial => "dial",
            Self::Backoff => "backoff",
            Self::Validate => "validate",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Why a dial failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError<E> {
    /// The connector said so.
    Connector(Arc<E>),
    /// It took longer than `connect_timeout`.
    TimedOut {
        /// The `connect_timeout` that passed.
        after: Duration,
    },
    /// The dial's task was dropped or panicked before it ended.
    Aborted,
}

impl<E> Clone for DialError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Connector(error) => Self::Connector(Arc::clone(error)),
            Self::TimedOut { after } => Self::TimedOut { after: *after },
            Self::Aborted => Self::Aborted,
        }
    }
}

impl<E> DialError<E> {
    /// Returns the connector's own error, if it is one.
    #[must_use]
    pub fn connector(&self) -> Option<&Arc<E>> {
        match self {
            Self::Connector(error) => Some(error),
            Self::TimedOut { .. } | Self::Aborted => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for DialError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connector(error) => error.fmt(f),
            Self::TimedOut { after } => write!(f, "dial timed out after {after:?}"),
            Self::Aborted => f.write_str("dial was aborted"),
        }
    }
}

/// Why an acquire failed. `E` is the connector's error.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcquireError<E> {
    /// The time-out or the deadline passed first.
    Timeout {
        /// How long the acquire had waited.
        waited: Duration,
        /// What it was waiting for at the end.
        phase: Phase,
        /// The connector's last error for this host since its last good dial.
        last_dial_error: Option<Arc<E>>,
    },
    /// `max_waiters` were waiting already.
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// The dial that was to serve this acquire failed.
    Dial(Arc<E>),
    /// The dial that was to serve this acquire took longer than `connect_timeout`.
    DialTimeout {
        /// The `connect_timeout` that passed.
        after: Duration,
    },
    /// The dial's task was dropped or panicked.
    DialAborted,
    /// The host's dials failed several times in a row and it is not yet time for the next.
    Unhealthy {
        /// When the next dial is allowed.
        retry_in: Duration,
        /// The last error of the connector, if it was one.
        last: Option<Arc<E>>,
    },
    /// The host or the pool is paused.
    Paused,
    /// The pool was drained or dropped.
    Closed,
}

impl<E> Clone for AcquireError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Timeout { waited, phase, last_dial_error } => {
                Self::Timeout { waited: *waited, phase: *phase, last_dial_error: last_dial_error.clone() }
            }
            Self::QueueFull { waiting } => Self::QueueFull { waiting: *waiting },
            Self::Dial(error) => Self::Dial(Arc::clone(error)),
            Self::DialTimeout { after } => Self::DialTimeout { after: *after },
            Self::DialAborted => Self::DialAborted,
            Self::Unhealthy { retry_in, last } => Self::Unhealthy { retry_in: *retry_in, last: last.clone() },
            Self::Paused => Self::Paused,
            Self::Closed => Self::Closed,
        }
    }
}

/// The kind of an [`AcquireError`], without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcquireErrorKind {
    /// See [`AcquireError::Timeout`].
    Timeout,
    /// See [`AcquireError::QueueFull`].
    QueueFull,
    /// See [`AcquireError::Dial`].
    Dial,
    /// See [`AcquireError::DialTimeout`].
    DialTimeout,
    /// See [`AcquireError::DialAborted`].
    DialAborted,
    /// See [`AcquireError::Unhealthy`].
    Unhealthy,
    /// See [`AcquireError::Paused`].
    Paused,
    /// See [`AcquireError::Closed`].
    Closed,
}

impl AcquireErrorKind {
    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::QueueFull => "queue_full",
            Self::Dial => "dial",
            Self::DialTimeout => "dial_timeout",
            Self::DialAborted => "dial_aborted",
            Self::Unhealthy => "unhealthy",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }
}

impl<E> AcquireError<E> {
    /// Returns the kind; its `as_str` is the metric label.
    #[must_use]
    pub fn kind(&self) -> AcquireErrorKind {
        match self {
            Self::Timeout { .. } => AcquireErrorKind::Timeout,
            Self::QueueFull { .. } => AcquireErrorKind::QueueFull,
            Self::Dial(_) => AcquireErrorKind::Dial,
            Self::DialTimeout { .. } => AcquireErrorKind::DialTimeout,
            Self::DialAborted => AcquireErrorKind::DialAborted,
            Self::Unhealthy { .. } => AcquireErrorKind::Unhealthy,
            Self::Paused => AcquireErrorKind::Paused,
            Self::Closed => AcquireErrorKind::Closed,
        }
    }

    /// Returns whose fault it is, as far as the pool can tell: a dial error counts as the upstream's here; ask
    /// [`Connector::side`](crate::Connector::side) about the inner error for the exact answer.
    #[must_use]
    pub fn side(&self) -> Side {
        match self {
            Self::Dial(_) | Self::DialTimeout { .. } | Self::Unhealthy { .. } => Side::Upstream,
            Self::Timeout { phase, .. } => match phase {
                Phase::Queue => Side::Local,
                Phase::Dial | Phase::Backoff | Phase::Validate => Side::Upstream,
            },
            Self::QueueFull { .. } | Self::DialAborted | Self::Paused | Self::Closed => Side::Local,
        }
    }

    /// Whether time ran out, the acquire's or the dial's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::DialTimeout { .. })
    }

    /// Whether the same acquire may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// Returns the connector's error behind this one, if there is one.
    #[must_use]
    pub fn dial_error(&self) -> Option<&Arc<E>> {
        match self {
            Self::Dial(error) => Some(error),
            Self::Timeout { last_dial_error: last, .. } | Self::Unhealthy { last, .. } => last.as_ref(),
            _ => None,
        }
    }
}

impl<E> From<DialError<E>> for AcquireError<E> {
    fn from(error: DialError<E>) -> Self {
        match error {
            DialError::Connector(error) => Self::Dial(error),
            DialError::TimedOut { after } => Self::DialTimeout { after },
            DialError::Aborted => Self::DialAborted,
        }
    }
}

impl<E: fmt::Display> fmt::Display for AcquireError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { waited, phase, last_dial_error } => {
                let what = match phase {
                    Phase::Queue => "a connection to be returned",
                    Phase::Dial => "a dial",
                    Phase::Backoff => "the pause after a failed dial",
                    Phase::Validate => "the check of an idle connection",
                };
                write!(f, "acquire timed out after {waited:?} waiting for {what}")?;
                last_dial_error.as_ref().map_or(Ok(()), |error| write!(f, " (last dial: {error})"))
            }
            Self::QueueFull { waiting } => write!(f, "acquire refused: {waiting} waiters already"),
            Self::Dial(error) => write!(f, "dial failed: {error}"),
            Self::DialTimeout { after } => write!(f, "dial timed out after {after:?}"),
            Self::DialAborted => f.write_str("dial was aborted"),
            Self::Unhealthy { retry_in, last } => {
                write!(f, "host is unhealthy, next dial in {retry_in:?}")?;
                last.as_ref().map_or(Ok(()), |error| write!(f, " (last dial: {error})"))
            }
            Self::Paused => f.write_str("pool is paused"),
            Self::Closed => f.write_str("pool is closed"),
        }
    }
}

impl<E: Error + 'static> Error for AcquireError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.dial_error().map(|error| &**error as &(dyn Error + 'static))
    }
}
