//! HTTP/2 through the `h2` crate: streams, the peer's limit on them, GOAWAY and PING.
//!
//! What is deliberately not here: server push (turned off) and bodies that are streamed.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{Request, Response, response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, watch},
};

use super::{HttpEnd, HttpStatus, Peer, Protocol};
use crate::error::{Error, ErrorKind, Phase};

/// Sends requests on one connection.
#[derive(Clone)]
pub(super) struct Handle {
    /// The only strong references: h2 closes the connection when the last sender is gone.
    sender: Arc<SendRequest<Bytes>>,
    pinger: Arc<Mutex<Pinger>>,
}

/// Sends requests from one place, without a handle of h2's own for each.
pub(super) struct Sender {
    origin: Arc<SendRequest<Bytes>>,
    current: SendRequest<Bytes>,
}

struct Pinger {
    pings: PingPong,
    /// A ping was sent and its pong not seen yet; h2 allows one at a time.
    outstanding: bool,
}

/// Drives the connection and reports what the peer changes meanwhile.
struct Driver<S> {
    connection: client::Connection<S>,
    sender: Weak<SendRequest<Bytes>>,
    status: watch::Sender<HttpStatus>,
    /// What `status` was told last.
    told: HttpStatus,
    peer: Peer,
}

pub(super) async fn connect<S>(
    stream: S,
    peer: &Peer,
    status: watch::Sender<HttpStatus>,
) -> Result<(Protocol, Pin<Box<dyn Future<Output = HttpEnd> + Send>>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS_INITIAL)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .reset_stream_duration(RESET_STREAM_MEMORY)
        .max_local_error_reset_streams(Some(FORGOTTEN_MAX))
        .handshake(stream)
        .await
        .map_err(|error| explain(error, peer))?;
    let pings = connection.ping_pong().expect("taken once, right after the handshake");
    let sender = Arc::new(sender);
    let told = HttpStatus { max_streams: STREAMS_INITIAL, going_away: false };
    status.send_replace(told);
    let driver = Driver { connection, sender: Arc::downgrade(&sender), status, told, peer: peer.clone() };
    let pinger = Arc::new(Mutex::new(Pinger { pings, outstanding: false }));
    Ok((Protocol::Http2(Handle { sender, pinger }), Box::pin(driver)))
}

impl Handle {
    pub(super) async fn send(
        self,
        request: Request<Bytes>,
        max_body: usize,
        peer: &Peer,
    ) -> Result<Response<Bytes>, Error> {
        let (mut parts, body) = request.into_parts();
        parts.uri = peer.absolute(parts.uri)?;
        parts.version = http::Version::HTTP_2;
        let unsent = |error| explain(error, peer).not_processed();
        let mut sender = (*self.sender).clone().ready().await.map_err(unsent)?;
        let mut exchange = Exchange::start(&mut sender, Request::from_parts(parts, ()), body, peer)?;
        // Only the stream is held while the answer is awaited: an answer must not keep a released connection open.
        drop((sender, self));
        poll_fn(|cx| exchange.poll(cx, max_body, peer)).await
    }

    /// A sender for many requests from one place.
    pub(super) fn sender(&self) -> Sender {
        Sender { origin: self.sender.clone(), current: (*self.sender).clone() }
    }

    pub(super) async fn ping(&self, peer: &Peer, deadline: Instant) -> Result<(), Error> {
        let start = tokio::time::Instant::now();
        let exchange = async { self.pinger.lock().await.ping().await };
        match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result.map_err(|error| explain(error, peer)),
            Err(_) => Err(Error::timed_out(Phase::Read, format!("ping {}", peer.authority), start.elapsed())),
        }
    }
}

