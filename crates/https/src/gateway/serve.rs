//! One request: let in, read, sent to its origin, answered.

use std::sync::Arc;

use http::{Request, Response, header, request::Parts};
use hyper::body::Incoming;

use super::{
    Counters, Shared,
    answer::{self, Out},
    guard,
    io_limits::Stage,
    listener::Door,
    options,
    refusal::Refusal,
    route::{self, Form, Route},
};
use crate::{Body, RequestBody, RequestOptions};

impl Shared {
    /// Answers a request, whatever becomes of it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up, at the origin as well.
    pub(super) async fn answer(
        self: Arc<Shared>,
        door: Arc<Door>,
        request: Request<Incoming>,
        stage: Stage,
    ) -> Response<Out> {
        Counters::count(&self.counters.requests);
        let (mut head, body) = request.into_parts();
        let is_browser = guard::is_browser(&head.headers);
        let (route, options) = match self.read(&door, &mut head, is_browser) {
            Ok(read) => read,
            Err(refusal) => {
                Counters::count(&self.counters.refused);
                return answer::refuse(&refusal, stage);
            }
        };
        head.uri = route.uri.clone();
        match self.send(head, body, options).await {
            Ok(answer) => answer::pass_on(answer, &route, is_browser, self, stage),
            Err(refusal) => {
                Counters::count(&self.counters.failed);
                answer::refuse(&refusal, stage)
            }
        }
    }

    /// What is asked for; leaves in the head only what is for the origin.
    fn read(&self, door: &Door, head: &mut Parts, is_browser: bool) -> Result<(Route, RequestOptions), Refusal> {
        let rules = door.rules(self.rules());
        rules.guard.check(head, route::is_prefixed(&head.method, &head.uri))?;
        let route = route::route(&head.method, &head.uri, rules.upgrade)?;
        let options = options::take(&mut head.headers, tokio::time::Instant::now().into_std())?;
        if is_browser && route.form == Form::Prefixed {
            // They are of whatever else was served on this machine, as cookies know no ports, and of the other origins, to whose
            // passwords the gateway is one server.
            head.headers.remove(header::COOKIE);
            head.headers.remove(header::AUTHORIZATION);
        }
        // RFC 9112 section 6.3: where both were sent, the body came in chunks and the length is not to be believed.
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        head.extensions.clear();
        Ok((route, options))
    }

    async fn send(&self, head: Parts, body: Incoming, options: RequestOptions) -> Result<Response<Body>, Refusal> {
        let origin = head.uri.authority().map(ToString::to_string).unwrap_or_default();
        let request = Request::from_parts(head, RequestBody::stream(body));
        self.client.request_with(request, options).await.map_err(|error| {
            tracing::debug!(%error, "a request of the gateway failed");
            Refusal::of(&error, || self.client.inventory(&origin).is_ok())
        })
    }
}
