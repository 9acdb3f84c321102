//! Upstream proxies on loopback that misbehave on request, destinations whose bytes prove whose they are, and a round trip to put
//! before either. What goes wrong is in `spec`, what was seen in `counters`.

mod clock;
mod connection;
mod counters;
mod crowd;
mod delay;
mod echo;
mod gate;
mod http;
mod listener;
mod site;
mod socks5;
mod spec;
mod tunnel;
mod udp;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use counters::ProxyCounters;
pub use crowd::Live;
pub use delay::{DelayCounters, DelayRelay};
pub use echo::{EchoCounters, EchoLab, EchoMode, Mismatch, Tagged};
pub use spec::{IdleFrom, LabProxyProtocol, Pipelining, ProxyClose, ProxyFaults, ProxyPhase, ProxySpec, ReplyAddress};

use crate::Ca;
use delay::Line;
use gate::Gate;
use site::Site;

/// A running proxy. Dropping it ends it, without waiting.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use keepwarm_lab::{EchoLab, ProxyFaults, ProxyLab, ProxySpec, Tagged};
/// use std::time::Duration;
///
/// let echo = EchoLab::start(1).await?;
/// let faults = ProxyFaults { close_idle: Some(Duration::from_secs(5)), ..ProxyFaults::default() };
/// let credential = Some(("ann".to_owned(), "hunter2".to_owned()));
/// let pinned = [("echo.test".to_owned(), echo.addr(0))].into();
/// let proxy = ProxyLab::start(ProxySpec { credential, faults, pinned, ..ProxySpec::default() }).await?;
/// // A tunnel through proxy.addr() to echo.test, on which this is written ...
/// let mut tagged = Tagged::random(echo.addr(0));
/// let bytes = tagged.request(1000);
/// // ... and this comes back: tagged.check(&received) is Ok(()).
/// assert_eq!(proxy.counters().live, 0);
/// proxy.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ProxyLab {
    site: Arc<Site>,
    address: SocketAddr,
    /// Stands before the proxy where there is a delay.
    delay: Option<DelayRelay>,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    tasks: JoinSet<()>,
}

impl ProxyLab {
    /// The name in the certificate of a proxy over TLS, beside its address.
    pub const NAME: &str = "proxy.lab";

    /// Starts a proxy with a certificate authority of its own.
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub async fn start(spec: ProxySpec) -> io::Result<Self> {
        Self::start_with_ca(spec, &Ca::new()).await
    }

    /// Starts a proxy whose certificate `ca` signs, so that several can share one trust root.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_ca(spec: ProxySpec, ca: &Ca) -> io::Result<Self> {
        let gate = Gate::bind(SocketAddr::new(spec.address, 0))?;
        let inner = gate.address()?;
        let delay = match spec.delay {
            delay if delay.is_zero() => None,
            delay => Some(DelayRelay::start_on(spec.address, inner, delay).await?),
        };
        let line = delay.as_ref().map_or_else(Line::immediate, DelayRelay::line);
        let tls = (spec.protocol == LabProxyProtocol::Https).then(|| acceptor(ca, inner)).transpose()?;
        let refuse = spec.faults.refuse;
        let mut lab = Self {
            site: Arc::new(Site::new(spec, gate, tls, line)?),
            address: delay.as_ref().map_or(inner, DelayRelay::addr),
            delay,
            ca_pem: ca.pem(),
            ca_der: ca.root(),
            tasks: JoinSet::new(),
        };
        lab.refuse(refuse)?;
        lab.tasks.spawn(listener::serve(Arc::clone(&lab.site)));
        Ok(lab)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
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

    /// The faults as they are.
    #[must_use]
    pub fn faults(&self) -> ProxyFaults {
        ProxyFaults::clone(&self.site.faults())
    }

    /// Replaces all faults.
    ///
    /// # Panics
    /// If it cannot listen again after it refused: without file descriptors, that is.
    pub fn set_faults(&self, faults: ProxyFaults) {
        self.update_faults(|current| *current = faults);
    }

    /// Changes some faults.
    ///
    /// # Panics
    /// As [`set_faults`](Self::set_faults).
    pub fn update_faults(&self, change: impl FnOnce(&mut ProxyFaults)) {
        let mut faults = self.faults();
        change(&mut faults);
        self.refuse(faults.refuse).expect("the port was kept and there are file descriptors");
        self.site.set_faults(faults);
    }

    /// Lets `host`, a name or an address, be at `address` for later requests, whatever their port.
    pub fn pin(&self, host: &str, address: SocketAddr) {
        self.site.pin(host, address);
    }

    /// What it has seen up to now.
    #[must_use]
    pub fn counters(&self) -> ProxyCounters {
        self.site.tally.snapshot()
    }

    /// Closes all connections that wait for a request: FIN.
    pub fn close_idle(&self) {
        self.site.order(|orders| orders.close_idle += 1);
    }

    /// Resets all connections that wait for a request.
    pub fn reset_idle(&self) {
        self.site.order(|orders| orders.reset_idle += 1);
    }

    /// Writes a byte to all connections that wait for a request.
    pub fn stray(&self) {
        self.site.order(|orders| orders.stray += 1);
    }

    /// Resets all connections, tunnels, handshakes and forgotten ones included.
    pub fn reset_open(&self) {
        self.site.order(|orders| orders.reset += 1);
    }

    /// Goes down: new connections are refused by the system, and open ones reset.
    ///
    /// # Panics
    /// As [`set_faults`](Self::set_faults).
    pub fn down(&self) {
        self.update_faults(|faults| faults.refuse = true);
        self.reset_open();
    }

    /// Comes back at the same port.
    ///
    /// # Panics
    /// As [`set_faults`](Self::set_faults).
    pub fn up(&self) {
        self.update_faults(|faults| faults.refuse = false);
    }

    /// Ends all tasks and connections and waits until they are gone.
    ///
    /// # Cancel safety
    /// Once polled, the proxy ends even if the future is dropped.
    pub async fn stop(mut self) {
        self.site.stop();
        while self.tasks.join_next().await.is_some() {}
        if let Some(delay) = self.delay.take() {
            delay.stop().await;
        }
    }

    fn refuse(&self, refuse: bool) -> io::Result<()> {
        match &self.delay {
            Some(delay) => delay.refuse(refuse),
            None => self.site.gate.set(refuse),
        }
    }
}

impl Drop for ProxyLab {
    fn drop(&mut self) {
        self.site.stop();
        // The task sees that and ends by itself; aborting it would not end its connections sooner.
        self.tasks.detach_all();
    }
}

fn acceptor(ca: &Ca, address: SocketAddr) -> io::Result<TlsAcceptor> {
    let (chain, key) = ca.issue(&[ProxyLab::NAME, &address.ip().to_string()])?;
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
