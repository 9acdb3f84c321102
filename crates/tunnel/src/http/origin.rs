//! The connection to an origin, through a tunnel, for the requests of one client: one exchange at a time, and the next only after the body
//! before it was read to its end.
//!
//! What is deliberately not here: a pool. A connection serves the client that it was made for and nobody else.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    driver::{Driver, Drivers},
    refusal::Refusal,
    stage::Stage,
    tunnel,
    upload::Upload,
};
use crate::{
    Traffic, permits,
    relay::RelayOptions,
    server::{ClientInfo, Shared},
    stream::Stream,
};

/// A connection to an origin.
pub(super) struct Origin {
    sender: SendRequest<Upload>,
    target: Target,
    /// By which rules and upstreams its tunnel came about.
    ways: u64,
    /// Bytes that came.
    received: Arc<AtomicU64>,
    /// For the client's socket, when the protocol changes.
    switch: oneshot::Sender<(TcpStream, Bytes)>,
    rest: Arc<Rest>,
    driver: Driver,
}

/// Why a request got no answer.
pub(super) struct Failed {
    /// The request as it was, where not a byte of it was sent.
    pub(super) unsent: Option<Box<Request<Upload>>>,
    /// Not a byte came back.
    pub(super) is_silent: bool,
    pub(super) refusal: Refusal,
}

impl Origin {
    /// # Cancel safety
    /// Dropping the future closes what was begun.
    pub(super) async fn open(
        shared: Arc<Shared>,
        client: ClientInfo,
        target: &Target,
        drivers: &Drivers,
    ) -> Result<Origin, Refusal> {
        let (opened, opening) = oneshot::channel();
        let (switch, switched) = oneshot::channel();
        let received = Arc::new(AtomicU64::new(0));
        let rest = Arc::new(Rest::default());
        let user = User { received: received.clone(), rest: rest.clone(), opened, switched };
        let driver = drivers.add(drive(shared, client, target.clone(), user));
        let gone = |_| Err(Refusal::origin(format!("exchange with {target}: given up")));
        let (sender, ways) = opening.await.unwrap_or_else(gone)?;
        Ok(Origin { sender, target: target.clone(), ways, received, switch, rest, driver })
    }

    /// Waits until the next request may be sent; false: the origin has closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request, and awaits the head of the final answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn send(&mut self, request: Request<Upload>, stage: &Stage) -> Result<Response<Incoming>, Failed> {
        let before = self.received.load(Ordering::Relaxed);
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let mut failure = loop {
            tokio::select! {
                biased;
                answer = &mut answer => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => break failure,
                },
                () = stage.interim_came() => {}
            }
        };
        Err(Failed {
            unsent: failure.take_message().map(Box::new),
            is_silent: self.received.load(Ordering::Relaxed) == before,
            refusal: explain(&self.target, failure.error()),
        })
    }

    /// Relays between the client and the origin, which has changed the protocol. `rest`: what the client has sent for it.
    ///
    /// # Cancel safety
    /// Dropping the future closes both connections.
    pub(super) async fn switch(self, client: TcpStream, rest: Bytes) {
        let Origin { switch, driver, .. } = self;
        // It fails when the connection has ended, as the driver then has.
        if switch.send((client, rest)).is_ok() {
            driver.ended().await;
        }
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// What a driver has of the [`Origin`] that it drives.
struct User {
    received: Arc<AtomicU64>,
    rest: Arc<Rest>,
    /// With the ways of the tunnel.
    opened: oneshot::Sender<Result<(SendRequest<Upload>, u64), Refusal>>,
    switched: oneshot::Receiver<(TcpStream, Bytes)>,
}

/// Makes the tunnel, runs HTTP on it, and relays when the protocol changes. The tunnel counts as live until this ends.
async fn drive(shared: Arc<Shared>, client: ClientInfo, target: Target, user: User) {
    let User { received, rest, opened, switched } = user;
    let (stream, listed) = match shared.open(client, target.clone(), Bytes::new()).await {
        Ok(made) => made,
        Err(error) => return drop(opened.send(Err(Refusal::from(&error)))),
    };
    let has_ended = AtomicBool::new(false);
    let io = OriginIo { stream, traffic: listed.traffic(), received, has_ended: &has_ended };
    let mut builder = Builder::new();
    builder.max_buf_size(BUFFER_MAX).preserve_header_case(true).title_case_headers(true);
    let mut connection = match builder.handshake(TokioIo::new(io)).await {
        Ok((sender, connection)) => {
            if opened.send(Ok((sender, listed.ways()))).is_err() {
                return;
            }
            connection
        }
        Err(error) => return drop(opened.send(Err(explain(&target, &error)))),
    };
    let exchanges = tokio::select! {
        biased;
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
        () = rest.is_over(|| listed.is_wanted()) => return,
    };
    if let Err(error) = exchanges {
        tracing::debug!(%error, "a connection of the http proxy to an origin failed");
        return;
    }
    // HTTP ends at the origin's end, with its last user, who drops the other side of the channel, or with a change of protocol.
    if has_ended.load(Ordering::Relaxed) {
        return;
    }
    let parts = connection.into_parts();
    if let Ok((client, rest)) = switched.await {
        let options = RelayOptions::from(&*shared.connector.config());
        let upstream = parts.io.into_inner().stream;
        tunnel::carry((client, rest), (upstream, parts.read_buf), &options, listed.traffic()).await;
    }
}

/// The tunnel below.
struct OriginIo<'a> {
    stream: Stream,
    traffic: &'a Traffic,
    received: Arc<AtomicU64>,
    /// The origin will send no more.
    has_ended: &'a AtomicBool,
}

