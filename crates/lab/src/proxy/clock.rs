//! Wakes tasks at an instant, from a thread of its own: tokio's timers are about a millisecond late, which is as much as some of what
//! is measured over a delay. This one is late by the system's timer slack, and never early. It needs a clock that runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::core::now;

/// Clones are handles of the same. The thread ends with [`stop`](Self::stop).
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    pushed: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// Keeps the order of equal instants.
    number: u64,
    wake: oneshot::Sender<()>,
}

impl Clock {
    /// Starts the thread. The receiver is closed when it has ended.
    pub(super) fn start() -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (ended, receiver) = oneshot::channel::<()>();
        let shared = Arc::new(Shared::default());
        let (clock, runtime) = (Self(Arc::clone(&shared)), Handle::current());
        std::thread::Builder::new().name("lab-clock".to_owned()).spawn(move || {
            // The runtime's clock is the one that all instants here come from.
            let _clock = runtime.enter();
            while let Some(entry) = shared.next() {
                // Who waited may have gone.
                let _ = entry.wake.send(());
            }
            drop(ended);
        })?;
        Ok((clock, receiver))
    }

    /// Waits until then; not at all if it has passed, or if the clock was stopped. Cancel safe.
    pub(super) async fn until(&self, due: Instant) {
        if due <= now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        self.0.push(due, wake);
        let _ = woken.await;
    }

    /// Ends the thread and wakes whoever still waits.
    pub(super) fn stop(&self) {
        let mut queue = self.0.queue.lock();
        queue.stopping = true;
        queue.heap.clear();
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn push(&self, due: Instant, wake: oneshot::Sender<()>) {
        let mut queue = self.queue.lock();
        // What does not fit is woken at once; no test comes near.
        if queue.stopping || queue.heap.len() >= QUEUE_MAX {
            return;
        }
        let number = queue.pushed;
        queue.pushed += 1;
        let earliest = queue.heap.peek().is_none_or(|Reverse(first)| due < first.due);
        queue.heap.push(Reverse(Entry { due, number, wake }));
        if earliest {
            self.changed.notify_one();
        }
    }

    /// Waits for the next that is due. `None`: the clock was stopped.
    fn next(&self) -> Option<Entry> {
        let mut queue = self.queue.lock();
        while !queue.stopping {
            match queue.heap.peek().map(|Reverse(first)| first.due) {
                Some(due) if due <= now() => return queue.heap.pop().map(|Reverse(entry)| entry),
                Some(due) => {
                    self.changed.wait_until(&mut queue, due);
                }
                None => self.changed.wait(&mut queue),
            }
        }
        None
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

const QUEUE_MAX: usize = 1 << 20;
