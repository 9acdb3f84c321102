//! What happens in a pool, as it happens: events for log lines and for tests, and the reasons why connections end.
//!
//! Not here: counters (`stats.rs`). Nothing is built or sent while nobody subscribes.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// Why a connection left the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// It was idle for too long.
    IdleTimeout,
    /// It reached its lifetime.
    Lifetime,
    /// It carried its last allowed lease.
    MaxUses,
    /// The peer closed it.
    PeerClosed,
    /// The peer reset it.
    PeerReset,
    /// The peer announced that it goes away.
    GoAway,
    /// Bytes arrived that nobody had asked for.
    StrayBytes,
    /// A protocol or I/O error made it unusable.
    Broken,
    /// Its user said that it must not be used again.
    Poisoned,
    /// Validation failed.
    Invalid,
    /// There were enough idle connections already.
    MaxIdle,
    /// It gave way: to another host at the global limit, or to a fresh dial at the host's limit.
    Evicted,
    /// A limit was lowered below what is open.
    Shrunk,
    /// It was flushed, or the network changed.
    Flushed,
    /// The pool was drained or dropped.
    Drained,
    /// Its user took it out of the pool.
    Detached,
    /// It was good for one use only, or for none any more.
    Discarded,
}

impl CloseReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 17] = [
        Self::IdleTimeout,
        Self::Lifetime,
        Self::MaxUses,
        Self::PeerClosed,
        Self::PeerReset,
        Self::GoAway,
        Self::StrayBytes,
        Self::Broken,
        Self::Poisoned,
        Self::Invalid,
        Self::MaxIdle,
        Self::Evicted,
        Self::Shrunk,
        Self::Flushed,
        Self::Drained,
        Self::Detached,
        Self::Discarded,
    ];

    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::MaxUses => "max_uses",
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::GoAway => "goaway",
            Self::StrayBytes => "stray_bytes",
            Self::Broken => "broken",
            Self::Poisoned => "poisoned",
            Self::Invalid => "invalid",
            Self::MaxIdle => "max_idle",
            Self::Evicted => "evicted",
            Self::Shrunk => "shrunk",
            Self::Flushed => "flushed",
            Self::Drained => "drained",
            Self::Detached => "detached",
            Self::Discarded => "discarded",
        }
    }

    /// Whether the peer ended it.
    #[must_use]
    pub fn is_peer(self) -> bool {
        matches!(self, Self::PeerClosed | Self::PeerReset | Self::GoAway)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A dial has begun.
    Created,
    /// A dial succeeded.
    Ready,
    /// A lease was given.
    Leased,
    /// A lease came back.
    Released,
    /// A connection ended.
    Closed(CloseReason),
    /// Somebody must wait because `max_per_host` is reached; said once until there is room again.
    Full,
    /// One cleaning retired this many connections.
    Cleaned {
        /// How many.
        closed: usize,
    },
    /// A dial failed; the label is the connector's [`kind`](crate::Connector::kind), `timeout` or `aborted`.
    DialFailed {
        /// The error's label.
        kind: &'static str,
    },
    /// A dial was given up because nobody needs it any more.
    DialCancelled,
    /// A lease is held for longer than `leak_after`.
    Leak {
        /// Where it was acquired.
        location: &'static Location<'static>,
        /// For how long it has been held.
        held: Duration,
    },
}

/// One event of one host. Events of a host arrive in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<K> {
    /// The host.
    pub key: K,
    /// The connection, 0 where the event is not about one.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
    /// The host's connections after the event, dialling ones included.
    pub open: usize,
    /// The host's limit, `max_per_host`.
    pub max: usize,
}

impl<K> fmt::Display for Event<K> {
    /// Writes the event without its key, such as `created 3/10` or `closed 2/10: idle_timeout`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = format_args!("{}/{}", self.open, self.max);
        match self.kind {
            EventKind::Created => write!(f, "created {counts}"),
            EventKind::Ready => write!(f, "ready {counts}"),
            EventKind::Leased => write!(f, "leased {counts}"),
            EventKind::Released => write!(f, "released {counts}"),
            EventKind::Closed(reason) => write!(f, "closed {counts}: {}", reason.as_str()),
            EventKind::Full => write!(f, "full {counts}"),
            EventKind::Cleaned { closed } => write!(f, "cleaned {counts}: {closed} closed"),
            EventKind::DialFailed { kind } => write!(f, "dial failed {counts}: {kind}"),
            EventKind::DialCancelled => write!(f, "dial cancelled {counts}"),
            EventKind::Leak { location, held } => {
                write!(f, "leak {counts}: lease held for {held:?}, acquired at {location}")
            }
        }
    }
}
