//! One address of an origin: its faults, its orders to open connections, its listener and its counters.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::counters::Tally;
use super::tls::Identities;
use super::{OriginCounters, OriginFaults};
use crate::accept::bind;

/// What all addresses share.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) identities: Identities,
    pub(super) delay: Duration,
    pub(super) total: Tally,
    connections: AtomicU64,
    runtime: Handle,
}

impl Origin {
    pub(super) fn new(identities: Identities, delay: Duration) -> Self {
        Self { identities, delay, total: Tally::default(), connections: AtomicU64::new(0), runtime: Handle::current() }
    }

    /// Numbers connections from 1, over all addresses.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One address.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) origin: Arc<Origin>,
    pub(super) ip: IpAddr,
    pub(super) tally: Tally,
    control: watch::Sender<Control>,
    gate: Mutex<Gate>,
}

/// What the tasks of an address obey. Orders are counted: one given twice is obeyed twice.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) faults: Arc<OriginFaults>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) close_idle: u64,
    pub(super) goaway: u64,
    pub(super) reset: u64,
    pub(super) stopping: bool,
}

#[derive(Debug)]
struct Gate {
    listener: Arc<TcpListener>,
    /// The listener no longer listens, and is kept so that its port stays ours.
    refusing: bool,
}

impl Site {
    pub(super) fn new(origin: Arc<Origin>, listener: TcpListener, faults: OriginFaults) -> io::Result<Self> {
        let control = Control {
            tls: origin.identities.config(&faults),
            faults: Arc::new(OriginFaults::default()),
            close_idle: 0,
            goaway: 0,
            reset: 0,
            stopping: false,
        };
        let site = Self {
            ip: listener.local_addr()?.ip(),
            origin,
            tally: Tally::default(),
            control: watch::Sender::new(control),
            gate: Mutex::new(Gate { listener: Arc::new(listener), refusing: false }),
        };
        site.update_faults(|current| *current = faults)?;
        Ok(site)
    }

    pub(super) fn count(&self, change: impl Fn(&mut OriginCounters)) {
        self.tally.count(&change);
        self.origin.total.count(&change);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    pub(super) fn faults(&self) -> Arc<OriginFaults> {
        Arc::clone(&self.control.borrow().faults)
    }

    pub(super) fn order(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
    }

    /// Changes faults and TLS settings together, the gate included. Nothing changes if the address cannot be listened on again.
    pub(super) fn update_faults(&self, change: impl FnOnce(&mut OriginFaults)) -> io::Result<()> {
        // Held throughout, so that two changes at once cannot leave a gate that neither of them wanted.
        let mut gate = self.gate.lock();
        let mut faults = OriginFaults::clone(&self.faults());
        change(&mut faults);
        gate.set(faults.refuse, &self.origin.runtime)?;
        let tls = self.origin.identities.config(&faults);
        self.control.send_modify(|control| {
            control.faults = Arc::new(faults);
            control.tls = tls;
        });
        Ok(())
    }

    /// What to accept from now, if anything.
    pub(super) fn listener(&self) -> Option<Arc<TcpListener>> {
        let gate = self.gate.lock();
        (!gate.refusing).then(|| Arc::clone(&gate.listener))
    }
}

impl Gate {
    fn set(&mut self, refuse: bool, runtime: &Handle) -> io::Result<()> {
        match (self.refusing, refuse) {
            // On Linux that ends the listening at once and keeps the port.
            (false, true) => SockRef::from(&*self.listener).shutdown(Shutdown::Read)?,
            (true, false) => {
                let _entered = runtime.enter();
                let address: SocketAddr = self.listener.local_addr()?;
                self.listener = Arc::new(bind(address)?);
            }
            _ => {}
        }
        self.refusing = refuse;
        Ok(())
    }
}
