//! What all connections of a dialer share: a context of BoringSSL in the shape of a profile.

use std::sync::Arc;

use boring::{
    error::ErrorStack,
    ssl::{
        SslCipher, SslContext, SslContextBuilder, SslMode, SslOptions, SslSignatureAlgorithm, SslVerifyMode, SslVersion,
    },
};
use keepwarm_boring_ext as ext;
use keepwarm_transport::tls::PeerVerifier;

use super::{compression, tickets::Tickets, verify};
use crate::profile::{TlsProfile, limits, read};

/// Makes the context. What BoringSSL lacks of the profile is left out ([`Profile::unsent`](crate::profile::Profile::unsent)).
///
/// # Errors
/// The field that BoringSSL does not take.
pub(super) fn build(
    profile: &TlsProfile,
    alpn: &[&str],
    verifier: PeerVerifier,
    tickets: &Arc<Tickets>,
) -> Result<SslContext, (&'static str, ErrorStack)> {
    let at = |field: &'static str| move |error| (field, error);
    let mut context = ext::client_context().map_err(at("tls"))?;
    // BoringSSL frees buffers as soon as they are empty, without a mode for it.
    context.set_mode(SslMode::AUTO_RETRY | SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::ENABLE_PARTIAL_WRITE);
    set_versions(&mut context, profile).map_err(at("tls.versions"))?;
    set_ciphers(&mut context, profile).map_err(at("tls.ciphers"))?;
    let groups = limits::sendable(&profile.groups, limits::GROUPS);
    ext::set_groups(&mut context, &groups).map_err(at("tls.groups"))?;
    set_signature_algorithms(&mut context, profile).map_err(at("tls.signature_algorithms"))?;
    set_extensions(&mut context, profile).map_err(at("tls.trust_anchors"))?;
    compression::add(&mut context, &profile.certificate_compression).map_err(at("tls.certificate_compression"))?;
    ext::set_certificates_max(&mut context, CERTIFICATES_MAX);
    context.set_alpn_protos(&wire_format(alpn)).map_err(at("tls.alpn"))?;
    // Resumed sessions are verified as well: a certificate that has expired since then is refused.
    ext::set_reverify_on_resume(&mut context, true);
    context.set_custom_verify_callback(SslVerifyMode::PEER, move |ssl| verify::verify(&verifier, ssl));
    if profile.resumption {
        keep_tickets(&mut context, tickets);
    }
    Ok(context.build())
}

/// TLS 1.2 at least, whatever the profile says; what it says of older versions cannot be sent.
fn set_versions(context: &mut SslContextBuilder, profile: &TlsProfile) -> Result<(), ErrorStack> {
    let has = |version: &str| profile.versions.iter().any(|known| known == version);
    let (tls12, tls13) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    context.set_min_proto_version(Some(if has("0303") { tls12 } else { tls13 }))?;
    context.set_max_proto_version(Some(if has("0304") { tls13 } else { tls12 }))
}

fn set_ciphers(context: &mut SslContextBuilder, profile: &TlsProfile) -> Result<(), ErrorStack> {
    let (newer, older): (Vec<u16>, Vec<u16>) =
        limits::sendable(&profile.ciphers, limits::CIPHERS).into_iter().partition(|code| code >> 8 == 0x13);
    if !newer.is_empty() {
        ext::set_tls13_ciphers(context, &newer)?;
    }
    let names: Vec<&str> = older.into_iter().filter_map(SslCipher::from_value).map(|cipher| cipher.name()).collect();
    if names.is_empty() { Ok(()) } else { context.set_strict_cipher_list(&names.join(":")) }
}

fn set_signature_algorithms(context: &mut SslContextBuilder, profile: &TlsProfile) -> Result<(), ErrorStack> {
    let codes = limits::sendable(&profile.signature_algorithms, limits::SIGNATURE_ALGORITHMS);
    let algorithms: Vec<SslSignatureAlgorithm> = codes.into_iter().map(SslSignatureAlgorithm::from).collect();
    context.set_verify_algorithm_prefs(&algorithms)
}

/// Extensions that a client sends or not; the others follow from what they carry.
fn set_extensions(context: &mut SslContextBuilder, profile: &TlsProfile) -> Result<(), ErrorStack> {
    let has = |code: &str| profile.extensions.iter().any(|known| known == code);
    context.set_grease_enabled(profile.grease);
    context.set_permute_extensions(profile.permute_extensions);
    if has("0005") {
        context.enable_ocsp_stapling();
    }
    if has("0012") {
        context.enable_signed_cert_timestamps();
    }
    if !has("0023") {
        context.set_options(SslOptions::NO_TICKET);
    }
    match profile.trust_anchors.as_deref().and_then(read::decode_hex) {
        Some(identifiers) => ext::set_trust_anchors(context, &identifiers),
        None => Ok(()),
    }
}

/// The context must not keep its own tickets alive, which keep it.
fn keep_tickets(context: &mut SslContextBuilder, tickets: &Arc<Tickets>) {
    let tickets = Arc::downgrade(tickets);
    ext::keep_tickets(context, move |ssl, ticket| {
        if let (Some(tickets), Some(name)) = (tickets.upgrade(), verify::expected_name(ssl)) {
            tickets.put(name, ticket);
        }
    });
}

/// Protocols as RFC 7301 section 3.1 has them, each after a byte of length.
fn wire_format(protocols: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for protocol in protocols {
        bytes.push(u8::try_from(protocol.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(protocol.as_bytes());
    }
    bytes
}

/// Bytes of certificates, decompressed; what rustls takes.
const CERTIFICATES_MAX: usize = 64 << 10;
