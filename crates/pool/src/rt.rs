//! Time and tasks of the shell, in one place so that the tests under `src/shuttle.rs` can put others there.
//!
//! Not here: the spawner, which the owner of the pool chooses.

use std::future::Future;
use std::time::{Duration, Instant};

/// Returns tokio's time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ends at `deadline`.
pub(crate) fn sleep_until(deadline: Instant) -> tokio::time::Sleep {
    tokio::time::sleep_until(deadline.into())
}

/// Runs a future for at most `limit`.
pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
