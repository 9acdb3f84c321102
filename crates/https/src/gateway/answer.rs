//! Answers as clients of the gateway get them: an origin's with what is known about its way, or the gateway's own.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use keepwarm_transport::error::ErrorKind as TransportKind;

use super::{
    Counters, Shared,
    io_limits::Stage,
    location, options,
    refusal::Refusal,
    route::{Form, Route},
};
use crate::{Body, Error, Phases, Served};

/// The body of an answer. While it lives the exchange goes on.
pub(super) struct Out {
    kind: Kind,
    stage: Stage,
}

#[expect(clippy::large_enum_variant, reason = "nearly all answers are an origin's: a box for each would cost more")]
enum Kind {
    Upstream {
        body: Body,
        shared: Arc<Shared>,
        /// What ended the body early, while what came before it is sent.
        failed: Option<Error>,
    },
    /// `None` once it was sent.
    Text(Option<Bytes>),
}

impl Drop for Out {
    fn drop(&mut self) {
        self.stage.ended();
    }
}

impl HttpBody for Out {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Upstream { body, shared, failed } => {
                if let Some(error) = failed.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let Some(Err(error)) = frame else { return Poll::Ready(frame) };
                Counters::count(&shared.counters.broken);
                tracing::debug!(%error, "an answer of the gateway ends early");
                // hyper throws away what it has not sent when a body fails, and sends it when a body has nothing for now.
                *failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Upstream { body, failed, .. } => failed.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Upstream { body, .. } => body.size_hint(),
        }
    }
}

/// An origin's answer, unless it is none. `is_browser`: a browser asked.
pub(super) fn pass_on(
    answer: Response<Body>,
    route: &Route,
    is_browser: bool,
    shared: Arc<Shared>,
    stage: Stage,
) -> Response<Out> {
    if answer.status().is_informational() {
        Counters::count(&shared.counters.failed);
        return refuse(&switched(&answer), stage);
    }
    let (mut head, body) = answer.into_parts();
    head.version = Version::HTTP_11;
    strip(&mut head.headers);
    turn_redirect(&mut head.headers, route);
    if is_browser && route.form == Form::Prefixed {
        seal(&mut head.headers);
    }
    explain(&mut head.headers, body.served());
    let is_framed = head.headers.contains_key(header::CONTENT_LENGTH) || body.size_hint().exact().is_some();
    stage.body_comes(is_framed);
    Response::from_parts(head, Out { kind: Kind::Upstream { body, shared, failed: None }, stage })
}

/// The gateway's own answer.
pub(super) fn refuse(refusal: &Refusal, stage: Stage) -> Response<Out> {
    let line: String = refusal.text.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\n']).collect();
    let mut response = Response::new(Out { kind: Kind::Text(Some(line.into())), stage });
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR, HeaderValue::from_static(refusal.kind));
    if refusal.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        headers.insert(
            header::PROXY_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"keepwarm\", charset=\"UTF-8\""),
        );
    }
    response
}

/// What a 101 is to a client that asked for no upgrade, as none of the gateway's can: what follows would not be HTTP, and the client would take
/// it for answers (RFC 9110 section 15.2.2).
fn switched(answer: &Response<Body>) -> Refusal {
    let (address, status) = (answer.body().served().address, answer.status());
    let text = format!("{address} answered {status}, and no upgrade was asked for");
    Refusal::new(StatusCode::BAD_GATEWAY, TransportKind::Http1.as_str(), text)
}

/// Removes what was about the connection to the origin (RFC 9110 section 7.6.1), and what only the gateway may say.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    let own: Vec<HeaderName> = headers.keys().filter(|name| options::is_own(name)).cloned().collect();
    for name in named.iter().chain(&own).chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn turn_redirect(headers: &mut HeaderMap, route: &Route) {
    let Some(value) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let Some(host) = route.uri.authority() else { return };
    let turned = location::rewrite(value, route.form, host, route.uri.path());
    if let Some(turned) = turned.and_then(|turned| HeaderValue::try_from(turned).ok()) {
        headers.insert(header::LOCATION, turned);
    }
}

/// Under one name, the gateway's, a browser would give every origin the cookies, the passwords and the documents of all the others. So none
/// is kept or asked for, none clears what others keep, and a document runs no script, leads nowhere by itself and belongs to nobody.
fn seal(headers: &mut HeaderMap) {
    for name in [header::SET_COOKIE, header::WWW_AUTHENTICATE, header::REFRESH, CLEAR_SITE_DATA] {
        headers.remove(name);
    }
    headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

fn explain(headers: &mut HeaderMap, served: &Served) {
    let value = |text: String| HeaderValue::try_from(text).expect("digits and letters are visible characters");
    headers.insert(ADDRESS, value(served.address.to_string()));
    headers.insert(REUSED, HeaderValue::from_static(if served.reused { "true" } else { "false" }));
    headers.insert(PROTOCOL, HeaderValue::from_static(served.protocol.as_str()));
    headers.insert(TRIES, served.tries.into());
    headers.insert(TIMING, value(timing(&served.phases)));
}

/// In the syntax of Server-Timing (W3C): milliseconds by phase.
fn timing(phases: &Phases) -> String {
    let Phases { wait, connect, tls, head, total } = *phases;
    let mut text = String::new();
    let all = [("wait", Some(wait)), ("connect", connect), ("tls", tls), ("head", Some(head)), ("total", Some(total))];
    for (name, time) in all {
        let Some(time) = time.map(|time: Duration| time.as_secs_f64() * 1e3) else { continue };
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{name};dur={time:.2}").expect("a string takes all");
    }
    text
}

const ADDRESS: HeaderName = HeaderName::from_static("keepwarm-address");
const REUSED: HeaderName = HeaderName::from_static("keepwarm-reused");
const PROTOCOL: HeaderName = HeaderName::from_static("keepwarm-protocol");
const TRIES: HeaderName = HeaderName::from_static("keepwarm-tries");
const TIMING: HeaderName = HeaderName::from_static("keepwarm-timing");
const ERROR: HeaderName = HeaderName::from_static("keepwarm-error");

/// W3C Clear Site Data: empties what a browser keeps for the name in the URL.
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Headers about one connection.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_names_the_phases_that_there_were() {
        let millis = Duration::from_millis;
        let mut phases =
            Phases { wait: Duration::from_micros(120), head: millis(3), total: millis(4), ..Phases::default() };
        assert_eq!(timing(&phases), "wait;dur=0.12, head;dur=3.00, total;dur=4.00");
        (phases.connect, phases.tls) = (Some(millis(1)), Some(millis(2)));
        assert_eq!(timing(&phases), "wait;dur=0.12, connect;dur=1.00, tls;dur=2.00, head;dur=3.00, total;dur=4.00");
    }

    #[test]
    fn an_origin_cannot_speak_for_the_gateway_or_about_its_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("keepwarm-address", "192.0.2.1:443"),
            ("keepwarm-anything", "1"),
            ("trailer", "x-sum"),
            ("set-cookie", "a=b"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["trailer", "set-cookie"]);
    }
}
