//! The lab itself: starts the listeners, hands out addresses and counters, and ends everything. What happens on a socket is
//! in `udp`, `stream`, `https` and `quic`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::core::{Core, Transport};
use crate::tls::Identity;
use crate::{Ca, CloseKind, Counters, Faults, LabSpec, accept, quic, timer, udp};

/// A running set of DNS upstreams. Dropping it ends them, without waiting.
///
/// It runs on the tokio runtime that it was started on, and one thread of its own that sends delayed answers on time.
#[derive(Debug)]
pub struct Lab {
    core: Arc<Core>,
    addresses: Addresses,
    ca_pem: String,
    ca_root: CertificateDer<'static>,
    tasks: JoinSet<()>,
    /// Closed when the timer's thread is gone.
    timer_ended: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Addresses {
    udp: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    https: Option<SocketAddr>,
    quic: Option<SocketAddr>,
    h3: Option<SocketAddr>,
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
    pub async fn start_with_ca(spec: LabSpec, ca: &Ca) -> io::Result<Self> {
        let core = Arc::new(Core::new(spec.faults.clone()));
        let mut addresses = Addresses::default();
        let mut tasks = JoinSet::new();
        let (udp, tcp) = bind_plain(&spec)?;
        if let Some(socket) = udp {
            addresses.udp = Some(socket.local_addr()?);
            tasks.spawn(udp::serve(Arc::clone(&core), socket));
        }
        if let Some(listener) = tcp {
            addresses.tcp = Some(listener.local_addr()?);
            tasks.spawn(accept::serve(Arc::clone(&core), Transport::Tcp, listener, None));
        }
        let identity = Identity::issue(&spec, ca)?;
        if let Some(port) = spec.tls {
            let listener = accept::bind(SocketAddr::new(spec.address, port))?;
            addresses.tls = Some(listener.local_addr()?);
            let acceptor = identity.acceptor(spec.tls_versions, &[])?;
            tasks.spawn(accept::serve(Arc::clone(&core), Transport::Tls, listener, Some(acceptor)));
        }
        if let Some(port) = spec.https {
            let listener = accept::bind(SocketAddr::new(spec.address, port))?;
            addresses.https = Some(listener.local_addr()?);
            let protocols: &[&str] = if spec.h1_only { &["http/1.1"] } else { &["h2", "http/1.1"] };
            let acceptor = identity.acceptor(spec.tls_versions, protocols)?;
            tasks.spawn(accept::serve(Arc::clone(&core), Transport::Https, listener, Some(acceptor)));
        }
        for (transport, port, address) in
            [(Transport::Quic, spec.quic, &mut addresses.quic), (Transport::H3, spec.h3, &mut addresses.h3)]
        {
            if let Some(port) = port {
                let listener = quic::Listener::bind(SocketAddr::new(spec.address, port), transport, &identity)?;
                *address = Some(listener.address()?);
                tasks.spawn(listener.serve(Arc::clone(&core)));
            }
        }
        let timer_ended = timer::start(Arc::clone(&core))?;
        Ok(Self { core, addresses, ca_pem: ca.pem(), ca_root: ca.root(), tasks, timer_ended })
    }

    /// Where DNS over UDP is served.
    ///
    /// # Panics
    /// If the spec left UDP out.
    #[must_use]
    pub fn udp_addr(&self) -> SocketAddr {
        self.addresses.udp.expect("the spec has a UDP port")
    }

    /// Where DNS over TCP is served.
    ///
    /// # Panics
    /// If the spec left TCP out.
    #[must_use]
    pub fn tcp_addr(&self) -> SocketAddr {
        self.addresses.tcp.expect("the spec has a TCP port")
    }

    /// Where DNS over TLS is served.
    ///
    /// # Panics
    /// If the spec left TLS out.
    #[must_use]
    pub fn tls_addr(&self) -> SocketAddr {
        self.addresses.tls.expect("the spec has a TLS port")
    }

    /// Where DNS over HTTPS is served, with the path `/dns-query`.
    ///
    /// # Panics
    /// If the spec left HTTPS out.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.addresses.https.expect("the spec has an HTTPS port")
    }

