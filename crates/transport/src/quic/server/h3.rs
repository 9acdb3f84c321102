//! HTTP/3 (RFC 9114) as a server, on a QUIC connection.
//!
//! h3 speaks HTTP; what it reads from and writes to is here, over quinn directly: the usual binding keeps whatever frame a
//! client announces, cannot tell when a client has lost interest, and panics when a stream is stopped while it is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::h3::{
    error::{Code, ConnectionError, StreamError},
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
    server::{RequestResolver, RequestStream},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use http::{Request, Response};
use parking_lot::Mutex;
use quinn::{Connection, ReadError, VarInt, WriteError};

use super::frames::{FrameLimit, Varint};

/// A client's connection, as requests come in on it.
pub struct H3Server {
    h3: ::h3::server::Connection<Streams, Bytes>,
    accepted: Accepted,
}

/// A request that came in and was not read yet.
pub struct H3Request {
    resolver: RequestResolver<Streams, Bytes>,
    fate: Fate,
}

/// A request's stream: its body, and its response.
pub struct H3Stream {
    stream: RequestStream<Both, Bytes>,
    fate: Fate,
}

/// Ready when the client has stopped the response's stream, or has all of it.
type Fate = BoxFuture<'static, ()>;

/// The fate of the stream that was accepted last.
type Accepted = Arc<Mutex<Option<Fate>>>;

impl H3Server {
    /// Greets the client with our settings.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn new(connection: Connection) -> Result<H3Server, ConnectionError> {
        let accepted = Accepted::default();
        let streams = Streams::new(connection, accepted.clone());
        let mut builder = ::h3::server::builder();
        builder.max_field_section_size(FIELD_SECTION_MAX).send_grease(false);
        Ok(H3Server { h3: builder.build(streams).await?, accepted })
    }

    /// The next request; `None` when the client wants no more. What the client says of the connection as a whole is read in
    /// here, so that it has to be polled while requests are under way.
    ///
    /// # Errors
    /// When the connection ends, or the client broke a rule, which has ended it.
    ///
    /// # Cancel safety
    /// No request is lost by dropping the future.
    pub async fn accept(&mut self) -> Result<Option<H3Request>, ConnectionError> {
        let Some(resolver) = self.h3.accept().await? else { return Ok(None) };
        let fate = self.accepted.lock().take().unwrap_or_else(|| std::future::pending().boxed());
        Ok(Some(H3Request { resolver, fate }))
    }

    /// Tells the client to send no more requests here (GOAWAY, RFC 9114 section 5.2). Those that it sent are served.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Cancel safety
    /// Not cancel safe: half a frame may have been sent.
    pub async fn go_away(&mut self) -> Result<(), ConnectionError> {
        // One more than the last: the id in the frame is that of the first request that is not served.
        self.h3.shutdown(1).await
    }
}

impl H3Request {
    /// Reads the request's fields. A field section above [`FIELD_SECTION_MAX`] is answered with status 431.
    ///
    /// # Errors
    /// When the stream ends before them, or what came breaks a rule.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up.
    pub async fn read(self) -> Result<(Request<()>, H3Stream), StreamError> {
        let (request, stream) = self.resolver.resolve_request().await?;
        Ok((request, H3Stream { stream, fate: self.fate }))
    }

    /// Refuses the request, which may be repeated elsewhere (H3_REQUEST_REJECTED, RFC 9114 section 4.1.1).
    pub fn reject(mut self) {
        quic::SendStream::<Bytes>::reset(&mut self.resolver.frame_stream, Code::H3_REQUEST_REJECTED.value());
    }
}

impl H3Stream {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the client reset the stream or broke a rule.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let piece = self.stream.recv_data().await?;
        Ok(piece.map(|mut piece| piece.copy_to_bytes(piece.remaining())))
    }

    /// Waits until the client has lost interest (STOP_SENDING).
    ///
    /// # Cancel safety
    /// Changes nothing, until it is ready; then it has to be the last call.
    pub async fn cancelled(&mut self) {
        (&mut self.fate).await;
    }

    /// Sends the response, and waits until the client has all of it or does not want it.
    ///
    /// # Errors
    /// When the client stopped the stream or the connection ended.
    ///
    /// # Cancel safety
    /// Dropping the future before the end resets the stream.
    pub async fn respond(mut self, response: Response<Bytes>) -> Result<(), StreamError> {
        let (parts, body) = response.into_parts();
        self.stream.send_response(Response::from_parts(parts, ())).await?;
        if !body.is_empty() {
            self.stream.send_data(body).await?;
        }
        self.stream.finish().await?;
        self.fate.await;
        Ok(())
    }

    /// Ends the stream without a response: something failed here (H3_INTERNAL_ERROR).
    pub fn abandon(mut self) {
        self.stream.stop_stream(Code::H3_INTERNAL_ERROR);
    }
}

/// The connection as h3 wants it.
pub struct Streams {
    opener: Opener,
    requests: Arriving<(quinn::SendStream, quinn::RecvStream)>,
    others: Arriving<quinn::RecvStream>,
    accepted: Accepted,
}

type Arriving<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send>>;

