//! One association at work: its sockets, its routes and its clock, in one task.
//!
//! Everything is polled in turns of at most [`TURN`] datagrams, so that a flood from one side does not keep the other from being
//! heard.

use std::{
    cell::RefCell,
    future::Future,
    io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use keepwarm_transport::proxy::Target;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    client::Client,
    counters::{Counters, UdpDropped},
    direct::Direct,
    find::{self, Asker, Way},
    header,
    port::{DATAGRAM_MAX, Port},
    relays::{Opened, Relays, Want},
    routes::{Found, Next, Route, Routes},
};
use crate::server::destination::Own;

/// A client's datagrams and their answers.
pub(super) struct Association {
    asker: Asker,
    /// The ways, and what was our own, that routes and relays came about by.
    ways: u64,
    own: Arc<Own>,
    counters: Arc<Counters>,
    /// The socket that the client knows.
    relay: Port,
    client: Client,
    /// Whether the client is on this machine, where our own outlets could be taken for it.
    on_this_machine: bool,
    routes: Routes,
    finding: FuturesUnordered<Finding>,
    outlets: Outlets,
    idle: Idle,
    failures: u32,
}

/// Where datagrams leave.
struct Outlets {
    counters: Arc<Counters>,
    direct: Direct,
    relays: Relays,
}

type Finding = Pin<Box<dyn Future<Output = Discovery> + Send>>;

/// What took its time.
enum Discovery {
    Found(Target, Found),
    Opened(Arc<str>, Result<Opened, UdpDropped>),
}

/// Ends an association that nobody uses. The timer is not set anew with each datagram, but looks when it fires.
struct Idle {
    limit: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Why an association ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No datagram for `idle_timeout`.
    Idle,
    /// A socket fails again and again.
    Failed,
}

impl Association {
    /// `peer` is the other end of the control connection, `declared` what it said of its datagrams.
    pub(super) fn new(
        asker: Asker,
        counters: Arc<Counters>,
        relay: Port,
        peer: SocketAddr,
        declared: SocketAddr,
    ) -> Association {
        let limit = asker.connector.config().udp.idle_timeout;
        Association {
            ways: asker.connector.ways(),
            own: asker.own.now(),
            asker,
            relay,
            client: Client::new(peer, declared),
            on_this_machine: is_on_this_machine(peer),
            routes: Routes::default(),
            finding: FuturesUnordered::new(),
            outlets: Outlets {
                counters: counters.clone(),
                direct: Direct::new(counters.clone()),
                relays: Relays::new(counters.clone()),
            },
            counters,
            idle: Idle { limit, since: Instant::now(), timer: Box::pin(sleep(limit)) },
            failures: 0,
        }
    }

