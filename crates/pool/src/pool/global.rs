//! The limits across hosts: permits to open and to dial, and the queue of hosts that wait for one, first come first served.
//!
//! Not here: which connection gives way (`pool.rs`). This lock is a leaf: nothing else is locked while it is held.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use crate::connector::Connector;
use crate::limits::Limits;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// The answer to a request for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One connection and one dial may begin.
    Granted,
    /// The host stands in the queue.
    Stalled,
    /// No.
    Refused,
}

pub(super) struct Global<C: Connector> {
    counts: Mutex<Counts<C>>,
    /// Length of the queue, readable without the lock.
    stalled: AtomicUsize,
}

struct Counts<C: Connector> {
    total: usize,
    dials: usize,
    max_total: usize,
    max_dials: usize,
    /// Each host at most once, so O(hosts).
    queue: VecDeque<Arc<Shared<C>>>,
}

impl<C: Connector> Counts<C> {
    fn has_room(&self) -> bool {
        self.total < self.max_total && self.dials < self.max_dials
    }
}

impl<C: Connector> Global<C> {
    pub(super) fn new(limits: &Limits) -> Self {
        let (max_total, max_dials) = (limits.max_total, limits.max_dials);
        let counts = Counts { total: 0, dials: 0, max_total, max_dials, queue: VecDeque::new() };
        Self { counts: Mutex::new(counts), stalled: AtomicUsize::new(0) }
    }

    /// Asks for a permit; nobody overtakes the queue.
    pub(super) fn request(&self, host: &Arc<Shared<C>>, may_stall: bool) -> Verdict {
        let mut counts = self.counts.lock();
        if counts.queue.is_empty() && counts.has_room() {
            counts.total += 1;
            counts.dials += 1;
            Verdict::Granted
        } else if may_stall {
            counts.queue.push_back(Arc::clone(host));
            self.stalled.store(counts.queue.len(), Ordering::SeqCst);
            Verdict::Stalled
        } else {
            Verdict::Refused
        }
    }

    /// Takes the next host out of the queue if there is room for it; its permit is counted already.
    pub(super) fn next(&self) -> Option<Arc<Shared<C>>> {
        if self.stalled.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut counts = self.counts.lock();
        if !counts.has_room() {
            return None;
        }
        let host = counts.queue.pop_front()?;
        counts.total += 1;
        counts.dials += 1;
        self.stalled.store(counts.queue.len(), Ordering::SeqCst);
        Some(host)
    }

    pub(super) fn free_total(&self) {
        self.counts.lock().total -= 1;
    }

    pub(super) fn free_dial(&self) {
        self.counts.lock().dials -= 1;
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst) > 0
    }

    /// Whether hosts wait because of `max_total`, so that something must give way.
    pub(super) fn wants_room(&self) -> bool {
        if !self.is_stalled() {
            return false;
        }
        let counts = self.counts.lock();
        !counts.queue.is_empty() && counts.total >= counts.max_total
    }

    /// How many connections there are above the limit, after it was lowered.
    pub(super) fn over(&self) -> usize {
        let counts = self.counts.lock();
        counts.total.saturating_sub(counts.max_total)
    }

    pub(super) fn set_limits(&self, limits: &Limits) {
        let mut counts = self.counts.lock();
        counts.max_total = limits.max_total;
        counts.max_dials = limits.max_dials;
    }

    /// Returns the connections, dialling ones included.
    pub(super) fn total(&self) -> usize {
        self.counts.lock().total
    }

    /// Empties the queue when the pool ends; returns it to be dropped outside the lock.
    pub(super) fn clear(&self) -> VecDeque<Arc<Shared<C>>> {
        let mut counts = self.counts.lock();
        self.stalled.store(0, Ordering::SeqCst);
        std::mem::take(&mut counts.queue)
    }
}
