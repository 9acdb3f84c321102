//! Forms that change something, by the functions that the API has for it. They answer with the way back (303, RFC 9110 section 15.4.4),
//! so that a reload of the page sends nothing twice.

use axum::{
    Form,
    extract::{Path, State, rejection::FormRejection},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::{
    outcome::Outcome,
    refuse,
    words::{count, segment},
};
use crate::{
    pools,
    routes::Shared,
    rows::{LimitsPatch, LogPatch, PoolAction, PoolRequest, ReloadRow},
    snapshots::Refusal,
};

/// A form that has nothing but the secret of our pages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    form: String,
}

impl Secret {
    /// Lets our own forms pass.
    pub(super) fn check(shared: &Shared, form: Result<Form<Secret>, FormRejection>) -> Result<(), Box<Response>> {
        let Form(Secret { form }) = form.map_err(|wrong| unreadable(&wrong))?;
        is_ours(shared, &form)
    }
}

/// The fields of a form that has some; each at most once, the last one counts.
type Fields = BTreeMap<String, String>;

/// The fields of one of our own forms that were filled in.
fn fields(shared: &Shared, form: Result<Form<Fields>, FormRejection>) -> Result<Fields, Box<Response>> {
    let Form(mut fields) = form.map_err(|wrong| unreadable(&wrong))?;
    is_ours(shared, &fields.remove("form").unwrap_or_default())?;
    fields.retain(|_, value| !value.trim().is_empty());
    fields.values_mut().for_each(|value| *value = value.trim().to_owned());
    Ok(fields)
}

fn is_ours(shared: &Shared, secret: &str) -> Result<(), Box<Response>> {
    let why = "This form is none of this daemon's pages, or of one from before it was started again. Nothing was done.";
    shared.access.is_our_form(secret).then_some(()).ok_or_else(|| Box::new(refuse(StatusCode::FORBIDDEN, why)))
}

fn unreadable(wrong: &FormRejection) -> Box<Response> {
    Box::new(refuse(wrong.status(), "This is not a form as our pages send it. Nothing was done."))
}

/// `POST /reload`
pub(super) async fn reload(State(shared): State<Shared>, form: Result<Form<Secret>, FormRejection>) -> Response {
    if let Err(refused) = Secret::check(&shared, form) {
        return *refused;
    }
    Outcome::of("reload", shared.reload().await.map(|row| reloaded(&row))).then("/")
}

fn reloaded(row: &ReloadRow) -> String {
    let ReloadRow { generation, differences, kept, added, changed, drained, needs_restart, warnings } = row;
    let mut parts = vec![format!("config {generation} is in force")];
    let counts = [
        (differences.len(), "keys differ"),
        (kept.len(), "kept"),
        (added.len(), "added"),
        (changed.len(), "changed"),
        (drained.len(), "drained"),
    ];
    parts.extend(counts.iter().filter(|(many, _)| *many > 0).map(|(many, what)| format!("{many} {what}")));
    if !needs_restart.is_empty() {
        parts.push(format!("{} waits for a restart", needs_restart.join(", ")));
    }
    parts.extend(warnings.iter().cloned());
    parts.join("; ")
}

/// `POST /cache/flush`
pub(super) async fn flush_cache(State(shared): State<Shared>, form: Result<Form<Fields>, FormRejection>) -> Response {
    let name = match fields(&shared, form) {
        Ok(mut fields) => fields.remove("name"),
        Err(refused) => return *refused,
    };
    let result = match shared.snapshots.cache().and_then(|_| shared.snapshots.flush_cache(name.as_deref())) {
        Some(flushed) => {
            tracing::info!(flushed, all = name.is_none(), "cache flushed");
            Ok(format!("{} answers forgotten", count(flushed)))
        }
        None => Err(Refusal::Invalid("there is no cache, or no such name can be in it".into())),
    };
    Outcome::of("flush of the cache", result).then("/")
}

/// `POST /log`
pub(super) async fn log(State(shared): State<Shared>, form: Result<Form<Fields>, FormRejection>) -> Response {
    let mut fields = match fields(&shared, form) {
        Ok(fields) => fields,
        Err(refused) => return *refused,
    };
    let level = fields.remove("level").unwrap_or_default();
    let seconds = fields.get("seconds").map_or(Ok(LogPatch::default_seconds()), |text| whole("seconds", text));
    let set = seconds.and_then(|seconds| shared.snapshots.set_log(LogPatch { level, seconds }));
    Outcome::of("log level", set.map(|row| format!("it is {}", row.level))).then("/")
}

/// `POST /pools/{name}/{action}`
pub(super) async fn pool(
    State(shared): State<Shared>,
    Path((name, word)): Path<(String, String)>,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let fields = match fields(&shared, form) {
        Ok(fields) => fields,
        Err(refused) => return *refused,
    };
    let result = if word == "limits" {
        set_limits(&shared, &name, fields)
    } else if let Some(action) = PoolAction::ALL.into_iter().find(|action| action.as_str() == word) {
        steer(&shared, &name, action, fields).await
    } else {
        return refuse(StatusCode::NOT_FOUND, "There is no such action.");
    };
    // A pool that is not there has no page to lead back to.
    let back = match &result {
        Err(Refusal::Unknown(_)) if pools::find(&shared, &name).is_none() => "/".to_owned(),
        _ => format!("/pools/{}", segment(&name)),
    };
    Outcome::of(&word, result).then(&back)
}

async fn steer(shared: &Shared, name: &str, action: PoolAction, mut fields: Fields) -> Result<String, Refusal> {
    let connections = fields.get("connections").map(|text| whole("connections", text)).transpose()?;
    let connections = connections.filter(|_| action == PoolAction::Warm);
    let request = PoolRequest { host: fields.remove("host"), connections };
    let done = pools::done(shared, name, action, request).await?;
    Ok(match action {
        PoolAction::Warm => format!("{} connections are open", count(done.count)),
        _ => format!("{} hosts of pool {name}", count(done.count)),
    })
}

fn set_limits(shared: &Shared, name: &str, fields: Fields) -> Result<String, Refusal> {
    let mut named = Map::new();
    for (limit, text) in fields {
        let number: u64 = whole(&limit, &text)?;
        named.insert(limit, Value::from(number));
    }
    let patch: LimitsPatch = serde_json::from_value(Value::Object(named))
        .map_err(|error| Refusal::Invalid(format!("not limits of a pool: {error}")))?;
    pools::set_limits(shared, name, &patch)?;
    Ok(format!("{} of pool {name}", patch.names().collect::<Vec<_>>().join(", ")))
}

fn whole<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, Refusal> {
    text.parse().map_err(|_| Refusal::Invalid(format!("{name}: accepted is a whole number, not {text:?}")))
}
