//! What of an origin outlives a change of its settings: whom it connects to and how, its addresses, its figures; and the signal that an
//! address became usable.
//!
//! Two origins that come after each other share a site where host, port, profile, protocols, proxy and roots are the same: then
//! connections, session tickets and what is known of addresses stay. What is deliberately not here: the settings (`origin`) and the tasks
//! that find and validate addresses (`keeper`).

use std::{
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{StatusCode, uri::Authority};
use keepwarm_pool::Host;
use keepwarm_transport::{
    error::{Error as TransportError, Phase},
    resolve::{Resolve, Resolved},
    tls::TlsRoots,
};
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{Notify, watch};

use crate::{
    client::{Counters, Pool},
    config::{AddressSource, HttpVersions, OriginConfig},
    connection::{DialFailed, Dialer, Key, Target, TargetParts},
    error::Error,
    inventory::{AddressId, AddressRow, Choice, Counts, Inventory, Ruling, Settings, SourceId, Unusable, expand},
    profile::Profile,
    tls::{TlsDialer, TlsSetupError},
};

/// What connections to one origin have in common, and what is known of its addresses.
pub(crate) struct Site {
    /// The target of requests that ask for nothing special.
    main: Arc<Target>,
    resolver: Arc<dyn Resolve>,
    state: Mutex<State>,
    /// Raised with every change that may make an address usable, or that ends the hope for one.
    changed: watch::Sender<Progress>,
    /// Told when sources are to be read again at once.
    look: Notify,
    /// What the addresses of large networks are drawn by, the same ones each time.
    draw: u64,
    /// The turn of the last request, for origins that may be forgotten.
    used: AtomicU64,
    /// Whether another site has taken its place, or none.
    is_retired: AtomicBool,
    pub(crate) requests: Arc<Counters>,
}

struct State {
    inventory: Inventory,
    /// Handles of the pool for addresses of the main target, by [`AddressId::index`].
    hosts: Vec<Option<Host<Dialer>>>,
    /// Targets of requests that ask for another profile or for other protocols; bounded by [`TARGETS_MAX`].
    others: Vec<Arc<Target>>,
}

/// How far the search for addresses has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Raised with every change.
    pub(crate) generation: u64,
    /// How often the sources were others.
    pub(crate) sources: u64,
    /// Rounds of looking addresses up in these sources that have ended.
    pub(crate) lookups: u64,
    /// Why the last one found nothing; `None` when it found something.
    pub(crate) trouble: Option<Arc<str>>,
}

/// No address can be had now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nothing {
    /// Whether addresses are still being found or validated.
    pub(crate) is_searching: bool,
}

/// What sites of one config have in common.
pub(crate) struct Ground<'a> {
    pub(crate) roots: &'a TlsRoots,
    pub(crate) resolver: &'a Arc<dyn Resolve>,
    pub(crate) focus: usize,
}

impl Site {
    /// One without addresses. `requests` counts what becomes of its requests.
    pub(crate) fn new(
        config: &OriginConfig,
        ground: &Ground<'_>,
        requests: Arc<Counters>,
    ) -> Result<Arc<Site>, TlsSetupError> {
        let dialer = TlsDialer::new(&config.profile, config.http, ground.roots)?;
        let inventory = Inventory::new(settings(config, ground.focus));
        Ok(Arc::new_cyclic(|site: &Weak<Site>| Site {
            main: Arc::new(Target::new(TargetParts {
                host: config.host.clone().into(),
                port: config.port,
                authority: crate::origin::authority(&config.host, config.port),
                profile: config.profile.clone(),
                versions: config.http,
                proxy: config.proxy.clone(),
                roots: ground.roots.clone(),
                dialer,
                resolver: ground.resolver.clone(),
                origin: site.clone() as Weak<dyn DialFailed>,
            })),
            resolver: ground.resolver.clone(),
            state: Mutex::new(State { inventory, hosts: Vec::new(), others: Vec::new() }),
            changed: watch::Sender::new(Progress::default()),
            look: Notify::new(),
            draw: rand::rng().next_u64(),
            used: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
            requests,
        }))
    }

