//! The connection to an origin, through a tunnel, for the requests of one client: one exchange at a time, and the next only after the body
//! before it was read to its end.
//!
//! What is deliberately not here: a pool. A connection serves the client that it was made for and nobody else.

use std::{
    error::Error as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    task::AbortHandle,
    time::Instant,
};

use super::{refusal::Refusal, stage::Stage, upload::Upload};
use crate::connector::{Connector, Tunnel};

/// A connection to an origin.
pub(super) struct Origin {
    sender: SendRequest<Upload>,
    target: Target,
    received: Arc<AtomicU64>,
    _driver: Driver,
}

/// Why a request got no answer.
pub(super) struct Failed {
    /// The request as it was, where not a byte of it was sent.
    pub(super) unsent: Option<Box<Request<Upload>>>,
    /// Not a byte came back.
    pub(super) is_silent: bool,
    pub(super) refusal: Refusal,
}

impl Origin {
    pub(super) async fn open(connector: &Connector, target: &Target) -> Result<Origin, Refusal> {
        let tunnel = connector.connect(target).await.map_err(|error| Refusal::from(&error))?;
        let received = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(OriginIo { tunnel, received: received.clone() });
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER_MAX).preserve_header_case(true).title_case_headers(true);
        let (sender, connection) = builder.handshake(io).await.map_err(|error| explain(target, &error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection of the http proxy to an origin failed");
            }
        });
        Ok(Origin { sender, target: target.clone(), received, _driver: Driver(task.abort_handle()) })
    }

    /// Waits until the next request may be sent; false: the origin has closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request, and awaits the head of the final answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn send(&mut self, request: Request<Upload>, stage: &Stage) -> Result<Response<Incoming>, Failed> {
        let before = self.received.load(Ordering::Relaxed);
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let mut failure = loop {
            tokio::select! {
                biased;
                answer = &mut answer => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => break failure,
                },
                () = stage.interim_came() => {}
            }
        };
        Err(Failed {
            unsent: failure.take_message().map(Box::new),
            is_silent: self.received.load(Ordering::Relaxed) == before,
            refusal: explain(&self.target, failure.error()),
        })
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Ends a connection's task with it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The tunnel below.
pub(super) struct OriginIo {
    tunnel: Tunnel,
    received: Arc<AtomicU64>,
}

impl OriginIo {
    /// The tunnel, where the connection has changed its protocol, and what came of it already.
    pub(super) fn from_upgraded(upgraded: Upgraded) -> Option<(Tunnel, bytes::Bytes)> {
        let parts = upgraded.downcast::<TokioIo<OriginIo>>().ok()?;
        Some((parts.io.into_inner().tunnel, parts.read_buf))
    }
}

impl AsyncRead for OriginIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.tunnel).poll_read(cx, buffer);
        this.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        poll
    }
}

impl AsyncWrite for OriginIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tunnel).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tunnel).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tunnel).poll_shutdown(cx)
    }
}

/// The connection that a client left open.
#[derive(Default)]
pub(super) struct Keeper {
    kept: Mutex<Option<Kept>>,
    changed: Notify,
}

struct Kept {
    origin: Origin,
    until: Instant,
}

impl Keeper {
    /// Keeps a connection that is free, for as long as its server said, and [`KEEP_MAX`] at most.
    pub(super) fn keep(&self, origin: Origin, limit: Option<Duration>) {
        if origin.is_closed() {
            return;
        }
        let until = Instant::now() + limit.unwrap_or(KEEP_MAX).min(KEEP_MAX);
        *self.kept.lock() = Some(Kept { origin, until });
        self.changed.notify_one();
    }

    /// The connection, if it leads there; one that leads elsewhere is closed.
    pub(super) fn take(&self, target: &Target) -> Option<Origin> {
        let kept = self.kept.lock().take()?;
        (kept.origin.target == *target && kept.until > Instant::now()).then_some(kept.origin)
    }

    /// Closes what is kept when its time is over, for ever.
    pub(super) async fn expire(&self) -> std::convert::Infallible {
        loop {
            let until = self.kept.lock().as_ref().map(|kept| kept.until);
            let Some(until) = until else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    drop(self.kept.lock().take_if(|kept| kept.until <= Instant::now()));
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

fn explain(target: &Target, error: &hyper::Error) -> Refusal {
    let why = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "connection closed before an answer".to_owned()
    } else if error.is_parse() {
        format!("the answer is not valid http/1.1: {error}")
    } else {
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")).to_lowercase()
    };
    Refusal::origin(format!("exchange with {target}: {why}"))
}

/// For how long a connection waits for its client's next request. It counts as a live tunnel to its destination, of which there may be few,
/// so it is short: enough for what a page loads, not for what its reader does.
const KEEP_MAX: Duration = Duration::from_secs(5);

/// Bytes of hyper's read buffer, and with it the size of an answer's head.
const BUFFER_MAX: usize = 64 * 1024;
