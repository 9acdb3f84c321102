//! Tunnels at the status endpoint: upstreams and their spares, destinations, live tunnels, and the file that leads browsers there.
//!
//! `GET /api/v1/tunnel`, `GET /api/v1/tunnel/destinations`, `GET /api/v1/tunnel/tunnels`, `POST /api/v1/tunnel/flush`, and
//! `GET /proxy.pac`, which is `GET /wpad.dat` too. What is deliberately not here: the connector whose figures these are, and any
//! credential.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    routes::{Endpoint, Shared, does, json, page, refuse, shows},
    rows::Flushed,
};

mod rows;

pub use rows::{
    ClientsRow, DestinationRow, LiveRow, SparesRow, TimesRow, TunnelListenRow, TunnelStatus, TunnelUpstreamRow, UdpRow,
};

/// What the endpoint shows of tunnels; implemented by what runs.
pub trait TunnelSnapshots: Send + Sync + 'static {
    /// The totals, the listeners and the upstreams.
    fn status(&self) -> TunnelStatus;

    /// The destinations in use: those that tunnels wait for first, then the busiest.
    fn destinations(&self) -> Vec<DestinationRow>;

    /// The live tunnels of clients, the oldest first, at most [`LiveRow::MAX`].
    fn tunnels(&self) -> Vec<LiveRow>;

    /// Closes every spare; new ones are made. Returns how many there were.
    fn flush(&self) -> u64;

    /// The proxy auto-configuration file for a client on this machine; none where no listener is for a browser.
    fn pac(&self) -> Option<String>;
}

/// What to flush: there is nothing to choose, and a key that is not known is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelFlushRequest {}

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        shows::<TunnelStatus>(
            "/api/v1/tunnel",
            "Tunnels: totals, listeners, upstreams with their spares.",
            get(async |State(shared): State<Shared>| shown(shared, TunnelSnapshots::status).await),
        ),
        shows::<Vec<DestinationRow>>(
            "/api/v1/tunnel/destinations",
            "The destinations in use, those that tunnels wait for first.",
            get(async |State(shared): State<Shared>| shown(shared, TunnelSnapshots::destinations).await),
        ),
        shows::<Vec<LiveRow>>(
            "/api/v1/tunnel/tunnels",
            "The live tunnels, the oldest first.",
            get(async |State(shared): State<Shared>| shown(shared, TunnelSnapshots::tunnels).await),
        ),
        does::<TunnelFlushRequest, Flushed>(
            Method::POST,
            "/api/v1/tunnel/flush",
            "Closes every spare; new ones are made.",
            on(MethodFilter::POST, flush),
        ),
        page("/proxy.pac", PAC_TYPE, "The file that leads browsers to the tunnels.", get(serve_pac)),
        page("/wpad.dat", PAC_TYPE, "The same where systems look for it.", get(serve_pac)),
    ]
}

async fn shown<T: Serialize + 'static>(shared: Shared, show: fn(&dyn TunnelSnapshots) -> T) -> Response {
    let asked = shared.clone();
    let answer = move || match asked.snapshots.tunnels() {
        Some(tunnels) => Json(show(tunnels)).into_response(),
        None => refuse(StatusCode::NOT_FOUND, NO_TUNNEL),
    };
    shared.heavy.run(answer).await
}

async fn flush(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    if let Err((status, error)) = json::<TunnelFlushRequest>(&headers, &body, "a flush") {
        return refuse(status, &error);
    }
    let Some(tunnels) = shared.snapshots.tunnels() else { return refuse(StatusCode::NOT_FOUND, NO_TUNNEL) };
    let flushed = tunnels.flush();
    tracing::info!(flushed, "spares flushed");
    Json(Flushed { flushed }).into_response()
}

async fn serve_pac(State(shared): State<Shared>) -> Response {
    match shared.snapshots.tunnels().map(TunnelSnapshots::pac) {
        Some(Some(file)) => ([(header::CONTENT_TYPE, PAC_TYPE)], file).into_response(),
        Some(None) => (StatusCode::NOT_FOUND, NO_LISTENER).into_response(),
        None => (StatusCode::NOT_FOUND, format!("{NO_TUNNEL}\n")).into_response(),
    }
}

const NO_TUNNEL: &str = "the daemon's config has no [tunnel]: add it and restart the daemon";
const NO_LISTENER: &str = "no listener of [tunnel] is for a browser: with users it takes one that speaks HTTP\n";

/// The content type of a proxy auto-configuration file.
pub const PAC_TYPE: &str = "application/x-ns-proxy-autoconfig";