    /// Whether connections under these settings are the same as here.
    pub(crate) fn suits(&self, config: &OriginConfig, roots: &TlsRoots) -> bool {
        self.main.is(config, roots)
    }

    /// Goes on under other settings that [suit](Self::suits) it, and begins with the new sources at once. Before anything is found in
    /// them requests wait for it, as at the start.
    pub(crate) fn renew(&self, old: &OriginConfig, config: &OriginConfig, focus: usize, now: Instant) {
        let mut state = self.state.lock();
        state.inventory.renew(settings(config, focus), now);
        let has_other_sources = old.addresses != config.addresses;
        if has_other_sources {
            state.inventory.keep_sources(|source| is_source(config, source, old));
            let nets = nets(config);
            if !nets.is_empty() {
                let ips = expand(&nets, config.addresses_max, self.draw);
                state.inventory.found(SourceId::Config, ips, now);
            }
        }
        // While the inventory is held: nobody may see it without the old addresses and believe that the new sources were read.
        self.touch(|progress| {
            if has_other_sources {
                progress.sources += 1;
                (progress.lookups, progress.trouble) = (0, None);
            }
        });
    }

    /// Begins with what is known of the addresses of the site before it that holds under another target: that they are there, and what
    /// was banned or let in at run time.
    pub(crate) fn inherit(&self, other: &Site, old: &OriginConfig, config: &OriginConfig, now: Instant) {
        {
            let other = other.state.lock();
            let mut state = self.state.lock();
            state.inventory.inherit(&other.inventory, now);
            state.inventory.keep_sources(|source| is_source(config, source, old));
        }
        self.came(other.used());
        self.touch(|_| {});
    }

    /// Whether a connection to this host is one that is made here: for a target of this site, to an address that is allowed.
    pub(crate) fn may_use(&self, key: &Key) -> bool {
        let (main, target) = (&self.main, &key.target);
        (target == main || self.state.lock().others.contains(target)) && self.state.lock().inventory.permits(key.ip)
    }

    /// Nothing new comes here: it leaves the connections that a site after it took over to that.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Closes the idle connections of the main target and drains the busy ones, unless another site has taken them over.
    pub(crate) fn flush(&self, pool: &Pool) {
        let hosts = std::mem::take(&mut self.state.lock().hosts);
        for host in hosts.into_iter().flatten().filter(|host| host.key().target.reports_to(self)) {
            pool.flush(host.key());
        }
    }

    /// Asks for a look at the sources now.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Waits until a look is asked for.
    pub(crate) async fn looked_for(&self) {
        self.look.notified().await;
    }

    /// See [`expand`].
    pub(crate) fn draw(&self) -> u64 {
        self.draw
    }

    pub(crate) fn main(&self) -> &Arc<Target> {
        &self.main
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.main.authority()
    }

    /// The target for a profile or protocols of the request's own.
    pub(crate) fn target(
        self: &Arc<Site>,
        profile: Option<&Arc<Profile>>,
        versions: Option<HttpVersions>,
    ) -> Result<Arc<Target>, Error> {
        let profile = profile.unwrap_or(self.main.profile());
        let versions = versions.unwrap_or(self.main.versions());
        let same = |target: &Target| target.versions() == versions && **target.profile() == **profile;
        if same(&self.main) {
            return Ok(self.main.clone());
        }
        let mut state = self.state.lock();
        if let Some(target) = state.others.iter().find(|target| same(target)) {
            return Ok(target.clone());
        }
        let dialer =
            TlsDialer::new(profile, versions, self.main.roots()).map_err(|error| Error::request(error.to_string()))?;
        let origin = Arc::downgrade(self) as Weak<dyn DialFailed>;
        let target = Arc::new(Target::new(TargetParts {
            host: self.main.host().into(),
            port: self.main.port(),
            authority: self.authority().clone(),
            profile: profile.clone(),
            versions,
            proxy: self.main.proxy().cloned(),
            roots: self.main.roots().clone(),
            dialer,
            resolver: self.resolver.clone(),
            origin,
        }));
        if state.others.len() == TARGETS_MAX {
            state.others.remove(0);
        }
        state.others.push(target.clone());
        Ok(target)
    }

