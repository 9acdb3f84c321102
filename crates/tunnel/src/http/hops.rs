//! Max-Forwards (RFC 9110 section 7.6.2): OPTIONS and TRACE may be meant for a proxy on the way.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Method, Response, header, request::Parts};

use super::{answer::Out, stage::Stage};

/// Takes one from the hops that a request may still make. False: there was none left, and it is this proxy that is asked.
pub(super) fn spend(parts: &mut Parts) -> bool {
    if !matches!(parts.method, Method::OPTIONS | Method::TRACE) {
        return true;
    }
    let Some(value) = parts.headers.get(header::MAX_FORWARDS) else { return true };
    match value.to_str().ok().and_then(|value| value.trim().parse::<u32>().ok()) {
        Some(0) => return false,
        Some(left) => drop(parts.headers.insert(header::MAX_FORWARDS, (left - 1).into())),
        // The field's only reader is confused by it; the next hop decides for itself.
        None => {}
    }
    true
}

/// The answer to such a request: what may be asked, or the request as it came, without what it is to keep to itself.
pub(super) fn answer(parts: &Parts, stage: Stage) -> Response<Out> {
    if parts.method == Method::TRACE {
        let mut response = Response::new(Out::text(reflection(parts), stage));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("message/http"));
        return response;
    }
    let mut response = Response::new(Out::text("", stage));
    let methods = HeaderValue::from_static("CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

/// RFC 9110 section 9.3.8.
fn reflection(parts: &Parts) -> String {
    let mut text = format!("{} {} {:?}\r\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        if !SECRETS.contains(name) {
            write!(text, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())).expect("a string takes all");
        }
    }
    text + "\r\n"
}

const SECRETS: [HeaderName; 3] = [header::PROXY_AUTHORIZATION, header::AUTHORIZATION, header::COOKIE];
