//! Who may ask: the token, the sessions of browsers, and what keeps a browser from being talked into a request.
//!
//! Three things guard a request. Its `Host` must be a loopback name or address while there is no token: a page elsewhere can point its own
//! name at 127.0.0.1 (DNS rebinding), and then `Host` still carries that name. Its `Origin`, where it has one, must be the endpoint itself,
//! and `Sec-Fetch-Site` must not say that it comes from elsewhere, but for a link to a page. And where a token is set, it must come with it: as
//! `Authorization: Bearer`, or as the cookie of a session that the login page opened with it. What changes anything is sent as JSON, which
//! no page of another site can do without asking first, or as a form with the secret that only our own pages know.
//! No answer ever carries an `Access-Control-Allow-*` header.

mod session;
mod token;

use std::{error::Error, net::IpAddr, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use http_body_util::LengthLimitError;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::routes::{BODY_MAX, Shared, refuse, told_in_json};
use session::Sessions;
pub use token::{TOKEN_MIN, Token, TokenError};

/// What decides who may ask.
#[derive(Debug)]
pub(crate) struct Access {
    token: RwLock<Option<Token>>,
    pub(crate) sessions: Sessions,
    /// What forms carry, so that only our own pages can send them.
    form: Token,
    /// Raised when somebody who was let in no longer is: streams end, and who still may ask opens another one.
    generation: watch::Sender<u64>,
}

impl Access {
    pub(crate) fn new(token: Option<Token>) -> Access {
        let (token, sessions, form) = (RwLock::new(token), Sessions::default(), Token::random());
        Access { token, sessions, form, generation: watch::Sender::new(0) }
    }

    /// Another token, or none. Sessions that the former one opened end.
    pub(crate) fn set_token(&self, token: Option<Token>) {
        let mut current = self.token.write();
        if *current != token {
            *current = token;
            self.sessions.clear();
            drop(current);
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Ends the session of this name, and streams.
    pub(crate) fn log_out(&self, session: &str) {
        if self.sessions.close(session) {
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Changes when whoever was let in has to ask again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.read().is_some()
    }

    /// Opens a session for who knows the token; `None` for who does not.
    pub(crate) fn log_in(&self, token: &str) -> Option<String> {
        let known = self.token.read().as_ref().is_some_and(|known| known.is(token));
        known.then(|| self.sessions.open())
    }

    /// What a form of ours has to carry.
    pub(crate) fn form_secret(&self) -> &str {
        self.form.as_str()
    }

    /// Whether a form is one of ours.
    pub(crate) fn is_our_form(&self, secret: &str) -> bool {
        self.form.is(secret)
    }

    /// Whether who sends these headers may ask at all.
    pub(crate) fn may_see(&self, headers: &HeaderMap) -> bool {
        let token = self.token.read();
        let Some(token) = token.as_ref() else { return true };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        bearer.is_some_and(|bearer| token.is(bearer)) || session(headers).is_some_and(|id| self.sessions.knows(id))
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 section 2.1; the scheme in any case).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session that a cookie names.
pub(crate) fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Lets a request in, or says why not.
pub(crate) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    let is_api = uri.path().starts_with("/api/");
    let mut response = match check(&shared.access, method, headers, uri) {
        Ok(()) if is_change(method) => match whole(request).await {
            Ok(request) => next.run(request).await,
            Err(refused) => *refused,
        },
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    };
    if is_api {
        response = told_in_json(response).await;
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Waits for the body of a request that does something, and not for long: who sends none would keep its connection for ever.
async fn whole(request: Request) -> Result<Request, Box<Response>> {
    let (head, body) = request.into_parts();
    let refused = |status, text: &str| {
        // Where the body ends nobody knows, and so not where the next request begins.
        Err(Box::new(([(header::CONNECTION, "close")], refuse(status, text)).into_response()))
    };
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body))),
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 8 KiB")
        }
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "the body did not come whole"),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    }
}

fn check(access: &Access, method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<(), Box<Response>> {
    let forbidden = |text: &str| Err(Box::new(refuse(StatusCode::FORBIDDEN, text)));
    let mut hosts = headers.get_all(header::HOST).iter().map(HeaderValue::to_str);
    let (Some(Ok(host)), None) = (hosts.next(), hosts.next()) else {
        return forbidden("a request names exactly one Host");
    };
    if !access.has_token() && !is_local(host) {
        return forbidden("without a token only requests to a loopback name or address are answered");
    }
    let ours = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    if !headers.get_all(header::ORIGIN).iter().all(ours) {
        return forbidden("a page of another origin asks: that is refused");
    }
    let mut sites = headers.get_all("sec-fetch-site").iter().map(HeaderValue::as_bytes);
    if !sites.all(|site| matches!(site, b"same-origin" | b"none")) && !follows_link(method, headers, uri) {
        return forbidden("a page of another site asks: that is refused");
    }
    if PUBLIC.contains(&uri.path()) || access.may_see(headers) {
        return Ok(());
    }
    let wants_page = headers.get(header::ACCEPT).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if *method == Method::GET && wants_page {
        return Err(Box::new(Redirect::to("/login").into_response()));
    }
    let mut refused = refuse(StatusCode::UNAUTHORIZED, "this needs the token of control.token_file");
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keepwarm\""));
    Err(Box::new(refused))
}

/// Whether a person follows a link to a page: the one thing that other sites may lead to, since they see nothing of the answer. What is
/// embedded says another destination than `document` (Fetch Metadata, section 2.1).
fn follows_link(method: &Method, headers: &HeaderMap, uri: &Uri) -> bool {
    let says = |name, wanted: &[u8]| headers.get(name).is_some_and(|value: &HeaderValue| value.as_bytes() == wanted);
    let is_page = matches!(uri.path(), "/" | "/login") || uri.path().starts_with("/pools/");
    let is_embedded = headers.contains_key("sec-fetch-dest") && !says("sec-fetch-dest", b"document");
    *method == Method::GET && is_page && says("sec-fetch-mode", b"navigate") && !is_embedded
}

/// Whether a method may change something.
pub(crate) fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
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

/// For how long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the session's cookie.
pub(crate) const COOKIE: &str = "keepwarm_session";

/// What everybody may ask: whether it lives and is ready, in a word, and the way in.
const PUBLIC: [&str; 5] = ["/livez", "/readyz", "/login", "/assets/style.css", "/assets/icon.svg"];

/// What every answer carries, unless it says otherwise itself.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_is_a_loopback_address_or_its_name() {
        for local in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:9180", "[::1]", "[::1]:80"] {
            assert!(is_local(local), "{local}");
        }
        for other in
            ["", "evil.test", "localhost.evil.test", "127.0.0.1.nip.io", "0.0.0.0", "[::1", "::1:80x", "10.0.0.1"]
        {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn bearers_and_cookies_are_read_as_they_are_written() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; keepwarm_session=xyz; b=2"));
        assert_eq!(session(&headers), Some("xyz"));
    }
}