    /// Works until the association ends by itself. Wants to be polled by one task alone.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = Instant::now();
        self.follow(now);
        let more = BUFFER.with_borrow_mut(|buffer| {
            let mut more = self.poll_relay(cx, buffer, now);
            more |= self.poll_direct(0, cx, buffer, now);
            more |= self.poll_direct(1, cx, buffer, now);
            for place in 0..self.outlets.relays.len() {
                more |= self.poll_upstream(place, cx, buffer, now);
            }
            more
        });
        let more = self.poll_discoveries(cx, now) || more;
        // Last, since what was taken above may have to wait for a socket, and is woken from here.
        let lost = self.relay.poll_flush(cx) + self.outlets.poll_flush(cx);
        self.counters.dropped(UdpDropped::Failed, lost);
        if self.failures > FAILURES_MAX {
            return Poll::Ready(End::Failed);
        }
        if self.idle.is_over(cx) {
            return Poll::Ready(End::Idle);
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Begins anew where other rules or upstreams are in force, and asks anew where something else is our own. What is under way over
    /// relays of before is lost, as datagrams are.
    fn follow(&mut self, now: Instant) {
        let (ways, own) = (self.asker.connector.ways(), self.asker.own.now());
        if mem::replace(&mut self.ways, ways) != ways {
            self.finding.clear();
            self.outlets.relays = Relays::new(self.counters.clone());
            for (target, data) in mem::take(&mut self.routes).into_waiting() {
                if let Err(reason) = self.pass(target, &data, now) {
                    self.counters.dropped(reason, 1);
                }
            }
        } else if !Arc::ptr_eq(&self.own, &own) {
            self.routes.expire(now);
        }
        self.own = own;
    }

    /// Takes what the client sent; tells whether there may be more.
    fn poll_relay(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> bool {
        for _ in 0..TURN {
            match self.relay.poll_recv(cx, buffer) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => self.failed(&error),
                Poll::Ready(Ok((length, from))) => {
                    self.failures = 0;
                    if let Err(reason) = self.take(&buffer[..length], from, now) {
                        self.counters.dropped(reason, 1);
                    }
                }
            }
        }
        true
    }

    /// Takes a datagram that came to the relay's port. One that is sent or waits is counted when it has gone.
    fn take(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Result<(), UdpDropped> {
        // A client elsewhere could have a datagram sent from an outlet of ours to this port, which would then look like one of a
        // client on this machine.
        if !self.client.is(from) || self.on_this_machine && self.counters.is_outlet(from) {
            return Err(UdpDropped::Foreign);
        }
        let (header, data) = header::parse(datagram).map_err(|_| UdpDropped::Malformed)?;
        self.client.sends_from(from);
        self.idle.since = now;
        // RFC 1928 section 7: "An implementation that does not support fragmentation MUST drop any datagram whose FRAG field is
        // other than X'00'."
        if header.fragment != 0 {
            return Err(UdpDropped::Fragment);
        }
        let target = header.target()?;
        self.pass(target, data, now)
    }

    /// Sends a datagram, or has it wait for its route.
    fn pass(&mut self, target: Target, data: &[u8], now: Instant) -> Result<(), UdpDropped> {
        match self.routes.datagram(&target, data, now) {
            Next::Send(route) => self.outlets.send(route, &target, data),
            Next::Find => self.find(target, now),
            Next::Wait => {}
            Next::Drop(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Looks for the route to `target`.
    fn find(&mut self, target: Target, now: Instant) {
        let asker = self.asker.clone();
        match find::way(&asker, &target) {
            Way::Known(found) => self.found(&target, found, now),
            Way::LookUp => self.finding.push(Box::pin(async move {
                let found = find::look_up(&asker, &target).await;
                Discovery::Found(target, found)
            })),
            Way::Over(upstream) => match self.outlets.relays.want(&upstream, &target) {
                Want::Ready => self.found(&target, find::over(&upstream), now),
                Want::Wait => {}
                Want::Full => self.found(&target, find::failed(UdpDropped::Full), now),
                Want::Open => self.finding.push(Box::pin(async move {
                    let opened = find::open(&asker.connector, &upstream).await;
                    Discovery::Opened(upstream, opened)
                })),
            },
        }
    }

    /// Takes what was found; tells whether anything was, since sockets may have been opened by it that nobody listens to yet.
    fn poll_discoveries(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(discovery)) = self.finding.poll_next_unpin(cx) {
            any = true;
            match discovery {
                Discovery::Found(target, found) => self.found(&target, found, now),
                Discovery::Opened(upstream, opened) => {
                    let (waiting, result) = self.outlets.relays.opened(&upstream, opened);
                    let found = result.map_or_else(find::failed, |()| find::over(&upstream));
                    for target in waiting {
                        self.found(&target, found.clone(), now);
                    }
                }
            }
        }
        while let Poll::Ready(upstream) = self.outlets.relays.poll_gone(cx) {
            tracing::debug!(%upstream, "an upstream closed its udp relay");
            self.routes.lost(&upstream, &find::failed(UdpDropped::Failed), now);
        }
        any
    }

    /// Sends what waited for a route.
    fn found(&mut self, target: &Target, found: Found, now: Instant) {
        for data in self.routes.found(target, found, now) {
            match self.routes.datagram(target, &data, now) {
                Next::Send(route) => self.outlets.send(route, target, &data),
                Next::Drop(reason) => self.counters.dropped(reason, 1),
                // What was found holds for longer than no time.
                Next::Find | Next::Wait => {}
            }
        }
    }

    /// Takes what a relay of an upstream sent.
    fn poll_upstream(&mut self, place: usize, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> bool {
        for _ in 0..TURN {
            match self.outlets.relays.poll_recv(place, cx, buffer) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => self.failed(&error),
                Poll::Ready(Ok(Err(reason))) => self.counters.dropped(reason, 1),
                Poll::Ready(Ok(Ok((length, bytes)))) => {
                    self.failures = 0;
                    self.idle.since = now;
                    let client = self.client.address().ok_or(UdpDropped::Unasked);
                    let result = client.and_then(|client| self.relay.send(&buffer[..length], client));
                    self.counters.received(bytes, result);
                }
            }
        }
        true
    }

    /// Takes what destinations sent.
    fn poll_direct(&mut self, family: usize, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> bool {
        for _ in 0..TURN {
            match self.outlets.direct.poll_recv(family, cx, &mut buffer[header::SENDER_MAX..]) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => self.failed(&error),
                Poll::Ready(Ok((_, Err(reason)))) => self.counters.dropped(reason, 1),
                Poll::Ready(Ok((length, Ok(from)))) => {
                    self.failures = 0;
                    self.idle.since = now;
                    let result = self.answer(buffer, length, from);
                    self.counters.received(length, result);
                }
            }
        }
        true
    }

    /// Hands the client an answer of `length` bytes, before which `buffer` has room for the header.
    fn answer(&mut self, buffer: &mut [u8], length: usize, from: SocketAddr) -> Result<(), UdpDropped> {
        let client = self.client.address().ok_or(UdpDropped::Unasked)?;
        let header = header::of_sender(from);
        let start = header::SENDER_MAX - header.len();
        buffer[start..header::SENDER_MAX].copy_from_slice(&header);
        self.relay.send(&buffer[start..header::SENDER_MAX + length], client)
    }

    fn failed(&mut self, error: &io::Error) {
        self.failures += 1;
        tracing::debug!(%error, "udp socket failed to receive");
    }
}

impl Outlets {
    /// Sends, and counts what became of it.
    fn send(&mut self, route: &mut Route, target: &Target, data: &[u8]) {
        let result = match route {
            Route::Direct(addresses) => self.direct.send(addresses, data),
            Route::Over(upstream) => self.relays.send(upstream, target, data),
        };
        self.counters.sent(data.len(), result);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> usize {
        self.direct.poll_flush(cx) + self.relays.poll_flush(cx)
    }
}

impl Idle {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let idle = self.since.elapsed();
            if idle >= self.limit {
                return true;
            }
            self.timer.set(sleep(self.limit - idle));
        }
        false
    }
}

/// Whether `peer` is an address of this machine. In doubt it is.
fn is_on_this_machine(mut peer: SocketAddr) -> bool {
    peer.set_ip(peer.ip().to_canonical());
    peer.set_port(0);
    let bound = std::net::UdpSocket::bind(peer);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

thread_local! {
    /// Shared by the associations of a thread, so that one that is idle needs no memory for datagrams. It is in use only while a socket
    /// is read, which does not wait.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; header::SENDER_MAX + DATAGRAM_MAX]);
}

/// Datagrams of one socket before the next has its turn.
const TURN: usize = 32;
/// Failures to receive, one after the other, that end an association.
const FAILURES_MAX: u32 = 128;
