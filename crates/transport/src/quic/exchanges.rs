//! Many small exchanges on one connection, each on a stream of its own, moved together by one task.
//!
//! A request is all that goes out on its stream, the answer all that comes back, each ended by FIN: as DNS over QUIC has it
//! (RFC 9250 section 4.2). What is deliberately not here: what the bytes mean.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::QuicConnection;
use crate::error::{Error, ErrorKind, Phase};

/// A request's `context` as it was given, and what came of the request.
pub type Answered<T> = (T, Result<Vec<u8>, Error>);

/// The exchanges under way on a connection.
///
/// `T` is what the caller wants back with the answer. The number of requests under way is the caller's to limit; what is
/// above the peer's limit on streams waits here.
pub struct QuicExchanges<T> {
    connection: QuicConnection,
    answer_max: usize,
    cancel_code: u32,
    waiting: VecDeque<Request<T>>,
    opening: Option<Opening>,
    under_way: FuturesUnordered<Exchange<T>>,
    ended: Option<Pin<Box<dyn Future<Output = QuicEnd> + Send>>>,
}

/// Why a connection ended.
#[derive(Debug, Clone)]
pub enum QuicEnd {
    /// The peer closed it with this error code of the application protocol.
    Closed(u64),
    /// Nothing came for the idle time-out.
    Idle,
    /// The peer does not know the connection any more, or nobody listens there.
    Reset,
    /// [`QuicConnection::close`] was called.
    Released,
    /// The connection broke.
    Error(Error),
}

struct Request<T> {
    message: Bytes,
    context: T,
    since: Instant,
}

type Opening = Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send>>;

impl<T: Unpin> QuicExchanges<T> {
    /// Takes a connection. Answers of more than `answer_max` bytes are refused; `cancel_code` tells the peer that an answer is
    /// no longer wanted.
    pub fn new(connection: QuicConnection, answer_max: usize, cancel_code: u32) -> QuicExchanges<T> {
        let ended = Box::pin(ended(connection.clone()));
        QuicExchanges {
            connection,
            answer_max,
            cancel_code,
            waiting: VecDeque::new(),
            opening: None,
            under_way: FuturesUnordered::new(),
            ended: Some(ended),
        }
    }

    /// Requests that have no answer yet.
    pub fn len(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }

    /// Whether no request is without its answer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests for which the peer gives no stream yet.
    pub fn blocked(&self) -> usize {
        self.waiting.len()
    }

    /// Starts a request. It leaves with the next [`poll`](Self::poll), which is the caller's to see to: this wakes nobody.
    pub fn start(&mut self, message: Bytes, context: T, now: Instant) {
        self.waiting.push_back(Request { message, context, since: now });
    }

    /// Moves the streams and appends what has ended to `finished`. Ready, once, with the end of the connection; requests may
    /// be without their answer even then, see [`disconnect`](Self::disconnect).
    pub fn poll(&mut self, cx: &mut Context<'_>, finished: &mut Vec<Answered<T>>) -> Poll<QuicEnd> {
        self.open(cx);
        self.poll_exchanges(cx, finished);
        let Some(ended) = &mut self.ended else { return Poll::Pending };
        let end = ready!(ended.as_mut().poll(cx));
        self.ended = None;
        Poll::Ready(end)
    }

    /// Gives up what was started before `limit`, and tells the peer so: a stream that is never answered would keep its place
    /// for good.
    pub fn give_up(&mut self, limit: Instant) {
        if self.under_way.iter().all(|exchange| exchange.since >= limit) {
            return;
        }
        let code = VarInt::from_u32(self.cancel_code);
        for mut exchange in std::mem::take(&mut self.under_way) {
            if exchange.since < limit {
                // Either may be over already.
                let _ = (exchange.send.reset(code), exchange.recv.stop(code));
            } else {
                self.under_way.push(exchange);
            }
        }
    }

    /// Closes the connection, unless it has ended, and fails what has no answer yet. What never left may go elsewhere, as
    /// [`Error::is_retryable`] says.
    pub fn disconnect(&mut self, code: u32, cx: &mut Context<'_>, finished: &mut Vec<Answered<T>>) {
        // Answers that are here already are still good.
        self.poll_exchanges(cx, finished);
        self.connection.close(code);
        self.opening = None;
        for request in self.waiting.drain(..) {
            let error =
                Error::new(ErrorKind::Eof, Phase::Write, self.connection.tried(), "the connection ended before");
            finished.push((request.context, Err(error.not_processed())));
        }
        let lost = self.connection.quinn.close_reason().unwrap_or(ConnectionError::LocallyClosed);
        for exchange in std::mem::take(&mut self.under_way) {
            if let Some(context) = exchange.context {
                finished.push((context, Err(self.connection.lost(&lost))));
            }
        }
    }

