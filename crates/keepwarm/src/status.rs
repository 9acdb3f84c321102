//! The status endpoint: what the daemon says about itself over HTTP on loopback.
//!
//! `GET /api/v1/pools`, `GET /api/v1/stats`, `GET /api/v1/cache`, `GET /livez`, `POST /api/v1/query`,
//! `POST /api/v1/cache/flush`, and those of [`https`] and [`tunnel`]. It knows [`Snapshots`] and plain rows, not the DNS server. Deliberately not here: metrics, a
//! dashboard, and any way to change the daemon's settings; those come with a token, which this version does not have. What
//! is flushed from the cache comes back with the next query, and what is banned or allowed is so until the daemon ends.
//!
//! Durations in JSON are seconds, as floating-point numbers.

use std::{collections::BTreeMap, fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore, sync::watch, task::JoinSet};

pub mod client;
pub mod explain;
pub mod https;
pub mod tunnel;

use explain::Explain;
use https::HttpsSnapshots;
use tunnel::TunnelSnapshots;

/// What the endpoint shows; implemented by what runs.
pub trait Snapshots: Send + Sync + 'static {
    /// One row a pool, in the order of the config. Cheap: called for each request.
    fn pools(&self) -> Vec<PoolRow>;

    /// The counters of the whole daemon.
    fn stats(&self) -> Stats;

    /// The cache, its limit and its counters; none where the daemon has no DNS to have a cache of.
    fn cache(&self) -> Option<CacheStatus>;

    /// Forgets the answers to every question about `name` (presentation form, any case), or all answers. Returns how many;
    /// `None` when `name` is no valid name.
    fn flush_cache(&self, name: Option<&str>) -> Option<u64>;

    /// Asks a name the way that a client's query would be asked. Bounded by the query deadline of the config.
    fn query(&self, request: QueryRequest) -> QueryFuture;

    /// Hot HTTPS; none where the daemon has none.
    fn https(&self) -> Option<&dyn HttpsSnapshots> {
        None
    }

    /// Tunnels; none where the daemon has none.
    fn tunnels(&self) -> Option<&dyn TunnelSnapshots> {
        None
    }
}

/// The answer to come of [`Snapshots::query`].
pub type QueryFuture = Pin<Box<dyn Future<Output = Result<QueryReport, QueryError>> + Send>>;

/// The connections to one upstream over one transport.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PoolRow {
    /// The upstream's name in the config.
    pub upstream: String,
    /// Its group.
    pub group: String,
    /// Its weight, for the strategies that go by it.
    pub weight: u32,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`. An upstream has a second row for `tcp` once a truncated answer was asked again.
    pub transport: String,
    /// Host and port, and the path where there is one.
    pub address: String,
    /// Connections that are open.
    pub open: u64,
    /// The limit on `open`.
    pub max: u64,
    /// Open connections that nobody uses.
    pub idle: u64,
    /// Open connections with queries in flight.
    pub in_use: u64,
    /// Queries in flight.
    pub in_flight: u64,
    /// Connections being made.
    pub dialing: u64,
    /// Queries that wait for a connection.
    pub waiting: u64,
    /// Acquires served by a connection that was there.
    pub hits: u64,
    /// Acquires that needed a new one.
    pub misses: u64,
    /// Reused acquires / acquires, 0 to 1; none before the first acquire.
    pub reuse_ratio: Option<f64>,
    /// TLS handshakes in full.
    pub handshakes_full: u64,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: u64,
    /// Encrypted client hello at the last handshake: `off`, `unavailable`, `grease`, `accepted` or `rejected`; none without
    /// TLS over TCP.
    pub ech: Option<String>,
    /// The encrypted face of a plain upstream; none where none is asked for.
    pub ddr: Option<DdrRow>,
    /// Whether it speaks cookies (RFC 7873): `yes`, `no` or `unknown`; none where they are not used.
    pub cookies: Option<String>,
    /// Answers refused for their cookie, or asked for again because the upstream refused ours.
    pub cookie_errors: u64,
    /// Whether it keeps the case of letters (0x20); none where that is not asked of it.
    pub keeps_case: Option<bool>,
    /// Queries sent.
    pub queries: u64,
    /// Valid answers.
    pub answers: u64,
    /// Failures that the upstream is to blame for.
    pub failures: u64,
    /// Failures that this machine is to blame for.
    pub local_errors: u64,
    /// Answers dropped because nobody asked, or the question differed.
    pub wrong_answers: u64,
    /// Queries sent once more.
    pub resends: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections whose reuse failed.
    pub reuse_failures: u64,
    /// Closed connections by reason.
    pub closed: BTreeMap<String, u64>,
    /// Failed dials by kind of error.
    pub dial_errors: BTreeMap<String, u64>,
    /// Whether the upstream is asked.
    pub breaker: BreakerState,
    /// Median time from a query's departure to its answer; the smoothed time while there are few answers, none before the
    /// first.
    #[serde(with = "seconds::option")]
    pub latency_p50: Option<Duration>,
    /// 95th percentile of the same; none while there are few answers.
    #[serde(with = "seconds::option")]
    pub latency_p95: Option<Duration>,
    /// The idle limit that the upstream was seen to keep; none while only the configured one is known.
    #[serde(with = "seconds::option")]
    pub idle_limit: Option<Duration>,
}

/// The encrypted face that a plain upstream designates (RFC 9462).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DdrRow {
    /// `pending` before the upstream has answered, `designated`, or `absent`.
    pub state: String,
    /// The URL of the face in use, which has a row of its own.
    pub address: Option<String>,
    /// `tls` or `https`.
    pub transport: Option<String>,
    /// For how long it has been in use.
    #[serde(with = "seconds::option")]
    pub age: Option<Duration>,
    /// Why there is none.
    pub reason: Option<String>,
}

/// Whether an upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// It is asked.
    #[default]
    Closed,
    /// It failed and is left alone.
    Open,
    /// A single query tries whether it is back.
    HalfOpen,
}

impl BreakerState {
    /// `closed`, `open` or `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// Counters of the whole daemon.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// The daemon's version.
    pub version: String,
    /// Time since the start.
    #[serde(with = "seconds")]
    pub uptime: Duration,
    /// Addresses that are listened on, such as `udp://127.0.0.1:5300`.
    pub listen: Vec<String>,
    /// The certificate that encrypted listeners show; none where there are none.
    #[serde(default)]
    pub certificate: Option<CertificateRow>,
    /// Everything that is counted, by name.
    pub counters: BTreeMap<String, u64>,
}

