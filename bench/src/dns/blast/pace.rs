//! How many queries are due. No clock: `now` comes in.

use std::time::Duration;

/// The pace of a load.
#[derive(Debug)]
pub(super) enum Pace {
    /// So many outstanding.
    Closed { outstanding: usize },
    /// So many a second, whatever comes back.
    Open { rate: u32, asked: u64 },
}

impl Pace {
    pub(super) fn new(rate: Option<u32>, outstanding: usize) -> Pace {
        match rate {
            Some(rate) => Pace::Open { rate, asked: 0 },
            None => Pace::Closed { outstanding },
        }
    }

    /// Queries to send now, `now` being nanoseconds since the start.
    pub(super) fn due(&mut self, now: u64, outstanding: usize, right: u64) -> usize {
        match self {
            // The window opens with the answers: servers that open connections on demand see no burst at the start.
            Pace::Closed { outstanding: limit } => {
                let opened = usize::try_from(right / 2).unwrap_or(usize::MAX).saturating_add(4);
                opened.min(*limit).saturating_sub(outstanding)
            }
            Pace::Open { rate, asked } => {
                let until_now = u128::from(now) * u128::from(*rate) / 1_000_000_000;
                let due = u64::try_from(until_now).unwrap_or(u64::MAX).saturating_sub(*asked);
                // After a stall of the generator itself the load goes on from here: a burst would measure us, not the server.
                *asked += due;
                usize::try_from(due).unwrap_or(usize::MAX).min(*rate as usize / 20 + 1)
            }
        }
    }

    /// How long to wait for answers before looking again.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Pace::Closed { .. } => Duration::from_millis(5),
            Pace::Open { rate, .. } => Duration::from_nanos(1_000_000_000 / u64::from((*rate).max(1)))
                .clamp(Duration::from_micros(100), Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_opens_with_the_answers_and_stays_full() {
        let mut pace = Pace::new(None, 100);
        assert_eq!(pace.due(0, 0, 0), 4);
        assert_eq!(pace.due(0, 10, 20), 4);
        assert_eq!(pace.due(0, 100, 10_000), 0);
        assert_eq!(pace.due(0, 60, 10_000), 40);
    }

    #[test]
    fn an_open_loop_keeps_its_rate_however_it_is_called() {
        for step in [1_000, 100_000, 7_777_777] {
            let mut pace = Pace::new(Some(5_000), 1);
            let asked: usize = (0..=1_000_000_000 / step).map(|tick| pace.due(tick * step, 0, 0)).sum();
            assert!((4_950..=5_000).contains(&asked), "{asked} at {step}");
        }
    }

    #[test]
    fn a_stall_of_the_generator_is_no_burst() {
        let mut pace = Pace::new(Some(10_000), 1);
        assert_eq!(pace.due(5_000_000_000, 0, 0), 501);
        assert_eq!(pace.due(5_000_000_000, 0, 0), 0);
    }
}