impl AsyncRead for OriginIo<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = (buffer.filled().len() - before) as u64;
        if read > 0 {
            this.received.fetch_add(read, Ordering::Relaxed);
            this.traffic.received.fetch_add(read, Ordering::Relaxed);
        } else if poll.is_ready() {
            this.has_ended.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for OriginIo<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.count(poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.count(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl OriginIo<'_> {
    fn count(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = poll {
            self.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        poll
    }
}

/// The time between two requests, as the connection's driver sees it.
#[derive(Default)]
struct Rest {
    /// `None`: the connection is in use.
    until: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Rest {
    fn set(&self, until: Option<Instant>) {
        *self.until.lock() = until;
        self.changed.notify_one();
    }

    /// Ends when the connection is in nobody's use, and has been for its time or is wanted by others.
    async fn is_over(&self, is_wanted: impl Fn() -> bool) {
        loop {
            let Some(until) = *self.until.lock() else {
                self.changed.notified().await;
                continue;
            };
            let mut wait = pin!(permits::next_wait());
            wait.as_mut().enable();
            if is_wanted() || until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = wait => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The connection that a client left open.
#[derive(Default)]
pub(super) struct Keeper(Mutex<Option<Origin>>);

impl Keeper {
    /// Keeps a connection that is free, for as long as its server said, and [`KEEP_MAX`] at most, and until others wait for its destination.
    pub(super) fn keep(&self, origin: Origin, limit: Option<Duration>) {
        if !origin.is_closed() {
            origin.rest.set(Some(Instant::now() + limit.unwrap_or(KEEP_MAX).min(KEEP_MAX)));
            *self.0.lock() = Some(origin);
        }
    }

    /// The connection, if it leads there by the ways that are in force; another one is closed.
    pub(super) fn take(&self, target: &Target, ways: u64) -> Option<Origin> {
        let is_right = |origin: &Origin| origin.target == *target && origin.ways == ways;
        let origin = self.0.lock().take().filter(is_right)?;
        origin.rest.set(None);
        Some(origin)
    }

    /// Closes what is kept.
    pub(super) fn clear(&self) {
        drop(self.0.lock().take());
    }
}

fn explain(target: &Target, error: &hyper::Error) -> Refusal {
    let why = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "connection closed before an answer".to_owned()
    } else if error.is_parse() {
        format!("the answer is not valid http/1.1: {error}")
    } else {
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")).to_lowercase()
    };
    Refusal::origin(format!("exchange with {target}: {why}"))
}

/// For how long a connection waits for its client's next request. It counts as a live tunnel to its destination, of which there may be few,
/// so it is short: enough for what a page loads, not for what its reader does.
const KEEP_MAX: Duration = Duration::from_secs(5);

/// Bytes of hyper's read buffer, and with it the size of an answer's head.
const BUFFER_MAX: usize = 64 * 1024;
