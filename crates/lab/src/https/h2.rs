//! DNS over HTTP/2, on the h2 crate itself: GOAWAY at will, and one task a connection for all of its streams.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use tokio::sync::mpsc;

use super::goaway::{GoAwayLimit, LastStream};
use super::{Asked, BODY_MAX, refusal, response};
use crate::CloseKind;
use crate::answer::header_only;
use crate::core::{Fate, Reply, Target, now};
use crate::counters::ClosedBy;
use crate::socket::{Connection, Stream};
use crate::stream::{SHUTDOWN_MAX, sleep_until};
use crate::wire::{Bad, Query};

type Respond = SendResponse<Bytes>;
type Body = Pin<Box<dyn Future<Output = (Option<Vec<u8>>, Respond)> + Send>>;

/// Serves one connection to its end.
pub(crate) async fn serve(mut connection: Connection, stream: Stream) {
    let streams_max = connection.core.faults().h2_max_streams.unwrap_or(STREAMS_MAX);
    let last = LastStream::unlimited();
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(streams_max)
        .initial_connection_window_size(WINDOW)
        .handshake(GoAwayLimit::new(stream, last.clone()));
    let h2 = tokio::select! {
        shaken = handshake => match shaken {
            Ok(h2) => h2,
            Err(_) => return,
        },
        kind = connection.closed() => return connection.end((), kind).await,
    };
    let (replies, ready) = mpsc::unbounded_channel();
    let session = Session {
        connection,
        last,
        replies,
        waiting: HashMap::new(),
        lost: VecDeque::new(),
        bodies: FuturesUnordered::new(),
        streams: 0,
        queries: 0,
        active_at: now(),
        shutdown: Shutdown::No,
        force_at: None,
    };
    session.run(h2, ready).await;
}

struct Session {
    connection: Connection,
    last: LastStream,
    replies: mpsc::UnboundedSender<Reply>,
    /// By ticket, which is the stream's id.
    waiting: HashMap<u64, Respond>,
    /// Streams that are never answered: dropping them would tell the client. The oldest go when there are many.
    lost: VecDeque<Respond>,
    bodies: FuturesUnordered<Body>,
    /// Streams that may carry a query, up to now.
    streams: u32,
    /// Queries up to now: fewer, while bodies are still to come.
    queries: u32,
    active_at: Instant,
    shutdown: Shutdown,
    /// When a shutdown that has nothing to wait for but its peer is cut short.
    force_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    /// -> `Refusing` or `Graceful` as soon as the connection has been told.
    Wanted {
        refuse_later: bool,
    },
    /// Streams are served until the connection says that it is over.
    Graceful,
    /// As `Graceful`, but new streams are refused.
    Refusing,
}

impl Session {
    async fn run(
        mut self,
        mut h2: h2::server::Connection<GoAwayLimit, Bytes>,
        mut ready: mpsc::UnboundedReceiver<Reply>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let kind = loop {
            if let Shutdown::Wanted { refuse_later } = self.shutdown {
                h2.graceful_shutdown();
                self.shutdown = if refuse_later { Shutdown::Refusing } else { Shutdown::Graceful };
            }
            let quiet = self.connection.meter.in_flight() == 0 && self.bodies.is_empty();
            if quiet && self.shutdown != Shutdown::No {
                // Streams that are never answered would keep the connection open for good.
                self.lost.clear();
                // A client that has seen the GOAWAY and its last answer may close first, but the lab ended the connection.
                self.connection.meter.closed(ClosedBy::Lab);
                self.force_at.get_or_insert_with(|| now() + SHUTDOWN_MAX);
            }
            let open = self.shutdown == Shutdown::No;
            let idle_close = self.connection.control.borrow().faults.idle_close.filter(|_| quiet && open);
            let idle_at = idle_close.map(|(after, _)| self.active_at + after);
            tokio::select! {
                close = self.connection.changed() => match close {
                    Some(CloseKind::Notify) => self.want(false),
                    Some(kind) => break kind,
                    None => {}
                },
                _ = ready.recv_many(&mut batch, BATCH) => self.respond(&mut batch),
                accepted = h2.accept() => match accepted {
                    Some(Ok((request, respond))) => if let Some(kind) = self.take_request(request, respond) {
                        break kind;
                    },
                    // The stream has counted which side ended it.
                    Some(Err(_)) | None => {
                        drop(h2);
                        return self.connection.drain().await;
                    }
                },
                Some((body, respond)) = self.bodies.next(), if !self.bodies.is_empty() => {
                    if let Some(kind) = self.take_body(body, respond) {
                        break kind;
                    }
                }
                () = sleep_until(idle_at), if idle_at.is_some() => match idle_close {
                    Some((_, CloseKind::Notify)) => self.want(false),
                    Some((_, kind)) => break kind,
                    None => {}
                },
                () = sleep_until(self.force_at), if self.force_at.is_some() => break CloseKind::Fin,
            }
        };
        self.connection.end((h2, self.waiting, self.lost, self.bodies), kind).await;
    }

