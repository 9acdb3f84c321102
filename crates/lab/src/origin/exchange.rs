//! One request and its answer, over whatever protocol: reads the body as far as the route wants it, and sends the answer with the faults
//! that befall it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::OriginFaults;
use super::body::{Body, PIECE};
use super::counters::class;
use super::route::{self, Plan};
use super::site::Site;

/// One exchange, as its protocol carries it out.
pub(super) trait Exchange: Send {
    /// Whether the request has a body, even one that turns out to be empty.
    fn has_body(&self) -> bool;
    /// The next piece of the request's body; `None` at its end.
    fn body(&mut self) -> impl Future<Output = Result<Option<Bytes>, Gone>> + Send;
    /// The request's trailers, after the end of its body.
    fn trailers(&mut self) -> impl Future<Output = Result<HeaderMap, Gone>> + Send;
    /// Sends 100 (Continue).
    fn proceed(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Sends the head; with `Framing::None` that is the end of the answer.
    fn head(&mut self, head: Response<()>, framing: Framing) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Sends a part of the body.
    fn data(&mut self, piece: Bytes, end: bool) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Sends trailers, which end the answer.
    fn finish(&mut self, trailers: HeaderMap) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Waits, for ever without a time, unless the client gives up.
    fn pause(&mut self, time: Option<Duration>) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Cuts the answer off after what was sent, which is `sent` bytes of its body.
    fn cut(&mut self, cut: Cut, sent: u64) -> impl Future<Output = After> + Send;
}

/// The client has gone, or does not speak the protocol.
#[derive(Debug)]
pub(super) struct Gone;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body follows, whatever content-length says.
    None,
    /// That many bytes follow.
    Length(u64),
    /// Bytes follow, and perhaps trailers.
    Open,
}

/// How an answer breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Reset,
    Close,
    Truncate,
}

/// What becomes of the connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close(crate::CloseKind),
}

/// Where an exchange takes place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) site: Arc<Site>,
    pub(super) connection: u64,
    pub(super) sni: Arc<str>,
    /// Number on its connection, from 1.
    pub(super) request: u32,
}

impl Place {
    /// Answers a request whose head was read.
    pub(super) async fn answer<E: Exchange>(&self, request: &Parts, exchange: &mut E) -> Result<After, Gone> {
        let class = class(&request.method, request.uri.path());
        self.site.count(|counters| counters.request(&class));
        let faults = self.site.faults();
        if faults.ignore_requests {
            exchange.pause(None).await?;
        }
        let mut reader = Reader { site: &self.site, exchange, expects: expects(request) };
        let early = faults.early_status.filter(|_| reader.exchange.has_body());
        let plan = match early.or(faults.status) {
            Some(status) => {
                if early.is_none() {
                    reader.discard().await?;
                }
                Plan::status(status)
            }
            None => route::plan(self, request, &mut reader).await?,
        };
        let delay = self.site.origin.delay + faults.delay;
        if delay > Duration::ZERO {
            exchange.pause(Some(delay)).await?;
        }
        self.send(request, exchange, &faults, plan).await
    }

    async fn send<E: Exchange>(
        &self,
        request: &Parts,
        exchange: &mut E,
        faults: &OriginFaults,
        plan: Plan,
    ) -> Result<After, Gone> {
        let Plan { mut head, body, trailers } = plan;
        self.label(head.headers_mut(), faults);
        let bodiless = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let announced = if trailers.is_some() { None } else { body.announced().filter(|_| !bodiless) };
        if let Some(length) = announced {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        let empty = body.length() == Some(0) && trailers.is_none();
        if request.method == Method::HEAD || bodiless || empty {
            self.site.count(|counters| counters.answers += 1);
            return exchange.head(head, Framing::None).await.map(|()| After::Keep);
        }
        exchange.head(head, announced.map_or(Framing::Open, Framing::Length)).await?;
        let cut = cut_at(faults, &body);
        let (step, pause) = pace(faults, &body);
        let mut sent = 0;
        loop {
            let most = cut.map_or(step, |(at, _)| step.min(at - sent));
            let piece = body.piece(sent, most);
            sent += piece.len() as u64;
            if let Some((at, cut)) = cut
                && sent == at
            {
                exchange.data(piece, false).await?;
                return Ok(exchange.cut(cut, sent).await);
            }
            if body.length() == Some(sent) {
                return self.end(exchange, piece, trailers).await;
            }
            exchange.data(piece, false).await?;
            if pause > Duration::ZERO {
                exchange.pause(Some(pause)).await?;
            }
        }
    }

    async fn end<E: Exchange>(
        &self,
        exchange: &mut E,
        piece: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<After, Gone> {
        // Counted before the client can have it.
        self.site.count(|counters| counters.answers += 1);
        match trailers {
            None => exchange.data(piece, true).await?,
            Some(trailers) => {
                exchange.data(piece, false).await?;
                exchange.finish(trailers).await?;
            }
        }
        Ok(After::Keep)
    }

    fn label(&self, headers: &mut HeaderMap, faults: &OriginFaults) {
        headers.insert(ADDRESS, text(&self.site.ip.to_string()));
        headers.insert(CONNECTION, self.connection.into());
        headers.insert(REQUEST, self.request.into());
        if let Some(after) = &faults.retry_after {
            headers.insert(RETRY_AFTER, text(after));
        }
    }
}

/// Where and how a body breaks off, if it is longer than that.
fn cut_at(faults: &OriginFaults, body: &Body) -> Option<(u64, Cut)> {
    [(faults.reset_mid_body, Cut::Reset), (faults.close_mid_body, Cut::Close), (faults.truncate, Cut::Truncate)]
        .into_iter()
        .filter_map(|(at, cut)| Some((at?, cut)))
        .find(|(at, _)| body.length().is_none_or(|length| length > *at))
}

/// The most bytes at a time, and the time between two pieces.
fn pace(faults: &OriginFaults, body: &Body) -> (u64, Duration) {
    let Some(rate) = faults.bytes_per_second else { return (PIECE as u64, body.pause()) };
    let rate = rate.max(1);
    let step = (rate / PIECES_PER_SECOND).max(1);
    (u64::from(step), Duration::from_secs_f64(f64::from(step) / f64::from(rate)))
}

/// A header's value; one that is none is left empty.
pub(super) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn expects(request: &Parts) -> bool {
    request.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads the body of a request.
pub(super) struct Reader<'a, E> {
    site: &'a Site,
    pub(super) exchange: &'a mut E,
    /// The client waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
}

impl<E: Exchange> Reader<'_, E> {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Gone> {
        if std::mem::take(&mut self.expects) {
            self.exchange.proceed().await?;
        }
        let piece = self.exchange.body().await?;
        if let Some(piece) = &piece {
            self.site.count(|counters| counters.body_bytes += piece.len() as u64);
        }
        Ok(piece)
    }

    pub(super) async fn discard(&mut self) -> Result<(), Gone> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

const ADDRESS: HeaderName = HeaderName::from_static("lab-address");
const CONNECTION: HeaderName = HeaderName::from_static("lab-connection");
const REQUEST: HeaderName = HeaderName::from_static("lab-request");
const PIECES_PER_SECOND: u32 = 20;
