//! Where the shell gets `now` from: tokio's clock, and a coarse one for the hot path.
//!
//! `Instant::now` costs 18 to 29 ns, which is a third of the budget of an acquire; the kernel's coarse clock costs 4 ns and is at most
//! one tick (1 to 10 ms) behind. It is used where an age is judged against seconds, never to time a dial. A paused test clock is
//! found at build and then used for everything.

use std::time::{Duration, Instant, SystemTime};

use crate::rt;

/// The pool's clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    coarse: Option<(Instant, Duration)>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { coarse: base() }
    }

    /// Returns the exact time.
    #[expect(clippy::unused_self, reason = "the one place that says which clock is used")]
    pub(crate) fn now(&self) -> Instant {
        rt::now()
    }

    /// Returns a time that may be a few milliseconds old.
    pub(crate) fn coarse(&self) -> Instant {
        match self.coarse {
            Some((instant, offset)) => instant + monotonic_coarse().saturating_sub(offset),
            None => rt::now(),
        }
    }
}

/// Returns the wall clock, which alone goes on while the machine sleeps.
#[expect(clippy::disallowed_methods, reason = "the wall clock is where a suspend shows")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Pairs both clocks, unless tokio's is a test clock: then it does not lie between two readings of the system's.
#[expect(clippy::disallowed_methods, reason = "compared with tokio's clock to find out whether that is real")]
fn base() -> Option<(Instant, Duration)> {
    let offset = cfg!(target_os = "linux").then(monotonic_coarse)?;
    let (before, ours, after) = (Instant::now(), rt::now(), Instant::now());
    (before <= ours && ours <= after).then_some((ours, offset))
}

#[cfg(target_os = "linux")]
fn monotonic_coarse() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

#[cfg(not(target_os = "linux"))]
fn monotonic_coarse() -> Duration {
    Duration::ZERO
}
