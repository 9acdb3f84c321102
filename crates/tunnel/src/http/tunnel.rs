//! What comes after HTTP: bytes in both directions, those first that were read already.

use std::pin::Pin;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::{
    Traffic,
    relay::{RelayOptions, relay_from},
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
    let end = relay_from((client.into(), rest), (upstream, ahead), options, traffic).await;
    tracing::debug!(reason = ?end.reason, "a tunnel of the http proxy has ended");
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::Ordering,
        task::{Context, Poll},
        time::Duration,
    };

    use tokio::{
        io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
        net::TcpListener,
    };

    use super::*;

    /// An upstream that is no socket, takes all, and has failed.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_client_of_whom_something_was_read_keeps_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let near = listener.accept().await.unwrap().0;
        let (upstream, traffic) = (Stream::Other(Box::new(Broken)), Traffic::default());
        let options = RelayOptions {
            idle_timeout: Duration::from_secs(60),
            half_open_timeout: Duration::from_secs(60),
            splice: true,
        };
        let (rest, ahead) = (Bytes::from_static(b"from the client"), Bytes::from_static(b"ahead"));
        carry((near, rest), (upstream, ahead), &options, &traffic).await;
        let mut got = Vec::new();
        let end = client.read_to_end(&mut got).await;
        assert_eq!(got, b"ahead");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "the failure is passed on as one");
        assert_eq!(traffic.sent.load(Ordering::Relaxed), 15);
        assert_eq!(traffic.received.load(Ordering::Relaxed), 5);
    }
}
