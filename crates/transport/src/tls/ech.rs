//! Encrypted client hello (RFC 9849) as a client: keys as servers publish them, what a handshake made of them, and what a
//! server that rejects them says.
//!
//! Where keys come from (DNS), for how long they hold and when a connection goes without is the caller's business.

use std::{fmt, io, sync::Arc};

use rustls::{
    PeerIncompatible,
    client::{EchConfig, EchGreaseConfig, EchMode, EchStatus as RustlsStatus},
    crypto::{
        aws_lc_rs::hpke::{ALL_SUPPORTED_SUITES, DH_KEM_X25519_HKDF_SHA256_AES_128},
        hpke::Hpke,
    },
    internal::msgs::codec::Codec,
};
use rustls_pki_types::EchConfigListBytes;

use crate::error::Error;

/// Keys that a server published, one of which we can use.
///
/// Equal when the published bytes are.
#[derive(Clone)]
pub struct EchKeys {
    config: EchConfig,
    list: Arc<[u8]>,
}

/// Published keys that are of no use: malformed, or of kinds that are not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchKeysError(String);

/// What a handshake that succeeded did to hide the server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EchStatus {
    /// Nothing: the name was in plain sight.
    #[default]
    Off,
    /// The name was in plain sight beside random bytes in the place of an encrypted one (RFC 9849 section 6.2).
    Grease,
    /// The name was encrypted, and the server accepted that.
    Accepted,
}

/// The server could not decrypt the client hello, and proved by a certificate for its public name that it said so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchRejection {
    /// Keys to try instead; `None` when the server has none that we can use, and so has turned the encryption off
    /// (RFC 9849 section 6.1.6).
    pub retry: Option<EchKeys>,
}

impl EchKeys {
    /// Reads an `ECHConfigList` (RFC 9849 section 4), as it stands in the `ech` parameter of an HTTPS or SVCB record.
    ///
    /// # Errors
    /// When it is malformed, or has no entry of a version, key and cipher known here.
    pub fn from_list(list: &[u8]) -> Result<EchKeys, EchKeysError> {
        let bytes = EchConfigListBytes::from(list);
        let config = EchConfig::new(bytes, ALL_SUPPORTED_SUITES).map_err(|error| EchKeysError(error.to_string()))?;
        Ok(EchKeys { config, list: list.into() })
    }

    pub(super) fn mode(&self) -> EchMode {
        self.config.clone().into()
    }
}

impl PartialEq for EchKeys {
    fn eq(&self, other: &EchKeys) -> bool {
        self.list == other.list
    }
}

impl Eq for EchKeys {}

impl fmt::Debug for EchKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchKeys").field("bytes", &self.list.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for EchKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no usable key for encrypted client hello: {}", self.0)
    }
}

impl std::error::Error for EchKeysError {}

impl EchStatus {
    /// `off`, `grease` or `accepted`.
    pub fn as_str(self) -> &'static str {
        match self {
            EchStatus::Off => "off",
            EchStatus::Grease => "grease",
            EchStatus::Accepted => "accepted",
        }
    }

    pub(super) fn of(status: RustlsStatus) -> EchStatus {
        match status {
            RustlsStatus::Grease => EchStatus::Grease,
            RustlsStatus::Accepted => EchStatus::Accepted,
            // Neither of the last two is left when a handshake has succeeded.
            RustlsStatus::NotOffered | RustlsStatus::Offered | RustlsStatus::Rejected => EchStatus::Off,
        }
    }
}

impl EchRejection {
    /// The rejection that a failed handshake ended with; `None` when it failed for another reason.
    pub fn of(error: &Error) -> Option<EchRejection> {
        let source = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
        let rustls::Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(retry)) =
            source.get_ref()?.downcast_ref()?
        else {
            return None;
        };
        let retry = retry.as_ref().and_then(|configs| EchKeys::from_list(&configs.get_encoding()).ok());
        Some(EchRejection { retry })
    }
}

/// Random bytes in the place of an encrypted name. `None` when the system has no random numbers.
pub(super) fn grease() -> Option<EchMode> {
    let suite = DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (placeholder, _) = suite.generate_key_pair().ok()?;
    Some(EchGreaseConfig::new(suite, placeholder).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_no_list_or_of_an_unknown_version_are_refused() {
        for list in [&b""[..], b"\0", b"\0\x05\xfe\x0d\0\x01", b"\0\x04\xfe\x0a\0\0", b"\0\0"] {
            let error = EchKeys::from_list(list).unwrap_err();
            assert!(error.to_string().starts_with("no usable key for encrypted client hello: "), "{error}");
        }
    }

    #[test]
    fn grease_has_a_key_of_its_own_each_time() {
        let [one, two] = [(); 2].map(|()| format!("{:?}", grease().unwrap()));
        assert_ne!(one, two);
    }
}
