//! Hot HTTPS at the status endpoint: origins, their addresses and connections, and what can be asked of them.
//!
//! `GET /api/v1/https`, `GET /api/v1/https/pools`, `GET /api/v1/https/addresses?origin=HOST`, `POST /api/v1/https/warm`, and
//! `POST /api/v1/https/ban` and `allow`. An origin is written `host`, or `host:port` where the port is not 443. A warm-up is answered by
//! lines of JSON, one a step, and given up when the connection that asked for it is closed. What is deliberately not here: the client
//! whose figures these are.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::routes::{Endpoint, Shared, does, json, refuse, shows};

mod rows;

pub use rows::{
    AccessChanged, AccessRequest, AddressCounts, AddressRow, AddressState, GatewayRow, HttpsPoolRow, HttpsStatus,
    OriginRow, RequestCounts, WarmRequest, WarmRow,
};

/// What the endpoint shows of hot HTTPS; implemented by what runs. Origins are written `host` or `host:port`.
pub trait HttpsSnapshots: Send + Sync + 'static {
    /// The origins and the gateway.
    fn status(&self) -> HttpsStatus;

    /// One row for each address that has connections or had them lately.
    fn pools(&self) -> Vec<HttpsPoolRow>;

    /// The addresses of an origin, in no order.
    ///
    /// # Errors
    /// When the origin is not known.
    fn addresses(&self, origin: &str) -> Result<Vec<AddressRow>, HttpsError>;

    /// Makes `connections` connections of an origin ready. The receiver hears of each step; the last one is
    /// [`done`](WarmRow::done). Dropping the receiver gives up; what is open stays open.
    ///
    /// # Errors
    /// When the origin is not known, when so many can never be ready, or when too many warm-ups are under way.
    fn warm(&self, request: &WarmRequest) -> Result<mpsc::Receiver<WarmRow>, HttpsError>;

    /// Bans the addresses of an origin in a network until they are allowed again. Returns how many of those that are known it contains.
    ///
    /// # Errors
    /// When the origin is not known, or it has too many bans already.
    fn ban(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError>;

    /// Ends bans in a network and lets it in beside what the config allows; what the config denies stays denied. Returns how many known
    /// addresses it contains.
    ///
    /// # Errors
    /// When the origin is not known, or too many networks were let in already.
    fn allow(&self, origin: &str, net: IpNet) -> Result<u64, HttpsError>;
}

/// Why hot HTTPS did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpsError {
    /// There is no such origin here, or no hot HTTPS at all.
    Unknown(String),
    /// It cannot be done.
    Invalid(String),
    /// Too much of it is under way.
    Busy(String),
}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpsError::Unknown(text) | HttpsError::Invalid(text) | HttpsError::Busy(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for HttpsError {}

impl IntoResponse for HttpsError {
    fn into_response(self) -> Response {
        let status = match self {
            HttpsError::Unknown(_) => StatusCode::NOT_FOUND,
            HttpsError::Invalid(_) => StatusCode::BAD_REQUEST,
            HttpsError::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        refuse(status, &self.to_string())
    }
}

/// Reads an address or a network.
///
/// # Errors
/// With what would be accepted.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.into()),
        Err(_) => text.parse::<IpNet>(),
    };
    let net = net.map_err(|_| "accepted: an address or a network, such as 192.0.2.1 or 2001:db8::/48".to_owned())?;
    match net == net.trunc() {
        true => Ok(net),
        false => Err(format!("has bits set behind its prefix; write {}", net.trunc())),
    }
}

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let post = |path, summary, handler| does::<AccessRequest, AccessChanged>(Method::POST, path, summary, handler);
    vec![
        shows::<HttpsStatus>(
            "/api/v1/https",
            "Hot HTTPS: its origins and the gateway.",
            get(async |State(shared): State<Shared>| shown(shared, HttpsSnapshots::status).await),
        ),
        shows::<Vec<HttpsPoolRow>>(
            "/api/v1/https/pools",
            "One row for each address that has connections or had them lately.",
            get(async |State(shared): State<Shared>| shown(shared, HttpsSnapshots::pools).await),
        ),
        shows::<Vec<AddressRow>>("/api/v1/https/addresses", "The addresses of `?origin=HOST`.", get(addresses)),
        does::<WarmRequest, WarmRow>(
            Method::POST,
            "/api/v1/https/warm",
            "Makes connections of an origin ready; answers with a line of JSON a step.",
            on(MethodFilter::POST, warm),
        ),
        post(
            "/api/v1/https/ban",
            "Bans addresses of an origin until they are allowed again.",
            on(MethodFilter::POST, ban),
        ),
        post("/api/v1/https/allow", "Ends bans, and lets a network in.", on(MethodFilter::POST, allow)),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    origin: String,
}

