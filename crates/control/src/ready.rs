//! `GET /readyz`: whether clients can be served, looked at a few times a second however many ask, since anybody may.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{routes::Shared, rows::CheckRow, snapshots::Snapshots};

/// What the checks said last.
#[derive(Default)]
pub(crate) struct Ready {
    last: Mutex<Option<(Instant, Arc<[CheckRow]>)>>,
}

impl Ready {
    /// The checks now, or as they were at most [`FRESH`] ago.
    async fn checks(&self, snapshots: &dyn Snapshots) -> Arc<[CheckRow]> {
        // Held while one checks: the others wait for that rather than to check too. The data path never takes it.
        let mut last = self.last.lock().await;
        if let Some((_, checks)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(checks);
        }
        let checks: Arc<[CheckRow]> = snapshots.checks().await.into();
        *last = Some((Instant::now(), Arc::clone(&checks)));
        checks
    }
}

/// `GET /readyz`
pub(crate) async fn ready(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let checks = shared.ready.checks(&*shared.snapshots).await;
    let ok = checks.iter().all(|check| check.ok) && !shared.snapshots.is_stopping();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ok { "ok" } else { "not ready" };
    // The page is for everybody, what is in it for those who may ask.
    if uri.query() != Some("verbose") || !shared.access.may_see(&headers) {
        return (status, format!("{word}\n")).into_response();
    }
    let line = |check: &CheckRow| {
        let mark = if check.ok { '+' } else { '-' };
        format!("[{mark}] {}: {}\n", check.name, check.text)
    };
    (status, checks.iter().map(line).collect::<String>() + word + "\n").into_response()
}

/// For how long what the checks said serves.
const FRESH: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::tests::Fake;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_cost_as_much_as_one() {
        let (fake, ready) = (Fake::default(), Ready::default());
        let (first, second) = tokio::join!(ready.checks(&fake), ready.checks(&fake));
        assert!(Arc::ptr_eq(&first, &second));
        tokio::time::advance(FRESH).await;
        ready.checks(&fake).await;
        assert_eq!(fake.checked.load(Ordering::Relaxed), 2);
    }
}
