//! The handles that users hold: the pool, and one host of it.
//!
//! Not here: how a lease is obtained (`acquire.rs`).

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use super::acquire::Acquire;
use super::{AcquireOptions, Acquired, Builder, Grants, Inner, Shared, Ticket};
use crate::connector::Connector;
use crate::core::HostState;
use crate::error::AcquireError;
use crate::event::Event;
use crate::lease::Lease;
use crate::limits::{Limits, LimitsError, Options};
use crate::stats::{HostStats, Stats};

/// Ends the pool when the last user's handle is dropped.
pub(super) struct Handle<C: Connector> {
    pub(super) inner: Arc<Inner<C>>,
}

impl<C: Connector> Drop for Handle<C> {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

/// All connections of one kind, by key. Clones are handles of the same pool; with the last of them and of the [`Host`]s the pool ends:
/// idle connections are closed, waiters fail, leases stay valid until they are dropped.
///
/// ```
/// use keepwarm_pool::{Connected, Connector, Limits, Pool, Slot};
///
/// struct Greeter;
///
/// impl Connector for Greeter {
///     type Key = String;
///     type Connection = String;
///     type Error = std::io::Error;
///
///     async fn connect(&self, key: &String, _: Slot<Self>) -> Result<Connected<String>, std::io::Error> {
///         Ok(Connected::new(format!("connection to {key}")))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Greeter).limits(Limits::per_host(4)).build();
/// let key = "upstream".to_owned();
/// let first = pool.acquire(&key).await?;
/// assert_eq!(*first, "connection to upstream");
/// drop(first);
/// assert!(pool.acquire(&key).await?.reused());
/// # Ok(())
/// # }
/// ```
pub struct Pool<C: Connector> {
    pub(super) handle: Arc<Handle<C>>,
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("Pool")
            .field("name", &inner.options().name)
            .field("open", &inner.global.total())
            .field("limits", &self.limits())
            .finish_non_exhaustive()
    }
}

impl<C: Connector> Pool<C> {
    /// Starts to set up a pool.
    pub fn builder(connector: C) -> Builder<C> {
        Builder::new(connector)
    }

    fn inner(&self) -> &Arc<Inner<C>> {
        &self.handle.inner
    }

    pub(crate) fn connector(&self) -> &C {
        &self.inner().connector
    }

    /// Every host that is known now.
    pub(crate) fn all(&self) -> Vec<Arc<Shared<C>>> {
        self.inner().hosts_now()
    }

