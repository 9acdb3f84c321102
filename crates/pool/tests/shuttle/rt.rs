//! Time that stands still, in place of tokio's.

use std::future::{Future, pending};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "an arbitrary origin for a clock that stands still")]
pub(crate) fn now() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

pub(crate) fn sleep_until(_: Instant) -> impl Future<Output = ()> {
    pending()
}

pub(crate) async fn timeout<F: Future>(_: Duration, future: F) -> Option<F::Output> {
    Some(future.await)
}
