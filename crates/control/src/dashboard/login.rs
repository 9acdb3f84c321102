//! The way in for browsers: the token once, for a session in a cookie.

use axum::{
    Form,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{actions::Secret, answer, frame};
use crate::{
    access::{COOKIE, session},
    routes::Shared,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    token: String,
}

/// `GET /login`
pub(super) async fn show(State(shared): State<Shared>) -> Response {
    match shared.access.has_token() {
        true => answer(StatusCode::OK, form(None)),
        false => Redirect::to("/").into_response(),
    }
}

/// `POST /login`
pub(super) async fn log_in(State(shared): State<Shared>, form_: Result<Form<Login>, FormRejection>) -> Response {
    let access = &shared.access;
    if !access.has_token() {
        return Redirect::to("/").into_response();
    }
    if !access.sessions.may_try() {
        let wait = "Too many attempts failed. Try again in half a minute.";
        return answer(StatusCode::TOO_MANY_REQUESTS, form(Some(wait)));
    }
    let Ok(Form(Login { token })) = form_ else {
        return answer(StatusCode::BAD_REQUEST, form(Some("That was not the form of this page.")));
    };
    let Some(session) = access.log_in(token.trim()) else {
        access.sessions.failed();
        tracing::warn!("a login with a wrong token");
        return answer(StatusCode::UNAUTHORIZED, form(Some("This is not the token.")));
    };
    tracing::info!("a browser logged in");
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict");
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)]).into_response()
}

/// `POST /logout`
pub(super) async fn log_out(
    State(shared): State<Shared>,
    headers: HeaderMap,
    form: Result<Form<Secret>, FormRejection>,
) -> Response {
    if let Err(refused) = Secret::check(&shared, form) {
        return *refused;
    }
    if let Some(name) = session(&headers) {
        shared.access.log_out(name);
    }
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/login".to_owned()), (header::SET_COOKIE, cookie)]).into_response()
}

fn form(fault: Option<&str>) -> Markup {
    frame::bare(
        "keepwarm: log in",
        &html! {
            h1 { "Log in" }
            form.login method="post" action="/login" {
                label for="token" { "Token" }
                input #token name="token" type="password" required autofocus autocomplete="current-password"
                    aria-describedby="about" aria-invalid=[fault.map(|_| "true")];
                @if let Some(fault) = fault { p.fault role="alert" { (fault) } }
                p.quiet #about { "What the file of " code { "control.token_file" } " says, on the daemon's machine." }
                button { "Log in" }
            }
        },
    )
}
