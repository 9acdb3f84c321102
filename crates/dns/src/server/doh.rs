//! DNS over HTTPS without the HTTPS (RFC 8484): what a request asks, or why not, and how an answer is dressed.
//!
//! Pure, and the same for HTTP/1.1, HTTP/2 and HTTP/3. A listener calls [`read_head`] with what it knows before the body, and
//! [`read_body`] once a body has come that [`read_head`] asked for; [`query`] is both in one. What is deliberately not here:
//! JSON, sockets, and time limits.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::message::{Header, NOERROR, NXDOMAIN, TYPE_SOA, wire};

/// The media type of a DNS message (RFC 8484 section 6).
pub const CONTENT_TYPE: &str = "application/dns-message";

/// Longest body that is read, in bytes: the longest DNS message.
pub const BODY_MAX: usize = 65_535;

/// Longest request target that is looked at, in bytes: longer queries are sent with POST.
pub const TARGET_MAX: usize = 8192;

/// What the head of a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// GET: the query, whole.
    Query(Vec<u8>),
    /// POST: the body is the query; at most [`BODY_MAX`] bytes are to be read.
    Body,
}

/// Why a request is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No `dns` parameter, no base64url, or no DNS query in it: 400.
    BadRequest,
    /// Another path: 404.
    NotFound,
    /// Neither GET nor POST: 405.
    MethodNotAllowed,
    /// Longer than a DNS message: 413.
    TooLarge,
    /// The target is longer than [`TARGET_MAX`]: 414.
    TargetTooLong,
    /// The body is no `application/dns-message`: 415.
    UnsupportedMediaType,
}

