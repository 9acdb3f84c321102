//! DNS over HTTP/3, on the h3 crate: one task a connection for all of its streams.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h3::server::{RequestResolver, RequestStream};
use h3_quinn::BidiStream;
use http::StatusCode;
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;

use super::Line;
use crate::answer::header_only;
use crate::core::{Fate, Reply, Target, now};
use crate::counters::ClosedBy;
use crate::https::{Asked, BODY_MAX, refusal, response};
use crate::stream::{SHUTDOWN_MAX, sleep_until};
use crate::wire::{Bad, Query};
use crate::{CloseKind, Faults};

/// Serves one connection to its end.
pub(crate) async fn serve(line: Line, connection: Connection) {
    let built = h3::server::builder().send_grease(false).build(h3_quinn::Connection::new(connection.clone())).await;
    let Ok(h3) = built else { return line.meter.closed(ClosedBy::Peer) };
    let (replies, ready) = mpsc::unbounded_channel();
    let session = Session {
        line,
        replies,
        waiting: HashMap::new(),
        lost: Vec::new(),
        reading: FuturesUnordered::new(),
        writing: FuturesUnordered::new(),
        received: 0,
        active_at: now(),
        shutdown: Shutdown::No,
    };
    session.run(h3, connection, ready).await;
}

type H3 = h3::server::Connection<h3_quinn::Connection, Bytes>;
type Stream = RequestStream<BidiStream<Bytes>, Bytes>;
type Reading = Pin<Box<dyn Future<Output = Option<(Result<Vec<u8>, StatusCode>, Stream)>> + Send>>;
type Writing = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Session {
    line: Line,
    replies: mpsc::UnboundedSender<Reply>,
    /// By ticket, which is the query's number.
    waiting: HashMap<u64, Stream>,
    /// Streams that are never answered: dropping them would tell the client.
    lost: Vec<Stream>,
    reading: FuturesUnordered<Reading>,
    writing: FuturesUnordered<Writing>,
    /// Queries up to now.
    received: u32,
    active_at: Instant,
    shutdown: Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    /// A GOAWAY that leaves room for what is on its way was sent. -> `Refusing` when it has come.
    Announced {
        until: Instant,
    },
    /// A GOAWAY that names the last stream was sent; later ones are refused. -> over when all is answered and the client
    /// has left, or when that takes too long.
    Refusing {
        until: Instant,
    },
}

