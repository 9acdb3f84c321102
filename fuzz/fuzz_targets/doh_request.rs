//! Any HTTP request is a DNS query or is refused with a reason, and any answer can be dressed as a response.
#![no_main]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, header};
use keepwarm_dns::{
    message::{Header, Query, build_query_error, normalise, verify_answer},
    server::doh::{BODY_MAX, CONTENT_TYPE, Head, TARGET_MAX, max_age, query, read_body, read_head, response},
};
use libfuzzer_sys::fuzz_target;

// The method, the target and the content type, a line each; the body.
fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (method, target, content_type, body) = (part(), part(), part(), part());
    let Ok(method) = Method::from_bytes(method) else { return };
    let Ok(target) = str::from_utf8(target) else { return };
    let content_type = (!content_type.is_empty()).then_some(content_type);
    request(&method, target, content_type, body);

    // What POST takes GET takes as well, if it is short enough; and the other way round.
    let posted = query(PATH, &Method::POST, PATH, Some(CONTENT_TYPE.as_bytes()), body);
    let target = format!("{PATH}?dns={}", URL_SAFE_NO_PAD.encode(body));
    if target.len() <= TARGET_MAX {
        assert_eq!(query(PATH, &Method::GET, &target, None, b""), posted);
    }
    answer(body);
});

fn request(method: &Method, target: &str, content_type: Option<&[u8]>, body: &[u8]) {
    let asked = query(PATH, method, target, content_type, body);
    let in_parts = read_head(PATH, method, target, content_type).and_then(|head| match head {
        Head::Query(query) => Ok(query),
        Head::Body => read_body(body).map(|()| body.to_vec()),
    });
    assert_eq!(asked, in_parts);
    match asked {
        Ok(query) => {
            assert!(
                matches!(*method, Method::GET | Method::POST) && target.len() <= TARGET_MAX && query.len() <= BODY_MAX
            );
            assert!(Header::read(&query).is_some_and(|header| !header.is_answer()));
            let mut out = Vec::new();
            match Query::parse(&query) {
                Ok(parsed) => normalise(&query, &parsed, &mut out),
                Err(error) => {
                    assert!(!build_query_error(&query, &error, 1232, &mut out) || verify_answer(&out).is_ok())
                }
            }
        }
        Err(refusal) => {
            let response = refusal.response();
            assert!(response.status().is_client_error() && !response.body().is_empty());
            assert!(!response.headers().contains_key(header::CACHE_CONTROL));
        }
    }
}

fn answer(message: &[u8]) {
    let (age, response) = (max_age(message), response(message));
    assert_eq!(response.body(), message);
    assert_eq!(response.headers().contains_key(header::CACHE_CONTROL), age.is_some());
}

const PATH: &str = "/dns-query";
