//! DNS over TCP and TLS: one task a connection reads queries ahead, answers them in the order in which they become due, and
//! puts all answers that are ready into one write.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::CloseKind;
use crate::answer::header_only;
use crate::core::{Fate, Reply, Target, now};
use crate::counters::ClosedBy;
use crate::socket::{Connection, Stream};
use crate::wire::{Bad, Query};

/// Serves one connection to its end.
pub(crate) async fn serve(connection: Connection, stream: Stream) {
    let (reader, writer) = tokio::io::split(stream);
    let (replies, ready) = mpsc::unbounded_channel();
    let pipeline = Pipeline {
        connection,
        replies,
        input: BytesMut::with_capacity(4096),
        output: BytesMut::new(),
        unflushed: false,
        received: 0,
        active_at: now(),
        ending: None,
    };
    pipeline.run(reader, writer, ready).await;
}

struct Pipeline {
    connection: Connection,
    replies: mpsc::UnboundedSender<Reply>,
    input: BytesMut,
    output: BytesMut,
    /// Bytes may wait in the TLS layer.
    unflushed: bool,
    /// Queries up to now.
    received: u32,
    active_at: Instant,
    /// Nothing is read any more; the connection ends when all is answered.
    ending: Option<ClosedBy>,
}

impl Pipeline {
    async fn run(
        mut self,
        mut reader: ReadHalf<Stream>,
        mut writer: WriteHalf<Stream>,
        mut ready: mpsc::UnboundedReceiver<Reply>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let kind = loop {
            let quiet = self.connection.meter.in_flight() == 0 && self.output.is_empty() && !self.unflushed;
            match self.ending {
                Some(ClosedBy::Lab) if quiet => break CloseKind::Notify,
                Some(ClosedBy::Peer) if quiet => return self.connection.meter.closed(ClosedBy::Peer),
                _ => {}
            }
            let idle_close = self.connection.control.borrow().faults.idle_close.filter(|_| quiet);
            let idle_at = idle_close.map(|(after, _)| self.active_at + after);
            let may_read = self.ending.is_none()
                && self.connection.meter.in_flight() < IN_FLIGHT_MAX
                && self.output.len() < OUTPUT_MAX;
            let must_write = self.unflushed || !self.output.is_empty();
            tokio::select! {
                close = self.connection.changed() => {
                    if let Some(kind) = close {
                        break kind;
                    }
                }
                _ = ready.recv_many(&mut batch, BATCH) => self.queue(&mut batch),
                read = reader.read_buf(&mut self.input), if may_read => {
                    match read {
                        Ok(0) => self.ending = Some(ClosedBy::Peer),
                        Ok(_) => if let Some(kind) = self.take_queries() {
                            break kind;
                        },
                        Err(_) => return self.connection.meter.closed(ClosedBy::Peer),
                    }
                }
                written = write(&mut writer, &mut self.output), if must_write => {
                    match written {
                        Ok(flushed) => self.unflushed = !flushed,
                        Err(_) => return self.connection.meter.closed(ClosedBy::Peer),
                    }
                }
                () = sleep_until(idle_at), if idle_at.is_some() => {
                    if let Some((_, kind)) = idle_close {
                        break kind;
                    }
                }
            }
        };
        let mut stream = reader.unsplit(writer);
        if kind == CloseKind::Notify {
            // Only a peer that does not read can make this wait.
            let _ = tokio::time::timeout(SHUTDOWN_MAX, stream.shutdown()).await;
        }
        self.connection.end(stream, kind).await;
    }

    /// Takes all complete queries from the input. Says so if one of them ends the connection.
    fn take_queries(&mut self) -> Option<CloseKind> {
        while let Some((prefix, rest)) = self.input.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*prefix));
            if self.ending.is_some() || rest.len() < length {
                break;
            }
            self.input.advance(2);
            let message = self.input.split_to(length);
            match Query::parse(&message) {
                Ok(query) => {
                    if let Some(kind) = self.take_query(query) {
                        return Some(kind);
                    }
                }
                Err(bad) => {
                    self.connection.core.tally(self.connection.transport).bad();
                    match bad {
                        Bad::Answer { id, rcode } => self.frame(&header_only(id, rcode)),
                        Bad::Ignore => self.ending = Some(ClosedBy::Lab),
                    }
                }
            }
        }
        None
    }

    fn take_query(&mut self, query: Query) -> Option<CloseKind> {
        let connection = &self.connection;
        let faults = connection.core.faults();
        connection.meter.query();
        self.active_at = now();
        self.received += 1;
        if faults.reset_after.is_some_and(|count| self.received > count) {
            return Some(CloseKind::Reset);
        }
        if faults.close_after.is_some_and(|count| self.received >= count) {
            self.ending = Some(ClosedBy::Lab);
        }
        let target = Target::Connection { replies: self.replies.clone(), ticket: 0 };
        if connection.core.submit(connection.transport, query, target) == Fate::Lost {
            connection.meter.answered(0);
        }
        None
    }

    fn queue(&mut self, batch: &mut Vec<Reply>) {
        for reply in batch.drain(..) {
            self.connection.meter.answered(reply.messages.len());
            for message in &reply.messages {
                self.frame(message);
            }
        }
        self.active_at = now();
    }

    fn frame(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).expect("the lab's answers fit a frame");
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
    }
}

/// Writes and, once all is written, flushes. Says whether nothing is left. Cancel safe: no byte is lost or sent twice.
async fn write(writer: &mut WriteHalf<Stream>, output: &mut BytesMut) -> std::io::Result<bool> {
    if !output.is_empty() {
        writer.write_buf(output).await?;
        return Ok(false);
    }
    writer.flush().await?;
    Ok(true)
}

pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Replies taken at once.
const BATCH: usize = 256;
/// Reading pauses while so many queries of a connection wait.
const IN_FLIGHT_MAX: u64 = 1 << 16;
/// Reading pauses while so many bytes wait to be written.
const OUTPUT_MAX: usize = 1 << 20;
/// How long an orderly close may take.
pub(crate) const SHUTDOWN_MAX: std::time::Duration = std::time::Duration::from_secs(2);
