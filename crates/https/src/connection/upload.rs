//! The body of a request over HTTP/2 that comes piece by piece: sent as the server's window allows, and given up with its answer.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http_body::Body as _;
use http2::{Reason, SendStream};
use parking_lot::Mutex;

use crate::{
    body::{BoxError, RequestBody},
    exchange::Sending,
};

/// The body of a request on its way, piece by piece, no faster than the server takes it. Dropping it gives the stream up.
pub(crate) struct Upload {
    task: tokio::task::JoinHandle<()>,
    failed: Arc<Mutex<Option<BoxError>>>,
}

impl Upload {
    pub(super) fn start(
        body: RequestBody,
        stream: SendStream<Bytes>,
        patience: Duration,
        sending: Arc<Sending>,
    ) -> Upload {
        let failed = Arc::<Mutex<Option<BoxError>>>::default();
        let note = Arc::clone(&failed);
        let task = tokio::spawn(async move {
            let mut stream = stream;
            if let Err(error) = upload(body, &mut stream, &sending, patience).await {
                *note.lock() = Some(error);
                stream.send_reset(Reason::CANCEL);
            }
            sending.end();
        });
        Upload { task, failed }
    }

    pub(super) fn failure(&self) -> Option<BoxError> {
        self.failed.lock().take()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for its end; each of its own waits is bounded.
    pub(crate) async fn over(&mut self) {
        // It ends well, or it has panicked: over in any case.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends early, and well, when the server wants no more of it.
async fn upload(
    body: RequestBody,
    stream: &mut SendStream<Bytes>,
    sending: &Sending,
    patience: Duration,
) -> Result<(), BoxError> {
    let mut body = std::pin::pin!(body);
    loop {
        let next = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Some),
        });
        let frame = match tokio::time::timeout(patience, next).await {
            Err(_) => return Err(format!("no further piece of it came within {patience:.1?}").into()),
            Ok(None) => return Ok(()),
            Ok(Some(None)) => {
                let _ = stream.send_data(Bytes::new(), true);
                return Ok(());
            }
            Ok(Some(Some(frame))) => frame?,
        };
        sending.piece();
        match frame.into_data() {
            Ok(data) => {
                let ends = body.is_end_stream();
                if !send(data, ends, stream, patience).await? || ends {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = stream.send_trailers(trailers);
                    return Ok(());
                }
            }
        }
    }
}

/// Sends one piece as the peer's window allows. `false`: the server wants no more.
async fn send(
    mut data: Bytes,
    ends: bool,
    stream: &mut SendStream<Bytes>,
    patience: Duration,
) -> Result<bool, BoxError> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = tokio::time::timeout(patience, poll_fn(|cx| stream.poll_capacity(cx))).await;
        let capacity = match capacity {
            Err(_) => return Err(format!("the server took nothing of it within {patience:.1?}").into()),
            Ok(Some(Ok(capacity))) => capacity,
            Ok(None | Some(Err(_))) => return Ok(false),
        };
        let piece = data.split_to(capacity.min(data.len()));
        if stream.send_data(piece, ends && data.is_empty()).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
