//! Header fields on their way through: those about one connection stay behind (RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Removes from a request what is only between the client and this proxy, its credentials first of all.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, &REQUEST);
}

/// Removes from an answer what is only between the origin and this proxy, and what only a proxy may say.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, &ANSWER);
}

fn strip(headers: &mut HeaderMap, of_one_connection: &[HeaderName]) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(of_one_connection) {
        headers.remove(name);
    }
}

/// The protocol that a request or an answer changes to, where it says so in both fields (RFC 9110 section 7.8).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_meant = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut values = headers.get_all(header::UPGRADE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if is_meant => Some(value.clone()),
        _ => None,
    }
}

/// Names the protocol to change to.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether the client takes trailers (RFC 9110 section 10.1.4).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Says that trailers are taken, as `TE` is said: by name.
pub(super) fn take_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.append(header::CONNECTION, HeaderValue::from_static("te"));
}

/// Whether the body comes in chunks; an error where it is coded in a way that would be lost on the way.
pub(super) fn is_chunked(headers: &HeaderMap) -> Result<bool, ()> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(()),
    }
}

/// Leaves one length of several that agree, none beside chunks: RFC 9112 section 6.3.
pub(super) fn settle_length(headers: &mut HeaderMap, is_chunked: bool) {
    if is_chunked {
        headers.remove(header::CONTENT_LENGTH);
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = headers.remove(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// Whether a body is held back until it is asked for.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the other side closes after this message.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("close"))
}

/// The time-out of a Keep-Alive field in seconds, which many servers send.
pub(super) fn keep_alive(headers: &HeaderMap) -> Option<u64> {
    tokens(headers, &HeaderName::from_static("keep-alive")).find_map(|part| part.strip_prefix("timeout=")?.parse().ok())
}

/// Of a list in one or more lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let parts = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    // What is no text is no token; those beside it count.
    parts.filter_map(|part| str::from_utf8(part).ok()).map(str::trim)
}

static REQUEST: [HeaderName; 9] = [
    header::PROXY_AUTHORIZATION,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

static ANSWER: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    // It tells the proxy's own answers from those of origins.
    HeaderName::from_static("keepwarm-error"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_about_one_connection_stays_behind() {
        let lines = [
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("authorization", "Basic x"),
        ];
        let mut request = headers(&lines);
        request.insert(header::PROXY_AUTHORIZATION, HeaderValue::from_static("Basic x"));
        strip_request(&mut request);
        assert_eq!(names(&request), ["authorization", "trailer"]);
        let mut answer = headers(&lines);
        answer.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic"));
        answer.insert("keepwarm-error", HeaderValue::from_static("rejected"));
        strip_answer(&mut answer);
        assert_eq!(names(&answer), ["authorization", "trailer"]);
    }

    #[test]
    fn what_is_no_text_hides_nothing_beside_it() {
        let mut request = headers(&[("x-hop", "1"), ("x-own", "1")]);
        request.insert(header::CONNECTION, HeaderValue::from_bytes(b"\xff, X-Hop, close").unwrap());
        assert!(closes(&request));
        strip_request(&mut request);
        assert_eq!(names(&request), ["x-own"]);
    }

    #[test]
    fn an_upgrade_is_said_twice() {
        let meant = upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert_eq!(meant, Some(HeaderValue::from_static("websocket")));
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade(&headers(&[("connection", "upgrade")])), None);
        assert_eq!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")])), None);
    }

    #[test]
    fn only_chunks_are_understood() {
        for (lines, expected) in [
            (&[][..], Ok(false)),
            (&[("transfer-encoding", "Chunked")][..], Ok(true)),
            (&[("transfer-encoding", "gzip, chunked")][..], Err(())),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")][..], Err(())),
            (&[("transfer-encoding", "gzip")][..], Err(())),
        ] {
            assert_eq!(is_chunked(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn there_is_one_length_or_none() {
        let mut twice = headers(&[("content-length", "5"), ("content-length", "5")]);
        settle_length(&mut twice, false);
        assert_eq!(twice.get_all(header::CONTENT_LENGTH).iter().collect::<Vec<_>>(), ["5"]);
        settle_length(&mut twice, true);
        assert!(twice.is_empty());
    }

    #[test]
    fn what_servers_say_of_their_patience() {
        assert_eq!(keep_alive(&headers(&[("keep-alive", "max=100, timeout=5")])), Some(5));
        assert_eq!(keep_alive(&headers(&[("keep-alive", "timeout=soon")])), None);
        assert!(closes(&headers(&[("connection", "x, Close")])) && !closes(&headers(&[("connection", "keep-alive")])));
    }
}
