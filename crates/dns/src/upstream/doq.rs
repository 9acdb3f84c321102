//! Drives one QUIC connection (RFC 9250): each query a stream of its own, all moved by one task.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind},
    quic::{Answered, QuicConnection, QuicEnd, QuicExchanges},
};
use tokio::time::{Instant as Clock, MissedTickBehavior};

use super::{
    connector::{self, DnsConnector},
    endpoint::{Endpoint, count},
    stream::{CHECK, STALLED},
};
use crate::{
    error::{Error, ErrorKind},
    exchange::{Asked, Askers, Batch, Driven, Pipe, closed},
    framing::push_frame,
    message,
};

/// Streams that may be used: what the server allows, within our own limit.
pub(super) fn capacity(endpoint: &Endpoint, max_streams: u64) -> u32 {
    connector::capacity(endpoint).min(u32::try_from(max_streams).unwrap_or(u32::MAX)).max(1)
}

/// Runs until the connection ends or the owner lets go. `capacity` is what the pool was told.
pub(super) async fn drive(
    connection: QuicConnection,
    capacity: u32,
    pipe: Arc<Pipe>,
    slot: Slot<DnsConnector>,
    endpoint: Arc<Endpoint>,
) {
    let pipe = Driven(pipe);
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = Session::new(connection, capacity, &slot, &endpoint);
    let (reason, how) = poll_fn(|cx| {
        let now = Clock::now().into_std();
        let end = session.poll(cx, &pipe, now);
        if end.is_ready() {
            return end;
        }
        while check.poll_tick(cx).is_ready() {
            if session.silent(pipe.heard(), now) {
                return Poll::Ready((CloseReason::PeerClosed, "nothing came back"));
            }
        }
        Poll::Pending
    })
    .await;
    slot.closed(reason);
    pipe.end(&closed(&endpoint.url(), how));
    poll_fn(|cx| {
        session.finish(cx, &pipe);
        Poll::Ready(())
    })
    .await;
}

/// How a connection ended, for the pool and for those who wait.
type End = (CloseReason, &'static str);

/// The queries on one connection.
struct Session<'a> {
    exchanges: QuicExchanges<Asked>,
    finished: Vec<Answered<Asked>>,
    batch: Batch,
    askers: Askers,
    slot: &'a Slot<DnsConnector>,
    endpoint: &'a Endpoint,
    /// Since when queries wait, or when one of them ended last.
    oldest: Option<Instant>,
    draining: bool,
    /// The server broke a rule of RFC 9250, which its connection's end tells it. Section 4.3.3 would have that at once, which
    /// other queries would pay for.
    violated: bool,
    /// What the pool was told that fits on the connection, at first and now.
    capacity: u32,
    offered: u32,
}

impl<'a> Session<'a> {
    fn new(
        connection: QuicConnection,
        capacity: u32,
        slot: &'a Slot<DnsConnector>,
        endpoint: &'a Endpoint,
    ) -> Session<'a> {
        Session {
            exchanges: QuicExchanges::new(connection, PREFIX + ANSWER_MAX, REQUEST_CANCELLED),
            finished: Vec::new(),
            batch: Batch::default(),
            askers: Askers::default(),
            slot,
            endpoint,
            oldest: None,
            draining: false,
            violated: false,
            capacity,
            offered: capacity,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe, now: Instant) -> Poll<End> {
        if !pipe.take(cx, &mut self.batch, &mut self.askers) {
            return Poll::Ready((CloseReason::Drained, "the connection was let go"));
        }
        self.send(now);
        let end = self.exchanges.poll(cx, &mut self.finished);
        let end = end.map(|end| end_of(&end));
        if let Poll::Ready((reason, _)) = end {
            // Before a query goes elsewhere, the pool knows that this connection is not to be used again.
            self.slot.closed(reason);
        }
        self.receive(pipe, now);
        end
    }

    /// Closes the connection and gives what is left its end.
    fn finish(&mut self, cx: &mut Context<'_>, pipe: &Pipe) {
        let code = if self.violated { PROTOCOL_ERROR } else { NO_ERROR };
        self.exchanges.disconnect(code, cx, &mut self.finished);
        self.receive(pipe, Clock::now().into_std());
    }

    /// Puts each query that was handed over on a stream.
    fn send(&mut self, now: Instant) {
        if self.batch.items.is_empty() {
            return;
        }
        self.oldest.get_or_insert(now);
        let mut frames = Vec::with_capacity(self.batch.bytes.len() + PREFIX * self.batch.items.len());
        let mut started = Vec::with_capacity(self.batch.items.len());
        let mut rest = &self.batch.bytes[..];
        for item in self.batch.items.drain(..) {
            let (query, others) = rest.split_at(item.len);
            rest = others;
            if push_frame(&mut frames, query) {
                // RFC 9250 section 4.2.1: the id is 0.
                let id = frames.len() - query.len();
                frames[id..id + 2].fill(0);
                started.push((item.asked(query), frames.len()));
            } else {
                let text = format!("query to {}: too long", self.endpoint.url());
                self.askers.fail(&item.asker, item.token, Error::new(ErrorKind::Local, text));
            }
        }
        // One buffer for all; the connection lets go of it once they are written.
        let frames = Bytes::from(frames);
        let mut start = 0;
        for (asked, end) in started {
            self.exchanges.start(frames.slice(start..end), asked, now);
            start = end;
        }
    }