async fn shown<T: Serialize + 'static>(shared: Shared, show: fn(&dyn HttpsSnapshots) -> T) -> Response {
    let asked = shared.clone();
    let answer = move || match https(&asked) {
        Ok(https) => Json(show(https)).into_response(),
        Err(error) => error.into_response(),
    };
    shared.heavy.run(answer).await
}

fn https(shared: &Shared) -> Result<&dyn HttpsSnapshots, HttpsError> {
    shared.snapshots.https().ok_or_else(|| HttpsError::Unknown(NO_HTTPS.into()))
}

async fn addresses(State(shared): State<Shared>, which: Result<Query<Which>, QueryRejection>) -> Response {
    let Ok(Query(Which { origin })) = which else {
        return refuse(StatusCode::BAD_REQUEST, "write the origin as /api/v1/https/addresses?origin=HOST");
    };
    let asked = shared.clone();
    let answer = move || match https(&asked).and_then(|https| https.addresses(&origin)) {
        Ok(rows) => Json(rows).into_response(),
        Err(error) => error.into_response(),
    };
    shared.heavy.run(answer).await
}

async fn warm(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let request: WarmRequest = match json(&headers, &body, "a warm-up") {
        Ok(request) => request,
        Err((status, error)) => return refuse(status, &error),
    };
    let steps = match https(&shared).and_then(|https| https.warm(&request)) {
        Ok(steps) => steps,
        Err(error) => return error.into_response(),
    };
    tracing::info!(origin = request.origin, connections = request.connections, "warm-up asked for");
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(steps))).into_response()
}

/// Steps as lines of JSON. It goes with the connection of who asked, and with it goes the receiver.
struct Lines(mpsc::Receiver<WarmRow>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|step| {
            let mut line = serde_json::to_vec(&step?).expect("a row has no map with keys that are not texts");
            line.push(b'\n');
            Some(Ok(Frame::data(line.into())))
        })
    }
}

async fn ban(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    change(&shared, &headers, &body, "banned", HttpsSnapshots::ban)
}

async fn allow(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    change(&shared, &headers, &body, "allowed", HttpsSnapshots::allow)
}

fn change(
    shared: &Shared,
    headers: &HeaderMap,
    body: &str,
    done: &str,
    act: impl FnOnce(&dyn HttpsSnapshots, &str, IpNet) -> Result<u64, HttpsError>,
) -> Response {
    let AccessRequest { origin, net } = match json(headers, body, "an address to ban or to allow") {
        Ok(request) => request,
        Err((status, error)) => return refuse(status, &error),
    };
    let net = match parse_net(&net) {
        Ok(net) => net,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &format!("`net`: {problem}")),
    };
    match https(shared).and_then(|https| act(https, &origin, net)) {
        Ok(addresses) => {
            tracing::info!(origin, %net, addresses, "addresses {done}");
            Json(AccessChanged { addresses }).into_response()
        }
        Err(error) => error.into_response(),
    }
}

const NO_HTTPS: &str = "the daemon's config has no [https]: add it and restart the daemon";
