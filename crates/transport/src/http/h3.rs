//! HTTP/3 (RFC 9114) through the `h3` crate: requests, GOAWAY, and the end of the connection.
//!
//! What is deliberately not here: push (never allowed), bodies that are streamed, and a sign of life: QUIC acknowledges what
//! is sent, but has no question that its peer must answer.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use h3::{
    ConnectionState,
    client::{RequestStream, SendRequest},
    error::{Code, ConnectionError, StreamError},
    quic::ConnectionErrorIncoming,
};
use h3_quinn::{BidiStream, OpenStreams};
use http::{Request, Response};
use tokio::sync::watch;

use super::{HttpEnd, HttpStatus, Peer, Protocol};
use crate::{
    error::{Error, ErrorKind},
    quic::QuicConnection,
};

/// Sends requests on one connection.
#[derive(Clone)]
pub(super) struct Handle {
    /// The connection closes when the last one is gone.
    sender: SendRequest<OpenStreams, Bytes>,
    connection: QuicConnection,
    under_way: Arc<UnderWay>,
}

/// Requests without their answer; the driver waits for the last one after a GOAWAY.
#[derive(Default)]
struct UnderWay {
    count: AtomicUsize,
    driver: AtomicWaker,
}

/// Sets HTTP/3 up. `max_streams` is what the peer lets be open at a time.
pub(super) async fn connect(
    connection: QuicConnection,
    max_streams: usize,
    peer: &Peer,
    status: watch::Sender<HttpStatus>,
) -> Result<(Protocol, Pin<Box<dyn Future<Output = HttpEnd> + Send>>), Error> {
    let (h3, sender) = h3::client::builder()
        .max_field_section_size(HEADERS_MAX)
        .send_grease(false)
        .build(h3_quinn::Connection::new(connection.quinn.clone()))
        .await
        .map_err(|error| explain(StreamError::ConnectionError(error), peer, &connection))?;
    status.send_replace(HttpStatus { max_streams, going_away: false });
    let under_way = Arc::<UnderWay>::default();
    let handle = Handle { sender, connection: connection.clone(), under_way: under_way.clone() };
    let driver = drive(h3, connection, under_way, peer.clone(), status);
    Ok((Protocol::Http3(handle), Box::pin(driver)))
}

impl Handle {
    pub(super) async fn send(
        mut self,
        request: Request<Bytes>,
        max_body: usize,
        peer: &Peer,
    ) -> Result<Response<Bytes>, Error> {
        let _counted = Counted::new(&self.under_way);
        let (mut parts, body) = request.into_parts();
        parts.uri = peer.absolute(parts.uri)?;
        parts.version = http::Version::HTTP_3;
        let connection = self.connection;
        let fail = |error| explain(error, peer, &connection);
        // It is kept to the end: with the last sender the connection closes.
        let sender = &mut self.sender;
        let stream = sender.send_request(Request::from_parts(parts, ())).await.map_err(fail)?;
        let mut stream = Cancelled(Some(stream));
        let result = exchange(stream.get(), body, max_body, peer, &connection).await;
        if result.is_ok() {
            stream.0 = None;
        }
        result
    }

    /// There is no PING to be asked for: tells whether the connection is known to have ended.
    pub(super) fn ping(&self, peer: &Peer) -> Result<(), Error> {
        match self.connection.quinn.close_reason() {
            None => Ok(()),
            Some(reason) => Err(peer.aborted().unwrap_or_else(|| self.connection.lost(&reason))),
        }
    }
}

type Stream = RequestStream<BidiStream<Bytes>, Bytes>;

async fn exchange(
    stream: &mut Stream,
    body: Bytes,
    max_body: usize,
    peer: &Peer,
    connection: &QuicConnection,
) -> Result<Response<Bytes>, Error> {
    let fail = |error| explain(error, peer, connection);
    if !body.is_empty() {
        stream.send_data(body).await.map_err(fail)?;
    }
    stream.finish().await.map_err(fail)?;
    let head = loop {
        let head = stream.recv_response().await.map_err(fail)?;
        // RFC 9114 section 4.1: any number of interim answers may come before the final one.
        if !head.status().is_informational() {
            break head;
        }
    };
    let mut all = BytesMut::with_capacity(peer.expected_size(head.headers(), max_body)?);
    while let Some(mut chunk) = stream.recv_data().await.map_err(fail)? {
        if all.len() + chunk.remaining() > max_body {
            return Err(peer.too_large(max_body));
        }
        while chunk.has_remaining() {
            let bytes = chunk.chunk();
            let length = bytes.len();
            all.extend_from_slice(bytes);
            chunk.advance(length);
        }
    }
    Ok(head.map(|()| all.freeze()))
}

