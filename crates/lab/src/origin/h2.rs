//! Serves one h2 connection: one task for all of its streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio_rustls::server::TlsStream;

use super::OriginFaults;
use super::connection::{Connection, Orders};
use super::exchange::{After, Cut, Exchange, Framing, Gone, Place};
use super::wire::{Tap, Wire};
use crate::CloseKind;
use crate::core::now;
use crate::counters::ClosedBy;
use crate::socket::Shared;
use crate::stream::{SHUTDOWN_MAX, sleep_until};

type H2 = h2::server::Connection<Tap, Bytes>;
type Answering = Pin<Box<dyn Future<Output = After> + Send>>;

/// Serves one connection to its end.
pub(super) async fn serve(mut connection: Connection, tls: TlsStream<Shared>) {
    let wire = Wire::new(Arc::clone(&connection.site), Arc::clone(&connection.life), limit(&connection.faults()));
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(Tap::new(tls, Arc::clone(&wire)));
    let h2 = tokio::select! {
        shaken = handshake => match shaken {
            Ok(h2) => h2,
            Err(_) => return,
        },
        () = connection.reset() => return connection.end((), CloseKind::Reset).await,
    };
    let mut session = Session {
        connection,
        wire,
        exchanges: FuturesUnordered::new(),
        arrived: 0,
        processed: 0,
        active_at: now(),
        settings_due: false,
        shutdown: Shutdown::No,
        force_at: None,
    };
    // What was changed during the handshake.
    session.see_faults();
    session.run(h2).await;
}

struct Session {
    connection: Connection,
    wire: Arc<Wire>,
    exchanges: FuturesUnordered<Answering>,
    /// Streams opened up to now.
    arrived: u32,
    /// Of these, those that were not refused.
    processed: u32,
    active_at: Instant,
    /// The limit of streams has changed, and SETTINGS must say so.
    settings_due: bool,
    shutdown: Shutdown,
    /// When a shutdown that has nothing to wait for but its peer is cut short.
    force_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    /// -> `Told` as soon as the connection has been told.
    Wanted,
    /// Streams are served until the connection says that it is over.
    Told,
}

impl Session {
    async fn run(mut self, mut h2: H2) {
        let kind = loop {
            self.tell(&mut h2);
            let busy = !self.exchanges.is_empty();
            let quiet = self.is_quiet();
            let idle_close = self.idle_close().filter(|_| quiet);
            let idle_at = idle_close.map(|(after, _)| self.active_at + after);
            let end = tokio::select! {
                orders = self.connection.changed() => self.obey(orders),
                accepted = h2.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        self.take(request, respond);
                        None
                    }
                    // The tap has counted which side ended it.
                    Some(Err(_)) | None => {
                        drop(h2);
                        self.exchanges.clear();
                        return self.connection.drain().await;
                    }
                },
                Some(after) = self.exchanges.next(), if busy => {
                    self.active_at = now();
                    match after {
                        After::Keep => None,
                        After::Close(kind) => Some(kind),
                    }
                }
                () = self.wire.quiet(), if !busy && !quiet => None,
                () = self.wire.settled(), if self.settings_due => None,
                () = sleep_until(idle_at), if idle_at.is_some() => self.end_idle(),
                () = sleep_until(self.force_at), if self.force_at.is_some() => Some(CloseKind::Fin),
            };
            if let Some(kind) = end {
                break kind;
            }
        };
        self.connection.end((h2, self.exchanges), kind).await;
    }

    /// Hands over what the connection has to say, and looks whether a shutdown is through.
    fn tell(&mut self, h2: &mut H2) {
        // SETTINGS with a value that changes nothing; the tap adds the limit. Refused while earlier ones are not acknowledged.
        if self.settings_due && h2.set_initial_window_size(WINDOW).is_ok() {
            self.settings_due = false;
        }
        if self.shutdown == Shutdown::Wanted {
            h2.graceful_shutdown();
            self.shutdown = Shutdown::Told;
        }
        if self.shutdown == Shutdown::Told && self.is_quiet() {
            // A client that has seen the GOAWAY and its last answer may close first, but the lab ended the connection.
            self.connection.life.closed(ClosedBy::Lab);
            self.force_at.get_or_insert_with(|| now() + SHUTDOWN_MAX);
        }
    }

    fn obey(&mut self, orders: Orders) -> Option<CloseKind> {
        self.see_faults();
        if orders.reset {
            return Some(CloseKind::Reset);
        }
        if orders.goaway {
            self.go_away();
        }
        if orders.close_idle && self.is_quiet() { self.end_idle() } else { None }
    }

    fn see_faults(&mut self) {
        self.settings_due |= self.wire.set_limit(limit(&self.connection.faults()));
    }

    fn idle_close(&self) -> Option<(Duration, CloseKind)> {
        let faults = self.connection.faults();
        faults.close_idle.filter(|_| self.shutdown == Shutdown::No).map(|after| (after, faults.close_kind))
    }

    fn end_idle(&mut self) -> Option<CloseKind> {
        match self.connection.faults().close_kind {
            CloseKind::Notify => {
                self.go_away();
                None
            }
            kind => Some(kind),
        }
    }

    fn go_away(&mut self) {
        if self.shutdown == Shutdown::No {
            self.shutdown = Shutdown::Wanted;
        }
    }

    fn is_quiet(&self) -> bool {
        self.exchanges.is_empty() && self.wire.is_quiet()
    }

    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.active_at = now();
        self.arrived += 1;
        let faults = self.connection.faults();
        let id = respond.stream_id().as_u32();
        let by_fault = faults.refuse_stream_every.is_some_and(|every| every > 0 && self.arrived.is_multiple_of(every));
        if by_fault || self.wire.is_cut(id) || self.wire.is_over_limit(id) {
            self.connection.site.count(|counters| counters.refused += 1);
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        self.processed += 1;
        if faults.goaway_after.is_some_and(|count| self.processed >= count) && self.shutdown == Shutdown::No {
            if faults.goaway_cuts {
                self.wire.set_last(id);
            }
            self.go_away();
        }
        let place = Place {
            site: Arc::clone(&self.connection.site),
            connection: self.connection.number,
            sni: Arc::clone(&self.connection.sni),
            request: self.processed,
        };
        let (parts, body) = request.into_parts();
        let mut exchange = H2Exchange { id, wire: Arc::clone(&self.wire), body, respond, send: None };
        self.exchanges.push(Box::pin(async move {
            // A stream that its client has given up takes no answer; that is no error here.
            place.answer(&parts, &mut exchange).await.unwrap_or(After::Keep)
        }));
    }
}

