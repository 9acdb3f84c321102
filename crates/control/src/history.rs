//! What is kept of the past: a look a second, summed up in steps, for as long as the config says and no longer.

use axum::{
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;

use crate::{
    routes::{Endpoint, Shared, refuse, shows},
    rows::HistoryRow,
};

mod series;

pub(crate) use series::{History, STEP, record};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![shows::<HistoryRow>(
        "/api/v1/history",
        "What is kept of the past, in steps: pools, upstreams, slow and failed requests.",
        get(show),
    )]
}

async fn show(State(shared): State<Shared>) -> Response {
    let asked = shared.clone();
    let answer = move || match asked.history.json() {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the past changed while it was copied"),
    };
    shared.heavy.run(answer).await
}

/// The past of one step as JSON, written once however many ask.
#[derive(Default)]
struct Written(Mutex<Option<(u64, Bytes)>>);

impl Written {
    /// The text of step `step`. Held while one writes: the others wait for that text rather than to write their own.
    fn text(&self, step: u64, write: impl FnOnce() -> Option<HistoryRow>) -> Option<Bytes> {
        let mut last = self.0.lock();
        if let Some((_, text)) = last.as_ref().filter(|(of, _)| *of == step) {
            return Some(text.clone());
        }
        let text = serde_json::to_vec(&write()?).expect("rows have no map with keys that are not texts");
        let text = Bytes::from(text);
        *last = Some((step, text.clone()));
        Some(text)
    }

    /// A step has ended. Who records does not wait for who writes: then the text goes with the next that is asked for.
    fn forget(&self) {
        if let Some(mut last) = self.0.try_lock() {
            *last = None;
        }
    }
}
