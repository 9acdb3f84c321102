//! One request over one leased connection: its head in the form of the protocol, and the answer's body, which holds the lease.
//!
//! What is deliberately not here: whether a failed request is sent again (`client`).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request, response,
    uri::{PathAndQuery, Scheme},
};
use http_body::{Frame, SizeHint};
use keepwarm_pool::Lease;
use keepwarm_transport::error::Error;

use crate::{
    body::{BoxError, RequestBody},
    connection::{Dialer, Target, Wire, h1, h2},
    origin::InFlight,
    profile::Profile,
};

/// A request's head, ready to be sent as often as need be.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    path: PathAndQuery,
    headers: Headers,
    /// The profile asks for a compressed answer, and the caller did not.
    #[cfg(feature = "browser")]
    pub(crate) decodes: bool,
}

/// The headers of a request.
#[derive(Debug, Clone)]
enum Headers {
    /// The profile's alone, which all requests without headers of their own share.
    Shared(Arc<HeaderMap>),
    Own(HeaderMap),
}

impl std::ops::Deref for Headers {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        match self {
            Headers::Shared(headers) => headers,
            Headers::Own(headers) => headers,
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection or the server.
    Transport(Error),
    /// The server refused the stream, and would refuse others: it has too much to do (RFC 9113 section 8.7).
    Refused(Error),
    /// The server gave up this one stream: its word on the request, and not on the connection or the address.
    Reset(Error),
    /// The caller's own body.
    RequestBody(BoxError),
    /// Nothing came in time.
    Silent {
        /// Whether the request was on its way as a whole; otherwise the silence may be the caller's.
        is_sent: bool,
    },
}

impl Failure {
    pub(crate) fn new(error: Error) -> Failure {
        Failure::Transport(error)
    }

    pub(crate) fn request_body(error: BoxError) -> Failure {
        Failure::RequestBody(error)
    }
}

impl Head {
    /// Takes what is sent of a request: no header that is only for one connection (RFC 9110 section 7.6.1), and the profile's headers
    /// where they are missing, in the profile's order.
    pub(crate) fn new(parts: request::Parts, profile: Option<&Arc<HeaderMap>>, body: &RequestBody) -> Head {
        let path = path(parts.uri);
        let mut own = parts.headers;
        if !own.is_empty() {
            strip(&mut own);
            if profile.is_some() && own.contains_key(header::RANGE) {
                // A range of a coded answer cannot be decoded.
                own.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
            }
        }
        let exact = http_body::Body::size_hint(body).exact();
        if own.contains_key(header::CONTENT_LENGTH) {
            true_length(&mut own, exact);
        }
        #[cfg(feature = "browser")]
        let decodes = profile.is_some() && !own.contains_key(header::ACCEPT_ENCODING);
        let length = exact.filter(|length| *length > 0);
        let headers = match profile {
            Some(profile) if own.is_empty() && length.is_none() => Headers::Shared(profile.clone()),
            _ => {
                let mut headers = match profile {
                    Some(profile) if !profile.is_empty() => dress(own, profile),
                    _ => own,
                };
                if let Some(length) = length {
                    headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
                }
                Headers::Own(headers)
            }
        };
        Head {
            method: parts.method,
            path,
            headers,
            #[cfg(feature = "browser")]
            decodes,
        }
    }

    fn http2(&self, target: &Target) -> Request<()> {
        let mut request = Request::new(());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(target.authority().clone());
        uri.path_and_query = Some(self.path.clone());
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are there");
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = HeaderMap::clone(&self.headers);
        request
    }

    /// Names the host in a header, first as browsers do, and leaves only path and query in the request line (RFC 9112 section 3.2.1).
    fn http1(&self, target: &Target) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.method_mut() = self.method.clone();
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        let host = HeaderValue::from_str(target.authority().as_str());
        headers.insert(header::HOST, host.expect("an authority has no character that a header has not"));
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        *request.headers_mut() = headers;
        request
    }
}

/// Path and query, beginning with a slash as HTTP wants it.
fn path(uri: Uri) -> PathAndQuery {
    match uri.into_parts().path_and_query {
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", path.as_str())).expect("a query stays valid behind a slash")
        }
        Some(path) => path,
        None => PathAndQuery::from_static("/"),
    }
}

