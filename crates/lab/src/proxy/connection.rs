//! One connection of a proxy: what was read of it, which orders it has yet to obey, and how it ends.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::counters::Life;
use super::site::{Control, Orders, Site};
use super::spec::{IdleFrom, Pipelining, ProxyClose, ProxyFaults, ProxyPhase};
use super::wire::Wire;
use crate::counters::ClosedBy;
use crate::socket::{DRAIN_MAX, discard};

/// What is kept for one connection. The counters end before the socket closes.
pub(super) struct Connection {
    pub(super) life: Life,
    pub(super) site: Arc<Site>,
    pub(super) wire: Wire,
    pub(super) tcp: Arc<TcpStream>,
    /// Read, and not yet taken.
    pub(super) buffer: BytesMut,
    accepted: Instant,
    control: watch::Receiver<Control>,
    orders: Orders,
    pipelined: bool,
}

/// Why a connection is over, and how it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client has ended it.
    Peer,
    /// As a server closes: FIN, and RST to what comes later.
    Close,
    /// FIN, after which the client may still write without harm to what was sent to it.
    Finish,
    /// RST.
    Reset,
    /// It is forgotten.
    Silence,
    /// It is forgotten until something comes, which is answered with RST.
    SilentReset,
}

impl Connection {
    pub(super) fn new(site: Arc<Site>, tcp: TcpStream) -> Self {
        let tcp = Arc::new(tcp);
        let mut control = site.watch();
        let orders = control.borrow_and_update().orders;
        Self {
            life: Life::accepted(&site.tally, &tcp),
            wire: Wire::plain(&tcp),
            tcp,
            buffer: BytesMut::new(),
            accepted: Instant::now(),
            site,
            control,
            orders,
            pipelined: false,
        }
    }

    pub(super) fn faults(&self) -> Arc<ProxyFaults> {
        self.site.faults()
    }

