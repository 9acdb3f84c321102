//! Which certificate authorities are trusted.
//!
//! The system's store is read on first use and once in a process. What is deliberately not here: a way to trust everything.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, OnceLock},
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// The certificate authorities that an upstream's certificate must lead to.
///
/// Clones share what was read. The default is [`TlsRoots::system`].
///
/// # Examples
/// ```no_run
/// use keepwarm_transport::tls::{TlsClient, TlsRoots};
///
/// let roots = TlsRoots::system().with_pem_file("/etc/keepwarm/office-ca.pem")?;
/// let client = TlsClient::new(&roots, &[b"h2"])?;
/// # Ok::<(), keepwarm_transport::tls::RootsError>(())
/// ```
#[derive(Clone)]
pub struct TlsRoots {
    system: bool,
    extra: Vec<CertificateDer<'static>>,
    store: Arc<OnceLock<Arc<RootCertStore>>>,
}

/// Why there are no roots to trust, with the file that is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootsError {
    path: Option<PathBuf>,
    text: String,
}

impl TlsRoots {
    /// Trusts what the operating system trusts. Nothing is read before the first [`TlsClient`](super::TlsClient) is made.
    pub fn system() -> TlsRoots {
        TlsRoots { system: true, extra: Vec::new(), store: Arc::default() }
    }

    /// Trusts these certificates and nothing else, not even the system's.
    pub fn only(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsRoots {
        TlsRoots { system: false, extra: certificates.into_iter().collect(), store: Arc::default() }
    }

    /// Trusts the certificates of a PEM file as well.
    ///
    /// # Errors
    /// When the file cannot be read, has no certificate, or has one that is not valid as an authority.
    pub fn with_pem_file(self, path: impl AsRef<Path>) -> Result<TlsRoots, RootsError> {
        let path = path.as_ref();
        let at = |text: String| RootsError { path: Some(path.to_owned()), text };
        let pem = super::read_file(path).map_err(|error| at(error.to_string().to_lowercase()))?;
        self.with_pem(&pem).map_err(|error| at(error.text))
    }

    /// Trusts the certificates of a PEM text as well.
    ///
    /// # Errors
    /// When the text has no certificate, or has one that is not valid as an authority.
    pub fn with_pem(self, pem: &[u8]) -> Result<TlsRoots, RootsError> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| RootsError::new(format!("not valid pem: {error}")))?;
        if certificates.is_empty() {
            return Err(RootsError::new("no certificate in it (expected -----BEGIN CERTIFICATE-----)"));
        }
        self.with_der(certificates)
    }

    /// Trusts these DER certificates as well.
    ///
    /// # Errors
    /// When one is not valid as an authority.
    pub fn with_der(
        mut self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<TlsRoots, RootsError> {
        let before = self.extra.len();
        self.extra.extend(certificates);
        let mut check = RootCertStore::empty();
        for (index, certificate) in self.extra[before..].iter().enumerate() {
            check.add(certificate.clone()).map_err(|error| {
                RootsError::new(format!("certificate {} is not usable as an authority: {error}", index + 1))
            })?;
        }
        self.store = Arc::default();
        Ok(self)
    }

    /// The store that rustls verifies against; built once for all clones.
    pub(crate) fn store(&self) -> Result<Arc<RootCertStore>, RootsError> {
        if let Some(store) = self.store.get() {
            return Ok(Arc::clone(store));
        }
        let mut store = RootCertStore::empty();
        let mut trouble = String::new();
        if self.system {
            // Some systems ship certificates that are no authorities; each is skipped rather than fatal.
            let (_, ignored) = store.add_parsable_certificates(SYSTEM.certificates.iter().cloned());
            tracing::debug!(usable = store.len(), ignored, "system roots loaded");
            trouble.clone_from(&SYSTEM.trouble);
        }
        for certificate in &self.extra {
            store
                .add(certificate.clone())
                .map_err(|error| RootsError::new(format!("a certificate is not usable as an authority: {error}")))?;
        }
        if store.is_empty() {
            let hint = "no certificate authority to trust: install the system's (ca-certificates) or name a file";
            let text = if trouble.is_empty() { hint.to_owned() } else { format!("{hint} ({trouble})") };
            return Err(RootsError::new(text));
        }
        Ok(Arc::clone(self.store.get_or_init(|| Arc::new(store))))
    }
}

impl Default for TlsRoots {
    fn default() -> Self {
        TlsRoots::system()
    }
}

/// Whether they trust the same as they are written; what the operating system trusts may have changed meanwhile.
impl PartialEq for TlsRoots {
    fn eq(&self, other: &TlsRoots) -> bool {
        self.system == other.system && self.extra == other.extra
    }
}

impl Eq for TlsRoots {}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsRoots").field("system", &self.system).field("extra", &self.extra.len()).finish()
    }
}

impl RootsError {
    fn new(text: impl Into<String>) -> RootsError {
        RootsError { path: None, text: text.into() }
    }

    /// The file at fault, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "trusted certificates from {}: {}", path.display(), self.text),
            None => write!(f, "trusted certificates: {}", self.text),
        }
    }
}

impl std::error::Error for RootsError {}

struct System {
    certificates: Vec<CertificateDer<'static>>,
    trouble: String,
}

static SYSTEM: LazyLock<System> = LazyLock::new(|| {
    let loaded = rustls_native_certs::load_native_certs();
    let trouble: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    if !trouble.is_empty() {
        tracing::warn!(trouble = trouble.join("; "), "some of the system's certificates could not be read");
    }
    System { certificates: loaded.certs, trouble: trouble.join("; ") }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_trust_is_an_error_that_says_what_to_do() {
        let error = TlsRoots::only([]).store().unwrap_err();
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    }

    #[test]
    fn the_systems_roots_are_found_or_their_absence_is_explained() {
        match TlsRoots::default().store() {
            Ok(store) => assert!(!store.is_empty()),
            Err(error) => assert!(error.to_string().contains("ca-certificates"), "{error}"),
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let missing = TlsRoots::system().with_pem_file("no/such/ca.pem").unwrap_err();
        assert_eq!(missing.path(), Some(Path::new("no/such/ca.pem")));
        assert!(missing.to_string().starts_with("trusted certificates from no/such/ca.pem: no such file"), "{missing}");
        let empty = TlsRoots::system().with_pem(b"hello").unwrap_err();
        assert!(empty.to_string().contains("no certificate in it"), "{empty}");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let broken = TlsRoots::system().with_pem(broken.as_bytes()).unwrap_err();
        assert!(broken.to_string().contains("certificate 1 is not usable"), "{broken}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_end_is_refused_and_not_read_for_ever() {
        let error = TlsRoots::system().with_pem_file("/dev/zero").unwrap_err();
        assert!(error.to_string().contains("larger than 4 mib"), "{error}");
    }

    #[test]
    fn clones_share_the_store_and_additions_do_not_leak_into_it() {
        let ca = crate::testing::Ca::new();
        let roots = TlsRoots::only([ca.der()]);
        let first = roots.clone().store().unwrap();
        assert!(Arc::ptr_eq(&first, &roots.store().unwrap()));
        let more = roots.clone().with_pem(crate::testing::Ca::new().pem().as_bytes()).unwrap();
        assert_eq!((more.store().unwrap().len(), roots.store().unwrap().len()), (2, 1));
    }
}
