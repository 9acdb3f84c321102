//! Datagrams in and out, many with one call: clients' on the listeners, upstreams' on their sockets.
//!
//! One task a socket reads; what is to be sent waits in the socket's queue until the one task that sends has its turn,
//! behind all readers that the same wake-up of the worker woke. So a round of events costs one call a socket to receive
//! and one to send, and under a light load each datagram leaves at once.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use keepwarm_pool::CloseReason;
use keepwarm_transport::{
    error::{Error as TransportError, Phase},
    udp::{BATCH, DatagramBatch, SendQueue},
};
use tokio::{net::UdpSocket, sync::Notify, time::Instant as Clock};

use super::{
    era::Era,
    flight::{Client, Origin},
    proxy,
    worker::Worker,
};
use crate::{
    config::ListenTransport,
    error::Error,
    upstream::{Found, UdpConnection, count},
};

/// A listener of one worker, with the answers that wait to leave.
pub(crate) struct Listener {
    socket: UdpSocket,
    ipv6: bool,
    queue: RefCell<SendQueue>,
    outbox: Rc<Outbox>,
}

/// The sockets of a worker that have something to send. Each is in it at most once.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: RefCell<VecDeque<Pending>>,
    wake: Notify,
}

enum Pending {
    Listener(Rc<Listener>),
    Upstream(Arc<UdpConnection>),
}

impl Listener {
    pub(super) fn new(socket: UdpSocket, outbox: &Rc<Outbox>) -> Rc<Listener> {
        let ipv6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        Rc::new(Listener { socket, ipv6, queue: RefCell::default(), outbox: outbox.clone() })
    }

    /// Queues an answer.
    pub(super) fn answer(self: Rc<Listener>, message: &[u8], peer: SocketAddr) {
        let first = {
            let mut queue = self.queue.borrow_mut();
            queue.push(message, Some(peer));
            queue.len() == 1
        };
        if first {
            let outbox = self.outbox.clone();
            outbox.push(Pending::Listener(self));
        }
    }
}

impl Outbox {
    /// Queues a query.
    pub(super) fn query(&self, socket: &Arc<UdpConnection>, datagram: &[u8]) {
        if socket.queue(datagram) {
            self.push(Pending::Upstream(socket.clone()));
        }
    }

    fn push(&self, pending: Pending) {
        let first = {
            let mut queue = self.pending.borrow_mut();
            queue.push_back(pending);
            queue.len() == 1
        };
        if first {
            self.wake.notify_one();
        }
    }
}

