//! DNS over HTTPS (RFC 8484): what h2 and h1 have in common, which is reading a query out of a request and writing an answer
//! into a response.

mod goaway;
pub(crate) mod h1;
pub(crate) mod h2;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};

use crate::Faults;

/// What a request asks for, as far as its head tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// GET: the message was in the address.
    Message(Vec<u8>),
    /// POST: the message is in the body.
    Body,
    /// No DNS query at all.
    Refused(StatusCode),
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        if request.uri().path() != PATH {
            return Self::Refused(StatusCode::NOT_FOUND);
        }
        match *request.method() {
            Method::GET => query_parameter(request.uri().query().unwrap_or_default())
                .map_or(Self::Refused(StatusCode::BAD_REQUEST), Self::Message),
            Method::POST if request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE) => Self::Body,
            Method::POST => Self::Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            _ => Self::Refused(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

fn query_parameter(query: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| pair.strip_prefix("dns=")).and_then(base64url)
}

/// RFC 4648 section 5, without padding, as RFC 8484 section 6 demands.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let mut bits = 0_u32;
    let mut held = 0;
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held).to_be_bytes()[3]);
        }
    }
    Some(out)
}

/// The head and body of the response that carries `message`.
pub(crate) fn response(faults: &Faults, mut message: Vec<u8>) -> (Response<()>, Bytes) {
    let status = faults.http_status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
    let kind = faults.content_type.as_deref().unwrap_or(MEDIA_TYPE);
    let head = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, format!("max-age={}", faults.ttl))
        .body(())
        .unwrap_or_else(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR));
    if status != StatusCode::OK {
        message.clear();
    } else if let Some(size) = faults.body_size {
        message.resize(size.max(message.len()), 0);
    }
    (head, message.into())
}

pub(crate) fn refusal(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

const PATH: &str = "/dns-query";
const MEDIA_TYPE: &str = "application/dns-message";
/// Longer request bodies are no DNS messages.
pub(crate) const BODY_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_decoded() {
        assert_eq!(base64url("").unwrap(), b"");
        assert_eq!(base64url("Zg").unwrap(), b"f");
        assert_eq!(base64url("Zm9vYg").unwrap(), b"foob");
        assert_eq!(base64url("-_8").unwrap(), [0xfb, 0xff]);
        assert_eq!(base64url("Zg=="), None);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let asked = |method: &str, uri: &str, kind: &str| {
            Asked::of(&Request::builder().method(method).uri(uri).header(CONTENT_TYPE, kind).body(()).unwrap())
        };
        assert_eq!(asked("POST", "/dns-query", MEDIA_TYPE), Asked::Body);
        assert_eq!(asked("GET", "/dns-query?x=y&dns=AAE", ""), Asked::Message(vec![0, 1]));
        assert_eq!(asked("GET", "/dns-query?dns=!", ""), Asked::Refused(StatusCode::BAD_REQUEST));
        assert_eq!(asked("GET", "/", ""), Asked::Refused(StatusCode::NOT_FOUND));
        assert_eq!(asked("POST", "/dns-query", "text/html"), Asked::Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(asked("PUT", "/dns-query", MEDIA_TYPE), Asked::Refused(StatusCode::METHOD_NOT_ALLOWED));
    }
}
