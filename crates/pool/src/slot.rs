//! The back channel of a connection to its pool.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::connector::Connector;
use crate::event::CloseReason;

/// A connection's way to tell its pool what its peer did. Holds the pool weakly; every method is a no-op once the connection is gone.
pub struct Slot<C: Connector> {
    _c: PhantomData<fn() -> C>,
}

impl<C: Connector> Clone for Slot<C> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<C: Connector> fmt::Debug for Slot<C> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl<C: Connector> Slot<C> {
    /// Returns the connection's id, unique in its pool.
    #[must_use]
    pub fn id(&self) -> u64 {
        unimplemented!()
    }

    /// Says that the connection ended: no new leases; leases that are out stay valid objects.
    pub fn closed(&self, reason: CloseReason) {
        let _ = reason;
        unimplemented!()
    }

    /// Says that the peer goes away (GOAWAY): no new leases, those in flight finish, then it is closed.
    pub fn drain(&self) {
        unimplemented!()
    }

    /// Sets how many leases the connection carries at once. 0 is allowed. An exclusive connection stays at one.
    pub fn set_capacity(&self, capacity: u32) {
        let _ = capacity;
        unimplemented!()
    }

    /// Sets after how long the peer closes this connection when idle (edns-tcp-keepalive, a Keep-Alive header).
    pub fn idle_limit(&self, limit: Duration) {
        let _ = limit;
        unimplemented!()
    }
}
