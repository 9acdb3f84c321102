//! Pools at the endpoint: shown, and steered by who may.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use keepwarm_pool::NamedPool;

use crate::{
    routes::{Endpoint, Shared, answer, does, json, refuse, shows},
    rows::{HostRow, LimitsPatch, PoolAction, PoolDetail, PoolDone, PoolRequest, PoolRow, ROWS_MAX},
    snapshots::Refusal,
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let act = |path, summary, action: PoolAction| {
        let handler =
            async move |State(shared): State<Shared>, Path(name): Path<String>, headers: HeaderMap, body: String| {
                act(shared, &name, action, &headers, &body).await
            };
        does::<PoolRequest, PoolDone>(Method::POST, path, summary, on(MethodFilter::POST, handler))
    };
    vec![
        shows::<Vec<PoolRow>>("/api/v1/pools", "The pools: every gauge, counter and limit.", get(pools)),
        shows::<PoolDetail>("/api/v1/pools/{name}", "A pool with its hosts and their connections.", get(pool)),
        does::<LimitsPatch, PoolDone>(
            Method::PATCH,
            "/api/v1/pools/{name}",
            "Changes limits of a pool until a restart, or a reload that changes the pool's section; no connection in use is dropped.",
            on(MethodFilter::PATCH, patch),
        ),
        act("/api/v1/pools/{name}/pause", "Refuses acquires; connections stay.", PoolAction::Pause),
        act("/api/v1/pools/{name}/resume", "Ends a pause or a drain.", PoolAction::Resume),
        act(
            "/api/v1/pools/{name}/drain",
            "Refuses acquires and closes connections as they become idle.",
            PoolAction::Drain,
        ),
        act(
            "/api/v1/pools/{name}/flush",
            "Closes connections as they become idle; new ones are made.",
            PoolAction::Flush,
        ),
        act("/api/v1/pools/{name}/warm", "Opens connections ahead.", PoolAction::Warm),
    ]
}

async fn pools(State(shared): State<Shared>) -> Json<Vec<PoolRow>> {
    Json(shared.sampler.now(&*shared.snapshots).pools.clone())
}

async fn pool(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let asked = shared.clone();
    shared.heavy.run(move || detail(&asked, &name)).await
}

fn detail(shared: &Shared, name: &str) -> Response {
    let Some(named) = find(shared, name) else { return answer::<()>(Err(unknown(shared, name))) };
    let mut hosts = named.pool.hosts();
    hosts.sort_by(|left, right| left.name.cmp(&right.name));
    hosts.truncate(ROWS_MAX);
    let hosts = hosts.into_iter().map(HostRow::new).collect();
    Json(PoolDetail { pool: PoolRow::from(&named), hosts }).into_response()
}

async fn patch(State(shared): State<Shared>, Path(name): Path<String>, headers: HeaderMap, body: String) -> Response {
    let patch: LimitsPatch = match json(&headers, &body, "limits of a pool") {
        Ok(patch) => patch,
        Err((status, error)) => return refuse(status, &error),
    };
    answer(set_limits(&shared, &name, &patch))
}

pub(crate) fn set_limits(shared: &Shared, name: &str, patch: &LimitsPatch) -> Result<PoolDone, Refusal> {
    let named = find(shared, name).ok_or_else(|| unknown(shared, name))?;
    if patch.is_empty() {
        return Err(Refusal::Invalid("no limit is named; accepted are those that GET shows under `limits`".into()));
    }
    let limits = patch.over(named.pool.limits());
    named.pool.set_limits(limits).map_err(|error| Refusal::Invalid(format!("limits of {name}: {error}")))?;
    shared.sampler.forget();
    let names: Vec<String> = patch.names().map(|limit| format!("{name}.{limit}")).collect();
    tracing::info!(pool = name, limits = names.join(", "), "limits changed at run time");
    shared.snapshots.limits_changed(names);
    Ok(PoolDone { count: named.pool.stats().hosts as u64, pool: PoolRow::from(&named) })
}

async fn act(shared: Shared, name: &str, action: PoolAction, headers: &HeaderMap, body: &str) -> Response {
    let request: PoolRequest = match json(headers, body, "what to do to a pool") {
        Ok(request) => request,
        Err((status, error)) => return refuse(status, &error),
    };
    if request.connections.is_some() && action != PoolAction::Warm {
        return refuse(StatusCode::BAD_REQUEST, "`connections` is for warm alone");
    }
    answer(done(&shared, name, action, request).await)
}

/// Does it.
pub(crate) async fn done(
    shared: &Shared,
    name: &str,
    action: PoolAction,
    request: PoolRequest,
) -> Result<PoolDone, Refusal> {
    let named = find(shared, name).ok_or_else(|| unknown(shared, name))?;
    let (pool, host) = (&named.pool, request.host.as_deref());
    if let Some(host) = host.filter(|host| pool.hosts().iter().all(|known| known.name != *host)) {
        return Err(Refusal::Unknown(format!("pool {name} has no host {host}; GET /api/v1/pools/{name} lists them")));
    }
    let count = match action {
        PoolAction::Pause => pool.pause(host),
        PoolAction::Resume => pool.resume(host),
        PoolAction::Flush => pool.flush(host),
        PoolAction::Drain => {
            pool.pause(host);
            pool.flush(host)
        }
        PoolAction::Warm => warm(shared, &named, request).await?,
    };
    shared.sampler.forget();
    tracing::info!(pool = name, action = action.as_str(), count, "pool steered");
    Ok(PoolDone { count: count as u64, pool: PoolRow::from(&named) })
}

async fn warm(shared: &Shared, named: &NamedPool, request: PoolRequest) -> Result<usize, Refusal> {
    let limits = named.pool.limits();
    let wanted = request.connections.unwrap_or_else(|| limits.min_idle.max(1));
    if wanted > limits.max_idle_per_host {
        let most = limits.max_idle_per_host;
        return Err(Refusal::Invalid(format!("at most {most} connections of a host may be idle (max_idle_per_host)")));
    }
    let Ok(_permit) = shared.queries.try_acquire() else {
        return Err(Refusal::Failed("too much of it is under way".into()));
    };
    named.pool.warm_up(request.host.as_deref(), wanted).await.map_err(Refusal::Failed)
}

pub(crate) fn find(shared: &Shared, name: &str) -> Option<NamedPool> {
    shared.snapshots.pools().into_iter().find(|named| named.name == name)
}

fn unknown(shared: &Shared, name: &str) -> Refusal {
    let names: Vec<String> = shared.snapshots.pools().into_iter().map(|named| named.name).collect();
    Refusal::Unknown(format!("there is no pool {name}; there are {}", names.join(", ")))
}
