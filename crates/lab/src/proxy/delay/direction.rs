//! One direction of a delayed connection: what is read is stamped and queued at once, and written when it is due, so that bytes that
//! follow each other closely arrive as closely.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Line, both};
use crate::core::now;
use crate::proxy::wire::broken;
use crate::socket::Shared;

#[derive(Clone, Copy)]
pub(super) struct Direction<'a> {
    pub(super) from: &'a Arc<TcpStream>,
    pub(super) to: &'a Arc<TcpStream>,
    pub(super) line: &'a Line,
    /// When the sender knows that it is connected: nothing of its leaves earlier.
    pub(super) ready: Instant,
    pub(super) ended: &'a AtomicBool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// FIN from both sides.
    Both,
    /// RST from one side, which has arrived at the other.
    Reset,
    /// RST was met in writing: the other side does not know yet.
    Unwritable,
}

enum Piece {
    Bytes(Instant, Bytes),
    Fin(Instant),
    Reset(Instant),
}

impl Direction<'_> {
    /// Runs to the end of the connection. The first of two directions that end in order waits for the other.
    pub(super) async fn run(self, count: impl Fn(u64)) -> End {
        let (queue, pieces) = mpsc::channel(PIECES_MAX);
        tokio::select! {
            () = self.read(queue) => End::Reset,
            end = self.write(pieces, count) => end,
        }
    }

    fn due(&self) -> Instant {
        self.line.due(now().max(self.ready))
    }

    /// Never ends by itself: what comes last waits for its time in the queue.
    async fn read(&self, queue: mpsc::Sender<Piece>) {
        let mut stream = Shared(Arc::clone(self.from));
        let mut buffer = vec![0; PIECE_SIZE];
        loop {
            let piece = match stream.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => Piece::Bytes(self.due(), Bytes::copy_from_slice(&buffer[..count])),
                Err(_) => {
                    let _ = queue.send(Piece::Reset(self.due())).await;
                    return std::future::pending::<()>().await;
                }
            };
            if queue.send(piece).await.is_err() {
                return;
            }
        }
        drop(buffer);
        let _ = queue.send(Piece::Fin(self.due())).await;
        broken(self.from).await;
        let _ = queue.send(Piece::Reset(self.due())).await;
        std::future::pending::<()>().await;
    }

    async fn write(&self, mut pieces: mpsc::Receiver<Piece>, count: impl Fn(u64)) -> End {
        let mut stream = Shared(Arc::clone(self.to));
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Bytes(due, bytes) => {
                    self.line.until(due).await;
                    count(bytes.len() as u64);
                    if stream.write_all(&bytes).await.is_err() {
                        return End::Unwritable;
                    }
                }
                Piece::Fin(due) => {
                    self.line.until(due).await;
                    if both(self.ended) {
                        let _ = stream.shutdown().await;
                        return End::Both;
                    }
                    if stream.shutdown().await.is_err() {
                        return End::Unwritable;
                    }
                }
                Piece::Reset(due) => {
                    self.line.until(due).await;
                    return End::Reset;
                }
            }
        }
        End::Reset
    }
}

const PIECE_SIZE: usize = 16 * 1024;
const PIECES_MAX: usize = 1024;
