//! Lets an h2 connection refuse streams by a GOAWAY with an early last id. The h2 crate either shuts down gracefully, where
//! a client hardly ever loses a stream, or cuts all streams off; real servers do what lies between. So its GOAWAY frames are
//! given another last stream id on their way out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Stream;

/// The highest last stream id that GOAWAY frames may carry.
#[derive(Debug, Clone)]
pub(crate) struct LastStream(Arc<AtomicU32>);

impl LastStream {
    pub(crate) fn unlimited() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }

    pub(crate) fn set(&self, id: u32) {
        self.0.store(id, Ordering::Relaxed);
    }

    fn limit(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream under an h2 server.
#[derive(Debug)]
pub(crate) struct GoAwayLimit {
    stream: Stream,
    last: LastStream,
    frames: Frames,
}

impl GoAwayLimit {
    pub(crate) fn new(stream: Stream, last: LastStream) -> Self {
        Self { stream, last, frames: Frames::default() }
    }
}

impl AsyncRead for GoAwayLimit {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GoAwayLimit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let limit = this.last.limit();
        let written = if limit == u32::MAX {
            ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?
        } else {
            let mut patched = bytes.to_vec();
            // Only a part may be written, so that the true state advances below.
            this.frames.clone().pass(&mut patched, limit);
            ready!(Pin::new(&mut this.stream).poll_write(cx, &patched))?
        };
        this.frames.pass(&mut bytes[..written].to_vec(), limit);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in the sequence of frames a byte stream is (RFC 9113 section 4.1).
#[derive(Debug, Clone, Default)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head seen.
    seen: usize,
    /// Bytes of the payload seen.
    payload: usize,
}

impl Frames {
    /// Follows `bytes`, and lowers the last stream id of GOAWAY frames in them to `limit`. The id must not be cut in two;
    /// one that is, because a write ended inside of it, is patched byte by byte all the same.
    fn pass(&mut self, bytes: &mut [u8], limit: u32) {
        let mut at = 0;
        while at < bytes.len() {
            if self.seen < HEAD {
                self.head[self.seen] = bytes[at];
                self.seen += 1;
                at += 1;
            } else {
                let rest = self.length() - self.payload;
                let here = rest.min(bytes.len() - at);
                if self.head[3] == GOAWAY {
                    self.patch(&mut bytes[at..at + here], limit);
                }
                self.payload += here;
                at += here;
            }
            if self.seen == HEAD && self.payload == self.length() {
                *self = Self::default();
            }
        }
    }

    fn patch(&self, payload: &mut [u8], limit: u32) {
        if limit == u32::MAX {
            return;
        }
        for (byte, new) in payload.iter_mut().zip(limit.to_be_bytes().into_iter().skip(self.payload)) {
            *byte = new;
        }
    }

    fn length(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }
}

const HEAD: usize = 9;
const GOAWAY: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_goaway_frames_are_changed_however_they_are_cut() {
        // An empty SETTINGS, DATA with three bytes that look like a head, GOAWAY(2^31 - 1), PING.
        let mut wire = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        wire.extend([0, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 8]);
        let goaway = wire.len();
        wire.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        wire.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let mut expected = wire.clone();
        expected[goaway + 9..goaway + 13].copy_from_slice(&[0, 0, 0, 5]);
        for cut in 0..wire.len() {
            let (mut one, mut two) = (wire[..cut].to_vec(), wire[cut..].to_vec());
            let mut frames = Frames::default();
            frames.pass(&mut one, 5);
            frames.pass(&mut two, 5);
            one.append(&mut two);
            assert_eq!(one, expected, "cut at {cut}");
        }
    }
}
