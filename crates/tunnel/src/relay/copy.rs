//! Carries bytes through memory: for streams that cannot be spliced, and for all that is not bulk.
//!
//! A thread has a buffer that all its tunnels read into in turn, so a silent tunnel owns none and a busy one finds it in the cache.
//! Only a tunnel whose receiver does not take all of it keeps what is left.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::stream::Stream;

/// Bytes that were read and not written yet.
pub(super) struct Held {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a read came to, besides bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It has no more now, or as much as was wanted.
    Open,
    /// It has ended.
    Ended,
    /// It failed.
    Failed(io::ErrorKind),
}

/// Reads until there is no more now or the buffer is full. Ready with no bytes only if the source is not open.
pub(super) fn poll_read(cx: &mut Context<'_>, from: &mut Stream) -> Poll<(Held, Source)> {
    let mut held = Held { buffer: take(), start: 0, end: 0 };
    let source = loop {
        let mut space = ReadBuf::new(&mut held.buffer[held.end..]);
        if space.capacity() == 0 {
            break Source::Open;
        }
        match Pin::new(&mut *from).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) if space.filled().is_empty() => break Source::Ended,
            Poll::Ready(Ok(())) => held.end += space.filled().len(),
            Poll::Ready(Err(error)) => break Source::Failed(error.kind()),
            Poll::Pending if held.end == 0 => {
                held.give_back();
                return Poll::Pending;
            }
            Poll::Pending => break Source::Open,
        }
    };
    Poll::Ready((held, source))
}

impl Held {
    /// Bytes that were read by somebody else.
    pub(super) fn of(bytes: &[u8]) -> Held {
        Held { buffer: bytes.into(), start: 0, end: bytes.len() }
    }

    /// Bytes left.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Writes until all is written; adds to `written` what was. When the receiver takes no more, memory is kept for what is left of
    /// it.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while self.start < self.end {
            match Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.start += n;
                    *written += n;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.shrink();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the thread have its buffer again.
    pub(super) fn give_back(self) {
        give(self.buffer);
    }

    /// Moves what is left to a buffer of its size where that is much smaller.
    fn shrink(&mut self) {
        if self.len() <= self.buffer.len() / 4 {
            let rest: Box<[u8]> = self.buffer[self.start..self.end].into();
            self.start = 0;
            self.end = rest.len();
            give(std::mem::replace(&mut self.buffer, rest));
        }
    }
}

thread_local! {
    /// One for the read under way, one for the rest of another that has become free.
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take() -> Box<[u8]> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_SIZE].into())
}

fn give(buffer: Box<[u8]>) {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffer.len() == BUFFER_SIZE && buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    });
}

/// What is read at a time. Less means more system calls for bulk; more does not fit the second-level cache beside the kernel's copies.
pub(super) const BUFFER_SIZE: usize = 256 * 1024;
/// Free buffers that a thread keeps.
const BUFFERS_MAX: usize = 2;
