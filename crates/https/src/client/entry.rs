//! The origins that a client knows, each with the tasks that keep it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use hashbrown::HashMap;
use keepwarm_transport::{resolve::Resolve, tls::TlsRoots};
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinSet};

use super::{Counters, OriginStats, Pool, StartError, limits};
use crate::{
    config::{HttpsConfig, OriginConfig, PoolConfig},
    keeper,
    origin::{Origin, is_host},
    site::{Ground, Site},
    tls::TlsDialer,
};

/// All origins, and the settings that are not about one of them.
pub(crate) struct Origins {
    /// By authority, lower case, without the port where it is 443.
    pub(super) by_authority: HashMap<Box<str>, Arc<Entry>>,
    pub(super) settings: Arc<Settings>,
    pub(super) closed: bool,
}

/// What of a config is in force beside its origins.
pub(crate) struct Settings {
    pub(super) any_host: Option<Box<OriginConfig>>,
    pub(super) any_host_max: usize,
    pub(super) pool: PoolConfig,
    pub(super) slow: Duration,
    pub(super) focus: usize,
    pub(super) roots: TlsRoots,
}

/// An origin and what keeps it.
pub(crate) struct Entry {
    pub(crate) origin: Arc<Origin>,
    pub(super) is_configured: bool,
    keeper: Mutex<Option<Keeper>>,
    /// Set once it is no origin any more: what it still opens for requests that began before is closed at their end.
    retired: OnceLock<Pool>,
}

/// The tasks of an origin.
struct Keeper {
    keep: AbortHandle,
    /// Where connections are kept ready.
    stay_ready: Option<AbortHandle>,
}

impl Origins {
    /// Takes out the hosts that no origin names, unused for longest first, that there are too many of.
    pub(super) fn trim(&mut self) -> Vec<Arc<Entry>> {
        let mut gone = Vec::new();
        loop {
            let passing = || self.by_authority.iter().filter(|(_, entry)| !entry.is_configured);
            if passing().count() <= self.settings.any_host_max {
                return gone;
            }
            let oldest = passing().min_by_key(|(_, entry)| entry.origin.used()).map(|(authority, _)| authority.clone());
            gone.extend(oldest.and_then(|authority| self.by_authority.remove(&authority)));
        }
    }
}

impl Settings {
    /// Takes what is not about one origin.
    ///
    /// # Errors
    /// When hosts that no origin names could not be connected to.
    pub(super) fn new(config: &HttpsConfig) -> Result<Settings, StartError> {
        if let Some(any) = &config.any_host {
            TlsDialer::new(&any.profile, any.http, &config.roots)
                .map_err(|error| StartError::Tls { host: "any_host".to_owned(), error })?;
        }
        Ok(Settings {
            any_host: config.any_host.clone(),
            any_host_max: config.any_host_max,
            pool: config.pool.clone(),
            slow: config.slow,
            focus: limits::focus(config),
            roots: config.roots.clone(),
        })
    }

    pub(super) fn ground<'a>(&'a self, resolver: &'a Arc<dyn Resolve>) -> Ground<'a> {
        Ground { roots: &self.roots, resolver, focus: self.focus }
    }

    /// The settings of a host that no origin names; `None`: it is refused.
    pub(super) fn passing(&self, host: &str, port: u16) -> Option<OriginConfig> {
        self.any_host.as_deref().map(|any| OriginConfig { host: host.to_owned(), port, ..any.clone() })
    }
}

impl Entry {
    /// An origin with a site of its own.
    pub(super) fn new(
        config: OriginConfig,
        ground: &Ground<'_>,
        requests: Arc<Counters>,
        is_configured: bool,
    ) -> Result<Arc<Entry>, StartError> {
        let host = &config.host;
        if !is_host(host) {
            return Err(StartError::Host(host.clone()));
        }
        let site = Site::new(&config, ground, requests);
        let site = site.map_err(|error| StartError::Tls { host: host.clone(), error })?;
        Ok(Entry::on(config, site, is_configured))
    }

    /// An origin on a site that there is already.
    pub(super) fn on(config: OriginConfig, site: Arc<Site>, is_configured: bool) -> Arc<Entry> {
        let origin = Origin::new(config, site);
        Arc::new(Entry { origin, is_configured, keeper: Mutex::default(), retired: OnceLock::new() })
    }

    /// Starts the tasks, if there are none.
    pub(super) fn keep(&self, pool: &Pool, tasks: &Mutex<JoinSet<()>>, is_closed: impl FnOnce() -> bool) {
        let mut keeper = self.keeper.lock();
        if keeper.is_some() || is_closed() {
            return;
        }
        let mut tasks = tasks.lock();
        while tasks.try_join_next().is_some() {}
        let origin = Arc::downgrade(&self.origin);
        let stay_ready = self.origin.is_eager();
        *keeper = Some(Keeper {
            keep: tasks.spawn(keeper::keep(pool.clone(), origin.clone())),
            stay_ready: stay_ready.then(|| tasks.spawn(keeper::stay_ready(pool.clone(), origin))),
        });
        self.origin.kept();
    }

    /// Ends the tasks.
    pub(super) fn stop(&self) {
        if let Some(keeper) = &*self.keeper.lock() {
            keeper.abort();
        }
    }

    /// Keeps no connection ready any more, and at the end of its last request none at all. Addresses are found and probed until then.
    pub(super) fn retire(&self, pool: &Pool) {
        self.origin.retire();
        if let Some(stay_ready) = self.keeper.lock().as_ref().and_then(|keeper| keeper.stay_ready.as_ref()) {
            stay_ready.abort();
        }
        // Once is enough.
        let _ = self.retired.set(pool.clone());
    }

    pub(super) fn stats(&self) -> OriginStats {
        OriginStats {
            authority: self.origin.authority().to_string(),
            profile: self.origin.config.profile.label(),
            is_configured: self.is_configured,
            addresses: self.origin.counts(),
            requests: self.origin.requests.read(),
            latency: self.origin.requests.latency.lock().clone(),
        }
    }
}

impl Keeper {
    fn abort(&self) {
        self.keep.abort();
        self.stay_ready.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut() {
            keeper.abort();
        }
        if let Some(pool) = self.retired.get() {
            self.origin.flush(pool);
        }
    }
}
