//! HTTP/1.1 on one connection: one exchange at a time, and the next only after the body before it was read to its end.
//!
//! What is deliberately not here: pipelining (RFC 9112 section 9.3.2), which few servers do right, and upgrades.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::error::{Error, ErrorKind, Phase};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Sleep,
};

use super::{
    Dialer,
    h2::{EXPECT_MAX, expects_continue},
};
use crate::{
    body::{BoxError, RequestBody},
    exchange::{Failure, Sending},
};

/// Sends requests on one connection.
pub(crate) struct Handle {
    /// Taken out for an exchange; not put back unless its answer was read to the end.
    sender: Place,
    slot: Slot<Dialer>,
    address: SocketAddr,
}

/// Where the sender is while no exchange has it.
type Place = Arc<Mutex<Option<SendRequest<Sent>>>>;

pub(crate) async fn connect<S>(stream: S, slot: Slot<Dialer>, address: SocketAddr) -> Result<Handle, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| explain(&error, address))?;
    let ended = slot.clone();
    tokio::spawn(async move {
        let reason = match connection.await {
            Ok(()) => CloseReason::PeerClosed,
            Err(error) if error.is_parse() => CloseReason::StrayBytes,
            Err(error) => match io_error(&error).map(|error| error.kind()) {
                Some(io::ErrorKind::ConnectionReset) => CloseReason::PeerReset,
                _ => CloseReason::PeerClosed,
            },
        };
        ended.closed(reason);
    });
    Ok(Handle { sender: Arc::new(Mutex::new(Some(sender))), slot, address })
}

/// An answer's head with what is still to come.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Incoming,
}

impl Handle {
    /// Sends a request, whose URI is its path and whose Host is set, and awaits the head of its answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn send(
        &self,
        mut request: Request<()>,
        body: &mut RequestBody,
        body_timeout: Duration,
        sending: Arc<Sending>,
    ) -> Result<Answer, Failure> {
        let gone = || Failure::new(closed(self.address).not_processed());
        let mut sender = self.sender.lock().take().ok_or_else(gone)?;
        // A connection that ended meanwhile has carried nothing.
        sender.ready().await.map_err(|error| Failure::new(explain(&error, self.address).not_processed()))?;
        let gate = Gate::new(expects_continue(request.headers()) && body.whole().is_none());
        let failed = Arc::new(Mutex::new(None));
        if body.whole().is_none() && !request.headers().contains_key(header::CONTENT_LENGTH) {
            // hyper sends no body of unknown length with methods that rarely have one, unless it is told to.
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let sent = Sent {
            body: std::mem::take(body),
            gate: gate.waiting(),
            sending: sending.clone(),
            failed: failed.clone(),
            patience: body_timeout,
            pause: None,
        };
        let mut request = request.map(|()| sent);
        gate.open_on_continue(&mut request);
        let response = sender.try_send_request(request).await.map_err(|mut failure| {
            if let Some(error) = failed.lock().take() {
                return Failure::request_body(error);
            }
            // hyper gives the request back when no byte of it was sent.
            let unsent = failure.take_message();
            let error = explain(failure.error(), self.address);
            match unsent {
                Some(request) => {
                    *body = request.into_body().body;
                    Failure::new(error.not_processed())
                }
                None => Failure::new(error),
            }
        })?;
        let (mut head, incoming) = response.into_parts();
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            // RFC 9112 section 6.3: chunks say where the body ends, and a length beside them is not true.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        if let Some(limit) = keep_alive(&head.headers) {
            self.slot.idle_limit(limit);
        }
        let reusable = head.version >= Version::HTTP_11 && !closes(&head.headers);
        let body = Incoming {
            body: incoming,
            back: reusable.then(|| (sender, self.sender.clone())),
            sending,
            address: self.address,
        };
        Ok(Answer { head, body })
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An answer's body.
pub(crate) struct Incoming {
    body: hyper::body::Incoming,
    /// Where the sender goes when the body was read to its end; `None` when the server closes after it.
    back: Option<(SendRequest<Sent>, Place)>,
    sending: Arc<Sending>,
    address: SocketAddr,
}

impl Incoming {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let address = self.address;
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(|error| explain(&error, address))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// The body was read to its end. Returns whether the connection may serve again: not while a request's body is still on its way.
    pub(crate) fn ended(&mut self) -> bool {
        match self.back.take() {
            Some((sender, place)) if self.sending.is_over() && !sender.is_closed() => {
                *place.lock() = Some(sender);
                true
            }
            _ => false,
        }
    }
}

/// A request's body on its way: held back while the server's word is awaited, and noted when it is over.
struct Sent {
    body: RequestBody,
    gate: Option<Waiting>,
    sending: Arc<Sending>,
    failed: Arc<Mutex<Option<BoxError>>>,
    /// Longest pause between two pieces.
    patience: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            std::task::ready!(gate.poll(cx));
            this.gate = None;
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.pause = None;
                this.sending.piece();
                if frame.is_none() || this.body.is_end_stream() {
                    this.sending.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| this.fail(error))))
            }
            Poll::Pending => {
                let patience = this.patience;
                let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                std::task::ready!(pause.as_mut().poll(cx));
                let error = format!("no further piece of it came within {patience:.1?}");
                Poll::Ready(Some(Err(this.fail(error.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let ends = self.body.is_end_stream();
        if ends {
            self.sending.end();
        }
        ends
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Sent {
    /// Keeps the reason for the caller; hyper gets its text.
    fn fail(&self, error: BoxError) -> BoxError {
        let text = error.to_string();
        *self.failed.lock() = Some(error);
        text.into()
    }
}

/// Holds a body back until the server says 100 (Continue), or for [`EXPECT_MAX`] (RFC 9110 section 10.1.1).
struct Gate {
    open: Option<watch::Sender<bool>>,
}

struct Waiting {
    opened: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Gate {
    fn new(closed: bool) -> Gate {
        Gate { open: closed.then(|| watch::Sender::new(false)) }
    }

    fn waiting(&self) -> Option<Waiting> {
        let mut opened = self.open.as_ref()?.subscribe();
        let opened = async move {
            // Opened, or the request is gone.
            let _ = tokio::time::timeout(EXPECT_MAX, opened.wait_for(|open| *open)).await;
        };
        Some(Waiting { opened: Box::pin(opened) })
    }

    fn open_on_continue(self, request: &mut Request<Sent>) {
        let Some(open) = self.open else { return };
        hyper::ext::on_informational(request, move |informational| {
            if informational.status() == StatusCode::CONTINUE {
                open.send_replace(true);
            }
        });
    }
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.opened.as_mut().poll(cx)
    }
}

/// The time-out of a Keep-Alive header, which many servers send.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    let value = text.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn closes(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    tokens.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"))
}

fn explain(error: &hyper::Error, address: SocketAddr) -> Error {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return closed(address);
    }
    let tried = format!("exchange with {address}");
    if let Some(io) = io_error(error) {
        return Error::from_io(io, Phase::Http, tried);
    }
    let happened = if error.is_parse() {
        format!("the answer is not valid http/1.1: {error}")
    } else {
        format!("http/1.1 failed: {error}")
    };
    Error::new(ErrorKind::Http1, Phase::Http, tried, happened)
}

fn closed(address: SocketAddr) -> Error {
    Error::new(ErrorKind::Eof, Phase::Http, format!("exchange with {address}"), "connection closed by peer")
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
const HEADERS_MAX: usize = 128;
