//! Drives one HTTPS connection (RFC 8484): each query a stream of its own, all polled by one task.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Method, Request, Response, StatusCode, header};
use keepwarm_pool::{CloseReason, Slot};
use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind},
    http::{HttpConnection, HttpDriver, HttpEnd, HttpStatus},
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
    exchange::{Batch, Item, Pipe, closed},
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
    let mut driver = driver;
    let mut status = http.subscribe();
    let latest = http.subscribe();
    let mut streams = FuturesUnordered::new();
    let mut batch = Batch::default();
    let uri = format!("https://{}{}", authority(&endpoint), endpoint.path);
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut oldest = None;
    let mut draining = false;
    let mut offered = 0;
    let (reason, how) = loop {
        if !pipe.take(&mut batch) {
            break (CloseReason::Drained, "the connection was let go");
        }
        let mut at = 0;
        for item in batch.items.drain(..) {
            // RFC 8484 section 4.1: id 0, so that HTTP caches can work. The message comes in with id 0.
            let query = Bytes::copy_from_slice(&batch.bytes[at..at + item.len]);
            at += item.len;
            let request = Request::builder()
                .method(Method::POST)
                .uri(&uri)
                .header(header::CONTENT_TYPE, DNS_MESSAGE)
                .header(header::ACCEPT, DNS_MESSAGE)
                .body(query.clone())
                .expect("the URL was checked when the config was read");
            streams.push(exchange(item, query, http.send(request, ANSWER_MAX), &endpoint, &slot, &latest));
            oldest.get_or_insert_with(|| Clock::now().into_std());
        }
        tokio::select! {
            biased;
            Some(progress) = streams.next(), if !streams.is_empty() => {
                let now = Clock::now().into_std();
                match progress {
                    Progress::Answered => pipe.hear(now),
                    Progress::Mixed => slot.drain(),
                    Progress::Failed => {}
                }
                oldest = (!streams.is_empty()).then_some(now);
            }
            end = &mut driver => break match end {
                HttpEnd::GoAway => (CloseReason::GoAway, "the upstream said goodbye"),
                HttpEnd::Closed | HttpEnd::Released => (CloseReason::PeerClosed, "the upstream closed the connection"),
                HttpEnd::Error(_) => (CloseReason::PeerReset, "the connection broke"),
            },
            () = pipe.changed() => {}
            Ok(()) = status.changed() => {
                let now = *status.borrow_and_update();
                draining |= now.going_away;
                note(now, &endpoint, &slot);
            }
            _ = check.tick() => {
                let now = Clock::now().into_std();
                let streams = http.max_streams();
                if streams != offered && !draining {
                    // The guess was wrong, and SETTINGS with the protocol's default are no change to be told of.
                    offered = streams;
                    slot.set_capacity(capacity(&endpoint, streams));
                }
                if let Some(oldest) = oldest {
                    let silence = now.saturating_duration_since(pipe.heard().max(oldest));
                    if silence >= STALLED && !draining {
                        draining = true;
                        slot.drain();
                    }
                    if silence >= endpoint.timeout.max(STALLED * 2) {
                        break (CloseReason::PeerClosed, "nothing came back");
                    }
                }
            }
        }
    };
    slot.closed(reason);
    // GOAWAY may have come with answers still due, and what was reset has its own error: let the streams end, since
    // with the connection gone each of them is ready at once.
    drop(driver);
    drop(http);
    let error = closed(&endpoint.url(), how);
    pipe.end(&error);
    while streams.next().await.is_some() {}
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

/// How a stream ended.
enum Progress {
    Answered,
    Mixed,
    Failed,
}

async fn exchange(
    item: Item,
    query: Bytes,
    response: impl Future<Output = Result<Response<Bytes>, TransportError>>,
    endpoint: &Endpoint,
    slot: &Slot<DnsConnector>,
    latest: &watch::Receiver<HttpStatus>,
) -> Progress {
    let result = match response.await {
        Ok(response) => answer(&query[..item.question_end], response, endpoint),
        // A query may be repeated safely: what lost its connection goes over a fresh one.
        Err(error) if matches!(error.kind(), TransportKind::Protocol | TransportKind::TimedOut(_)) => Err(error.into()),
        Err(error) if error.is_retryable() => {
            // Before the query goes elsewhere, the pool knows why this connection did not take it.
            note(*latest.borrow(), endpoint, slot);
            Err(error.into())
        }
        Err(error) => Err(Error::from(error).or_fresh()),
    };
    let progress = match &result {
        Ok(_) => Progress::Answered,
        Err(error) if error.kind() == ErrorKind::Mismatch => {
            count(&endpoint.counters.wrong_answers);
            Progress::Mixed
        }
        Err(error) if error.kind() == ErrorKind::Http => Progress::Answered,
        Err(_) => Progress::Failed,
    };
    item.replies.reply(item.token, result);
    progress
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
