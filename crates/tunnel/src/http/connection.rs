//! One client's connection: HTTP/1.1 by hyper, its limits, and how it ends or goes over into a tunnel.

use std::{convert::Infallible, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, Version};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{Session, answer::Out, client_io::ClientIo, exchange::Desk, stage::Stage, tunnel::Next};
use crate::server::{HandshakeFailure, Shared, closed};

/// What is left when HTTP has ended with a change of protocol.
pub(super) struct Changed<'a> {
    pub(super) client: TcpStream,
    /// What the client has sent for the tunnel.
    pub(super) rest: Bytes,
    pub(super) next: Next<'a>,
}

/// Serves a client's requests until it goes, until a limit ends it, until the server stops or its listener is gone and the answer has ended, or until one of them
/// changes the protocol.
pub(super) async fn serve(
    stream: TcpStream,
    first: Bytes,
    shared: &Shared,
    session: Arc<Session>,
) -> Option<Changed<'_>> {
    let config = shared.connector.config();
    let (first, held) = split(first);
    let is_held = !held.is_empty();
    let desk = Desk { session: session.clone(), shared, held: Mutex::new(held), next: Mutex::default() };
    let service = service_fn(|request: Request<Incoming>| {
        // Not in the future, which hyper may poll only after it has read on.
        session.stage.began(request.version() < Version::HTTP_11);
        let answer = desk.answer(request);
        // Boxed, since hyper moves it.
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    let io = ClientIo::new(stream, session.stage.clone(), first, is_held, config.handshake_timeout);
    let mut connection = builder().serve_connection(TokioIo::new(io), service);
    let (mut stopping, mut leaving) = (shared.closing.subscribe(), session.terms.closing());
    let exchanges = async {
        let ended = async {
            tokio::select! {
                biased;
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(result),
                () = closed(&mut stopping) => drain(&mut connection, &session.stage).await,
                () = closed(&mut leaving) => drain(&mut connection, &session.stage).await,
            }
        };
        tokio::select! {
            biased;
            ended = ended => ended,
            // Also of a last answer, which may be that of a client whose listener is gone while the server goes on.
            () = session.stage.silence(config.idle_timeout) => None,
        }
    };
    let result = session.drivers.beside(exchanges).await?;
    // Nobody drives it any more.
    session.keeper.clear();
    let parts = connection.into_parts();
    let (io, rest) = (parts.io.into_inner(), parts.read_buf);
    let next = desk.next.lock().take();
    match (result, next) {
        // Held bytes are out already, and nothing was read after them. If there were more, they would have been overtaken.
        (Ok(()), Some(_)) if is_held && !rest.is_empty() => {}
        (Ok(()), Some(next)) => return Some(Changed { client: io.into_stream(), rest, next }),
        (Ok(()), None) => io.close().await,
        (Err(error), _) => {
            count(&error, shared, &session.stage);
            if error.is_parse() {
                // hyper has answered what it could not read.
                io.close().await;
            }
        }
    }
    None
}

/// Ends a connection when the server stops, or the listener is gone: after the answer that is under way, else now. `None`: nothing is left to be sent.
async fn drain<S>(
    connection: &mut http1::Connection<TokioIo<ClientIo>, S>,
    stage: &Stage,
) -> Option<Result<(), hyper::Error>>
where
    S: Service<Request<Incoming>, Response = Response<Out>, Error = Infallible>,
    http1::Connection<TokioIo<ClientIo>, S>: Unpin,
{
    let (is_idle, is_head) = (stage.is_idle(), stage.is_head());
    // Once the protocol changes no request follows anyway, and hyper would leave out the rest of the answer.
    if !stage.is_tunnel() {
        Pin::new(&mut *connection).graceful_shutdown();
    }
    // With its shutdown, which sends first what is left: the end of the last answer may still be on its way.
    match (&mut *connection).now_or_never() {
        Some(Ok(())) if is_idle => None,
        Some(result) => Some(result),
        None if is_head => None,
        None => Some(connection.await),
    }
}

fn count(error: &hyper::Error, shared: &Shared, stage: &Stage) {
    tracing::debug!(%error, "a connection of the http proxy failed");
    if error.is_parse() {
        shared.counters.handshake_failed(HandshakeFailure::Malformed);
    } else if stage.is_head() {
        let is_gone = error.is_incomplete_message();
        let reason = if is_gone { HandshakeFailure::Gone } else { HandshakeFailure::TimedOut };
        shared.counters.handshake_failed(reason);
    }
}

/// The head of a CONNECT, and what was sent behind it without waiting: that can be on its way to the destination before the client is
/// answered.
fn split(mut first: Bytes) -> (Bytes, Bytes) {
    let end = first.starts_with(b"CONNECT ").then(|| head_end(&first)).flatten();
    let held = end.map_or_else(Bytes::new, |end| first.split_off(end));
    (first, held)
}

/// Behind the first empty line, however its lines end: the reader of heads takes bare line feeds (RFC 9112 section 2.2).
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(BUFFER_MAX);
    builder.max_header_size(HEAD_MAX).preserve_header_case(true);
    builder
}

/// Longest time from an answer to the end of the next head: for how long a connection is kept for its client.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes that are read, or kept to be written, at a time.
const BUFFER_MAX: usize = 64 * 1024;

/// Bytes of a request's head. It has 100 lines at most, hyper's own limit, for which it needs no memory of its own.
const HEAD_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_told_from_the_head() {
        for (first, head, held) in [
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nabc", 33, "abc"),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n\r\n\r\n", 24, "\r\n\r\n"),
            ("CONNECT a:1 HTTP/1.1\n\nGET / HTTP/1.1\r\n\r\nx", 22, "GET / HTTP/1.1\r\n\r\nx"),
            ("CONNECT a:1 HTTP/1.1\n\r\nabc", 23, "abc"),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n", 31, ""),
            ("CONNECT a:1 HTTP/1.1\r\n\r", 23, ""),
            ("GET http://a/ HTTP/1.1\r\n\r\nabc", 29, ""),
        ] {
            let split = split(Bytes::copy_from_slice(first.as_bytes()));
            assert_eq!(split, (Bytes::copy_from_slice(&first.as_bytes()[..head]), held.into()), "{first:?}");
        }
    }
}