impl Sender {
    /// Starts a request whose URI and version are as HTTP/2 wants them. `cx` is the driver's.
    pub(super) fn start(
        &mut self,
        request: Request<()>,
        body: Bytes,
        peer: &Peer,
        cx: &mut Context<'_>,
    ) -> Result<Exchange, Error> {
        match self.current.poll_ready(cx) {
            Poll::Ready(result) => result.map_err(|error| explain(error, peer).not_processed())?,
            // A sender whose last request waits in line for a stream takes no other before it. A clone does, and its
            // request waits in the same line.
            Poll::Pending => self.current = (*self.origin).clone(),
        }
        Exchange::start(&mut self.current, request, body, peer)
    }
}

impl Pinger {
    async fn ping(&mut self) -> Result<(), h2::Error> {
        if self.outstanding {
            // An earlier call was dropped; its pong proves nothing about now.
            self.pong().await?;
        }
        self.pings.send_ping(Ping::opaque())?;
        self.outstanding = true;
        self.pong().await
    }

    async fn pong(&mut self) -> Result<(), h2::Error> {
        poll_fn(|cx| self.pings.poll_pong(cx)).await?;
        self.outstanding = false;
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http2")
    }
}

impl<S> Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Whether a GOAWAY was received: h2 tells those who would send, so one sender asks without sending.
    fn goes_away(&self, cx: &mut Context<'_>) -> bool {
        let Some(sender) = self.sender.upgrade() else { return false };
        matches!((*sender).clone().poll_ready(cx), Poll::Ready(Err(error)) if error.is_go_away() && error.is_remote())
    }
}

impl<S> Future for Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = HttpEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<HttpEnd> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        let going_away = self.told.going_away || self.goes_away(cx);
        let now = HttpStatus { max_streams: self.connection.max_concurrent_send_streams(), going_away };
        if self.told != now {
            self.told = now;
            self.status.send_replace(now);
        }
        let result = ready!(polled);
        Poll::Ready(match result.map_err(|error| explain(error, &self.peer)) {
            Err(error) if error.kind() != ErrorKind::Eof && !going_away => HttpEnd::Error(error),
            _ if going_away => HttpEnd::GoAway,
            Ok(()) if self.sender.strong_count() == 0 => HttpEnd::Released,
            _ => HttpEnd::Closed,
        })
    }
}

/// One request on its stream.
pub(super) enum Exchange {
    /// Sent. -> `Body` with the answer's head.
    Head(ResponseFuture),
    /// The answer's head came. -> over with the end of its body.
    Body { head: response::Parts, body: RecvStream, all: BytesMut, expected: usize },
    /// Given out.
    Over,
}

impl Exchange {
    fn start(
        sender: &mut SendRequest<Bytes>,
        request: Request<()>,
        body: Bytes,
        peer: &Peer,
    ) -> Result<Exchange, Error> {
        let bodyless = body.is_empty();
        let unsent = |error| explain(error, peer).not_processed();
        let (response, mut stream) = sender.send_request(request, bodyless).map_err(unsent)?;
        if !bodyless {
            // This fails only on a stream that has ended meanwhile; why it did, the answer's future says.
            let _ = stream.send_data(body, true);
        }
        Ok(Exchange::Head(response))
    }

