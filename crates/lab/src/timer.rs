//! One queue for everything that a lab does later. A task and a timer for each delayed answer would cost more than the
//! answers themselves. It fires up to a millisecond late, as tokio's timers do, and never early.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::core::{Control, Core, Event, Target, now, stopped};

/// Events, ordered by time.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Datagrams that the socket had no room for.
    overflow: VecDeque<Event>,
    next_number: u64,
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

    /// Adds a datagram to be sent as soon as its socket takes it.
    pub(crate) fn push_overflow(&self, event: Event) {
        let mut queue = self.queue.lock();
        if queue.overflow.len() < QUEUE_MAX {
            queue.overflow.push_back(event);
            self.changed.notify_one();
        }
    }

    /// Moves all that is due into `events`, and says when the next is.
    fn take_due(&self, events: &mut Vec<Event>, overflow: &mut VecDeque<Event>) -> Option<Instant> {
        let now = now();
        let mut queue = self.queue.lock();
        overflow.append(&mut queue.overflow);
        loop {
            match queue.heap.peek_mut() {
                Some(first) if first.0.due <= now => {
                    events.push(std::collections::binary_heap::PeekMut::pop(first).0.event);
                }
                first => return first.map(|first| first.0.due),
            }
        }
    }
}

/// Fires events until the lab stops.
pub(crate) async fn run(core: Arc<Core>, mut control: watch::Receiver<Control>) {
    let mut events = Vec::new();
    let mut overflow = VecDeque::new();
    loop {
        let next = core.timer.take_due(&mut events, &mut overflow);
        for event in events.drain(..) {
            core.fire(event);
        }
        for event in overflow.drain(..) {
            send(event).await;
        }
        let sleep = async {
            match next {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = core.timer.changed.notified() => {}
            () = stopped(&mut control) => return,
        }
    }
}

async fn send(event: Event) {
    if let Event::Deliver { target: Target::Udp { socket, peer }, messages, .. } = event {
        for message in messages {
            // A client that has gone is no fault of the lab's.
            let _ = socket.send_to(&message, peer).await;
        }
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
