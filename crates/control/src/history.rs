//! What is kept of the past: a look a second, summed up in steps, for as long as the config says and no longer.

use axum::{Json, extract::State, routing::get};

use crate::{
    routes::{Endpoint, Shared, shows},
    rows::HistoryRow,
};

mod series;

pub(crate) use series::{History, record};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![shows::<HistoryRow>(
        "/api/v1/history",
        "What is kept of the past, in steps: pools, upstreams, slow and failed requests.",
        get(async |State(shared): State<Shared>| Json(shared.history.row())),
    )]
}
