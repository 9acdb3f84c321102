//! One origin at run time: its inventory behind one lock, its targets, its retry budget, and the signal that an address became usable.
//!
//! What is deliberately not here: the tasks that find and validate addresses (`keeper`).

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
use tokio::sync::watch;

use crate::{
    client::{Counters, Pool},
    config::{HttpVersions, OriginConfig},
    connection::{DialFailed, Dialer, Key, Target, TargetParts},
    error::Error,
    inventory::{AddressId, AddressRow, Choice, Counts, Inventory, Ruling, Settings, Unusable},
    profile::Profile,
    tls::{TlsDialer, TlsSetupError},
};

/// One origin.
pub(crate) struct Origin {
    pub(crate) config: OriginConfig,
    roots: TlsRoots,
    resolver: Arc<dyn Resolve>,
    authority: Authority,
    /// The target of requests that ask for nothing special.
    main: Arc<Target>,
    state: Mutex<State>,
    /// Raised with every change that may make an address usable, or that ends the hope for one.
    changed: watch::Sender<Progress>,
    budget: Mutex<Budget>,
    /// The turn of the last request, for origins that may be forgotten.
    used: AtomicU64,
    /// Whether there is a task that keeps it.
    is_kept: AtomicBool,
    pub(crate) requests: Counters,
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
    /// Rounds of looking addresses up that have ended.
    pub(crate) lookups: u64,
    /// Why the last one found nothing; `None` when it found something.
    pub(crate) trouble: Option<Arc<str>>,
}

impl Origin {
    pub(crate) fn new(
        config: OriginConfig,
        roots: &TlsRoots,
        resolver: Arc<dyn Resolve>,
        focus: usize,
    ) -> Result<Arc<Origin>, TlsSetupError> {
        let dialer = TlsDialer::new(&config.profile, config.http, roots)?;
        let authority = authority(&config.host, config.port);
        let inventory = Inventory::new(Settings { focus, ..Settings::new(&config, rand::rng().next_u64()) });
        Ok(Arc::new_cyclic(|origin: &Weak<Origin>| {
            let main = Arc::new(Target::new(TargetParts {
                host: config.host.clone().into(),
                port: config.port,
                authority: authority.clone(),
                profile: config.profile.clone(),
                versions: config.http,
                proxy: config.proxy.clone(),
                dialer,
                resolver: resolver.clone(),
                origin: origin.clone() as Weak<dyn DialFailed>,
            }));
            Origin {
                budget: Mutex::new(Budget::new(config.retry_budget)),
                config,
                roots: roots.clone(),
                resolver,
                authority,
                main,
                state: Mutex::new(State { inventory, hosts: Vec::new(), others: Vec::new() }),
                changed: watch::Sender::new(Progress::default()),
                used: AtomicU64::new(0),
                is_kept: AtomicBool::new(false),
                requests: Counters::default(),
            }
        }))
    }

