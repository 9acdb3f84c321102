//! When the server's first bytes came: what the set-up of HTTP/2 took.
//!
//! Two clock calls a connection, and a look at a flag for each read.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// How long after the end of its handshake a connection brought the first bytes; empty until it did.
pub(crate) type FirstBytes = Arc<OnceLock<Duration>>;

/// A stream that notes when its first bytes came.
pub(crate) struct Watched<S> {
    inner: S,
    since: Instant,
    /// `None` once they came.
    first: Option<FirstBytes>,
}

impl<S> Watched<S> {
    /// Watches a stream from now on.
    pub(crate) fn new(inner: S) -> (Watched<S>, FirstBytes) {
        let first = FirstBytes::default();
        (Watched { inner, since: Instant::now(), first: Some(first.clone()) }, first)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if this.first.is_some()
            && buffer.filled().len() > before
            && let Some(first) = this.first.take()
        {
            // Nobody else sets it.
            let _ = first.set(this.since.elapsed());
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_are_noted_and_later_ones_are_not() {
        let (mine, mut peer) = tokio::io::duplex(64);
        let (mut watched, first) = Watched::new(mine);
        watched.write_all(b"preface").await.unwrap();
        assert_eq!(first.get(), None, "what is sent does not count");
        for byte in [b"a", b"b"] {
            tokio::time::advance(Duration::from_millis(30)).await;
            peer.write_all(byte).await.unwrap();
            watched.read_u8().await.unwrap();
            assert_eq!(first.get(), Some(&Duration::from_millis(30)));
        }
    }
}
