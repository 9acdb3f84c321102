//! One destination: its mode, its orders and its counters.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{EchoCounters, EchoMode};
use crate::proxy::crowd::Crowd;

#[derive(Debug)]
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    pub(super) resets: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mode: EchoMode,
    crowd: Crowd,
    counters: EchoCounters,
}

impl Destination {
    pub(super) fn new(address: SocketAddr) -> Self {
        let state = State { mode: EchoMode::Echo, crowd: Crowd::default(), counters: EchoCounters::default() };
        Self { address, resets: watch::Sender::new(0), state: Mutex::new(state) }
    }

    pub(super) fn mode(&self) -> EchoMode {
        self.state.lock().mode
    }

    pub(super) fn set_mode(&self, mode: EchoMode) {
        self.state.lock().mode = mode;
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut EchoCounters)) {
        change(&mut self.state.lock().counters);
    }

    pub(super) fn counters(&self) -> EchoCounters {
        let state = self.state.lock();
        EchoCounters { connections: state.crowd.live(), ..state.counters }
    }

    pub(super) fn join(&self, tcp: &Arc<TcpStream>) -> Presence<'_> {
        Presence { destination: self, number: self.state.lock().crowd.join(tcp) }
    }
}

/// A connection that is counted. Dropped before its socket closes.
pub(super) struct Presence<'a> {
    destination: &'a Destination,
    number: u64,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.destination.state.lock().crowd.leave(self.number);
    }
}
