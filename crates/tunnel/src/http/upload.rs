//! The body of a request on its way to the origin, no faster than the origin takes it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

/// The body of a request.
pub(super) struct Upload {
    body: Option<Incoming>,
    gate: Option<Gate>,
    /// Held back until this ends.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    sent: Sent,
}

/// Tells whether a body was sent to its end.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<AtomicBool>);

/// Holds a body back until the origin says 100 (Continue), or for [`EXPECT_MAX`]. hyper tells the client to go on when the body is asked
/// for, so it is the origin's word that the client gets (RFC 9110 section 10.1.1).
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Notify>);

impl Upload {
    /// `is_expected`: the client waits to be told to send it.
    pub(super) fn new(body: Incoming, is_expected: bool) -> Upload {
        let gate = is_expected.then(Gate::default);
        let waiting = gate.clone().map(|gate| {
            let opened = async move {
                // Opened, or the origin does not know of it.
                let _ = tokio::time::timeout(EXPECT_MAX, gate.0.notified()).await;
            };
            Box::pin(opened) as Pin<Box<_>>
        });
        let sent = Sent::default();
        if body.is_end_stream() {
            sent.over();
        }
        Upload { body: Some(body), gate, waiting, sent }
    }

    pub(super) fn empty() -> Upload {
        let sent = Sent::default();
        sent.over();
        Upload { body: None, gate: None, waiting: None, sent }
    }

    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    pub(super) fn gate(&self) -> Option<Gate> {
        self.gate.clone()
    }
}

impl Sent {
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn over(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Gate {
    pub(super) fn open(&self) {
        self.0.notify_one();
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(waiting) = &mut this.waiting {
            ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if frame.is_none() || frame.as_ref().is_some_and(Result::is_ok) && body.is_end_stream() {
            this.sent.over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// For how long a body is held back for an origin that does not ask for it: as long as curl waits.
const EXPECT_MAX: Duration = Duration::from_secs(1);
