//! A connection's bytes, with or without TLS, while others hold its socket as well.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::socket::Shared;

pub(super) enum Wire {
    Plain(Shared),
    Tls(Box<TlsStream<Shared>>),
}

impl Wire {
    pub(super) fn plain(tcp: &Arc<TcpStream>) -> Self {
        Self::Plain(Shared(Arc::clone(tcp)))
    }

    pub(super) async fn accept(acceptor: &TlsAcceptor, tcp: &Arc<TcpStream>) -> io::Result<Self> {
        Ok(Self::Tls(Box::new(acceptor.accept(Shared(Arc::clone(tcp))).await?)))
    }
}

/// Waits for RST, also after FIN, when reading tells nothing any more. Without end where the system does not say.
pub(super) async fn broken(tcp: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = tcp.ready(tokio::io::Interest::ERROR).await;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = tcp;
        std::future::pending::<()>().await;
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
