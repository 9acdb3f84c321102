//! One association at work: its sockets, its routes and its clock, in one task.
//!
//! Everything is polled in turns of at most [`TURN`] datagrams, so that a flood from one side does not keep the other from being
//! heard.

use std::{
    cell::RefCell,
    future::Future,
    io,
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
    find::find,
    header,
    port::{DATAGRAM_MAX, Port},
    routes::{Found, Next, Route, Routes},
};
use crate::Connector;

/// A client's datagrams and their answers.
pub(super) struct Association {
    connector: Connector,
    counters: Arc<Counters>,
    /// The socket that the client knows.
    relay: Port,
    client: Client,
    /// Whether the client is on this machine, where our own outlets could be taken for it.
    on_this_machine: bool,
    direct: Direct,
    routes: Routes,
    finding: FuturesUnordered<Finding>,
    idle: Idle,
    failures: u32,
}

type Finding = Pin<Box<dyn Future<Output = (Target, Found)> + Send>>;

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

/// What one turn of a socket came to.
enum Turn {
    /// Nothing more is there.
    Done,
    /// There may be more.
    More,
}

impl Association {
    /// `peer` is the other end of the control connection, `declared` what it said of its datagrams.
    pub(super) fn new(
        connector: Connector,
        counters: Arc<Counters>,
        relay: Port,
        peer: SocketAddr,
        declared: SocketAddr,
    ) -> Association {
        let limit = connector.config().udp.idle_timeout;
        Association {
            connector,
            relay,
            client: Client::new(peer, declared),
            on_this_machine: is_on_this_machine(peer),
            direct: Direct::new(counters.clone()),
            counters,
            routes: Routes::default(),
            finding: FuturesUnordered::new(),
            idle: Idle { limit, since: Instant::now(), timer: Box::pin(sleep(limit)) },
            failures: 0,
        }
    }

    /// Works until the association ends by itself. Wants to be polled by one task alone.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = Instant::now();
        let more = BUFFER.with_borrow_mut(|buffer| {
            let turns = [
                self.poll_relay(cx, buffer, now),
                self.poll_direct(0, cx, buffer, now),
                self.poll_direct(1, cx, buffer, now),
            ];
            turns.iter().any(|turn| matches!(turn, Turn::More))
        });
        while let Poll::Ready(Some((target, found))) = self.finding.poll_next_unpin(cx) {
            self.found(&target, found, now);
        }
        // Last, since what was taken above may have to wait for a socket, and is woken from here.
        let lost = self.relay.poll_flush(cx) + self.direct.poll_flush(cx);
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

    fn poll_relay(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> Turn {
        for _ in 0..TURN {
            match self.relay.poll_recv(cx, buffer) {
                Poll::Pending => return Turn::Done,
                Poll::Ready(Err(error)) => self.failed(&error),
                Poll::Ready(Ok((length, from))) => {
                    self.failures = 0;
                    if let Err(reason) = self.take(&buffer[..length], from, now) {
                        self.counters.dropped(reason, 1);
                    }
                }
            }
        }
        Turn::More
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
        match self.routes.datagram(&target, data, now) {
            Next::Send(route) => send(&mut self.direct, &self.counters, route, data),
            Next::Find => self.finding.push(Box::pin(find(self.connector.clone(), target))),
            Next::Wait => {}
            Next::Drop(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Sends what waited for a route.
    fn found(&mut self, target: &Target, found: Found, now: Instant) {
        for data in self.routes.found(target, found, now) {
            match self.routes.datagram(target, &data, now) {
                Next::Send(route) => send(&mut self.direct, &self.counters, route, &data),
                Next::Drop(reason) => self.counters.dropped(reason, 1),
                // What was found holds for longer than no time.
                Next::Find | Next::Wait => {}
            }
        }
    }

    fn poll_direct(&mut self, family: usize, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> Turn {
        for _ in 0..TURN {
            match self.direct.poll_recv(family, cx, &mut buffer[header::SENDER_MAX..]) {
                Poll::Pending => return Turn::Done,
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
        Turn::More
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

fn send(direct: &mut Direct, counters: &Counters, route: &mut Route, data: &[u8]) {
    let result = match route {
        Route::Direct(addresses) => direct.send(addresses, data),
    };
    counters.sent(data.len(), result);
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
