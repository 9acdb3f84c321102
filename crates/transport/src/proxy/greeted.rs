//! What a proxy that knows us can be asked for: a connection to a destination, or a relay of datagrams.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant as Clock, timeout_at},
};

use super::{Proxy, ProxyProtocol, Target, http, socks5};
use crate::error::{Error, ErrorKind, Phase};

/// A connection to a proxy that knows us and waits for a destination. Dropping it closes it.
pub struct Greeted<S = TcpStream> {
    pub(super) stream: S,
    pub(super) proxy: Proxy,
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
        self.ask(target, &[], deadline).await?;
        Ok(self.stream)
    }

    /// As [`connect`](Self::connect), with the first bytes for the destination sent along with the request, in one write; what is beyond
    /// [`AHEAD_MAX`] of them follows the proxy's word. Only for proxies that are known to bear it, and for bytes that may be lost.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect). A refusal of the proxy ([`Blame::Destination`](super::Blame::Destination) without a time-out, and [`Blame::Declined`](super::Blame::Declined))
    /// means that no byte has reached the destination; after every other error some may have.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect_with(mut self, target: &Target, payload: &[u8], deadline: Instant) -> Result<S, Error> {
        let (ahead, rest) = payload.split_at(payload.len().min(AHEAD_MAX));
        self.ask(target, ahead, deadline).await?;
        let Greeted { mut stream, proxy } = self;
        send_rest(&mut stream, rest, || through(target, &proxy), deadline).await?;
        Ok(stream)
    }

    async fn ask(&mut self, target: &Target, ahead: &[u8], deadline: Instant) -> Result<(), Error> {
        let Greeted { stream, proxy } = self;
        let start = Clock::now();
        let asked = async {
            match proxy.protocol {
                ProxyProtocol::Socks5 => socks5::connect(stream, target, ahead).await,
                ProxyProtocol::Http | ProxyProtocol::Https => {
                    http::connect(stream, target, proxy.credential.as_ref(), ahead).await
                }
            }
        };
        match timeout_at(deadline.into(), asked).await {
            Ok(asked) => asked.map_err(|failure| failure.into_error(through(target, proxy))),
            Err(_) => Err(Error::timed_out(Phase::Connect, through(target, proxy), start.elapsed())),
        }
    }

    /// Asks for a relay of datagrams (RFC 1928 section 7), which lasts as long as the stream that comes back, and tells where it is:
    /// datagrams with the header of that section go there. A relay that gives no address of its own (`0.0.0.0` or `::`) is at `peer`, the
    /// proxy's address as we see it.
    ///
    /// Where our datagrams will come from is left open in the request. Names of relays are not looked up. Over a chain this is of no use:
    /// datagrams do not go through the first proxy.
    ///
    /// # Errors
    /// [`ErrorKind::ProxyUnsupported`] of an HTTP proxy, and of one that does not relay; [`ErrorKind::ProxyDenied`] and
    /// [`ErrorKind::ProxyGeneral`] as the proxy says; [`ErrorKind::TimedOut`] in [`Phase::Proxy`] at `deadline`; else as
    /// [`Error::is_proxy`] tells.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn associate(mut self, peer: IpAddr, deadline: Instant) -> Result<(S, SocketAddr), Error> {
        let tried = || format!("relay datagrams through {}", self.proxy);
        if self.proxy.protocol != ProxyProtocol::Socks5 {
            let happened = "http proxies do not relay datagrams";
            return Err(Error::new(ErrorKind::ProxyUnsupported, Phase::Proxy, tried(), happened));
        }
        let start = Clock::now();
        match timeout_at(deadline.into(), socks5::associate(&mut self.stream, peer)).await {
            Ok(Ok(relay)) => Ok((self.stream, relay)),
            Ok(Err(failure)) => Err(failure.into_error(tried())),
            Err(_) => Err(Error::timed_out(Phase::Proxy, tried(), start.elapsed())),
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

/// Sends what did not go ahead of the proxy's word.
pub(super) async fn send_rest<S: AsyncWrite + Unpin>(
    stream: &mut S,
    rest: &[u8],
    tried: impl Fn() -> String,
    deadline: Instant,
) -> Result<(), Error> {
    if rest.is_empty() {
        return Ok(());
    }
    let start = Clock::now();
    let sent = async {
        stream.write_all(rest).await?;
        stream.flush().await
    };
    match timeout_at(deadline.into(), sent).await {
        Ok(sent) => sent.map_err(|error| Error::from_io(error, Phase::Write, tried())),
        Err(_) => Err(Error::timed_out(Phase::Write, tried(), start.elapsed())),
    }
}

pub(super) fn through(target: &Target, proxy: &Proxy) -> String {
    format!("connect to {target} through {proxy}")
}

impl<S> fmt::Debug for Greeted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Bytes for a destination that are sent ahead of the proxy's word at most: they fit into every socket's buffer, so that a proxy which
/// does not read them yet is still heard.
pub const AHEAD_MAX: usize = 16 * 1024;
