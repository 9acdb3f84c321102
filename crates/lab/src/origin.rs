//! An HTTPS origin with many addresses on loopback, each of which misbehaves in its own way: h2 and HTTP/1.1 over TLS, one port for
//! all, one certificate for all. What requests are answered is in `route`, how in `exchange`, what goes wrong in `spec`.

mod body;
mod connection;
mod counters;
mod exchange;
mod h1;
mod h2;
mod listener;
mod route;
mod site;
mod spec;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use body::{expected_body, sha256_hex};
pub use counters::OriginCounters;
pub use route::{Echo, Upload};
pub use spec::{OriginFaults, OriginSpec, loopback_addresses};

use crate::Ca;
use crate::accept::bind;
use site::{Origin, Site};
use tls::Identities;

/// A running origin. Dropping it ends it, without waiting.
///
/// | path | answer |
/// |---|---|
/// | `/` | a short text |
/// | `/echo` | JSON ([`Echo`]): method, path, query, headers, body and trailers of the request, address and connection |
/// | `/bytes/N` | N bytes, see [`expected_body`] |
/// | `/status/N` | that status |
/// | `/trailers` | the request's body, then trailers: `lab-sha256`, and the request's own with `echo-` before their names |
/// | `/upload` | JSON ([`Upload`]): length and SHA-256 of the request's body, its trailers |
/// | `/stream`, `/stream/N` | pieces of 64 bytes every 10 ms, without end or N of them, without content-length |
/// | `/early` | 413 before the body was read |
/// | `/expect` | as `/upload`; to `Expect: 100-continue` 100 comes after 50 ms, or after `?delay=` ms |
/// | `/expect/417` | 417 to `Expect: 100-continue`, without the body being read |
///
/// HEAD is answered as GET is, without the body. Every answer has `lab-address`, `lab-connection` (numbered from 1 over all
/// addresses) and `lab-request` (numbered from 1 on each connection).
#[derive(Debug)]
pub struct OriginLab {
    host: String,
    port: u16,
    origin: Arc<Origin>,
    sites: BTreeMap<IpAddr, Arc<Site>>,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    tasks: JoinSet<()>,
}

impl OriginLab {
    /// Starts an origin with a certificate authority of its own.
    ///
    /// # Errors
    /// No address, one that cannot be bound, or a host that no certificate can name.
    pub async fn start(spec: OriginSpec) -> io::Result<Self> {
        Self::start_with_ca(spec, &Ca::new()).await
    }