/// The certificate of the listeners. Times are whole seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CertificateRow {
    /// Subject, such as `CN=dns.example`; may be empty.
    pub subject: String,
    /// Issuer, in the same form.
    pub issuer: String,
    /// DNS names and IP addresses that it is for.
    pub names: Vec<String>,
    /// Not valid before this time.
    pub not_before: u64,
    /// Not valid after this time.
    pub not_after: u64,
    /// When it was read from its file.
    pub loaded: u64,
}

/// The cache of the whole daemon.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Memory that its entries may take, in bytes; 0: the cache is off.
    pub size: u64,
    /// Answers in it.
    pub entries: u64,
    /// Memory of its entries, in bytes; at most `size`.
    pub bytes: u64,
    /// Queries answered from it, stale answers not included.
    pub hits: u64,
    /// Queries that could have been in it and were not.
    pub misses: u64,
    /// hits / (hits + misses), 0 to 1; none before the first query that could have been in it.
    pub hit_ratio: Option<f64>,
    /// Queries answered with an answer past its end, because upstreams failed.
    pub stale: u64,
    /// Answers asked for again before their end.
    pub prefetches: u64,
}

/// What to forget. A key that is not known is refused: a slip in `name` must not flush everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// The name whose answers are forgotten, of every type and in any case; none: all answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// The number of answers, or of spares.
    pub flushed: u64,
}

/// A name to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// The name, in presentation form.
    pub name: String,
    /// The record type, by name or as `TYPE65`.
    pub qtype: String,
    /// Whether the report says why it went as it did. Default `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// An answer and how it came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueryReport {
    /// The name that was asked.
    pub name: String,
    /// The record type that was asked.
    pub qtype: String,
    /// The response code, such as `NOERROR`.
    pub rcode: String,
    /// The records of the answer section in zone-file form.
    pub answers: Vec<String>,
    /// The records of the authority section in zone-file form.
    pub authority: Vec<String>,
    /// Bytes of the answer.
    pub size: u64,
    /// Whether the answer came from the cache. Then no upstream, no connection and no phase belongs to it.
    pub cached: bool,
    /// Whether it came from the cache past its end, because upstreams failed; never without `cached`.
    pub stale: bool,
    /// Whether it came from names that are answered here; what an alias among them leads to may be an upstream's.
    #[serde(default)]
    pub local: bool,
    /// The upstream whose answer this is; none when it is from the cache.
    pub upstream: Option<String>,
    /// `udp`, `tcp`, `tls`, `https`, `h3` or `quic`; none when it is from the cache.
    pub transport: Option<String>,
    /// IP and port of the connection; none where it is not known.
    pub address: Option<String>,
    /// Whether the connection was there before the query; `false` when none was used.
    pub reused: bool,
    /// Whether it was there before the query and nothing had gone over it. Then the phases of its dial belong to no query.
    #[serde(default)]
    pub opened_ahead: bool,
    /// The connection's age when the query was sent; none when none was used.
    #[serde(default, with = "seconds::option")]
    pub age: Option<Duration>,
    /// Encrypted client hello in the handshake of a new connection; none where there was none.
    pub ech: Option<String>,
    /// What the time went to.
    pub phases: Phases,
    /// From the query to its answer.
    #[serde(with = "seconds")]
    pub total: Duration,
    /// Every upstream that was asked, in order; for a stale answer those that failed.
    pub attempts: Vec<Attempt>,
    /// Why it went as it did, where that was asked for. Then a query that nobody answered has a report too, with
    /// [`failure`](Explain::failure).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// What a query's time went to. A phase that did not happen is none: a reused connection has no connect and no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Waiting for a connection of the pool.
    #[serde(with = "seconds::option")]
    pub wait: Option<Duration>,
    /// Looking up the upstream's host name.
    #[serde(with = "seconds::option")]
    pub resolve: Option<Duration>,
    /// Connecting.
    #[serde(with = "seconds::option")]
    pub connect: Option<Duration>,
    /// The TLS handshake.
    #[serde(with = "seconds::option")]
    pub tls: Option<Duration>,
    /// From sending the query to its answer.
    #[serde(with = "seconds::option")]
    pub exchange: Option<Duration>,
}