impl Session {
    async fn run(mut self, mut h3: H3, connection: Connection, mut ready: mpsc::UnboundedReceiver<Reply>) {
        let mut batch = Vec::with_capacity(BATCH);
        let kind = loop {
            let quiet = self.line.meter.in_flight() == 0 && self.reading.is_empty() && self.writing.is_empty();
            if quiet && matches!(self.shutdown, Shutdown::Refusing { .. }) {
                // The client closes once it has its last answer, but the lab ended the connection.
                self.line.meter.closed(ClosedBy::Lab);
            }
            let open = self.shutdown == Shutdown::No;
            let idle_close = self.line.control.borrow().faults.idle_close.filter(|_| quiet && open);
            let idle_at = idle_close.map(|(after, _)| self.active_at + after);
            let next_at = match self.shutdown {
                Shutdown::No => None,
                Shutdown::Announced { until } | Shutdown::Refusing { until } => Some(until),
            };
            let close = tokio::select! {
                close = self.line.changed() => close,
                _ = ready.recv_many(&mut batch, BATCH) => {
                    self.respond(&mut batch);
                    None
                }
                accepted = h3.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        self.reading.push(Box::pin(read(resolver)));
                        None
                    }
                    Ok(None) => break CloseKind::Fin,
                    Err(_) => {
                        let error = connection.close_reason().unwrap_or(quinn::ConnectionError::LocallyClosed);
                        return self.line.lost(&error);
                    }
                },
                Some(read) = self.reading.next(), if !self.reading.is_empty() => {
                    read.and_then(|(message, stream)| self.take(message, stream))
                }
                Some(()) = self.writing.next(), if !self.writing.is_empty() => None,
                () = sleep_until(idle_at), if idle_at.is_some() => idle_close.map(|(_, kind)| kind),
                () = sleep_until(next_at), if next_at.is_some() => match self.shutdown {
                    Shutdown::Announced { .. } => Some(CloseKind::Notify),
                    _ => break CloseKind::Fin,
                },
            };
            match close {
                Some(CloseKind::Notify) => self.refuse_later(&mut h3).await,
                Some(kind) => break kind,
                None => self.count(&mut h3).await,
            }
        };
        self.line.end(&connection, kind, NO_ERROR).await;
    }

    /// Announces the end if this was the query to do so.
    async fn count(&mut self, h3: &mut H3) {
        if self.shutdown != Shutdown::No {
            return;
        }
        let faults = self.line.core.faults();
        if faults.close_after.is_some_and(|count| self.received >= count) {
            self.refuse_later(h3).await;
        } else if faults.goaway_after.is_some_and(|count| self.received >= count) {
            // A connection that is gone tells so elsewhere.
            let _ = h3.shutdown(ON_THEIR_WAY).await;
            self.shutdown = Shutdown::Announced { until: now() + ANNOUNCED };
        }
    }

    async fn refuse_later(&mut self, h3: &mut H3) {
        if !matches!(self.shutdown, Shutdown::Refusing { .. }) {
            let _ = h3.shutdown(0).await;
            self.shutdown = Shutdown::Refusing { until: now() + SHUTDOWN_MAX };
        }
    }

    fn take(&mut self, message: Result<Vec<u8>, StatusCode>, stream: Stream) -> Option<CloseKind> {
        self.active_at = now();
        let line = &self.line;
        let bad = || line.core.tally(line.transport).bad();
        let query = match message.map(|message| Query::parse(&message)) {
            Ok(Ok(query)) => query,
            Ok(Err(Bad::Answer { id, rcode })) => {
                bad();
                self.writing.push(Box::pin(write(stream, line.core.faults(), header_only(id, rcode))));
                return None;
            }
            Ok(Err(Bad::Ignore)) => {
                bad();
                self.writing.push(Box::pin(refuse(stream, StatusCode::BAD_REQUEST)));
                return None;
            }
            Err(status) => {
                bad();
                self.writing.push(Box::pin(refuse(stream, status)));
                return None;
            }
        };
        let faults = line.core.faults();
        line.meter.query();
        self.received += 1;
        if faults.reset_after.is_some_and(|count| self.received > count) {
            return Some(CloseKind::Reset);
        }
        let ticket = u64::from(self.received);
        let target = Target::Connection { replies: self.replies.clone(), ticket };
        if line.core.submit(line.transport, query, target) == Fate::Lost {
            line.meter.answered(0);
            self.lost.push(stream);
        } else {
            self.waiting.insert(ticket, stream);
        }
        None
    }

    fn respond(&mut self, batch: &mut Vec<Reply>) {
        let faults = self.line.core.faults();
        for reply in batch.drain(..) {
            self.line.meter.answered(1);
            let message = reply.messages.into_iter().next_back().unwrap_or_default();
            if let Some(stream) = self.waiting.remove(&reply.ticket) {
                self.writing.push(Box::pin(write(stream, Arc::clone(&faults), message)));
            }
        }
        self.active_at = now();
    }
}

/// The query of a request, or the status that refuses it. `None` when the client gave it up.
async fn read(resolver: RequestResolver<h3_quinn::Connection, Bytes>) -> Option<(Result<Vec<u8>, StatusCode>, Stream)> {
    let (request, mut stream) = resolver.resolve_request().await.ok()?;
    let mut message = match Asked::of(&request) {
        Asked::Message(message) => return Some((Ok(message), stream)),
        Asked::Refused(status) => return Some((Err(status), stream)),
        Asked::Body => Vec::new(),
    };
    while let Some(mut chunk) = stream.recv_data().await.ok()? {
        message.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        if message.len() > BODY_MAX {
            return Some((Err(StatusCode::PAYLOAD_TOO_LARGE), stream));
        }
    }
    Some((Ok(message), stream))
}

/// A stream that its client has given up takes no answer; that is no error here.
async fn write(mut stream: Stream, faults: Arc<Faults>, message: Vec<u8>) {
    let (head, body) = response(&faults, message);
    if stream.send_response(head).await.is_ok() && (body.is_empty() || stream.send_data(body).await.is_ok()) {
        let _ = stream.finish().await;
    }
}

async fn refuse(mut stream: Stream, status: StatusCode) {
    if stream.send_response(refusal(status)).await.is_ok() {
        let _ = stream.finish().await;
    }
}

/// RFC 9114 section 8.1: H3_NO_ERROR.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// Replies taken at once.
const BATCH: usize = 256;
/// Streams that may come after a GOAWAY has been sent and before it is read.
const ON_THEIR_WAY: usize = 1_000;
/// How long they may take.
const ANNOUNCED: Duration = Duration::from_millis(50);
