//! Clients over QUIC: who gets in, what the streams of one connection share, and how a connection ends.
//!
//! What is spoken on the streams is in [`doq`](super::doq) and [`h3`](super::h3). The limits are those of TCP clients.

use std::{cell::Cell, net::IpAddr, pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use keepwarm_transport::{
    error::Error as TransportError,
    quic::server::{QuicLimits, QuicListener, QuicServer, h3::UNI_STREAMS_MAX, handshake},
    tls::TlsServer,
};
use quinn::{Incoming, VarInt};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant as Clock, sleep_until, timeout},
};

use super::{
    access::Permit,
    doq,
    entrance::Entrance,
    flight::{Client, Origin, Request},
    h3,
    worker::Worker,
};
use crate::{
    config::{DnsConfig, ListenTransport},
    upstream::count,
};

/// The settings of the listeners of this kind.
///
/// # Errors
/// See [`QuicServer::new`].
pub(super) fn settings(
    config: &DnsConfig,
    tls: &TlsServer,
    transport: ListenTransport,
) -> Result<QuicServer, TransportError> {
    let (alpn, uni_streams_max): (&[u8], _) = match transport {
        ListenTransport::H3 => (b"h3", UNI_STREAMS_MAX),
        // RFC 9250 section 4.1.1, and section 4.2: there are none.
        _ => (b"doq", 0),
    };
    let clients = &config.clients;
    let limits = QuicLimits {
        streams_max: u32::try_from(clients.tcp_max_in_flight).unwrap_or(u32::MAX),
        uni_streams_max,
        // Answers may take as long as the deadline, in which nothing else may be heard; whether the client idles is seen here.
        idle_timeout: clients.tcp_idle_timeout.max(config.timeout + IDLE_MARGIN),
    };
    QuicServer::new(tls.config(&[alpn]), &limits)
}

/// Lets clients in on this socket.
pub(super) fn listen(worker: &Rc<Worker>, socket: std::net::UdpSocket, entrance: Rc<Entrance>) -> Option<QuicListener> {
    let (encryption, listen) = (worker.era().encryption.clone()?, entrance.listen());
    match encryption.quic(listen.transport).listen(socket) {
        Ok(listener) => {
            tokio::task::spawn_local(accept(worker.clone(), listener.clone(), entrance));
            Some(listener)
        }
        Err(error) => {
            tracing::error!(%error, address = %listen.address, "a worker cannot take clients over quic");
            None
        }
    }
}

/// Accepts until the entrance closes.
async fn accept(worker: Rc<Worker>, listener: QuicListener, entrance: Rc<Entrance>) {
    let unproven = Rc::<Cell<usize>>::default();
    while entrance.is_open() {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            () = entrance.closed() => break,
        };
        let Some(incoming) = incoming else { break };
        if let Some(arrival) = Arrival::admit(&worker, incoming, &unproven) {
            tokio::task::spawn_local(arrival.serve(worker.clone(), entrance.clone()));
        }
    }
    listener.stop_listening();
}

/// Lets connections that end by themselves do so for a moment, then closes the others.
pub(super) async fn close(listeners: &[QuicListener]) {
    let all_idle = async || {
        for listener in listeners {
            listener.wait_idle().await;
        }
    };
    if timeout(LINGER, all_idle()).await.is_err() {
        listeners.iter().for_each(|listener| listener.close(NO_ERROR));
        let _ = timeout(LINGER, all_idle()).await;
    }
}

/// A client that may make its handshake.
struct Arrival {
    incoming: Incoming,
    client: IpAddr,
    /// The client has its place. One whose address may be forged gets it after the handshake, which proves the address: else
    /// a forger could take all places of somebody else.
    permit: Option<Permit>,
    _unproven: Option<Unproven>,
}

impl Arrival {
    /// Looks at a client's first packet. The others are refused, or told to come again with a proof of their address (Retry,
    /// RFC 9000 section 8.1.2), before anything is computed for them.
    fn admit(worker: &Worker, incoming: Incoming, unproven: &Rc<Cell<usize>>) -> Option<Arrival> {
        let (access, counters) = (worker.era().access.clone(), &worker.shared.counters);
        let client = incoming.remote_address().ip();
        // A proxy has no way to name its client here, and is none itself.
        if !access.allows(client) || access.is_proxy(client) {
            count(&counters.refused);
            incoming.refuse();
            return None;
        }
        let proven = incoming.remote_address_validated();
        if !proven && unproven.get() >= UNPROVEN_MAX {
            // It can be retried, for its address is not proven.
            let _ = incoming.retry();
            return None;
        }
        let Some(permit) = access.admit(client) else {
            count(&counters.tcp_rejected);
            incoming.refuse();
            return None;
        };
        let _unproven = (!proven).then(|| Unproven::new(unproven));
        Some(Arrival { incoming, client, permit: proven.then_some(permit), _unproven })
    }

    /// One client until it leaves, idles too long or misbehaves.
    async fn serve(self, worker: Rc<Worker>, entrance: Rc<Entrance>) {
        let listen = entrance.listen();
        let Arrival { incoming, client, permit, _unproven } = self;
        let deadline = Clock::now() + worker.era().config.clients.tcp_idle_timeout.min(HANDSHAKE_MAX);
        let connection = match handshake(incoming, deadline.into_std()).await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "a quic client did not get in"),
        };
        drop(_unproven);
        let Some(_permit) = permit.or_else(|| worker.era().access.admit(client)) else {
            count(&worker.shared.counters.tcp_rejected);
            return connection.close(excessive_load(listen.transport), b"too many connections");
        };
        let origin = Origin { client: Some(client), transport: listen.transport, allowed: true };
        let session = Session::new(worker, origin, entrance);
        match listen.transport {
            ListenTransport::H3 => h3::serve(&session, connection, &listen.path).await,
            _ => doq::serve(&session, connection).await,
        }
    }
}

