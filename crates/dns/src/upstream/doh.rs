//! Drives one HTTPS connection (RFC 8484): each query a stream of its own, all moved by one task.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind},
    http::{Finished, HttpConnection, HttpDriver, HttpEnd, HttpExchanges, HttpStatus},
};
use tokio::{
    sync::watch,
    time::{Instant as Clock, MissedTickBehavior},
};

use super::{
    connector::{self, DnsConnector},
    endpoint::{Endpoint, count},
    stream::{CHECK, STALLED},
};
use crate::{
    error::{Error, ErrorKind},
    exchange::{Asked, Askers, Batch, Driven, Pipe, closed},
    message,
};

/// `host:port`, without the port where it is the scheme's.
pub(super) fn authority(endpoint: &Endpoint) -> String {
    let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.to_string() };
    if endpoint.port == 443 { host } else { format!("{host}:{}", endpoint.port) }
}

/// Streams that may be used: what the server allows, within our own limit.
pub(super) fn capacity(endpoint: &Endpoint, max_streams: usize) -> u32 {
    connector::capacity(endpoint).min(u32::try_from(max_streams).unwrap_or(u32::MAX))
}

/// Runs until the connection ends or the owner lets go.
pub(super) async fn drive(
    http: HttpConnection,
    driver: HttpDriver,
    pipe: Arc<Pipe>,
    slot: Slot<DnsConnector>,
    endpoint: Arc<Endpoint>,
) {
    let pipe = Driven(pipe);
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = Session::new(http, driver, &slot, &endpoint);
    let (reason, how) = poll_fn(|cx| {
        let now = Clock::now().into_std();
        let end = session.poll(cx, &pipe, now);
        if end.is_ready() {
            return end;
        }
        while check.poll_tick(cx).is_ready() {
            if session.silent(pipe.heard(), now) {
                return Poll::Ready((CloseReason::PeerClosed, "nothing came back"));
            }
        }
        Poll::Pending
    })
    .await;
    slot.closed(reason);
    // GOAWAY may have come with answers still due, and what was reset has its own error: let the streams end, since
    // with the connection gone each of them is ready at once.
    session.exchanges.disconnect();
    pipe.end(&closed(&endpoint.url(), how));
    poll_fn(|cx| session.poll_rest(cx, &pipe)).await;
}

/// How a connection ended, for the pool and for those who wait.
type End = (CloseReason, &'static str);

/// The queries on one connection.
struct Session<'a> {
    exchanges: HttpExchanges<Asked>,
    finished: Vec<Finished<Asked>>,
    batch: Batch,
    askers: Askers,
    slot: &'a Slot<DnsConnector>,
    endpoint: &'a Endpoint,
    status: watch::Receiver<HttpStatus>,
    /// Since when queries wait, or when one of them ended last.
    oldest: Option<Instant>,
    draining: bool,
    /// The streams that the pool was last offered at a check.
    offered: usize,
}

impl<'a> Session<'a> {
    fn new(
        http: HttpConnection,
        driver: HttpDriver,
        slot: &'a Slot<DnsConnector>,
        endpoint: &'a Endpoint,
    ) -> Session<'a> {
        let status = http.subscribe();
        let head = Request::post(format!("https://{}{}", authority(endpoint), endpoint.path))
            .header(header::CONTENT_TYPE, DNS_MESSAGE)
            .header(header::ACCEPT, DNS_MESSAGE)
            .body(())
            .expect("the URL was checked when the config was read");
        let exchanges =
            HttpExchanges::new(http, driver, head, ANSWER_MAX).expect("the URL has its scheme and authority");
        Session {
            exchanges,
            finished: Vec::new(),
            batch: Batch::default(),
            askers: Askers::default(),
            slot,
            endpoint,
            status,
            oldest: None,
            draining: false,
            offered: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe, now: Instant) -> Poll<End> {
        if !pipe.take(cx, &mut self.batch, &mut self.askers) {
            return Poll::Ready((CloseReason::Drained, "the connection was let go"));
        }
        let mut end = self.send(cx, now);
        if end.is_pending() {
            end = self.exchanges.poll(cx, &mut self.finished);
        }
        if self.status.has_changed().unwrap_or(false) {
            let status = *self.status.borrow_and_update();
            self.draining |= status.going_away;
            note(status, self.endpoint, self.slot);
        }
        self.receive(pipe, now);
        end.map(|end| match end {
            HttpEnd::GoAway => (CloseReason::GoAway, "the upstream said goodbye"),
            HttpEnd::Closed | HttpEnd::Released => (CloseReason::PeerClosed, "the upstream closed the connection"),
            HttpEnd::Error(_) => (CloseReason::PeerReset, "the connection broke"),
        })
    }

    /// Gives what is left its end, once the connection is gone.
    fn poll_rest(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<()> {
        let rest = self.exchanges.poll_rest(cx, &mut self.finished);
        self.receive(pipe, Clock::now().into_std());
        rest
    }

    /// Starts a request for each query that was handed over. Ready, once, if the connection ends meanwhile.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<HttpEnd> {
        let mut end = Poll::Pending;
        if self.batch.items.is_empty() {
            return end;
        }
        self.oldest.get_or_insert(now);
        // One buffer for all bodies; the connection lets go of it once they are written.
        let bytes = Bytes::copy_from_slice(&self.batch.bytes);
        let mut at = 0;
        let one_by_one = self.endpoint.one_by_one.load(Ordering::Relaxed);
        for item in self.batch.items.drain(..) {
            // RFC 8484 section 4.1: id 0, so that HTTP caches can work. The message comes in with id 0.
            let query = bytes.slice(at..at + item.len);
            at += item.len;
            let asked = item.asked(&query);
            self.exchanges.start(query, asked);
            if one_by_one && end.is_pending() {
                end = self.exchanges.poll(cx, &mut self.finished);
            }
        }
        end
    }

