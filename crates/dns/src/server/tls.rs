//! TLS of the listeners: one certificate for all of them, and one set of settings for each protocol.
//!
//! The settings are shared by all workers, or a session that one of them began could not be resumed with another.

use std::sync::{Arc, OnceLock};

use keepwarm_transport::{
    quic::server::QuicServer,
    tls::{CertificateInfo, TlsServer},
};
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_rustls::TlsAcceptor;

use super::{Server, StartError, quic};
use crate::config::{DnsConfig, ListenTls, ListenTransport};

/// What encrypted listeners need.
pub(crate) struct Encryption {
    /// For those who make settings of their own.
    pub(crate) server: TlsServer,
    pub(crate) dot: TlsAcceptor,
    pub(crate) doh: TlsAcceptor,
    doq: QuicServer,
    h3: QuicServer,
    /// Looks for new certificates.
    watch: OnceLock<AbortHandle>,
}

impl Encryption {
    /// `None` when no listener is encrypted.
    pub(super) fn new(config: &DnsConfig) -> Result<Option<Arc<Encryption>>, StartError> {
        let Some(files) = Encryption::wanted(config)? else { return Ok(None) };
        let server = TlsServer::load(&files.certificate, &files.key).map_err(StartError::Certificate)?;
        // RFC 7858 section 3.1 and the registry of protocol ids.
        let dot = TlsAcceptor::from(server.config(&[b"dot"]));
        let doh = TlsAcceptor::from(server.config(&[b"h2", b"http/1.1"]));
        let quic = |transport| quic::settings(config, &server, transport).map_err(StartError::Listen);
        let (doq, h3) = (quic(ListenTransport::Quic)?, quic(ListenTransport::H3)?);
        Ok(Some(Arc::new(Encryption { server, dot, doh, doq, h3, watch: OnceLock::new() })))
    }

    /// The files of the certificate; `None` when no listener is encrypted.
    pub(super) fn wanted(config: &DnsConfig) -> Result<Option<&ListenTls>, StartError> {
        let Some(listen) = config.listen.iter().find(|listen| listen.transport.is_encrypted()) else {
            return Ok(None);
        };
        config.tls.as_ref().map(Some).ok_or_else(|| StartError::NoCertificate(listen.clone()))
    }

    /// Whether settings made of `new` would be those that were made of `old`.
    pub(super) fn is_same(old: &DnsConfig, new: &DnsConfig) -> bool {
        let quic =
            |config: &DnsConfig| (config.clients.tcp_max_in_flight, config.clients.tcp_idle_timeout, config.timeout);
        old.tls == new.tls && quic(old) == quic(new)
    }

    /// Reads the certificate's files again when they change, for as long as this is here.
    pub(super) fn watch(&self, runtime: &Handle) {
        let server = self.server.clone();
        self.watch.get_or_init(|| runtime.spawn(async move { server.keep_fresh().await }).abort_handle());
    }

    /// The settings of a QUIC listener of this kind.
    pub(super) fn quic(&self, transport: ListenTransport) -> &QuicServer {
        if transport == ListenTransport::H3 { &self.h3 } else { &self.doq }
    }

    /// The settings of a TCP listener of this kind; `None` for those without TLS.
    pub(super) fn acceptor(&self, transport: ListenTransport) -> Option<&TlsAcceptor> {
        match transport {
            ListenTransport::Tls => Some(&self.dot),
            ListenTransport::Https => Some(&self.doh),
            _ => None,
        }
    }
}

impl Drop for Encryption {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
    }
}

impl Server {
    /// The certificate that encrypted listeners show now; `None` when there are none.
    pub fn certificate(&self) -> Option<CertificateInfo> {
        self.shared.setup().encryption.as_ref().map(|encryption| encryption.server.certificate())
    }
}
