//! How much a pool may hold ([`Limits`]) and how it behaves over time ([`Options`]): every default is written here, once.
//!
//! Not here: where the limits are enforced (the core per host, `pool/global.rs` across hosts) and any file format.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How much a pool may hold. Changed at run time with [`Pool::set_limits`](crate::Pool::set_limits).
///
/// `max_total >= max_per_host >= max_idle_per_host >= min_idle` must hold, see [`Limits::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all hosts together, dialling ones included. Default 1024.
    pub max_total: usize,
    /// Connections of one host, dialling ones included. Default 10.
    pub max_per_host: usize,
    /// Idle connections of all hosts together; above it the one idle for longest is closed. Default 1024.
    pub max_idle: usize,
    /// Idle connections of one host; above it a returned connection is closed. Default 10.
    pub max_idle_per_host: usize,
    /// Connections of each known host that are kept open even when nothing asks. Default 0.
    pub min_idle: usize,
    /// Cap on the leases that one connection carries at once, whatever its peer allows. Default 65,535.
    pub max_in_flight: u32,
    /// Waiters of one host; the next one gets [`AcquireError::QueueFull`](crate::AcquireError::QueueFull). Default 16,384.
    pub max_waiters: usize,
    /// Dials of one host at the same time. Default 4.
    pub max_dials_per_host: usize,
    /// Dials of all hosts at the same time. Default 64.
    pub max_dials: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_total: 1024,
            max_per_host: 10,
            max_idle: 1024,
            max_idle_per_host: 10,
            min_idle: 0,
            max_in_flight: 65_535,
            max_waiters: 16_384,
            max_dials_per_host: 4,
            max_dials: 64,
        }
    }
}

impl Limits {
    /// Returns limits for one host of at most `n` connections, all of which may stay idle.
    #[must_use]
    pub fn per_host(n: usize) -> Self {
        Self { max_per_host: n, max_idle_per_host: n, max_total: n.max(1024), max_idle: n.max(1024), ..Self::default() }
    }

    /// Checks that the limits agree with each other.
    ///
    /// # Errors
    /// Names the first pair that does not.
    pub fn check(&self) -> Result<(), LimitsError> {
        let pairs = [
            ("max_total", self.max_total, "max_per_host", self.max_per_host),
            ("max_total", self.max_total, "max_idle", self.max_idle),
            ("max_per_host", self.max_per_host, "max_idle_per_host", self.max_idle_per_host),
            ("max_idle", self.max_idle, "max_idle_per_host", self.max_idle_per_host),
            ("max_idle_per_host", self.max_idle_per_host, "min_idle", self.min_idle),
        ];
        for (larger, upper, smaller, lower) in pairs {
            if upper < lower {
                return Err(LimitsError::Order { larger, upper, smaller, lower });
            }
        }
        let at_least_one = [
            ("max_per_host", self.max_per_host),
            ("max_in_flight", self.max_in_flight as usize),
            ("max_dials_per_host", self.max_dials_per_host),
            ("max_dials", self.max_dials),
        ];
        for (name, value) in at_least_one {
            if value == 0 {
                return Err(LimitsError::Zero { name });
            }
        }
        Ok(())
    }
}

/// Says which [`Limits`] contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitsError {
    /// One limit must be at least as large as another and is not.
    Order {
        /// Name of the limit that must be the larger one.
        larger: &'static str,
        /// Its value.
        upper: usize,
        /// Name of the limit that must not be above it.
        smaller: &'static str,
        /// Its value.
        lower: usize,
    },
    /// A limit that must be at least 1 is 0.
    Zero {
        /// Name of the limit.
        name: &'static str,
    },
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { larger, upper, smaller, lower } => {
                write!(f, "{larger} = {upper} is below {smaller} = {lower}")
            }
            Self::Zero { name } => write!(f, "{name} must be at least 1"),
        }
    }
}

impl std::error::Error for LimitsError {}

/// Which of several usable connections is leased first.
///
/// The cost of a choice is O(1) for `Mru` and `RoundRobin`; for the other two it is at most the number of the host's connections
/// with room, and usually one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The most recently used one: the rest may idle out. One that was used before goes before one never used.
    #[default]
    Mru,
    /// Each in turn, the least recently used first.
    RoundRobin,
    /// The one with the fewest leases; loads differ by at most one.
    LeastLoaded,
    /// The one opened first that has room: later ones drain away when load falls.
    OldestWithRoom,
    /// The one opened last: for connections that serve once, of which the young are the least likely to have been closed.
    Newest,
}

