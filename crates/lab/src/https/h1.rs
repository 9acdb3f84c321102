//! DNS over HTTP/1.1: one exchange at a time, so that a query simply waits for its answer here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{Asked, BODY_MAX, refusal, response};
use crate::CloseKind;
use crate::answer::header_only;
use crate::core::{Fate, Target, now};
use crate::socket::{Connection, Stream};
use crate::stream::{SHUTDOWN_MAX, sleep_until};
use crate::wire::{Bad, Query};

/// Serves one connection to its end.
pub(crate) async fn serve(mut connection: Connection, stream: Stream) {
    let exchanges = Arc::new(Exchanges {
        connection: connection.clone(),
        received: AtomicU32::new(0),
        active_at: Mutex::new(now()),
        reset: Notify::new(),
    });
    let service = {
        let exchanges = Arc::clone(&exchanges);
        service_fn(move |request| Arc::clone(&exchanges).answer(request))
    };
    // A client that closes its sending side early still gets its answer, as over TCP.
    let mut http = Box::pin(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service));
    let mut force_at = None;
    let kind = loop {
        let quiet = connection.meter.in_flight() == 0;
        let idle_close = connection.control.borrow().faults.idle_close.filter(|_| quiet && force_at.is_none());
        let idle_at = idle_close.map(|(after, _)| *exchanges.active_at.lock() + after);
        let close = tokio::select! {
            // The stream has counted which side ended it.
            _ = http.as_mut() => {
                drop(http);
                return connection.drain().await;
            }
            close = connection.changed() => close,
            () = sleep_until(idle_at), if idle_at.is_some() => {
                // A query may have come since; hyper does not tell.
                let idle_for = now().saturating_duration_since(*exchanges.active_at.lock());
                idle_close
                    .filter(|(after, _)| idle_for >= *after && connection.meter.in_flight() == 0)
                    .map(|(_, kind)| kind)
            }
            () = exchanges.reset.notified() => Some(CloseKind::Reset),
            () = sleep_until(force_at), if force_at.is_some() => Some(CloseKind::Fin),
        };
        match close {
            Some(CloseKind::Notify) => {
                http.as_mut().graceful_shutdown();
                force_at = Some(now() + FORCE_AFTER);
            }
            Some(kind) => break kind,
            None => {}
        }
    };
    connection.end((http, exchanges), kind).await;
}

/// What the exchanges of one connection share.
struct Exchanges {
    connection: Connection,
    received: AtomicU32,
    active_at: Mutex<Instant>,
    reset: Notify,
}

impl Exchanges {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        *self.active_at.lock() = now();
        let message = match Asked::of(&request) {
            Asked::Message(message) => message,
            Asked::Body => match Limited::new(request.into_body(), BODY_MAX).collect().await {
                Ok(body) => body.to_bytes().into(),
                Err(_) => return Ok(self.refuse(StatusCode::PAYLOAD_TOO_LARGE)),
            },
            Asked::Refused(status) => return Ok(self.refuse(status)),
        };
        let connection = &self.connection;
        let (answer, close) = match Query::parse(&message) {
            Ok(query) => self.resolve(query).await,
            Err(Bad::Ignore) => return Ok(self.refuse(StatusCode::BAD_REQUEST)),
            Err(Bad::Answer { id, rcode }) => {
                connection.core.tally(connection.transport).bad();
                (header_only(id, rcode), false)
            }
        };
        *self.active_at.lock() = now();
        let (head, body) = response(&connection.core.faults(), answer);
        let mut response = head.map(|()| Full::new(body));
        if close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    fn refuse(&self, status: StatusCode) -> Response<Full<Bytes>> {
        self.connection.core.tally(self.connection.transport).bad();
        refusal(status).map(|()| Full::default())
    }

    /// The answer, and whether the connection ends with it. Waits for ever if there is none.
    async fn resolve(&self, query: Query) -> (Vec<u8>, bool) {
        let connection = &self.connection;
        let faults = connection.core.faults();
        connection.meter.query();
        let received = self.received.fetch_add(1, Ordering::Relaxed) + 1;
        if faults.reset_after.is_some_and(|count| received > count) {
            self.reset.notify_one();
            return std::future::pending().await;
        }
        let (replies, mut ready) = mpsc::unbounded_channel();
        let target = Target::Connection { replies, ticket: 0 };
        if connection.core.submit(connection.transport, query, target) == Fate::Lost {
            connection.meter.answered(0);
            return std::future::pending().await;
        }
        let Some(reply) = ready.recv().await else { return std::future::pending().await };
        connection.meter.answered(1);
        let message = reply.messages.into_iter().next_back().unwrap_or_default();
        (message, faults.close_after.is_some_and(|count| received >= count))
    }
}

/// An exchange under way when the connection is to end gets this long.
const FORCE_AFTER: std::time::Duration = SHUTDOWN_MAX.saturating_mul(5);
