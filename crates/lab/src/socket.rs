//! A connection's byte stream, made so that the lab keeps a hand on the socket while TLS or HTTP own the stream: only so
//! can it reset, half-close or silence a connection at will. Also counts how each connection ends.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use crate::CloseKind;
use crate::core::{Control, Core, Transport};
use crate::counters::ClosedBy;

/// What is kept for one connection, beside its stream.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) core: Arc<Core>,
    pub(crate) transport: Transport,
    pub(crate) tcp: Arc<TcpStream>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) control: watch::Receiver<Control>,
    /// [`Control::closes`] when the connection began.
    pub(crate) closes: u64,
}

impl Connection {
    /// How the connection is to end now, if its owner wants so. Waits for a change of mind or of faults.
    pub(crate) async fn changed(&mut self) -> Option<CloseKind> {
        if self.control.changed().await.is_err() {
            return Some(CloseKind::Reset);
        }
        let control = self.control.borrow_and_update();
        (control.closes != self.closes).then_some(control.close_kind)
    }

    /// Waits until the connection is to end.
    pub(crate) async fn closed(&mut self) -> CloseKind {
        loop {
            if let Some(kind) = self.changed().await {
                return kind;
            }
        }
    }

    /// Ends a connection without a word of TLS or HTTP. `held` owns the stream.
    pub(crate) async fn end<T>(mut self, held: T, mut kind: CloseKind) {
        while kind == CloseKind::Silence {
            self.meter.settle();
            self.closes = self.control.borrow().closes;
            kind = self.closed().await;
        }
        self.meter.closed(ClosedBy::Lab);
        if kind == CloseKind::Reset {
            // Closing a socket with SO_LINGER 0 sends RST. The last owner closes it: that is this function's end.
            let _ = self.tcp.set_zero_linger();
            drop(held);
        } else {
            let _ = SockRef::from(&*self.tcp).shutdown(Shutdown::Write);
            drop(held);
            self.drain().await;
        }
    }

    /// Reads until the peer closes too: closing a socket with unread data would reset it and might take answers with it.
    pub(crate) async fn drain(&self) {
        let _ = tokio::time::timeout(DRAIN_MAX, discard(&self.tcp)).await;
    }
}

/// Reads until the peer closes.
pub(crate) async fn discard(tcp: &TcpStream) {
    let mut buffer = [0; 4096];
    while tcp.readable().await.is_ok() {
        match tcp.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Counts the queries and the end of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    core: Arc<Core>,
    transport: Transport,
    in_flight: AtomicU64,
    closed: AtomicBool,
}

impl Meter {
    pub(crate) fn new(core: Arc<Core>, transport: Transport) -> Self {
        Self { core, transport, in_flight: AtomicU64::new(0), closed: AtomicBool::new(false) }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn query(&self) {
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.core.tally(self.transport).query(in_flight);
    }

    /// One query less waits; `messages` were sent for it.
    pub(crate) fn answered(&self, messages: usize) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.core.tally(self.transport).answered(messages as u64, 1);
    }

    /// Gives up all queries that wait.
    pub(crate) fn settle(&self) {
        let waiting = self.in_flight.swap(0, Ordering::Relaxed);
        self.core.tally(self.transport).answered(0, waiting);
    }

    /// Counts the end of the connection; only the first call does.
    pub(crate) fn closed(&self, by: ClosedBy) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            self.core.tally(self.transport).closed(by);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle();
        self.closed(ClosedBy::Lab);
    }
}

/// A TCP stream whose socket others may hold as well.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<TcpStream>);

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

/// A connection's stream, with or without TLS. Counts which side ends it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) layer: Layer,
    pub(crate) meter: Arc<Meter>,
}

#[derive(Debug)]
pub(crate) enum Layer {
    Plain(Shared),
    Tls(Box<TlsStream<Shared>>),
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Layer::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        });
        if result.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            self.meter.closed(ClosedBy::Peer);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        });
        if result.is_err() {
            self.meter.closed(ClosedBy::Peer);
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Counted before the peer can see it.
        self.meter.closed(ClosedBy::Lab);
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// How long a closed connection waits for its peer to close too.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(2);
