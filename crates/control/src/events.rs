//! Live views: server-sent events (WHATWG HTML section 9.2), one look a second for all who listen.
//!
//! A reader that is slow misses looks and gets the newest: nothing is queued for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    routes::{Endpoint, Shared, page, refuse},
    rows::{PoolRow, RecentRow, StatusRow, UpstreamRow},
};

/// What an event `sample` carries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// The daemon at a glance.
    pub status: StatusRow,
    /// The pools.
    pub pools: Vec<PoolRow>,
    /// The upstreams.
    pub upstreams: Vec<UpstreamRow>,
    /// The last requests that were slow or failed, at most 20.
    pub recent: Vec<RecentRow>,
}

/// Who looks for all listeners. It looks only while there are any.
#[derive(Default)]
pub(crate) struct Events {
    sender: Mutex<Option<watch::Sender<Arc<str>>>>,
}

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![page(
        "/api/v1/events",
        "text/event-stream",
        "Server-sent events: each second one `sample` with status, pools, upstreams and recent requests.",
        get(events),
    )]
}

async fn events(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let changes = shared.access.changes();
    // Who was let in a moment ago may not be any more, and that change is not among those to come.
    if !shared.access.may_see(&headers) {
        return refuse(StatusCode::UNAUTHORIZED, "the session has ended");
    }
    let Ok(place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen already");
    };
    let receiver = Events::subscribe(&shared);
    let ends = (shared.stop.clone(), changes);
    let looks = stream::unfold((receiver, place, ends), async |(mut receiver, place, (mut stop, mut changes))| {
        tokio::select! {
            biased;
            // The listener ends, and with it who listens.
            _ = stop.changed() => return None,
            // Somebody logged out, or the token is another one: who still may listen comes back.
            _ = changes.changed() => return None,
            changed = receiver.changed() => changed.ok()?,
        }
        let data = Arc::clone(&receiver.borrow_and_update());
        let event = Event::default().event("sample").data(&*data);
        Some((Ok::<_, Infallible>(event), (receiver, place, (stop, changes))))
    });
    Sse::new(looks).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Events {
    /// Listens. The first look is there at once.
    fn subscribe(shared: &Shared) -> watch::Receiver<Arc<str>> {
        let mut sender = shared.events.sender.lock();
        if let Some(sender) = sender.as_ref() {
            let mut receiver = sender.subscribe();
            receiver.mark_changed();
            return receiver;
        }
        let (new, mut receiver) = watch::channel(look(shared));
        *sender = Some(new);
        receiver.mark_changed();
        tokio::spawn(run(Arc::downgrade(shared)));
        receiver
    }
}

/// Looks each second until nobody listens any more.
async fn run(shared: std::sync::Weak<crate::serve::Control>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let look = look(&shared);
        let mut sender = shared.events.sender.lock();
        // Under the lock, so that nobody begins to listen to a sender that goes.
        if sender.as_ref().is_none_or(|sender| sender.receiver_count() == 0) {
            *sender = None;
            return;
        }
        if let Some(sender) = sender.as_ref() {
            sender.send_replace(look);
        }
    }
}

fn look(shared: &Shared) -> Arc<str> {
    let sample = shared.sampler.now(&*shared.snapshots);
    let mut recent = shared.snapshots.recent();
    recent.truncate(RECENT_MAX);
    let row = EventRow {
        status: sample.status.clone(),
        pools: sample.pools.clone(),
        upstreams: sample.upstreams.clone(),
        recent,
    };
    serde_json::to_string(&row).expect("rows have no map with keys that are not texts").into()
}

/// Listeners at the same time.
pub(crate) const STREAMS_MAX: usize = 16;
const EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const RECENT_MAX: usize = 20;
