//! One request over one leased connection, and the answer's body, which holds the lease.
//!
//! What is deliberately not here: whether a failed request is sent again (`client`).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, header, response};
use http_body::{Frame, SizeHint};
use keepwarm_pool::Lease;
use keepwarm_transport::error::Error;

use crate::{
    body::{BoxError, RequestBody},
    connection::{Dialer, Target, Wire, h1, h2, upload::Upload},
    head::Head,
    site::InFlight,
};

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection or the server.
    Transport(Error),
    /// The server refused the stream, and would refuse others: it has too much to do (RFC 9113 section 8.7).
    Refused(Error),
    /// The server gave up this one stream: its word on the request, and not on the connection or the address.
    Reset(Error),
    /// The caller's own body.
    RequestBody(BoxError),
    /// Nothing came in time.
    Silent {
        /// Whether the request was on its way as a whole; otherwise the silence may be the caller's.
        is_sent: bool,
    },
}

impl Failure {
    pub(crate) fn new(error: Error) -> Failure {
        Failure::Transport(error)
    }

    pub(crate) fn request_body(error: BoxError) -> Failure {
        Failure::RequestBody(error)
    }
}

/// By when the head of an answer must be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    /// While a body that streams makes progress, the wait begins anew with this. `None`: `at` holds.
    pub(crate) after_upload: Option<Duration>,
}

/// How far the body of a request has come.
#[derive(Debug)]
pub(crate) struct Sending(AtomicUsize);

impl Sending {
    fn new(is_over: bool) -> Sending {
        Sending(AtomicUsize::new(if is_over { OVER } else { 0 }))
    }

    /// One more piece is on its way.
    pub(crate) fn piece(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// All of it is, or it was given up.
    pub(crate) fn end(&self) {
        self.0.fetch_or(OVER, Ordering::AcqRel);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) & OVER != 0
    }

    fn pieces(&self) -> usize {
        self.0.load(Ordering::Acquire) & !OVER
    }
}

/// Sends a request over a leased connection. On failure the lease comes back; it is not to be used for another request if it was spoilt.
///
/// # Cancel safety
/// Dropping the future gives up the stream, or the connection where it is exclusive.
pub(crate) async fn send(
    lease: Lease<Dialer>,
    target: &Target,
    head: &Head,
    body: &mut RequestBody,
    body_timeout: Duration,
    until: Until,
    in_flight: Option<InFlight>,
) -> Result<(response::Parts, Incoming), (Failure, Lease<Dialer>, Option<InFlight>)> {
    let spoils = matches!(lease.wire, Wire::Http1(_));
    let mut hold = Hold { lease: Some(lease), in_flight, upload: None, spoils };
    let sending = Arc::new(Sending::new(body.whole().is_some()));
    let is_small = body.whole().is_none_or(|whole| whole.len() <= SMALL);
    let result = match &hold.lease().wire {
        Wire::Http2(handle) => {
            let address = hold.lease().address;
            let exchange = handle.send(head.http2(target), body, body_timeout, sending.clone());
            within(until, &sending, exchange).await.map(|answer| {
                let length = length(&head.method, &answer.head);
                let incoming = h2::Incoming::new(answer.body, address, length);
                (answer.head, Stream::Http2(incoming), answer.upload)
            })
        }
        Wire::Http1(handle) => {
            let exchange = handle.send(head.http1(target), body, body_timeout, sending.clone());
            within(until, &sending, exchange).await.map(|answer| (answer.head, Stream::Http1(answer.body), None))
        }
    };
    match result {
        Ok((parts, stream, upload)) => {
            hold.upload = upload;
            let length = length(&head.method, &parts);
            let mut incoming = Incoming { stream: Some(stream), hold: Some(hold), length, is_over: false };
            if incoming.stream.as_ref().is_some_and(Stream::is_end_stream) {
                incoming.end();
            }
            Ok((parts, incoming))
        }
        Err(mut failure) => {
            if let Failure::Silent { is_sent } = &mut failure {
                *is_sent &= is_small;
            }
            let (lease, in_flight) = hold.take();
            Err((failure, lease, in_flight))
        }
    }
}

async fn within<T>(
    until: Until,
    sending: &Sending,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut exchange = pin!(exchange);
    let (mut at, mut seen) = (until.at, 0);
    loop {
        match (tokio::time::timeout_at(at.into(), &mut exchange).await, until.after_upload) {
            (Ok(result), _) => return result,
            // A server that takes nothing more is as silent as one that does not answer.
            (Err(_), Some(patience)) if !sending.is_over() && sending.pieces() > seen => {
                seen = sending.pieces();
                at = (tokio::time::Instant::now() + patience).into_std();
            }
            (Err(_), _) => return Err(Failure::Silent { is_sent: sending.is_over() }),
        }
    }
}