    /// Chooses an address and counts a request on it, in one step; so is the word on whether it is worth waiting where there is none.
    pub(crate) fn choose(self: &Arc<Site>, tried: &[AddressId], now: Instant) -> Result<(Choice, InFlight), Nothing> {
        let random = rand::rng().next_u64();
        let mut state = self.state.lock();
        match state.inventory.choose(tried, now, random) {
            Some(choice) => Ok((choice, self.in_flight(choice.id))),
            None => Err(Nothing { is_searching: self.is_searching(&state.inventory) }),
        }
    }

    /// Whether addresses are still being found or validated, so that one may become usable that is not. To be asked while the inventory is
    /// held: sources are known to be read after what they named is in it.
    fn is_searching(&self, inventory: &Inventory) -> bool {
        self.changed.borrow().lookups == 0 || inventory.is_hopeful()
    }

    /// The pool's handle for an address that was chosen.
    pub(crate) fn host_of(&self, pool: &Pool, target: &Arc<Target>, choice: &Choice) -> Host<Dialer> {
        if !Arc::ptr_eq(target, &self.main) {
            return self.host(pool, target, choice.ip);
        }
        let index = choice.id.index();
        let mut state = self.state.lock();
        if let Some(Some(host)) = state.hosts.get(index)
            && host.key().ip == choice.ip
        {
            return host.clone();
        }
        let host = self.host(pool, target, choice.ip);
        if state.hosts.len() <= index {
            state.hosts.resize_with(index + 1, || None);
        }
        state.hosts[index] = Some(host.clone());
        host
    }

    /// Counts a request on the address that it asked for.
    pub(crate) fn reserve(
        self: &Arc<Site>,
        ip: IpAddr,
        now: Instant,
    ) -> Result<(Choice, InFlight), (Unusable, Nothing)> {
        let mut state = self.state.lock();
        match state.inventory.reserve(ip, now) {
            Ok(choice) => Ok((choice, self.in_flight(choice.id))),
            Err(why) => Err((why, Nothing { is_searching: self.is_searching(&state.inventory) })),
        }
    }

    pub(crate) fn in_flight(self: &Arc<Site>, id: AddressId) -> InFlight {
        InFlight { site: self.clone(), id }
    }

    /// The pool's handle for an address.
    pub(crate) fn host(&self, pool: &Pool, target: &Arc<Target>, ip: IpAddr) -> Host<Dialer> {
        let host = pool.host(&Key { target: target.clone(), ip });
        // The pool may know the key from an origin that was forgotten since.
        if !self.is_retired.load(Ordering::Acquire) {
            host.key().target.adopt(target);
        }
        host
    }

    /// The head of an answer came. Returns what its status says about the address.
    pub(crate) fn answered(
        &self,
        id: AddressId,
        latency: Duration,
        status: StatusCode,
        retry_after: impl FnOnce() -> Option<Duration>,
        now: Instant,
    ) -> Option<Ruling> {
        let mut state = self.state.lock();
        state.inventory.succeeded(id, latency, now);
        let retry_after = if status.is_success() { None } else { retry_after() };
        state.inventory.answered(id, status, retry_after, now)
    }

    /// The address failed, and it is its fault.
    pub(crate) fn failed(&self, id: AddressId, error: &str, now: Instant) {
        self.state.lock().inventory.failed(id, error, now);
        self.touch(|_| {});
    }

