//! What an origin has seen, counted where it happens. The figures are exact: a test may compare them with `==`.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// A snapshot of what one address of an origin has seen, or all of them together, since the start or the last
/// [`OriginLab::reset_counters`](crate::OriginLab::reset_counters).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OriginCounters {
    /// TCP connections accepted.
    pub accepted: u64,
    /// Connections open now: accepted and ended by neither side. A silenced connection counts as open.
    pub open: u64,
    /// The most connections open at one time.
    pub open_max: u64,
    /// Full TLS handshakes completed.
    pub handshakes_full: u64,
    /// Resumed TLS handshakes completed.
    pub handshakes_resumed: u64,
    /// TLS handshakes that failed, those that a client gave up included.
    pub handshakes_failed: u64,
    /// Connections on which HTTP/2 was negotiated.
    pub connections_h2: u64,
    /// Connections on which HTTP/1.1 is spoken.
    pub connections_h1: u64,
    /// Requests whose head was read. Refused streams are none.
    pub requests: u64,
    /// Requests by method and first segment of the path, such as `HEAD /` and `GET /bytes`; at most 256 of them, the rest is `other`.
    pub paths: BTreeMap<String, u64>,
    /// Answers sent to their end, cut ones not included.
    pub answers: u64,
    /// Exchanges open now: h2 streams as their definition has it (RFC 9113 section 5.1), HTTP/1.1 from the head of the request to
    /// the end of the answer.
    pub streams_open: u64,
    /// The most exchanges open at one time.
    pub streams_max: u64,
    /// The same for the busiest single connection.
    pub streams_per_connection_max: u64,
    /// Exchanges that the client gave up before the end of the answer: by RST_STREAM, or with the connection.
    pub aborted: u64,
    /// h2 streams that were refused and not processed: by fault, for [`over_limit`](Self::over_limit), or above a GOAWAY's last id.
    pub refused: u64,
    /// h2 streams opened above a limit whose SETTINGS the client had acknowledged.
    pub over_limit: u64,
    /// PING frames from clients, acknowledgements not included.
    pub pings: u64,
    /// h2 connections that were told to go away, each counted once.
    pub goaways: u64,
    /// SETTINGS frames sent, acknowledgements not included.
    pub settings: u64,
    /// Bytes of request bodies read.
    pub body_bytes: u64,
    /// Connections that the client ended.
    pub closed_by_peer: u64,
    /// Connections that the lab ended.
    pub closed_by_lab: u64,
}

/// Counts one address, or all.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<OriginCounters>);

impl Tally {
    pub(super) fn snapshot(&self) -> OriginCounters {
        self.0.lock().clone()
    }

    pub(super) fn count(&self, change: impl Fn(&mut OriginCounters)) {
        change(&mut self.0.lock());
    }

    /// Forgets all but the gauges: what is open now still is.
    pub(super) fn reset(&self) {
        let counters = &mut *self.0.lock();
        let (open, streams) = (counters.open, counters.streams_open);
        *counters = OriginCounters {
            open,
            open_max: open,
            streams_open: streams,
            streams_max: streams,
            ..OriginCounters::default()
        };
    }
}

impl OriginCounters {
    pub(super) fn accept(&mut self) {
        self.accepted += 1;
        self.open += 1;
        self.open_max = self.open_max.max(self.open);
    }

    /// An exchange begins, on a connection that now has `here`.
    pub(super) fn open_stream(&mut self, here: u64) {
        self.streams_open += 1;
        self.streams_max = self.streams_max.max(self.streams_open);
        self.streams_per_connection_max = self.streams_per_connection_max.max(here);
    }

    /// A request was read.
    pub(super) fn request(&mut self, class: &str) {
        self.requests += 1;
        let class = if self.paths.len() < CLASSES_MAX || self.paths.contains_key(class) { class } else { "other" };
        *self.paths.entry(class.to_owned()).or_default() += 1;
    }
}

/// The class of a request: its method and the first segment of its path.
pub(super) fn class(method: &http::Method, path: &str) -> String {
    let segment = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    format!("{method} /{segment}")
}

const CLASSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn classes_are_method_and_first_segment_and_bounded() {
        assert_eq!(class(&Method::HEAD, "/"), "HEAD /");
        assert_eq!(class(&Method::GET, "/bytes/100"), "GET /bytes");
        let mut counters = OriginCounters::default();
        for number in 0..300 {
            counters.request(&format!("GET /{number}"));
        }
        assert_eq!((counters.requests, counters.paths.len(), counters.paths["other"]), (300, 257, 44));
    }

    #[test]
    fn a_reset_keeps_the_gauges() {
        let tally = Tally::default();
        tally.count(|counters| {
            counters.accept();
            counters.accept();
            counters.open -= 1;
            counters.open_stream(1);
        });
        tally.reset();
        let kept =
            OriginCounters { open: 1, open_max: 1, streams_open: 1, streams_max: 1, ..OriginCounters::default() };
        assert_eq!(tally.snapshot(), kept);
    }
}
