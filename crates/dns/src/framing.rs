//! Length-prefixed messages on a byte stream (RFC 1035 section 4.2.2, RFC 7766 section 8).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// What was read from a stream, given out as whole messages without copying them.
///
/// The buffer has a usual size. A message that is longer makes it grow as far as that message needs, 65,537 bytes at
/// most, and once the message is gone the buffer is as small as before.
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// The bytes that were read and not given out.
    start: usize,
    end: usize,
    usual: usize,
}

impl Frames {
    /// A buffer for `usual` bytes; it is allocated with the first read.
    pub(crate) fn new(usual: usize) -> Frames {
        Frames { buffer: Vec::new(), start: 0, end: 0, usual }
    }

    /// Reads once, as much as fits; 0 is the end of the stream.
    pub(crate) fn poll_fill<R>(&mut self, reader: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(reader).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// The next whole message; `None` until it is complete.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let whole = self.wanted()?;
        if self.end - self.start < whole {
            return None;
        }
        let message = self.start + 2..self.start + whole;
        self.start += whole;
        Some(&self.buffer[message])
    }

    /// Length of the message that comes next, its prefix included.
    fn wanted(&self) -> Option<usize> {
        let prefix = self.buffer[self.start..self.end].first_chunk()?;
        Some(2 + usize::from(u16::from_be_bytes(*prefix)))
    }

    fn make_room(&mut self) {
        let wanted = self.wanted().unwrap_or(2).max(self.usual);
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > wanted && self.end <= wanted {
            self.buffer.truncate(wanted);
            self.buffer.shrink_to_fit();
        }
    }
}

/// Appends a message with its length. Messages of more than 65,535 bytes do not exist in DNS; one is cut to nothing and
/// reported by `false`.
#[must_use]
pub(crate) fn push_frame(buffer: &mut Vec<u8>, message: &[u8]) -> bool {
    let Ok(length) = u16::try_from(message.len()) else { return false };
    buffer.reserve(2 + message.len());
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(message);
    true
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Gives out its bytes in pieces of a given size, then the end.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(into.remaining()));
            into.put_slice(piece);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    fn read_all(frames: &mut Frames, bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut reader = Pieces(bytes, piece);
        let mut out = Vec::new();
        while let Poll::Ready(Ok(1..)) = frames.poll_fill(&mut reader, &mut Context::from_waker(Waker::noop())) {
            while let Some(message) = frames.next() {
                out.push(message.to_vec());
            }
        }
        out
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut bytes = Vec::new();
        assert!(push_frame(&mut bytes, b"one"));
        assert!(push_frame(&mut bytes, b""));
        assert!(push_frame(&mut bytes, b"three"));
        assert!(!push_frame(&mut bytes, &[0; 65_536]));
        for piece in 1..=bytes.len() {
            for usual in [1, 4, 64] {
                let out = read_all(&mut Frames::new(usual), &bytes, piece);
                assert_eq!(out, [&b"one"[..], b"", b"three"], "pieces of {piece}, buffer of {usual}");
            }
        }
    }

    #[test]
    fn the_buffer_grows_for_a_long_message_and_shrinks_after_it() {
        let mut bytes = Vec::new();
        assert!(push_frame(&mut bytes, b"short"));
        assert!(push_frame(&mut bytes, &[7; 65_535]));
        let mut frames = Frames::new(64);
        assert_eq!(read_all(&mut frames, &bytes, 1000).len(), 2);
        bytes.clear();
        assert!(push_frame(&mut bytes, b"short"));
        assert_eq!(read_all(&mut frames, &bytes, 1000), [b"short"]);
        assert_eq!(frames.buffer.capacity(), 64);
    }
}
