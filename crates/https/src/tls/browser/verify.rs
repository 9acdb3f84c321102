//! Certificates, verified as rustls' are.

use std::sync::OnceLock;

use boring::{
    error::ErrorStack,
    ex_data::Index,
    ssl::{Ssl, SslAlert, SslRef, SslVerifyError},
};
use keepwarm_boring_ext as ext;
use keepwarm_transport::{
    error::ErrorKind,
    tls::{PeerName, PeerVerifier},
};
use parking_lot::Mutex;

/// What a connection remembers of its peer.
struct Expected {
    name: PeerName,
    fault: Mutex<Option<(ErrorKind, String)>>,
}

/// Sets the name that the peer's certificate must be for. Without it, no certificate is accepted.
pub(super) fn expect_name(ssl: &mut SslRef, name: PeerName) -> Result<(), ErrorStack> {
    ssl.replace_ex_data(index()?, Expected { name, fault: Mutex::new(None) });
    Ok(())
}

/// The name that the peer's certificate must be for.
pub(super) fn expected_name(ssl: &SslRef) -> Option<&PeerName> {
    expected(ssl).map(|expected| &expected.name)
}

/// What was wrong with the peer's certificate, as kind and in words.
pub(super) fn fault(ssl: &SslRef) -> Option<(ErrorKind, String)> {
    expected(ssl)?.fault.lock().clone()
}

/// Verifies what the peer sent.
pub(super) fn verify(verifier: &PeerVerifier, ssl: &SslRef) -> Result<(), SslVerifyError> {
    let Some(expected) = expected(ssl) else {
        return Err(SslVerifyError::Invalid(SslAlert::INTERNAL_ERROR));
    };
    verifier.verify(&ext::peer_certificates(ssl), &expected.name).map_err(|fault| {
        *expected.fault.lock() = Some(fault);
        SslVerifyError::Invalid(SslAlert::CERTIFICATE_UNKNOWN)
    })
}

fn expected(ssl: &SslRef) -> Option<&Expected> {
    ssl.ex_data(index().ok()?)
}

/// The one place of connections where it is kept.
fn index() -> Result<Index<Ssl, Expected>, ErrorStack> {
    static INDEX: OnceLock<Result<Index<Ssl, Expected>, ErrorStack>> = OnceLock::new();
    INDEX.get_or_init(Ssl::new_ex_index).clone()
}
