//! The right to use a connection, or one stream of it.
//!
//! Not here: how it is granted (`pool/acquire.rs`).

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connector::Connector;
use crate::core::{Grant, SlotRef};
use crate::pool::{Shared, Shell};

/// A connection with what the pool knows about it; the last handle that is dropped closes it.
pub(crate) struct Conn<C: Connector> {
    pub(crate) connection: C::Connection,
    pub(crate) host: Arc<Shared<C>>,
    pub(crate) at: SlotRef,
    pub(crate) opened_at: Instant,
    pub(crate) dial_time: Duration,
}

/// The right to use a connection, or one stream of it. Dropping it releases it.
///
/// It stays valid when the connection is closed, flushed or the pool dropped meanwhile; then the drop closes the connection.
pub struct Lease<C: Connector> {
    /// `None` only within `detach` and `drop`.
    conn: Option<Arc<Conn<C>>>,
    since: Instant,
    idle_for: Duration,
    waited: Duration,
    leak: u32,
    reused: bool,
}

impl<C: Connector> Lease<C> {
    pub(crate) fn new(grant: Grant<Shell<C>>) -> Self {
        Self {
            conn: Some(grant.conn),
            since: grant.since,
            idle_for: grant.idle_for,
            waited: grant.waited,
            leak: grant.leak,
            reused: grant.reused,
        }
    }

    fn conn(&self) -> &Arc<Conn<C>> {
        self.conn.as_ref().expect("a lease holds its connection until it is dropped")
    }

    /// Returns the connection's id, unique in its pool.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.conn().at.id
    }

    /// Returns the key that the connection was dialled for.
    #[must_use]
    pub fn key(&self) -> &C::Key {
        &self.conn().host.key
    }

    /// Whether the connection had been leased before.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Returns how long the connection had been idle, to a few milliseconds; zero when others were using it.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        self.idle_for
    }

    /// Returns the time since its dial began.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.conn().host.pool.clock.now().saturating_duration_since(self.conn().opened_at)
    }

    /// Returns when its dial began.
    #[must_use]
    pub fn opened_at(&self) -> Instant {
        self.conn().opened_at
    }

    /// Returns how long its dial took.
    #[must_use]
    pub fn dial_time(&self) -> Duration {
        self.conn().dial_time
    }

    /// Returns how long the acquire waited; zero when it was served at once.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Says that the connection must not be used again: it takes no new leases and is closed with its last one.
    pub fn poison(&mut self) {
        let conn = self.conn();
        conn.host.step(|core, now, fx| core.closed(conn.at, crate::CloseReason::Poisoned, now, fx));
    }

    /// Says that this reused connection failed before any byte of a response: it is counted (`reuse_failures`), its idle age is
    /// learned from, and it is poisoned. Ask again with [`AcquireOptions::opened_after`](crate::AcquireOptions) for a fresh dial.
    pub fn reuse_failed(&mut self) {
        let (conn, idle_for) = (self.conn(), self.idle_for);
        conn.host.step(|core, now, fx| core.reuse_failed(conn.at, idle_for, now, fx));
    }

    /// Takes the connection out of the pool, which may then open another.
    ///
    /// # Errors
    /// Gives the lease back when others share the connection; never for an exclusive one.
    pub fn detach(mut self) -> Result<C::Connection, Self> {
        let conn = self.conn();
        let (at, leak) = (conn.at, self.leak);
        if !conn.host.step(|core, now, fx| core.detach(at, leak, now, fx)) {
            return Err(self);
        }
        let conn = self.conn.take().expect("a lease holds its connection until it is dropped");
        // The pool's own handle was dropped by the step.
        Arc::try_unwrap(conn).map(|conn| conn.connection).map_err(|conn| {
            self.conn = Some(conn);
            self
        })
    }
}

impl<C: Connector> Deref for Lease<C> {
    type Target = C::Connection;

    fn deref(&self) -> &Self::Target {
        &self.conn().connection
    }
}

impl<C: Connector> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Lease");
        if let Some(conn) = &self.conn {
            f.field("key", &conn.host.key).field("id", &conn.at.id);
        }
        f.field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        // Dropped at the end, outside the lock: it may be the last handle.
        if let Some(conn) = self.conn.take() {
            conn.host.release(conn.at, self.since, self.leak);
        }
    }
}
