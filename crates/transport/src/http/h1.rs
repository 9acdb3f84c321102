//! HTTP/1.1 through hyper: one exchange at a time, the connection kept for the next.
//!
//! What is deliberately not here: pipelining (RFC 9112 section 9.3.2), which few servers do right, and upgrades.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};

use super::{HttpEnd, Peer, Protocol};
use crate::error::{Error, ErrorKind, Phase};

/// Sends requests on one connection.
#[derive(Clone)]
pub(super) struct Handle {
    /// Locked for a whole exchange; whoever comes next waits in line.
    sender: Arc<Mutex<SendRequest<Full<Bytes>>>>,
    /// An exchange was dropped half way: what comes next on the wire belongs to nobody.
    spoiled: Arc<AtomicBool>,
}

pub(super) async fn connect<S>(
    stream: S,
    peer: &Peer,
) -> Result<(Protocol, Pin<Box<dyn Future<Output = HttpEnd> + Send>>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| explain(error, peer))?;
    let sender = Arc::new(Mutex::new(sender));
    let (released, peer) = (Arc::downgrade(&sender), peer.clone());
    let driver = async move {
        match connection.await.map_err(|error| explain(error, &peer)) {
            Ok(()) if released.strong_count() == 0 => HttpEnd::Released,
            Ok(()) => HttpEnd::Closed,
            Err(error) if error.kind() == ErrorKind::Eof => HttpEnd::Closed,
            Err(error) => HttpEnd::Error(error),
        }
    };
    Ok((Protocol::Http1(Handle { sender, spoiled: Arc::default() }), Box::pin(driver)))
}

impl Handle {
    pub(super) async fn send(
        self,
        request: Request<Bytes>,
        max_body: usize,
        peer: &Peer,
    ) -> Result<Response<Bytes>, Error> {
        let request = prepare(request, peer)?;
        let mut sender = self.sender.lock().await;
        self.check(peer)?;
        let unsent = |error| explain(error, peer).not_processed();
        sender.ready().await.map_err(unsent)?;
        let exchange = Exchange { spoiled: &self.spoiled };
        let answer = sender.try_send_request(request).await.map_err(|mut failure| {
            // hyper gives the request back when no byte of it was sent.
            let unsent = failure.take_message().is_some();
            let error = explain(failure.into_error(), peer);
            if unsent { error.not_processed() } else { error }
        })?;
        let (parts, body) = answer.into_parts();
        let expected = peer.expected_size(&parts.headers, max_body)?;
        let body = collect(body, expected, max_body, peer).await?;
        exchange.complete();
        Ok(Response::from_parts(parts, body))
    }

    pub(super) fn ping(&self, peer: &Peer) -> Result<(), Error> {
        self.check(peer)?;
        match self.sender.try_lock() {
            Ok(sender) if sender.is_closed() => Err(closed(peer)),
            // Busy counts as alive: whoever uses it will find out.
            _ => Ok(()),
        }
    }

    fn check(&self, peer: &Peer) -> Result<(), Error> {
        if self.spoiled.load(Ordering::Acquire) {
            let happened = "an earlier exchange on the connection was dropped half way";
            return Err(peer.error(ErrorKind::Cancelled, happened).not_processed());
        }
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("spoiled", &self.spoiled).finish_non_exhaustive()
    }
}

/// An exchange under way; spoils the connection unless it completes.
struct Exchange<'a> {
    spoiled: &'a AtomicBool,
}

impl Exchange<'_> {
    fn complete(self) {
        std::mem::forget(self);
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.spoiled.store(true, Ordering::Release);
    }
}

/// Names the host in a header and leaves only path and query in the request line (RFC 9112 sections 3.2 and 3.2.1).
fn prepare(request: Request<Bytes>, peer: &Peer) -> Result<Request<Full<Bytes>>, Error> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().unwrap_or(&peer.authority).as_str();
    let host = HeaderValue::from_str(authority).expect("an authority has no character that a header has not");
    parts.headers.entry(header::HOST).or_insert(host);
    parts.version = http::Version::HTTP_11;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri =
        path.parse::<Uri>().map_err(|error| peer.error(ErrorKind::Other, "not a valid path").with_source(error))?;
    Ok(Request::from_parts(parts, Full::new(body)))
}

async fn collect(mut body: Incoming, expected: usize, max_body: usize, peer: &Peer) -> Result<Bytes, Error> {
    let mut all = BytesMut::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        // Trailers are of no interest here.
        let Ok(chunk) = frame.map_err(|error| explain(error, peer))?.into_data() else { continue };
        if all.len() + chunk.len() > max_body {
            return Err(peer.too_large(max_body));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn explain(error: hyper::Error, peer: &Peer) -> Error {
    if let Some(aborted) = peer.aborted() {
        return aborted;
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return closed(peer).with_source(error);
    }
    if let Some(io) = io_error(&error) {
        return Error::from_io(io, Phase::Http, peer.tried()).with_source(error);
    }
    let happened = if error.is_parse() {
        format!("the answer is not valid http/1.1: {error}")
    } else {
        format!("http/1.1 failed: {error}")
    };
    peer.error(ErrorKind::Http1, happened).with_source(error)
}

fn closed(peer: &Peer) -> Error {
    peer.error(ErrorKind::Eof, "connection closed by peer")
}

/// The I/O error somewhere below hyper's own, rebuilt with its code.
fn io_error(error: &hyper::Error) -> Option<io::Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            let code = io.raw_os_error().map(io::Error::from_raw_os_error);
            return Some(code.unwrap_or_else(|| io::Error::new(io.kind(), io.to_string())));
        }
        source = inner.source();
    }
    None
}

/// Bytes of hyper's read buffer, and with it the size of an answer's head.
const BUFFER_MAX: usize = 64 * 1024;

/// Header lines of an answer.
const HEADERS_MAX: usize = 64;