    pub(crate) fn with_inventory<T>(&self, act: impl FnOnce(&mut Inventory) -> T) -> T {
        let result = act(&mut self.state.lock().inventory);
        self.touch(|_| {});
        result
    }

    pub(crate) fn rows(&self, now: Instant) -> Vec<AddressRow> {
        self.state.lock().inventory.rows(now)
    }

    pub(crate) fn focus(&self) -> Vec<IpAddr> {
        self.state.lock().inventory.focus()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().inventory.counts()
    }

    /// Notes a change and wakes those who wait for one.
    pub(crate) fn touch(&self, note: impl FnOnce(&mut Progress)) {
        self.changed.send_modify(|progress| {
            progress.generation += 1;
            note(progress);
        });
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.changed.subscribe()
    }

    /// How many requests had come to all origins when the last one came to this.
    pub(crate) fn came(&self, turn: u64) {
        self.used.store(turn, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether an address may become usable without anything new being found: it is being probed, or is about to be.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.state.lock().inventory.is_hopeful()
    }

    /// Whether a good address is left beside those that were tried and this one.
    pub(crate) fn has_others(&self, tried: &[AddressId], this: AddressId) -> bool {
        self.state.lock().inventory.usable() > tried.iter().filter(|id| **id != this).count() + 1
    }

    /// The probes that are due, and when the next one is.
    pub(crate) fn due(&self, max: usize, now: Instant) -> (Vec<Choice>, Option<Instant>) {
        let mut state = self.state.lock();
        let due = state.inventory.to_validate(max, now);
        (due, state.inventory.next_event(now))
    }

    /// Looks the host up.
    pub(crate) async fn look_up(&self) -> Result<Resolved, TransportError> {
        let host = self.main.host();
        match tokio::time::timeout(LOOKUP_MAX, self.resolver.lookup(host)).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::timed_out(Phase::Resolve, format!("resolve {host}"), LOOKUP_MAX)),
        }
    }
}

impl DialFailed for Site {
    fn dial_failed(&self, ip: IpAddr, error: &TransportError) {
        if crate::keeper::is_local(error) {
            return;
        }
        let now = tokio::time::Instant::now().into_std();
        self.with_inventory(|inventory| {
            if let Some(id) = inventory.find(ip) {
                inventory.failed(id, &error.to_string(), now);
            }
        });
    }
}

/// A request that counts on its address until it is dropped.
pub(crate) struct InFlight {
    site: Arc<Site>,
    id: AddressId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.site.state.lock().inventory.release(self.id);
    }
}

fn settings(config: &OriginConfig, focus: usize) -> Settings {
    Settings { focus, ..Settings::new(config, rand::rng().next_u64()) }
}

/// The addresses and networks that a config names itself.
pub(crate) fn nets(config: &OriginConfig) -> Vec<ipnet::IpNet> {
    let from_config = |source: &AddressSource| match source {
        AddressSource::Net(net) => Some(*net),
        AddressSource::File(_) | AddressSource::Dns => None,
    };
    config.addresses.iter().filter_map(from_config).collect()
}

/// Whether a config asks DNS for addresses.
pub(crate) fn asks_dns(config: &OriginConfig) -> bool {
    config.addresses.is_empty() || config.addresses.contains(&AddressSource::Dns)
}

/// Whether what a source named under the old settings counts under the new ones.
pub(crate) fn is_source(config: &OriginConfig, source: SourceId, old: &OriginConfig) -> bool {
    match source {
        SourceId::Config => !nets(config).is_empty(),
        SourceId::Dns => asks_dns(config),
        SourceId::File(index) => {
            let file = |config: &OriginConfig| config.addresses.get(usize::from(index)).cloned();
            matches!(file(config), Some(AddressSource::File(_))) && file(config) == file(old)
        }
    }
}

/// Longest look-up.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Targets of an origin beside its main one; connections of one that was forgotten idle out.
const TARGETS_MAX: usize = 8;
