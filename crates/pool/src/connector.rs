//! What a pool needs to know about the connections it keeps: how to dial, check and judge them.
//!
//! Not here: anything that opens a socket, and the back channel of a connection to its pool (`slot.rs`).

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;

use crate::error::Side;
use crate::phases::DialPhases;
use crate::slot::Slot;

/// Dials and validates the connections of a [`Pool`](crate::Pool).
pub trait Connector: Sized + Send + Sync + 'static {
    /// The complete identity of what a connection may be used for: transport, host, port, proxy chain, credentials, SNI, ALPN, TLS
    /// profile, bind address. Nothing is ever shared across keys.
    type Key: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// A connection. Dropping it closes it; drops happen outside every lock of the pool.
    type Connection: Send + Sync + 'static;
    /// Why a dial or a validation failed. Handed to several waiters as `Arc<Error>`.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Dials. The pool sets the time limit (`connect_timeout`) and drops the future to cancel it.
    ///
    /// `slot` lets the connection's own reader or driver tell the pool things, from any time on, also before this returns.
    ///
    /// # Errors
    /// Whatever keeps the connection from being usable; [`side`](Self::side) and [`kind`](Self::kind) are asked about it.
    fn connect(
        &self,
        key: &Self::Key,
        slot: Slot<Self>,
    ) -> impl Future<Output = Result<Connected<Self::Connection>, Self::Error>> + Send;

    /// Checks an idle connection. Called only when it idled for longer than `check_interval`, never while it is in use, within
    /// `connect_timeout`. The default says it is good.
    ///
    /// # Errors
    /// Any error closes the connection.
    fn validate(
        &self,
        key: &Self::Key,
        connection: &Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (key, connection);
        std::future::ready(Ok(()))
    }

    /// Returns whose fault an error is. A `Local` one never touches the host's health. The default is `Upstream`.
    fn side(&self, error: &Self::Error) -> Side {
        let _ = error;
        Side::Upstream
    }

    /// Returns a short label of the error for the `dial_errors` counters; from a small fixed set. The default is `error`.
    fn kind(&self, error: &Self::Error) -> &'static str {
        let _ = error;
        "error"
    }

    /// Returns the capacity that connections to `key` will have, if it is known before the first dial: 1 for an exclusive protocol
    /// lets the first waiters dial side by side. The default, unknown, makes one dial first and then as many as its result asks for.
    fn capacity_hint(&self, key: &Self::Key) -> Option<u32> {
        let _ = key;
        None
    }

    /// Returns whether `min_idle` connections to `key` are kept open while nobody asks. The default is yes; a key that is only
    /// a fallback for another one says no.
    fn keeps_idle(&self, key: &Self::Key) -> bool {
        let _ = key;
        true
    }

    /// Returns the name under which operators see `key`, such as `tls://9.9.9.9:853`: stable, unique among the keys of the pool where
    /// that can be, and without secrets. The default is its `Debug` text.
    fn label(&self, key: &Self::Key) -> String {
        format!("{key:?}")
    }
}

/// A dial's result: the connection and what may be done with it.
#[derive(Debug)]
pub struct Connected<T> {
    pub(crate) connection: T,
    pub(crate) capacity: Option<u32>,
    pub(crate) reusable: bool,
    pub(crate) phases: DialPhases,
}

impl<T> Connected<T> {
    /// Wraps an exclusive connection: one lease at a time.
    pub fn new(connection: T) -> Self {
        Self { connection, capacity: None, reusable: true, phases: DialPhases::default() }
    }

    /// Makes it a multiplexed connection that carries `capacity` leases at once; 0 is allowed until
    /// [`Slot::set_capacity`] raises it.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Says whether it may serve again after its first lease. Default true.
    #[must_use]
    pub fn reusable(mut self, reusable: bool) -> Self {
        self.reusable = reusable;
        self
    }

    /// Says how long each phase of the dial took, for [`Stats::dial_phases`](crate::Stats::dial_phases). Default: nothing is known of
    /// them.
    #[must_use]
    pub fn phases(mut self, phases: DialPhases) -> Self {
        self.phases = phases;
        self
    }
}
