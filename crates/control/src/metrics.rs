//! `GET /metrics`: what Prometheus scrapes.
//!
//! Nothing is counted here. A scrape takes the same look at the daemon that the status API takes, at most ten a second however many ask,
//! and writes its figures by the rules of Prometheus: base units, `_total` on counters, `le` on buckets. The labels are words of the
//! config and of fixed lists; no destination, client, address or name that was asked for is ever one.
//!
//! `OpenMetrics` 1.0 where `Accept` asks for it, else the text format 0.0.4. Deliberately not here: pushing figures anywhere.

mod buckets;
mod counters;
mod daemon;
mod family;
mod pools;
mod text;
mod upstreams;

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use counters::{CounterMetric, unknown_counters};
pub(crate) use daemon::Process;
pub(crate) use family::{Family, Kind, Unit, Value};
pub use upstreams::unknown_figures;
#[cfg(feature = "otlp")]
pub(crate) use {buckets::merged, family::Point};

use crate::{
    routes::{Endpoint, Shared, page, refuse},
    sample::{Sample, Sampler},
    snapshots::Snapshots,
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let scrapes = Arc::new(Scrapes::default());
    let scrape = async move |State(shared): State<Shared>, headers: HeaderMap| scrape(shared, scrapes, &headers).await;
    vec![page(
        "/metrics",
        text::PLAIN,
        "Every figure for Prometheus; OpenMetrics where `Accept` asks for it.",
        get(scrape),
    )]
}

/// What a scrape brings now, in the text format 0.0.4: for who has no endpoint to ask.
pub fn text(snapshots: &dyn Snapshots) -> String {
    let sample = Sampler::default().now(snapshots);
    text::write(families(snapshots, &sample, &Process::default()), text::Format::Plain)
}

/// Everything that there is to say, from one look.
pub(crate) fn families(snapshots: &dyn Snapshots, sample: &Sample, process: &Process) -> Vec<Family> {
    let stats = snapshots.stats();
    let mut all = daemon::families(sample, &stats);
    all.extend(process.families(&stats));
    all.extend(pools::families(&sample.named));
    all.extend(upstreams::families(snapshots, &sample.upstreams));
    all.extend(counters::families(snapshots, &stats));
    all.retain(|family| !family.points.is_empty());
    all
}

async fn scrape(shared: Shared, scrapes: Arc<Scrapes>, headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = text::Format::wanted(accept);
    // It reads files of /proc and sorts through every pool: not on a thread that carries clients' bytes.
    let written = tokio::task::spawn_blocking(move || scrapes.written(&shared, format)).await;
    match written {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => refuse(axum::http::StatusCode::INTERNAL_SERVER_ERROR, &format!("no metrics: {error}")),
    }
}

/// The last text of each format, for as long as its look serves.
#[derive(Default)]
struct Scrapes {
    process: Process,
    last: [Mutex<Option<(Instant, axum::body::Bytes)>>; 2],
}

impl Scrapes {
    fn written(&self, shared: &Shared, format: text::Format) -> axum::body::Bytes {
        let sample = shared.sampler.now(&*shared.snapshots);
        // Held while one writes: the others wait for that text rather than to write their own.
        let mut last = self.last[format as usize].lock();
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| *at == sample.at) {
            return text.clone();
        }
        let text = axum::body::Bytes::from(text::write(families(&*shared.snapshots, &sample, &self.process), format));
        *last = Some((sample.at, text.clone()));
        text
    }
}
