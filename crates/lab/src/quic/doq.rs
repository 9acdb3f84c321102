//! DNS over QUIC (RFC 9250): one task a connection for all of its streams.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, ReadToEndError, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;

use super::{Line, NO_ERROR};
use crate::CloseKind;
use crate::answer::header_only;
use crate::core::{Fate, Reply, Target, now};
use crate::stream::{SHUTDOWN_MAX, sleep_until};
use crate::wire::{Bad, Query};

/// Serves one connection to its end.
pub(crate) async fn serve(line: Line, connection: Connection) {
    let (replies, ready) = mpsc::unbounded_channel();
    let session = Session {
        line,
        replies,
        waiting: HashMap::new(),
        lost: FuturesUnordered::new(),
        late: Vec::new(),
        reading: FuturesUnordered::new(),
        writing: FuturesUnordered::new(),
        received: 0,
        active_at: now(),
        force_at: None,
    };
    session.run(connection, ready).await;
}

type Reading = Pin<Box<dyn Future<Output = (Result<Vec<u8>, ReadToEndError>, SendStream)> + Send>>;
type Writing = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Session {
    line: Line,
    replies: mpsc::UnboundedSender<Reply>,
    /// By ticket, which is the stream's number.
    waiting: HashMap<u64, SendStream>,
    /// Streams that are never answered, until the client gives them up: dropping them would tell it.
    lost: FuturesUnordered<Writing>,
    /// Streams that came too late to be read.
    late: Vec<(SendStream, RecvStream)>,
    reading: FuturesUnordered<Reading>,
    writing: FuturesUnordered<Writing>,
    /// Queries up to now.
    received: u32,
    active_at: Instant,
    /// No new stream is served; when the orderly end that waits for answers to arrive is cut short.
    force_at: Option<Instant>,
}

/// What a query makes of its connection.
enum Then {
    On,
    End(CloseKind),
    /// DOQ_PROTOCOL_ERROR.
    Violated,
}

impl Session {
    async fn run(mut self, connection: Connection, mut ready: mpsc::UnboundedReceiver<Reply>) {
        let mut batch = Vec::with_capacity(BATCH);
        let (kind, code) = loop {
            let quiet = self.line.meter.in_flight() == 0 && self.reading.is_empty() && self.writing.is_empty();
            if quiet && self.force_at.is_some() {
                break (CloseKind::Notify, NO_ERROR);
            }
            let open = self.force_at.is_none();
            let idle_close = self.line.control.borrow().faults.idle_close.filter(|_| quiet && open);
            let idle_at = idle_close.map(|(after, _)| self.active_at + after);
            let then = tokio::select! {
                close = self.line.changed() => close.map_or(Then::On, Then::End),
                _ = ready.recv_many(&mut batch, BATCH) => {
                    self.respond(&mut batch);
                    Then::On
                }
                accepted = connection.accept_bi() => match accepted {
                    Ok((send, recv)) if open => {
                        self.reading.push(Box::pin(read(send, recv)));
                        Then::On
                    }
                    Ok(stream) => {
                        self.late.push(stream);
                        Then::On
                    }
                    Err(error) => return self.line.lost(&error),
                },
                Some((message, send)) = self.reading.next(), if !self.reading.is_empty() => self.take(message, send),
                Some(()) = self.writing.next(), if !self.writing.is_empty() => Then::On,
                Some(()) = self.lost.next(), if !self.lost.is_empty() => Then::On,
                () = sleep_until(idle_at), if idle_at.is_some() => {
                    idle_close.map_or(Then::On, |(_, kind)| Then::End(kind))
                }
                () = sleep_until(self.force_at), if self.force_at.is_some() => break (CloseKind::Fin, NO_ERROR),
            };
            match then {
                Then::On => {}
                Then::End(CloseKind::Notify) => self.finish(),
                Then::End(kind) => break (kind, NO_ERROR),
                Then::Violated => break (CloseKind::Fin, PROTOCOL_ERROR),
            }
        };
        self.line.end(&connection, kind, code).await;
    }

    /// Ends the connection in order, once all is answered and has arrived.
    fn finish(&mut self) {
        self.force_at.get_or_insert_with(|| now() + SHUTDOWN_MAX);
    }

    fn take(&mut self, stream: Result<Vec<u8>, ReadToEndError>, send: SendStream) -> Then {
        self.active_at = now();
        let line = &self.line;
        let stream = match stream {
            Ok(stream) => stream,
            Err(ReadToEndError::TooLong) => return Then::Violated,
            // The client gave it up.
            Err(ReadToEndError::Read(_)) => return Then::On,
        };
        // RFC 9250 sections 4.2 and 4.3.3: one message, its length before it, with the id 0, and FIN.
        let Some(message) = unframe(&stream) else {
            line.core.tally(line.transport).bad();
            return Then::Violated;
        };
        let query = match Query::parse(message) {
            Ok(query) if query.id == 0 => query,
            Ok(_) | Err(Bad::Ignore) => {
                line.core.tally(line.transport).bad();
                return Then::Violated;
            }
            Err(Bad::Answer { id, rcode }) => {
                line.core.tally(line.transport).bad();
                self.writing.push(Box::pin(write(send, header_only(id, rcode))));
                return Then::On;
            }
        };
        let faults = line.core.faults();
        line.meter.query();
        self.received += 1;
        if faults.reset_after.is_some_and(|count| self.received > count) {
            return Then::End(CloseKind::Reset);
        }
        let ticket = send.id().index();
        let target = Target::Connection { replies: self.replies.clone(), ticket };
        if line.core.submit(line.transport, query, target) == Fate::Lost {
            line.meter.answered(0);
            self.lost.push(Box::pin(async move {
                let _ = send.stopped().await;
            }));
        } else {
            self.waiting.insert(ticket, send);
        }
        match faults.close_after.is_some_and(|count| self.received >= count) {
            true => Then::End(CloseKind::Notify),
            false => Then::On,
        }
    }

    fn respond(&mut self, batch: &mut Vec<Reply>) {
        for reply in batch.drain(..) {
            self.line.meter.answered(1);
            let message = reply.messages.into_iter().next_back().unwrap_or_default();
            if let Some(send) = self.waiting.remove(&reply.ticket) {
                self.writing.push(Box::pin(write(send, message)));
            }
        }
        self.active_at = now();
    }
}

/// The message of a stream that has nothing else on it.
fn unframe(stream: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = stream.split_first_chunk()?;
    (message.len() == usize::from(u16::from_be_bytes(*prefix))).then_some(message)
}

/// All that comes on a stream.
async fn read(send: SendStream, mut recv: RecvStream) -> (Result<Vec<u8>, ReadToEndError>, SendStream) {
    (recv.read_to_end(STREAM_MAX).await, send)
}

/// Sends an answer, and waits until it has arrived. A client that has given the stream up takes none; that is no error here.
async fn write(mut send: SendStream, message: Vec<u8>) {
    let length = u16::try_from(message.len()).expect("the lab's answers fit a frame");
    let frame = [&length.to_be_bytes()[..], &message].concat();
    if send.write_all(&frame).await.is_ok() && send.finish().is_ok() {
        let _ = tokio::time::timeout(ARRIVAL_MAX, send.stopped()).await;
    }
}

/// RFC 9250 section 4.3: DOQ_PROTOCOL_ERROR.
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(0x2);
/// Replies taken at once.
const BATCH: usize = 256;
/// The largest message and its length.
const STREAM_MAX: usize = 2 + 65_535;
/// How long the arrival of an answer is waited for.
const ARRIVAL_MAX: Duration = Duration::from_secs(2);
