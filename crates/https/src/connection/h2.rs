//! HTTP/2 on one connection: requests on streams of their own, the peer's limit on them, GOAWAY, and pings while it idles.
//!
//! What is deliberately not here: server push (never accepted).

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, response};
use http_body::Frame;
use http2::{
    Ping, PingPong, Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::error::{Error, ErrorKind, Phase};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, Sleep},
};

use super::{Dialer, upload::Upload};
use crate::{
    body::RequestBody,
    exchange::{Failure, Sending},
};

/// Sends requests on one connection.
pub(crate) struct Handle {
    /// The only strong reference: the connection closes when it is gone.
    sender: Arc<Mutex<SendRequest<Bytes>>>,
    pings: mpsc::Sender<oneshot::Sender<()>>,
    address: SocketAddr,
}

/// Makes the preface and starts what drives the connection. Returns also how many streams the peer is assumed to allow before it says so.
pub(crate) async fn connect<S>(
    stream: S,
    builder: &client::Builder,
    slot: Slot<Dialer>,
    check_interval: Duration,
    address: SocketAddr,
) -> Result<(Handle, u32), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = builder.clone();
    builder
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .reset_stream_duration(RESET_STREAM_MEMORY)
        .max_local_error_reset_streams(Some(FORGOTTEN_MAX));
    let (sender, mut connection) = builder.handshake(stream).await.map_err(|error| explain(&error, address))?;
    let ping = connection.ping_pong();
    let sender = Arc::new(Mutex::new(sender));
    let (pings, orders) = mpsc::channel(PINGS_MAX);
    let capacity = connection.max_concurrent_send_streams();
    let driver = Driver {
        connection,
        sender: Arc::downgrade(&sender),
        slot: slot.clone(),
        capacity,
        going_away: false,
        watch: Watch {
            ping,
            orders: Some(orders),
            waiting: Vec::new(),
            pong_by: None,
            idle: Box::pin(tokio::time::sleep(check_interval)),
            interval: check_interval,
        },
        closing: None,
    };
    tokio::spawn(async move { slot.closed(driver.await) });
    Ok((Handle { sender, pings, address }, u32::try_from(capacity).unwrap_or(u32::MAX)))
}

/// Drives the connection, tells the pool what the peer changes, and pings while nothing else happens.
struct Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection: client::Connection<S>,
    sender: Weak<Mutex<SendRequest<Bytes>>>,
    slot: Slot<Dialer>,
    /// What the pool was told last.
    capacity: usize,
    going_away: bool,
    watch: Watch,
    /// Runs once nobody holds the connection: a peer that does not close its side must not keep it.
    closing: Option<Pin<Box<Sleep>>>,
}

/// Pings: for those who ask whether the connection lives, and while it idles.
struct Watch {
    ping: Option<PingPong>,
    /// `None` once nobody can ask any more.
    orders: Option<mpsc::Receiver<oneshot::Sender<()>>>,
    waiting: Vec<oneshot::Sender<()>>,
    /// A ping was sent; without a pong by then the connection is dead.
    pong_by: Option<Pin<Box<Sleep>>>,
    idle: Pin<Box<Sleep>>,
    interval: Duration,
}

impl<S> Future for Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.connection).poll(cx) {
            return Poll::Ready(match result {
                _ if this.going_away => CloseReason::GoAway,
                Ok(()) => CloseReason::PeerClosed,
                Err(error) if error.is_go_away() && error.is_remote() => CloseReason::GoAway,
                Err(error) => reason(&error),
            });
        }
        let Some(sender) = this.sender.upgrade() else {
            let closing = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_MAX)));
            return closing.as_mut().poll(cx).map(|()| CloseReason::Discarded);
        };
        this.tell(&sender, cx);
        let idle = || sender.lock().num_active_streams() == 0;
        this.watch.poll(idle, cx)
    }
}

impl<S> Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn tell(&mut self, sender: &Mutex<SendRequest<Bytes>>, cx: &mut Context<'_>) {
        // http2 tells of a GOAWAY those who would send, so one asks without sending.
        // A clone: the sender itself would take the waker of an upload that waits in line.
        let ready = sender.lock().clone().poll_ready(cx);
        if !self.going_away && matches!(&ready, Poll::Ready(Err(error)) if error.is_go_away() && error.is_remote()) {
            self.going_away = true;
            self.slot.drain();
        }
        let capacity = self.connection.max_concurrent_send_streams();
        if capacity != self.capacity {
            self.capacity = capacity;
            self.slot.set_capacity(u32::try_from(capacity).unwrap_or(u32::MAX));
        }
    }
}