/// A request that is given up: the peer is told (RFC 9114 section 4.1.1).
struct Cancelled(Option<Stream>);

impl Cancelled {
    fn get(&mut self) -> &mut Stream {
        self.0.as_mut().expect("taken out at its end only")
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // Nothing is said of the answer's half: h3-quinn panics when that is being waited for, as it is here. quinn itself
            // tells the peer when the half is dropped, with the code 0.
            stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

struct Counted(Arc<UnderWay>);

impl Counted {
    fn new(under_way: &Arc<UnderWay>) -> Counted {
        under_way.count.fetch_add(1, Ordering::AcqRel);
        Counted(under_way.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.driver.wake();
        }
    }
}

/// Closes the connection with its driver, whichever way that goes.
struct Closing(QuicConnection);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(NO_ERROR);
    }
}

/// Reads the control stream until the connection is at its end.
async fn drive(
    mut h3: h3::client::Connection<h3_quinn::Connection, Bytes>,
    connection: QuicConnection,
    under_way: Arc<UnderWay>,
    peer: Peer,
    status: watch::Sender<HttpStatus>,
) -> HttpEnd {
    let closing = Closing(connection.clone());
    let mut going_away = false;
    let end = poll_fn(|cx: &mut Context<'_>| {
        let closed = h3.poll_close(cx);
        if !going_away && h3.is_closing() {
            going_away = true;
            status.send_modify(|status| status.going_away = true);
        }
        if let Poll::Ready(error) = closed {
            return Poll::Ready(Some(error));
        }
        under_way.driver.register(cx.waker());
        let over = going_away && under_way.count.load(Ordering::Acquire) == 0;
        if over { Poll::Ready(None) } else { Poll::Pending }
    });
    let end = tokio::select! {
        end = end => end,
        () = connection.socket.refused() => {
            let happened = "nobody listens there any more";
            return HttpEnd::Error(peer.error(ErrorKind::Reset, happened));
        }
    };
    drop(closing);
    match end {
        None => HttpEnd::GoAway,
        Some(_) if going_away => HttpEnd::GoAway,
        Some(error @ ConnectionError::Local { .. }) if error.is_h3_no_error() => HttpEnd::Released,
        Some(ConnectionError::Remote(ConnectionErrorIncoming::ApplicationClose { .. }) | ConnectionError::Timeout) => {
            HttpEnd::Closed
        }
        Some(error) => HttpEnd::Error(explain(StreamError::ConnectionError(error), &peer, &connection)),
    }
}

fn explain(error: StreamError, peer: &Peer, connection: &QuicConnection) -> Error {
    if let Some(aborted) = peer.aborted() {
        return aborted;
    }
    match &error {
        StreamError::RemoteTerminate { code, .. } => {
            let explained = peer.error(ErrorKind::Http3, format!("stream reset by peer: {code}"));
            // RFC 9114 section 8.1: the server did nothing with it.
            let refused = *code == Code::H3_REQUEST_REJECTED;
            if refused { explained.not_processed() } else { explained }.with_source(error)
        }
        StreamError::RemoteClosing => {
            let happened = "the server is closing the connection (goaway)";
            peer.error(ErrorKind::Http3, happened).not_processed().with_source(error)
        }
        StreamError::HeaderTooBig { .. } => {
            peer.error(ErrorKind::Protocol, "the headers are above the limit").with_source(error)
        }
        StreamError::ConnectionError(_) => match connection.quinn.close_reason() {
            // Closed by h3 for a rule that the peer broke: its own words say which.
            Some(quinn::ConnectionError::LocallyClosed) | None => {
                peer.error(ErrorKind::Http3, format!("http/3 failed: {error}")).with_source(error)
            }
            Some(reason) => connection.lost(&reason),
        },
        _ => peer.error(ErrorKind::Http3, format!("http/3 failed: {error}")).with_source(error),
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// RFC 9114 section 8.1: H3_NO_ERROR.
const NO_ERROR: u32 = 0x100;

/// Bytes of an answer's headers.
const HEADERS_MAX: u64 = 16 * 1024;