    /// Collects the answer and gives the flow-control window back as it goes. On an early return the stream is dropped,
    /// upon which h2 resets it and gives back what was buffered.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        max_body: usize,
        peer: &Peer,
    ) -> Poll<Result<Response<Bytes>, Error>> {
        let result = ready!(self.poll_body(cx, max_body, peer));
        let over = std::mem::replace(self, Exchange::Over);
        Poll::Ready(result.and_then(|body| match over {
            Exchange::Body { head, .. } => Ok(Response::from_parts(head, body)),
            Exchange::Head(_) | Exchange::Over => Err(given_out(peer)),
        }))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, max_body: usize, peer: &Peer) -> Poll<Result<Bytes, Error>> {
        if let Exchange::Head(response) = self {
            let response = ready!(Pin::new(response).poll(cx)).map_err(|error| explain(error, peer))?;
            let (head, body) = response.into_parts();
            let expected = peer.expected_size(&head.headers, max_body)?;
            *self = Exchange::Body { head, body, all: BytesMut::new(), expected };
        }
        let Exchange::Body { body, all, expected, .. } = self else {
            return Poll::Ready(Err(given_out(peer)));
        };
        while let Some(chunk) = ready!(body.poll_data(cx)) {
            let chunk = chunk.map_err(|error| explain(error, peer))?;
            if all.len() + chunk.len() > max_body {
                return Poll::Ready(Err(peer.too_large(max_body)));
            }
            if all.is_empty() && body.is_end_stream() {
                // The usual way: one frame. Its window is given back when the stream is dropped, which is now.
                return Poll::Ready(Ok(chunk));
            }
            let released = body.flow_control().release_capacity(chunk.len());
            released.map_err(|error| explain(error, peer))?;
            if all.is_empty() {
                all.reserve((*expected).max(chunk.len()));
            }
            all.extend_from_slice(&chunk);
        }
        Poll::Ready(Ok(std::mem::take(all).freeze()))
    }
}

fn given_out(peer: &Peer) -> Error {
    peer.error(ErrorKind::Other, "the answer was given out before")
}

fn explain(error: h2::Error, peer: &Peer) -> Error {
    if let Some(aborted) = peer.aborted() {
        return aborted;
    }
    if let Some(io) = error.get_io() {
        // h2 reports the end of the stream as a broken pipe of its own making, without a system code.
        let eof = io.kind() == io::ErrorKind::BrokenPipe && io.raw_os_error().is_none();
        let io = if eof { io::ErrorKind::UnexpectedEof.into() } else { io::Error::new(io.kind(), io.to_string()) };
        return Error::from_io(io, Phase::Http, peer.tried()).with_source(error);
    }
    let Some(reason) = error.reason() else {
        // What h2 calls a user error: a request that it cannot express, or no stream id left. The peer saw none of it.
        return peer.error(ErrorKind::Other, format!("http/2 request not possible: {error}")).with_source(error);
    };
    if error.is_go_away() && error.is_remote() {
        // h2 gives this to streams above the GOAWAY's last one and to those not opened yet (RFC 9113 section 6.8); the
        // others go on, and fail with the end of the connection if they fail.
        let happened = format!("the server is closing the connection (goaway: {})", reason.description());
        return peer.error(ErrorKind::Http2, happened).not_processed().with_source(error);
    }
    if error.is_reset() && error.is_remote() {
        let happened = format!("stream reset by peer: {}", reason.description());
        let refused = reason == Reason::REFUSED_STREAM;
        let explained = peer.error(ErrorKind::Http2, happened);
        return if refused { explained.not_processed() } else { explained }.with_source(error);
    }
    let happened = format!("http/2 failed: {error}");
    peer.error(ErrorKind::Http2, happened).with_source(error)
}

/// A stream's window: the largest DNS message fits without an update.
const STREAM_WINDOW: u32 = 65_535;

/// The connection's window: enough for a burst of many small answers.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Streams opened before the peer's SETTINGS came; RFC 9113 section 6.5.2 wants peers to allow at least so many.
const STREAMS_INITIAL: usize = 100;

/// Bytes of an answer's headers.
const HEADERS_MAX: u32 = 16 * 1024;

/// Streams that we reset and still remember, so that answers on their way to them are dropped in silence. Lost races
/// make many of them.
const RESET_STREAMS_MAX: usize = 4096;

/// How long they are remembered: the longest round trip that an answer is late by.
const RESET_STREAM_MEMORY: Duration = Duration::from_secs(2);

/// Frames for streams that we forgot, in the life of a connection. h2 cannot tell them from a peer that breaks the rules
/// and ends the connection at this count; its default of 1,024 is used up by a few seconds of lost races.
const FORGOTTEN_MAX: usize = 65_536;
