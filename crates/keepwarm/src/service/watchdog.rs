//! How often the service manager wants to hear from us.

use std::{pin::Pin, sync::Arc, time::Duration};

/// Asks the data path whether it is alive, with how long it may take to say so.
pub type Alive = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A watchdog that has to be fed within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    limit: Duration,
}

impl Watchdog {
    /// From the values of `WATCHDOG_USEC` and `WATCHDOG_PID` (sd_watchdog_enabled(3)); none where it is off or another process's.
    pub fn new(micros: Option<&str>, pid: Option<&str>) -> Option<Watchdog> {
        let limit = Duration::from_micros(micros?.parse().ok()?);
        let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        (is_ours && !limit.is_zero()).then_some(Watchdog { limit })
    }

    /// How often it is fed: twice within its time.
    pub fn every(self) -> Duration {
        self.limit / 2
    }

    /// How long the data path may take to answer: so long that the food still comes in time, though late.
    pub fn patience(self) -> Duration {
        self.limit / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_twice_within_its_time_and_only_where_it_is_ours() {
        let own = std::process::id().to_string();
        let watchdog = Watchdog::new(Some("30000000"), Some(&own)).unwrap();
        assert_eq!((watchdog.every(), watchdog.patience()), (Duration::from_secs(15), Duration::from_millis(7_500)));
        assert_eq!(Watchdog::new(Some("30000000"), None), Some(watchdog));
        for (micros, pid) in [(None, None), (Some("0"), None), (Some("soon"), None), (Some("30000000"), Some("1"))] {
            assert_eq!(Watchdog::new(micros, pid), None, "{micros:?} {pid:?}");
        }
    }
}
