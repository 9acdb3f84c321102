//! The socket under one connection: quinn's own, which also tells what ICMP says of the peer.
//!
//! quinn takes such an error for the end of the socket or ignores it; here it is the word that nobody listens there, long
//! before a time-out.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::watch;

use crate::{
    error::{Error, Phase},
    udp::{self, UdpOptions},
};

/// One connection's socket.
pub(crate) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The last error that a datagram of ours came back with.
    unreachable: watch::Sender<Option<io::ErrorKind>>,
}

impl Socket {
    /// Opens a socket to `peer`, on a port that the system chooses.
    pub(super) async fn open(peer: SocketAddr) -> Result<Arc<Socket>, Error> {
        let fail = |error| Error::from_io(error, Phase::Connect, format!("connect to {peer}"));
        let socket = bind(peer).await?.into_std().map_err(fail)?;
        let inner = TokioRuntime.wrap_udp_socket(socket).map_err(fail)?;
        Ok(Arc::new(Socket { inner, unreachable: watch::Sender::new(None) }))
    }

    /// Waits until the system says that the peer cannot be reached.
    pub(super) async fn unreachable(&self) -> io::ErrorKind {
        let mut unreachable = self.unreachable.subscribe();
        let kind = unreachable.wait_for(Option::is_some).await.ok().and_then(|kind| *kind);
        kind.unwrap_or(io::ErrorKind::ConnectionRefused)
    }

    /// Waits until the system says that nobody listens at the peer's port any more. That its host or network is out of
    /// reach may pass, and the connection lives on.
    pub(crate) async fn refused(&self) {
        let mut unreachable = self.unreachable.subscribe();
        // The sender is `self`: it does not go before.
        let _ = unreachable.wait_for(|kind| *kind == Some(io::ErrorKind::ConnectionRefused)).await;
    }
}

/// Connected, so that the system passes on datagrams of the peer alone, and errors of the way to it.
#[cfg(any(target_os = "linux", target_os = "android"))]
async fn bind(peer: SocketAddr) -> Result<tokio::net::UdpSocket, Error> {
    udp::connect(peer, &UdpOptions::default()).await
}

/// Other systems refuse to send on a connected socket to a named address, which is how quinn sends.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
async fn bind(peer: SocketAddr) -> Result<tokio::net::UdpSocket, Error> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let any = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    udp::listen(SocketAddr::new(any, 0), false, UdpOptions::default().recv_buffer)
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match ready!(self.inner.poll_recv(cx, bufs, meta)) {
                Err(error) if is_unreachable(error.kind()) => {
                    self.unreachable.send_replace(Some(error.kind()));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn is_unreachable(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
