//! Clients on TCP (RFC 7766) and TLS (RFC 7858): queries pipelined, answers in the order in which they come, limits on
//! everything. Those that speak HTTP come in here too, and go on in [`https`](super::https).

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant as Clock, sleep, timeout, timeout_at},
};

use super::{
    access::Permit,
    entrance::Entrance,
    flight::{Client, Origin},
    https, proxy,
    worker::Worker,
};
use crate::{
    config::ListenTransport,
    framing::{Frames, push_frame},
    upstream::count,
};

/// A client's connection, as those see it who answer.
#[derive(Default)]
pub(crate) struct TcpClient {
    output: RefCell<Vec<u8>>,
    in_flight: Cell<usize>,
    closing: Cell<bool>,
    /// The connection has ended: nobody reads what is queued.
    gone: Cell<bool>,
    /// A query of this connection ended since the task looked last.
    answered: Cell<bool>,
    /// The connection's task, while it waits. Taken by the first of many who answer: a batch of answers costs one wake.
    waker: Cell<Option<Waker>>,
}

impl TcpClient {
    /// Queues an answer.
    pub(crate) fn answer(&self, message: &[u8]) {
        // An answer cannot be longer than a DNS message; if it were, the client is better off with a closed connection.
        if !push_frame(&mut self.output.borrow_mut(), message) {
            self.closing.set(true);
        }
        self.over();
    }

    /// Ends the connection: its bytes are not DNS.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.over();
    }

    /// Whether the connection has ended.
    pub(crate) fn has_gone(&self) -> bool {
        self.gone.get()
    }

    fn over(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.answered.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Accepts until the entrance closes.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, entrance: Rc<Entrance>) {
    while entrance.is_open() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = entrance.closed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let access = worker.era().access.clone();
                let is_proxy = access.has_proxies() && access.is_proxy(peer.ip());
                let permit = if is_proxy { access.admit_proxied() } else { access.admit(peer.ip()) };
                match permit {
                    Some(permit) => {
                        let newcomer = Newcomer { stream, peer, permit, is_proxy };
                        tokio::task::spawn_local(enter(worker.clone(), newcomer, entrance.clone()));
                    }
                    None => count(&worker.shared.counters.tcp_rejected),
                }
            }
            Err(error) => {
                // EMFILE and the like: the connection stays in the backlog, so give others time to end.
                count(&worker.shared.counters.local_errors);
                tracing::warn!(%error, "cannot accept a client: local shortage");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was just accepted.
struct Newcomer {
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    is_proxy: bool,
}

/// From the first byte to the last: the proxy's header and the TLS handshake where they are due, within one deadline, then
/// what the listener speaks.
async fn enter(worker: Rc<Worker>, newcomer: Newcomer, entrance: Rc<Entrance>) {
    let (era, listen) = (worker.era(), entrance.listen());
    let Newcomer { mut stream, peer, mut permit, is_proxy } = newcomer;
    let _ = stream.set_nodelay(true);
    let deadline = Clock::now() + era.config.clients.tcp_idle_timeout.min(HANDSHAKE_MAX);
    let mut client = peer.ip();
    if is_proxy {
        let Some(header) = entrance.unless_closed(proxy::read_header(&mut stream, client, deadline)).await else {
            return;
        };
        let Ok(named) = header else {
            tracing::debug!(%peer, "a proxy's connection did not begin with a PROXY header");
            return count(&worker.shared.counters.tcp_rejected);
        };
        client = named;
        permit = match permit.claim(client) {
            Some(permit) => permit,
            None => return count(&worker.shared.counters.tcp_rejected),
        };
    }
    let transport = if listen.transport.is_encrypted() { listen.transport } else { ListenTransport::Tcp };
    let origin = Origin { client: Some(client), transport, allowed: era.access.allows(client) };
    let encryption = era.encryption.clone();
    // A connection may last for long; what it began with is not to last as long.
    drop(era);
    match encryption.as_ref().and_then(|encryption| encryption.acceptor(listen.transport)) {
        None => serve(worker, stream, origin, &entrance).await,
        Some(acceptor) => {
            let handshake = timeout_at(deadline, acceptor.accept(stream));
            let stream = match entrance.unless_closed(handshake).await {
                Some(Ok(Ok(stream))) => stream,
                Some(Ok(Err(error))) => return tracing::debug!(%peer, %error, "tls handshake failed"),
                Some(Err(_)) => return tracing::debug!(%peer, "tls handshake timed out"),
                None => return,
            };
            if listen.transport == ListenTransport::Https {
                https::serve(worker, stream, origin, (&entrance, &listen.path)).await;
            } else {
                serve(worker, stream, origin, &entrance).await;
            }
        }
    }
    drop(permit);
}

/// One client until it leaves, idles too long or misbehaves. Queries still in flight then answer into the void.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(worker: Rc<Worker>, stream: S, origin: Origin, entrance: &Entrance) {
    let idle_timeout = worker.era().config.clients.tcp_idle_timeout;
    let mut stopping = pin!(entrance.closed().fuse());
    // One timer for the whole connection, which is set anew only when it fires: activity is much more frequent.
    let mut idle = pin!(sleep(idle_timeout));
    let mut session = Session::new(&worker, stream, origin, entrance);
    poll_fn(|cx| {
        let now = Clock::now();
        // Registers for the wake-up; that it happened shows in the entrance.
        let _ = stopping.as_mut().poll(cx);
        if session.poll(cx, now).is_ready() {
            return Poll::Ready(());
        }
        while idle.as_mut().poll(cx).is_ready() {
            let until = if session.is_idle() { session.active + idle_timeout } else { now + idle_timeout };
            if until <= now {
                return Poll::Ready(());
            }
            idle.as_mut().reset(until);
        }
        Poll::Pending
    })
    .await;
    session.client.gone.set(true);
    // The end of TLS is a message of its own, for which a client that does not read leaves no room.
    let _ = timeout(SHUTDOWN_MAX, session.stream.shutdown()).await;
}

