//! One client's connection: HTTP/1.1 by hyper, its limits, and how it ends.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Version};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
};

use super::{
    Counters, Place, Shared,
    io_limits::{ClientIo, Stage, linger},
    listener::Door,
};

/// Counts a connection as open until it is dropped.
struct Open<'a> {
    counters: &'a Counters,
    is_served: bool,
}

impl<'a> Open<'a> {
    fn new(counters: &'a Counters) -> Open<'a> {
        Counters::count(&counters.accepted);
        counters.clients.fetch_add(1, Ordering::Relaxed);
        counters.unserved.fetch_add(1, Ordering::Relaxed);
        Open { counters, is_served: false }
    }

    /// Nothing is left to be sent: from here on the end cuts nothing off.
    fn served(&mut self) {
        if !std::mem::replace(&mut self.is_served, true) {
            self.counters.unserved.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.served();
        self.counters.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a client until it goes, until a limit ends it, or until its door closes and its answer has ended.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, door: Arc<Door>, _place: Place) {
    let mut closing = door.closing();
    let mut open = Open::new(&shared.counters);
    // Without it the end of an answer may wait for the client's acknowledgement; when this fails the connection has ended.
    let _ = stream.set_nodelay(true);
    let stage = Stage::default();
    let service = service_fn(|request: Request<Incoming>| {
        // Not in the future, which hyper may poll only after it has read on.
        stage.began(request.version() < Version::HTTP_11);
        let answer = shared.clone().answer(door.clone(), request, stage.clone());
        // Boxed, since hyper moves it.
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    let io = TokioIo::new(ClientIo::new(stream, stage.clone()));
    let mut connection = builder().serve_connection(io, service);
    let ended = tokio::select! {
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(result),
        () = told(&mut closing) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            let is_idle = stage.is_idle();
            Pin::new(&mut connection).graceful_shutdown();
            // With its shutdown, which sends first what is left: the end of the last answer may still be on its way.
            match (&mut connection).now_or_never() {
                Some(Ok(())) if is_idle => return,
                Some(result) => result,
                None => (&mut connection).await,
            }
        }
    };
    open.served();
    match result {
        Ok(()) => connection.into_parts().io.into_inner().close(LINGER).await,
        Err(error) => tracing::debug!(%error, "a connection of the gateway failed"),
    }
}

async fn told(closing: &mut watch::Receiver<bool>) {
    // An error means that the gateway is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Says that there are too many.
pub(super) async fn turn_away(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let text = "the gateway serves as many clients as it may: try again, or raise max_clients in [https]\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         keepwarm-error: too_many_clients\r\nretry-after: 1\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, stream.write_all(answer.as_bytes())).await {
        linger(&mut stream, LINGER).await;
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(BUFFER_MAX);
    builder.max_headers(HEADERS_MAX).max_header_size(HEAD_MAX);
    builder
}

/// Longest time from an answer, or from the start, to the end of the next head: for how long a connection is kept for its client.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes that are read, or kept to be written, at a time.
const BUFFER_MAX: usize = 64 * 1024;

/// Bytes of a request's head.
const HEAD_MAX: usize = 64 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 128;

/// For how long a client may take to close after the last answer.
const LINGER: Duration = Duration::from_secs(2);
