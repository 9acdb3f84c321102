//! The rules that servers are held to, for TLS stacks that are not rustls': the same roots, names, dates and words.

use std::sync::Arc;

use rustls::{
    AlertDescription,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{RootsError, TlsRoots, parse_name, usual_verifier, words};
use crate::error::{Error, ErrorKind};

/// Verifies servers' certificates exactly as [`TlsClient`](super::TlsClient) does.
#[derive(Debug, Clone)]
pub struct PeerVerifier(Arc<WebPkiServerVerifier>);

/// A name that a certificate can be for: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName(ServerName<'static>);

impl PeerVerifier {
    /// Makes one that trusts `roots`.
    ///
    /// # Errors
    /// When `roots` has no usable certificate.
    pub fn new(roots: &TlsRoots) -> Result<PeerVerifier, RootsError> {
        usual_verifier(roots).map(PeerVerifier)
    }

    /// Verifies that the first certificate of `chain` is for `name`, is valid now and leads to a root by the others; all are DER.
    ///
    /// # Errors
    /// What is wrong, as kind and in words.
    pub fn verify(&self, chain: &[&[u8]], name: &PeerName) -> Result<(), (ErrorKind, String)> {
        let told = |error: &rustls::Error| words(error, &name.0.to_str());
        let mut chain = chain.iter().map(|der| CertificateDer::from(*der));
        let Some(own) = chain.next() else {
            return Err(told(&rustls::Error::NoCertificatesPresented));
        };
        let others: Vec<_> = chain.collect();
        let verified = self.0.verify_server_cert(&own, &others, &name.0, &[], UnixTime::now());
        verified.map(drop).map_err(|error| told(&error))
    }
}

impl PeerName {
    /// Reads a name as it stands in a URL: a trailing dot and the brackets of an IPv6 literal are taken off. `tried` is what the
    /// error says was tried.
    ///
    /// # Errors
    /// When it is neither a DNS name nor an IP address.
    pub fn parse(name: &str, tried: &str) -> Result<PeerName, Error> {
        parse_name(name, tried).map(PeerName)
    }

    /// The DNS name that a hello shows (RFC 6066 section 3); addresses are not shown.
    pub fn shown(&self) -> Option<&str> {
        match &self.0 {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        }
    }
}

/// What an alert of the peer means, as kind and in words; alerts are those of RFC 8446 section 6.
pub fn explain_alert(alert: u8) -> (ErrorKind, String) {
    words(&rustls::Error::AlertReceived(AlertDescription::from(alert)), "")
}