/// Removes what is about one connection and what the connection says itself.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // `te: trailers` is the one that HTTP/2 allows (RFC 9113 section 8.2.2).
        if *name == header::TE && headers.get(name).is_some_and(|value| value == "trailers") {
            continue;
        }
        headers.remove(name);
    }
}

/// Lets Content-Length say what is sent. A length that is said and not sent would be taken from the next request on the connection.
fn true_length(headers: &mut HeaderMap, exact: Option<u64>) {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let one = said.next().filter(|_| said.next().is_none());
    let said = one.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match exact.or(said) {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
}

/// The caller's headers with those of the profile, which come first and in their order.
fn dress(mut own: HeaderMap, profile: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(own.len() + profile.len());
    for (name, value) in profile {
        match own.entry(name.clone()) {
            header::Entry::Occupied(entry) => {
                for value in entry.remove_entry_mult().1 {
                    headers.append(name.clone(), value);
                }
            }
            header::Entry::Vacant(_) => {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    headers.extend(own);
    headers
}

/// The headers of a profile; those that are none are left out, which the reader of profiles does not let happen.
pub(crate) fn headers_of(profile: &Profile) -> Arc<HeaderMap> {
    let header = |(name, value): &(String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    Arc::new(profile.headers.iter().filter_map(header).collect())
}

/// By when the head of an answer must be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    /// While a body that streams is on its way, the wait begins anew with this; its own pauses are bounded. `None`: `at` holds.
    pub(crate) after_upload: Option<Duration>,
}

/// Sends a request over a leased connection. On failure the lease comes back; it is not to be used for another request if it was spoilt.
///
/// # Cancel safety
/// Dropping the future gives up the stream, or the connection where it is exclusive.
pub(crate) async fn send(
    lease: Lease<Dialer>,
    target: &Target,
    head: &Head,
    body: &mut RequestBody,
    body_timeout: Duration,
    until: Until,
    in_flight: Option<InFlight>,
) -> Result<(response::Parts, Incoming), (Failure, Lease<Dialer>, Option<InFlight>)> {
    let spoils = matches!(lease.wire, Wire::Http1(_));
    let mut hold = Hold { lease: Some(lease), in_flight, upload: None, spoils };
    let is_sent = Arc::new(AtomicBool::new(body.whole().is_some()));
    let is_small = body.whole().is_none_or(|whole| whole.len() <= SMALL);
    let result = match &hold.lease().wire {
        Wire::Http2(handle) => {
            let address = hold.lease().address;
            let exchange = handle.send(head.http2(target), body, body_timeout, is_sent.clone());
            within(until, &is_sent, exchange).await.map(|answer| {
                let length = length(&head.method, &answer.head);
                let incoming = h2::Incoming::new(answer.body, address, length);
                (answer.head, Stream::Http2(incoming), answer.upload)
            })
        }
        Wire::Http1(handle) => {
            let exchange = handle.send(head.http1(target), body, body_timeout, is_sent.clone());
            within(until, &is_sent, exchange).await.map(|answer| (answer.head, Stream::Http1(answer.body), None))
        }
    };
    match result {
        Ok((parts, stream, upload)) => {
            hold.upload = upload;
            let length = length(&head.method, &parts);
            let mut incoming = Incoming { stream: Some(stream), hold: Some(hold), length, is_over: false };
            if incoming.stream.as_ref().is_some_and(Stream::is_end_stream) {
                incoming.end();
            }
            Ok((parts, incoming))
        }
        Err(mut failure) => {
            if let Failure::Silent { is_sent } = &mut failure {
                *is_sent &= is_small;
            }
            let (lease, in_flight) = hold.take();
            Err((failure, lease, in_flight))
        }
    }
}

async fn within<T>(
    until: Until,
    is_sent: &AtomicBool,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut exchange = pin!(exchange);
    let mut at = until.at;
    loop {
        match (tokio::time::timeout_at(at.into(), &mut exchange).await, until.after_upload) {
            (Ok(result), _) => return result,
            (Err(_), Some(patience)) if !is_sent.load(Ordering::Acquire) => {
                at = (tokio::time::Instant::now() + patience).into_std();
            }
            (Err(_), _) => return Err(Failure::Silent { is_sent: is_sent.load(Ordering::Acquire) }),
        }
    }
}

/// What an answer's head says about the length of its body (RFC 9110 section 8.6).
fn length(method: &Method, parts: &response::Parts) -> Option<u64> {
    if *method == Method::HEAD {
        return Some(0);
    }
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What an exchange holds until its end.
struct Hold {
    /// `None` only once it was taken out.
    lease: Option<Lease<Dialer>>,
    /// None for probes.
    in_flight: Option<InFlight>,
    upload: Option<h2::Upload>,
    /// Whether ending early makes the connection unusable: it is exclusive, and what comes next on it belongs to nobody.
    spoils: bool,
}

impl Hold {
    fn lease(&self) -> &Lease<Dialer> {
        self.lease.as_ref().expect("there until it is taken out")
    }

    fn take(mut self) -> (Lease<Dialer>, Option<InFlight>) {
        let mut lease = self.lease.take().expect("there until it is taken out");
        if std::mem::take(&mut self.spoils) {
            lease.poison();
        }
        (lease, self.in_flight.take())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(lease) = &mut self.lease
            && self.spoils
        {
            lease.poison();
        }
    }
}

/// An answer's body as it comes.
pub(crate) struct Incoming {
    /// `None` once it is over: its stream or connection is let go before the lease is.
    stream: Option<Stream>,
    /// `None` once the connection was given back.
    hold: Option<Hold>,
    length: Option<u64>,
    is_over: bool,
}

enum Stream {
    Http2(h2::Incoming),
    Http1(h1::Incoming),
}

impl Stream {
    fn is_end_stream(&self) -> bool {
        match self {
            Stream::Http2(body) => body.is_end_stream(),
            Stream::Http1(body) => body.is_end_stream(),
        }
    }
}

impl Incoming {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(match &mut self.stream {
            Some(Stream::Http2(body)) => body.poll_frame(cx),
            Some(Stream::Http1(body)) => body.poll_frame(cx),
            None => Poll::Ready(None),
        });
        match &frame {
            None => self.end(),
            Some(Err(_)) => self.give_up(),
            Some(Ok(frame)) => {
                if frame.is_trailers() || self.stream.as_ref().is_none_or(Stream::is_end_stream) {
                    self.end();
                }
                self.length = match (self.length, frame.data_ref()) {
                    (Some(length), Some(data)) => Some(length.saturating_sub(data.len() as u64)),
                    (length, _) => length,
                };
            }
        }
        Poll::Ready(frame)
    }

    /// The whole body came: the connection may serve the next.
    fn end(&mut self) {
        self.is_over = true;
        let stream = self.stream.take();
        let Some(mut hold) = self.hold.take() else { return };
        if let Some(Stream::Http1(mut body)) = stream {
            hold.spoils = !body.ended();
        }
        // An answer may end before the request does (RFC 9113 section 8.1); the stream is in use until both have.
        if let Some(mut upload) = hold.upload.take_if(|upload| !upload.is_over()) {
            tokio::spawn(async move {
                upload.over().await;
                drop(hold);
            });
        }
    }

    /// The body is given up: so is its stream, or its connection where that is exclusive.
    pub(crate) fn give_up(&mut self) {
        self.is_over = true;
        self.stream = None;
        self.hold = None;
    }

    /// Reads a short rest, so that the connection can serve again; a long one is given up.
    pub(crate) async fn skip(&mut self, deadline: tokio::time::Instant) {
        let mut left = SKIP_MAX;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, poll_fn(|cx| self.poll_frame(cx))).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return self.give_up();
            }
        }
        self.give_up();
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.is_over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (&self.stream, self.length) {
            _ if self.is_over => SizeHint::with_exact(0),
            (Some(Stream::Http1(body)), _) => body.size_hint(),
            (_, Some(length)) => SizeHint::with_exact(length),
            (_, None) => SizeHint::default(),
        }
    }
}

/// Bytes of a request's body that are taken to be sent at once.
const SMALL: usize = 64 * 1024;

/// Bytes of a body that are read for the sake of its connection.
const SKIP_MAX: usize = 64 * 1024;

/// Headers about one connection, and those that a connection says itself.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::HOST,
];
