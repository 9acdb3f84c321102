//! Drives one TCP or TLS connection: queries out in batches, answers back in any order (RFC 7766 sections 6.2.1 and 7).
//!
//! Bytes are moved by a [`Line`], one task for both directions: all that was handed over leaves in one write, and all
//! that one wake-up reads goes back in one piece to each asker. Which answer is whose is the [`Exchange`]'s business,
//! which knows no socket and no clock.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::{CloseReason, Slot};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant as Clock, MissedTickBehavior},
};

use self::table::Exchange;
use super::{
    connector::{DnsConnector, close_reason},
    endpoint::{Endpoint, count},
};
use crate::{
    error::{Error, ErrorKind},
    exchange::{Batch, Driven, Outgoing, Pipe, Replies, closed},
    framing::Frames,
    message,
};

mod table;

/// Runs until the peer ends the connection, the owner lets go, or nothing comes back any more.
pub(super) async fn drive<S>(stream: S, pipe: Arc<Pipe>, slot: Slot<DnsConnector>, endpoint: Arc<Endpoint>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let pipe = Driven(pipe);
    let mut line = Line::new(stream, endpoint.url());
    line.exchange.cookies = pipe.cookies();
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (reason, how) = poll_fn(|cx| {
        let now = Clock::now().into_std();
        let received = line.receive(cx, &pipe, now);
        // Before a query goes elsewhere, the pool knows why this connection is not to be used again.
        tell(&mut line.exchange, &slot, &endpoint);
        line.exchange.askers.deliver();
        if received.is_ready() {
            return received;
        }
        if let Poll::Ready(Err(error)) = line.send(cx) {
            return Poll::Ready(ended(&error));
        }
        while check.poll_tick(cx).is_ready() {
            let silent = line.exchange.silent(pipe.heard(), now, endpoint.timeout());
            tell(&mut line.exchange, &slot, &endpoint);
            if silent {
                return Poll::Ready((CloseReason::PeerClosed, "nothing came back"));
            }
        }
        Poll::Pending
    })
    .await;
    if reason == CloseReason::Drained {
        // Orderly: TLS gets its close_notify, TCP its FIN.
        let _ = line.stream.shutdown().await;
    }
    slot.closed(reason);
    let error = closed(&endpoint.url(), how);
    line.exchange.fail(&error);
    pipe.end(&error);
}

/// Passes on what the answers said about their connection.
fn tell(exchange: &mut Exchange, slot: &Slot<DnsConnector>, endpoint: &Endpoint) {
    let noticed = std::mem::take(&mut exchange.noticed);
    for _ in 0..noticed.wrong {
        count(&endpoint.counters.wrong_answers);
    }
    for _ in 0..noticed.cookie_errors {
        count(&endpoint.counters.cookie_errors);
    }
    if let Some(limit) = noticed.idle_limit.filter(|limit| !limit.is_zero()) {
        slot.idle_limit(limit);
    }
    // RFC 7828 section 3.4: zero asks for the connection to be closed once all answers are there.
    if noticed.drain || noticed.idle_limit == Some(Duration::ZERO) {
        slot.drain();
    }
}

/// How a connection ended, for the pool and for those who wait.
type End = (CloseReason, &'static str);

/// Moves the bytes of one connection.
struct Line<S> {
    stream: S,
    exchange: Exchange,
    batch: Batch,
    input: Frames,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl<S> Line<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn new(stream: S, target: impl Into<Box<str>>) -> Line<S> {
        Line {
            stream,
            exchange: Exchange::new(target.into()),
            batch: Batch::default(),
            input: Frames::new(READ_BUFFER),
            output: Vec::new(),
            written: 0,
            unflushed: false,
        }
    }

    /// Takes what was handed over and what came in. Ready when the connection is at its end.
    fn receive(&mut self, cx: &mut Context<'_>, pipe: &Pipe, now: Instant) -> Poll<End> {
        if !pipe.take(cx, &mut self.batch, &mut self.exchange.askers) {
            return Poll::Ready((CloseReason::Drained, "the connection was let go"));
        }
        if !self.batch.items.is_empty() {
            self.output.drain(..self.written);
            self.written = 0;
            self.exchange.send(&mut self.batch, &mut self.output, now);
        }
        for _ in 0..READS_MAX {
            match ready!(self.input.poll_fill(&mut self.stream, cx)) {
                Ok(0) => return Poll::Ready((CloseReason::PeerClosed, "the upstream closed the connection")),
                Ok(_) => {
                    pipe.hear(now);
                    while let Some(answer) = self.input.next() {
                        self.exchange.receive(answer, now);
                    }
                    if self.exchange.stray {
                        return Poll::Ready((CloseReason::StrayBytes, "an answer came that nobody asked for"));
                    }
                }
                Err(error) => return Poll::Ready(ended(&error)),
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what there is and flushes it. Ready when all of it is out.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.unflushed = true;
        }
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT);
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn ended(error: &io::Error) -> End {
    // rustls reports a FIN without close_notify as UnexpectedEof: for a connection between messages it is an end like any.
    (close_reason(error), "the connection broke")
}

/// Asks for the root's name servers, which every resolver knows; any answer is proof of life.
pub(super) async fn probe(endpoint: &Endpoint, pipe: &Arc<Pipe>) -> Result<(), Error> {
    struct Once(parking_lot::Mutex<Option<oneshot::Sender<Result<Bytes, Error>>>>);
    impl Replies for Once {
        fn reply(&self, _: u64, result: Result<Bytes, Error>) {
            if let Some(sender) = self.0.lock().take() {
                let _ = sender.send(result);
            }
        }
    }
    let (sender, receiver) = oneshot::channel();
    let replies: Arc<dyn Replies> = Arc::new(Once(parking_lot::Mutex::new(Some(sender))));
    let query = message::build_query(".", message::TYPE_NS).expect("the root is a valid name");
    // The question ends where its OPT of 11 bytes begins.
    let query = Outgoing { message: &query, question_end: query.len() - 11, bare: false, now: Clock::now().into_std() };
    pipe.submit_once(query, 0, &replies);
    match tokio::time::timeout(PROBE, receiver).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(closed(&endpoint.url(), "the connection ended")),
        Err(_) => {
            Err(Error::new(ErrorKind::TimedOut, format!("probe of {}: no answer after {PROBE:?}", endpoint.url())))
        }
    }
}

const READ_BUFFER: usize = 16 * 1024;

/// Reads before other tasks have their turn.
const READS_MAX: usize = 8;

/// Bytes of an empty output buffer that are kept for the next queries.
const OUTPUT_KEPT: usize = 64 * 1024;

/// How often a connection is checked for silence.
pub(super) const CHECK: Duration = Duration::from_millis(250);

/// A connection on which queries wait and nothing came for so long gets no new ones.
pub(crate) const STALLED: Duration = Duration::from_secs(1);

/// Limit for the proof of life.
const PROBE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
