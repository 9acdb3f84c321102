//! TLS connections that look as a profile says: BoringSSL for browsers, rustls for `plain`.
//!
//! Both stacks verify certificates by the same roots, names and words (`keepwarm_transport::tls`). What is deliberately not here: a
//! switch that leaves them unverified.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

pub use keepwarm_transport::tls::{TlsInfo, TlsVersion};
use keepwarm_transport::{
    error::Error,
    tls::{RootsError, TlsClient, TlsRoots, TlsStream as PlainStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{config::HttpVersions, profile::Profile};

#[cfg(feature = "browser")]
mod browser;

/// Makes the TLS connections of one origin, in the shape of one profile.
///
/// Sessions are resumed with the tickets that are kept in here, so keep one for each origin, profile and
/// choice of protocols: nothing crosses from one dialer to another. Clones are the same dialer.
#[derive(Debug, Clone)]
pub struct TlsDialer {
    stack: Stack,
    label: Arc<str>,
}

#[derive(Debug, Clone)]
enum Stack {
    Plain(TlsClient),
    #[cfg(feature = "browser")]
    Browser(Arc<browser::Dialer>),
}

/// A TCP connection with TLS on it, certificate verified.
#[derive(Debug)]
pub struct TlsStream {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    /// Boxed, since a connection of rustls is some 1.5 KiB large.
    Plain(Box<PlainStream>),
    #[cfg(feature = "browser")]
    Browser(tokio_boring::SslStream<TcpStream>),
}

/// Why no connections can be made with a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// It is a browser's, and this program was built without BoringSSL. The label of the profile.
    NotBuilt(String),
    /// There are no roots to trust.
    Roots(RootsError),
    /// The profile offers none of the protocols that are asked for. The label of the profile, and the protocols.
    NoProtocol(String, &'static str),
    /// The TLS stack does not take a field of the profile. The label of the profile, the field, and what the stack says.
    Refused(String, &'static str, String),
}

impl TlsDialer {
    /// Makes a dialer that offers those of the profile's protocols that `versions` allows and trusts `roots`.
    ///
    /// The first use of [`TlsRoots::system`] in the process reads certificate files and blocks for some milliseconds.
    ///
    /// # Errors
    /// When there are no roots, or the profile cannot be used here.
    pub fn new(profile: &Arc<Profile>, versions: HttpVersions, roots: &TlsRoots) -> Result<TlsDialer, TlsSetupError> {
        let label = profile.label();
        let stack = match &profile.tls {
            None => {
                let alpn: Vec<&[u8]> = ["h2", "http/1.1"]
                    .iter()
                    .filter(|name| allows(versions, name))
                    .map(|name| name.as_bytes())
                    .collect();
                Stack::Plain(TlsClient::new(roots, &alpn).map_err(TlsSetupError::Roots)?)
            }
            #[cfg(feature = "browser")]
            Some(tls) => Stack::Browser(Arc::new(browser::Dialer::new(tls, &label, versions, roots)?)),
            #[cfg(not(feature = "browser"))]
            Some(_) => return Err(TlsSetupError::NotBuilt(label)),
        };
        Ok(TlsDialer { stack, label: label.into() })
    }

    /// The label of the profile, such as `chrome@156`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Makes the handshake on `tcp` and verifies that the certificate is for `server_name`, a DNS name or an IP address. A session
    /// with the same name is resumed where there is a ticket for it.
    ///
    /// # Errors
    /// [`ErrorKind::Certificate`](keepwarm_transport::error::ErrorKind::Certificate) with the reason in words,
    /// [`ErrorKind::Alpn`](keepwarm_transport::error::ErrorKind::Alpn) when the server refuses all our protocols,
    /// [`ErrorKind::TimedOut`](keepwarm_transport::error::ErrorKind::TimedOut) at `deadline`, and what the socket reports.
    ///
    /// # Cancel safety
    /// Dropping the future closes the TCP connection. A ticket that it took is spent.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        server_name: &str,
        deadline: Instant,
    ) -> Result<(TlsStream, TlsInfo), Error> {
        match &self.stack {
            Stack::Plain(client) => {
                let (stream, info) = client.connect(tcp, server_name, deadline).await?;
                Ok((TlsStream { inner: Inner::Plain(Box::new(stream)) }, info))
            }
            #[cfg(feature = "browser")]
            Stack::Browser(dialer) => {
                let (stream, info) = dialer.connect(tcp, server_name, deadline).await?;
                Ok((TlsStream { inner: Inner::Browser(stream) }, info))
            }
        }
    }

    /// Forgets all tickets, so that the next handshake is a full one. For measurements; with `plain`, whose tickets rustls keeps, it
    /// does nothing and says so with false.
    pub fn forget_tickets(&self) -> bool {
        match &self.stack {
            Stack::Plain(_) => false,
            #[cfg(feature = "browser")]
            Stack::Browser(dialer) => {
                dialer.forget_tickets();
                true
            }
        }
    }
}

/// Whether `versions` allows the protocol of that name.
fn allows(versions: HttpVersions, protocol: &str) -> bool {
    match versions {
        HttpVersions::Both => true,
        HttpVersions::Http1 => protocol == "http/1.1",
        HttpVersions::Http2 => protocol == "h2",
    }
}

impl TlsStream {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(stream) => stream.get_ref().0,
            #[cfg(feature = "browser")]
            Inner::Browser(stream) => stream.get_ref(),
        }
    }
}

/// Does the same with either stack's stream, pinned.
macro_rules! either {
    ($self:expr, $stream:ident => $body:expr) => {
        match &mut $self.get_mut().inner {
            Inner::Plain(stream) => {
                let $stream = Pin::new(&mut **stream);
                $body
            }
            #[cfg(feature = "browser")]
            Inner::Browser(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
        }
    };
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "browser")]
            Inner::Browser(_) => false,
        }
    }
}

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsSetupError::NotBuilt(label) => write!(
                f,
                "profile {label} needs BoringSSL, which this program was built without: build it with \
                 \"--features browser\" (needs cmake, g++ and libclang), or use the profile \"plain\""
            ),
            TlsSetupError::Roots(error) => error.fmt(f),
            TlsSetupError::NoProtocol(label, wanted) => write!(f, "profile {label} does not offer {wanted}"),
            TlsSetupError::Refused(label, field, text) => write!(f, "profile {label}: {field}: not taken: {text}"),
        }
    }
}

impl std::error::Error for TlsSetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsSetupError::Roots(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
