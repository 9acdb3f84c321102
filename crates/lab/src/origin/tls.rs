//! The origin's certificates, the good one and the bad ones, and TLS settings for each set of faults.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::OriginFaults;
use crate::Ca;

/// Certificates and the settings that all addresses share.
#[derive(Debug)]
pub(super) struct Identities {
    good: Arc<CertifiedKey>,
    wrong: Arc<CertifiedKey>,
    untrusted: Arc<CertifiedKey>,
    expired: Arc<CertifiedKey>,
    /// Without tickets and ALPN.
    base: ServerConfig,
    /// One for all addresses: a session of one is good at all.
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

impl Identities {
    pub(super) fn issue(host: &str, ca: &Ca, tickets: bool) -> io::Result<Self> {
        let good = certified(ca.issue(&[host])?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut base = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&good))));
        base.session_storage = Arc::new(NoServerSessionStorage {});
        base.send_tls13_tickets = 0;
        let ticketer = tickets.then(aws_lc_rs::Ticketer::new).transpose().map_err(io::Error::other)?;
        Ok(Self {
            good,
            wrong: certified(ca.issue(&[OTHER_HOST])?)?,
            untrusted: certified(Ca::new().issue(&[host])?)?,
            expired: certified(ca.issue_expired(&[host])?)?,
            base,
            ticketer,
        })
    }

    /// Settings of an address with these faults. One with a bad certificate knows no sessions: it is another server.
    pub(super) fn config(&self, faults: &OriginFaults) -> Arc<ServerConfig> {
        let mut config = self.base.clone();
        let bad = [
            (faults.wrong_certificate, &self.wrong),
            (faults.untrusted, &self.untrusted),
            (faults.expired, &self.expired),
        ];
        if let Some((_, key)) = bad.into_iter().find(|(wanted, _)| *wanted) {
            config.cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(key)));
        } else {
            config.cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.good)));
            if let Some(ticketer) = &self.ticketer {
                config.ticketer = Arc::clone(ticketer);
                config.send_tls13_tickets = TICKETS;
            }
        }
        config.alpn_protocols = match &faults.alpn {
            Some(protocols) => protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect(),
            None => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Arc::new(config)
    }
}

fn certified((chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)) -> io::Result<Arc<CertifiedKey>> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map(Arc::new).map_err(io::Error::other)
}

const OTHER_HOST: &str = "somebody-else.invalid";
/// As many as rustls sends by itself.
const TICKETS: usize = 2;