    /// Starts an origin whose certificate `ca` signs, so that several can share one trust root.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_ca(spec: OriginSpec, ca: &Ca) -> io::Result<Self> {
        let identities = Identities::issue(&spec.host, ca, spec.session_tickets)?;
        let origin = Arc::new(Origin::new(identities, spec.delay));
        let (port, listeners) = bind_all(&spec.addresses, spec.port)?;
        let mut sites = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let site = Arc::new(Site::new(Arc::clone(&origin), listener, spec.faults.clone())?);
            tasks.spawn(listener::serve(Arc::clone(&site)));
            sites.insert(site.ip, site);
        }
        Ok(Self { host: spec.host, port, origin, sites, ca_pem: ca.pem(), ca_der: ca.root(), tasks })
    }

    /// The name that the certificate has.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of all addresses.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.sites.keys().copied().collect()
    }

    /// The authority that signed the certificate, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority that signed the certificate, for a root store.
    #[must_use]
    pub fn ca_der(&self) -> CertificateDer<'static> {
        self.ca_der.clone()
    }

    /// The faults of an address.
    ///
    /// # Panics
    /// If `ip` is none of the addresses; so do all methods that take one.
    #[must_use]
    pub fn faults(&self, ip: IpAddr) -> OriginFaults {
        OriginFaults::clone(&self.site(ip).faults())
    }

    /// Replaces all faults of an address.
    ///
    /// # Panics
    /// If `ip` is none of the addresses, or cannot be listened on again after it refused: without file descriptors, that is.
    pub fn set_faults(&self, ip: IpAddr, faults: OriginFaults) {
        self.update_faults(ip, |current| *current = faults);
    }

    /// Changes some faults of an address.
    ///
    /// # Panics
    /// As [`set_faults`](Self::set_faults).
    pub fn update_faults(&self, ip: IpAddr, change: impl FnOnce(&mut OriginFaults)) {
        self.site(ip).update_faults(change).expect("the port was kept and there are file descriptors");
    }

    /// Announces another limit of streams on open and later h2 connections of an address, 0 as well: sets
    /// [`OriginFaults::max_streams`].
    ///
    /// # Panics
    /// If `ip` is none of the addresses.
    pub fn set_max_streams(&self, ip: IpAddr, max: u32) {
        self.update_faults(ip, |faults| faults.max_streams = Some(max));
    }

    /// Ends every connection of an address that has no request in flight, as [`OriginFaults::close_kind`] says.
    ///
    /// # Panics
    /// If `ip` is none of the addresses.
    pub fn close_idle(&self, ip: IpAddr) {
        self.site(ip).order(|control| control.close_idle += 1);
    }

    /// Shuts all open h2 connections of an address down in order, and lets HTTP/1.1 ones end with the answer that they wait for, or
    /// at once if idle.
    ///
    /// # Panics
    /// If `ip` is none of the addresses.
    pub fn goaway(&self, ip: IpAddr) {
        self.site(ip).order(|control| control.goaway += 1);
    }

    /// Resets every open connection of an address, whatever it does, silenced ones and handshakes included.
    ///
    /// # Panics
    /// If `ip` is none of the addresses.
    pub fn reset_open(&self, ip: IpAddr) {
        self.site(ip).order(|control| control.reset += 1);
    }

    /// What an address has seen up to now.
    ///
    /// Whoever has received an answer finds its request counted, and whoever has seen the lab end a connection finds that counted.
    /// What a client does without an answer, such as closing, is counted as soon as the lab has noticed.
    ///
    /// # Panics
    /// If `ip` is none of the addresses.
    #[must_use]
    pub fn counters(&self, ip: IpAddr) -> OriginCounters {
        self.site(ip).tally.snapshot()
    }

    /// What all addresses have seen. The maxima are those of all together: `open_max` is the most connections at one time anywhere.
    #[must_use]
    pub fn total(&self) -> OriginCounters {
        self.origin.total.snapshot()
    }

    /// Starts counting anew, for all addresses. What is open stays counted as such, and the maxima start from there.
    pub fn reset_counters(&self) {
        for site in self.sites.values() {
            site.tally.reset();
        }
        self.origin.total.reset();
    }

    /// Ends all tasks and connections and waits until they are gone. Clients see their connections closed without notice.
    ///
    /// # Cancel safety
    /// Once polled, the lab ends even if the future is dropped.
    pub async fn stop(mut self) {
        self.order_stop();
        while self.tasks.join_next().await.is_some() {}
    }

    fn order_stop(&self) {
        for site in self.sites.values() {
            site.order(|control| control.stopping = true);
        }
    }

    fn site(&self, ip: IpAddr) -> &Site {
        self.sites.get(&ip).unwrap_or_else(|| panic!("{ip} is none of the origin's addresses"))
    }
}

impl Drop for OriginLab {
    fn drop(&mut self) {
        self.order_stop();
        // The tasks see that and end by themselves; aborting a listener would not end its connections sooner.
        self.tasks.detach_all();
    }
}

/// Binds one port on all addresses. If the system chooses and the number is taken on one of them, it chooses another one.
fn bind_all(addresses: &[IpAddr], port: u16) -> io::Result<(u16, Vec<TcpListener>)> {
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an origin needs an address"));
    }
    let mut attempts = 0;
    loop {
        match try_bind_all(addresses, port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 && attempts < BIND_ATTEMPTS => {
                attempts += 1;
            }
            result => return result,
        }
    }
}

fn try_bind_all(addresses: &[IpAddr], mut port: u16) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let listener = bind(SocketAddr::new(*ip, port))?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((port, listeners))
}

const BIND_ATTEMPTS: u32 = 100;