    /// Learns from a stream that the server refused although it had room for it. Knot Resolver refuses those that begin
    /// before the request of another has ended, as all that leave together do: their heads first, and then their bodies.
    fn learn(&self, error: &TransportError) {
        let status = *self.status.borrow();
        let refused = error.is_retryable() && error.kind() == TransportKind::Http2 && !status.going_away;
        if refused && self.exchanges.len() < status.max_streams {
            self.endpoint.one_by_one.store(true, Ordering::Relaxed);
        }
    }

    /// Hands on what came of the requests that have ended.
    fn receive(&mut self, pipe: &Pipe, now: Instant) {
        if self.finished.is_empty() {
            return;
        }
        let mut heard = false;
        let mut finished = std::mem::take(&mut self.finished);
        for (asked, result) in finished.drain(..) {
            if let Err(error) = &result {
                self.learn(error);
            }
            let result = judge(&asked, result, self.endpoint, self.slot, &self.status);
            match result {
                Ok(answer) => {
                    heard = true;
                    self.askers.answer(asked.asker, asked.token, &answer);
                }
                Err(error) => {
                    heard |= error.kind() == ErrorKind::Http;
                    if error.kind() == ErrorKind::Mismatch {
                        count(&self.endpoint.counters.wrong_answers);
                        self.slot.drain();
                    }
                    self.askers.fail(&asked.asker, asked.token, error);
                }
            }
        }
        self.finished = finished;
        if heard {
            pipe.hear(now);
        }
        self.oldest = (!self.exchanges.is_empty()).then_some(now);
        self.askers.deliver();
    }

    /// Whether the server has gone silent: queries wait and nothing came of any for long. A little earlier the connection
    /// gets no new ones.
    fn silent(&mut self, heard: Instant, now: Instant) -> bool {
        let streams = self.status.borrow().max_streams;
        if streams != self.offered && !self.draining {
            // The guess was wrong, and SETTINGS with the protocol's default are no change to be told of.
            self.offered = streams;
            self.slot.set_capacity(capacity(self.endpoint, streams));
        }
        let Some(oldest) = self.oldest else { return false };
        let silence = now.saturating_duration_since(heard.max(oldest));
        if silence >= STALLED && !self.draining {
            self.draining = true;
            self.slot.drain();
        }
        silence >= self.endpoint.timeout().max(STALLED * 2)
    }
}

/// Tells the pool what the server allows now.
fn note(status: HttpStatus, endpoint: &Endpoint, slot: &Slot<DnsConnector>) {
    if status.going_away {
        slot.drain();
    } else {
        endpoint.streams_seen.store(status.max_streams, Ordering::Relaxed);
        slot.set_capacity(capacity(endpoint, status.max_streams));
    }
}

/// What a request's end means for its query.
fn judge(
    asked: &Asked,
    result: Result<Response<Bytes>, TransportError>,
    endpoint: &Endpoint,
    slot: &Slot<DnsConnector>,
    status: &watch::Receiver<HttpStatus>,
) -> Result<Bytes, Error> {
    match result {
        Ok(response) => answer(&asked.head, response, endpoint),
        // A query may be repeated safely: what lost its connection goes over a fresh one.
        Err(error) if matches!(error.kind(), TransportKind::Protocol | TransportKind::TimedOut(_)) => Err(error.into()),
        Err(error) if error.is_retryable() => {
            // Before the query goes elsewhere, the pool knows why this connection did not take it.
            note(*status.borrow(), endpoint, slot);
            Err(error.into())
        }
        Err(error) => Err(Error::from(error).or_fresh()),
    }
}

/// RFC 8484 section 4.2.1: only a 2xx status with the right content type is an answer.
fn answer(head: &[u8], response: Response<Bytes>, endpoint: &Endpoint) -> Result<Bytes, Error> {
    let refuse = |text: String| Err(Error::new(ErrorKind::Http, format!("query to {}: {text}", endpoint.url())));
    if response.status() != StatusCode::OK {
        return refuse(format!("http status {}", response.status().as_u16()));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let is_dns = content_type.is_some_and(|value| {
        let essence = value.split(|&byte| byte == b';').next().unwrap_or(value);
        essence.trim_ascii().eq_ignore_ascii_case(DNS_MESSAGE.as_bytes())
    });
    if !is_dns {
        return refuse("the content type is not application/dns-message".into());
    }
    let body = response.into_body();
    if !message::answer_matches(head, &body, false, true) {
        let text = format!("query to {}: the answer was to another question", endpoint.url());
        return Err(Error::new(ErrorKind::Mismatch, text).or_fresh());
    }
    Ok(body)
}

const DNS_MESSAGE: &str = "application/dns-message";

/// The largest DNS message.
const ANSWER_MAX: usize = 65_535;
