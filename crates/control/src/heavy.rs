//! Answers that take long to make: off the threads that carry clients' bytes, and few at once.

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use tokio::sync::Semaphore;

use crate::routes::refuse;

/// Places of answers that take long to make. Who finds none waits; that as many may wait as there may be connections bounds it.
pub(crate) struct Heavy(Arc<Semaphore>);

impl Default for Heavy {
    fn default() -> Self {
        Heavy(Arc::new(Semaphore::new(HEAVY_MAX)))
    }
}

impl Heavy {
    /// The answer that `work` makes on a thread of its own.
    ///
    /// # Cancel safety
    /// Work that has begun goes on, and keeps its place until it ends.
    pub(crate) async fn run(&self, work: impl FnOnce() -> Response + Send + 'static) -> Response {
        let place = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an answer of the status endpoint could not be made");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made")
        })
    }
}

/// Answers that are made at once.
const HEAVY_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use axum::response::IntoResponse as _;

    use super::*;

    #[tokio::test]
    async fn who_gives_up_does_not_make_room_for_more() {
        let heavy = Heavy::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(parking_lot::Mutex::new(wait));
        for _ in 0..HEAVY_MAX + 3 {
            let (begun, wait) = (Arc::clone(&begun), Arc::clone(&wait));
            let run = heavy.run(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let _ = wait.lock().recv();
                ().into_response()
            });
            // Polled once, then given up.
            tokio::select! {
                biased;
                _ = run => panic!("it waits"),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(heavy.0.available_permits(), 0);
        drop(go);
        let answer = heavy.run(|| StatusCode::IM_A_TEAPOT.into_response()).await;
        assert_eq!((answer.status(), begun.load(Ordering::SeqCst) <= HEAVY_MAX), (StatusCode::IM_A_TEAPOT, true));
        let broken = heavy.run(|| panic!("of this test")).await;
        assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
