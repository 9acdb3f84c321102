//! Destinations on loopback whose bytes prove whose they are. See [`Tagged`] for how.

mod destination;
mod serve;
mod tagged;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use tagged::{Mismatch, Tagged};

use super::crowd::Live;
use super::gate::Gate;
use destination::Destination;

/// Running destinations, each with a TCP and a UDP port of the same number. Dropping it ends them, without waiting.
#[derive(Debug)]
pub struct EchoLab {
    destinations: Vec<Arc<Destination>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What a destination does with a connection. Clients begin each with a nonce of 16 bytes, see [`Tagged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EchoMode {
    /// Echoes each byte, transformed by the destination and the nonce, and closes after the client has. [`Tagged::check`].
    #[default]
    Echo,
    /// Speaks first, 16 bytes that are the destination's own ([`Tagged::banner`]), then echoes.
    Banner,
    /// Reads up to FIN, then answers [`Tagged::digest`] and closes.
    Digest,
    /// Reads up to FIN without a look, then answers the number of bytes after the nonce, in 8 bytes, and closes.
    Sink,
    /// Sends as many bytes as [`Tagged::source`] asks for, and closes. [`Tagged::check_source`].
    Source,
    /// Resets the connection once the nonce has come.
    Reset,
    /// Takes everything and answers nothing, UDP included.
    Silent,
}

/// What a destination has seen since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EchoCounters {
    /// TCP connections. Behind a proxy they end as soon as that has passed the end on, which may be after the next one has begun:
    /// count tunnels at a [`ProxyLab`](crate::ProxyLab).
    pub connections: Live,
    /// Connections whose nonce has come.
    pub greeted: u64,
    /// Bytes received over TCP, nonces not included.
    pub received: u64,
    /// Bytes sent over TCP, counted before they leave.
    pub sent: u64,
    /// Bytes that are not those which [`Tagged`] sends for this destination, nonce and offset. Counted in the modes `Echo`, `Banner`
    /// and `Digest`, and over UDP.
    pub foreign: u64,
    /// Datagrams received, those too short for a nonce and a number not included.
    pub datagrams: u64,
}

impl EchoLab {
    /// Starts so many destinations on 127.0.0.1.
    ///
    /// # Errors
    /// Without ports or file descriptors.
    pub async fn start(destinations: usize) -> io::Result<Self> {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), destinations).await
    }

    /// The same on another address.
    ///
    /// # Errors
    /// As [`start`](Self::start), or an address that cannot be bound.
    pub async fn start_on(ip: IpAddr, destinations: usize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let mut lab = Self { destinations: Vec::with_capacity(destinations), stop, tasks: JoinSet::new() };
        for _ in 0..destinations {
            let (gate, udp) = bind_both(ip)?;
            let destination = Arc::new(Destination::new(gate.address()?));
            lab.tasks.spawn(run(Arc::clone(&destination), gate, udp, lab.stop.subscribe()));
            lab.destinations.push(destination);
        }
        Ok(lab)
    }

    /// Where a destination is.
    ///
    /// # Panics
    /// If there are not so many; so do all methods that take an index.
    #[must_use]
    pub fn addr(&self, index: usize) -> SocketAddr {
        self.destinations[index].address
    }

    /// Where all of them are.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.destinations.iter().map(|destination| destination.address).collect()
    }

    /// What a destination does with later connections.
    ///
    /// # Panics
    /// As [`addr`](Self::addr).
    pub fn set_mode(&self, index: usize, mode: EchoMode) {
        self.destinations[index].set_mode(mode);
    }

    /// Resets the open connections of a destination.
    ///
    /// # Panics
    /// As [`addr`](Self::addr).
    pub fn reset_open(&self, index: usize) {
        self.destinations[index].resets.send_modify(|count| *count += 1);
    }

    /// What a destination has seen up to now.
    ///
    /// # Panics
    /// As [`addr`](Self::addr).
    #[must_use]
    pub fn counters(&self, index: usize) -> EchoCounters {
        self.destinations[index].counters()
    }

    /// Bytes of others at all destinations: see [`EchoCounters::foreign`].
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.destinations.iter().map(|destination| destination.counters().foreign).sum()
    }

    /// Ends all connections and tasks and waits until they are gone.
    ///
    /// # Cancel safety
    /// Once polled, the destinations end even if the future is dropped.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for EchoLab {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.tasks.detach_all();
    }
}

async fn run(destination: Arc<Destination>, gate: Gate, udp: UdpSocket, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    connections.spawn(serve::udp(Arc::clone(&destination), udp));
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = stop.changed() => {}
            tcp = gate.accept() => {
                while connections.try_join_next().is_some() {}
                if connections.len() <= CONNECTIONS_MAX {
                    connections.spawn(serve::tcp(Arc::clone(&destination), tcp));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

/// Binds TCP and UDP ports of the same number.
fn bind_both(ip: IpAddr) -> io::Result<(Gate, UdpSocket)> {
    let mut attempts = 0;
    loop {
        let gate = Gate::bind(SocketAddr::new(ip, 0))?;
        match crate::udp::bind(gate.address()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < BIND_ATTEMPTS => attempts += 1,
            udp => return Ok((gate, udp?)),
        }
    }
}

const BIND_ATTEMPTS: u32 = 100;
const CONNECTIONS_MAX: usize = 16_384;
