//! What fuzz targets need of private modules. Nobody else may: there are no promises here.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::framing::Frames;

/// Reads a stream that comes in pieces of at most `piece` bytes with a buffer of `usual` bytes; returns its messages.
pub fn frames(stream: &[u8], piece: usize, usual: usize) -> Vec<Vec<u8>> {
    let mut reader = Pieces { stream, piece };
    let (mut frames, mut messages) = (Frames::new(usual), Vec::new());
    while let Poll::Ready(Ok(1..)) = frames.poll_fill(&mut reader, &mut Context::from_waker(Waker::noop())) {
        while let Some(message) = frames.next() {
            messages.push(message.to_vec());
        }
    }
    messages
}

struct Pieces<'a> {
    stream: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (piece, rest) = self.stream.split_at(self.piece.min(self.stream.len()).min(into.remaining()));
        into.put_slice(piece);
        self.stream = rest;
        Poll::Ready(Ok(()))
    }
}
