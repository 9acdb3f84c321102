//! What can be asked for: one table of endpoints, from which the router, the OpenAPI document and the test of access are made.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, get, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    access, dashboard, events, history, https, metrics, openapi, pools, ready,
    rows::{
        CacheStatus, ConfigRow, DnsUpstreamRow, ErrorBody, FlushRequest, Flushed, ListenerRow, LogPatch, LogRow,
        QueryError, QueryReport, QueryRequest, RecentRow, ReloadRow, Stats, StatusRow, UpstreamRow,
    },
    serve::Control,
    snapshots::{Refusal, Snapshots},
    tunnel,
};

/// What all requests share.
pub(crate) type Shared = Arc<Control>;

/// Something that can be asked for.
#[derive(Clone)]
pub struct Endpoint {
    /// `GET`, `POST` or `PATCH`.
    pub method: Method,
    /// The path; parts in braces are names.
    pub path: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The content type of the answer.
    pub answers: &'static str,
    pub(crate) request: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(crate) response: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(crate) handler: MethodRouter<Shared>,
}

impl Endpoint {
    /// Whether it may change something, and so is guarded more.
    pub fn is_change(&self) -> bool {
        access::is_change(&self.method)
    }
}

/// Shows something.
pub(crate) fn shows<R: JsonSchema>(
    path: &'static str,
    summary: &'static str,
    handler: MethodRouter<Shared>,
) -> Endpoint {
    let response = Some(SchemaGenerator::subschema_for::<R> as fn(&mut SchemaGenerator) -> Schema);
    Endpoint { method: Method::GET, path, summary, answers: JSON, request: None, response, handler }
}

/// Does something with a body of JSON.
pub(crate) fn does<Q: JsonSchema, R: JsonSchema>(
    method: Method,
    path: &'static str,
    summary: &'static str,
    handler: MethodRouter<Shared>,
) -> Endpoint {
    let request = Some(SchemaGenerator::subschema_for::<Q> as fn(&mut SchemaGenerator) -> Schema);
    Endpoint { method, request, ..shows::<R>(path, summary, handler) }
}

/// Shows something that is not JSON.
pub(crate) fn page(
    path: &'static str,
    answers: &'static str,
    summary: &'static str,
    handler: MethodRouter<Shared>,
) -> Endpoint {
    Endpoint { answers, response: None, ..shows::<()>(path, summary, handler) }
}

/// Every endpoint, in the order of the document.
pub fn endpoints() -> Vec<Endpoint> {
    let mut all = vec![
        shows::<StatusRow>("/api/v1/status", "The daemon at a glance.", get(status)),
        shows::<Vec<UpstreamRow>>(
            "/api/v1/upstreams",
            "The upstreams of every job: health, reason, latency.",
            get(upstreams),
        ),
        shows::<Vec<DnsUpstreamRow>>(
            "/api/v1/dns/upstreams",
            "The upstreams of DNS, with what only DNS knows of them.",
            get(dns),
        ),
        shows::<Vec<ListenerRow>>("/api/v1/listeners", "Where clients come in.", get(listeners)),
        shows::<Vec<RecentRow>>(
            "/api/v1/recent",
            "The last requests that were slow or failed, the youngest first, with their phases and why.",
            get(async |State(shared): State<Shared>| heavy(shared, Snapshots::recent).await),
        ),
        shows::<Stats>("/api/v1/stats", "The counters of the whole daemon.", get(stats)),
        shows::<ConfigRow>(
            "/api/v1/config",
            "The config in force with the origin of each value, without secrets.",
            get(async |State(shared): State<Shared>| Json(shared.snapshots.config())),
        ),
        does::<Nothing, ReloadRow>(
            Method::POST,
            "/api/v1/reload",
            "Reads the config again and puts it in force; a bad one changes nothing.",
            on(MethodFilter::POST, reload),
        ),
        shows::<LogRow>(
            "/api/v1/log",
            "The level of the log.",
            get(async |State(shared): State<Shared>| Json(shared.snapshots.log())),
        ),
        does::<LogPatch, LogRow>(
            Method::PATCH,
            "/api/v1/log",
            "Another level of the log, for a while.",
            on(MethodFilter::PATCH, set_log),
        ),
        shows::<CacheStatus>("/api/v1/cache", "The cache of DNS.", get(cache)),
        does::<FlushRequest, Flushed>(
            Method::POST,
            "/api/v1/cache/flush",
            "Forgets answers: all of them, or those of one name.",
            on(MethodFilter::POST, flush),
        ),
        does::<QueryRequest, QueryReport>(
            Method::POST,
            "/api/v1/query",
            "Asks a name the way a client's query would be asked, and tells how the answer came about.",
            on(MethodFilter::POST, query),
        ),
    ];
    all.extend(pools::endpoints());
    all.extend(https::endpoints());
    all.extend(tunnel::endpoints());
    all.extend(history::endpoints());
    all.extend(events::endpoints());
    all.extend(metrics::endpoints());
    all.extend(dashboard::endpoints());
    all.extend([
        page("/livez", TEXT, "Whether the process answers.", get(async || "ok\n")),
        page("/readyz", TEXT, "Whether clients can be served; `?verbose` lists the checks.", get(ready::ready)),
        shows::<Value>("/api/v1/openapi.json", "This document.", get(async || Json(openapi::document()))),
    ]);
    all
}

