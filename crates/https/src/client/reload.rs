//! Another config for a client that runs, in two steps: what is new is built, which may fail and changes nothing; then it is put in force,
//! which cannot fail.
//!
//! What is deliberately not here: what becomes of the addresses of an origin (`site`, `inventory`).

use std::{fmt, sync::Arc, time::Instant};

use hashbrown::HashMap;
use keepwarm_transport::reload::Changes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Client, Inner, StartError,
    entry::{Entry, Settings},
    limits,
};
use crate::{
    config::{AddressSource, HttpsConfig, OriginConfig, PoolConfig},
    origin::is_host,
    site::Ground,
};

mod letting_go;

use letting_go::LettingGo;

/// A config that is ready to be put in force by [`apply`](Self::apply). Dropped without that, nothing has changed.
pub struct Prepared {
    inner: Arc<Inner>,
    settings: Arc<Settings>,
    next: HashMap<Box<str>, Next>,
    /// Whether hosts that no origin names stay as they are.
    keeps_passing: bool,
    /// What is other beside the origins.
    changes: Changes,
    /// No other reload meanwhile.
    _only: OwnedSemaphorePermit,
}

/// An origin of the new config.
struct Next {
    entry: Arc<Entry>,
    becomes: Becomes,
}

/// What it is to the running client.
enum Becomes {
    /// The same object as before.
    Kept,
    /// Other settings than the old one's.
    Changed {
        old: Arc<Entry>,
    },
    Added,
}

impl Client {
    /// Builds all that another config needs beside what runs: origins that are new or other than they were, with their TLS. Reads no
    /// address and connects to nothing.
    ///
    /// The [gateway](HttpsConfig::gateway) is not touched: see [`GatewayWatch::prepare`](crate::GatewayWatch::prepare).
    ///
    /// # Errors
    /// Those of [`new`](Self::new); and [`StartError::Busy`] while another [`Prepared`] is there. Nothing has changed then.
    pub fn prepare(&self, config: HttpsConfig) -> Result<Prepared, StartError> {
        let inner = &self.inner;
        let only = inner.reload.clone().try_acquire_owned().map_err(|_| StartError::Busy)?;
        limits::limits(&config.pool).check().map_err(StartError::Limits)?;
        let (running, old) = {
            let origins = inner.origins.read();
            (origins.by_authority.clone(), origins.settings.clone())
        };
        let settings = Settings::new(&config)?;
        let changes = differences(&old, &settings);
        let next = successors(config.origins, &running, &settings, &settings.ground(&inner.resolver))?;
        let keeps_passing =
            settings.any_host.is_some() && settings.any_host == old.any_host && settings.roots == old.roots;
        let settings = Arc::new(settings);
        Ok(Prepared { inner: inner.clone(), settings, next, keeps_passing, changes, _only: only })
    }
}

/// The origins of the new config, and those of hosts that none names but that are in use.
fn successors(
    origins: Vec<OriginConfig>,
    running: &HashMap<Box<str>, Arc<Entry>>,
    settings: &Settings,
    ground: &Ground<'_>,
) -> Result<HashMap<Box<str>, Next>, StartError> {
    let mut next = HashMap::new();
    for origin in origins {
        if !is_host(&origin.host) {
            return Err(StartError::Host(origin.host));
        }
        let authority: Box<str> = crate::origin::authority(&origin.host, origin.port).as_str().into();
        if next.contains_key(&authority) {
            return Err(StartError::Twice(origin.host));
        }
        let found = Next::new(origin, running.get(&authority), ground, true)?;
        next.insert(authority, found);
    }
    for (authority, entry) in running.iter().filter(|(_, entry)| !entry.is_configured) {
        let host = &entry.origin.config;
        if let Some(passing) = settings.passing(&host.host, host.port)
            && !next.contains_key(authority)
        {
            next.insert(authority.clone(), Next::new(passing, Some(entry), ground, false)?);
        }
    }
    Ok(next)
}

