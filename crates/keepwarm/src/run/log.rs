//! The level of the log while the daemon runs: that of the config, or another one for a while.

use std::{sync::Arc, time::Duration};

use keepwarm_control::{
    Refusal,
    rows::{LogPatch, LogRow},
};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};

use crate::logging::{self, LogFilter};

/// What is logged, and until when.
#[derive(Debug)]
pub(super) struct LogLevel {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configured: LogFilter,
    other: Option<Other>,
}

/// A filter for a while.
#[derive(Debug)]
struct Other {
    filter: LogFilter,
    until: Instant,
    reverts: JoinHandle<()>,
}

impl LogLevel {
    pub(super) fn new(configured: LogFilter) -> Arc<LogLevel> {
        Arc::new(LogLevel { state: Mutex::new(State { configured, other: None }) })
    }

    pub(super) fn row(&self) -> LogRow {
        let state = self.state.lock();
        let current = state.other.as_ref().map_or(&state.configured, |other| &other.filter);
        LogRow {
            level: current.as_str().to_owned(),
            configured: state.configured.as_str().to_owned(),
            reverts_in: state.other.as_ref().map(|other| other.until.saturating_duration_since(Instant::now())),
        }
    }

    /// Logs otherwise for a while. Another while takes the place of the first.
    pub(super) fn set(self: &Arc<Self>, LogPatch { level, seconds }: LogPatch) -> Result<LogRow, Refusal> {
        let filter: LogFilter = level.parse().map_err(|error| Refusal::Invalid(format!("`level` {error}")))?;
        if !(1..=SECONDS_MAX).contains(&seconds) {
            return Err(Refusal::Invalid(format!("`seconds` must be between 1 and {SECONDS_MAX}")));
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        let this = Arc::downgrade(self);
        let reverts = tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(this) = this.upgrade() {
                this.revert(until);
            }
        });
        tracing::info!(level = filter.as_str(), seconds, "logs otherwise for a while");
        let mut state = self.state.lock();
        logging::set_filter(&filter);
        if let Some(before) = state.other.replace(Other { filter, until, reverts }) {
            before.reverts.abort();
        }
        drop(state);
        Ok(self.row())
    }

    /// The config says something else. What an operator asked for in the meantime stands until its time is over.
    pub(super) fn configure(&self, filter: LogFilter) {
        let mut state = self.state.lock();
        if state.other.is_none() {
            logging::set_filter(&filter);
        }
        state.configured = filter;
    }

    /// Ends the while that ends then; another one may have taken its place.
    fn revert(&self, until: Instant) {
        let mut state = self.state.lock();
        if state.other.as_ref().is_none_or(|other| other.until != until) {
            return;
        }
        state.other = None;
        logging::set_filter(&state.configured);
        let level = state.configured.as_str().to_owned();
        drop(state);
        tracing::info!(level, "logs as the config says again");
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(other) = self.other.take() {
            other.reverts.abort();
        }
    }
}

/// A day.
const SECONDS_MAX: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_level_ends_by_itself() {
        let log = LogLevel::new("info".parse().unwrap());
        let patch = |level: &str, seconds| LogPatch { level: level.into(), seconds };
        let row = log.set(patch("debug", 60)).unwrap();
        assert_eq!((&*row.level, row.reverts_in), ("debug", Some(Duration::from_secs(60))));
        log.configure("warn".parse().unwrap());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(log.set(patch("trace", 60)).unwrap().level, "trace");
        tokio::time::sleep(Duration::from_secs(45)).await;
        assert_eq!(log.row().level, "trace", "the second while counts");
        tokio::time::sleep(Duration::from_secs(16)).await;
        assert_eq!(log.row(), LogRow { level: "warn".into(), configured: "warn".into(), reverts_in: None });
        assert!(matches!(log.set(patch("loud", 60)), Err(Refusal::Invalid(_))));
        assert!(matches!(log.set(patch("info", 0)), Err(Refusal::Invalid(_))));
    }
}