impl Refusal {
    /// The status code.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::BadRequest => StatusCode::BAD_REQUEST,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            Refusal::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// What a person reads who came with a browser.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::BadRequest => "no dns query: expected GET with ?dns= in base64url without padding\n",
            Refusal::NotFound => "nothing here\n",
            Refusal::MethodNotAllowed => "expected GET or POST\n",
            Refusal::TooLarge => "longer than a dns message\n",
            Refusal::TargetTooLong => "too long: expected POST\n",
            Refusal::UnsupportedMediaType => "expected content-type: application/dns-message\n",
        }
    }

    /// The response. It is never to be kept by a cache on the way.
    pub fn response(self) -> Response<Bytes> {
        let mut response = failure(self.status(), self.text());
        if self == Refusal::MethodNotAllowed {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

/// Reads a request as far as its head goes. `path` is the listener's; `target` is the path and query of the URL.
///
/// # Errors
/// What to answer instead.
pub fn read_head(path: &str, method: &Method, target: &str, content_type: Option<&[u8]>) -> Result<Head, Refusal> {
    if target.len() > TARGET_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let (asked, parameters) = target.split_once('?').unwrap_or((target, ""));
    if asked != path {
        return Err(Refusal::NotFound);
    }
    match *method {
        Method::GET => {
            let dns = parameters.split('&').find_map(|parameter| parameter.strip_prefix("dns="));
            let query = dns.and_then(|dns| URL_SAFE_NO_PAD.decode(dns).ok()).ok_or(Refusal::BadRequest)?;
            check(&query)?;
            Ok(Head::Query(query))
        }
        Method::POST if content_type.is_some_and(is_dns_message) => Ok(Head::Body),
        Method::POST => Err(Refusal::UnsupportedMediaType),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// Checks the body that [`Head::Body`] asked for.
///
/// # Errors
/// What to answer instead.
pub fn read_body(body: &[u8]) -> Result<(), Refusal> {
    if body.len() > BODY_MAX {
        return Err(Refusal::TooLarge);
    }
    check(body)
}

/// The DNS query of a whole request; see [`read_head`].
///
/// # Errors
/// What to answer instead.
pub fn query(
    path: &str,
    method: &Method,
    target: &str,
    content_type: Option<&[u8]>,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    match read_head(path, method, target, content_type)? {
        Head::Query(query) => Ok(query),
        Head::Body => read_body(body).map(|()| body.to_vec()),
    }
}

/// The response that carries `answer`, a DNS message: 200 whatever its rcode (RFC 8484 section 4.2.1).
pub fn response(answer: &[u8]) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    if let Some(age) = max_age(answer) {
        let text = format!("max-age={age}");
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(&text).expect("digits are a header value"));
    }
    response
}

/// The response to a query that got no answer: the server is at its end, or at a limit.
pub fn unavailable() -> Response<Bytes> {
    failure(StatusCode::SERVICE_UNAVAILABLE, "no answer\n")
}

/// For how many seconds an answer is fresh (RFC 8484 section 5.1): the smallest TTL of its answer section; without any, what
/// its SOA allows a negative answer (RFC 2308 section 5). `None` for errors, and for messages that do not say.
pub fn max_age(answer: &[u8]) -> Option<u32> {
    let header = Header::read(answer)?;
    if !matches!(header.rcode(), NOERROR | NXDOMAIN) {
        return None;
    }
    let (answers, authorities) = (usize::from(header.answers()), usize::from(header.authorities()));
    let mut records = wire::Records::of(answer).ok()?;
    if answers > 0 {
        return records
            .take(answers)
            .map(|record| Some(record.ok()?.ttl))
            .try_fold(u32::MAX, |least, ttl| Some(least.min(ttl?)));
    }
    let soa = records.by_ref().take(authorities).flatten().find(|record| record.rtype == TYPE_SOA)?;
    let minimum = answer[soa.rdata.clone()].last_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
    Some(soa.ttl.min(minimum))
}

fn failure(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A query at least in its header; an answer, or half a header, gets no DNS message back at all.
fn check(query: &[u8]) -> Result<(), Refusal> {
    match Header::read(query) {
        Some(header) if !header.is_answer() => Ok(()),
        _ => Err(Refusal::BadRequest),
    }
}

/// Media types are compared without regard to case, and parameters mean nothing here (RFC 9110 section 8.3.1).
fn is_dns_message(content_type: &[u8]) -> bool {
    let bare = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    bare.trim_ascii().eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::build_query;

    const PATH: &str = "/dns-query";

    fn asked() -> Vec<u8> {
        build_query("www.example.com", 1).unwrap()
    }

    fn get(target: &str) -> Result<Vec<u8>, Refusal> {
        query(PATH, &Method::GET, target, None, b"")
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 8484 section 4.1.1.
        let encoded = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
        let expected = URL_SAFE_NO_PAD.decode(encoded).unwrap();
        assert_eq!(get(&format!("/dns-query?dns={encoded}")).as_ref(), Ok(&expected));
        assert_eq!(get(&format!("/dns-query?ct&dns={encoded}&x=1")).as_ref(), Ok(&expected));
        let posted = query(PATH, &Method::POST, PATH, Some(b"application/dns-message"), &expected);
        assert_eq!(posted.as_ref(), Ok(&expected));
    }

    #[test]
    fn what_is_no_query_gets_the_status_that_says_why() {
        let whole = asked();
        let url = |bytes: &[u8]| format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(bytes));
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        for target in [
            "/dns-query",
            "/dns-query?",
            "/dns-query?dns=",
            "/dns-query?dns",
            "/dns-query?dnss=AAAA",
            "/dns-query?dns=AA*A",
        ] {
            assert_eq!(get(target), Err(Refusal::BadRequest), "{target}");
        }
        for bytes in [&whole[..11], &answer] {
            assert_eq!(get(&url(bytes)), Err(Refusal::BadRequest));
        }
        assert_eq!(get(&(url(&whole[..12]) + "==")), Err(Refusal::BadRequest), "padding (RFC 8484 section 6)");
        assert_eq!(get(&url(&[0; TARGET_MAX])), Err(Refusal::TargetTooLong));
        for target in ["/", "", "/dns-query/", "/dns-quer", "/DNS-QUERY?dns=AAAA"] {
            assert_eq!(get(target), Err(Refusal::NotFound), "{target}");
        }
        for method in [Method::HEAD, Method::PUT, Method::OPTIONS, Method::DELETE, Method::CONNECT] {
            assert_eq!(query(PATH, &method, PATH, None, b""), Err(Refusal::MethodNotAllowed), "{method}");
        }
        let post = |content_type: Option<&[u8]>, body: &[u8]| query(PATH, &Method::POST, PATH, content_type, body);
        for content_type in [None, Some(&b"application/json"[..]), Some(b""), Some(b"application/dns-messages")] {
            assert_eq!(post(content_type, &whole), Err(Refusal::UnsupportedMediaType));
        }
        let dns = Some(&b"Application/DNS-Message; charset=x"[..]);
        assert_eq!(post(dns, &whole).as_ref(), Ok(&whole));
        assert_eq!(post(dns, b""), Err(Refusal::BadRequest));
        assert_eq!(post(dns, &[0; BODY_MAX + 1]), Err(Refusal::TooLarge));
        assert_eq!(post(dns, &[0; BODY_MAX]).map(|query| query.len()), Ok(BODY_MAX));
    }

    #[test]
    fn refusals_name_what_is_allowed() {
        let response = Refusal::MethodNotAllowed.response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &HeaderValue::from_static("GET, POST"))
        );
        for (refusal, status) in [
            (Refusal::BadRequest, 400),
            (Refusal::NotFound, 404),
            (Refusal::TooLarge, 413),
            (Refusal::TargetTooLong, 414),
            (Refusal::UnsupportedMediaType, 415),
        ] {
            let response = refusal.response();
            assert_eq!(response.status().as_u16(), status);
            assert!(!response.headers().contains_key("cache-control"));
        }
        assert_eq!(unavailable().status().as_u16(), 503);
    }

    /// An answer with records of these TTLs in the answer section and a SOA of this TTL and minimum behind it.
    fn answer(rcode: u8, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
        let count = |count: usize| u8::try_from(count).unwrap();
        let mut message = vec![0, 0, 0x81, 0x80 | rcode, 0, 1, 0, count(ttls.len()), 0, soa.is_some().into(), 0, 0];
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        for ttl in ttls {
            message.extend_from_slice(&[0, 0, 1, 0, 1]);
            message.extend_from_slice(&ttl.to_be_bytes());
            message.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
        }
        if let Some((ttl, minimum)) = soa {
            message.extend_from_slice(&[0, 0, 6, 0, 1]);
            message.extend_from_slice(&ttl.to_be_bytes());
            message.extend_from_slice(&[0, 22, 0, 0]);
            message.extend_from_slice(&[0; 16]);
            message.extend_from_slice(&minimum.to_be_bytes());
        }
        message
    }

    #[test]
    fn an_answer_is_fresh_for_its_smallest_ttl() {
        for (message, expected) in [
            (answer(0, &[300, 60, 3600], None), Some(60)),
            (answer(0, &[300, 0], None), Some(0)),
            (answer(0, &[300], Some((10, 10))), Some(300)),
            (answer(3, &[], Some((900, 60))), Some(60)),
            (answer(0, &[], Some((30, 60))), Some(30)),
            (answer(0, &[], None), None),
            (answer(2, &[300], None), None),
            (answer(5, &[], Some((900, 60))), None),
        ] {
            assert_eq!(max_age(&message), expected, "{message:?}");
            let response = response(&message);
            assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
            let shown = response.headers().get("cache-control").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(shown, expected.map(|age| format!("max-age={age}")));
            assert_eq!(response.body(), &message);
        }
        let whole = answer(0, &[300, 60], Some((900, 60)));
        for length in 0..whole.len() {
            let _ = max_age(&whole[..length]);
        }
    }

    proptest! {
        #[test]
        fn no_request_panics(target in "\\PC{0,60}", body in proptest::collection::vec(any::<u8>(), 0..80), post: bool) {
            let method = if post { Method::POST } else { Method::GET };
            let _ = query(PATH, &method, &target, Some(CONTENT_TYPE.as_bytes()), &body);
            let _ = query(PATH, &method, &format!("{PATH}?dns={target}"), None, &body);
            let _ = max_age(&body);
        }

        #[test]
        fn a_query_in_a_url_comes_out_as_it_went_in(rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut message = vec![0; 12];
            message.extend_from_slice(&rest);
            prop_assert_eq!(get(&format!("{PATH}?dns={}", URL_SAFE_NO_PAD.encode(&message))), Ok(message));
        }
    }
}
