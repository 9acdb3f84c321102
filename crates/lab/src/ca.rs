//! A certificate authority that lives as long as the test that made it. Its key never touches the disk.

use std::fmt;
use std::io;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A throw-away certificate authority with an ECDSA P-256 key.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes an authority with a new key.
    #[expect(clippy::new_without_default, reason = "makes a key: not what a reader expects of a default")]
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "keepwarm lab CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("P-256 keys can be generated");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the parameters above are valid");
        Self { issuer }
    }

    /// The authority's certificate as PEM, for `SSL_CERT_FILE`, `kdig +tls-ca=` and the like.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's certificate, for a root store.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Issues a server certificate for host names and IP addresses, with a new key.
    ///
    /// The chain has one certificate: it is signed by the root itself.
    ///
    /// # Errors
    /// A name that is no valid DNS name.
    pub fn issue(&self, names: &[&str]) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        Ok(chain_and_key(&self.sign(names, false)?))
    }

    /// As [`issue`](Self::issue), but the certificate was valid in the year 2001 alone.
    pub(crate) fn issue_expired(
        &self,
        names: &[&str],
    ) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        Ok(chain_and_key(&self.sign(names, true)?))
    }

    /// As [`issue`](Self::issue), as PEM: the certificate and its key (PKCS#8), for servers that read files.
    ///
    /// # Errors
    /// A name that is no valid DNS name.
    pub fn issue_pem(&self, names: &[&str]) -> io::Result<(String, String)> {
        let (certificate, key) = self.sign(names, false)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn sign(&self, names: &[&str], expired: bool) -> io::Result<(Certificate, KeyPair)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "keepwarm lab upstream");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2001, 12, 31);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok((certificate, key))
    }
}

fn chain_and_key(
    (certificate, key): &(Certificate, KeyPair),
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate.der().clone()], key)
}
