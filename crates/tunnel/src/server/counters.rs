//! What the server counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ErrorKind;

/// What a server does and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Clients that are connected; at most `max_clients`.
    pub clients: usize,
    /// Clients that were served.
    pub accepted: u64,
    /// Clients that found the server full.
    pub turned_away: u64,
    /// Of the clients served, those that spoke SOCKS5.
    pub socks5: u64,
    /// Those that spoke SOCKS4 or 4a.
    pub socks4: u64,
    /// Those that spoke HTTP.
    pub http: u64,
    /// Those of forwards.
    pub forwards: u64,
    /// Handshakes that failed, in the order of [`HandshakeFailure::ALL`].
    pub handshakes_failed: [u64; HandshakeFailure::ALL.len()],
    /// Tunnels that are live.
    pub tunnels: usize,
    /// Tunnels that were made.
    pub tunnels_opened: u64,
    /// Tunnels that could not be made, in the order of [`ErrorKind::ALL`].
    pub tunnels_failed: [u64; ErrorKind::ALL.len()],
    /// Clients that went away while their tunnel was being made.
    pub gone_early: u64,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// It began with something that is not spoken here.
    Version,
    /// No method of authentication was offered that is accepted.
    Method,
    /// User or password were not accepted, or missing where the protocol has no place for them.
    User,
    /// A command other than CONNECT and UDP ASSOCIATE, or the latter where it is not offered.
    Command,
    /// A destination that cannot be one.
    Destination,
    /// It broke the protocol otherwise.
    Malformed,
    /// It was not complete in time.
    TimedOut,
    /// The client left in the middle.
    Gone,
}

impl HandshakeFailure {
    /// Every reason, in the order of their counters.
    pub const ALL: [HandshakeFailure; 8] = [
        HandshakeFailure::Version,
        HandshakeFailure::Method,
        HandshakeFailure::User,
        HandshakeFailure::Command,
        HandshakeFailure::Destination,
        HandshakeFailure::Malformed,
        HandshakeFailure::TimedOut,
        HandshakeFailure::Gone,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::Version => "version",
            HandshakeFailure::Method => "method",
            HandshakeFailure::User => "user",
            HandshakeFailure::Command => "command",
            HandshakeFailure::Destination => "destination",
            HandshakeFailure::Malformed => "malformed",
            HandshakeFailure::TimedOut => "timed_out",
            HandshakeFailure::Gone => "gone",
        }
    }
}

impl ServerStats {
    /// Handshakes that failed for this reason.
    pub fn handshakes_failed(&self, reason: HandshakeFailure) -> u64 {
        self.handshakes_failed[reason as usize]
    }

    /// Tunnels that could not be made for this reason.
    pub fn tunnels_failed(&self, kind: ErrorKind) -> u64 {
        self.tunnels_failed[kind as usize]
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    clients: AtomicUsize,
    /// Of the clients, those for whom something may still have to be done.
    unserved: AtomicUsize,
    accepted: AtomicU64,
    pub(super) turned_away: AtomicU64,
    pub(super) socks5: AtomicU64,
    pub(super) socks4: AtomicU64,
    pub(super) http: AtomicU64,
    pub(super) forwards: AtomicU64,
    handshakes_failed: [AtomicU64; HandshakeFailure::ALL.len()],
    pub(super) tunnels_opened: AtomicU64,
    tunnels_failed: [AtomicU64; ErrorKind::ALL.len()],
    pub(super) gone_early: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Also for HTTP's wrong users and broken heads.
    pub(crate) fn handshake_failed(&self, reason: HandshakeFailure) {
        Counters::count(&self.handshakes_failed[reason as usize]);
    }

    pub(super) fn tunnel_failed(&self, kind: ErrorKind) {
        Counters::count(&self.tunnels_failed[kind as usize]);
    }

    pub(super) fn unserved(&self) -> usize {
        self.unserved.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self, tunnels: usize) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStats {
            clients: self.clients.load(Ordering::Relaxed),
            accepted: read(&self.accepted),
            turned_away: read(&self.turned_away),
            socks5: read(&self.socks5),
            socks4: read(&self.socks4),
            http: read(&self.http),
            forwards: read(&self.forwards),
            handshakes_failed: self.handshakes_failed.each_ref().map(read),
            tunnels,
            tunnels_opened: read(&self.tunnels_opened),
            tunnels_failed: self.tunnels_failed.each_ref().map(read),
            gone_early: read(&self.gone_early),
        }
    }
}

/// Counts a client as connected until it is dropped.
pub(super) struct Connected<'a> {
    counters: &'a Counters,
    is_served: bool,
}

impl<'a> Connected<'a> {
    pub(super) fn new(counters: &'a Counters) -> Connected<'a> {
        Counters::count(&counters.accepted);
        counters.clients.fetch_add(1, Ordering::Relaxed);
        counters.unserved.fetch_add(1, Ordering::Relaxed);
        Connected { counters, is_served: false }
    }

    /// Nothing is left to be done: from here on the end cuts nothing off.
    pub(super) fn served(&mut self) {
        if !std::mem::replace(&mut self.is_served, true) {
            self.counters.unserved.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.served();
        self.counters.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_kinds_stand_at_their_place() {
        for (place, reason) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
        }
        for (place, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
        }
    }
}