/// One upstream asked for one query.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// The upstream's name.
    pub upstream: String,
    /// `answered`, `lost the race`, or what went wrong.
    pub outcome: String,
    /// How long it took.
    #[serde(with = "seconds")]
    pub took: Duration,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// The name or type cannot be asked.
    Invalid(String),
    /// No upstream answered.
    Failed(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Invalid(text) | QueryError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for QueryError {}

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: String,
}

/// Serves the endpoint on `listener` until `stop` is sent or its sender is gone, then lets requests in progress end. How long that may
/// take is the caller's to bound: a client may never send the rest of its request.
///
/// At most 64 connections; further ones wait to be accepted. A connection that sends no request head within 10 s is closed.
///
/// # Cancel safety
/// Dropping the future closes the listener and every connection.
pub async fn serve(listener: TcpListener, snapshots: Arc<dyn Snapshots>, mut stop: watch::Receiver<()>) {
    let router = router(snapshots);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = stop.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly EMFILE. Accepting again at once would spin until a descriptor is free.
                tracing::warn!(%error, "status endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let mut stop = stop.clone();
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = stop.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "status connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The endpoint's routes over `snapshots`, with the checks that every request passes.
pub fn router(snapshots: Arc<dyn Snapshots>) -> Router {
    let shared = Shared { snapshots, queries: Arc::new(Semaphore::new(QUERIES_MAX)) };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/api/v1/pools", get(async |State(shared): State<Shared>| Json(shared.snapshots.pools())))
        .route("/api/v1/stats", get(async |State(shared): State<Shared>| Json(shared.snapshots.stats())))
        .route("/api/v1/cache", get(cache))
        .route("/api/v1/cache/flush", post(flush))
        .route("/api/v1/query", post(query))
        .merge(https::routes())
        .merge(tunnel::routes())
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such page"))
        .method_not_allowed_fallback(async || refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(only_from_here))
        .with_state(shared)
}

#[derive(Clone)]
struct Shared {
    snapshots: Arc<dyn Snapshots>,
    queries: Arc<Semaphore>,
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
fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &str, what: &str) -> Result<T, (StatusCode, String)> {
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

/// Refuses requests that a browser was talked into.
///
/// The listener is on loopback, but a page elsewhere can point its own name at 127.0.0.1 (DNS rebinding). Then the Host
/// header still carries that name, and Origin the page's.
async fn only_from_here(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host_is_local = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_local),
        _ => false,
    };
    let origin_is_local = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, authority)| is_local(authority))
    });
    if !host_is_local || !origin_is_local {
        return refuse(StatusCode::FORBIDDEN, "only requests to a loopback name or address are answered");
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// Whether `host[:port]` is `localhost` or a loopback address.
fn is_local(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "no bracket")),
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let host_is_local =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port_is_one && host_is_local
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorBody { error: error.to_owned() })).into_response()
}

const NO_CACHE: &str = "the daemon's config has no [dns]: there is no cache";
const CONNECTIONS_MAX: usize = 64;
const QUERIES_MAX: usize = 16;
const BODY_MAX: usize = 8 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Durations as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// The same where there may be none (`null`).
    pub(super) mod option {
        use std::time::Duration;

        use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

        pub(in super::super) fn serialize<S>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error>
        where
            S: Serializer,
        {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(deserializer)?;
            seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)).transpose()
        }
    }
}

#[cfg(test)]
mod tests;
