//! Drives one TCP or TLS connection: queries out in batches, answers back in any order (RFC 7766 sections 6.2.1 and 7).

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use hashbrown::{HashMap, hash_map::Entry};
use keepwarm_pool::{CloseReason, Slot};
use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant as Clock, MissedTickBehavior},
};

use super::{
    connector::{DnsConnector, close_reason},
    endpoint::{Endpoint, count},
};
use crate::{
    error::{Error, ErrorKind},
    exchange::{Batch, Item, Pipe, Replies, closed},
    framing::{next_frame, push_frame},
    message,
};

/// Runs until the peer ends the connection, the owner lets go, or nothing comes back any more.
pub(super) async fn drive<S>(stream: S, pipe: Arc<Pipe>, slot: Slot<DnsConnector>, endpoint: Arc<Endpoint>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut exchange = Exchange::new(&slot, &endpoint);
    let mut input = BytesMut::with_capacity(READ_BUFFER);
    let mut batch = Batch::default();
    let mut unflushed = false;
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (reason, how) = loop {
        if !pipe.take(&mut batch) {
            // Orderly: TLS gets its close_notify, TCP its FIN.
            let _ = writer.shutdown().await;
            break (CloseReason::Drained, "the connection was let go");
        }
        exchange.send(&mut batch, Clock::now().into_std());
        tokio::select! {
            biased;
            read = reader.read_buf(&mut input) => match read {
                Ok(0) => break (CloseReason::PeerClosed, "the upstream closed the connection"),
                Ok(_) => {
                    let now = Clock::now().into_std();
                    pipe.hear(now);
                    while let Some(answer) = next_frame(&mut input) {
                        exchange.receive(answer, now);
                    }
                    if exchange.stray {
                        break (CloseReason::StrayBytes, "an answer came that nobody asked for");
                    }
                }
                Err(error) => break (ended(&error), "the connection broke"),
            },
            pushed = push(&mut writer, &mut exchange.output, &mut unflushed),
                if unflushed || !exchange.output.is_empty() => if let Err(error) = pushed
            {
                break (ended(&error), "the connection broke");
            },
            () = pipe.changed() => {}
            _ = check.tick() => if exchange.silent(pipe.heard(), Clock::now().into_std()) {
                break (CloseReason::PeerClosed, "nothing came back");
            },
        }
    };
    slot.closed(reason);
    exchange.fail(&pipe, &endpoint, how);
}

/// Writes what there is and flushes it. Dropped in between, it goes on where it stopped.
async fn push<W: AsyncWrite + Unpin>(writer: &mut W, output: &mut BytesMut, unflushed: &mut bool) -> io::Result<()> {
    while !output.is_empty() {
        writer.write_buf(output).await?;
        *unflushed = true;
    }
    writer.flush().await?;
    *unflushed = false;
    Ok(())
}

fn ended(error: &io::Error) -> CloseReason {
    // rustls reports a FIN without close_notify as UnexpectedEof: for a connection between messages it is an end like any.
    close_reason(error)
}

/// The queries in flight on one connection.
struct Exchange<'a> {
    slot: &'a Slot<DnsConnector>,
    endpoint: &'a Endpoint,
    waiting: HashMap<u16, Waiting>,
    output: BytesMut,
    draining: bool,
    stray: bool,
}

struct Waiting {
    token: u64,
    replies: Arc<dyn Replies>,
    since: Instant,
    /// The query up to the end of its question.
    head: SmallVec<[u8; 64]>,
}

