//! Connecting to proxies of every protocol, directly and through another proxy.

use std::{fmt, sync::Arc, time::Duration, time::Instant};

use tokio::time::Instant as Clock;

use super::{Blame, Proxy, ProxyProtocol, ProxyStream, ProxyTrace, Target, failure};
use crate::{
    error::{Error, ErrorKind, Phase},
    resolve::Resolve,
    tcp::TcpOptions,
    tls::{RootsError, TlsClient, TlsInfo, TlsRoots},
};

/// Connects to one proxy, over TLS where it is an `https://` one. Keep one for each proxy: its TLS sessions are resumed from here.
#[derive(Debug, Clone)]
pub struct ProxyDialer {
    proxy: Arc<Proxy>,
    tls: Option<TlsClient>,
}

/// A proxy of a chain of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The one that we connect to.
    First,
    /// The one that is reached through it.
    Second,
}

/// Where the time of a connection to a proxy through another one went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTrace {
    /// Of the first proxy; `tunnel` is the time that it took to reach the second one.
    pub first: ProxyTrace,
    /// The TLS handshake with the second one; zero where it is spoken to in the clear.
    pub tls: Duration,
    /// Whether that handshake resumed an earlier session.
    pub resumed: bool,
}

/// A connection to a proxy through another one that did not come about. Whichever of the two failed, this way to the second one is of no
/// use now.
#[derive(Debug, Clone)]
pub struct ChainError {
    /// The one that failed. The second one when the first one says that it cannot be reached.
    pub hop: Hop,
    /// How it failed. What [`Blame::of`] makes of it is about that hop.
    pub error: Error,
}

impl ProxyDialer {
    /// A dialer for `proxy`, whose certificate must lead to one of `roots` where it is an `https://` one; for others they are not looked
    /// at.
    ///
    /// # Errors
    /// When the roots are needed and there is no usable one.
    pub fn new(proxy: Arc<Proxy>, roots: &TlsRoots) -> Result<ProxyDialer, RootsError> {
        let tls = match proxy.protocol {
            ProxyProtocol::Https => Some(TlsClient::new(roots, &[b"http/1.1"])?),
            ProxyProtocol::Socks5 | ProxyProtocol::Http => None,
        };
        Ok(ProxyDialer { proxy, tls })
    }

    /// The proxy.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Connects to the proxy, TLS included, and says nothing yet. Else as [`Proxy::open`].
    ///
    /// # Errors
    /// Those of [`Proxy::open`]. A certificate that is not accepted, or TLS that fails, is the proxy's failure; the reason is the error's
    /// source.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open(
        &self,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(ProxyStream, ProxyTrace), Error> {
        let (stream, mut trace) = self.proxy.open_tcp(resolver, options, deadline).await?;
        let (stream, info) = self.encrypt(ProxyStream::Tcp(stream), deadline).await?;
        if let Some(info) = info {
            (trace.tls, trace.resumed) = (info.handshake, info.resumed);
        }
        Ok((stream, trace))
    }

    /// Connects to the proxy through `first`, TLS with either included, and says nothing to it yet. `first` looks the proxy's name up.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), [`Proxy::greet`] and [`Greeted::connect`](super::Greeted::connect) of the first, and of TLS with the
    /// second. What the first one says of the second one, as of a destination, is the second one's failure.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open_through(
        &self,
        first: &ProxyDialer,
        resolver: &dyn Resolve,
        options: &TcpOptions,
        deadline: Instant,
    ) -> Result<(ProxyStream, ChainTrace), ChainError> {
        let of_first = |error| ChainError { hop: Hop::First, error };
        let of_second = |error| ChainError { hop: Hop::Second, error };
        let target = self.as_target().map_err(of_second)?;
        let (stream, mut trace) = first.open(resolver, options, deadline).await.map_err(of_first)?;
        let opened = Clock::now();
        let greeted = first.proxy.greet(stream, deadline).await.map_err(of_first)?;
        let known = Clock::now();
        let stream = greeted.connect(&target, deadline).await.map_err(|error| match Blame::of(&error) {
            Blame::Destination => of_second(failure::unreachable(error, self.tried())),
            // What else would an HTTP proxy say of one that is not there?
            Blame::Declined if error.kind() == ErrorKind::BadGateway => {
                of_second(failure::unreachable(error, self.tried()))
            }
            Blame::Declined | Blame::Proxy | Blame::Local => of_first(error),
        })?;
        (trace.greeting, trace.tunnel) = (known - opened, known.elapsed());
        let (stream, info) = self.encrypt(stream, deadline).await.map_err(of_second)?;
        let (tls, resumed) = info.map_or((Duration::ZERO, false), |info| (info.handshake, info.resumed));
        Ok((stream, ChainTrace { first: trace, tls, resumed }))
    }

    /// Makes the TLS handshake where the proxy wants one.
    async fn encrypt(&self, stream: ProxyStream, deadline: Instant) -> Result<(ProxyStream, Option<TlsInfo>), Error> {
        let Some(client) = &self.tls else { return Ok((stream, None)) };
        let (host, tried) = (&self.proxy.host, format!("tls with {}", self.proxy.host));
        let made = match stream {
            ProxyStream::Tcp(tcp) => {
                let made = client.connect_over(tcp, host, tried, deadline).await;
                made.map(|(stream, info)| (ProxyStream::Tls(Box::new(stream)), info))
            }
            nested => {
                let made = client.connect_over(nested, host, tried, deadline).await;
                made.map(|(stream, info)| (ProxyStream::Nested(Box::new(stream)), info))
            }
        };
        let (stream, info) = made.map_err(|error| failure::unreachable(error, self.tried()))?;
        Ok((stream, Some(info)))
    }

    /// The proxy as a destination of another one.
    fn as_target(&self) -> Result<Target, Error> {
        let Proxy { host, port, .. } = &*self.proxy;
        Target::new(host, *port).map_err(|error| {
            Error::new(ErrorKind::Other, Phase::Proxy, self.tried(), error.to_string()).with_source(error)
        })
    }

    fn tried(&self) -> String {
        format!("connect to {}", self.proxy)
    }
}

impl Hop {
    /// `first` or `second`.
    pub fn as_str(self) -> &'static str {
        match self {
            Hop::First => "first",
            Hop::Second => "second",
        }
    }
}

impl fmt::Display for ChainError {
    /// Writes `first proxy: greet socks5://a.example:1080: greeting timed out after 3s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} proxy: {}", self.hop.as_str(), self.error)
    }
}

impl std::error::Error for ChainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
