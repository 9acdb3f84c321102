//! TLS settings of the encrypted listeners. Tickets are stateless, so that any number of sessions resumes.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::{Ca, LabSpec, TlsVersions};

/// A certificate for everything that the spec names, and its address.
#[derive(Debug)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn issue(spec: &LabSpec, ca: &Ca) -> io::Result<Self> {
        let address = spec.address.to_string();
        let mut names: Vec<&str> = spec.server_names.iter().map(String::as_str).collect();
        names.push(&address);
        let (chain, key) = ca.issue(&names)?;
        Ok(Self { chain, key })
    }

    /// Settings that offer `protocols` by ALPN. With none, what the client offers is ignored.
    pub(crate) fn acceptor(&self, versions: TlsVersions, protocols: &[&str]) -> io::Result<TlsAcceptor> {
        Ok(TlsAcceptor::from(Arc::new(self.config(versions, protocols)?)))
    }

    /// The same for a server without TCP.
    pub(crate) fn config(&self, versions: TlsVersions, protocols: &[&str]) -> io::Result<ServerConfig> {
        let versions: &[_] = match versions {
            TlsVersions::Tls12 => &[&TLS12],
            TlsVersions::Tls13 => &[&TLS13],
            TlsVersions::Both => &[&TLS12, &TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(io::Error::other)?;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(config)
    }
}
