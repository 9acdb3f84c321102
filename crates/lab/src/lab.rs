//! The lab itself: starts the listeners, hands out addresses and counters, and ends everything. What happens on a socket is
//! in `udp`, `stream` and `https`.

use std::io;
use std::net::SocketAddr;

use crate::{Ca, CloseKind, Counters, Faults, LabSpec};

/// A running set of DNS upstreams. Dropping it ends them.
#[derive(Debug)]
pub struct Lab {
    ca_pem: String,
}

impl Lab {
    /// Starts a lab with a certificate authority of its own.
    ///
    /// # Errors
    /// An address that cannot be bound, or a bad server name.
    pub async fn start(spec: LabSpec) -> io::Result<Self> {
        Self::start_with_ca(spec, &Ca::new()).await
    }

    /// Starts a lab whose certificate `ca` signs, so that several labs can share one trust root.
    ///
    /// # Errors
    /// An address that cannot be bound, or a bad server name.
    pub async fn start_with_ca(_spec: LabSpec, ca: &Ca) -> io::Result<Self> {
        Ok(Self { ca_pem: ca.pem() })
    }

    /// Where DNS over UDP is served.
    ///
    /// # Panics
    /// If the spec left UDP out.
    #[must_use]
    pub fn udp_addr(&self) -> SocketAddr {
        panic!("not yet")
    }

    /// Where DNS over TCP is served.
    ///
    /// # Panics
    /// If the spec left TCP out.
    #[must_use]
    pub fn tcp_addr(&self) -> SocketAddr {
        panic!("not yet")
    }

    /// Where DNS over TLS is served.
    ///
    /// # Panics
    /// If the spec left TLS out.
    #[must_use]
    pub fn tls_addr(&self) -> SocketAddr {
        panic!("not yet")
    }

    /// Where DNS over HTTPS is served.
    ///
    /// # Panics
    /// If the spec left HTTPS out.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        panic!("not yet")
    }

    /// The authority that signed the lab's certificate, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What was seen up to now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Starts counting anew; what is open or in flight stays counted as such.
    pub fn reset_counters(&self) {}

    /// Replaces all faults, from the next query on.
    pub fn set_faults(&self, _faults: Faults) {}

    /// Changes some faults, from the next query on.
    pub fn update_faults(&self, _change: impl FnOnce(&mut Faults)) {}

    /// Ends every connection that is open now, this way.
    pub fn close_all(&self, _kind: CloseKind) {}

    /// Ends all tasks and connections and waits until they are gone.
    pub async fn stop(self) {}
}