/// What is other beside limits and origins.
fn differences(old: &Settings, new: &Settings) -> Changes {
    let mut changes = Changes::default();
    match (&old.any_host, &new.any_host) {
        (None, None) => {}
        (None, Some(_)) => changes.added.push(ANY_HOST.to_owned()),
        (Some(old_any), Some(new_any)) if old_any == new_any && old.roots == new.roots => {
            changes.kept.push(ANY_HOST.to_owned());
        }
        (Some(_), _) => changes.changed.push(ANY_HOST.to_owned()),
    }
    if old.any_host_max != new.any_host_max {
        changes.changed.push("https.any_host_max".to_owned());
    }
    if old.slow != new.slow {
        changes.changed.push("https.slow".to_owned());
    }
    changes
}

impl Next {
    fn new(
        config: OriginConfig,
        old: Option<&Arc<Entry>>,
        ground: &Ground<'_>,
        is_configured: bool,
    ) -> Result<Next, StartError> {
        let Some(old) = old else {
            let entry = Entry::new(config, ground, Arc::default(), is_configured)?;
            return Ok(Next { entry, becomes: Becomes::Added });
        };
        let becomes = || Becomes::Changed { old: old.clone() };
        if !old.origin.suits(&config, ground.roots) {
            let entry = Entry::new(config, ground, old.origin.requests.clone(), is_configured)?;
            return Ok(Next { entry, becomes: becomes() });
        }
        if old.is_configured == is_configured && old.origin.config == config {
            return Ok(Next { entry: old.clone(), becomes: Becomes::Kept });
        }
        let entry = Entry::on(config, old.origin.site().clone(), is_configured);
        Ok(Next { entry, becomes: becomes() })
    }

    /// What ran at this place when this was built.
    fn old(&self) -> Option<&Arc<Entry>> {
        match &self.becomes {
            Becomes::Kept => Some(&self.entry),
            Becomes::Changed { old } => Some(old),
            Becomes::Added => None,
        }
    }

    /// Lets the addresses follow. Requests under way on the old one go on.
    fn take_over(&self, focus: usize, now: Instant) {
        let origin = &self.entry.origin;
        match &self.becomes {
            Becomes::Kept => origin.with_inventory(|inventory| inventory.set_focus(focus)),
            Becomes::Changed { old } if self.shares_site_with(old) => {
                old.stop();
                origin.renew(&old.origin.config, &origin.config, focus, now);
            }
            Becomes::Changed { old } => origin.inherit(&old.origin, &old.origin.config, &origin.config, now),
            Becomes::Added => {}
        }
    }

    fn shares_site_with(&self, old: &Entry) -> bool {
        Arc::ptr_eq(self.entry.origin.site(), old.origin.site())
    }

    /// Whether its tasks are to run before its next request.
    fn is_eager(&self) -> bool {
        self.entry.origin.is_eager() || self.old().is_some_and(|old| old.origin.is_kept())
    }
}

