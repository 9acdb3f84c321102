//! One request: let in, read, answered by a tunnel or by its origin.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use hyper::{body::Incoming, ext::on_informational, upgrade::OnUpgrade};
use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;

use super::{
    Session,
    answer::{self, Out, Then},
    ask::{self, Ask},
    fields, hops,
    origin::{Failed, Origin},
    refusal::Refusal,
    tunnel::{self, Next},
    upload::{Sent, Upload},
};
use crate::{
    relay::RelayOptions,
    server::{HandshakeFailure, Shared},
};

/// Where the requests of one client's connection are answered.
pub(super) struct Desk<'a> {
    pub(super) session: Arc<Session>,
    pub(super) shared: &'a Shared,
    /// What came behind the head of the first CONNECT.
    pub(super) held: Mutex<Bytes>,
    /// What the connection changes over to when HTTP ends.
    pub(super) next: Mutex<Option<Next<'a>>>,
}

/// An origin's answer whose body is still to come, and the connection that it comes over.
struct Answered {
    response: Response<Incoming>,
    origin: Origin,
    sent: Sent,
}

impl<'a> Desk<'a> {
    /// Answers a request, whatever becomes of it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up, at the origin as well.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Out> {
        let (parts, body) = request.into_parts();
        let answered = match self.read(&parts) {
            Ok(Ask::Connect(target)) => self.connect(&parts, &body, &target).await.map_err(Refusal::closing),
            Ok(Ask::Forward(target, authority)) => self.forward(parts, body, &target, &authority).await,
            // What follows a CONNECT may have been meant for its tunnel, and is no request then.
            Err(refusal) if parts.method == Method::CONNECT => Err(refusal.closing()),
            Err(refusal) => Err(refusal),
        };
        self.session.stage.settle();
        answered.unwrap_or_else(|refusal| {
            tracing::debug!(client = %self.session.client.peer, kind = refusal.kind, "a request of the http proxy failed");
            answer::refuse(&refusal, self.session.stage.clone())
        })
    }

    fn read(&self, parts: &Parts) -> Result<Ask, Refusal> {
        self.check_user(parts)?;
        if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
            // RFC 9112 section 3.2. None at all is let pass: the request line has the host, and nobody else is asked.
            return Err(Refusal::request("a request has one Host (RFC 9112 section 3.2)").closing());
        }
        ask::read(&parts.method, &parts.uri)
    }

    fn check_user(&self, parts: &Parts) -> Result<(), Refusal> {
        let users = self.shared.users(&self.session.terms);
        if users.is_empty() {
            return Ok(());
        }
        let given = parts.headers.get(header::PROXY_AUTHORIZATION);
        if given.is_some_and(|given| users.check_basic(given.as_bytes())) {
            return Ok(());
        }
        self.shared.counters.handshake_failed(HandshakeFailure::User);
        if given.is_some() {
            // Browsers ask without a password at first; that is no guess.
            users.warn_refused(self.session.client);
        }
        let refusal = Refusal::unknown_user();
        let before = self.session.unknown.fetch_add(1, Ordering::Relaxed);
        Err(if before + 1 < UNKNOWN_MAX { refusal } else { refusal.closing() })
    }

    async fn connect(&self, parts: &Parts, body: &Incoming, target: &Target) -> Result<Response<Out>, Refusal> {
        if parts.headers.contains_key(header::TRANSFER_ENCODING) || !http_body::Body::is_end_stream(body) {
            // RFC 9110 section 9.3.6: what follows the head is for the tunnel. A length says otherwise, and whoever reads it so is tricked.
            return Err(Refusal::request("CONNECT has no body (RFC 9110 section 9.3.6)"));
        }
        let payload = std::mem::take(&mut *self.held.lock());
        let connecting = self.session.stage.connecting();
        let made = self.shared.open(self.session.client, target.clone(), payload).await;
        drop(connecting);
        let (stream, listed) = made.map_err(|error| Refusal::from(&error))?;
        let options = RelayOptions::from(&*self.shared.connector.config());
        self.change_over(Box::new(move |client, rest| {
            let upstream = (stream, Bytes::new());
            Box::pin(async move { tunnel::carry((client, rest), upstream, &options, listed.traffic()).await })
        }));
        Ok(Response::new(self.nothing()))
    }

    async fn forward(
        &self,
        mut parts: Parts,
        body: Incoming,
        target: &Target,
        authority: &Authority,
    ) -> Result<Response<Out>, Refusal> {
        let Ok(is_chunked) = fields::is_chunked(&parts.headers) else {
            let text = "only the transfer coding chunked is understood (RFC 9112 section 6.1)";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "request", text).closing());
        };
        if !hops::spend(&mut parts) {
            return Ok(hops::answer(&parts, self.session.stage.clone()));
        }
        let is_empty = http_body::Body::is_end_stream(&body);
        let upload = Upload::new(body, !is_empty && fields::expects_continue(&parts.headers));
        let upgrade = upgrade(&parts).filter(|_| is_empty);
        prepare(&mut parts, authority, upgrade.as_ref(), is_chunked);
        let answered = self.ask_origin(parts, upload, is_empty, target).await?;
        if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(answered, upgrade.is_some(), target);
        }
        self.pass_on(answered, target)
    }

    /// Over the connection that the client's last request left, or over a new one.
    async fn ask_origin(
        &self,
        mut parts: Parts,
        mut upload: Upload,
        is_empty: bool,
        target: &Target,
    ) -> Result<Answered, Refusal> {
        if let Some(mut origin) = self.session.keeper.take(target, self.shared.connector.ways())
            && origin.is_ready().await
        {
            // The origin may close while the request is on its way. It is asked again when it cannot have done anything, or when doing it
            // twice does no harm and it has not begun to answer (RFC 9110 section 9.2.2).
            let again = (is_empty && parts.method.is_idempotent()).then(|| parts.clone());
            let failed = match self.exchange(origin, parts, upload).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            (parts, upload) = match (failed.unsent, again) {
                (Some(request), _) => request.into_parts(),
                (None, Some(again)) if failed.is_silent => (again, Upload::empty()),
                _ => return Err(failed.refusal),
            };
        }
        let connecting = self.session.stage.connecting();
        let session = &*self.session;
        let origin = Origin::open(session.shared.clone(), session.client, target, &session.drivers).await;
        drop(connecting);
        self.exchange(origin?, parts, upload).await.map_err(|failed| failed.refusal)
    }

    async fn exchange(&self, mut origin: Origin, parts: Parts, upload: Upload) -> Result<Answered, Failed> {
        let (sent, gate, stage) = (upload.sent(), upload.gate(), self.session.stage.clone());
        let mut request = Request::from_parts(parts, upload);
        on_informational(&mut request, move |interim| match (interim.status(), &gate) {
            (StatusCode::CONTINUE, Some(gate)) => gate.open(),
            // Nobody waits for it.
            (StatusCode::CONTINUE, None) => {}
            (status, _) => {
                let mut headers = interim.headers().clone();
                fields::strip_answer(&mut headers);
                stage.interim(status, &headers);
            }
        });
        let response = origin.send(request, &self.session.stage).await?;
        self.session.stage.active();
        Ok(Answered { response, origin, sent })
    }

    /// The client gets the origin's answer.
    fn pass_on(&self, answered: Answered, target: &Target) -> Result<Response<Out>, Refusal> {
        let Answered { response, origin, sent } = answered;
        let (mut head, body) = response.into_parts();
        let Ok(is_chunked) = fields::is_chunked(&head.headers) else {
            let text = format!("exchange with {target}: the answer has a transfer coding that nobody asked for");
            return Err(Refusal::origin(text));
        };
        let is_reusable = head.version >= Version::HTTP_11 && !fields::closes(&head.headers);
        let limit = fields::keep_alive(&head.headers).map(Duration::from_secs);
        fields::strip_answer(&mut head.headers);
        fields::settle_length(&mut head.headers, is_chunked);
        if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // hyper leaves it out of these, and complains.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        head.version = Version::HTTP_11;
        let is_framed = head.headers.contains_key(header::CONTENT_LENGTH) || http_body::Body::is_end_stream(&body);
        self.session.stage.body_comes(is_framed);
        let then = Then { origin, session: self.session.clone(), sent, is_reusable, limit };
        Ok(Response::from_parts(head, Out::origin(body, then, self.session.stage.clone())))
    }

    /// The origin changes the protocol, as the client wished.
    fn switch(&self, answered: Answered, is_wished: bool, target: &Target) -> Result<Response<Out>, Refusal> {
        let Answered { response, origin, .. } = answered;
        let protocol = fields::upgrade(response.headers()).filter(|_| is_wished);
        let Some(protocol) = protocol else {
            // What follows would not be HTTP, and the client would take it for answers (RFC 9110 section 15.2.2).
            return Err(Refusal::origin(format!("exchange with {target}: answered 101, and no upgrade was asked for")));
        };
        let (mut head, _) = response.into_parts();
        head.extensions.remove::<OnUpgrade>();
        head.headers.remove(header::CONTENT_LENGTH);
        fields::strip_answer(&mut head.headers);
        fields::set_upgrade(&mut head.headers, protocol);
        head.version = Version::HTTP_11;
        self.change_over(Box::new(|client, rest| Box::pin(origin.switch(client, rest))));
        Ok(Response::from_parts(head, self.nothing()))
    }

    /// The answer that is under way is the last of HTTP.
    fn change_over(&self, next: Next<'a>) {
        *self.next.lock() = Some(next);
        self.session.stage.tunnel();
    }

    fn nothing(&self) -> Out {
        Out::text("", self.session.stage.clone())
    }
}

