//! The right to use a connection, or one stream of it.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::connector::Connector;

/// The right to use a connection, or one stream of it. Dropping it releases it.
pub struct Lease<C: Connector> {
    connection: C::Connection,
}

impl<C: Connector> Deref for Lease<C> {
    type Target = C::Connection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<C: Connector> fmt::Debug for Lease<C> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl<C: Connector> Lease<C> {
    /// Returns the connection's id, unique in its pool.
    #[must_use]
    pub fn id(&self) -> u64 {
        unimplemented!()
    }

    /// Whether the connection had served before.
    #[must_use]
    pub fn reused(&self) -> bool {
        unimplemented!()
    }

    /// Returns how long the connection had been idle; zero when others were using it.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        unimplemented!()
    }

    /// Returns the time since its dial began.
    #[must_use]
    pub fn age(&self) -> Duration {
        unimplemented!()
    }

    /// Returns when its dial began.
    #[must_use]
    pub fn opened_at(&self) -> Instant {
        unimplemented!()
    }

    /// Returns how long its dial took.
    #[must_use]
    pub fn dial_time(&self) -> Duration {
        unimplemented!()
    }

    /// Returns how long the acquire waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        unimplemented!()
    }

    /// Says that the connection must not be used again: it takes no new leases and is closed with its last one.
    pub fn poison(&mut self) {
        unimplemented!()
    }

    /// Says that this reused connection failed before any byte of a response: counted, taught to the idle limit, and poisoned.
    pub fn reuse_failed(&mut self) {
        unimplemented!()
    }

    /// Takes the connection out of the pool, which may then open another.
    ///
    /// # Errors
    /// Gives the lease back when others share the connection.
    pub fn detach(self) -> Result<C::Connection, Self> {
        unimplemented!()
    }
}
