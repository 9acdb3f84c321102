//! How one upstream begins, is changed while it is in use, and ends.

use std::{
    io::Read as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use keepwarm_pool::BreakerSettings;
use keepwarm_transport::{proxy::ProxyProtocol, tls::TlsRoots};

use tokio::task::AbortHandle;

use super::{Upstream, Way, check::look_after};
use crate::config::{HostKey, PoolConfig, UpstreamConfig, UpstreamKind};

/// What an upstream was made of beside its settings.
pub(super) struct MadeOf {
    /// Where it speaks TLS.
    roots: Option<TlsRoots>,
    /// What stood in the files that its settings name.
    files: Vec<Option<[u8; digest::SHA256_OUTPUT_LEN]>>,
}

/// Times that may change while an upstream is in use.
#[derive(Debug)]
pub(crate) struct Tuning {
    /// In microseconds.
    connect_timeout: AtomicU64,
    check_interval: AtomicU64,
}

impl Upstream {
    /// Begins to keep spares and to be looked after.
    pub(crate) fn begin(self: &Arc<Self>) {
        match &self.way {
            Way::Direct(_) => return,
            Way::Proxy(spares) => spares.begin(),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.begin(),
        }
        let task = tokio::spawn(look_after(Arc::downgrade(self)));
        let before = self.task.lock().replace(task.abort_handle());
        debug_assert!(before.is_none(), "it begins once");
    }

    /// Whether it is what would be made of these. Group and priority are not part of it.
    pub(crate) fn is_made_of(&self, config: &UpstreamConfig, roots: &TlsRoots) -> bool {
        let own = &self.config;
        own.name == config.name
            && own.kind == config.kind
            && own.through == config.through
            && own.check == config.check
            && own.pipeline == config.pipeline
            && self.made_of == MadeOf::new(config, roots)
    }

    /// Changes how many spares it has, its times, and when it is left alone.
    pub(crate) fn tune(&self, pool: &PoolConfig, breaker: BreakerSettings) {
        self.tuning.set(pool);
        self.vitals.set_breaker(breaker);
        match &self.way {
            Way::Direct(_) => {}
            Way::Proxy(spares) => spares.tune(pool),
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.tune(pool),
        }
    }

    /// It gets nothing new. Spares are closed and no more are kept; what is being made over it is made, and live tunnels stay. Returns
    /// how many connections there were.
    pub(crate) fn retire(&self) -> usize {
        self.stop();
        let live = self.load.live.load(Ordering::Relaxed);
        match &self.way {
            Way::Direct(_) => live,
            Way::Proxy(spares) => spares.retire() + live,
            // Its tunnels are part of its sessions.
            #[cfg(feature = "ssh")]
            Way::Ssh(sessions) => sessions.retire(),
        }
    }

    /// Ends what looks after it.
    pub(super) fn stop(&self) {
        let task = self.task.lock().take();
        task.inspect(AbortHandle::abort);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl MadeOf {
    pub(super) fn new(config: &UpstreamConfig, roots: &TlsRoots) -> MadeOf {
        let through = config.through.iter();
        let proxy = match &config.kind {
            UpstreamKind::Proxy(proxy) => Some(proxy),
            UpstreamKind::Direct | UpstreamKind::Ssh(_) => None,
        };
        let has_tls = through.chain(proxy).any(|proxy| proxy.protocol == ProxyProtocol::Https);
        let files: Vec<&Path> = match &config.kind {
            UpstreamKind::Direct | UpstreamKind::Proxy(_) => Vec::new(),
            UpstreamKind::Ssh(ssh) => {
                let known_hosts = match &ssh.host_key {
                    HostKey::Fingerprint(_) => None,
                    HostKey::KnownHosts(path) => Some(&**path),
                };
                ssh.key.as_deref().into_iter().chain(known_hosts).collect()
            }
        };
        MadeOf { roots: has_tls.then(|| roots.clone()), files: files.into_iter().map(print).collect() }
    }
}

impl PartialEq for MadeOf {
    fn eq(&self, other: &MadeOf) -> bool {
        // What cannot be read is to be found out, and said, by whoever needs it.
        self.roots == other.roots && self.files == other.files && self.files.iter().all(Option::is_some)
    }
}

/// What stands in a file, as a digest: it may be a secret.
fn print(path: &Path) -> Option<[u8; digest::SHA256_OUTPUT_LEN]> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut text).ok()?;
    digest::digest(&digest::SHA256, &text).as_ref().try_into().ok()
}

impl Tuning {
    pub(super) fn new(pool: &PoolConfig) -> Tuning {
        let tuning = Tuning { connect_timeout: AtomicU64::new(0), check_interval: AtomicU64::new(0) };
        tuning.set(pool);
        tuning
    }

    fn set(&self, pool: &PoolConfig) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.connect_timeout.store(micros(pool.connect_timeout), Ordering::Relaxed);
        self.check_interval.store(micros(pool.check_interval), Ordering::Relaxed);
    }

    /// Longest time for a connection to be ready.
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_micros(self.connect_timeout.load(Ordering::Relaxed))
    }

    /// Pause between two checks; zero: never.
    pub(super) fn check_interval(&self) -> Duration {
        Duration::from_micros(self.check_interval.load(Ordering::Relaxed))
    }
}

/// Of a key or a list of keys as much is compared.
const FILE_MAX: u64 = 16 * 1024 * 1024;
