//! A certificate for one run. Its key is never written; what is written is the certificate that it is trusted by.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::PrivateKeyDer;

use super::SERVER_NAME;

/// The settings of the DoT and of the DoH listener.
pub(super) fn make(ca_file: &Path) -> anyhow::Result<(Arc<ServerConfig>, Arc<ServerConfig>)> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(rcgen::DnType::CommonName, "dns-bench CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let pem = ca.pem();
    std::fs::write(ca_file, pem).with_context(|| format!("write {}", ca_file.display()))?;

    let mut leaf = CertificateParams::new(vec![SERVER_NAME.to_owned(), "127.0.0.1".to_owned()])?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.distinguished_name.push(rcgen::DnType::CommonName, SERVER_NAME);
    let key = KeyPair::generate()?;
    let chain = vec![leaf.signed_by(&key, &ca)?.der().clone(), ca.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());

    let settings = |protocol: &[u8]| -> anyhow::Result<Arc<ServerConfig>> {
        let mut settings = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())?;
        settings.ticketer = aws_lc_rs::Ticketer::new()?;
        settings.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(settings))
    };
    // RFC 7858 names "dot"; a client that offers no protocol is served too.
    Ok((settings(b"dot")?, settings(b"h2")?))
}
