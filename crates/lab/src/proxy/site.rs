//! What all tasks of one proxy share: its faults, its orders to open connections, its listener and its counters.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::counters::{ProxyCounters, Tally};
use super::delay::Line;
use super::gate::Gate;
use super::spec::{LabProxyProtocol, ProxyFaults, ProxySpec};

pub(super) struct Site {
    pub(super) protocol: LabProxyProtocol,
    pub(super) credential: Option<(String, String)>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) gate: Gate,
    pub(super) tally: Arc<Tally>,
    /// Where UDP relays are bound.
    pub(super) ip: IpAddr,
    /// What datagrams pass. TCP connections pass a relay before the proxy.
    pub(super) line: Line,
    control: watch::Sender<Control>,
    pinned: Mutex<HashMap<String, SocketAddr>>,
}

/// What the tasks obey. Orders are counted: one given twice is obeyed twice.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) faults: Arc<ProxyFaults>,
    pub(super) orders: Orders,
    pub(super) stopping: bool,
}

/// How often each order was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) close_idle: u64,
    pub(super) reset_idle: u64,
    pub(super) stray: u64,
    pub(super) reset: u64,
}

impl Site {
    pub(super) fn new(spec: ProxySpec, gate: Gate, tls: Option<TlsAcceptor>, line: Line) -> io::Result<Self> {
        let faults = Arc::new(spec.faults);
        Ok(Self {
            protocol: spec.protocol,
            credential: spec.credential,
            line,
            tls,
            ip: gate.address()?.ip(),
            gate,
            tally: Arc::default(),
            control: watch::Sender::new(Control { faults, orders: Orders::default(), stopping: false }),
            pinned: Mutex::new(spec.pinned),
        })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    pub(super) fn faults(&self) -> Arc<ProxyFaults> {
        Arc::clone(&self.control.borrow().faults)
    }

    pub(super) fn set_faults(&self, faults: ProxyFaults) {
        self.control.send_modify(|control| control.faults = Arc::new(faults));
    }

    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.control.send_modify(|control| change(&mut control.orders));
    }

    pub(super) fn stop(&self) {
        self.control.send_modify(|control| control.stopping = true);
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ProxyCounters)) {
        self.tally.count(change);
    }

    pub(super) fn pin(&self, host: &str, address: SocketAddr) {
        self.pinned.lock().insert(host.to_owned(), address);
    }

    /// Where a destination is. Nothing beyond loopback exists.
    pub(super) fn locate(&self, host: &str, port: u16) -> Option<SocketAddr> {
        if let Some(address) = self.pinned.lock().get(host) {
            return Some(*address);
        }
        let ip: IpAddr = host.parse().ok()?;
        ip.to_canonical().is_loopback().then_some(SocketAddr::new(ip, port))
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("protocol", &self.protocol).field("ip", &self.ip).finish_non_exhaustive()
    }
}
