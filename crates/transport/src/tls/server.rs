//! TLS as a server: a certificate from PEM files, one for all listeners, exchanged while they run when its files change.
//!
//! Handshakes ask a resolver that all settings share, so a new certificate is shown from the next handshake on and
//! connections that are open live on. What is deliberately not here: certificates chosen by the name that a client asks for,
//! client certificates, and the handshake itself.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};

use super::{certificate::date, read_file};

mod fault;
mod info;

pub use fault::{CertificateError, CertificateFault};
pub use info::CertificateInfo;

/// The certificate of the listeners, and the TLS settings that show it.
///
/// Clones share the certificate. Something has to call [`keep_fresh`](Self::keep_fresh), or [`reload`](Self::reload) now and
/// then, for changed files to be noticed.
///
/// # Examples
/// ```no_run
/// use keepwarm_transport::tls::TlsServer;
///
/// let tls = TlsServer::load("/etc/keepwarm/tls/fullchain.pem", "/etc/keepwarm/tls/privkey.pem")?;
/// let dot = tls.config(&[b"dot"]);
/// let doh = tls.config(&[b"h2", b"http/1.1"]);
/// # Ok::<(), keepwarm_transport::tls::CertificateError>(())
/// ```
#[derive(Clone)]
pub struct TlsServer {
    shared: Arc<Shared>,
}

struct Shared {
    certificate: PathBuf,
    key: PathBuf,
    shown: RwLock<Shown>,
    watch: Mutex<Watch>,
}

struct Shown {
    key: Arc<CertifiedKey>,
    info: CertificateInfo,
}

/// What was seen of the files when they were read last.
struct Watch {
    stamps: Stamps,
    /// Why the pair that is there now is not shown. It is tried again until it is whole.
    failed: Option<CertificateError>,
}

/// What [`TlsServer::reload`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The files are as they were.
    Unchanged,
    /// The new certificate is shown from now on.
    Loaded(CertificateInfo),
    /// The files have changed and cannot be used; the old certificate is shown.
    Failed(CertificateError),
}

impl TlsServer {
    /// Reads a certificate chain, the server's own certificate first, and its private key (PKCS#8, PKCS#1 or SEC1), both
    /// PEM. They may be in one file. A certificate that has expired is a warning in the log and no error.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing that can be used, or the key is not that of the first certificate.
    pub fn load(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<TlsServer, CertificateError> {
        let (certificate, key) = (certificate.as_ref().to_owned(), key.as_ref().to_owned());
        let stamps = Stamps::of(&certificate, &key);
        let shown = read(&certificate, &key)?;
        shown.info.warn(UnixTime::now(), &certificate);
        let watch = Mutex::new(Watch { stamps, failed: None });
        Ok(TlsServer { shared: Arc::new(Shared { certificate, key, shown: RwLock::new(shown), watch }) })
    }

    /// Settings that show the certificate and offer `alpn`, most wanted first. TLS 1.2 and 1.3, no early data, resumption by
    /// tickets, of which the server keeps nothing. With a non-empty `alpn`, a client that offers other protocols only is
    /// refused; one that offers none is not.
    pub fn config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(self.shared.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // Without random numbers there are no tickets; sessions then live in memory.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Arc::new(config)
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> CertificateInfo {
        self.shared.shown.read().info.clone()
    }

    /// Reads the files again if they have changed since they were read last. Blocks as long as the file system does.
    pub fn reload(&self) -> Reload {
        let Shared { certificate, key, shown, watch } = &*self.shared;
        let mut watch = watch.lock();
        let stamps = Stamps::of(certificate, key);
        // A pair that could not be used is half of what is to come: whoever writes it may be quicker than the clock of
        // the file system is fine.
        if stamps == watch.stamps && watch.failed.is_none() {
            return Reload::Unchanged;
        }
        watch.stamps = stamps;
        match read(certificate, key) {
            Ok(new) => {
                watch.failed = None;
                new.info.warn(UnixTime::now(), certificate);
                let info = new.info.clone();
                *shown.write() = new;
                Reload::Loaded(info)
            }
            Err(error) => {
                let said = watch.failed.as_ref() == Some(&error);
                watch.failed = Some(error.clone());
                if said { Reload::Unchanged } else { Reload::Failed(error) }
            }
        }
    }

    /// Looks every 2 s whether the files have changed, and says in the log what came of it. Never ends.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the certificate that is shown.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let tls = self.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || tls.reload()).await else { return };
            match found {
                Reload::Unchanged => {}
                Reload::Loaded(info) => {
                    tracing::info!(
                        names = info.names().join(", "),
                        not_after = info.not_after_date(),
                        "new certificate"
                    );
                }
                Reload::Failed(error) => {
                    tracing::warn!(%error, "the new certificate cannot be used; the old one is shown");
                }
            }
        }
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { certificate, key, .. } = &*self.shared;
        f.debug_struct("TlsServer").field("certificate", certificate).field("key", key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().key.clone())
    }
}

/// Reads and checks a pair.
fn read(certificate: &Path, key: &Path) -> Result<Shown, CertificateError> {
    let at = |path: &Path, fault| CertificateError::new(path, fault);
    let unreadable = |path: &Path, error: &io::Error| at(path, CertificateFault::Unreadable(error.to_string()));
    let pem = read_file(certificate).map_err(|error| unreadable(certificate, &error))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| at(certificate, CertificateFault::NotPem(error.to_string())))?;
    let Some(own) = chain.first() else { return Err(at(certificate, CertificateFault::NoCertificate)) };
    let info = CertificateInfo::read(own, chain.len(), since_epoch(UnixTime::now().as_secs()))
        .map_err(|text| at(certificate, CertificateFault::Unusable(text)))?;
    let pem = read_file(key).map_err(|error| unreadable(key, &error))?;
    let private = match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(private) => private,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => return Err(at(key, fault::no_key(&pem))),
        Err(error) => return Err(at(key, CertificateFault::NotPem(error.to_string()))),
    };
    let certified =
        CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => at(key, CertificateFault::Mismatch(certificate.to_owned())),
            rustls::Error::InvalidCertificate(error) => {
                at(certificate, CertificateFault::Unusable(super::certificate::explain(&error, "this listener")))
            }
            other => at(key, CertificateFault::Unusable(other.to_string())),
        })?;
    Ok(Shown { key: Arc::new(certified), info })
}

/// Tells whether files have changed: renamed over, written again, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 2]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamps {
    fn of(certificate: &Path, key: &Path) -> Stamps {
        Stamps([certificate, key].map(|path| std::fs::metadata(path).ok().map(|meta| Stamp::of(&meta))))
    }
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Stamp {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(meta);
        #[cfg(not(unix))]
        let inode = 0;
        Stamp { modified: meta.modified().ok(), length: meta.len(), inode }
    }
}

fn since_epoch(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// How often the files are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
