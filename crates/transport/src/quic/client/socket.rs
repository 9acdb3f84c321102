//! The socket under one connection, which also tells what ICMP says of the peer.
//!
//! quinn's own reads such an error and forgets it; here it is the word that nobody listens there, long before a time-out.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket, sync::watch};

use crate::{
    error::{Error, Phase},
    udp::{self, UdpOptions},
};

/// One connection's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// The last error that a datagram of ours came back with.
    unreachable: watch::Sender<Option<io::ErrorKind>>,
}

impl Socket {
    /// Opens a socket to `peer`, on a port that the system chooses.
    pub(super) async fn open(peer: SocketAddr) -> Result<Arc<Socket>, Error> {
        let io = bind(peer).await?;
        let state = UdpSocketState::new((&io).into())
            .map_err(|error| Error::from_io(error, Phase::Connect, format!("connect to {peer}")))?;
        Ok(Arc::new(Socket { io, state, unreachable: watch::Sender::new(None) }))
    }

    /// Waits until the system says that the peer cannot be reached.
    pub(super) async fn unreachable(&self) -> io::ErrorKind {
        self.reported(|_| true).await
    }

    /// Waits until the system says that nobody listens at the peer's port any more. That its host or network is out of
    /// reach may pass, and the connection lives on.
    pub(crate) async fn refused(&self) {
        self.reported(|kind| kind == io::ErrorKind::ConnectionRefused).await;
    }

    /// An error is reported to whichever call comes first: one that sends, one that receives, or the one in here.
    async fn reported(&self, wanted: impl Fn(io::ErrorKind) -> bool) -> io::ErrorKind {
        let mut unreachable = self.unreachable.subscribe();
        loop {
            if let Some(kind) = unreachable.borrow_and_update().filter(|kind| wanted(*kind)) {
                return kind;
            }
            tokio::select! {
                // The sender is `self`: it does not go before.
                _ = unreachable.changed() => {}
                ready = self.io.ready(Interest::ERROR) => {
                    if ready.is_ok() && let Ok(Some(error)) = self.io.take_error() {
                        self.note(&error);
                    }
                    // What was to be read of the error is read: the next one is a new event.
                    let _ = self.io.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                }
            }
        }
    }

    fn note(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        if matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable) {
            self.unreachable.send_replace(Some(error.kind()));
        }
    }
}

/// quinn waits for room from one task alone, that of the connection.
#[derive(Debug)]
struct Room(Arc<Socket>);

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_send_ready(cx)
    }
}

/// Connected, so that the system passes on datagrams of the peer alone, and errors of the way to it.
#[cfg(any(target_os = "linux", target_os = "android"))]
async fn bind(peer: SocketAddr) -> Result<UdpSocket, Error> {
    udp::connect(peer, &UdpOptions::default()).await
}

/// Other systems refuse to send on a connected socket to a named address, which is how quinn sends.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
async fn bind(peer: SocketAddr) -> Result<UdpSocket, Error> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let any = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    udp::listen(SocketAddr::new(any, 0), false, UdpOptions::default().recv_buffer)
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // Lost, as on any network. An error may be that of an earlier datagram, too.
            Err(error) => {
                self.note(&error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, meta)) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => self.note(&error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}