/// One of the handshakes with clients whose addresses are not proven.
struct Unproven(Rc<Cell<usize>>);

impl Unproven {
    fn new(count: &Rc<Cell<usize>>) -> Unproven {
        count.set(count.get() + 1);
        Unproven(count.clone())
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What the streams of one connection share.
pub(super) struct Session {
    worker: Rc<Worker>,
    entrance: Rc<Entrance>,
    origin: Origin,
    tally: Rc<Tally>,
    /// Streams on which a query is whole and its answer has not arrived.
    busy: Cell<usize>,
    /// Bytes of queries that are not whole.
    unfinished: Cell<usize>,
}

/// The queries of one connection that the worker has. It outlives the connection with them.
struct Tally {
    /// Those that their clients gave up included: who cancels queries gets no room for more.
    in_flight: Cell<usize>,
    /// When a query came or was over last.
    active: Cell<Clock>,
    changed: Notify,
}

impl Session {
    fn new(worker: Rc<Worker>, origin: Origin, entrance: Rc<Entrance>) -> Session {
        let tally = Tally { in_flight: Cell::new(0), active: Cell::new(Clock::now()), changed: Notify::new() };
        Session { worker, entrance, origin, tally: Rc::new(tally), busy: Cell::new(0), unfinished: Cell::new(0) }
    }

    /// Asks. `None` when there is no answer to give.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up.
    pub(super) async fn ask(&self, query: &[u8]) -> Option<Bytes> {
        let tally = self.tally.clone();
        tally.in_flight.set(tally.in_flight.get() + 1);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { tally, answer: Some(answer) };
        self.worker.ask(query, Client::Request(Box::new(asked)), self.origin, Clock::now().into_std());
        answered.await.ok()
    }

    /// Whether one more query may be asked.
    pub(super) fn has_room(&self) -> bool {
        self.tally.in_flight.get() < self.worker.era.borrow().config.clients.tcp_max_in_flight
    }

    /// Waits until a query is over.
    pub(super) async fn changed(&self) {
        self.tally.changed.notified().await;
    }

    /// A stream has its query whole and its answer is not there yet, while what is returned lives.
    pub(super) fn busy(&self) -> Held<'_> {
        Held::new(&self.busy, 1)
    }

    /// Nobody waits for an answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.get() == 0
    }

    /// Bytes of a query that is not whole, while what is returned lives. `None` when the client has begun too many.
    pub(super) fn unfinished(&self, bytes: usize) -> Option<Held<'_>> {
        (self.unfinished.get() + bytes <= UNFINISHED_MAX).then(|| Held::new(&self.unfinished, bytes))
    }

    /// Waits until the client has asked nothing and waited for nothing for too long.
    pub(super) async fn idle(&self) {
        let idle_timeout = self.worker.era().config.clients.tcp_idle_timeout;
        loop {
            let now = Clock::now();
            let since = if self.tally.in_flight.get() == 0 { self.tally.active.get() } else { now };
            if since + idle_timeout <= now {
                return;
            }
            sleep_until(since + idle_timeout).await;
        }
    }

    /// Whether no more queries are taken.
    pub(super) fn is_stopping(&self) -> bool {
        !self.entrance.is_open()
    }

    /// Waits until no more queries are taken.
    pub(super) async fn stopping(&self) {
        let mut told = pin!(self.entrance.closed());
        told.as_mut().enable();
        if !self.is_stopping() {
            told.await;
        }
    }
}

/// A share of a count, given back when dropped.
pub(super) struct Held<'a> {
    total: &'a Cell<usize>,
    share: usize,
}

impl Held<'_> {
    fn new(total: &Cell<usize>, share: usize) -> Held<'_> {
        total.set(total.get() + share);
        Held { total, share }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.share);
    }
}

/// A query that the worker has.
struct Asked {
    tally: Rc<Tally>,
    answer: Option<oneshot::Sender<Bytes>>,
}

impl Request for Asked {
    fn answer(mut self: Box<Self>, message: &[u8]) {
        if let Some(answer) = self.answer.take().filter(|answer| !answer.is_closed()) {
            let _ = answer.send(Bytes::copy_from_slice(message));
        }
    }

    fn is_wanted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Tally { in_flight, active, changed } = &*self.tally;
        in_flight.set(in_flight.get() - 1);
        active.set(Clock::now());
        changed.notify_one();
    }
}

/// How a connection is refused at a limit.
fn excessive_load(transport: ListenTransport) -> VarInt {
    match transport {
        ListenTransport::H3 => h3::EXCESSIVE_LOAD,
        _ => doq::EXCESSIVE_LOAD,
    }
}

/// The end of a connection that nobody is to blame for. HTTP/3 has another number for it and says so itself; to its clients
/// this one means the same (RFC 9114 section 8).
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// A client that takes longer for its handshake is closed, if it has not idled too long by then.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Handshakes of one listener with clients whose addresses are not proven; the next ones have to prove theirs first.
const UNPROVEN_MAX: usize = 32;

/// Bytes of queries that are not whole, over all streams of one connection.
pub(super) const UNFINISHED_MAX: usize = 128 * 1024;

/// For how long a connection outlives the deadline of a query.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// For how long connections may end by themselves when the server does.
const LINGER: Duration = Duration::from_millis(250);
