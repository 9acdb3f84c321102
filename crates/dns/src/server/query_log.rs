//! The query log: who asked what and how it was answered, one JSON object a line, apart from the daemon's own log.
//!
//! A worker puts an entry into a bounded queue and goes on; where that is full the entry is dropped and counted. One thread
//! makes the lines and writes them. What a line says of clients and names is `QueryLogPrivacy`'s choice, and what happens to
//! the file (its size, a full disk) is `writer`'s business.

mod line;
mod writer;

use std::{
    fmt, io,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use smallvec::SmallVec;
use tokio::{sync::oneshot, time::Instant as Clock};

use super::{
    flight::{Client, Origin},
    worker::Worker,
};
use crate::{
    config::{ListenTransport, QueryLogPrivacy, QueryLogSettings},
    message,
};
use writer::Writer;

/// The way into the query log, for all workers.
pub(crate) struct QueryLog {
    queue: SyncSender<Mail>,
    counters: Arc<Counters>,
}

/// What the workers and the thread know of each other.
#[derive(Default)]
struct Counters {
    /// Entries that were not written, for want of room in the queue or on the disk.
    dropped: AtomicU64,
    /// The same of all query logs of the server, one after the other.
    unlogged: Arc<AtomicU64>,
    /// Write what is there, then leave.
    closing: AtomicBool,
}

impl Counters {
    fn drop_entries(&self, entries: u64) {
        self.dropped.fetch_add(entries, Relaxed);
        self.unlogged.fetch_add(entries, Relaxed);
    }
}

/// The thread that writes.
pub(super) struct LogThread {
    ended: oneshot::Receiver<()>,
}

/// Why the query log cannot be had.
#[derive(Debug)]
pub struct QueryLogError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for QueryLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open the query log {}: {}; ", self.path.display(), self.error)?;
        f.write_str("name a file that this user may write under dns.query_log, or set its privacy to \"off\"")
    }
}

impl std::error::Error for QueryLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

enum Mail {
    Entry(Entry),
    /// Look at `closing`.
    Wake,
}

/// One query and its answer.
#[derive(Debug, Clone)]
struct Entry {
    at: SystemTime,
    client: IpAddr,
    transport: ListenTransport,
    /// As the client wrote it, in wire form.
    name: SmallVec<[u8; 48]>,
    qtype: u16,
    rcode: u16,
    source: Source,
    took: Duration,
}

/// Where an answer is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The cache, within its time.
    Cache,
    /// The cache, past its end.
    Stale,
    /// Names that are answered here.
    Local,
    /// The upstream of this name in the config.
    Upstream(Arc<str>),
    /// None: what went wrong, in the words of the metrics.
    Error(&'static str),
}

impl QueryLog {
    /// Opens the file and starts the thread; `None` when nothing is to be written. What is not written is counted in `unlogged`.
    pub(super) fn open(
        settings: &QueryLogSettings,
        unlogged: &Arc<AtomicU64>,
    ) -> Result<Option<(QueryLog, LogThread)>, QueryLogError> {
        let (Some(path), QueryLogPrivacy::Hashed | QueryLogPrivacy::Full) = (&settings.file, settings.privacy) else {
            return Ok(None);
        };
        let failed = |error| QueryLogError { path: path.clone(), error };
        let counters = Arc::new(Counters { unlogged: unlogged.clone(), ..Counters::default() });
        let writer = Writer::open(path, settings, counters.clone()).map_err(failed)?;
        let (queue, entries) = mpsc::sync_channel(settings.queue.max(1));
        let (end, ended) = oneshot::channel();
        let write = move || {
            writer.run(&entries);
            let _ = end.send(());
        };
        thread::Builder::new().name("query-log".into()).spawn(write).map_err(failed)?;
        Ok(Some((QueryLog { queue, counters }, LogThread { ended })))
    }

    /// Asks the thread to write what is there and to end. It then tells [`LogThread::wait`].
    pub(super) fn close(&self) {
        self.counters.closing.store(true, Relaxed);
        // Where the queue is full, the thread is awake.
        let _ = self.queue.try_send(Mail::Wake);
    }

    fn push(&self, entry: Entry) {
        if self.queue.try_send(Mail::Entry(entry)).is_err() {
            self.counters.drop_entries(1);
        }
    }
}

impl LogThread {
    /// Waits until all is written, but no longer than `patience`: a disk may hang.
    pub(super) async fn wait(self, patience: Duration) {
        if tokio::time::timeout(patience, self.ended).await.is_err() {
            tracing::warn!("the query log was not written to its end: its disk does not answer");
        }
    }
}

impl Worker {
    /// Notes a query of a client's. `question` is what was asked, `answer` what the client gets, `started` when it asked.
    #[inline]
    pub(super) fn log(
        &self,
        client: &Client,
        origin: &Origin,
        question: &[u8],
        answer: &[u8],
        source: impl FnOnce() -> Source,
        started: Instant,
    ) {
        if let Some(log) = &self.era.borrow().query_log {
            let entry = entry(client.asked().unwrap_or(question), origin, answer, source, started);
            entry.into_iter().for_each(|entry| log.push(entry));
        }
    }
}

/// `None` when it is the daemon that asks.
fn entry(
    question: &[u8],
    origin: &Origin,
    answer: &[u8],
    source: impl FnOnce() -> Source,
    started: Instant,
) -> Option<Entry> {
    let (name, rest) = question.split_last_chunk::<4>()?;
    #[expect(clippy::disallowed_methods, reason = "a log tells the time of day")]
    let at = SystemTime::now();
    Some(Entry {
        at,
        client: origin.client?.to_canonical(),
        transport: origin.transport,
        name: SmallVec::from_slice(name),
        qtype: u16::from_be_bytes([rest[0], rest[1]]),
        rcode: message::verify_answer(answer).ok()?.rcode,
        source: source(),
        took: Clock::now().into_std().saturating_duration_since(started),
    })
}

#[cfg(test)]
mod tests;
