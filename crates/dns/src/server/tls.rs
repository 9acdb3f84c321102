//! TLS of the listeners: one certificate for all of them, and one set of settings for each protocol.
//!
//! The settings are shared by all workers, or a session that one of them began could not be resumed with another.

use std::sync::Arc;

use keepwarm_transport::{
    quic::server::QuicServer,
    tls::{CertificateInfo, TlsServer},
};
use tokio_rustls::TlsAcceptor;

use super::{Server, StartError, quic};
use crate::config::{DnsConfig, ListenTransport};

/// What encrypted listeners need.
pub(crate) struct Encryption {
    /// For those who make settings of their own.
    pub(crate) server: TlsServer,
    pub(crate) dot: TlsAcceptor,
    pub(crate) doh: TlsAcceptor,
    doq: QuicServer,
    h3: QuicServer,
}

impl Encryption {
    /// `None` when no listener is encrypted.
    pub(super) fn new(config: &DnsConfig) -> Result<Option<Arc<Encryption>>, StartError> {
        let Some(listen) = config.listen.iter().find(|listen| listen.transport.is_encrypted()) else {
            return Ok(None);
        };
        let files = config.tls.as_ref().ok_or_else(|| StartError::NoCertificate(listen.clone()))?;
        let server = TlsServer::load(&files.certificate, &files.key).map_err(StartError::Certificate)?;
        // RFC 7858 section 3.1 and the registry of protocol ids.
        let dot = TlsAcceptor::from(server.config(&[b"dot"]));
        let doh = TlsAcceptor::from(server.config(&[b"h2", b"http/1.1"]));
        let quic = |transport| quic::settings(config, &server, transport).map_err(StartError::Listen);
        let (doq, h3) = (quic(ListenTransport::Quic)?, quic(ListenTransport::H3)?);
        Ok(Some(Arc::new(Encryption { server, dot, doh, doq, h3 })))
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

impl Server {
    /// The certificate that encrypted listeners show now; `None` when there are none.
    pub fn certificate(&self) -> Option<CertificateInfo> {
        self.shared.encryption.as_ref().map(|encryption| encryption.server.certificate())
    }
}