impl<'a> Exchange<'a> {
    fn new(slot: &'a Slot<DnsConnector>, endpoint: &'a Endpoint) -> Exchange<'a> {
        Exchange { slot, endpoint, waiting: HashMap::new(), output: BytesMut::new(), draining: false, stray: false }
    }

    /// Frames a batch of queries, each with an id of this connection's own.
    fn send(&mut self, batch: &mut Batch, now: Instant) {
        let mut at = 0;
        for Item { token, replies, len, question_end } in batch.items.drain(..) {
            let query = &batch.bytes[at..at + len];
            at += len;
            if self.waiting.len() >= WAITING_MAX || !push_frame(&mut self.output, query) {
                let error =
                    Error::new(ErrorKind::Local, format!("query to {}: too many in flight", self.endpoint.url()));
                replies.reply(token, Err(error));
                continue;
            }
            let start = self.output.len() - len;
            let waiting = Waiting { token, replies, since: now, head: SmallVec::from_slice(&query[..question_end]) };
            let id = self.allot(waiting);
            self.output[start..start + 2].copy_from_slice(&id.to_be_bytes());
        }
        batch.bytes.clear();
    }

    fn allot(&mut self, waiting: Waiting) -> u16 {
        loop {
            if let Entry::Vacant(entry) = self.waiting.entry(rand::random()) {
                let id = *entry.key();
                entry.insert(waiting);
                return id;
            }
        }
    }

    /// RFC 7766 section 7: answers may come out of order, so match on id and question, not on position.
    fn receive(&mut self, answer: Bytes, now: Instant) {
        if let Some(limit) = message::tcp_keepalive(&answer) {
            self.slot.idle_limit(limit);
        }
        let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            self.stray = true;
            return;
        };
        let Some(waiting) = self.waiting.remove(&id) else {
            // A duplicate while others wait is skipped; on an idle connection nothing may come at all.
            count(&self.endpoint.counters.wrong_answers);
            self.stray |= self.waiting.is_empty();
            return;
        };
        if message::answer_matches(&waiting.head, &answer, false, true) {
            waiting.replies.reply(waiting.token, Ok(answer));
        } else {
            // The id is ours and the question is not: this peer mixes answers up, so no new query goes this way.
            count(&self.endpoint.counters.wrong_answers);
            self.drain();
            let text = format!("query to {}: the answer was to another question", self.endpoint.url());
            waiting.replies.reply(waiting.token, Err(Error::new(ErrorKind::Mismatch, text).or_fresh()));
        }
        let _ = now;
    }

    /// Whether the peer has gone silent: queries wait and nothing at all came for long. A little earlier the connection
    /// gets no new queries.
    fn silent(&mut self, heard: Instant, now: Instant) -> bool {
        let Some(oldest) = self.waiting.values().map(|waiting| waiting.since).min() else { return false };
        let silence = now.saturating_duration_since(oldest.max(heard));
        if silence >= STALLED && !self.draining {
            self.drain();
        }
        silence >= self.endpoint.timeout.max(STALLED * 2)
    }

    fn drain(&mut self) {
        self.draining = true;
        self.slot.drain();
    }

    fn fail(self, pipe: &Pipe, endpoint: &Endpoint, how: &str) {
        let error = closed(&endpoint.url(), how);
        for (_, waiting) in self.waiting {
            waiting.replies.reply(waiting.token, Err(error.clone()));
        }
        pipe.end(&error);
    }
}

/// Asks for the root's name servers, which every resolver knows; any answer is proof of life.
pub(super) async fn probe(endpoint: &Endpoint, pipe: &Arc<Pipe>) -> Result<(), Error> {
    struct Once(parking_lot::Mutex<Option<oneshot::Sender<Result<Bytes, Error>>>>);
    impl Replies for Once {
        fn reply(&self, _: u64, result: Result<Bytes, Error>) {
            if let Some(sender) = self.0.lock().take() {
                let _ = sender.send(result);
            }
        }
    }
    let (sender, receiver) = oneshot::channel();
    let replies: Arc<dyn Replies> = Arc::new(Once(parking_lot::Mutex::new(Some(sender))));
    let query = message::build_query(".", message::TYPE_NS).expect("the root is a valid name");
    pipe.submit(&query, query.len(), 0, &replies);
    match tokio::time::timeout(PROBE, receiver).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(closed(&endpoint.url(), "the connection ended")),
        Err(_) => {
            Err(Error::new(ErrorKind::TimedOut, format!("probe of {}: no answer after {PROBE:?}", endpoint.url())))
        }
    }
}

const READ_BUFFER: usize = 16 * 1024;

/// How often a connection is checked for silence.
pub(super) const CHECK: Duration = Duration::from_millis(250);

/// A connection on which queries wait and nothing came for so long gets no new ones.
pub(crate) const STALLED: Duration = Duration::from_secs(1);

/// Queries in flight on one connection, given-up ones included.
const WAITING_MAX: usize = 16_384;

/// Limit for the proof of life.
const PROBE: Duration = Duration::from_secs(1);
