//! What became of a form, in one line, from the answer to the form to the page that comes next.
//!
//! It travels in a cookie that the page takes away again, so that nothing of the client is kept here, and that no address can make a
//! page say something.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::cookie;
use crate::snapshots::Refusal;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) done: bool,
    pub(super) text: String,
}

impl Outcome {
    /// Of something that was done, or why it was not.
    pub(super) fn of(what: &str, result: Result<String, Refusal>) -> Outcome {
        match result {
            Ok(text) => Outcome { done: true, text: format!("{what}: {text}") },
            Err(Refusal::Invalid(why) | Refusal::Unknown(why) | Refusal::Failed(why)) => {
                Outcome { done: false, text: format!("{what}: not done: {why}") }
            }
        }
    }

    /// The one that the last form left, if there is one.
    pub(super) fn read(headers: &HeaderMap) -> Option<Outcome> {
        let (done, text) = cookie(headers, COOKIE)?.split_once('.')?;
        let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        Some(Outcome { done: done == "1", text: one_line(&text) })
    }

    /// Leads to `page`, which shows it.
    pub(super) fn then(&self, page: &str) -> Response {
        let value = format!("{}.{}", u8::from(self.done), BASE64.encode(one_line(&self.text)));
        let cookie = format!("{COOKIE}={value}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict");
        let cookie = HeaderValue::from_str(&cookie).unwrap_or(FORGET);
        (StatusCode::SEE_OTHER, [(header::LOCATION, page.to_owned())], [(header::SET_COOKIE, cookie)]).into_response()
    }

    /// Takes it away from the browser that was shown it.
    pub(super) fn forget(response: &mut Response) {
        response.headers_mut().append(header::SET_COOKIE, FORGET);
    }
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect();
    if text.chars().count() > TEXT_MAX { line + " …" } else { line }
}

const COOKIE: &str = "keepwarm_outcome";
const FORGET: HeaderValue = HeaderValue::from_static("keepwarm_outcome=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
const TEXT_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_reaches_the_next_page_in_one_line() {
        let outcome = Outcome::of("reload", Err(Refusal::Invalid("line 3:\n  <b>no</b> such key; \u{e9}".into())));
        let response = outcome.then("/pools/dns");
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()[header::LOCATION], "/pools/dns");
        let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(set.split(';').next().unwrap()).unwrap());
        let read = Outcome::read(&headers).unwrap();
        assert_eq!(
            read,
            Outcome { done: false, text: "reload: not done: line 3:   <b>no</b> such key; \u{e9}".into() }
        );
        let long = Outcome { done: true, text: "\u{1F525}".repeat(5000) };
        assert!(long.then("/").headers()[header::SET_COOKIE].len() < 4096, "what a browser keeps of a cookie");
    }

    #[test]
    fn a_cookie_that_is_none_of_ours_says_nothing() {
        for wrong in ["", "1", "1.%%%", "1._w"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(&format!("{COOKIE}={wrong}")).unwrap());
            assert_eq!(Outcome::read(&headers), None, "{wrong}");
        }
    }
}
