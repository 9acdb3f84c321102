//! HTTP as a client, for small exchanges such as DNS over HTTPS: HTTP/2 and HTTP/3 with shared streams, HTTP/1.1 where that
//! is all the server has.
//!
//! A connection is a handle and a driver: the handle sends requests, the driver is a future that moves the bytes and ends
//! with the reason why the connection ended. What is deliberately not here: what is asked, retries, redirects, and who
//! gets which stream (the pool's business).

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header, uri::Authority};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{
    error::{Error, ErrorKind, Phase},
    quic::QuicConnection,
};

mod exchanges;
mod h1;
mod h2;
mod h3;

pub use exchanges::{Finished, HttpExchanges};

/// One HTTP connection. Clones are handles of the same connection, which closes once the last one is gone and what is
/// under way has ended.
#[derive(Debug, Clone)]
pub struct HttpConnection {
    protocol: Protocol,
    peer: Peer,
    status: watch::Receiver<HttpStatus>,
}

/// The version in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1, RFC 9112: one exchange at a time.
    Http1,
    /// HTTP/2, RFC 9113: many streams.
    Http2,
    /// HTTP/3, RFC 9114: many streams, over QUIC.
    Http3,
}

/// What may change during the life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpStatus {
    /// Requests that the server lets be under way at a time; HTTP/2: its `SETTINGS_MAX_CONCURRENT_STREAMS`, 100 until it
    /// has said so and `usize::MAX` when it names no limit. HTTP/3: the peer's limit on QUIC streams. HTTP/1.1: 1.
    pub max_streams: usize,
    /// No new request is accepted: a GOAWAY came, or the connection has ended. What is under way may still finish.
    pub going_away: bool,
}

/// Moves a connection's bytes. Nothing happens unless it is polled; dropping it closes the connection at once.
#[must_use = "the connection stands still unless its driver is polled"]
pub struct HttpDriver {
    inner: Pin<Box<dyn Future<Output = HttpEnd> + Send>>,
    status: watch::Sender<HttpStatus>,
    aborted: Arc<AtomicBool>,
    ended: bool,
}

/// Why a connection ended.
#[derive(Debug, Clone)]
pub enum HttpEnd {
    /// The server sent GOAWAY, and what was under way has ended.
    GoAway,
    /// The peer closed the connection.
    Closed,
    /// All our handles were dropped.
    Released,
    /// The connection broke.
    Error(Error),
}

#[derive(Debug, Clone)]
enum Protocol {
    Http1(h1::Handle),
    Http2(h2::Handle),
    Http3(h3::Handle),
}

/// Whom a connection leads to, and whether we ended it ourselves.
#[derive(Debug, Clone)]
struct Peer {
    authority: Authority,
    aborted: Arc<AtomicBool>,
}

/// Sets HTTP up on a connected stream, in the version that `alpn` stands for: `h2`, or HTTP/1.1 for `http/1.1` and where
/// the server chose none. `authority` is the host, with the port where it is not 443, as in the URL.
///
/// Nothing is waited for but the room to write a few bytes, so there is no deadline here.
///
/// # Errors
/// [`ErrorKind::Alpn`] for another protocol, [`ErrorKind::Other`] for an `authority` that is none, and what the stream
/// reports.
///
/// # Cancel safety
/// Dropping the future closes the stream.
pub async fn connect<S>(stream: S, alpn: Option<&[u8]>, authority: &str) -> Result<(HttpConnection, HttpDriver), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tried = || format!("connect to {authority}");
    let peer = Peer::new(authority)?;
    let aborted = Arc::clone(&peer.aborted);
    let (status, watcher) = watch::channel(HttpStatus { max_streams: 1, going_away: false });
    let (protocol, inner) = match alpn {
        Some(b"h2") => h2::connect(stream, &peer, status.clone()).await?,
        Some(b"http/1.1") | None => h1::connect(stream, &peer).await?,
        Some(other) => {
            let happened = format!("no http over the application protocol {:?}", String::from_utf8_lossy(other));
            return Err(Error::new(ErrorKind::Alpn, Phase::Http, tried(), happened));
        }
    };
    let connection = HttpConnection { protocol, peer, status: watcher };
    Ok((connection, HttpDriver { inner, status, aborted, ended: false }))
}

/// Sets HTTP/3 up on a QUIC connection whose application protocol is `h3`. `max_streams` is what the peer lets be open at a
/// time, and `authority` as for [`connect`]. Nothing is waited for but leave to open the control stream.
///
/// # Errors
/// [`ErrorKind::Other`] for an `authority` that is none, and how the connection ended.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn connect_quic(
    connection: QuicConnection,
    max_streams: usize,
    authority: &str,
) -> Result<(HttpConnection, HttpDriver), Error> {
    let peer = Peer::new(authority)?;
    let aborted = Arc::clone(&peer.aborted);
    let (status, watcher) = watch::channel(HttpStatus { max_streams: 1, going_away: false });
    let (protocol, inner) = h3::connect(connection, max_streams, &peer, status.clone()).await?;
    let connection = HttpConnection { protocol, peer, status: watcher };
    Ok((connection, HttpDriver { inner, status, aborted, ended: false }))
}

impl HttpConnection {
    /// The version in use.
    pub fn version(&self) -> HttpVersion {
        match self.protocol {
            Protocol::Http1(_) => HttpVersion::Http1,
            Protocol::Http2(_) => HttpVersion::Http2,
            Protocol::Http3(_) => HttpVersion::Http3,
        }
    }

