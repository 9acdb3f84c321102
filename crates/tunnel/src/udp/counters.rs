//! What associations did, and what they have to know of each other.

use std::{
    array,
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;

/// Why a datagram was dropped. UDP has no other answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UdpDropped {
    /// A part of a datagram: FRAG was not 0 (RFC 1928 section 7 has those dropped that do not put parts together).
    Fragment,
    /// It came to the relay's port from somebody else than the client.
    Foreign,
    /// It came to us from an address to which the client had sent nothing.
    Unasked,
    /// Its header was cut short, or names no destination.
    Malformed,
    /// The rules forbid its destination.
    Rejected,
    /// Its upstream carries no datagrams, or its destination is multicast or broadcast.
    Unsupported,
    /// The name of its destination has no address, or none was found in time.
    Unresolved,
    /// As much waits as may.
    Full,
    /// With its header it is longer than a datagram can be.
    TooLarge,
    /// The system did not take it: no route, no socket left; or its upstream cannot be used.
    Failed,
}

/// What the associations did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Associations that live; at most [`UdpConfig::max_associations`](crate::config::UdpConfig::max_associations).
    pub associations: usize,
    /// Associations that there were, the living included.
    pub opened: u64,
    /// Requests that were turned away: at the limit, or without a port for them.
    pub refused: u64,
    /// Datagrams from clients that left for their destination.
    pub datagrams_sent: u64,
    /// Datagrams from destinations that left for their client.
    pub datagrams_received: u64,
    /// Bytes of the former, without headers.
    pub bytes_sent: u64,
    /// Bytes of the latter, without headers.
    pub bytes_received: u64,
    dropped: [u64; UdpDropped::ALL.len()],
}

/// The figures of all associations of a server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    associations: AtomicUsize,
    opened: AtomicU64,
    refused: AtomicU64,
    datagrams_sent: AtomicU64,
    datagrams_received: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    dropped: [AtomicU64; UdpDropped::ALL.len()],
    /// Addresses of the sockets that datagrams leave from, the IP unspecified.
    outlets: RwLock<HashSet<SocketAddr>>,
}

/// An association that counts as alive.
#[derive(Debug)]
pub(super) struct Counted(Arc<Counters>);

/// A port that datagrams leave from, known as ours as long as this lives.
#[derive(Debug)]
pub(super) struct OutletPort {
    counters: Arc<Counters>,
    address: SocketAddr,
}

impl UdpDropped {
    /// Every reason, in the order of their counters.
    pub const ALL: [UdpDropped; 10] = [
        UdpDropped::Fragment,
        UdpDropped::Foreign,
        UdpDropped::Unasked,
        UdpDropped::Malformed,
        UdpDropped::Rejected,
        UdpDropped::Unsupported,
        UdpDropped::Unresolved,
        UdpDropped::Full,
        UdpDropped::TooLarge,
        UdpDropped::Failed,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            UdpDropped::Fragment => "fragment",
            UdpDropped::Foreign => "foreign",
            UdpDropped::Unasked => "unasked",
            UdpDropped::Malformed => "malformed",
            UdpDropped::Rejected => "rejected",
            UdpDropped::Unsupported => "unsupported",
            UdpDropped::Unresolved => "unresolved",
            UdpDropped::Full => "full",
            UdpDropped::TooLarge => "too_large",
            UdpDropped::Failed => "failed",
        }
    }
}

impl UdpStats {
    /// Datagrams that were dropped for this reason.
    pub fn dropped(&self, reason: UdpDropped) -> u64 {
        self.dropped[reason as usize]
    }
}

impl Counters {
    /// The figures now.
    pub(crate) fn stats(&self) -> UdpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UdpStats {
            associations: self.associations.load(Ordering::Relaxed),
            opened: read(&self.opened),
            refused: read(&self.refused),
            datagrams_sent: read(&self.datagrams_sent),
            datagrams_received: read(&self.datagrams_received),
            bytes_sent: read(&self.bytes_sent),
            bytes_received: read(&self.bytes_received),
            dropped: array::from_fn(|reason| read(&self.dropped[reason])),
        }
    }

    /// Counts one more association, unless `max` live already.
    pub(super) fn open(self: &Arc<Self>, max: usize) -> Option<Counted> {
        let more = |now| (now < max).then_some(now + 1);
        self.associations.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }

    /// Counts an association whose client was told of it.
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was turned away.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a datagram to a destination by what became of it.
    pub(super) fn sent(&self, bytes: usize, result: Result<(), UdpDropped>) {
        self.count(&self.datagrams_sent, &self.bytes_sent, bytes, result);
    }

    /// Counts a datagram to a client by what became of it.
    pub(super) fn received(&self, bytes: usize, result: Result<(), UdpDropped>) {
        self.count(&self.datagrams_received, &self.bytes_received, bytes, result);
    }

    /// Counts `datagrams` that were dropped.
    pub(super) fn dropped(&self, reason: UdpDropped, datagrams: usize) {
        self.dropped[reason as usize].fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// Remembers a socket that datagrams leave from.
    pub(super) fn outlet(self: &Arc<Self>, address: SocketAddr) -> OutletPort {
        self.outlets.write().insert(address);
        OutletPort { counters: self.clone(), address }
    }

    /// Whether one of our own sockets sent from `port`; `like` has the family.
    pub(super) fn is_outlet(&self, like: SocketAddr) -> bool {
        self.outlets.read().contains(&super::port::unspecified(like.is_ipv4(), like.port()))
    }

    fn count(&self, datagrams: &AtomicU64, total: &AtomicU64, bytes: usize, result: Result<(), UdpDropped>) {
        match result {
            Ok(()) => {
                datagrams.fetch_add(1, Ordering::Relaxed);
                total.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(reason) => self.dropped(reason, 1),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.associations.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OutletPort {
    fn drop(&mut self) {
        self.counters.outlets.write().remove(&self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_in_their_order() {
        let counters = Counters::default();
        for (count, reason) in UdpDropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, count);
            counters.dropped(reason, count + 1);
        }
        let stats = counters.stats();
        for (count, reason) in UdpDropped::ALL.into_iter().enumerate() {
            assert_eq!(stats.dropped(reason), count as u64 + 1, "{}", reason.as_str());
        }
    }

    #[test]
    fn an_association_counts_until_it_is_dropped() {
        let counters = Arc::new(Counters::default());
        let first = counters.open(1).unwrap();
        assert!(counters.open(1).is_none());
        assert_eq!(counters.stats().associations, 1);
        drop(first);
        assert_eq!(counters.stats().associations, 0);
        assert!(counters.open(0).is_none());
    }
}
