//! What a proxy has seen, counted where it happens. The figures are exact: a test may compare them with `==`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpStream;

use super::crowd::{Crowd, Live};
use crate::counters::ClosedBy;

/// A snapshot of what a proxy has seen since its start.
///
/// Whoever has received an answer finds it counted, and whoever has seen the proxy end a connection finds that counted. Connections
/// that a client has ended are gone from `now` of every [`Live`] at once (on Linux; elsewhere, and in the other counters, as soon as
/// the proxy has noticed). With a delay, all that happens when it arrives at the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProxyCounters {
    /// Connections accepted; those above [`max_connections`](crate::ProxyFaults::max_connections) are not.
    pub accepted: u64,
    /// Connections above that limit.
    pub over_limit: u64,
    /// Connections that neither side has ended. A silenced one is open.
    pub open: u64,
    /// The most connections open at one time.
    pub open_max: u64,
    /// Connections greeted, user and password included where wanted. SOCKS5 alone.
    pub greeted: u64,
    /// User and password that were right, over HTTP with each request.
    pub auth_ok: u64,
    /// User and password that were wrong or refused by fault, or missing over HTTP.
    pub auth_failed: u64,
    /// Requests to connect that were read.
    pub connects: u64,
    /// Those answered with success, counted before the answer leaves.
    pub connects_ok: u64,
    /// Those refused, also for want of a credential.
    pub connects_failed: u64,
    /// Connections that wait for a request: greeted, or over HTTP accepted, with not a byte of a request yet.
    pub idle: u64,
    /// The most of them at one time.
    pub idle_max: u64,
    /// Idle connections that the proxy ended, by fault or by order.
    pub closed_idle: u64,
    /// Answers that nobody asked for, by fault or by order.
    pub strays: u64,
    /// Connections where bytes of a later step came before the answer to an earlier one.
    pub pipelined: u64,
    /// Requests with payload ahead of their answer.
    pub payload_early: u64,
    /// Tunnels: their answer is success, and the client has not sent FIN or RST.
    pub live: u64,
    /// The most of them at one time.
    pub live_max: u64,
    /// The same by destination, `host:port` as clients name it; at most 4096 of them, the rest is `other`.
    pub destinations: BTreeMap<String, Live>,
    /// Bytes of payload from clients to destinations.
    pub sent: u64,
    /// Bytes of payload from destinations to clients.
    pub received: u64,
    /// UDP associations open now.
    pub associations: u64,
    /// UDP associations in all.
    pub associations_total: u64,
    /// Datagrams that were passed on for clients.
    pub datagrams_sent: u64,
    /// Datagrams of destinations that were passed on to clients.
    pub datagrams_received: u64,
    /// Datagrams dropped: of others than the client, malformed, fragments, for destinations that do not exist, or one too many.
    pub datagrams_dropped: u64,
    /// Connections that the client ended first.
    pub closed_by_peer: u64,
    /// Connections that the proxy ended first.
    pub closed_by_lab: u64,
    /// Connections that the proxy reset.
    pub resets: u64,
}

impl ProxyCounters {
    /// A request is refused before anything is connected.
    pub(super) fn refuse(&mut self) {
        self.connects += 1;
        self.connects_failed += 1;
    }
}

/// Counts for one proxy.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counters: ProxyCounters,
    open: Crowd,
    idle: Crowd,
    live: Crowd,
    destinations: BTreeMap<String, Crowd>,
}

impl Tally {
    pub(super) fn snapshot(&self) -> ProxyCounters {
        let inner = self.0.lock();
        let (open, idle, live) = (inner.open.live(), inner.idle.live(), inner.live.live());
        ProxyCounters {
            accepted: open.total,
            open: open.now,
            open_max: open.max,
            idle: idle.now,
            idle_max: idle.max,
            live: live.now,
            live_max: live.max,
            destinations: inner.destinations.iter().map(|(name, crowd)| (name.clone(), crowd.live())).collect(),
            ..inner.counters.clone()
        }
    }

    /// Connections open now.
    pub(super) fn open(&self) -> u64 {
        self.0.lock().open.live().now
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ProxyCounters)) {
        change(&mut self.0.lock().counters);
    }
}

/// Counts what one connection is, and its end.
#[derive(Debug)]
pub(super) struct Life {
    tally: Arc<Tally>,
    open: u64,
    stage: Stage,
    ended: bool,
}

#[derive(Debug)]
enum Stage {
    /// Neither of the others.
    Busy,
    /// Waits for a request.
    Idle(u64),
    /// A tunnel: its numbers among all, and at its destination.
    Live(u64, u64, String),
}

impl Life {
    pub(super) fn accepted(tally: &Arc<Tally>, tcp: &Arc<TcpStream>) -> Self {
        let open = tally.0.lock().open.join(tcp);
        Self { tally: Arc::clone(tally), open, stage: Stage::Busy, ended: false }
    }

    pub(super) fn idle(&mut self, tcp: &Arc<TcpStream>) {
        let tally = Arc::clone(&self.tally);
        let mut inner = tally.0.lock();
        self.leave(&mut inner);
        self.stage = Stage::Idle(inner.idle.join(tcp));
    }

    pub(super) fn busy(&mut self) {
        let tally = Arc::clone(&self.tally);
        self.leave(&mut tally.0.lock());
    }

    /// A tunnel begins.
    pub(super) fn live(&mut self, tcp: &Arc<TcpStream>, destination: &str) {
        let tally = Arc::clone(&self.tally);
        let mut inner = tally.0.lock();
        self.leave(&mut inner);
        inner.counters.connects_ok += 1;
        let known = inner.destinations.len() < DESTINATIONS_MAX || inner.destinations.contains_key(destination);
        let name = if known { destination } else { "other" }.to_owned();
        let number = inner.destinations.entry(name.clone()).or_default().join(tcp);
        self.stage = Stage::Live(inner.live.join(tcp), number, name);
    }

    /// Counts the end; only the first call does. Called before the peer can see it.
    pub(super) fn closed(&mut self, by: ClosedBy, reset: bool) {
        if self.ended {
            return;
        }
        self.ended = true;
        let tally = Arc::clone(&self.tally);
        let mut inner = tally.0.lock();
        if by == ClosedBy::Lab && matches!(self.stage, Stage::Idle(_)) {
            inner.counters.closed_idle += 1;
        }
        self.leave(&mut inner);
        inner.open.leave(self.open);
        let counters = &mut inner.counters;
        *(if by == ClosedBy::Peer { &mut counters.closed_by_peer } else { &mut counters.closed_by_lab }) += 1;
        counters.resets += u64::from(reset);
    }

    /// An idle connection is forgotten, and stays open.
    pub(super) fn silenced(&mut self) {
        if matches!(self.stage, Stage::Idle(_)) {
            self.tally.count(|counters| counters.closed_idle += 1);
        }
        self.busy();
    }

    fn leave(&mut self, inner: &mut Inner) {
        match std::mem::replace(&mut self.stage, Stage::Busy) {
            Stage::Busy => {}
            Stage::Idle(number) => inner.idle.leave(number),
            Stage::Live(number, there, name) => {
                inner.live.leave(number);
                if let Some(crowd) = inner.destinations.get_mut(&name) {
                    crowd.leave(there);
                }
            }
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.closed(ClosedBy::Lab, false);
    }
}

/// How many destinations are told apart.
const DESTINATIONS_MAX: usize = 4096;