/// What an answer's head says about the length of its body (RFC 9110 section 8.6).
fn length(method: &Method, parts: &response::Parts) -> Option<u64> {
    if *method == Method::HEAD {
        return Some(0);
    }
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What an exchange holds until its end.
struct Hold {
    /// `None` only once it was taken out.
    lease: Option<Lease<Dialer>>,
    /// None for probes.
    in_flight: Option<InFlight>,
    upload: Option<Upload>,
    /// Whether ending early makes the connection unusable: it is exclusive, and what comes next on it belongs to nobody.
    spoils: bool,
}

impl Hold {
    fn lease(&self) -> &Lease<Dialer> {
        self.lease.as_ref().expect("there until it is taken out")
    }

    fn take(mut self) -> (Lease<Dialer>, Option<InFlight>) {
        let mut lease = self.lease.take().expect("there until it is taken out");
        if std::mem::take(&mut self.spoils) {
            lease.poison();
        }
        (lease, self.in_flight.take())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(lease) = &mut self.lease
            && self.spoils
        {
            lease.poison();
        }
    }
}

/// An answer's body as it comes.
pub(crate) struct Incoming {
    /// `None` once it is over: its stream or connection is let go before the lease is.
    stream: Option<Stream>,
    /// `None` once the connection was given back.
    hold: Option<Hold>,
    length: Option<u64>,
    is_over: bool,
}

enum Stream {
    Http2(h2::Incoming),
    Http1(h1::Incoming),
}

impl Stream {
    fn is_end_stream(&self) -> bool {
        match self {
            Stream::Http2(body) => body.is_end_stream(),
            Stream::Http1(body) => body.is_end_stream(),
        }
    }
}

impl Incoming {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(match &mut self.stream {
            Some(Stream::Http2(body)) => body.poll_frame(cx),
            Some(Stream::Http1(body)) => body.poll_frame(cx),
            None => Poll::Ready(None),
        });
        match &frame {
            None => self.end(),
            Some(Err(_)) => self.give_up(),
            Some(Ok(frame)) => {
                if frame.is_trailers() || self.stream.as_ref().is_none_or(Stream::is_end_stream) {
                    self.end();
                }
                self.length = match (self.length, frame.data_ref()) {
                    (Some(length), Some(data)) => Some(length.saturating_sub(data.len() as u64)),
                    (length, _) => length,
                };
            }
        }
        Poll::Ready(frame)
    }

    /// The whole body came: the connection may serve the next.
    fn end(&mut self) {
        self.is_over = true;
        let stream = self.stream.take();
        let Some(mut hold) = self.hold.take() else { return };
        if let Some(Stream::Http1(mut body)) = stream {
            hold.spoils = !body.ended();
        }
        // An answer may end before the request does (RFC 9113 section 8.1); the stream is in use until both have.
        if let Some(mut upload) = hold.upload.take_if(|upload| !upload.is_over()) {
            tokio::spawn(async move {
                upload.over().await;
                drop(hold);
            });
        }
    }

    /// The body is given up: so is its stream, or its connection where that is exclusive.
    pub(crate) fn give_up(&mut self) {
        self.is_over = true;
        self.stream = None;
        self.hold = None;
    }

    /// Reads a short rest, so that the connection can serve again; a long one is given up.
    pub(crate) async fn skip(&mut self, deadline: tokio::time::Instant) {
        let mut left = SKIP_MAX;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, poll_fn(|cx| self.poll_frame(cx))).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return self.give_up();
            }
        }
        self.give_up();
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.is_over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (&self.stream, self.length) {
            _ if self.is_over => SizeHint::with_exact(0),
            (Some(Stream::Http1(body)), _) => body.size_hint(),
            (_, Some(length)) => SizeHint::with_exact(length),
            (_, None) => SizeHint::default(),
        }
    }
}

/// The bit that says that a body is over; those below it count its pieces.
const OVER: usize = 1 << (usize::BITS - 1);

/// Bytes of a request's body that are taken to be sent at once.
const SMALL: usize = 64 * 1024;

/// Bytes of a body that are read for the sake of its connection.
const SKIP_MAX: usize = 64 * 1024;