impl Prepared {
    /// Puts the config in force for requests from now on. Must be called in a tokio runtime.
    ///
    /// - An origin whose settings are equal is the same object, with its connections and all that is known of its addresses; only files of
    ///   addresses are read again.
    /// - One that has other settings keeps its connections to the addresses that are still allowed, and what is known of those, unless
    ///   profile, protocols, proxy or roots are others: then it begins with the addresses alone. Bans stay in both cases.
    /// - One that is gone gets no new request; its idle connections are closed.
    /// - Hosts that no origin names follow the settings of [`any_host`](HttpsConfig::any_host) in the same way.
    /// - Limits and times of the pool hold at once where they are others than the last config's; connections that are open keep their
    ///   lifetime, and HTTP/2 ones the interval of their pings. [Limits](keepwarm_pool::Steer::set_limits) that were set at run time stay
    ///   until then.
    ///
    /// Requests under way end by the settings that they began with. Names are keys of the config, such as
    /// `https.origin.tiles.example.com:8443`, `https.any_host`, `https.pool`.
    pub fn apply(self) -> Changes {
        let Prepared { inner, settings, next, keeps_passing, mut changes, _only } = self;
        let now = tokio::time::Instant::now().into_std();
        let old_pool = inner.origins.read().settings.pool.clone();
        next.values().for_each(|next| next.take_over(settings.focus, now));
        inner.recent.set_slow(settings.slow);
        let (next, gone) = inner.swap(settings.clone(), next, keeps_passing);
        let is_other = settings.pool != old_pool;
        if is_other {
            inner.set_pool(&settings.pool);
        }
        let list = if is_other { &mut changes.changed } else { &mut changes.kept };
        list.push("https.pool".to_owned());
        for next in next.values() {
            let list = match next.becomes {
                Becomes::Kept => &mut changes.kept,
                Becomes::Changed { .. } => &mut changes.changed,
                Becomes::Added => &mut changes.added,
            };
            // A host that no origin names goes without saying.
            list.extend(next.entry.is_configured.then(|| name(&next.entry)));
        }
        let letting_go = LettingGo::new(&next, &gone);
        changes.drained = letting_go.run(&inner.pool);
        for next in next.values() {
            if next.is_eager() {
                inner.keep(&next.entry);
            }
            let is_file = |source: &AddressSource| matches!(source, AddressSource::File(_));
            if matches!(next.becomes, Becomes::Kept) && next.entry.origin.config.addresses.iter().any(is_file) {
                next.entry.origin.look();
            }
        }
        [&mut changes.kept, &mut changes.added, &mut changes.changed].into_iter().for_each(|names| names.sort());
        changes
    }
}

impl Inner {
    /// Limits and times that hold from here on; the limits were checked.
    fn set_pool(&self, config: &PoolConfig) {
        self.pool.set_limits(limits::limits(config)).expect("the limits were checked");
        *self.times.write() = limits::times(config);
        self.pool.set_options(limits::options(config));
    }

    /// Lets requests find the new origins from here on. Returns those with what they became, and the old ones that are origins no more.
    fn swap(
        &self,
        settings: Arc<Settings>,
        mut next: HashMap<Box<str>, Next>,
        keeps_passing: bool,
    ) -> (HashMap<Box<str>, Next>, Vec<Arc<Entry>>) {
        let mut gone = Vec::new();
        let mut origins = self.origins.write();
        let mut by_authority = HashMap::with_capacity(next.len());
        for (authority, entry) in std::mem::take(&mut origins.by_authority) {
            let is_next = next.get(&authority).and_then(Next::old).is_some_and(|old| Arc::ptr_eq(old, &entry));
            // A host that no origin names may have come, or been forgotten and come again, since the new ones were built.
            if !is_next && !entry.is_configured && next.get(&authority).is_none_or(|next| !next.entry.is_configured) {
                next.remove(&authority);
                if keeps_passing {
                    by_authority.insert(authority, entry);
                    continue;
                }
            }
            let stays = next.get(&authority).is_some_and(|next| next.shares_site_with(&entry));
            if !stays {
                gone.push(entry);
            }
        }
        by_authority.extend(next.iter().map(|(authority, next)| (authority.clone(), next.entry.clone())));
        origins.by_authority = by_authority;
        origins.settings = settings;
        for entry in origins.trim() {
            next.remove(entry.origin.authority().as_str());
            gone.push(entry);
        }
        for entry in &gone {
            let counters = &entry.origin.requests;
            let goes_on = |next: &Next| Arc::ptr_eq(&next.entry.origin.requests, counters);
            if !next.get(entry.origin.authority().as_str()).is_some_and(goes_on) {
                self.past.add(counters.clone());
            }
        }
        (next, gone)
    }
}

/// The key of the config that an origin is from.
fn name(entry: &Entry) -> String {
    if entry.is_configured { format!("https.origin.{}", entry.origin.authority()) } else { ANY_HOST.to_owned() }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("origins", &self.next.keys()).finish_non_exhaustive()
    }
}

const ANY_HOST: &str = "https.any_host";
