//! Clients on HTTPS (RFC 8484), HTTP/2 and HTTP/1.1: the protocol is hyper's, what a request means is [`doh`](super::doh)'s,
//! and the limits are those of every client with a connection.
//!
//! Unlike other clients' queries, a request is a task of its own while it is under way: that is how hyper serves streams.

use std::{cell::Cell, convert::Infallible, pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulConnection};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{Instant as Clock, sleep, timeout},
};
use tokio_rustls::server::TlsStream;

use super::{
    doh::{self, Head, Refusal},
    entrance::Entrance,
    flight::{Client, Origin, Request},
    worker::Worker,
};
use crate::config::{Listen, ListenTransport};

/// One client until it leaves or idles too long.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TlsStream<TcpStream>,
    origin: Origin,
    (entrance, path): (&Entrance, &Arc<str>),
) {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (in_flight_max, idle_timeout) = {
        let limits = &worker.era().config.clients;
        (limits.tcp_max_in_flight, limits.tcp_idle_timeout)
    };
    let client = Rc::new(HttpClient {
        worker,
        origin,
        path: path.clone(),
        in_flight: Cell::new(0),
        active: Cell::new(Clock::now()),
    });
    let service = service_fn({
        let client = client.clone();
        move |request| {
            let client = client.clone();
            async move { Ok::<_, Infallible>(client.respond(request).await) }
        }
    });
    let io = TokioIo::new(stream);
    if is_h2 {
        let streams = u32::try_from(in_flight_max).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(OnThisThread);
        builder.max_concurrent_streams(streams).max_header_list_size(HEADERS_MAX).max_send_buf_size(SEND_MAX);
        drive(&client, entrance, idle_timeout, builder.serve_connection(io, service)).await;
    } else {
        let mut builder = http1::Builder::new();
        // Our own idle time-out covers the headers too, for only a whole request counts as activity.
        builder.header_read_timeout(None).max_buf_size(HEADERS_MAX as usize);
        drive(&client, entrance, idle_timeout, builder.serve_connection(io, service)).await;
    }
}

/// Moves a connection until it ends. When it has idled for too long, or the server stops, its client is told, and has a
/// moment to finish.
async fn drive<C: GracefulConnection>(client: &HttpClient, entrance: &Entrance, idle_timeout: Duration, connection: C) {
    let mut connection = pin!(connection);
    let mut idle = pin!(sleep(idle_timeout));
    let stopping = entrance.unless_closed(async {
        loop {
            tokio::select! {
                _ = connection.as_mut() => return true,
                () = idle.as_mut() => {
                    let now = Clock::now();
                    let until = if client.in_flight.get() == 0 { client.active.get() + idle_timeout } else { now + idle_timeout };
                    if until <= now {
                        return false;
                    }
                    idle.as_mut().reset(until);
                }
            }
        }
    });
    if stopping.await == Some(true) {
        return;
    }
    connection.as_mut().graceful_shutdown();
    // What was asked is answered, whoever else misbehaves.
    loop {
        if timeout(SHUTDOWN_MAX, connection.as_mut()).await.is_ok() || client.in_flight.get() == 0 {
            return;
        }
    }
}

/// A client's connection, as its requests see it.
struct HttpClient {
    worker: Rc<Worker>,
    origin: Origin,
    path: Arc<str>,
    /// Queries in flight, those included whose streams the client has reset.
    in_flight: Cell<usize>,
    /// When a query was asked or answered last.
    active: Cell<Clock>,
}

impl HttpClient {
    async fn respond(self: Rc<HttpClient>, request: HttpRequest<Incoming>) -> Response<Full<Bytes>> {
        let is_head = request.method() == Method::HEAD;
        let mut response = match self.query(request).await {
            Ok(query) => self.ask(&query).await,
            Err(response) => *response,
        };
        if is_head {
            *response.body_mut() = Bytes::new();
        }
        if let Some(alternative) = &self.worker.era.borrow().alt_svc {
            response.headers_mut().insert(header::ALT_SVC, alternative.clone());
        }
        response.map(Full::new)
    }

    /// The query of a request, or what to answer instead.
    async fn query(&self, request: HttpRequest<Incoming>) -> Result<Vec<u8>, Box<Response<Bytes>>> {
        let refuse = |refusal: Refusal| Box::new(refusal.response());
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match doh::read_head(&self.path, request.method(), target, content_type).map_err(refuse)? {
            Head::Query(query) => Ok(query),
            Head::Body => {
                let patience = self.worker.era().config.clients.tcp_idle_timeout;
                let body = timeout(patience, Limited::new(request.into_body(), doh::BODY_MAX).collect()).await;
                let body = match body {
                    Ok(Ok(body)) => body.to_bytes(),
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                        return Err(refuse(Refusal::TooLarge));
                    }
                    Ok(Err(_)) => return Err(refuse(Refusal::BadRequest)),
                    Err(_) => {
                        let mut response = Response::new(Bytes::new());
                        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                        return Err(Box::new(response));
                    }
                };
                doh::read_body(&body).map_err(refuse)?;
                Ok(body.into())
            }
        }
    }

    async fn ask(self: &Rc<HttpClient>, query: &[u8]) -> Response<Bytes> {
        // A client that resets its streams is not bound by their number.
        if self.in_flight.get() >= self.worker.era().config.clients.tcp_max_in_flight {
            return doh::unavailable();
        }
        let (answer, answered) = oneshot::channel();
        let now = Clock::now();
        let request = Asked::new(self.clone(), answer, now);
        self.worker.ask(query, Client::Request(Box::new(request)), self.origin, now.into_std());
        answered.await.unwrap_or_else(|_| doh::unavailable())
    }
}

/// A query that waits for its answer.
struct Asked {
    client: Rc<HttpClient>,
    answer: Option<oneshot::Sender<Response<Bytes>>>,
}

impl Asked {
    fn new(client: Rc<HttpClient>, answer: oneshot::Sender<Response<Bytes>>, now: Clock) -> Asked {
        client.in_flight.set(client.in_flight.get() + 1);
        client.active.set(now);
        Asked { client, answer: Some(answer) }
    }
}

impl Request for Asked {
    fn answer(mut self: Box<Self>, message: &[u8]) {
        if let Some(answer) = self.answer.take() {
            // A client that has gone wants no answer.
            let _ = answer.send(doh::response(message));
        }
    }

    fn is_wanted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.client.in_flight.set(self.client.in_flight.get() - 1);
        self.client.active.set(Clock::now());
    }
}

/// Where else the same is to be had (RFC 7838): over HTTP/3, if there is a listener for it.
pub(super) fn alternative(listening: &[Listen]) -> Option<HeaderValue> {
    let h3 = listening.iter().find(|listen| listen.transport == ListenTransport::H3)?;
    HeaderValue::from_str(&format!("h3=\":{}\"; ma=86400", h3.address.port())).ok()
}

/// Runs hyper's tasks on the worker's thread.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Headers of one request, in bytes.
const HEADERS_MAX: u32 = 16 * 1024;

/// Bytes of answers on one stream that wait for a client that reads slowly.
const SEND_MAX: usize = 64 * 1024;

/// For how long a client that was told to leave may stay.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);
