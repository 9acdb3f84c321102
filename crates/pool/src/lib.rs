//! A connection pool engine: exclusive and multiplexed connections, fair, bounded and explainable.
//!
//! A [`Connector`] says how to dial; a [`Pool`] keeps the connections of each key ([`Connector::Key`]) warm and within [`Limits`],
//! and hands out [`Lease`]s: the right to use a connection, or one stream of it. The logic is a pure state machine per host; the
//! shell around it owns the mutex, the clock and the tasks. Not here: sockets.

mod clock;
mod connector;
mod core;
mod error;
mod event;
pub mod health;
mod lease;
mod limits;
mod phases;
mod pool;
mod rt;
mod slot;
mod stats;
mod steer;
mod sync;

pub use connector::{Connected, Connector};
pub use error::{AcquireError, AcquireErrorKind, DialError, Phase, Side};
pub use event::{CloseReason, Event, EventKind};
pub use health::BreakerSettings;
pub use lease::Lease;
pub use limits::{IdlePolicy, Limits, LimitsError, Options, Policy};
pub use phases::{DialPhase, DialPhases, PhaseTimes};
pub use pool::{AcquireOptions, Acquired, Builder, Grants, Host, Pool, Spawn, Ticket};
pub use slot::Slot;
pub use stats::{Counters, Gauges, Histogram, HostStats, Stats, tally::Tally};
pub use steer::{ConnectionState, ConnectionView, HostView, NamedPool, Steer, WarmUp, shards::Shards};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