impl Watch {
    /// Ready when the connection is dead.
    fn poll(&mut self, idle: impl FnOnce() -> bool, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.take_orders(cx);
        if self.idle.as_mut().poll(cx).is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.interval);
            // Registers the new time.
            let _ = self.idle.as_mut().poll(cx);
            if self.pong_by.is_none() && idle() {
                self.send();
            }
        }
        if self.pong_by.is_none() && !self.waiting.is_empty() {
            self.send();
        }
        self.await_pong(cx)
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) {
        while let Some(orders) = &mut self.orders {
            match orders.poll_recv(cx) {
                Poll::Ready(Some(order)) if self.waiting.len() < PINGS_MAX => self.waiting.push(order),
                // Whoever asked learns that it was not answered.
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => self.orders = None,
                Poll::Pending => return,
            }
        }
    }

    fn send(&mut self) {
        if let Some(ping) = &mut self.ping
            && ping.send_ping(Ping::opaque()).is_ok()
        {
            self.pong_by = Some(Box::pin(tokio::time::sleep(PONG_MAX)));
        }
    }

    fn await_pong(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (Some(ping), Some(pong_by)) = (&mut self.ping, &mut self.pong_by) else { return Poll::Pending };
        match ping.poll_pong(cx) {
            Poll::Ready(Ok(_)) => {
                self.pong_by = None;
                for asked in self.waiting.drain(..) {
                    // Whoever asked may have gone.
                    let _ = asked.send(());
                }
                Poll::Pending
            }
            // The connection's own end says more.
            Poll::Ready(Err(_)) => {
                self.pong_by = None;
                Poll::Pending
            }
            Poll::Pending => pong_by.as_mut().poll(cx).map(|()| CloseReason::Broken),
        }
    }
}

/// An answer's head with what is still to come.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: RecvStream,
    /// Sends the rest of the request's body.
    pub(crate) upload: Option<Upload>,
}