    /// Requests that may be under way at a time, as the server says now; see [`HttpStatus::max_streams`].
    pub fn max_streams(&self) -> usize {
        self.status.borrow().max_streams
    }

    /// Whether no new request is accepted; see [`HttpStatus::going_away`].
    pub fn is_going_away(&self) -> bool {
        self.status.borrow().going_away
    }

    /// A receiver that is told of changes to the limit on streams and of a GOAWAY, as soon as the driver reads them.
    pub fn subscribe(&self) -> watch::Receiver<HttpStatus> {
        self.status.clone()
    }

    /// Sends a request and collects the whole answer.
    ///
    /// The scheme and authority (HTTP/2, HTTP/3) or the `host` header (HTTP/1.1) are added where the request has none. The future
    /// starts with its first poll; it does not borrow the connection and has no time limit of its own. Over HTTP/2 and HTTP/3 a
    /// request beyond `max_streams` waits in line for a stream; over HTTP/1.1 one waits for the exchange before it.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for an answer with more than `max_body` bytes. [`Error::is_retryable`] tells whether the
    /// server has certainly not acted on the request. [`ErrorKind::Cancelled`] when the driver was dropped.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream (HTTP/2, HTTP/3); other requests do not notice. Over HTTP/1.1 the connection is then
    /// of no further use and closes.
    pub fn send(
        &self,
        request: Request<Bytes>,
        max_body: usize,
    ) -> impl Future<Output = Result<Response<Bytes>, Error>> + Send + use<> {
        let (protocol, peer) = (self.protocol.clone(), self.peer.clone());
        async move {
            match protocol {
                Protocol::Http1(handle) => handle.send(request, max_body, &peer).await,
                Protocol::Http2(handle) => handle.send(request, max_body, &peer).await,
                Protocol::Http3(handle) => handle.send(request, max_body, &peer).await,
            }
        }
    }

    /// Asks the peer for a sign of life and returns when it came: an HTTP/2 PING. HTTP/1.1 and HTTP/3
    /// have none: there the call only tells whether the connection is known to have ended.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] at `deadline`, and how the connection ended.
    ///
    /// # Cancel safety
    /// May be dropped at any time; a pong that comes later is not taken for the next one's.
    pub fn ping(&self, deadline: Instant) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (protocol, peer) = (self.protocol.clone(), self.peer.clone());
        async move {
            match protocol {
                Protocol::Http1(handle) => handle.ping(&peer),
                Protocol::Http2(handle) => handle.ping(&peer, deadline).await,
                Protocol::Http3(handle) => handle.ping(&peer),
            }
        }
    }
}

impl Future for HttpDriver {
    type Output = HttpEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<HttpEnd> {
        let end = std::task::ready!(self.inner.as_mut().poll(cx));
        self.ended = true;
        self.status.send_if_modified(|status| !std::mem::replace(&mut status.going_away, true));
        Poll::Ready(end)
    }
}

impl Drop for HttpDriver {
    fn drop(&mut self) {
        // Set before the fields are dropped, which is what wakes the requests under way: they must not blame the peer.
        if !self.ended {
            self.aborted.store(true, Ordering::Release);
            self.status.send_if_modified(|status| !std::mem::replace(&mut status.going_away, true));
        }
    }
}

impl std::fmt::Debug for HttpDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDriver").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl HttpVersion {
    /// `1.1`, `2` or `3`.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpVersion::Http1 => "1.1",
            HttpVersion::Http2 => "2",
            HttpVersion::Http3 => "3",
        }
    }
}

impl Peer {
    fn new(authority: &str) -> Result<Peer, Error> {
        let authority = authority.parse::<Authority>().map_err(|error| {
            let tried = format!("connect to {authority}");
            Error::new(ErrorKind::Other, Phase::Http, tried, "not a host with an optional port").with_source(error)
        })?;
        Ok(Peer { authority, aborted: Arc::default() })
    }

    fn error(&self, kind: ErrorKind, happened: impl Into<String>) -> Error {
        Error::new(kind, Phase::Http, self.tried(), happened)
    }

    fn tried(&self) -> String {
        format!("https request to {}", self.authority)
    }

    /// The error to report instead when the driver was dropped: we did that, not the peer.
    fn aborted(&self) -> Option<Error> {
        let aborted = self.aborted.load(Ordering::Acquire);
        aborted.then(|| self.error(ErrorKind::Cancelled, "the connection was closed on this side"))
    }

    fn too_large(&self, max_body: usize) -> Error {
        self.error(ErrorKind::Protocol, format!("the answer's body is above the limit of {max_body} bytes"))
    }

    /// Refuses an answer by its `content-length` alone and returns the size to expect.
    fn expected_size(&self, headers: &HeaderMap, max_body: usize) -> Result<usize, Error> {
        let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(0) };
        let size = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let size =
            size.ok_or_else(|| self.error(ErrorKind::Protocol, "the answer's content-length is not a number"))?;
        usize::try_from(size).ok().filter(|size| *size <= max_body).ok_or_else(|| self.too_large(max_body))
    }

    /// The URI with scheme and authority, as HTTP/2 wants it.
    fn absolute(&self, uri: Uri) -> Result<Uri, Error> {
        let mut parts = uri.into_parts();
        parts.scheme.get_or_insert(http::uri::Scheme::HTTPS);
        parts.authority.get_or_insert_with(|| self.authority.clone());
        parts.path_and_query.get_or_insert(http::uri::PathAndQuery::from_static("/"));
        Uri::from_parts(parts).map_err(|error| self.error(ErrorKind::Other, "not a valid url").with_source(error))
    }
}

#[cfg(test)]
mod tests;