    /// Opens a stream for each request, as long as the peer gives any.
    fn open(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() {
            let quinn = &self.connection.quinn;
            let opening = self.opening.get_or_insert_with(|| {
                let quinn = quinn.clone();
                Box::pin(async move { quinn.open_bi().await })
            });
            let Poll::Ready(opened) = opening.as_mut().poll(cx) else { return };
            self.opening = None;
            // What fails here is the connection, whose end is told to all, those that still wait here among them.
            let Ok((send, recv)) = opened else { return };
            let Some(request) = self.waiting.pop_front() else { return };
            self.under_way.push(Exchange {
                connection: self.connection.clone(),
                context: Some(request.context),
                since: request.since,
                send,
                recv,
                message: request.message,
                answer: Vec::new(),
                answer_max: self.answer_max,
            });
        }
    }

    fn poll_exchanges(&mut self, cx: &mut Context<'_>, finished: &mut Vec<Answered<T>>) {
        while let Poll::Ready(Some((Some(context), result))) = self.under_way.poll_next_unpin(cx) {
            finished.push((context, result));
        }
    }
}

impl<T> fmt::Debug for QuicExchanges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicExchanges").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

async fn ended(connection: QuicConnection) -> QuicEnd {
    let error = tokio::select! {
        error = connection.quinn.closed() => error,
        () = connection.socket.refused() => return QuicEnd::Reset,
    };
    match &error {
        ConnectionError::ApplicationClosed(close) => QuicEnd::Closed(close.error_code.into_inner()),
        ConnectionError::TimedOut => QuicEnd::Idle,
        ConnectionError::Reset => QuicEnd::Reset,
        ConnectionError::LocallyClosed => QuicEnd::Released,
        _ => QuicEnd::Error(connection.lost(&error)),
    }
}

/// One request on its stream. Its output's context is `None` only when it was given out before.
struct Exchange<T> {
    connection: QuicConnection,
    context: Option<T>,
    since: Instant,
    send: SendStream,
    recv: RecvStream,
    /// What is still to be sent; empty once FIN was.
    message: Bytes,
    answer: Vec<u8>,
    answer_max: usize,
}

impl<T: Unpin> Future for Exchange<T> {
    type Output = (Option<T>, Result<Vec<u8>, Error>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready((this.context.take(), Err(error)));
        }
        let result = ready!(this.poll_answer(cx));
        Poll::Ready((this.context.take(), result))
    }
}

impl<T> Exchange<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.message.is_empty() {
            let written = match ready!(Pin::new(&mut self.send).poll_write(cx, &self.message)) {
                Ok(written) => written,
                // Whether the answer comes all the same, the other half of the stream says.
                Err(WriteError::Stopped(code)) if u64::from(code) == 0 => return Poll::Ready(Ok(())),
                Err(WriteError::Stopped(code)) => return Poll::Ready(Err(self.given_up(code))),
                Err(WriteError::ConnectionLost(error)) => return Poll::Ready(Err(self.connection.lost(&error))),
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            };
            self.message = self.message.split_off(written);
            if self.message.is_empty() {
                // This fails only on a stream that the peer has stopped: see above.
                let _ = self.send.finish();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        loop {
            let filled = self.answer.len();
            if filled > self.answer_max {
                let happened = format!("the answer is above the limit of {} bytes", self.answer_max);
                return Poll::Ready(Err(self.error(ErrorKind::Protocol, happened)));
            }
            // Room for the usual answer at first, then for as much again.
            self.answer.resize(filled + filled.max(ANSWER_USUAL), 0);
            let read = self.recv.poll_read(cx, &mut self.answer[filled..]);
            let length = filled + if let Poll::Ready(Ok(length)) = &read { *length } else { 0 };
            self.answer.truncate(length);
            match ready!(read) {
                Ok(0) => return Poll::Ready(Ok(std::mem::take(&mut self.answer))),
                Ok(_) => {}
                Err(ReadError::Reset(code)) => return Poll::Ready(Err(self.given_up(code))),
                Err(ReadError::ConnectionLost(error)) => return Poll::Ready(Err(self.connection.lost(&error))),
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            }
        }
    }

    fn given_up(&self, code: VarInt) -> Error {
        self.error(ErrorKind::Quic, format!("stream given up by peer (code {code})"))
    }

    fn broken(&self, error: &dyn std::error::Error) -> Error {
        self.error(ErrorKind::Other, format!("the stream is of no use: {error}"))
    }

    fn error(&self, kind: ErrorKind, happened: String) -> Error {
        Error::new(kind, Phase::Read, self.connection.tried(), happened)
    }
}

/// Room for the first part of an answer, in bytes.
const ANSWER_USUAL: usize = 512;