fn limit(faults: &OriginFaults) -> u32 {
    faults.max_streams.unwrap_or(STREAMS_MAX).min(STREAMS_MAX)
}

struct H2Exchange {
    id: u32,
    wire: Arc<Wire>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// Since the head was sent.
    send: Option<SendStream<Bytes>>,
}

impl H2Exchange {
    fn stream(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        self.send.as_mut().ok_or(Gone)
    }
}

impl Exchange for H2Exchange {
    fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    async fn body(&mut self) -> Result<Option<Bytes>, Gone> {
        let Some(piece) = self.body.data().await else { return Ok(None) };
        let piece = piece.map_err(|_| Gone)?;
        self.body.flow_control().release_capacity(piece.len()).map_err(|_| Gone)?;
        Ok(Some(piece))
    }

    async fn trailers(&mut self) -> Result<HeaderMap, Gone> {
        self.body.trailers().await.map(Option::unwrap_or_default).map_err(|_| Gone)
    }

    async fn proceed(&mut self) -> Result<(), Gone> {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::CONTINUE;
        self.respond.send_informational(head).map_err(|_| Gone)
    }

    async fn head(&mut self, head: Response<()>, framing: Framing) -> Result<(), Gone> {
        self.send = Some(self.respond.send_response(head, framing == Framing::None).map_err(|_| Gone)?);
        Ok(())
    }

    async fn data(&mut self, mut piece: Bytes, end: bool) -> Result<(), Gone> {
        let stream = self.stream()?;
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len());
            let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Err(Gone) };
            let part = piece.split_to(room.min(piece.len()));
            let last = end && piece.is_empty();
            if !part.is_empty() {
                stream.send_data(part, last).map_err(|_| Gone)?;
            }
            if last {
                return Ok(());
            }
        }
        if end {
            stream.send_data(Bytes::new(), true).map_err(|_| Gone)?;
        }
        Ok(())
    }

    async fn finish(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        self.stream()?.send_trailers(trailers).map_err(|_| Gone)
    }

    async fn pause(&mut self, time: Option<Duration>) -> Result<(), Gone> {
        let given_up = poll_fn(|cx| match &mut self.send {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        tokio::select! {
            _ = given_up => Err(Gone),
            () = sleep_until(time.map(|time| now() + time)) => Ok(()),
        }
    }

    async fn cut(&mut self, cut: Cut, sent: u64) -> After {
        // Resetting a stream or closing the connection would take with it what still waits to be written.
        self.wire.sent(self.id, sent).await;
        match (cut, self.stream()) {
            (Cut::Close, _) => return After::Close(CloseKind::Fin),
            (Cut::Reset, Ok(stream)) => stream.send_reset(Reason::INTERNAL_ERROR),
            (Cut::Truncate, Ok(stream)) => {
                let _ = stream.send_data(Bytes::new(), true);
            }
            (_, Err(Gone)) => {}
        }
        After::Keep
    }
}

/// What SETTINGS announces if no fault says otherwise, and the most that the h2 crate accepts.
const STREAMS_MAX: u32 = 1_000;
const WINDOW: u32 = 1 << 20;
