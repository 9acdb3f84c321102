//! One queue for everything that a lab does later. A task and a timer for each delayed answer would cost more than the
//! answers themselves.
//!
//! It is a thread of its own, because tokio's timers are about a millisecond late, which is as much as some of what is
//! measured against a lab. This one is late by up to [`QUANTUM`] and the system's timer slack, and never early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::core::{Core, Event, now};

/// Events, ordered by time.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    next_number: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// Keeps events of the same instant in order.
    number: u64,
    event: Event,
}

impl Timer {
    /// Adds the event that `make` builds from its number, and returns the number.
    pub(crate) fn push(&self, due: Instant, make: impl FnOnce(u64) -> Event) -> u64 {
        let mut queue = self.queue.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        // What does not fit is lost, as on an overloaded network; no test comes near.
        if queue.heap.len() < QUEUE_MAX {
            let earliest = queue.heap.peek().is_none_or(|Reverse(first)| due < first.due);
            queue.heap.push(Reverse(Entry { due, number, event: make(number) }));
            if earliest {
                self.changed.notify_one();
            }
        }
        number
    }

    /// Ends the thread; what is still queued is never done.
    pub(crate) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.changed.notify_one();
    }

    /// Waits for events that are due and moves them into `events`. Says whether to go on.
    fn wait(&self, events: &mut Vec<Event>) -> bool {
        let mut queue = self.queue.lock();
        while !queue.stopping {
            let now = now();
            let next = queue.take_due(now, events);
            if !events.is_empty() {
                return true;
            }
            match next {
                Some(due) => {
                    self.changed.wait_until(&mut queue, due.max(now + QUANTUM));
                }
                None => self.changed.wait(&mut queue),
            }
        }
        false
    }
}

impl Queue {
    /// Moves all that is due into `events`, and says when the next is.
    fn take_due(&mut self, now: Instant, events: &mut Vec<Event>) -> Option<Instant> {
        loop {
            match self.heap.peek_mut() {
                Some(first) if first.0.due <= now => events.push(PeekMut::pop(first).0.event),
                first => return first.map(|first| first.0.due),
            }
        }
    }
}

/// Starts the thread that fires events. The receiver is closed when it has ended.
pub(crate) fn start(core: Arc<Core>) -> io::Result<oneshot::Receiver<()>> {
    let (ended, receiver) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new().name("lab-timer".to_owned()).spawn(move || {
        // The runtime's clock is the one that all instants here come from.
        let _clock = runtime.enter();
        let mut events = Vec::new();
        while core.timer.wait(&mut events) {
            for event in events.drain(..) {
                core.fire(event);
            }
        }
        drop((core, ended));
    })?;
    Ok(receiver)
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

/// Wake-ups are at least this far apart, so that many answers a second share them.
const QUANTUM: Duration = Duration::from_micros(200);
const QUEUE_MAX: usize = 1 << 20;
