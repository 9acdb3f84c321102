//! Proxies that connections are made through: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110 section 9.3.6).
//!
//! [`Proxy::connect`] goes the whole way. Its parts can be had apart: [`Proxy::open`] connects to the proxy, [`Proxy::greet`] says who
//! we are, [`Greeted::connect`] asks for the destination, so that a greeted connection may wait for one. [`ProxyDialer`] opens what is
//! more than TCP: proxies that are spoken to over TLS, and chains of two. [`Blame`] says what a failure means for the proxy. What is
//! deliberately not here: pooling, the choice of a proxy, and SOCKS5's BIND.

mod blame;
mod dialer;
mod failure;
mod greeted;
mod http;
mod socks5;
mod stream;
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

use self::greeted::{send_rest, through};
pub use self::{
    blame::Blame,
    dialer::{ChainError, ChainTrace, Hop, ProxyDialer},
    greeted::{AHEAD_MAX, Greeted},
    stream::ProxyStream,
    target::Target,
    url::ProxyParseError,
};
use crate::{
    error::{Error, ErrorKind, Phase},
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
    /// HTTP CONNECT over TLS. The proxy's certificate is verified, for its host.
    Https,
}

/// User and password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
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
    /// The connection to the proxy, addresses that did not answer included.
    pub connect: Duration,
    /// The TCP handshake with the address that answered: one round trip.
    pub handshake: Duration,
    /// The TLS handshake with the proxy; zero where it is spoken to in the clear.
    pub tls: Duration,
    /// Whether that handshake resumed an earlier session.
    pub resumed: bool,
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
    /// [`ErrorKind::Other`] for an `https://` proxy, which a [`ProxyDialer`] opens: nothing meant for TLS leaves without it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open(
        &self,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(TcpStream, ProxyTrace), Error> {
        if self.protocol == ProxyProtocol::Https {
            let happened = "proxies are spoken to without tls here";
            return Err(Error::new(ErrorKind::Other, Phase::Proxy, format!("connect to {self}"), happened));
        }
        self.open_tcp(resolver, options, deadline).await
    }

    async fn open_tcp(
        &self,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(TcpStream, ProxyTrace), Error> {
        open(&self.host, self.port, &format!("connect to {self}"), resolver, options, deadline).await
    }

    /// Greets the proxy at the other end of `stream` and authenticates. HTTP has no greeting: that connection is ready as it is.
    ///
    /// The stream to an `https://` proxy is one that a [`ProxyDialer`] has opened.
    ///
    /// # Errors
    /// What [`Error::is_proxy`] tells, [`ErrorKind::ProxyAuth`] where it does not accept the
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
            let greeting = socks5::greet(&mut stream, self.credential.as_ref());
            self.greeted(greeting, deadline).await?;
        }
        Ok(Greeted { stream, proxy: self.clone() })
    }

    /// As [`greet`](Self::greet), with SOCKS5's greeting and authentication sent in one write, a round trip sooner. Only for proxies that
    /// are known to bear it. Without a credential, and for HTTP, there is nothing to send ahead.
    ///
    /// # Errors
    /// Those of [`greet`](Self::greet). No method but that of user and password is offered, for under another one the password would be
    /// taken for a request: a proxy that asks for none is refused, whether it says so or rejects the offer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn greet_pipelined<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        deadline: Instant,
    ) -> Result<Greeted<S>, Error> {
        if self.protocol == ProxyProtocol::Socks5 {
            let greeting = socks5::greet_pipelined(&mut stream, self.credential.as_ref(), &[]);
            self.greeted(greeting, deadline).await?;
        }
        Ok(Greeted { stream, proxy: self.clone() })
    }

    /// Greets, authenticates, asks for the destination and sends its first bytes, all in one write on a connection on which nothing was
    /// said yet: one round trip. Only for proxies that are known to bear it, and for bytes that may be lost, as with
    /// [`Greeted::connect_with`].
    ///
    /// # Errors
    /// Those of [`greet_pipelined`](Self::greet_pipelined) and [`Greeted::connect_with`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect_pipelined<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        target: &Target,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<S, Error> {
        if self.protocol != ProxyProtocol::Socks5 {
            return Greeted { stream, proxy: self.clone() }.connect_with(target, payload, deadline).await;
        }
        let (ahead, rest) = payload.split_at(payload.len().min(AHEAD_MAX));
        let ahead = [&socks5::request(target), ahead].concat();
        let greeting = socks5::greet_pipelined(&mut stream, self.credential.as_ref(), &ahead);
        self.greeted(greeting, deadline).await?;
        let (tried, start) = (|| through(target, self), Clock::now());
        match timeout_at(deadline.into(), socks5::read_connected(&mut stream)).await {
            Ok(connected) => connected.map_err(|failure| failure.into_error(tried()))?,
            Err(_) => return Err(Error::timed_out(Phase::Connect, tried(), start.elapsed())),
        }
        send_rest(&mut stream, rest, tried, deadline).await?;
        Ok(stream)
    }

    /// Waits for a greeting under way.
    async fn greeted(
        &self,
        greeting: impl Future<Output = Result<(), failure::Failure>>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let tried = || format!("greet {self}");
        let start = Clock::now();
        match timeout_at(deadline.into(), greeting).await {
            Ok(greeted) => greeted.map_err(|failure| failure.into_error(tried())),
            Err(_) => Err(Error::timed_out(Phase::Proxy, tried(), start.elapsed())),
        }
    }
}

impl ProxyTrace {
    /// Of a connection on which nothing was said yet.
    fn of(tcp: &tcp::ConnectTrace, resolve: Duration) -> ProxyTrace {
        ProxyTrace {
            peer: tcp.peer,
            local: tcp.local,
            resolve,
            connect: tcp.elapsed,
            handshake: tcp.handshake,
            tls: Duration::ZERO,
            resumed: false,
            greeting: Duration::ZERO,
            tunnel: Duration::ZERO,
        }
    }
}

impl ProxyProtocol {
    /// The scheme of its URL: `socks5`, `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyProtocol::Socks5 => "socks5",
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
        }
    }
}

/// Connects to the address or name of a proxy. `tried` begins the text of an error.
pub(crate) async fn open(
    host: &str,
    port: u16,
    tried: &str,
    resolver: &dyn Resolve,
    options: &TcpOptions,
    deadline: Instant,
) -> Result<(TcpStream, ProxyTrace), Error> {
    let start = Clock::now();
    let ips = match literal(host) {
        Some(ip) => vec![ip],
        None => timeout_at(deadline.into(), resolver.resolve(host))
            .await
            .unwrap_or_else(|_| Err(Error::timed_out(Phase::Resolve, tried, start.elapsed())))?,
    };
    let resolve = if literal(host).is_some() { Duration::ZERO } else { start.elapsed() };
    let addrs: Vec<SocketAddr> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    let connected = tcp::connect(&addrs, options, deadline).await;
    let (stream, trace) = connected.map_err(|error| failure::unreachable(error, tried))?;
    Ok((stream, ProxyTrace::of(&trace, resolve)))
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

#[cfg(test)]
mod tests;
