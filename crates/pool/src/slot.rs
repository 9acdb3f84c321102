//! The back channel of a connection to its pool: what its reader or driver saw.
//!
//! Not here: what the pool makes of it (`core/life.rs`).

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use crate::connector::Connector;
use crate::core::SlotRef;
use crate::event::CloseReason;
use crate::pool::Shared;

/// A connection's way to tell its pool what its peer did, from any thread and at any time, also before its dial has ended.
///
/// Holds the pool weakly; every method does nothing once the connection has left the pool.
pub struct Slot<C: Connector> {
    pub(crate) host: Weak<Shared<C>>,
    pub(crate) at: SlotRef,
}

impl<C: Connector> Clone for Slot<C> {
    fn clone(&self) -> Self {
        Self { host: Weak::clone(&self.host), at: self.at }
    }
}

impl<C: Connector> fmt::Debug for Slot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.at.id).finish_non_exhaustive()
    }
}

impl<C: Connector> Slot<C> {
    /// Returns the connection's id, unique in its pool.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.at.id
    }

    /// Says that the connection ended or must end: it takes no new leases; leases that are out stay valid objects, and it is gone with
    /// the last of them.
    pub fn closed(&self, reason: CloseReason) {
        if let Some(host) = self.host.upgrade() {
            host.step(|core, now, fx| core.closed(self.at, reason, now, fx));
        }
    }

    /// Says that the peer goes away (GOAWAY, RFC 9113 section 6.8): no new leases, those in flight finish, then it is closed.
    pub fn drain(&self) {
        self.closed(CloseReason::GoAway);
    }

    /// Sets how many leases the connection carries at once. 0 is allowed and means none for now. An exclusive connection (one
    /// without [`Connected::capacity`](crate::Connected::capacity)) carries at most one.
    pub fn set_capacity(&self, capacity: u32) {
        if let Some(host) = self.host.upgrade() {
            host.step(|core, now, fx| core.capacity_changed(self.at, capacity, now, fx));
        }
    }

    /// Sets after how long the peer closes this connection when idle, as it said itself (edns-tcp-keepalive, RFC 7828; a Keep-Alive
    /// header). It is retired a little earlier. `idle_timeout` stays the ceiling.
    pub fn idle_limit(&self, limit: Duration) {
        if let Some(host) = self.host.upgrade() {
            host.step(|core, now, fx| core.idle_limit(self.at, limit, now, fx));
        }
    }
}
