//! Sits between the h2 crate and TLS and follows the frames of both directions (RFC 9113 section 4.1). It counts what the h2 crate does
//! not tell (streams as the peer sees them, PING, RST_STREAM) and changes what the h2 crate cannot be asked for: the stream limit of
//! SETTINGS at run time, and the last stream of GOAWAY.

mod frames;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use self::frames::{ACK, DATA, END_STREAM, Frames, GOAWAY, HEADERS, Head, PING, RST_STREAM, SETTINGS};
use super::connection::Life;
use super::site::Site;
use crate::counters::ClosedBy;
use crate::socket::Shared;

/// What is known of one h2 connection from its frames; shared with the connection's task.
#[derive(Debug)]
pub(super) struct Wire {
    site: Arc<Site>,
    life: Arc<Life>,
    state: Mutex<State>,
    /// Something was sent or acknowledged.
    moved: Notify,
}

#[derive(Debug)]
struct State {
    streams: HashMap<u32, Stream>,
    highest: u32,
    /// For SETTINGS to come.
    limit: u32,
    /// Limits sent and not yet acknowledged.
    sent: VecDeque<u32>,
    /// What the client has acknowledged; until it has, it knows of no limit.
    acknowledged: u32,
    /// The last stream that GOAWAY names.
    last: Option<u32>,
    gone_away: bool,
    /// Bytes wait to be written.
    unwritten: bool,
}

#[derive(Debug, Default)]
struct Stream {
    remote_done: bool,
    local_done: bool,
    over_limit: bool,
    /// Payload of DATA sent.
    sent: u64,
}

impl State {
    fn is_quiet(&self) -> bool {
        !self.unwritten && self.streams.values().all(|stream| stream.local_done)
    }
}

impl Wire {
    pub(super) fn new(site: Arc<Site>, life: Arc<Life>, limit: u32) -> Arc<Self> {
        let state = State {
            streams: HashMap::new(),
            highest: 0,
            limit,
            sent: VecDeque::new(),
            acknowledged: u32::MAX,
            last: None,
            gone_away: false,
            unwritten: false,
        };
        Arc::new(Self { site, life, state: Mutex::new(state), moved: Notify::new() })
    }

    /// The limit that the next SETTINGS will carry. Says whether it is another one than before.
    pub(super) fn set_limit(&self, limit: u32) -> bool {
        let mut state = self.state.lock();
        std::mem::replace(&mut state.limit, limit) != limit
    }

    /// Whether the client had acknowledged that it must not open this stream.
    pub(super) fn is_over_limit(&self, id: u32) -> bool {
        self.state.lock().streams.get(&id).is_some_and(|stream| stream.over_limit)
    }

    /// GOAWAY names this stream as the last from now on.
    pub(super) fn set_last(&self, id: u32) {
        self.state.lock().last = Some(id);
    }

    /// Whether GOAWAY has told the client that this stream will not be processed.
    pub(super) fn is_cut(&self, id: u32) -> bool {
        self.state.lock().last.is_some_and(|last| id > last)
    }

    /// Waits until so many bytes of a stream's body were handed to the socket, or the stream is gone.
    pub(super) async fn sent(&self, id: u32, bytes: u64) {
        self.until(|state| !state.unwritten && state.streams.get(&id).is_none_or(|stream| stream.sent >= bytes)).await;
    }

    /// Waits until all SETTINGS are acknowledged.
    pub(super) async fn settled(&self) {
        self.until(|state| state.sent.is_empty()).await;
    }

    /// Whether no answer is under way, nor a byte of one waits to be written.
    pub(super) fn is_quiet(&self) -> bool {
        self.state.lock().is_quiet()
    }

