//! A tunnel as its owner holds it: the connection, and what keeps it counted.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use keepwarm_transport::proxy::Target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Trace;
use crate::{permits::Permit, stream::Stream, upstream::LiveOn};

/// A live connection to a destination. Dropping it closes it and gives its permit to the next that waits.
pub struct Tunnel {
    stream: Stream,
    live: Live,
}

/// A tunnel's permits and counters: as long as this lives, the tunnel counts as live.
pub struct Live {
    traffic: Arc<Traffic>,
    trace: Trace,
    permit: Permit,
    upstream: LiveOn,
    /// By which rules and upstreams it came about.
    ways: u64,
}

/// Bytes that went through a tunnel so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client to the destination.
    pub sent: AtomicU64,
    /// From the destination to the client.
    pub received: AtomicU64,
}

impl Tunnel {
    pub(super) fn new(stream: Stream, live: Live) -> Tunnel {
        Tunnel { stream, live }
    }

    /// How it came about.
    pub fn trace(&self) -> &Trace {
        &self.live.trace
    }

    /// The connection, and what keeps it counted as live: to be dropped when the connection has ended.
    pub fn into_parts(self) -> (Stream, Live) {
        (self.stream, self.live)
    }
}

impl Live {
    pub(super) fn new(permit: Permit, upstream: LiveOn, trace: Trace, ways: u64) -> Live {
        Live { traffic: Arc::default(), trace, permit, upstream, ways }
    }

    /// By which rules and upstreams it came about; see [`Connector::ways`](crate::Connector::ways).
    pub(crate) fn ways(&self) -> u64 {
        self.ways
    }

    /// How the tunnel came about.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Its bytes; whoever relays them counts here.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        self.permit.target()
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.permit.is_wanted()
    }

    /// The tunnel serves once more, or for the first time after it was opened ahead.
    pub(super) fn begin_again(&mut self, elapsed: Duration) {
        self.trace = Trace { ready: true, tries: 1, waited: Duration::ZERO, elapsed, ..self.trace.clone() };
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.upstream.carried(count(&self.traffic.sent), count(&self.traffic.received));
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        this.live.traffic.received.fetch_add(read as u64, Ordering::Relaxed);
        poll
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            this.live.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("trace", &self.live.trace).finish_non_exhaustive()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("trace", &self.trace).finish_non_exhaustive()
    }
}