/// One client's connection and what is under way on it.
struct Session<'a, S> {
    worker: &'a Rc<Worker>,
    entrance: &'a Entrance,
    stream: S,
    client: Rc<TcpClient>,
    origin: Origin,
    input: Frames,
    /// Answers on their way out, and how much of them is written.
    writing: Vec<u8>,
    written: usize,
    /// TLS may hold back what was written, until it is flushed.
    flushing: bool,
    /// When something was read, written or answered last.
    active: Clock,
    /// The client sends no more.
    ended: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(worker: &'a Rc<Worker>, stream: S, origin: Origin, entrance: &'a Entrance) -> Session<'a, S> {
        Session {
            worker,
            entrance,
            stream,
            client: Rc::default(),
            origin,
            input: Frames::new(INPUT),
            writing: Vec::new(),
            written: 0,
            flushing: false,
            active: Clock::now(),
            ended: false,
        }
    }

    /// Reads, asks and answers until there is nothing more to do. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>, now: Clock) -> Poll<()> {
        // Who answers at once, out of `ask`, need not wake anybody.
        let waker = self.client.waker.take();
        if self.client.answered.take() {
            self.active = now;
        }
        loop {
            self.ask(now);
            if self.writing.is_empty() {
                std::mem::swap(&mut self.writing, &mut self.client.output.borrow_mut());
            }
            let over = self.ended || self.client.closing.get() || !self.entrance.is_open();
            if over && self.is_quiet() {
                return Poll::Ready(());
            }
            match (self.poll_write(cx), self.poll_read(cx)) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
                (Poll::Pending, Poll::Pending) => break,
                _ => self.active = now,
            }
        }
        let waker = waker.filter(|waker| waker.will_wake(cx.waker())).unwrap_or_else(|| cx.waker().clone());
        self.client.waker.set(Some(waker));
        Poll::Pending
    }

    /// Asks what was read, as far as the limit allows.
    fn ask(&mut self, now: Clock) {
        let in_flight = &self.client.in_flight;
        while in_flight.get() < self.in_flight_max() && !self.client.closing.get() {
            let Some(query) = self.input.next() else { return };
            in_flight.set(in_flight.get() + 1);
            self.worker.ask(query, Client::Tcp(self.client.clone()), self.origin, now.into_std());
        }
    }

    /// Ready when something was written; pending also when there is nothing to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.is_empty() {
            if !self.flushing {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
            return Poll::Ready(Ok(()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing[self.written..]))?;
        self.flushing = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        self.written += written;
        if self.written == self.writing.len() {
            self.written = 0;
            self.writing.clear();
            self.writing.shrink_to(OUTPUT_KEPT);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when something was read, or the client's end; pending also while nothing is to be read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that does not read its answers gets no more of them.
        let reads = !self.ended
            && !self.client.closing.get()
            && self.client.in_flight.get() < self.in_flight_max()
            && self.client.output.borrow().len() + self.writing.len() - self.written < OUTPUT_MAX;
        if !reads {
            return Poll::Pending;
        }
        // RFC 7766 section 6.2.4: a half-closed client still gets its answers.
        self.ended = ready!(self.input.poll_fill(&mut self.stream, cx))? == 0;
        Poll::Ready(Ok(()))
    }

    /// Nothing is under way and nothing is to be written.
    fn is_quiet(&self) -> bool {
        self.client.in_flight.get() == 0 && self.writing.is_empty() && !self.flushing
    }

    /// Only the client keeps the connection from being closed: it neither asks nor reads its answers.
    fn is_idle(&self) -> bool {
        self.client.in_flight.get() == 0 || !self.writing.is_empty() || self.flushing
    }

    fn in_flight_max(&self) -> usize {
        self.worker.era.borrow().config.clients.tcp_max_in_flight
    }
}

const INPUT: usize = 4096;

/// Answers that may wait for a client that reads slowly.
const OUTPUT_MAX: usize = 256 * 1024;

/// Bytes of an empty output buffer that are kept for the next answers.
const OUTPUT_KEPT: usize = 16 * 1024;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For how long a PROXY header and a handshake are waited for, where the idle time-out is longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// For how long the end of a connection may take to be sent.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);