    /// Where DNS over QUIC is served.
    ///
    /// # Panics
    /// If the spec left QUIC out.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.addresses.quic.expect("the spec has a QUIC port")
    }

    /// Where DNS over HTTP/3 is served, with the path `/dns-query`.
    ///
    /// # Panics
    /// If the spec left HTTP/3 out.
    #[must_use]
    pub fn h3_addr(&self) -> SocketAddr {
        self.addresses.h3.expect("the spec has an HTTP/3 port")
    }

    /// The authority that signed the lab's certificate, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority that signed the lab's certificate, for a root store.
    #[must_use]
    pub fn ca_root(&self) -> CertificateDer<'static> {
        self.ca_root.clone()
    }

    /// What was seen up to now.
    ///
    /// Whoever has received an answer finds it counted, and whoever has seen the lab end a connection finds that counted.
    /// What a client does without an answer, such as closing, is counted as soon as the lab has noticed.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            udp: self.core.tally(Transport::Udp).snapshot(),
            tcp: self.core.tally(Transport::Tcp).snapshot(),
            tls: self.core.tally(Transport::Tls).snapshot(),
            https: self.core.tally(Transport::Https).snapshot(),
            quic: self.core.tally(Transport::Quic).snapshot(),
            h3: self.core.tally(Transport::H3).snapshot(),
        }
    }

    /// Starts counting anew. What is open or in flight stays counted as such, and the maxima start from there.
    pub fn reset_counters(&self) {
        for transport in Transport::ALL {
            self.core.tally(transport).reset();
        }
    }

    /// Replaces all faults, from the next query on.
    pub fn set_faults(&self, faults: Faults) {
        self.core.update(|control| control.faults = Arc::new(faults));
    }

    /// Changes some faults, from the next query on.
    pub fn update_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.core.update(|control| change(Arc::make_mut(&mut control.faults)));
    }

    /// Ends every connection that is open now, this way, those in a handshake and those silenced before as well.
    ///
    /// Queries in flight are lost, except that h2 and h1 answer them first if `kind` is [`CloseKind::Notify`].
    pub fn close_all(&self, kind: CloseKind) {
        self.core.update(|control| {
            control.closes += 1;
            control.close_kind = kind;
        });
    }

    /// Ends all tasks and connections and waits until they are gone. Clients see their connections closed without notice.
    ///
    /// # Cancel safety
    /// Once polled, the lab ends even if the future is dropped.
    pub async fn stop(mut self) {
        self.core.stop();
        while self.tasks.join_next().await.is_some() {}
        // Nothing is ever sent: the thread's end closes the channel.
        let _ = (&mut self.timer_ended).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.core.stop();
        // The tasks see that and end by themselves; aborting a listener would not end its connections sooner.
        self.tasks.detach_all();
    }
}

/// Binds UDP and TCP, to the same port if the system chooses both.
fn bind_plain(spec: &LabSpec) -> io::Result<(Option<UdpSocket>, Option<TcpListener>)> {
    let at = |port| SocketAddr::new(spec.address, port);
    let (Some(0), Some(0)) = (spec.udp, spec.tcp) else {
        let udp = spec.udp.map(|port| udp::bind(at(port))).transpose()?;
        let tcp = spec.tcp.map(|port| accept::bind(at(port))).transpose()?;
        return Ok((udp, tcp));
    };
    let mut attempts = 0;
    loop {
        let listener = accept::bind(at(0))?;
        match udp::bind(listener.local_addr()?) {
            Ok(socket) => return Ok((Some(socket), Some(listener))),
            // Somebody has that UDP port already: another number, then.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < BIND_ATTEMPTS => attempts += 1,
            Err(error) => return Err(error),
        }
    }
}

const BIND_ATTEMPTS: u32 = 100;