/// How long an unused connection is kept below `idle_timeout`, and what becomes of those that `min_idle` keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdlePolicy {
    /// What is assumed of a peer that has not closed anything yet. It grows by a quarter each time a connection reaches it unharmed, up
    /// to `idle_timeout`. Default none: `idle_timeout` from the start.
    pub start: Option<Duration>,
    /// Connections are retired this part of the learned age earlier than their peer closed one, 0.0 to 1.0; at least 100 ms. Default
    /// 0.125.
    pub margin: f64,
    /// Longest of these margins. Default 2 s.
    pub margin_max: Duration,
    /// Part by which each connection's time is shortened at random, 0.0 to 1.0, so that connections that were opened together are not
    /// replaced together. Default 0.
    pub jitter: f64,
    /// Whether `idle_timeout` retires connections that `min_idle` keeps as well, and others are dialled in their place. Without it only
    /// what was learned from the peer does. Default false.
    pub replace: bool,
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self { start: None, margin: 0.125, margin_max: Duration::from_secs(2), jitter: 0.0, replace: false }
    }
}

/// How a pool behaves over time. All durations are real time, not wall clock.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait of an acquire, unless [`AcquireOptions`](crate::AcquireOptions) says otherwise. Default 10 s.
    pub acquire_timeout: Duration,
    /// Longest dial (and longest validation). Default 5 s.
    pub connect_timeout: Duration,
    /// An unused connection is closed after this; the ceiling of what is learned from the peer. Default 90 s.
    pub idle_timeout: Duration,
    /// What is learned below `idle_timeout`, and how.
    pub idle: IdlePolicy,
    /// Age at which a connection is retired: closed when idle, drained when busy. Default none.
    pub max_lifetime: Option<Duration>,
    /// Part by which each connection's lifetime is shortened at random, 0.0 to 1.0, so that they do not end together. Default 0.15.
    pub lifetime_jitter: f64,
    /// Leases over a connection's life; then it drains. Default none.
    pub max_uses: Option<u32>,
    /// A connection that idled for longer is validated before it is leased. Default none (the connector's `validate` is not called).
    pub check_interval: Option<Duration>,
    /// Shortest pause between two cleanings of one host. An expired connection is never leased, however long this is. Default 500 ms.
    pub cleanup_interval: Duration,
    /// A dial that takes longer gets a second one beside it; the first to finish wins. `None` is off. Default 250 ms.
    pub backup_dial_after: Option<Duration>,
    /// First pause after a failed dial; the real one is random between zero and this (full jitter). Default 50 ms.
    pub backoff_min: Duration,
    /// Longest pause after failed dials. Default 10 s.
    pub backoff_max: Duration,
    /// Failed dials in a row (of the upstream's side) after which the host is unhealthy: acquires that only a dial could serve fail
    /// at once until the back-off ends, then a single dial probes. `None` is off. Default 3.
    pub unhealthy_after: Option<u32>,
    /// A lease held for longer is reported as a leak, with the place of its acquire. `None` is off and costs nothing. Default none.
    pub leak_after: Option<Duration>,
    /// A host without connections, waiters and handles is forgotten after this, with all that was learned. Default 5 min.
    pub forget_after: Duration,
    /// Which connection is leased first. Default [`Policy::Mru`].
    pub policy: Policy,
    /// The pool's name in log lines. Default `pool`.
    pub name: Arc<str>,
    /// Keep histograms (wait, dial, lease, idle age). Counters and gauges are always kept. Default true.
    pub statistics: bool,
    /// `false`: a connection serves one lease and is closed (for comparison, or for peers that cannot be reused). Default true.
    pub keep_alive: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            acquire_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(90),
            idle: IdlePolicy::default(),
            max_lifetime: None,
            lifetime_jitter: 0.15,
            max_uses: None,
            check_interval: None,
            cleanup_interval: Duration::from_millis(500),
            backup_dial_after: Some(Duration::from_millis(250)),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
            unhealthy_after: Some(3),
            leak_after: None,
            forget_after: Duration::from_secs(300),
            policy: Policy::default(),
            name: Arc::from("pool"),
            statistics: true,
            keep_alive: true,
        }
    }
}