    fn want(&mut self, refuse_later: bool) {
        if self.shutdown == Shutdown::No {
            self.shutdown = Shutdown::Wanted { refuse_later };
        }
    }

    fn take_request(&mut self, request: Request<RecvStream>, mut respond: Respond) -> Option<CloseKind> {
        self.active_at = now();
        if matches!(self.shutdown, Shutdown::Refusing | Shutdown::Wanted { refuse_later: true }) {
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        let asked = Asked::of(&request);
        if !matches!(asked, Asked::Refused(_)) {
            self.count_stream(respond.stream_id().as_u32());
        }
        match asked {
            Asked::Message(message) => self.take_message(&message, respond),
            Asked::Body => {
                self.bodies.push(Box::pin(read_body(request.into_body(), respond)));
                None
            }
            Asked::Refused(status) => self.refuse(status, respond),
        }
    }

    fn count_stream(&mut self, id: u32) {
        self.streams += 1;
        let faults = self.connection.core.faults();
        if faults.close_after.is_some_and(|count| self.streams >= count) {
            if self.shutdown == Shutdown::No {
                self.last.set(id);
            }
            self.want(true);
        } else if faults.goaway_after.is_some_and(|count| self.streams >= count) {
            self.want(false);
        }
    }

    fn take_body(&mut self, body: Option<Vec<u8>>, respond: Respond) -> Option<CloseKind> {
        match body {
            Some(message) => self.take_message(&message, respond),
            None => self.refuse(StatusCode::PAYLOAD_TOO_LARGE, respond),
        }
    }

    fn refuse(&self, status: StatusCode, mut respond: Respond) -> Option<CloseKind> {
        self.connection.core.tally(self.connection.transport).bad();
        let _ = respond.send_response(refusal(status), true);
        None
    }

    fn take_message(&mut self, message: &[u8], respond: Respond) -> Option<CloseKind> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Bad::Ignore) => return self.refuse(StatusCode::BAD_REQUEST, respond),
            Err(Bad::Answer { id, rcode }) => {
                let connection = &self.connection;
                connection.core.tally(connection.transport).bad();
                send(&connection.core.faults(), respond, header_only(id, rcode));
                return None;
            }
        };
        let connection = &self.connection;
        let faults = connection.core.faults();
        connection.meter.query();
        self.queries += 1;
        if faults.reset_after.is_some_and(|count| self.queries > count) {
            return Some(CloseKind::Reset);
        }
        let ticket = u64::from(respond.stream_id().as_u32());
        let target = Target::Connection { replies: self.replies.clone(), ticket };
        if connection.core.submit(connection.transport, query, target) == Fate::Lost {
            connection.meter.answered(0);
            self.lost.push_back(respond);
            if self.lost.len() > LOST_MAX {
                self.lost.pop_front();
            }
        } else {
            self.waiting.insert(ticket, respond);
        }
        None
    }

    fn respond(&mut self, batch: &mut Vec<Reply>) {
        let faults = self.connection.core.faults();
        for reply in batch.drain(..) {
            self.connection.meter.answered(1);
            let message = reply.messages.into_iter().next_back().unwrap_or_default();
            if let Some(respond) = self.waiting.remove(&reply.ticket) {
                send(&faults, respond, message);
            }
        }
        self.active_at = now();
    }
}

/// A stream that its client has given up takes no answer; that is no error here.
fn send(faults: &crate::Faults, mut respond: Respond, message: Vec<u8>) {
    let (head, body) = response(faults, message);
    if body.is_empty() {
        let _ = respond.send_response(head, true);
    } else if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(body, true);
    }
}

/// The whole body, unless it is too long or breaks off.
async fn read_body(mut body: RecvStream, respond: Respond) -> (Option<Vec<u8>>, Respond) {
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else { return (None, respond) };
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
        if message.len() > BODY_MAX {
            return (None, respond);
        }
    }
    (Some(message), respond)
}

/// Replies taken at once.
const BATCH: usize = 256;
const STREAMS_MAX: u32 = 1_000;
const WINDOW: u32 = 1 << 20;
const LOST_MAX: usize = 4_096;
