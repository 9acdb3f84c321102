//! The dashboard: pages for people, made here, whole without JavaScript and live with it.
//!
//! What a page shows is what the API says, under the API's names: a cell names its key, and the script fills the same cells from the
//! events. Forms change things by the same functions as the API; each carries the secret that only our own pages know. Nothing of a
//! client is kept: the outcome of a form travels in a cookie that the next page takes away. What is deliberately not here: a build step,
//! anything from elsewhere, and figures of its own.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use maud::Markup;

use crate::routes::{Endpoint, Shared, page};

mod actions;
mod assets;
mod cards;
mod frame;
mod login;
mod outcome;
mod overview;
mod picture;
mod pool;
mod rows;
mod words;

/// The pages, for the table of endpoints.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        page("/", HTML, "The dashboard.", get(overview::show)),
        page("/pools/{name}", HTML, "A pool with its hosts and connections, for people.", get(pool::show)),
        page("/login", HTML, "Where a browser shows the token and gets a session.", get(login::show)),
    ]
}

/// What pages need beside the table: the forms, which are no part of the API, and the files.
pub(crate) fn forms_and_assets() -> Router<Shared> {
    Router::new()
        .route("/login", post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/pools/{name}/{action}", post(actions::pool))
        .route("/reload", post(actions::reload))
        .route("/cache/flush", post(actions::flush_cache))
        .route("/log", post(actions::log))
        .route("/assets/{*file}", get(assets::serve))
}

/// A page as an answer.
fn answer(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, Html(markup.into_string())).into_response();
    // With no referrer at all a browser sends its forms with `Origin: null`, which the guard takes for a foreign page's.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Why a form was not taken, as a page: people sent it.
fn refuse(status: StatusCode, why: &str) -> Response {
    answer(status, frame::refusal(why))
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

const HTML: &str = "text/html; charset=utf-8";