/// The router over `control`, with the checks that every request passes.
pub(crate) fn router(control: Shared) -> Router {
    let routed = endpoints()
        .into_iter()
        .fold(dashboard::forms_and_assets(), |router, endpoint| router.route(endpoint.path, endpoint.handler));
    routed
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such page; GET /api/v1/openapi.json lists what there is"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; the header Allow names those that are")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(control.clone(), access::guard))
        .with_state(control)
}

async fn status(State(shared): State<Shared>) -> Json<StatusRow> {
    Json(shared.sampler.now(&*shared.snapshots).status.clone())
}

async fn upstreams(State(shared): State<Shared>) -> Json<Vec<UpstreamRow>> {
    Json(shared.sampler.now(&*shared.snapshots).upstreams.clone())
}

async fn listeners(State(shared): State<Shared>) -> Json<Vec<ListenerRow>> {
    let mut listeners = shared.snapshots.listeners();
    let address = shared.address.to_string();
    listeners.push(ListenerRow { job: "control".into(), transport: "http".into(), address });
    Json(listeners)
}

async fn stats(State(shared): State<Shared>) -> Response {
    heavy(shared, Snapshots::stats).await
}

/// Shows what takes long to collect, off the threads that carry clients' bytes.
async fn heavy<T: Serialize + 'static>(shared: Shared, show: fn(&dyn Snapshots) -> T) -> Response {
    let asked = shared.clone();
    shared.heavy.run(move || Json(show(&*asked.snapshots)).into_response()).await
}

async fn dns(State(shared): State<Shared>) -> Response {
    let asked = shared.clone();
    let answer = move || match asked.snapshots.dns() {
        Some(rows) => Json(rows).into_response(),
        None => refuse(StatusCode::NOT_FOUND, NO_DNS),
    };
    shared.heavy.run(answer).await
}

async fn reload(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    if let Err((status, error)) = json::<Nothing>(&headers, &body, "a reload") {
        return refuse(status, &error);
    }
    answer(shared.reload().await)
}

async fn set_log(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let patch: LogPatch = match json(&headers, &body, "a level of the log") {
        Ok(patch) => patch,
        Err((status, error)) => return refuse(status, &error),
    };
    answer(shared.snapshots.set_log(patch))
}

async fn query(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let request = match json(&headers, &body, "a query") {
        Ok(request) => request,
        Err((status, error)) => return refuse(status, &error),
    };
    let Ok(_permit) = shared.queries.try_acquire() else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "too many queries at once");
    };
    match shared.snapshots.query(request).await {
        Ok(report) => Json(report).into_response(),
        Err(QueryError::Invalid(text)) => refuse(StatusCode::BAD_REQUEST, &text),
        Err(QueryError::Unknown(text)) => refuse(StatusCode::NOT_FOUND, &text),
        Err(QueryError::Failed(text)) => refuse(StatusCode::BAD_GATEWAY, &text),
    }
}

async fn cache(State(shared): State<Shared>) -> Response {
    shared
        .snapshots
        .cache()
        .map_or_else(|| refuse(StatusCode::NOT_FOUND, NO_CACHE), |cache| Json(cache).into_response())
}

async fn flush(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let FlushRequest { name } = match json(&headers, &body, "a flush") {
        Ok(request) => request,
        Err((status, error)) => return refuse(status, &error),
    };
    if shared.snapshots.cache().is_none() {
        return refuse(StatusCode::NOT_FOUND, NO_CACHE);
    }
    match (shared.snapshots.flush_cache(name.as_deref()), name) {
        (Some(flushed), name) => {
            // Tells whoever wonders why so many queries went to upstreams just then.
            tracing::info!(flushed, all = name.is_none(), "cache flushed");
            Json(Flushed { flushed }).into_response()
        }
        (None, name) => {
            let name = name.unwrap_or_default();
            refuse(StatusCode::BAD_REQUEST, &format!("`{name}` is not a name that can be in the cache"))
        }
    }
}

/// Reads the body of a request that does something. It has to be JSON and to say so, which no page of another site can
/// send without asking first (CORS preflight).
pub(crate) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &str,
    what: &str,
) -> Result<T, (StatusCode, String)> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json".into()));
    }
    // A list would be read as the fields in their order, and an empty one would flush everything.
    serde_json::from_str(body)
        .and_then(|object| serde_json::from_value(Value::Object(object)))
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("not {what}: {error}")))
}

/// What was done, or why not.
pub(crate) fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response {
    match result {
        Ok(done) => Json(done).into_response(),
        Err(Refusal::Invalid(text)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &text),
        Err(Refusal::Unknown(text)) => refuse(StatusCode::NOT_FOUND, &text),
        Err(Refusal::Failed(text)) => refuse(StatusCode::BAD_GATEWAY, &text),
    }
}

pub(crate) fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorBody { error: error.to_owned() })).into_response()
}

/// An error that is not of ours, as the API has them. The framework tells in plain text of what it refuses before a handler is asked: a
/// body or a name that is no text.
pub(crate) async fn told_in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == JSON.as_bytes());
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text = if text.trim().is_empty() { status.canonical_reason().unwrap_or("refused") } else { text.trim() };
    let (told, body) = refuse(status, text).into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(told.headers);
    Response::from_parts(head, body)
}

/// A body without anything to choose; a key that is not known is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const NO_DNS: &str = "the daemon's config has no [dns]: add it and restart the daemon";
const NO_CACHE: &str = "the daemon's config has no [dns]: there is no cache; add [dns] and restart the daemon";
/// Queries through the endpoint at the same time.
pub(crate) const QUERIES_MAX: usize = 16;
pub(crate) const BODY_MAX: usize = 8 * 1024;