impl Handle {
    /// Sends a request, whose URI and version are as HTTP/2 wants them, and awaits the head of its answer. `body` is taken once its first
    /// byte is on its way.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        body: &mut RequestBody,
        body_timeout: Duration,
        sending: Arc<Sending>,
    ) -> Result<Answer, Failure> {
        let expects = expects_continue(request.headers());
        let unsent = |error: http2::Error| Failure::new(explain(&error, self.address).not_processed());
        let whole = body.whole().cloned();
        let ends = whole.as_ref().is_some_and(Bytes::is_empty);
        let mut request = Some(request);
        let started = poll_fn(|cx| {
            let request = request.take().expect("it is polled once: it never waits");
            Poll::Ready(self.start(request, ends, cx))
        });
        let (mut response, mut stream) = started.await.map_err(unsent)?;
        let mut upload = None;
        match whole {
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => {
                *body = RequestBody::empty();
                // This fails only on a stream that has ended meanwhile; why it did, the answer's future says.
                let _ = stream.send_data(bytes, true);
            }
            None => {
                if expects && let Some(answer) = self.wanted(&mut response).await? {
                    return Ok(answer);
                }
                upload = Some(Upload::start(std::mem::take(body), stream, body_timeout, sending));
            }
        }
        match response.await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Answer { head, body, upload })
            }
            Err(error) => match upload.and_then(|upload| upload.failure()) {
                Some(error) => Err(Failure::request_body(error)),
                None => Err(self.failed(&error)),
            },
        }
    }

    fn start(
        &self,
        request: Request<()>,
        ends: bool,
        cx: &mut Context<'_>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), http2::Error> {
        // A sender whose last request waits in line for a stream takes no other before it, and would take the waker of its upload. A
        // clone does neither, and its request waits in the same line.
        let mut sender = self.sender.lock().clone();
        if let Poll::Ready(result) = sender.poll_ready(cx) {
            result?;
        }
        sender.send_request(request, ends)
    }

    /// Awaits the server's word on whether it wants the body (RFC 9110 section 10.1.1): an answer means that it does not. Without a word
    /// the body is sent after [`EXPECT_MAX`].
    async fn wanted(&self, response: &mut ResponseFuture) -> Result<Option<Answer>, Failure> {
        let mut patience = std::pin::pin!(tokio::time::sleep(EXPECT_MAX));
        let result = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(informational))) = response.poll_informational(cx) {
                if informational.status() == StatusCode::CONTINUE {
                    return Poll::Ready(None);
                }
            }
            if let Poll::Ready(result) = Pin::new(&mut *response).poll(cx) {
                return Poll::Ready(Some(result));
            }
            patience.as_mut().poll(cx).map(|()| None)
        });
        match result.await {
            None => Ok(None),
            Some(Ok(response)) => {
                let (head, body) = Response::into_parts(response);
                Ok(Some(Answer { head, body, upload: None }))
            }
            Some(Err(error)) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &http2::Error) -> Failure {
        let explained = explain(error, self.address);
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => Failure::Refused(explained),
            Some(_) if error.is_reset() && error.is_remote() => Failure::Reset(explained),
            _ => Failure::new(explained),
        }
    }

    /// Whether the peer still answers.
    pub(crate) async fn ping(&self, ip: IpAddr) -> Result<(), Error> {
        let (asked, answered) = oneshot::channel();
        let dead = || Error::new(ErrorKind::Eof, Phase::Read, format!("ping {ip}"), "the connection has ended");
        self.pings.try_send(asked).map_err(|_| dead())?;
        answered.await.map_err(|_| dead())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An answer's body.
pub(crate) struct Incoming {
    body: RecvStream,
    address: SocketAddr,
    /// Bytes that are still to come; `None` where the head did not say.
    left: Option<u64>,
    data_ended: bool,
    is_over: bool,
}

impl Incoming {
    pub(crate) fn new(body: RecvStream, address: SocketAddr, length: Option<u64>) -> Incoming {
        Incoming { body, address, left: length, data_ended: false, is_over: false }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if !self.data_ended {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever polls has taken the piece before: its place in the window is free. A stream that ended needs none.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(self.ended(&error)),
                None => self.data_ended = true,
            }
        }
        match ready!(self.body.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers: HeaderMap| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(self.ended(&error)),
        }
    }

    /// A server that has sent its whole answer may ask, by a reset without an error, that the rest of the request is not sent: the answer
    /// stands (RFC 9113 section 8.1).
    fn ended(&mut self, error: &http2::Error) -> Option<Result<Frame<Bytes>, Error>> {
        let asks_to_stop = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        if asks_to_stop && self.left.is_none_or(|left| left == 0) {
            self.is_over = true;
            return None;
        }
        Some(Err(explain(error, self.address)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }
}

pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(http::header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn reason(error: &http2::Error) -> CloseReason {
    match error.get_io().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset) => CloseReason::PeerReset,
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => CloseReason::PeerClosed,
        _ => CloseReason::Broken,
    }
}

fn explain(error: &http2::Error, address: SocketAddr) -> Error {
    let tried = format!("exchange with {address}");
    if let Some(io) = error.get_io() {
        // http2 reports the end of the stream as a broken pipe of its own making, without a system code.
        let eof = io.kind() == io::ErrorKind::BrokenPipe && io.raw_os_error().is_none();
        let io = match io.raw_os_error() {
            _ if eof => io::ErrorKind::UnexpectedEof.into(),
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(io.kind(), io.to_string()),
        };
        return Error::from_io(io, Phase::Http, tried);
    }
    let Some(reason) = error.reason() else {
        // What http2 calls a user error: a request that it cannot express, or no stream id left. The peer saw none of it.
        return Error::new(ErrorKind::Other, Phase::Http, tried, format!("http/2 request not possible: {error}"));
    };
    if error.is_go_away() && error.is_remote() {
        // http2 gives this to streams above the GOAWAY's last one and to those not opened yet (RFC 9113 section 6.8).
        let happened = format!("the server is closing the connection (goaway: {})", reason.description());
        return Error::new(ErrorKind::Http2, Phase::Http, tried, happened).not_processed();
    }
    if error.is_reset() && error.is_remote() {
        let happened = format!("stream reset by peer: {}", reason.description());
        let explained = Error::new(ErrorKind::Http2, Phase::Http, tried, happened);
        return if reason == Reason::REFUSED_STREAM { explained.not_processed() } else { explained };
    }
    Error::new(ErrorKind::Http2, Phase::Http, tried, format!("http/2 failed: {error}"))
}

/// Streams that we reset and still remember, so that answers on their way to them are dropped in silence.
const RESET_STREAMS_MAX: usize = 1024;

/// How long they are remembered: the longest round trip that an answer is late by.
const RESET_STREAM_MEMORY: Duration = Duration::from_secs(2);

/// Frames for streams that we forgot, in the life of a connection. http2 cannot tell them from a peer that breaks the rules and ends
/// the connection at this count; its default of 1,024 is used up by callers who give up often.
const FORGOTTEN_MAX: usize = 65_536;

/// Callers that ask at a time whether one connection lives; more need not ask.
const PINGS_MAX: usize = 16;

/// Longest time from a ping to its pong.
const PONG_MAX: Duration = Duration::from_secs(10);

/// For how long a connection that nobody holds may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// For how long a request that expects 100 (Continue) waits for it.
pub(crate) const EXPECT_MAX: Duration = Duration::from_secs(1);
