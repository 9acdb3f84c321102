//! Proxies that connections are made through: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110 section 9.3.6).
//!
//! [`Proxy::connect`] goes the whole way. Its parts can be had apart: [`Proxy::open`] connects to the proxy, [`Proxy::greet`] says who
//! we are, [`Greeted::connect`] asks for the destination, so that a greeted connection may wait for one. What is deliberately not here:
//! TLS to the proxy, chains of proxies, pooling, and SOCKS5's BIND and UDP ASSOCIATE.

mod blame;
mod failure;
mod http;
mod socks5;
mod target;
mod url;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant as Clock, timeout_at},
};

pub use self::{blame::Blame, target::Target, url::ProxyParseError};
use crate::{
    error::{Error, Phase},
    resolve::{Resolve, literal},
    tcp::{self, TcpOptions},
};

/// A proxy and how it is asked. Two are the same when every field is, the credential included: connections are never shared between
/// credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// How it is asked.
    pub protocol: ProxyProtocol,
    /// Its host name or address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password; never shown.
    pub credential: Option<Credential>,
}

/// How a proxy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// SOCKS5.
    Socks5,
    /// HTTP CONNECT over plain TCP.
    Http,
}

/// User and password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

/// A connection to a proxy that knows us and waits for a destination. Dropping it closes it.
pub struct Greeted<S = TcpStream> {
    stream: S,
    proxy: Proxy,
}

/// Where the time of a connection through a proxy went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyTrace {
    /// The proxy's address.
    pub peer: SocketAddr,
    /// Our end of the connection to it.
    pub local: SocketAddr,
    /// Finding the proxy's addresses; zero where it is given by address.
    pub resolve: Duration,
    /// The TCP handshake with the proxy.
    pub connect: Duration,
    /// SOCKS5's greeting and authentication; zero for HTTP, which has none.
    pub greeting: Duration,
    /// From asking for the destination to the proxy's word that it is connected.
    pub tunnel: Duration,
}

impl Proxy {
    /// Connects to `target` through the proxy, whose own name is looked up by `resolver`. `deadline` is for everything together.
    ///
    /// The first byte that is read from the stream is the destination's first, even where the proxy sent it in one piece with its
    /// own answer.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), [`greet`](Self::greet) and [`Greeted::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(
        &self,
        resolver: &dyn Resolve,
        target: &Target,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(TcpStream, ProxyTrace), Error> {
        let (stream, trace) = self.open(resolver, options, deadline).await?;
        let opened = Clock::now();
        let greeted = self.greet(stream, deadline).await?;
        let known = Clock::now();
        let stream = greeted.connect(target, deadline).await?;
        Ok((stream, ProxyTrace { greeting: known - opened, tunnel: known.elapsed(), ..trace }))
    }

    /// Connects to the proxy itself by [happy eyeballs](tcp::connect), and says nothing yet. `greeting` and `tunnel` of the trace are
    /// zero.
    ///
    /// # Errors
    /// What [`Error::is_proxy`] tells, where the proxy cannot be reached; a shortage of this machine, or a failed lookup, as itself.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open(
        &self,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(TcpStream, ProxyTrace), Error> {
        let tried = || format!("connect to {self}");
        let start = Clock::now();
        let ips = match literal(&self.host) {
            Some(ip) => vec![ip],
            None => timeout_at(deadline.into(), resolver.resolve(&self.host))
                .await
                .unwrap_or_else(|_| Err(Error::timed_out(Phase::Resolve, tried(), start.elapsed())))?,
        };
        let resolve = if literal(&self.host).is_some() { Duration::ZERO } else { start.elapsed() };
        let addrs: Vec<SocketAddr> = ips.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        let connected = tcp::connect(&addrs, options, deadline).await;
        let (stream, trace) = connected.map_err(|error| failure::unreachable(error, tried()))?;
        let (peer, local, connect) = (trace.peer, trace.local, trace.elapsed);
        Ok((stream, ProxyTrace { peer, local, resolve, connect, greeting: Duration::ZERO, tunnel: Duration::ZERO }))
    }

    /// Greets the proxy at the other end of `stream` and authenticates. HTTP has no greeting: that connection is ready as it is.
    ///
    /// # Errors
    /// What [`Error::is_proxy`] tells, [`ErrorKind::ProxyAuth`](crate::error::ErrorKind::ProxyAuth) where it does not accept the
    /// credential or wants one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        deadline: Instant,
    ) -> Result<Greeted<S>, Error> {
        if self.protocol == ProxyProtocol::Socks5 {
            let tried = || format!("greet {self}");
            let start = Clock::now();
            match timeout_at(deadline.into(), socks5::greet(&mut stream, self.credential.as_ref())).await {
                Ok(greeted) => greeted.map_err(|failure| failure.into_error(tried()))?,
                Err(_) => return Err(Error::timed_out(Phase::Proxy, tried(), start.elapsed())),
            }
        }
        Ok(Greeted { stream, proxy: self.clone() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    /// Asks for the destination. The stream then is the one to it, and nothing of it has been read.
    ///
    /// # Errors
    /// The destination's failure, on [`Side::Upstream`](crate::error::Side::Upstream): refused, unreachable, forbidden by the proxy's
    /// rules, or no word of it by the deadline, which is taken for the destination's silence since the proxy has been heard before.
    /// Else the proxy's, as [`Error::is_proxy`] tells.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(mut self, target: &Target, deadline: Instant) -> Result<S, Error> {
        let tried = || format!("connect to {target} through {}", self.proxy);
        let start = Clock::now();
        let credential = self.proxy.credential.as_ref();
        let stream = &mut self.stream;
        let asked = async {
            match self.proxy.protocol {
                ProxyProtocol::Socks5 => socks5::connect(stream, target).await,
                ProxyProtocol::Http => http::connect(stream, target, credential).await,
            }
        };
        match timeout_at(deadline.into(), asked).await {
            Ok(Ok(())) => Ok(self.stream),
            Ok(Err(failure)) => Err(failure.into_error(tried())),
            Err(_) => Err(Error::timed_out(Phase::Connect, tried(), start.elapsed())),
        }
    }
}

impl<S> Greeted<S> {
    /// The connection, to be watched while it waits: a proxy that has something to say now has closed, or breaks its protocol.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The same, for a watch that must read to notice either. What it reads is lost.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The proxy at the other end.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

impl ProxyProtocol {
    /// The scheme of its URL: `socks5` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyProtocol::Socks5 => "socks5",
            ProxyProtocol::Http => "http",
        }
    }
}

impl fmt::Display for Proxy {
    /// Writes `socks5://proxy.example:1080`, without the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.protocol.as_str())?;
        target::write_authority(f, &self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Greeted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
