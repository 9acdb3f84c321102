//! A stream that keeps a copy of the first bytes read from it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream and the copy of what was read.
#[derive(Debug)]
pub(super) struct Tee<S> {
    stream: S,
    copy: Copied,
}

/// The first bytes that were read, up to a limit. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    bytes: Arc<Mutex<Vec<u8>>>,
    max: usize,
}

impl Copied {
    pub(super) fn up_to(max: usize) -> Copied {
        Copied { bytes: Arc::default(), max }
    }

    /// Looks at what there is.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.bytes.lock())
    }

    fn add(&self, read: &[u8]) {
        let mut bytes = self.bytes.lock();
        let room = self.max.saturating_sub(bytes.len());
        bytes.extend_from_slice(&read[..read.len().min(room)]);
    }
}

impl<S> Tee<S> {
    pub(super) fn new(stream: S, copy: Copied) -> Tee<S> {
        Tee { stream, copy }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tee<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Tee { stream, copy } = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(stream).poll_read(cx, buffer);
        copy.add(buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tee<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
