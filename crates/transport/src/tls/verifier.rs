//! Certificates of designated resolvers: valid for their name, and for the address that designated them
//! (RFC 9462 section 4.2).

use std::{net::IpAddr, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Checks all that the usual verifier checks, and that the certificate names `address` too. It never asks for less.
#[derive(Debug)]
pub(super) struct AlsoFor {
    usual: Arc<WebPkiServerVerifier>,
    address: ServerName<'static>,
}

impl AlsoFor {
    pub(super) fn new(usual: Arc<WebPkiServerVerifier>, address: IpAddr) -> AlsoFor {
        AlsoFor { usual, address: address.into() }
    }
}

impl ServerCertVerifier for AlsoFor {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.address)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