    /// Shakes hands where TLS is spoken.
    pub(super) async fn shake_hands(&mut self) -> Result<(), Stop> {
        let Some(acceptor) = self.site.tls.clone() else { return Ok(()) };
        let accept = Box::pin(Wire::accept(&acceptor, &self.tcp));
        let mut control = self.control.clone();
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_MAX, accept) => accepted,
            () = reset(&mut control, self.orders) => return Err(Stop::Reset),
        };
        match accepted {
            Ok(Ok(wire)) => self.wire = wire,
            // An alert may be on its way.
            Ok(Err(_)) | Err(_) => return Err(Stop::Finish),
        }
        Ok(())
    }

    /// Acts on the faults of a phase.
    pub(super) fn at(&self, phase: ProxyPhase) -> Result<(), Stop> {
        let faults = self.faults();
        if faults.reset_at == Some(phase) {
            return Err(Stop::Reset);
        }
        if faults.close_at == Some(phase) {
            return Err(Stop::Finish);
        }
        Ok(())
    }

    /// Reads until so many bytes are there.
    pub(super) async fn need(&mut self, count: usize) -> Result<(), Stop> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(())
    }

    /// Takes so many bytes.
    pub(super) async fn take(&mut self, count: usize) -> Result<BytesMut, Stop> {
        self.need(count).await?;
        Ok(self.buffer.split_to(count))
    }

    /// Reads some more. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<(), Stop> {
        self.buffer.reserve(READ_SIZE);
        tokio::select! {
            read = self.wire.read_buf(&mut self.buffer) => match read {
                Ok(0) | Err(_) => Err(Stop::Peer),
                Ok(_) => Ok(()),
            },
            () = reset(&mut self.control, self.orders) => Err(Stop::Reset),
        }
    }

    /// Whether bytes have come that nobody has waited for yet.
    fn early(&self) -> bool {
        // Asked of the system, since the runtime may not have heard of them yet.
        let mut byte = [MaybeUninit::uninit()];
        !self.buffer.is_empty() || SockRef::from(&*self.tcp).peek(&mut byte).is_ok_and(|count| count > 0)
    }

    /// Bytes that come before the answer that they should wait for are counted by `count`, and treated as the faults say.
    async fn judge_early(&mut self, payload: bool) -> Result<(), Stop> {
        if !self.early() {
            return Ok(());
        }
        if payload {
            self.site.count(|counters| counters.payload_early += 1);
        } else if !self.pipelined {
            self.pipelined = true;
            self.site.count(|counters| counters.pipelined += 1);
        }
        match self.faults().pipelining {
            Pipelining::Bears => Ok(()),
            Pipelining::Resets => Err(Stop::Reset),
            Pipelining::Ignores => {
                if self.buffer.is_empty() {
                    self.fill().await?;
                }
                self.buffer.clear();
                Ok(())
            }
        }
    }

    /// Answers one step of the handshake.
    pub(super) async fn answer(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.judge_early(false).await?;
        self.write(bytes).await
    }

    /// Answers the request with success, and sends `payload` with it.
    pub(super) async fn reply(&mut self, bytes: &[u8], payload: &[u8]) -> Result<(), Stop> {
        self.judge_early(true).await?;
        let faults = self.faults();
        for (phase, stop) in [(faults.reset_at, Stop::Reset), (faults.close_at, Stop::Finish)] {
            if let Some(ProxyPhase::Reply(count)) = phase {
                self.write(&bytes[..count.min(bytes.len())]).await?;
                return Err(stop);
            }
        }
        if payload.is_empty() || faults.fragments {
            self.write(bytes).await?;
            return self.write(payload).await;
        }
        self.write(&[bytes, payload].concat()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let written =
            if self.faults().fragments { self.write_fragments(bytes).await } else { self.write_all(bytes).await };
        written.map_err(|_| Stop::Peer)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }

    async fn write_fragments(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            self.write_all(&[*byte]).await?;
            tokio::time::sleep(FRAGMENT_PAUSE).await;
        }
        Ok(())
    }

    /// Waits for the first byte of a request, as an idle connection. `stray` is what it answers when nobody asked.
    pub(super) async fn idle(&mut self, stray: &[u8]) -> Result<(), Stop> {
        if !self.buffer.is_empty() {
            return Ok(());
        }
        self.life.idle(&self.tcp);
        self.orders = Orders { reset: self.orders.reset, ..self.control.borrow_and_update().orders };
        let greeted = Instant::now();
        let mut strayed = false;
        while self.buffer.is_empty() {
            let faults = self.faults();
            let from = if faults.idle_from == IdleFrom::Accepted { self.accepted } else { greeted };
            let closes = faults.close_idle.map(|after| from + after);
            let strays = faults.stray_reply.filter(|_| !strayed).map(|after| from + after);
            self.buffer.reserve(READ_SIZE);
            tokio::select! {
                read = self.wire.read_buf(&mut self.buffer) => if !read.is_ok_and(|count| count > 0) {
                    return Err(Stop::Peer);
                },
                () = at(strays) => {
                    strayed = true;
                    self.stray(stray).await?;
                }
                () = at(closes) => return Err(faults.close_kind.into()),
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return Err(Stop::Reset);
                    }
                    self.obey(stray).await?;
                }
            }
        }
        self.life.busy();
        Ok(())
    }

    async fn obey(&mut self, stray: &[u8]) -> Result<(), Stop> {
        let new = self.control.borrow_and_update().orders;
        let old = std::mem::replace(&mut self.orders, new);
        if new.reset != old.reset || new.reset_idle != old.reset_idle {
            return Err(Stop::Reset);
        }
        if new.stray != old.stray {
            self.stray(&stray[..1]).await?;
        }
        if new.close_idle != old.close_idle { Err(Stop::Close) } else { Ok(()) }
    }

    async fn stray(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.site.count(|counters| counters.strays += 1);
        self.write(bytes).await
    }

    /// Waits for the order to reset; the others are for connections that idle. Cancel safe.
    pub(super) fn reset(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut control = self.control.clone();
        let orders = self.orders;
        async move { reset(&mut control, orders).await }
    }

    /// Ends the connection.
    pub(super) async fn end(mut self, stop: Stop) {
        match stop {
            Stop::Peer => self.life.closed(ClosedBy::Peer, false),
            Stop::Close => self.life.closed(ClosedBy::Lab, false),
            Stop::Reset => self.abort(),
            Stop::Finish => {
                self.life.closed(ClosedBy::Lab, false);
                if tokio::time::timeout(DRAIN_MAX, self.wire.shutdown()).await.is_err() {
                    let _ = SockRef::from(&*self.tcp).shutdown(Shutdown::Write);
                }
                // Closing a socket with unread data would reset it and might take answers with it.
                let _ = tokio::time::timeout(DRAIN_MAX, discard(&self.tcp)).await;
            }
            Stop::Silence | Stop::SilentReset => {
                self.life.silenced();
                self.forget(stop == Stop::SilentReset).await;
            }
        }
    }

    async fn forget(&mut self, resets: bool) {
        let ordered = self.reset();
        let heard = async {
            if resets && self.tcp.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
                return true;
            }
            discard(&self.tcp).await;
            false
        };
        let reset = tokio::select! {
            reset = heard => reset,
            () = ordered => true,
        };
        if reset { self.abort() } else { self.life.closed(ClosedBy::Peer, false) }
    }

    /// Closing a socket with SO_LINGER 0 sends RST. The last owner closes it.
    fn abort(&mut self) {
        self.life.closed(ClosedBy::Lab, true);
        let _ = self.tcp.set_zero_linger();
    }
}

impl From<ProxyClose> for Stop {
    fn from(kind: ProxyClose) -> Self {
        match kind {
            ProxyClose::Fin => Self::Close,
            ProxyClose::Reset => Self::Reset,
            ProxyClose::Silent => Self::Silence,
            ProxyClose::SilentReset => Self::SilentReset,
        }
    }
}

/// Waits until all connections that were open when `seen` was are to be reset.
async fn reset(control: &mut watch::Receiver<Control>, seen: Orders) {
    // The sender lives as long as the site.
    let _ = control.wait_for(|control| control.orders.reset != seen.reset).await;
}

/// Waits for a time, without end for none.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

const READ_SIZE: usize = 16 * 1024;
const FRAGMENT_PAUSE: Duration = Duration::from_millis(1);
/// A client that takes longer to shake hands has failed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
