//! Why there is no certificate to show, with the file at fault and what to do.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Why a certificate and its key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateError {
    path: PathBuf,
    fault: CertificateFault,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It cannot be read; the text is the system's.
    Unreadable(String),
    /// It is not valid PEM.
    NotPem(String),
    /// It has no certificate.
    NoCertificate,
    /// It has no private key.
    NoKey,
    /// Its private key is encrypted.
    EncryptedKey,
    /// What is in it is malformed or of a kind that is not supported.
    Unusable(String),
    /// Its key is not that of the first certificate in the other file.
    Mismatch(PathBuf),
}

impl CertificateError {
    pub(super) fn new(path: &Path, fault: CertificateFault) -> CertificateError {
        CertificateError { path: path.to_owned(), fault }
    }

    /// The file at fault.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &CertificateFault {
        &self.fault
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            CertificateFault::Unreadable(text) => {
                write!(f, "read {path}: {}; the daemon's user must be able to read it", text.to_lowercase())
            }
            CertificateFault::NotPem(text) => write!(f, "{path} is not valid pem: {text}"),
            CertificateFault::NoCertificate => {
                write!(f, "{path} has no certificate (expected -----BEGIN CERTIFICATE-----)")
            }
            CertificateFault::NoKey => write!(f, "{path} has no private key (expected -----BEGIN PRIVATE KEY-----)"),
            CertificateFault::EncryptedKey => write!(
                f,
                "the private key in {path} is encrypted, and nobody is there to type its password: \
                 decrypt it with `openssl pkey`"
            ),
            CertificateFault::Unusable(text) => write!(f, "{path} cannot be used: {text}"),
            CertificateFault::Mismatch(certificate) => write!(
                f,
                "the key in {path} is not that of the first certificate in {}: \
                 the chain begins with the server's own certificate, and both files are of one issue",
                certificate.display()
            ),
        }
    }
}

impl std::error::Error for CertificateError {}

/// What a file without a usable key is.
pub(super) fn no_key(pem: &[u8]) -> CertificateFault {
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    if pem.windows(encrypted.len()).any(|window| window == encrypted) {
        CertificateFault::EncryptedKey
    } else {
        CertificateFault::NoKey
    }
}
