//! What passes between those who ask and the connections that ask for them.
//!
//! A query is handed to a connection with a token and a place for the reply; the reply comes back from whichever thread
//! drives the connection. There is no task and no allocation per query: queries are appended to one buffer that the
//! driver takes as a whole, and the answers that came in together reach each asker together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::{
    error::{Error, ErrorKind},
    upstream::{Cookies, Dress},
};

mod answers;

pub(crate) use answers::{Answers, Askers};

/// Where answers go. The token is the asker's own; an asker that no longer waits ignores it.
pub(crate) trait Replies: Send + Sync {
    /// Called once for each query handed over, unless its answer comes with [`reply_all`](Self::reply_all). From any
    /// thread.
    fn reply(&self, token: u64, result: Result<Bytes, Error>);

    /// Takes the answers that came in together and leaves `answers` empty. From any thread.
    fn reply_all(&self, answers: &mut Answers) {
        for (token, answer) in answers.iter() {
            self.reply(token, Ok(Bytes::copy_from_slice(answer)));
        }
        answers.clear();
    }
}

/// Who asked.
pub(crate) enum Asker {
    /// One that asks often: its place in the connection's [`Askers`].
    Known(usize),
    /// One that asks once.
    Once(Arc<dyn Replies>),
}

/// One query in a [`Batch`].
pub(crate) struct Item {
    pub(crate) token: u64,
    pub(crate) asker: Asker,
    /// Length of the message in the batch's bytes.
    pub(crate) len: usize,
    /// Where the question ends in it.
    pub(crate) question_end: usize,
}

/// A query that was sent: whom its answer goes to, and what it must be an answer to.
pub(crate) struct Asked {
    pub(crate) token: u64,
    pub(crate) asker: Asker,
    /// The query up to the end of its question.
    pub(crate) head: SmallVec<[u8; 64]>,
}

impl Item {
    /// What is kept of the query once it is sent.
    pub(crate) fn asked(self, query: &[u8]) -> Asked {
        Asked { token: self.token, asker: self.asker, head: SmallVec::from_slice(&query[..self.question_end]) }
    }
}

/// A query on its way to a connection.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) question_end: usize,
    /// It goes as it is, with nothing added.
    pub(crate) bare: bool,
    pub(crate) now: Instant,
}

/// Queries handed over since the driver looked last, in order.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

/// The queue between askers and the driver of one stream connection.
///
/// Bounded by the pool: an asker holds a lease, so at most `max_in_flight` queries are under way.
pub(crate) struct Pipe {
    queue: Mutex<Queue>,
    base: Instant,
    heard: AtomicU64,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    /// Those who ask often, in the order in which they came: the workers, so there are few.
    askers: Vec<Arc<dyn Replies>>,
    /// What is added to each query.
    dress: Option<Dress>,
    /// The driver's, while it waits. Taken by the one who wakes it, so that a batch costs one wake.
    waker: Option<Waker>,
    /// Set by the driver when it stops: later queries fail at once.
    ended: Option<Error>,
    /// Set by the owner: the driver stops.
    released: bool,
}

impl Pipe {
    pub(crate) fn new(now: Instant) -> Arc<Pipe> {
        Arc::new(Pipe { queue: Mutex::default(), base: now, heard: AtomicU64::new(0) })
    }

    /// Has this added to each query. Said by the one who dials, before anything is asked.
    pub(crate) fn dress(&self, dress: Option<Dress>) {
        self.queue.lock().dress = dress;
    }

    /// What the queries' cookies are, for the one who reads the answers.
    pub(crate) fn cookies(&self) -> Option<Cookies> {
        self.queue.lock().dress.as_ref().and_then(Dress::cookies)
    }

    /// Hands a query over. Its id is replaced by the driver. The connection keeps `replies` for as long as it lives.
    pub(crate) fn submit(&self, query: Outgoing<'_>, token: u64, replies: &Arc<dyn Replies>) {
        self.hand_over(query, token, replies, |queue| {
            let known = queue.askers.iter().position(|asker| Arc::ptr_eq(asker, replies));
            Asker::Known(known.unwrap_or_else(|| {
                queue.askers.push(replies.clone());
                queue.askers.len() - 1
            }))
        });
    }

