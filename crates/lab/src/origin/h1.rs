//! Serves one HTTP/1.1 connection by hand, so that every way in which a server may end an answer or a connection is at hand.

mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::server::TlsStream;

use self::message::{Bad, Incoming, Step};
use super::connection::{Connection, Life};
use super::exchange::{After, Cut, Exchange, Framing, Gone, Place, text};
use super::site::Site;
use crate::CloseKind;
use crate::core::now;
use crate::counters::ClosedBy;
use crate::socket::Shared;
use crate::stream::{SHUTDOWN_MAX, sleep_until};

/// Serves one connection to its end.
pub(super) async fn serve(mut connection: Connection, tls: TlsStream<Shared>) {
    let mut link = Link {
        tls,
        life: Arc::clone(&connection.life),
        input: BytesMut::with_capacity(4096),
        output: BytesMut::new(),
        closing: Arc::new(AtomicBool::new(false)),
    };
    let mut requests = 0;
    let kind = loop {
        let request = match next(&mut connection, &mut link).await {
            Next::Request(request) => *request,
            Next::End(kind) => break kind,
            Next::Gone => {
                drop(link);
                return connection.drain().await;
            }
        };
        requests += 1;
        match exchange(&mut connection, &mut link, request, requests).await {
            After::Keep => {}
            After::Close(kind) => break kind,
        }
    };
    if kind == CloseKind::Notify {
        connection.life.closed(ClosedBy::Lab);
        // Only a peer that does not read can make this wait.
        let _ = tokio::time::timeout(SHUTDOWN_MAX, link.tls.shutdown()).await;
    }
    connection.end(link, kind).await;
}

/// What ends the wait for a request.
enum Next {
    Request(Box<Request<()>>),
    End(CloseKind),
    Gone,
}

async fn next(connection: &mut Connection, link: &mut Link) -> Next {
    let idle_since = now();
    loop {
        match message::take_head(&mut link.input) {
            Ok(Some(request)) => return Next::Request(Box::new(request)),
            Ok(None) => {}
            Err(Bad) => return link.refuse().await,
        }
        let faults = connection.faults();
        let idle_at: Option<Instant> =
            faults.close_idle.filter(|_| link.input.is_empty()).map(|after| idle_since + after);
        tokio::select! {
            orders = connection.changed() => {
                if orders.reset {
                    return Next::End(CloseKind::Reset);
                }
                if link.input.is_empty() && orders.close_idle {
                    return Next::End(connection.faults().close_kind);
                }
                if link.input.is_empty() && orders.goaway {
                    return Next::End(CloseKind::Notify);
                }
                link.close_later(orders.goaway);
            }
            filled = link.fill() => if filled.is_err() {
                return Next::Gone;
            },
            () = sleep_until(idle_at), if idle_at.is_some() => return Next::End(faults.close_kind),
        }
    }
}

async fn exchange(connection: &mut Connection, link: &mut Link, request: Request<()>, number: u32) -> After {
    let site = Arc::clone(&connection.site);
    let faults = connection.faults();
    link.close_later(
        faults.connection_close
            || faults.goaway_after.is_some_and(|count| number >= count)
            || message::wants_close(&request),
    );
    let Ok(incoming) = Incoming::of(&request) else {
        let _ = link.refuse().await;
        return After::Close(CloseKind::Notify);
    };
    let closing = Arc::clone(&link.closing);
    let place = Place {
        site: Arc::clone(&site),
        connection: connection.number,
        sni: Arc::clone(&connection.sni),
        request: number,
    };
    let mut exchange = H1Exchange {
        has_body: !incoming.is_done(),
        incoming,
        keep_alive: faults.keep_alive_header.clone(),
        http10: request.version() == Version::HTTP_10,
        chunked: false,
        open: Some(Open::new(site)),
        link,
    };
    let (parts, ()) = request.into_parts();
    let mut answer = Box::pin(place.answer(&parts, &mut exchange));
    let answered = loop {
        tokio::select! {
            // First, since an order given once the answer was read is for an idle connection.
            biased;
            answered = &mut answer => break answered,
            orders = connection.changed() => {
                if orders.reset {
                    return After::Close(CloseKind::Reset);
                }
                closing.fetch_or(orders.goaway, Ordering::Relaxed);
            }
        }
    };
    drop(answer);
    match answered {
        Ok(After::Keep) if exchange.ends_connection() => After::Close(CloseKind::Notify),
        Ok(after) => after,
        Err(Gone) => {
            if connection.life.ended_by_peer() {
                connection.site.count(|counters| counters.aborted += 1);
            }
            After::Close(CloseKind::Fin)
        }
    }
}

