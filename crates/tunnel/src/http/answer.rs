//! Answers as clients get them: an origin's, or the proxy's own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{Session, origin::Origin, refusal::Refusal, stage::Stage, upload::Sent};

/// The body of an answer. While it lives the exchange goes on.
pub(super) struct Out {
    kind: Kind,
    stage: Stage,
}

enum Kind {
    Origin {
        body: Incoming,
        /// What becomes of the connection at the end of the body; dropping it closes the connection.
        then: Option<Then>,
        /// What ended the body early, while what came before it is sent.
        failed: Option<hyper::Error>,
    },
    /// `None` once it was sent.
    Text(Option<Bytes>),
}

/// A connection that is busy with an answer.
pub(super) struct Then {
    pub(super) origin: Origin,
    pub(super) session: Arc<Session>,
    /// Of the request's body.
    pub(super) sent: Sent,
    /// Whether the origin leaves it open.
    pub(super) is_reusable: bool,
    /// For how long, where it said so.
    pub(super) limit: Option<Duration>,
}

impl Then {
    /// The body was read to its end. Not again while a request's body is still on its way, which then has nowhere to go.
    fn finish(self) {
        if self.is_reusable && self.sent.is_over() {
            self.session.keeper.keep(self.origin, self.limit);
        }
    }
}

impl Out {
    pub(super) fn origin(body: Incoming, then: Then, stage: Stage) -> Out {
        Out { kind: Kind::Origin { body, then: Some(then), failed: None }, stage }
    }

    pub(super) fn text(text: impl Into<Bytes>, stage: Stage) -> Out {
        Out { kind: Kind::Text(Some(text.into()).filter(|text: &Bytes| !text.is_empty())), stage }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body that has said that it is at its end.
        if let Kind::Origin { body, then, failed: None } = &mut self.kind
            && body.is_end_stream()
            && let Some(then) = then.take()
        {
            then.finish();
        }
        self.stage.ended();
    }
}

impl HttpBody for Out {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Origin { body, then, failed } => {
                if let Some(error) = failed.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Err(error)) => {
                        tracing::debug!(%error, "an answer of the http proxy ends early");
                        *then = None;
                        // hyper throws away what it has not sent when a body fails, and sends it when a body has nothing for now.
                        *failed = Some(error);
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Some(frame) => Poll::Ready(Some(frame)),
                    None => {
                        if let Some(then) = then.take() {
                            then.finish();
                        }
                        Poll::Ready(None)
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Origin { body, failed, .. } => failed.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Origin { body, .. } => body.size_hint(),
        }
    }
}

/// The proxy's own answer to a request that it does not serve.
pub(super) fn refuse(refusal: &Refusal, stage: Stage) -> Response<Out> {
    let line: String = refusal.text.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\n']).collect();
    let mut response = Response::new(Out::text(line, stage));
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
    if let Some(after) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    if refusal.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

const ERROR: HeaderName = HeaderName::from_static("keepwarm-error");
