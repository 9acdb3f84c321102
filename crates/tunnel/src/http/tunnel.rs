//! What comes after HTTP: bytes in both directions, those first that were read already.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    Traffic,
    relay::{RelayOptions, relay},
    stream::Stream,
};

/// What a connection changes over to: takes the client's socket, and what was read from it beyond HTTP, and ends with the tunnel. Dropping it
/// closes the tunnel.
pub(super) type Next<'a> = Box<dyn FnOnce(TcpStream, Bytes) -> Running<'a> + Send + 'a>;

type Running<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Relays between a client and an upstream, of each of which some bytes were read already.
pub(super) async fn carry(
    (client, rest): (TcpStream, Bytes),
    (upstream, ahead): (Stream, Bytes),
    options: &RelayOptions,
    traffic: &Traffic,
) {
    let client = Stream::from(client);
    let ahead = send_now(&client, ahead, &traffic.received);
    let rest = send_now(&upstream, rest, &traffic.sent);
    let end = relay(Rewound::stream(client, rest), Rewound::stream(upstream, ahead), options, traffic).await;
    tracing::debug!(reason = ?end.reason, "a tunnel of the http proxy has ended");
}

/// Sends what the socket takes at once, which is nearly always all, and returns the rest. Errors are left to the relay, which meets them
/// again.
fn send_now(stream: &Stream, mut bytes: Bytes, counter: &AtomicU64) -> Bytes {
    if let Some(stream) = stream.as_tcp() {
        while !bytes.is_empty()
            && let Ok(written @ 1..) = stream.try_write(&bytes)
        {
            bytes.advance(written);
            counter.fetch_add(written as u64, Ordering::Relaxed);
        }
    }
    bytes
}

/// A stream some of whose bytes were read before.
struct Rewound {
    first: Bytes,
    stream: Stream,
}

impl Rewound {
    /// The stream as it is when nothing was read: only that can be spliced.
    fn stream(stream: Stream, first: Bytes) -> Stream {
        if first.is_empty() { stream } else { Stream::Other(Box::new(Rewound { first, stream })) }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
