//! What happened to the requests of an origin, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use keepwarm_pool::Histogram;
use parking_lot::Mutex;

/// What happened to the requests of an origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that came.
    pub came: u64,
    /// Requests that were answered, with whatever status.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that their callers gave up.
    pub cancelled: u64,
    /// Tries beyond the first of a request that were sent.
    pub retried: u64,
    /// Requests that went over a connection that had served before.
    pub reused: u64,
}

impl Requests {
    /// Adds what happened to the requests of another origin.
    pub(super) fn add(&mut self, other: Requests) {
        self.came += other.came;
        self.answered += other.answered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.retried += other.retried;
        self.reused += other.reused;
    }
}

/// The counters behind [`Requests`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) came: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) under_way: AtomicU64,
    /// Times to the head of an answer.
    pub(super) latency: Mutex<Histogram>,
}

impl Counters {
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> Requests {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (came, answered, failed) = (read(&self.came), read(&self.answered), read(&self.failed));
        let over = came.saturating_sub(read(&self.under_way));
        Requests {
            came,
            answered,
            failed,
            cancelled: over.saturating_sub(answered + failed),
            retried: read(&self.retried),
            reused: read(&self.reused),
        }
    }
}

/// Counts a request as under way until it is dropped.
pub(super) struct UnderWay<'a>(&'a Counters);

impl<'a> UnderWay<'a> {
    pub(super) fn new(counters: &'a Counters) -> UnderWay<'a> {
        counters.came.fetch_add(1, Ordering::Relaxed);
        counters.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(counters)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
