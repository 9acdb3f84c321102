//! What passes between those who ask and the connections that ask for them.
//!
//! A query is handed to a connection with a token and a place for the reply; the reply comes back from whichever thread
//! drives the connection. There is no task and no allocation per query: queries are appended to one buffer that the
//! driver takes as a whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind};

/// Where answers go. The token is the asker's own; an asker that no longer waits ignores it.
pub(crate) trait Replies: Send + Sync {
    /// Called once for each query handed over, from any thread.
    fn reply(&self, token: u64, result: Result<Bytes, Error>);
}

/// One query in a [`Batch`].
pub(crate) struct Item {
    pub(crate) token: u64,
    pub(crate) replies: Arc<dyn Replies>,
    /// Length of the message in the batch's bytes.
    pub(crate) len: usize,
    /// Where the question ends in it.
    pub(crate) question_end: usize,
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
    wake: Notify,
    base: Instant,
    heard: AtomicU64,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    /// Set by the driver when it stops: later queries fail at once.
    ended: Option<Error>,
    /// Set by the owner: the driver stops.
    released: bool,
}

impl Pipe {
    pub(crate) fn new(now: Instant) -> Arc<Pipe> {
        Arc::new(Pipe { queue: Mutex::default(), wake: Notify::new(), base: now, heard: AtomicU64::new(0) })
    }

    /// Hands a query over. Its id is replaced by the driver.
    pub(crate) fn submit(&self, query: &[u8], question_end: usize, token: u64, replies: &Arc<dyn Replies>) {
        let ended = {
            let mut queue = self.queue.lock();
            match &queue.ended {
                Some(error) => error.clone(),
                None => {
                    let wake = queue.batch.items.is_empty();
                    queue.batch.bytes.extend_from_slice(query);
                    let replies = replies.clone();
                    queue.batch.items.push(Item { token, replies, len: query.len(), question_end });
                    drop(queue);
                    if wake {
                        self.wake.notify_one();
                    }
                    return;
                }
            }
        };
        replies.reply(token, Err(ended));
    }

    /// Takes what was handed over; `false` when the owner let go of the connection.
    pub(crate) fn take(&self, into: &mut Batch) -> bool {
        into.bytes.clear();
        into.items.clear();
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.batch, into);
        !queue.released
    }

    /// Completes when something was handed over or the owner let go.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// The driver's last word: what is still queued fails with it, and so does everything later.
    pub(crate) fn end(&self, error: &Error) {
        let batch = {
            let mut queue = self.queue.lock();
            queue.ended = Some(error.clone());
            std::mem::take(&mut queue.batch)
        };
        for item in batch.items {
            item.replies.reply(item.token, Err(error.clone()));
        }
    }

    /// The owner's last word.
    pub(crate) fn release(&self) {
        self.queue.lock().released = true;
        self.wake.notify_one();
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

/// The error of queries whose connection ended under them: they may go once more over a fresh one.
pub(crate) fn closed(target: &str, how: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("query to {target}: {how} before the answer")).or_fresh()
}
