//! What the recorder answers: a page that asks for itself again, and what was seen so far.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::json;

use super::Capture;
use crate::profile::preface::Preface;

/// The answer to a request for `path`, when `left` connections are still wanted.
pub(super) fn to(path: &str, captures: &[Capture], left: usize) -> Response<Bytes> {
    let (status, kind, body) = match path {
        "/" => (StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes())),
        "/seen" => {
            let seen: Vec<String> = captures.iter().rev().take(SHOWN_MAX).rev().map(line).collect();
            (StatusCode::OK, "application/json", Bytes::from(json!({ "left": left, "seen": seen }).to_string()))
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", Bytes::new()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// `full t13d1517h2_8daaf6152771_cb7bf5808d99 1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p`
fn line(capture: &Capture) -> String {
    let kind = if capture.is_resuming() { "resumed" } else { "full" };
    let http2 = capture.preface.as_ref().map_or_else(|| "-".to_owned(), Preface::akamai);
    format!("{kind} {} {http2}", capture.hello.ja4())
}

const PAGE: &str = include_str!("page.html");

/// Lines that the page shows; together they fit a stream's first window.
const SHOWN_MAX: usize = 64;
