//! One connection of an origin: which orders it has yet to obey, and how it ends.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::OriginFaults;
use super::site::{Control, Site};
use crate::CloseKind;
use crate::counters::ClosedBy;
use crate::socket::{DRAIN_MAX, discard};

/// What is kept for one connection, beside its stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) site: Arc<Site>,
    pub(super) tcp: Arc<TcpStream>,
    /// Over all addresses of the origin, from 1.
    pub(super) number: u64,
    /// The name in the client's hello, empty before and without one.
    pub(super) sni: Arc<str>,
    pub(super) life: Arc<Life>,
    control: watch::Receiver<Control>,
    close_idle: u64,
    goaway: u64,
    reset: u64,
}

/// What has changed since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) close_idle: bool,
    pub(super) goaway: bool,
    pub(super) reset: bool,
}

impl Connection {
    pub(super) fn new(site: Arc<Site>, tcp: TcpStream) -> Self {
        // Without effect on a socket that its peer has reset already.
        let _ = tcp.set_nodelay(true);
        site.count(super::OriginCounters::accept);
        let mut control = site.watch();
        let now = control.borrow_and_update().clone();
        Self {
            number: site.origin.next_connection(),
            sni: Arc::default(),
            life: Arc::new(Life { site: Arc::clone(&site), closed: AtomicU8::new(OPEN) }),
            tcp: Arc::new(tcp),
            site,
            control,
            close_idle: now.close_idle,
            goaway: now.goaway,
            reset: now.reset,
        }
    }

    pub(super) fn faults(&self) -> Arc<OriginFaults> {
        self.site.faults()
    }

    /// Waits for orders or other faults. Cancel safe.
    pub(super) async fn changed(&mut self) -> Orders {
        if self.control.changed().await.is_err() {
            return Orders { reset: true, ..Orders::default() };
        }
        let control = self.control.borrow_and_update();
        let orders = Orders {
            close_idle: control.close_idle != self.close_idle,
            goaway: control.goaway != self.goaway,
            reset: control.reset != self.reset,
        };
        (self.close_idle, self.goaway, self.reset) = (control.close_idle, control.goaway, control.reset);
        orders
    }

    /// Waits for the order to reset; the others are for connections that are further on.
    pub(super) async fn reset(&mut self) {
        while !self.changed().await.reset {}
    }

    /// Ends the connection without a word of TLS or HTTP. `held` owns the stream.
    pub(super) async fn end<T>(mut self, held: T, kind: CloseKind) {
        drop(held);
        match kind {
            CloseKind::Silence => {
                let tcp = Arc::clone(&self.tcp);
                tokio::select! {
                    () = discard(&tcp) => self.life.closed(ClosedBy::Peer),
                    () = self.reset() => self.abort(),
                }
            }
            CloseKind::Reset => self.abort(),
            CloseKind::Notify | CloseKind::Fin => {
                self.life.closed(ClosedBy::Lab);
                let _ = SockRef::from(&*self.tcp).shutdown(Shutdown::Write);
                self.drain().await;
            }
        }
    }

    /// Reads until the peer closes too: closing a socket with unread data would reset it and might take answers with it.
    pub(super) async fn drain(&self) {
        let _ = tokio::time::timeout(DRAIN_MAX, discard(&self.tcp)).await;
    }

    /// Closing a socket with SO_LINGER 0 sends RST. The last owner closes it.
    fn abort(&self) {
        self.life.closed(ClosedBy::Lab);
        let _ = self.tcp.set_zero_linger();
    }
}

/// Counts the end of one connection.
#[derive(Debug)]
pub(super) struct Life {
    site: Arc<Site>,
    closed: AtomicU8,
}

impl Life {
    /// Only the first call counts.
    pub(super) fn closed(&self, by: ClosedBy) {
        let state = match by {
            ClosedBy::Peer => BY_PEER,
            ClosedBy::Lab => BY_LAB,
        };
        if self.closed.compare_exchange(OPEN, state, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.site.count(|counters| {
                counters.open -= 1;
                match by {
                    ClosedBy::Peer => counters.closed_by_peer += 1,
                    ClosedBy::Lab => counters.closed_by_lab += 1,
                }
            });
        }
    }

    pub(super) fn ended_by_peer(&self) -> bool {
        self.closed.load(Ordering::Relaxed) == BY_PEER
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.closed(ClosedBy::Lab);
    }
}

const OPEN: u8 = 0;
const BY_PEER: u8 = 1;
const BY_LAB: u8 = 2;