    /// Hands on what came of the queries that have ended.
    fn receive(&mut self, pipe: &Pipe, now: Instant) {
        if self.finished.is_empty() {
            return;
        }
        let mut heard = false;
        for (asked, result) in self.finished.drain(..) {
            match judge(&asked, result, self.endpoint) {
                Ok(answer) => {
                    heard = true;
                    self.askers.answer(asked.asker, asked.token, &answer[PREFIX..]);
                }
                Err(error) => {
                    heard |= error.kind() == ErrorKind::Mismatch;
                    if error.kind() == ErrorKind::Mismatch {
                        count(&self.endpoint.counters.wrong_answers);
                        self.draining = true;
                        self.violated = true;
                        self.slot.drain();
                    }
                    self.askers.fail(&asked.asker, asked.token, error);
                }
            }
        }
        if heard {
            pipe.hear(now);
        }
        self.oldest = (!self.exchanges.is_empty()).then_some(now);
        self.askers.deliver();
    }

    /// Whether the server has gone silent: queries wait and nothing came of any for long. A little earlier the connection
    /// gets no new ones.
    fn silent(&mut self, heard: Instant, now: Instant) -> bool {
        self.offer();
        let patience = self.endpoint.timeout().max(STALLED * 2);
        let Some(oldest) = self.oldest else { return false };
        let silence = now.saturating_duration_since(heard.max(oldest));
        if silence >= STALLED && !self.draining {
            self.draining = true;
            self.slot.drain();
        }
        if let Some(limit) = now.checked_sub(patience + GRACE) {
            self.exchanges.give_up(limit);
        }
        silence >= patience
    }

    /// Tells the pool what fits now. The server raises its limit as streams end (MAX_STREAMS, RFC 9000 section 19.11), a
    /// little late by nature; one that has not done so for a whole check gets no more than what is under way.
    fn offer(&mut self) {
        let (blocked, all) = (self.exchanges.blocked(), self.exchanges.len());
        let fits = match blocked {
            0 => self.capacity,
            _ => u32::try_from(all - blocked).unwrap_or(u32::MAX).min(self.capacity),
        };
        if fits != self.offered && !self.draining {
            self.offered = fits;
            self.slot.set_capacity(fits);
        }
    }
}

fn end_of(end: &QuicEnd) -> End {
    match end {
        QuicEnd::Closed(_) => (CloseReason::PeerClosed, "the upstream closed the connection"),
        QuicEnd::Idle => (CloseReason::IdleTimeout, "the connection was idle for too long"),
        QuicEnd::Reset => (CloseReason::PeerReset, "the upstream knows the connection no more"),
        QuicEnd::Released => (CloseReason::Drained, "the connection was let go"),
        _ => (CloseReason::Broken, "the connection broke"),
    }
}

/// What a stream's end means for its query.
fn judge(asked: &Asked, result: Result<Vec<u8>, TransportError>, endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    match result {
        Ok(answer) => match check(&asked.head, &answer) {
            Ok(()) => Ok(answer),
            Err(happened) => {
                let text = format!("query to {}: {happened}", endpoint.url());
                Err(Error::new(ErrorKind::Mismatch, text).or_fresh())
            }
        },
        Err(error) if error.is_retryable() || error.kind() == TransportKind::Protocol => Err(error.into()),
        // A query may be repeated safely: what lost its stream or its connection goes over a fresh one.
        Err(error) => Err(Error::from(error).or_fresh()),
    }
}

/// RFC 9250 section 4.2: a stream has one answer, its length before it, and section 4.3.3 what is none of that.
fn check(head: &[u8], stream: &[u8]) -> Result<(), &'static str> {
    let Some((prefix, answer)) = stream.split_first_chunk() else { return Err("the stream ended without an answer") };
    let length = usize::from(u16::from_be_bytes(*prefix));
    if answer.len() < length {
        return Err("the stream ended within the answer");
    }
    if answer.len() > length {
        return Err("there was more than the answer on its stream");
    }
    if answer.first_chunk() != Some(&[0; 2]) {
        return Err("the answer has an id, which it must not");
    }
    if !message::answer_matches(head, answer, false, true) {
        return Err("the answer was to another question");
    }
    Ok(())
}

/// RFC 9250 section 4.3: DOQ_NO_ERROR.
const NO_ERROR: u32 = 0x0;

/// RFC 9250 section 4.3: DOQ_PROTOCOL_ERROR.
const PROTOCOL_ERROR: u32 = 0x2;

/// RFC 9250 section 4.3: DOQ_REQUEST_CANCELLED.
const REQUEST_CANCELLED: u32 = 0x3;

/// Bytes of the length before a message.
const PREFIX: usize = 2;

/// The largest DNS message.
const ANSWER_MAX: usize = 65_535;

/// Who asked has given up before its stream is.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Vec<u8> {
        message::build_query("www.example", message::TYPE_NS).unwrap()
    }

    /// The query as its own answer, framed.
    fn answer() -> Vec<u8> {
        let mut message = query();
        message[2] |= 0x80;
        let mut stream = Vec::new();
        assert!(push_frame(&mut stream, &message));
        stream
    }

    #[test]
    fn one_whole_answer_with_id_0_is_taken() {
        assert_eq!(check(&query(), &answer()), Ok(()));
    }

    #[test]
    fn anything_else_is_not() {
        let right = answer();
        let mut more = right.clone();
        more.push(0);
        let mut twice = right.clone();
        twice.extend_from_slice(&right);
        let mut id = right.clone();
        id[3] = 1;
        let mut other = right.clone();
        other[16] ^= 1;
        for (stream, reason) in [
            (&right[..0], "without"),
            (&right[..1], "without"),
            (&right[..right.len() - 1], "within"),
            (&[0, 0][..], "has an id"),
            (&more, "more than"),
            (&twice, "more than"),
            (&id, "has an id"),
            (&other, "another question"),
        ] {
            let found = check(&query(), stream).unwrap_err();
            assert!(found.contains(reason), "{found} for {stream:?}");
        }
    }
}
