//! A connection to a proxy, and through one, with as much TLS as its proxies ask for.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::tls::{RustlsStream, TlsStream};

/// A connection to a proxy.
pub enum ProxyStream {
    /// To, or through, proxies that are spoken to in the clear.
    Tcp(TcpStream),
    /// One proxy on the way is spoken to over TLS.
    Tls(Box<TlsStream>),
    /// Both proxies of a chain are: TLS within TLS.
    Nested(Box<RustlsStream<ProxyStream>>),
}

impl ProxyStream {
    /// The socket, where bytes go over it as they are.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            ProxyStream::Tcp(stream) => Some(stream),
            ProxyStream::Tls(_) | ProxyStream::Nested(_) => None,
        }
    }

    /// The socket that everything goes over, for its options and addresses.
    pub fn socket(&self) -> &TcpStream {
        match self {
            ProxyStream::Tcp(stream) => stream,
            ProxyStream::Tls(stream) => stream.get_ref().0,
            ProxyStream::Nested(stream) => stream.get_ref().0.socket(),
        }
    }
}

impl From<TcpStream> for ProxyStream {
    fn from(stream: TcpStream) -> ProxyStream {
        ProxyStream::Tcp(stream)
    }
}

impl fmt::Debug for ProxyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyStream::Tcp(_) => "Tcp",
            ProxyStream::Tls(_) => "Tls",
            ProxyStream::Nested(_) => "Nested",
        })
    }
}

impl AsyncRead for ProxyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ProxyStream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            ProxyStream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
            ProxyStream::Nested(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ProxyStream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            ProxyStream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            ProxyStream::Nested(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ProxyStream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            ProxyStream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            ProxyStream::Nested(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ProxyStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            ProxyStream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            ProxyStream::Nested(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ProxyStream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            ProxyStream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
            ProxyStream::Nested(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            ProxyStream::Tcp(stream) => stream.is_write_vectored(),
            ProxyStream::Tls(stream) => stream.is_write_vectored(),
            ProxyStream::Nested(stream) => stream.is_write_vectored(),
        }
    }
}
