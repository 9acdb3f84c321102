//! Who waits, first come first served: two intrusive lists in one slab, so that a cancel is O(1) wherever the waiter stands.
//!
//! Not here: who is served with what (`core.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::Location;
use std::time::Instant;

use slab::Slab;

use super::slots::NIL;
use super::{Failure, Grant, Kinds};

/// A waiter's place; the sequence number tells it from later users of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaiterRef {
    pub(crate) index: u32,
    pub(crate) seq: u64,
}

/// Where a waiter stands.
pub(crate) enum Standing<K: Kinds> {
    /// In a list. -> `Parked`, or gone when its result is delivered.
    Waiting,
    /// Its result is here until it comes to fetch it.
    Parked(Result<Grant<K>, Failure<K::Fault>>),
}

pub(crate) struct Waiter<K: Kinds> {
    pub(crate) seq: u64,
    pub(crate) since: Instant,
    pub(crate) opened_after: Option<Instant>,
    /// Whether the result is parked for a future to fetch, rather than delivered.
    pub(crate) park: bool,
    pub(crate) notify: Option<K::Notify>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) standing: Standing<K>,
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: usize,
}

const EMPTY: List = List { head: NIL, tail: NIL, len: 0 };

pub(crate) struct Waiters<K: Kinds> {
    slab: Slab<Waiter<K>>,
    /// Take any connection.
    ordinary: List,
    /// Take only one whose dial began late enough.
    fresh: List,
    /// The latest instant that a fresh waiter asks for; stays until the list is empty.
    fresh_latest: Option<Instant>,
    next_seq: u64,
    deadlines: BinaryHeap<Reverse<(Instant, u32, u64)>>,
}

pub(crate) struct NewWaiter<K: Kinds> {
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) opened_after: Option<Instant>,
    pub(crate) park: bool,
    pub(crate) notify: K::Notify,
    pub(crate) location: &'static Location<'static>,
}

