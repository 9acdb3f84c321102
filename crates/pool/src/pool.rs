//! The tokio shell.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::connector::Connector;
use crate::error::AcquireError;
use crate::event::Event;
use crate::lease::Lease;
use crate::limits::{Limits, LimitsError, Options};
use crate::stats::{HostStats, Stats};

/// Starts the pool's background tasks (dials, validations, the reaper).
pub trait Spawn: Send + Sync + 'static {
    /// Runs the task to its end, on any thread.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send + 'static>>);
}

impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send + 'static>>) {
        drop(Self::spawn(self, task));
    }
}

/// What one acquire asks for beside its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcquireOptions {
    /// The request's absolute deadline.
    pub deadline: Option<Instant>,
    /// Longest wait; default [`Options::acquire_timeout`]. The earlier of this and `deadline` counts.
    pub timeout: Option<Duration>,
    /// Only a connection whose dial began at or after this instant will do.
    pub opened_after: Option<Instant>,
}

/// Receives the results of [`Host::acquire_into`].
pub trait Grants<C: Connector>: Send + Sync {
    /// Called exactly once per queued acquire that was not cancelled in time; outside every lock, from any thread.
    fn granted(&self, token: u64, result: Result<Lease<C>, AcquireError<C::Error>>);
}

/// A place in a host's queue, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) index: u32,
    pub(crate) seq: u64,
}

/// What [`Host::acquire_into`] did.
#[derive(Debug)]
pub enum Acquired<C: Connector> {
    /// Served at once.
    Now(Lease<C>),
    /// Queued; [`Grants::granted`] will be called.
    Queued(Ticket),
}

/// Sets up a [`Pool`].
pub struct Builder<C: Connector> {
    connector: C,
}

impl<C: Connector> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl<C: Connector> Builder<C> {
    /// Sets how much the pool may hold.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        let _ = limits;
        self
    }

    /// Sets how the pool behaves over time.
    #[must_use]
    pub fn options(self, options: Options) -> Self {
        let _ = options;
        self
    }

    /// Sets what runs the background tasks; default the current tokio runtime.
    #[must_use]
    pub fn spawner(self, spawner: impl Spawn) -> Self {
        let _ = spawner;
        self
    }

    /// Builds the pool.
    ///
    /// # Panics
    /// Outside a tokio runtime when no spawner was given, and when the limits contradict each other.
    #[must_use]
    pub fn build(self) -> Pool<C> {
        let _ = self.connector;
        unimplemented!()
    }

    /// Builds the pool.
    ///
    /// # Errors
    /// When the limits contradict each other.
    ///
    /// # Panics
    /// Outside a tokio runtime when no spawner was given.
    pub fn try_build(self) -> Result<Pool<C>, LimitsError> {
        unimplemented!()
    }
}

/// All connections of one kind, by key.
pub struct Pool<C: Connector> {
    _c: PhantomData<Arc<C>>,
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl<C: Connector> Pool<C> {
    /// Starts to set up a pool.
    pub fn builder(connector: C) -> Builder<C> {
        Builder { connector }
    }

    /// Leases a connection to `key`.
    #[track_caller]
    pub fn acquire(&self, key: &C::Key) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire_with(key, AcquireOptions::default())
    }

    /// Leases a connection to `key`.
    #[track_caller]
    pub fn acquire_with(
        &self,
        key: &C::Key,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        let _ = (key, options);
        async { unimplemented!() }
    }

    /// Leases a connection to `key` if one is usable at once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) with a zero time-out.
    #[track_caller]
    pub fn try_acquire(&self, key: &C::Key) -> Result<Lease<C>, AcquireError<C::Error>> {
        let _ = key;
        unimplemented!()
    }

    /// Returns a handle that skips the look-up of the key.
    #[must_use]
    pub fn host(&self, key: &C::Key) -> Host<C> {
        let _ = key;
        unimplemented!()
    }

    /// Dials until `n` connections are open.
    ///
    /// # Errors
    /// The first dial error.
    pub fn warm_up(
        &self,
        key: &C::Key,
        n: usize,
    ) -> impl Future<Output = Result<usize, AcquireError<C::Error>>> + Send + use<C> {
        let _ = (key, n);
        async { unimplemented!() }
    }

    /// Closes idle connections of `key`, drains busy ones.
    pub fn flush(&self, key: &C::Key) {
        let _ = key;
        unimplemented!()
    }

    /// Closes idle connections of all keys, drains busy ones.
    pub fn flush_all(&self) {
        unimplemented!()
    }

    /// Flushes everything and forgets failures.
    pub fn network_changed(&self) {
        unimplemented!()
    }

    /// Sets the limits.
    ///
    /// # Errors
    /// When they contradict each other; nothing is changed then.
    pub fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        let _ = limits;
        unimplemented!()
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        unimplemented!()
    }

    /// Refuses acquires of `key` until [`resume`](Self::resume).
    pub fn pause(&self, key: &C::Key) {
        let _ = key;
        unimplemented!()
    }

    /// Ends a pause of `key`.
    pub fn resume(&self, key: &C::Key) {
        let _ = key;
        unimplemented!()
    }

    /// Refuses all acquires until [`resume_all`](Self::resume_all).
    pub fn pause_all(&self) {
        unimplemented!()
    }

    /// Ends all pauses.
    pub fn resume_all(&self) {
        unimplemented!()
    }

    /// Ends the pool: refuses acquires, fails waiters, closes idle connections, waits for leases until `deadline`, then lets go of the
    /// rest. Returns how many connections were still leased then.
    pub fn drain(&self, deadline: Instant) -> impl Future<Output = usize> + Send + use<C> {
        let _ = deadline;
        async { unimplemented!() }
    }

    /// Returns the figures of the pool.
    #[must_use]
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Returns the figures of each host.
    #[must_use]
    pub fn host_stats(&self) -> Vec<(C::Key, HostStats)> {
        unimplemented!()
    }

    /// Subscribes to the pool's events.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event<C::Key>> {
        unimplemented!()
    }
}

/// The connections of a pool to one key, as a cached handle.
pub struct Host<C: Connector> {
    _c: PhantomData<Arc<C>>,
}

impl<C: Connector> Clone for Host<C> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<C: Connector> fmt::Debug for Host<C> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl<C: Connector> Host<C> {
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &C::Key {
        unimplemented!()
    }

    /// Leases a connection.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire_with(AcquireOptions::default())
    }

    /// Leases a connection.
    #[track_caller]
    pub fn acquire_with(
        &self,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        let _ = options;
        async { unimplemented!() }
    }

    /// Leases a connection if one is usable at once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) with a zero time-out.
    #[track_caller]
    pub fn try_acquire(&self) -> Result<Lease<C>, AcquireError<C::Error>> {
        unimplemented!()
    }

    /// Leases a connection at once or queues; then the result goes to `grants` with `token`.
    ///
    /// # Errors
    /// When it could not even be queued.
    #[track_caller]
    pub fn acquire_into(
        &self,
        options: &AcquireOptions,
        grants: &Arc<dyn Grants<C>>,
        token: u64,
    ) -> Result<Acquired<C>, AcquireError<C::Error>> {
        let _ = (options, grants, token);
        unimplemented!()
    }

    /// Gives up a queued acquire. `false` once dispatched: then [`Grants::granted`] was or will be called.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        let _ = (ticket.index, ticket.seq);
        unimplemented!()
    }

    /// Returns the host's figures.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        unimplemented!()
    }
}