    /// Leases a connection to `key`: an idle one, one with room, or the first that is returned or dialled.
    ///
    /// # Errors
    /// See [`AcquireError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the wait. A connection that it had been given already goes to the next waiter; a dial that was
    /// begun for it goes on and serves whoever comes next.
    #[track_caller]
    pub fn acquire(&self, key: &C::Key) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire_with(key, AcquireOptions::default())
    }

    /// Leases a connection to `key` with options of its own.
    ///
    /// # Errors
    /// See [`AcquireError`].
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_with(
        &self,
        key: &C::Key,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        let location = Location::caller();
        async move {
            if options.opened_after.is_none()
                && let Some(lease) = self.hit(key, location)
            {
                return Ok(lease);
            }
            self.inner().host(key).acquire(options, location).await
        }
    }

    /// The look-up and the hit under one read lock, without a count on the host.
    fn hit(&self, key: &C::Key, location: &'static Location<'static>) -> Option<Lease<C>> {
        self.inner().hosts.read().by_key.get(key)?.hit(location)
    }

    /// Leases a connection to `key` if one is usable at once; begins no dial.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) with a zero time-out: [`AcquireError::Timeout`] when nothing is usable.
    #[track_caller]
    pub fn try_acquire(&self, key: &C::Key) -> Acquire<C> {
        let location = Location::caller();
        match self.hit(key, location) {
            Some(lease) => Ok(lease),
            None => self.inner().host(key).try_acquire(None, location),
        }
    }

    /// Returns a handle of one host, which skips the look-up of the key. It keeps the pool alive.
    #[must_use]
    pub fn host(&self, key: &C::Key) -> Host<C> {
        Host { shared: self.inner().host(key), handle: Arc::clone(&self.handle) }
    }

    /// Dials until `n` connections to `key` are open, busy ones and those being dialled included; at most `max_idle_per_host`. Repeating it
    /// does nothing more. Returns how many are open. Waits at most `acquire_timeout`.
    ///
    /// # Errors
    /// The first failed dial ends it.
    ///
    /// # Cancel safety
    /// Dropping the future begins no further dials; those in flight go on.
    pub fn warm_up(
        &self,
        key: &C::Key,
        n: usize,
    ) -> impl Future<Output = Result<usize, AcquireError<C::Error>>> + Send + use<C> {
        let host = self.host(key);
        async move { host.warm_up(n).await }
    }

    /// Closes the idle connections of `key`, drains the busy ones, begins dials in flight anew.
    pub fn flush(&self, key: &C::Key) {
        if let Some(host) = self.inner().known(key) {
            host.step(HostState::flush);
        }
    }

    /// Flushes every key.
    pub fn flush_all(&self) {
        self.inner().hosts_now().iter().for_each(|host| host.step(HostState::flush));
    }

    /// Flushes every key and forgets failures and learned idle limits: to be called when addresses or routes changed.
    pub fn network_changed(&self) {
        self.inner().hosts_now().iter().for_each(|host| host.step(HostState::network_changed));
    }

    /// Sets the limits. Lowered ones close idle connections, cancel dials and drain busy connections; raised ones serve waiters.
    ///
    /// # Errors
    /// When they contradict each other; then nothing has changed.
    pub fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        self.inner().set_limits(limits)
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner().hosts.read().limits
    }

    /// Sets how the pool behaves over time, but for its name and policy, which it was built with. Connections that are idle are measured
    /// by it at once; those that are open keep the lifetime and the number of uses that they were opened with.
    pub fn set_options(&self, options: Options) {
        self.inner().set_options(options);
    }

    /// Returns how the pool behaves over time.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::clone(&self.inner().options())
    }

    /// Ends one host and forgets it: its waiters fail, its connections are closed, its handles are closed for ever, and what it did stays
    /// in [`stats`](Self::stats). Leases that are out stay valid. A later use of an equal key begins anew. Returns how many connections
    /// were leased.
    pub fn retire(&self, key: &C::Key) -> usize {
        self.inner().retire(key)
    }

    /// Refuses acquires of `key`, and fails its waiters, with [`AcquireError::Paused`] until [`resume`](Self::resume). Connections stay.
    pub fn pause(&self, key: &C::Key) {
        self.inner().host(key).step(|core, _, fx| core.pause(fx));
    }

    /// Ends a pause of `key`.
    pub fn resume(&self, key: &C::Key) {
        self.inner().host(key).step(HostState::resume);
    }

    /// Pauses every key, also those that come.
    pub fn pause_all(&self) {
        self.inner().hosts.write().paused = true;
        self.inner().hosts_now().iter().for_each(|host| host.step(|core, _, fx| core.pause(fx)));
    }

    /// Ends all pauses.
    pub fn resume_all(&self) {
        self.inner().hosts.write().paused = false;
        self.inner().hosts_now().iter().for_each(|host| host.step(HostState::resume));
    }

    /// Ends the pool: refuses acquires, fails waiters, closes what is idle, waits for leases until `deadline`, then lets go of the rest
    /// and waits for the pool's tasks to end. Returns how many connections were still leased at the deadline. Twice is safe.
    ///
    /// # Cancel safety
    /// The pool stays closed; call it again to wait again.
    pub fn drain(&self, deadline: Instant) -> impl Future<Output = usize> + Send + use<C> {
        let inner = Arc::clone(self.inner());
        inner.drain(deadline)
    }

    /// Returns the figures of the pool, forgotten hosts included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.inner();
        let (mut stats, hosts, known) = {
            // Under one lock, so that no host is missing while it goes from one to the other, and counters never fall.
            let hosts = inner.hosts.read();
            let all: Vec<_> = hosts.by_key.values().chain(&hosts.retiring).cloned().collect();
            (inner.forgotten.lock().clone(), all, hosts.by_key.len())
        };
        // What was forgotten is in no state any more.
        (stats.hosts, stats.paused, stats.unhealthy, stats.full) = (known, 0, 0, 0);
        hosts.iter().for_each(|host| stats.add(&host.stats()));
        stats.dial_phases = inner.phases.lock().clone();
        stats
    }

    /// Returns the figures of each host.
    #[must_use]
    pub fn host_stats(&self) -> Vec<(C::Key, HostStats)> {
        self.inner().hosts_now().iter().map(|host| (host.key.clone(), host.stats())).collect()
    }

    /// Subscribes to all events but `Leased` and `Released`, for a log: it costs acquires and returns nothing. A slow subscriber
    /// loses the oldest of 1,024.
    #[must_use]
    pub fn subscribe_lifecycle(&self) -> broadcast::Receiver<Event<C::Key>> {
        self.inner().subscribe_lifecycle()
    }

    /// Subscribes to the pool's events. Nothing is built or sent while nobody does; a slow subscriber loses the oldest of 1,024.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event<C::Key>> {
        self.inner().subscribe()
    }
}