impl<K: Kinds> Waiters<K> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::new(),
            ordinary: EMPTY,
            fresh: EMPTY,
            fresh_latest: None,
            next_seq: 1,
            deadlines: BinaryHeap::new(),
        }
    }

    /// Returns how many wait; those with a parked result do not.
    pub(crate) fn len(&self) -> usize {
        self.ordinary.len + self.fresh.len
    }

    pub(crate) fn ordinary(&self) -> usize {
        self.ordinary.len
    }

    pub(crate) fn fresh(&self) -> usize {
        self.fresh.len
    }

    pub(crate) fn fresh_latest(&self) -> Option<Instant> {
        self.fresh_latest
    }

    /// Returns how many places are taken, parked results included.
    pub(crate) fn places(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn push(&mut self, new: NewWaiter<K>) -> WaiterRef {
        let seq = self.next_seq;
        self.next_seq += 1;
        let fresh = new.opened_after.is_some();
        self.fresh_latest = self.fresh_latest.max(new.opened_after);
        let tail = if fresh { self.fresh.tail } else { self.ordinary.tail };
        let key = self.slab.insert(Waiter {
            seq,
            since: new.since,
            opened_after: new.opened_after,
            park: new.park,
            notify: Some(new.notify),
            location: new.location,
            standing: Standing::Waiting,
            prev: tail,
            next: NIL,
        });
        let index = u32::try_from(key).expect("max_waiters keeps the slab small");
        if tail != NIL {
            self.slab[tail as usize].next = index;
        }
        let list = if fresh { &mut self.fresh } else { &mut self.ordinary };
        list.tail = index;
        if list.head == NIL {
            list.head = index;
        }
        list.len += 1;
        if let Some(deadline) = new.deadline {
            self.push_deadline(deadline, index, seq);
        }
        WaiterRef { index, seq }
    }

    pub(crate) fn entry(&mut self, at: WaiterRef) -> Option<&mut Waiter<K>> {
        self.slab.get_mut(at.index as usize).filter(|waiter| waiter.seq == at.seq)
    }

    pub(crate) fn since(&self, index: u32) -> Instant {
        self.slab[index as usize].since
    }

    /// Returns when the oldest waiter came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        [self.ordinary.head, self.fresh.head].into_iter().filter(|&i| i != NIL).map(|i| self.since(i)).min()
    }

    /// Returns the waiter that is to be served by a connection dialled at `opened_at`: the first to come of those that take it.
    ///
    /// The list of the ordinary ones costs O(1). The other holds retries only; it is searched, because a retry that wants a later
    /// dial than the next one must not hold it up.
    pub(crate) fn first_for(&self, opened_at: Instant) -> Option<u32> {
        let fresh = self.fresh_indices().find(|&i| self.slab[i as usize].opened_after <= Some(opened_at));
        match (self.ordinary.head, fresh) {
            (NIL, fresh) => fresh,
            (head, Some(fresh)) if self.slab[fresh as usize].seq < self.slab[head as usize].seq => Some(fresh),
            (head, _) => Some(head),
        }
    }

    /// Whether the first of those that want a fresh dial came before all ordinary ones, and a connection dialled at `opened_at` is too
    /// old for it.
    pub(crate) fn fresh_is_first_and_refuses(&self, opened_at: Instant) -> bool {
        let Some(fresh) = self.slab.get(self.fresh.head as usize) else { return false };
        fresh.opened_after > Some(opened_at)
            && self.slab.get(self.ordinary.head as usize).is_none_or(|ordinary| fresh.seq < ordinary.seq)
    }

    pub(crate) fn fresh_indices(&self) -> impl Iterator<Item = u32> {
        let mut at = self.fresh.head;
        std::iter::from_fn(move || {
            let index = (at != NIL).then_some(at)?;
            at = self.slab[index as usize].next;
            Some(index)
        })
    }

    pub(crate) fn opened_after(&self, index: u32) -> Option<Instant> {
        self.slab[index as usize].opened_after
    }

    /// Returns the waiter that came first of all.
    pub(crate) fn first(&self) -> Option<u32> {
        [self.ordinary.head, self.fresh.head]
            .into_iter()
            .filter(|&i| i != NIL)
            .min_by_key(|&i| self.slab[i as usize].seq)
    }

    /// Takes a waiter out of its list; its place stays.
    pub(crate) fn unlink(&mut self, index: u32) {
        let waiter = &self.slab[index as usize];
        let (prev, next) = (waiter.prev, waiter.next);
        let fresh = waiter.opened_after.is_some();
        if prev != NIL {
            self.slab[prev as usize].next = next;
        }
        if next != NIL {
            self.slab[next as usize].prev = prev;
        }
        let list = if fresh { &mut self.fresh } else { &mut self.ordinary };
        if list.head == index {
            list.head = next;
        }
        if list.tail == index {
            list.tail = prev;
        }
        list.len -= 1;
        if self.fresh.len == 0 {
            self.fresh_latest = None;
        }
    }

    /// Frees a place.
    pub(crate) fn remove(&mut self, index: u32) -> Waiter<K> {
        let waiter = self.slab.remove(index as usize);
        self.sweep_deadlines();
        waiter
    }

    pub(crate) fn get(&mut self, index: u32) -> &mut Waiter<K> {
        &mut self.slab[index as usize]
    }

    fn push_deadline(&mut self, deadline: Instant, index: u32, seq: u64) {
        self.deadlines.push(Reverse((deadline, index, seq)));
    }

    /// Entries of waiters that have gone stay until their time; they are swept when they are the majority, so that the heap is
    /// O(waiting), a cancel needs no search, and the sweeps cost O(1) each spread over the removals between them.
    fn sweep_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.slab.len() + 64 {
            let slab = &self.slab;
            self.deadlines.retain(|&Reverse((_, index, seq))| slab.get(index as usize).is_some_and(|w| w.seq == seq));
        }
    }

    /// Returns the earliest deadline of somebody who still waits.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(&Reverse((deadline, index, seq))) = self.deadlines.peek() {
            if self.is_waiting(WaiterRef { index, seq }) {
                return Some(deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Returns one waiter whose deadline has passed.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let deadline = self.next_deadline()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop().map(|Reverse((_, index, _))| index)
    }

    pub(crate) fn is_waiting(&self, at: WaiterRef) -> bool {
        self.slab
            .get(at.index as usize)
            .is_some_and(|waiter| waiter.seq == at.seq && matches!(waiter.standing, Standing::Waiting))
    }

    #[cfg(any(debug_assertions, test))]
    pub(crate) fn deadlines_len(&self) -> usize {
        self.deadlines.len()
    }
}
