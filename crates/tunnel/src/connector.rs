//! Makes tunnels: the way in for programs and for the server alike.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use keepwarm_transport::{
    error::ErrorKind as TransportKind,
    proxy::Target,
    resolve::{Resolve, literal},
    tcp::{self, TcpOptions},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::Instant as Clock,
};

use crate::{
    config::TunnelConfig,
    error::{Error, ErrorKind, Side},
    stream::Stream,
};

/// Makes tunnels to destinations by the rules of a [`TunnelConfig`]. Clones are handles of the same.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    config: TunnelConfig,
    resolver: Arc<dyn Resolve>,
}

/// Wishes of one tunnel.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Everything must be done by then. Default: the config's `acquire_timeout` and then its `timeout`.
    pub deadline: Option<Instant>,
    /// The first bytes for the destination, where they are known already: they are on their way when the tunnel is handed out, and go
    /// ahead of the upstream's word where that upstream has shown that it bears this.
    pub payload: Bytes,
}

/// How a tunnel came about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// Name of the upstream, `direct` where this machine connected itself.
    pub upstream: Arc<str>,
    /// Age of the spare that served it; `None`: there was none, the connection was dialled for it.
    pub spare: Option<Duration>,
    /// Upstream connections that were tried, the last one included.
    pub tries: u32,
    /// Wait for the permits.
    pub waited: Duration,
    /// From the permits to the destination's word.
    pub elapsed: Duration,
}

/// Bytes that went through a tunnel so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client to the destination.
    pub sent: AtomicU64,
    /// From the destination to the client.
    pub received: AtomicU64,
}

/// A live connection to a destination. Dropping it closes it and gives its permit to the next that waits.
pub struct Tunnel {
    stream: Stream,
    live: Live,
}

/// A tunnel's permits and counters: as long as this lives, the tunnel counts as live.
pub struct Live {
    traffic: Traffic,
    trace: Trace,
}

/// How datagrams for a destination leave.
#[derive(Debug)]
pub(crate) enum UdpWay {
    /// From a socket of ours.
    Direct,
}

impl Connector {
    /// Begins to keep spares. Names of proxies, and destinations that this machine connects to itself, are looked up by `resolver`.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] where the roots for `https://` proxies cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(config: TunnelConfig, resolver: Arc<dyn Resolve>) -> Result<Connector, Error> {
        Ok(Connector { inner: Arc::new(Inner { config, resolver }) })
    }

    /// The settings.
    pub fn config(&self) -> &TunnelConfig {
        &self.inner.config
    }

    /// Connects to `target`.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was begun and passes its permit on.
    pub async fn connect(&self, target: &Target) -> Result<Tunnel, Error> {
        self.connect_with(target, ConnectOptions::default()).await
    }

    /// Connects to `target` with wishes.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). A payload that was sent is not sent again: the error then says that it may have arrived.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_with(&self, target: &Target, options: ConnectOptions) -> Result<Tunnel, Error> {
        let start = Clock::now();
        let deadline = options.deadline.unwrap_or((start + self.inner.config.timeout).into_std());
        let failed = |error: keepwarm_transport::error::Error| {
            let kind = match error.kind() {
                TransportKind::Refused => ErrorKind::Refused,
                TransportKind::Resolve => ErrorKind::Resolve,
                TransportKind::Unreachable => ErrorKind::HostUnreachable,
                TransportKind::NetworkDown => ErrorKind::NetworkUnreachable,
                _ if error.is_timeout() => ErrorKind::TimedOut,
                _ => ErrorKind::Local,
            };
            Error::from_transport(kind, error)
        };
        let ips = match literal(target.host().as_ref()) {
            Some(ip) => vec![ip],
            None => self.inner.resolver.resolve(&target.host()).await.map_err(failed)?,
        };
        let addresses: Vec<_> = ips.into_iter().map(|ip| (ip, target.port()).into()).collect();
        let (mut stream, _) = tcp::connect(&addresses, &TcpOptions::default(), deadline).await.map_err(failed)?;
        if !options.payload.is_empty() {
            let local = |error: io::Error| Error::new(ErrorKind::Local, Side::Upstream, error.to_string());
            stream.write_all(&options.payload).await.map_err(local)?;
        }
        let trace = Trace {
            upstream: "direct".into(),
            spare: None,
            tries: 1,
            waited: Duration::ZERO,
            elapsed: start.elapsed(),
        };
        Ok(Tunnel { stream: Stream::Tcp(stream), live: Live { traffic: Traffic::default(), trace } })
    }

    /// How datagrams for `target` leave, by the rules.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the upstream carries none, and those of [`connect`](Self::connect).
    pub(crate) async fn udp_way(&self, _target: &Target) -> Result<UdpWay, Error> {
        Ok(UdpWay::Direct)
    }

    /// Looks up what this machine connects to itself.
    pub(crate) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.inner.resolver
    }
}

impl Tunnel {
    /// How it came about.
    pub fn trace(&self) -> &Trace {
        &self.live.trace
    }

    /// The connection, and what keeps it counted as live: to be dropped when the connection has ended.
    pub fn into_parts(self) -> (Stream, Live) {
        (self.stream, self.live)
    }
}

impl Live {
    /// How the tunnel came about.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Its bytes; whoever relays them counts here.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        this.live.traffic.received.fetch_add(read as u64, Ordering::Relaxed);
        poll
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            this.live.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("trace", &self.live.trace).finish_non_exhaustive()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("trace", &self.trace).finish_non_exhaustive()
    }
}
