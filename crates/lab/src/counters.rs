//! What a lab has seen, counted where it happens. The figures are exact: a test may compare them with `==`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;
use serde::Serialize;

/// A snapshot of what a lab has seen since its start, or since the last
/// [`Lab::reset_counters`](crate::Lab::reset_counters).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// DNS over UDP.
    pub udp: TransportCounters,
    /// DNS over TCP.
    pub tcp: TransportCounters,
    /// DNS over TLS.
    pub tls: TransportCounters,
    /// DNS over HTTPS, h2 and h1 together.
    pub https: TransportCounters,
    /// DNS over QUIC.
    pub quic: TransportCounters,
    /// DNS over HTTP/3.
    pub h3: TransportCounters,
}

/// The figures of one transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TransportCounters {
    /// Well-formed queries received, also those that a fault then loses.
    pub queries: u64,
    /// Answers sent, including forged and duplicated ones. On streams: handed to the connection's writer.
    pub answers: u64,
    /// Distinct source ports seen.
    pub source_ports: u64,
    /// Distinct pairs of source address and port seen.
    pub sockets: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now: accepted and ended by neither side. A silenced connection counts as open.
    pub open: u64,
    /// The most connections open at one time.
    pub open_max: u64,
    /// Full TLS handshakes completed.
    pub handshakes_full: u64,
    /// Resumed TLS handshakes completed.
    pub handshakes_resumed: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// The most queries at one time that had arrived and were not yet answered, nor given up by a fault.
    pub in_flight_max: u64,
    /// The same for the busiest single connection (always 0 for UDP).
    pub in_flight_per_connection_max: u64,
    /// Connections that the client ended.
    pub closed_by_peer: u64,
    /// Connections that the lab ended.
    pub closed_by_lab: u64,
    /// Messages that were no well-formed query: bad DNS, wrong path, method or content type.
    pub bad: u64,
}

/// Counts one transport.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counters: TransportCounters,
    in_flight: u64,
    ports: HashSet<u16>,
    sockets: HashSet<(IpAddr, u16)>,
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClosedBy {
    Peer,
    Lab,
}

/// How a TLS handshake went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
    Failed,
}

impl Tally {
    pub(crate) fn snapshot(&self) -> TransportCounters {
        self.0.lock().counters
    }

    /// Forgets all but the gauges: what is open or in flight now still is.
    pub(crate) fn reset(&self) {
        let mut inner = self.0.lock();
        let open = inner.counters.open;
        inner.counters =
            TransportCounters { open, open_max: open, in_flight_max: inner.in_flight, ..TransportCounters::default() };
        inner.ports.clear();
        inner.sockets.clear();
    }

    pub(crate) fn accepted(&self, peer: SocketAddr) {
        let mut inner = self.0.lock();
        inner.seen(peer);
        inner.counters.accepted += 1;
        inner.counters.open += 1;
        inner.counters.open_max = inner.counters.open_max.max(inner.counters.open);
    }

    pub(crate) fn handshake(&self, outcome: Handshake) {
        let counters = &mut self.0.lock().counters;
        match outcome {
            Handshake::Full => counters.handshakes_full += 1,
            Handshake::Resumed => counters.handshakes_resumed += 1,
            Handshake::Failed => counters.handshakes_failed += 1,
        }
    }

    pub(crate) fn closed(&self, by: ClosedBy) {
        let counters = &mut self.0.lock().counters;
        counters.open -= 1;
        match by {
            ClosedBy::Peer => counters.closed_by_peer += 1,
            ClosedBy::Lab => counters.closed_by_lab += 1,
        }
    }

    /// A datagram with a query has come from `peer`.
    pub(crate) fn datagram(&self, peer: SocketAddr) {
        let mut inner = self.0.lock();
        inner.seen(peer);
        inner.query();
    }

    /// A query has come over a connection, on which `in_flight` now wait, this one included.
    pub(crate) fn query(&self, in_flight: u64) {
        let mut inner = self.0.lock();
        inner.query();
        let counters = &mut inner.counters;
        counters.in_flight_per_connection_max = counters.in_flight_per_connection_max.max(in_flight);
    }

    pub(crate) fn bad(&self) {
        self.0.lock().counters.bad += 1;
    }

    /// `messages` were sent, and `settled` queries no longer wait.
    pub(crate) fn answered(&self, messages: u64, settled: u64) {
        let mut inner = self.0.lock();
        inner.counters.answers += messages;
        inner.in_flight -= settled;
    }
}

impl Inner {
    fn seen(&mut self, peer: SocketAddr) {
        if self.ports.insert(peer.port()) {
            self.counters.source_ports += 1;
        }
        // At most 65,536 ports for each loopback address that the test itself uses: bounded by the test.
        if self.sockets.insert((peer.ip(), peer.port())) {
            self.counters.sockets += 1;
        }
    }

    fn query(&mut self) {
        self.counters.queries += 1;
        self.in_flight += 1;
        self.counters.in_flight_max = self.counters.in_flight_max.max(self.in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_keeps_the_gauges() {
        let tally = Tally::default();
        let peer = "127.0.0.1:1000".parse().unwrap();
        tally.accepted(peer);
        tally.accepted("127.0.0.2:1000".parse().unwrap());
        tally.closed(ClosedBy::Peer);
        tally.query(1);
        let before = tally.snapshot();
        assert_eq!((before.source_ports, before.sockets, before.open_max), (1, 2, 2));
        tally.reset();
        let after = tally.snapshot();
        assert_eq!(after, TransportCounters { open: 1, open_max: 1, in_flight_max: 1, ..Default::default() });
        tally.answered(1, 1);
        tally.datagram(peer);
        assert_eq!(tally.snapshot().in_flight_max, 1);
    }
}