impl<C: Connector> Shared<C> {
    fn stats(&self) -> HostStats {
        let now = self.pool.clock.now();
        self.peek(|locked| locked.core.stats(now))
    }
}

/// The connections of a pool to one key, as a cached handle. Clones are handles of the same host.
pub struct Host<C: Connector> {
    shared: Arc<Shared<C>>,
    handle: Arc<Handle<C>>,
}

impl<C: Connector> Clone for Host<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), handle: Arc::clone(&self.handle) }
    }
}

impl<C: Connector> fmt::Debug for Host<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("key", &self.shared.key).finish_non_exhaustive()
    }
}

impl<C: Connector> Host<C> {
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &C::Key {
        &self.shared.key
    }

    /// Returns the pool.
    #[must_use]
    pub fn pool(&self) -> Pool<C> {
        Pool { handle: Arc::clone(&self.handle) }
    }

    /// Leases a connection, as [`Pool::acquire`] does.
    ///
    /// # Errors
    /// See [`AcquireError`].
    ///
    /// # Cancel safety
    /// As [`Pool::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire_with(AcquireOptions::default())
    }

    /// Leases a connection with options of its own.
    ///
    /// # Errors
    /// See [`AcquireError`].
    ///
    /// # Cancel safety
    /// As [`Pool::acquire`].
    #[track_caller]
    pub fn acquire_with(
        &self,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.shared.acquire(options, Location::caller())
    }

    /// Leases a connection if one is usable at once; begins no dial.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) with a zero time-out.
    #[track_caller]
    pub fn try_acquire(&self) -> Acquire<C> {
        self.shared.try_acquire(None, Location::caller())
    }

    /// Leases a connection at once, or queues and later calls `grants.granted(token, ..)` exactly once. For event loops that have no
    /// task per request; the pool also keeps the time limit.
    ///
    /// # Errors
    /// When it can be neither served nor queued; `granted` is not called then.
    #[track_caller]
    pub fn acquire_into(
        &self,
        options: &AcquireOptions,
        grants: &Arc<dyn Grants<C>>,
        token: u64,
    ) -> Result<Acquired<C>, AcquireError<C::Error>> {
        self.shared.acquire_into(options, grants, token, Location::caller())
    }

    /// Gives up a queued acquire, in O(1). `false` once it was dispatched: then [`Grants::granted`] was or will be called.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        self.shared.step(|core, now, fx| core.cancel(ticket.0, now, fx))
    }

    /// Warms this host up, as [`Pool::warm_up`] does.
    ///
    /// # Errors
    /// The first failed dial ends it.
    ///
    /// # Cancel safety
    /// As [`Pool::warm_up`].
    pub async fn warm_up(&self, n: usize) -> Result<usize, AcquireError<C::Error>> {
        let (done, result) = oneshot::channel();
        let id = self.shared.step(|core, now, fx| core.warm_up(n, done, now, fx));
        let guard = WarmUp { host: &self.shared, id };
        let limit = self.shared.pool.options().acquire_timeout;
        let began = self.shared.pool.clock.now();
        let result = crate::rt::timeout(limit, result).await;
        drop(guard);
        match result {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(AcquireError::Closed),
            None => {
                let now = self.shared.pool.clock.now();
                let phase = self.shared.peek(|locked| locked.core.phase(now));
                Err(AcquireError::Timeout {
                    waited: now.saturating_duration_since(began),
                    phase,
                    last_dial_error: None,
                })
            }
        }
    }

    /// Says that a connection that was [detached](Lease::detach) after idling for so long turned out to be dead before any byte of a
    /// response: it is counted (`reuse_failures`) and its age is learned from, as [`Lease::reuse_failed`] does for one that was not.
    pub fn stale(&self, idle_for: Duration) {
        self.shared.step(|core, now, fx| core.stale(idle_for, now, fx));
    }

    /// Returns the host's figures.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        self.shared.stats()
    }
}

/// Takes a warm-up out again when its future ends or is dropped.
struct WarmUp<'a, C: Connector> {
    host: &'a Shared<C>,
    id: u64,
}

impl<C: Connector> Drop for WarmUp<'_, C> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|core, _, fx| core.cancel_warm_up(id, fx));
    }
}