    pub(crate) fn main(&self) -> &Arc<Target> {
        &self.main
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The target for a profile or protocols of the request's own.
    pub(crate) fn target(
        self: &Arc<Origin>,
        profile: Option<&Arc<Profile>>,
        versions: Option<HttpVersions>,
    ) -> Result<Arc<Target>, Error> {
        let profile = profile.unwrap_or(&self.config.profile);
        let versions = versions.unwrap_or(self.config.http);
        let same = |target: &Target| target.versions() == versions && **target.profile() == **profile;
        if same(&self.main) {
            return Ok(self.main.clone());
        }
        let mut state = self.state.lock();
        if let Some(target) = state.others.iter().find(|target| same(target)) {
            return Ok(target.clone());
        }
        let dialer =
            TlsDialer::new(profile, versions, &self.roots).map_err(|error| Error::request(error.to_string()))?;
        let target = Arc::new(Target::new(TargetParts {
            host: self.config.host.clone().into(),
            port: self.config.port,
            authority: self.authority.clone(),
            profile: profile.clone(),
            versions,
            proxy: self.config.proxy.clone(),
            dialer,
            resolver: self.resolver.clone(),
            origin: Arc::downgrade(self) as Weak<dyn DialFailed>,
        }));
        if state.others.len() == TARGETS_MAX {
            state.others.remove(0);
        }
        state.others.push(target.clone());
        Ok(target)
    }

    /// Chooses an address and counts a request on it, in one step.
    pub(crate) fn choose(self: &Arc<Origin>, tried: &[AddressId], now: Instant) -> Option<(Choice, InFlight)> {
        let random = rand::rng().next_u64();
        let choice = self.state.lock().inventory.choose(tried, now, random)?;
        Some((choice, self.in_flight(choice.id)))
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
    pub(crate) fn reserve(self: &Arc<Origin>, ip: IpAddr, now: Instant) -> Result<(Choice, InFlight), Unusable> {
        let choice = self.state.lock().inventory.reserve(ip, now)?;
        Ok((choice, self.in_flight(choice.id)))
    }

    pub(crate) fn in_flight(self: &Arc<Origin>, id: AddressId) -> InFlight {
        InFlight { origin: self.clone(), id }
    }

    /// The pool's handle for an address.
    pub(crate) fn host(&self, pool: &Pool, target: &Arc<Target>, ip: IpAddr) -> Host<Dialer> {
        let host = pool.host(&Key { target: target.clone(), ip });
        // The pool may know the key from an origin that was forgotten since.
        host.key().target.adopt(target);
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

    /// Whether connections are to be made before the first request.
    pub(crate) fn is_eager(&self) -> bool {
        self.config.warm > 0 || self.config.min_idle > 0
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
    }

    pub(crate) fn kept(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    /// Whether an address may become usable without anything new being found: it is being probed, or is about to be.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.state.lock().inventory.is_hopeful()
    }

    /// Whether addresses are still being found or validated.
    pub(crate) fn is_searching(&self) -> bool {
        self.changed.borrow().lookups == 0 || self.is_hopeful()
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
        match tokio::time::timeout(LOOKUP_MAX, self.resolver.lookup(&self.config.host)).await {
            Ok(result) => result,
            Err(_) => {
                Err(TransportError::timed_out(Phase::Resolve, format!("resolve {}", self.config.host), LOOKUP_MAX))
            }
        }
    }

    /// Whether one more try of a request may be made.
    pub(crate) fn may_retry(&self) -> bool {
        let came = self.requests.came();
        self.budget.lock().take(came)
    }
}

impl DialFailed for Origin {
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
    origin: Arc<Origin>,
    id: AddressId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.origin.state.lock().inventory.release(self.id);
    }
}

/// What may be spent on retries: a share of the requests, and some saved up.
struct Budget {
    share: f64,
    saved: f64,
    /// Requests whose share was saved.
    seen: u64,
}

impl Budget {
    fn new(share: f64) -> Budget {
        Budget { share, saved: SAVED_MAX, seen: 0 }
    }

    /// Whether there is enough for a retry after so many requests; it is then spent.
    fn take(&mut self, came: u64) -> bool {
        let more = came.saturating_sub(self.seen) as f64 * self.share;
        self.seen = self.seen.max(came);
        self.saved = (self.saved + more).min(SAVED_MAX);
        let has = self.saved >= 1.0;
        if has {
            self.saved -= 1.0;
        }
        has
    }
}

/// Whether it is a host name (RFC 1123 section 2.1, with underscores as they are used) or an IP address without brackets.
pub(crate) fn is_host(host: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_letter);
    host.parse::<IpAddr>().is_ok()
        || (host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label))
}

/// Host and port as a request names them (RFC 3986 section 3.2).
pub(crate) fn authority(host: &str, port: u16) -> Authority {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let text = if port == 443 { host } else { format!("{host}:{port}") };
    Authority::try_from(text.as_str()).expect("the host of an origin was checked")
}

/// Longest look-up.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Targets of an origin beside its main one; connections of one that was forgotten idle out.
const TARGETS_MAX: usize = 8;

/// Retries saved up at most: a start with many bad addresses needs one for each.
const SAVED_MAX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_the_port_where_it_is_not_the_usual_one() {
        for (host, port, expected) in [
            ("a.example", 443, "a.example"),
            ("a.example", 8443, "a.example:8443"),
            ("2001:db8::1", 443, "[2001:db8::1]"),
        ] {
            assert_eq!(authority(host, port).as_str(), expected);
        }
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let mut budget = Budget::new(0.25);
        let saved = (0..1000).take_while(|_| budget.take(0)).count();
        assert_eq!(saved, 100);
        let retries = (1..=400).filter(|came| budget.take(*came));
        assert_eq!(retries.count(), 100);
    }
}