    /// Hands over the only query of an asker, whom the connection forgets with the reply.
    pub(crate) fn submit_once(&self, query: Outgoing<'_>, token: u64, replies: &Arc<dyn Replies>) {
        self.hand_over(query, token, replies, |_| Asker::Once(replies.clone()));
    }

    fn hand_over(
        &self,
        query: Outgoing<'_>,
        token: u64,
        replies: &Arc<dyn Replies>,
        asker: impl FnOnce(&mut Queue) -> Asker,
    ) {
        let mut queue = self.queue.lock();
        if let Some(error) = &queue.ended {
            let error = error.clone();
            drop(queue);
            return replies.reply(token, Err(error));
        }
        let asker = asker(&mut queue);
        let Outgoing { message, question_end, bare, now } = query;
        let Queue { batch, dress, .. } = &mut *queue;
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(message);
        if let Some(dress) = dress.as_mut().filter(|_| !bare) {
            dress.put_on(&mut batch.bytes, start, question_end, now);
        }
        batch.items.push(Item { token, asker, len: batch.bytes.len() - start, question_end });
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what was handed over, and sees to it that the driver is woken for what comes next; `false` when the owner
    /// let go of the connection, and then nothing is taken.
    pub(crate) fn take(&self, cx: &Context<'_>, into: &mut Batch, askers: &mut Askers) -> bool {
        into.bytes.clear();
        into.bytes.shrink_to(BATCH_KEPT);
        into.items.clear();
        let mut queue = self.queue.lock();
        if queue.released {
            return false;
        }
        std::mem::swap(&mut queue.batch, into);
        askers.learn(&queue.askers);
        if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.waker = Some(cx.waker().clone());
        }
        true
    }

    /// The driver's last word: what is still queued fails with it, and so does everything later.
    pub(crate) fn end(&self, error: &Error) {
        let (batch, askers) = {
            let mut queue = self.queue.lock();
            queue.ended = Some(error.clone());
            queue.waker = None;
            (std::mem::take(&mut queue.batch), std::mem::take(&mut queue.askers))
        };
        for item in batch.items {
            let replies = match &item.asker {
                Asker::Known(number) => &askers[*number],
                Asker::Once(replies) => replies,
            };
            replies.reply(item.token, Err(error.clone()));
        }
    }

    /// The owner's last word.
    pub(crate) fn release(&self) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.released = true;
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes that bytes came in.
    pub(crate) fn hear(&self, now: Instant) {
        let since = now.saturating_duration_since(self.base).as_micros();
        self.heard.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether bytes ever came in.
    pub(crate) fn proven(&self) -> bool {
        self.heard.load(Ordering::Relaxed) > 0
    }

    /// When bytes came in last; the time of connecting before that.
    pub(crate) fn heard(&self) -> Instant {
        self.base + Duration::from_micros(self.heard.load(Ordering::Relaxed))
    }
}

/// The driver's end of a [`Pipe`]: a driver that is dropped half way, with its runtime, takes its leave all the same.
/// Otherwise the connection and those who asked on it would keep each other.
pub(crate) struct Driven(pub(crate) Arc<Pipe>);

impl Drop for Driven {
    fn drop(&mut self) {
        if self.0.queue.lock().ended.is_none() {
            self.0.end(&Error::new(ErrorKind::Closed, "the connection was dropped").or_fresh());
        }
    }
}

impl std::ops::Deref for Driven {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        &self.0
    }
}

/// The error of queries whose connection ended under them: they may go once more over a fresh one.
pub(crate) fn closed(target: &str, how: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("query to {target}: {how} before the answer")).or_fresh()
}

/// Bytes of an empty batch that are kept for the next one; a burst's are given back.
const BATCH_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests;