/// The protocol that the client wishes to change to. Not HTTP/2, which RFC 9113 section 3.1 no longer begins so, and whose settings are in a
/// field that is not passed on.
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let protocol = fields::upgrade(&parts.headers).filter(|_| parts.version >= Version::HTTP_11)?;
    let is_h2 = |name: &[u8]| name.trim_ascii().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    (!protocol.as_bytes().split(|byte| *byte == b',').any(is_h2)).then_some(protocol)
}

/// Makes of a request to a proxy one to the origin.
fn prepare(parts: &mut Parts, authority: &Authority, upgrade: Option<&HeaderValue>, is_chunked: bool) {
    parts.extensions.remove::<OnUpgrade>();
    parts.version = Version::HTTP_11;
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    let takes_trailers = fields::takes_trailers(&parts.headers);
    fields::strip_request(&mut parts.headers);
    fields::settle_length(&mut parts.headers, is_chunked);
    let headers = &mut parts.headers;
    if is_chunked {
        // hyper sends no body of unknown length with methods that rarely have one, unless it is told to.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = upgrade {
        fields::set_upgrade(headers, protocol.clone());
    }
    if takes_trailers {
        fields::take_trailers(headers);
    }
    // RFC 9112 section 3.2.2: it is the request line that counts, whatever Host said.
    let host = HeaderValue::from_str(authority.as_str()).expect("an authority has visible characters only");
    headers.insert(header::HOST, host);
}

/// After as many requests of nobody who is known the connection ends: who guesses has to come again for each few guesses.
const UNKNOWN_MAX: usize = 3;