    /// Waits until [`is_quiet`](Self::is_quiet).
    pub(super) async fn quiet(&self) {
        self.until(State::is_quiet).await;
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if condition(&self.state.lock()) {
                return;
            }
            moved.await;
        }
    }

    fn received(&self, head: Head) {
        let state = &mut *self.state.lock();
        match head.kind {
            HEADERS if head.stream > state.highest => self.open(state, head.stream),
            PING if !head.has(ACK) => self.site.count(|counters| counters.pings += 1),
            SETTINGS if head.has(ACK) => {
                state.acknowledged = state.sent.pop_front().unwrap_or(state.acknowledged);
                self.moved.notify_waiters();
            }
            RST_STREAM => self.close(state, head.stream, true),
            _ => {}
        }
        if matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            self.half_close(state, head.stream, |stream| stream.remote_done = true);
        }
    }

    fn open(&self, state: &mut State, id: u32) {
        state.highest = id;
        let here = state.streams.len() as u64 + 1;
        let over_limit = here > u64::from(state.acknowledged);
        state.streams.insert(id, Stream { over_limit, ..Stream::default() });
        self.site.count(|counters| {
            counters.open_stream(here);
            counters.over_limit += u64::from(over_limit);
        });
    }

    fn half_close(&self, state: &mut State, id: u32, mark: impl FnOnce(&mut Stream)) {
        let Some(stream) = state.streams.get_mut(&id) else { return };
        mark(stream);
        self.moved.notify_waiters();
        if stream.remote_done && stream.local_done {
            self.close(state, id, false);
        }
    }

    fn close(&self, state: &mut State, id: u32, by_peer: bool) {
        let Some(stream) = state.streams.remove(&id) else { return };
        self.site.count(|counters| {
            counters.streams_open -= 1;
            counters.aborted += u64::from(by_peer && !stream.local_done);
        });
        self.moved.notify_waiters();
    }

    /// Follows a frame on its way out, and changes it if it is SETTINGS or GOAWAY.
    fn sending(&self, head: &mut Head, payload: &mut Vec<u8>) {
        let state = &mut *self.state.lock();
        match head.kind {
            SETTINGS if !head.has(ACK) => {
                frames::set_max_streams(payload, state.limit);
                state.sent.push_back(state.limit);
                self.site.count(|counters| counters.settings += 1);
            }
            GOAWAY => {
                if let (Some(last), Some(id)) = (state.last, payload.first_chunk_mut()) {
                    *id = last.to_be_bytes();
                }
                if !std::mem::replace(&mut state.gone_away, true) {
                    self.site.count(|counters| counters.goaways += 1);
                }
            }
            DATA => {
                if let Some(stream) = state.streams.get_mut(&head.stream) {
                    stream.sent += u64::from(head.length);
                }
            }
            RST_STREAM => self.close(state, head.stream, false),
            _ => {}
        }
        if matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            self.half_close(state, head.stream, |stream| stream.local_done = true);
        }
    }

    fn set_unwritten(&self, unwritten: bool) {
        let mut state = self.state.lock();
        if state.unwritten != unwritten {
            state.unwritten = unwritten;
            self.moved.notify_waiters();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let streams = &self.state.get_mut().streams;
        let by_peer = self.life.ended_by_peer();
        let aborted = streams.values().filter(|stream| by_peer && !stream.local_done).count();
        self.site.count(|counters| {
            counters.streams_open -= streams.len() as u64;
            counters.aborted += aborted as u64;
        });
    }
}

/// A TLS stream under an h2 server.
#[derive(Debug)]
pub(super) struct Tap {
    tls: TlsStream<Shared>,
    wire: Arc<Wire>,
    incoming: Frames,
    outgoing: Frames,
    output: BytesMut,
}

impl Tap {
    pub(super) fn new(tls: TlsStream<Shared>, wire: Arc<Wire>) -> Self {
        Self { tls, wire, incoming: Frames::after(PREFACE), outgoing: Frames::after(0), output: BytesMut::new() }
    }

    /// Hands output to TLS until at most `left` bytes wait.
    fn poll_output(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Result<()>> {
        while self.output.len() > left {
            match ready!(Pin::new(&mut self.tls).poll_write(cx, &self.output)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.output.advance(written),
                Err(error) => {
                    self.wire.life.closed(ClosedBy::Peer);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.tls).poll_read(cx, buffer));
        let read = &buffer.filled()[before..];
        if result.is_err() || (read.is_empty() && buffer.remaining() > 0) {
            this.wire.life.closed(ClosedBy::Peer);
        }
        this.incoming.follow(read, |head| this.wire.received(head));
        Poll::Ready(result)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_output(cx, OUTPUT_MAX))?;
        this.wire.set_unwritten(true);
        this.outgoing.change(bytes, &mut this.output, |head, payload| this.wire.sending(head, payload));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(cx, 0))?;
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        self.wire.set_unwritten(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        // Counted before the peer can see it.
        self.wire.life.closed(ClosedBy::Lab);
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// The client's preface, RFC 9113 section 3.4.
const PREFACE: usize = 24;
/// More is written before more is taken.
const OUTPUT_MAX: usize = 65_536;