/// The stream and its buffers.
struct Link {
    tls: TlsStream<Shared>,
    life: Arc<Life>,
    input: BytesMut,
    output: BytesMut,
    /// The connection ends after this exchange.
    closing: Arc<AtomicBool>,
}

impl Link {
    /// Reads some more. Cancel safe.
    async fn fill(&mut self) -> Result<(), Gone> {
        if self.input.len() >= INPUT_MAX {
            // Nobody takes it: the peer sends more than the exchange reads.
            return std::future::pending().await;
        }
        match self.tls.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => {
                self.life.closed(ClosedBy::Peer);
                Err(Gone)
            }
            Ok(_) => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let written = async {
            self.tls.write_all(&self.output).await?;
            self.tls.flush().await
        }
        .await;
        self.output.clear();
        written.map_err(|_| {
            self.life.closed(ClosedBy::Peer);
            Gone
        })
    }

    async fn refuse(&mut self) -> Next {
        self.output.extend_from_slice(BAD_REQUEST);
        match self.flush().await {
            Ok(()) => Next::End(CloseKind::Notify),
            Err(Gone) => Next::Gone,
        }
    }

    fn close_later(&self, wanted: bool) {
        self.closing.fetch_or(wanted, Ordering::Relaxed);
    }
}

/// Counts an exchange as open.
struct Open(Arc<Site>);

impl Open {
    fn new(site: Arc<Site>) -> Self {
        site.count(|counters| counters.open_stream(1));
        Self(site)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counters| counters.streams_open -= 1);
    }
}

struct H1Exchange<'a> {
    link: &'a mut Link,
    incoming: Incoming,
    has_body: bool,
    keep_alive: Option<String>,
    http10: bool,
    chunked: bool,
    open: Option<Open>,
}

impl H1Exchange<'_> {
    fn ends_connection(&self) -> bool {
        self.link.closing.load(Ordering::Relaxed)
    }

    fn label(&mut self, headers: &mut HeaderMap, framing: Framing) {
        self.chunked = framing == Framing::Open && !self.http10;
        // With an unread body, or an answer that only its end ends, a connection is of no further use.
        self.link.close_later(!self.incoming.is_done() || (framing == Framing::Open && self.http10));
        if self.chunked {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if self.http10 {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        if let Some(value) = &self.keep_alive {
            headers.insert(KEEP_ALIVE, text(value));
        }
    }

    async fn write_end(&mut self) -> Result<(), Gone> {
        // Counted before the client can see the end.
        self.open = None;
        self.link.flush().await
    }
}

impl Exchange for H1Exchange<'_> {
    fn has_body(&self) -> bool {
        self.has_body
    }

    async fn body(&mut self) -> Result<Option<Bytes>, Gone> {
        loop {
            match self.incoming.take(&mut self.link.input) {
                Ok(Step::Piece(piece)) => return Ok(Some(piece)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::More) => self.link.fill().await?,
                Err(Bad) => return Err(Gone),
            }
        }
    }

    async fn trailers(&mut self) -> Result<HeaderMap, Gone> {
        Ok(self.incoming.take_trailers())
    }

    async fn proceed(&mut self) -> Result<(), Gone> {
        self.link.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.link.flush().await
    }

    async fn head(&mut self, mut head: Response<()>, framing: Framing) -> Result<(), Gone> {
        self.label(head.headers_mut(), framing);
        message::put_head(&mut self.link.output, &head);
        if framing == Framing::None { self.write_end().await } else { Ok(()) }
    }

    async fn data(&mut self, piece: Bytes, end: bool) -> Result<(), Gone> {
        message::put_piece(&mut self.link.output, &piece, self.chunked);
        if !end {
            return self.link.flush().await;
        }
        if self.chunked {
            message::put_last_chunk(&mut self.link.output, &HeaderMap::new());
        }
        self.write_end().await
    }

    async fn finish(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        if self.chunked {
            message::put_last_chunk(&mut self.link.output, &trailers);
        }
        self.write_end().await
    }

    async fn pause(&mut self, time: Option<Duration>) -> Result<(), Gone> {
        let wait = sleep_until(time.map(|time| now() + time));
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => return Ok(()),
                filled = self.link.fill() => filled?,
            }
        }
    }

    async fn cut(&mut self, cut: Cut, _sent: u64) -> After {
        After::Close(match cut {
            Cut::Reset => CloseKind::Reset,
            Cut::Close => CloseKind::Fin,
            Cut::Truncate => CloseKind::Notify,
        })
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Read ahead at most this much.
const INPUT_MAX: usize = 131_072;