impl Streams {
    fn new(connection: Connection, accepted: Accepted) -> Streams {
        let requests = stream::unfold(connection.clone(), async |connection| {
            let accepted = connection.accept_bi().await;
            Some((accepted, connection))
        });
        let others = stream::unfold(connection.clone(), async |connection| {
            let accepted = connection.accept_uni().await;
            Some((accepted, connection))
        });
        let opener = Opener { connection, opening: None };
        Streams { opener, requests: Box::pin(requests), others: Box::pin(others), accepted }
    }
}

impl quic::Connection<Bytes> for Streams {
    type RecvStream = Receiver;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiver, ConnectionErrorIncoming>> {
        let arrived = ready!(self.others.poll_next_unpin(cx)).unwrap_or(Err(quinn::ConnectionError::LocallyClosed));
        let stream = arrived.map_err(connection_error)?;
        Poll::Ready(Ok(Receiver::new(stream, &self.opener.connection, Kind::Unknown(Varint::default()))))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let arrived = ready!(self.requests.poll_next_unpin(cx)).unwrap_or(Err(quinn::ConnectionError::LocallyClosed));
        let (send, receive) = arrived.map_err(connection_error)?;
        *self.accepted.lock() = Some(send.stopped().map(drop).boxed());
        let receive = Receiver::new(receive, &self.opener.connection, Kind::Frames(FrameLimit::default()));
        Poll::Ready(Ok(Both { send: Sender { stream: send, writing: None }, receive }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Streams {
    type BidiStream = Both;
    type SendStream = Sender;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sender, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens our own streams: control and QPACK.
pub struct Opener {
    connection: Connection,
    opening: Option<BoxFuture<'static, Result<quinn::SendStream, quinn::ConnectionError>>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sender;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        // RFC 9114 section 6.1: servers open no such streams.
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no request streams".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sender, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_uni().await }.boxed()
        });
        let opened = ready!(opening.poll_unpin(cx));
        self.opening = None;
        Poll::Ready(match opened {
            Ok(stream) => Ok(Sender { stream, writing: None }),
            Err(error) => Err(lost(error)),
        })
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(code_of(code.value()), reason);
    }
}

/// A request's stream.
pub struct Both {
    send: Sender,
    receive: Receiver,
}

/// What we send on a stream.
pub struct Sender {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
}

/// What a client sends on a stream.
pub struct Receiver {
    stream: quinn::RecvStream,
    connection: Connection,
    kind: Kind,
    buffer: BytesMut,
}

/// What is on a stream.
enum Kind {
    /// The type comes first (RFC 9114 section 6.2). -> `Frames` or `Bytes` when it is whole.
    Unknown(Varint),
    /// Requests, and the control stream.
    Frames(FrameLimit),
    /// What nobody collects.
    Bytes,
}

impl Receiver {
    fn new(stream: quinn::RecvStream, connection: &Connection, kind: Kind) -> Receiver {
        Receiver { stream, connection: connection.clone(), kind, buffer: BytesMut::new() }
    }
}

impl Kind {
    /// Whether what comes next may be kept.
    fn allows(&mut self, bytes: &[u8]) -> bool {
        match self {
            Kind::Bytes => true,
            Kind::Frames(limit) => limit.see(bytes).is_ok(),
            Kind::Unknown(varint) => {
                let mut rest = bytes.iter();
                let Some(kind) = rest.find_map(|byte| varint.push(*byte)) else { return true };
                *self = if kind == CONTROL { Kind::Frames(FrameLimit::default()) } else { Kind::Bytes };
                self.allows(rest.as_slice())
            }
        }
    }
}

impl quic::RecvStream for Receiver {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.buffer.resize(READ, 0);
        let read = ready!(self.stream.poll_read(cx, &mut self.buffer)).map_err(read_error)?;
        let bytes = self.buffer.split_to(read).freeze();
        if !self.kind.allows(&bytes) {
            self.connection.close(code_of(Code::H3_EXCESSIVE_LOAD.value()), b"frame too long");
            return Poll::Ready(Err(lost(quinn::ConnectionError::LocallyClosed)));
        }
        Poll::Ready(Ok((read > 0).then_some(bytes)))
    }

    fn stop_sending(&mut self, code: u64) {
        // A stream that has ended needs no stop.
        let _ = self.stream.stop(code_of(code));
    }

    fn recv_id(&self) -> StreamId {
        id_of(self.stream.id())
    }
}

impl quic::SendStream<Bytes> for Sender {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(Buf::has_remaining) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(write_error)?;
            data.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("the data before is not sent yet".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        // A stream that has ended needs no reset.
        let _ = self.stream.reset(code_of(code));
    }

    fn send_id(&self) -> StreamId {
        id_of(self.stream.id())
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

fn id_of(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner()).expect("both are numbers below 2^62")
}

fn code_of(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

/// The largest field section that is read, in the bytes of RFC 9114 section 4.2.2: a GET request of DoH holds its query in
/// there. Clients are told.
pub const FIELD_SECTION_MAX: u64 = 16 * 1024;

/// Streams in one direction that a client needs: control and twice QPACK (RFC 9114 section 6.2), and some whose type nobody
/// knows, which clients open to keep servers tolerant.
pub const UNI_STREAMS_MAX: u32 = 8;

/// The type of the stream with what is said of the connection as a whole.
const CONTROL: u64 = 0;

/// Bytes read at a time.
const READ: usize = 2048;