/// Reads a listener until the task is aborted, which is how a worker stops listening.
pub(crate) async fn read_clients(worker: Rc<Worker>, listener: Rc<Listener>) {
    while DatagramBatch::ready(&listener.socket).await.is_ok() {
        // An error is the ICMP answer to an earlier answer: that client is gone, the listener is not.
        let received = worker.receive_clients(&listener).unwrap_or(0);
        if received == BATCH {
            // Other sockets of this worker have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Reads an upstream socket until the task is aborted, which is how its pool lets it go.
pub(crate) async fn read_upstream(worker: Rc<Worker>, connection: Arc<UdpConnection>) {
    while DatagramBatch::ready(&connection.socket).await.is_ok() {
        if worker.receive_upstream(&connection) == BATCH {
            tokio::task::yield_now().await;
        }
    }
}

/// Sends what was queued, each time that something was.
pub(crate) async fn send_queued(worker: Rc<Worker>) {
    loop {
        worker.outbox.wake.notified().await;
        worker.flush();
    }
}

impl Worker {
    fn receive_clients(self: &Rc<Worker>, listener: &Rc<Listener>) -> io::Result<usize> {
        let mut batch = self.batch.borrow_mut();
        let received = batch.receive_from(&listener.socket, listener.ipv6);
        let now = Clock::now().into_std();
        let era = self.era();
        let proxied = era.access.has_proxies();
        for (datagram, peer) in batch.datagrams() {
            let Some(peer) = peer else { continue };
            let (from, datagram) = if proxied {
                let Some(named) = self.named(&era, datagram, peer) else { continue };
                named
            } else {
                (peer.ip(), datagram)
            };
            let client = Client::Udp { listener: listener.clone(), peer };
            let allowed = era.access.allows(from);
            let origin = Origin { client: Some(from), transport: ListenTransport::Udp, allowed };
            self.ask_in(&era, datagram, client, origin, now);
        }
        received
    }

    /// Reads what has come in on a listener that is given up.
    pub(super) fn receive_rest(self: &Rc<Worker>, listener: &Rc<Listener>) {
        // Who keeps sending does not keep it open.
        for _ in 0..REST_MAX {
            if self.receive_clients(listener).map_or(true, |received| received == 0) {
                return;
            }
        }
    }

    /// Whose a datagram is, and the message in it; `None`, and the datagram is dropped, when a proxy does not say.
    fn named<'a>(&self, era: &Era, datagram: &'a [u8], peer: SocketAddr) -> Option<(IpAddr, &'a [u8])> {
        if !era.access.is_proxy(peer.ip()) {
            return Some((peer.ip(), datagram));
        }
        let named = proxy::split_datagram(datagram, peer.ip()).ok();
        if named.is_none() {
            count(&self.shared.counters.malformed);
            tracing::debug!(%peer, "a proxy's datagram did not begin with a PROXY header");
        }
        named
    }

    fn receive_upstream(self: &Rc<Worker>, connection: &Arc<UdpConnection>) -> usize {
        let mut batch = self.batch.borrow_mut();
        let received = batch.receive(&connection.socket);
        let now = Clock::now().into_std();
        for (datagram, _) in batch.datagrams() {
            self.received(connection, datagram, now);
        }
        received.unwrap_or_else(|error| {
            self.socket_failed(connection, &error, now);
            0
        })
    }

    /// Sends everything that is queued.
    pub(crate) fn flush(self: &Rc<Worker>) {
        loop {
            // Not held while sending: a failure may have another query queued.
            let Some(pending) = self.outbox.pending.borrow_mut().pop_front() else { return };
            match pending {
                Pending::Listener(listener) => self.send_answers(&listener),
                Pending::Upstream(connection) => self.send_queries(&connection),
            }
        }
    }

    fn send_answers(&self, listener: &Listener) {
        let mut batch = self.batch.borrow_mut();
        let mut queue = listener.queue.borrow_mut();
        let mut sent = 0;
        while sent < queue.len() {
            match batch.send(&listener.socket, &queue, sent) {
                Ok(count) => sent += count.max(1),
                // A full send buffer drops the rest as the network might; the clients ask again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.count_dropped(queue.len() - sent);
                    break;
                }
                // That client cannot be reached; the next one can.
                Err(_) => sent += 1,
            }
        }
        queue.clear();
    }

    fn send_queries(self: &Rc<Worker>, connection: &Arc<UdpConnection>) {
        let mut queue = connection.take_queue();
        let mut sent = 0;
        while sent < queue.len() {
            let tried = self.batch.borrow_mut().send(&connection.socket, &queue, sent);
            match tried {
                Ok(count) => sent += count.max(1),
                // A full send buffer loses the rest as the network might: the resend repairs it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.count_dropped(queue.len() - sent);
                    break;
                }
                // The ICMP answer to an earlier query: nobody is there, for any query of this socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.socket_failed(connection, &error, Clock::now().into_std());
                    break;
                }
                Err(error) => {
                    self.unsent(connection, queue.message(sent), error);
                    sent += 1;
                }
            }
        }
        queue.clear();
        connection.give_queue(queue);
    }

    /// This machine could not send a query.
    fn unsent(self: &Rc<Worker>, connection: &Arc<UdpConnection>, datagram: &[u8], error: io::Error) {
        connection.close(CloseReason::PeerReset);
        let Some(id) = datagram.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        if let Found::Waiting(token) = connection.find(id) {
            connection.answered(id);
            let error = TransportError::from_io(error, Phase::Write, format!("query to {}", connection.peer));
            self.failed(token, Error::from(error), Clock::now().into_std());
        }
    }

    fn count_dropped(&self, datagrams: usize) {
        for _ in 0..datagrams {
            count(&self.shared.counters.local_errors);
        }
    }
}

/// Batches that are read of a listener that is given up.
const REST_MAX: usize = 1024;
