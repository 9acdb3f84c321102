//! What origins did that are gone, so that sums over all never fall.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Counters, Requests};

/// The figures of origins that are gone.
#[derive(Default)]
pub(super) struct Past(Mutex<Sum>);

#[derive(Default)]
struct Sum {
    ended: Requests,
    /// Of origins that still have requests under way, or had when this was looked at last.
    ending: Vec<Arc<Counters>>,
}

impl Past {
    /// An origin is gone.
    pub(super) fn add(&self, counters: Arc<Counters>) {
        let mut sum = self.0.lock();
        sum.settle();
        sum.ending.push(counters);
    }

    pub(super) fn read(&self) -> Requests {
        let mut sum = self.0.lock();
        sum.settle();
        let mut all = sum.ended;
        sum.ending.iter().for_each(|counters| all.add(counters.read()));
        all
    }
}

impl Sum {
    /// Adds up those that nobody counts with any more.
    fn settle(&mut self) {
        let ended = &mut self.ended;
        self.ending.retain(|counters| {
            let is_over = Arc::strong_count(counters) == 1;
            if is_over {
                ended.add(counters.read());
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_later_is_counted_too() {
        let past = Past::default();
        let (under_way, over) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        over.came.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        past.add(under_way.clone());
        past.add(over);
        assert_eq!(past.read().came, 2);
        under_way.came.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(past.read().came, 3);
        drop(under_way);
        assert_eq!(past.read().came, 3);
        assert!(past.0.lock().ending.is_empty());
    }
}
