//! How long an upstream's answers took, counted by each worker for itself and added up for who looks.

use std::sync::Arc;

use keepwarm_pool::{Histogram, Tally};
use parking_lot::Mutex;

/// The counts of all workers.
#[derive(Default)]
pub(crate) struct Latencies(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Those whose writers have gone.
    past: Histogram,
    tallies: Vec<Arc<Tally>>,
}

impl Latencies {
    /// A tally for one more writer.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        let mut counts = self.0.lock();
        let Counts { past, tallies } = &mut *counts;
        tallies.retain(|tally| {
            let is_written = Arc::strong_count(tally) > 1;
            if !is_written {
                past.merge(&tally.read());
            }
            is_written
        });
        let tally = Arc::<Tally>::default();
        tallies.push(tally.clone());
        tally
    }

    /// All together.
    pub(crate) fn read(&self) -> Histogram {
        let counts = self.0.lock();
        let mut all = counts.past.clone();
        counts.tallies.iter().for_each(|tally| all.merge(&tally.read()));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_counted_outlives_who_counted() {
        let latencies = Latencies::default();
        let (first, second) = (latencies.tally(), latencies.tally());
        first.record(Duration::from_millis(1));
        second.record(Duration::from_millis(9));
        drop(first);
        let third = latencies.tally();
        third.record(Duration::from_millis(3));
        assert_eq!((latencies.read().count(), latencies.0.lock().tallies.len()), (3, 2));
        assert_eq!(latencies.read().max(), Duration::from_millis(9));
    }
}
