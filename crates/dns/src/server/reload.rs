//! Another config for a running server, in two steps: all that is new is built, which may fail and changes nothing; then it is put in
//! force, which cannot.
//!
//! Workers hear of it like of all else, by their inbox, and take it over between two events. A query in flight ends under the settings
//! that it began with; with the last of these the connections of upstreams go that are no longer wanted.

mod changes;

use std::{sync::Arc, time::Duration};

use keepwarm_transport::reload::Changes;
use tokio::{sync::OwnedMutexGuard, sync::oneshot, time::timeout};

use super::{
    Running, Server, Shared, StartError,
    bind::{Binding, Bound, Rebinding, Sockets, rebind},
    discovery, https,
    inbox::{Address, Event},
    local::{self, Watch},
    pools::Pools,
    query_log::LogThread,
    setup::Setup,
};
use crate::{cache::Cache, config::DnsConfig, local::Local};

/// A config that a server is ready for. Dropped without [`apply`](Self::apply) it changes nothing.
#[must_use = "nothing has changed yet"]
pub struct Prepared {
    shared: Arc<Shared>,
    setup: Setup,
    log_thread: Option<LogThread>,
    local: Option<(u64, Local, Watch)>,
    sockets: Vec<Vec<Sockets>>,
    bound: Vec<Bound>,
    changes: Changes,
    /// One at a time.
    _turn: OwnedMutexGuard<()>,
}

/// What a worker hears of it.
pub(super) struct News {
    pub(super) setup: Arc<Setup>,
    /// The names that are answered here, where these are others, and their number.
    pub(super) local: Option<(u64, Local)>,
    /// All listeners. Those without a socket stay as they are.
    pub(super) sockets: Vec<Sockets>,
    /// Gets the names from before, where these are others, for they take long to free.
    pub(super) done: oneshot::Sender<Option<Local>>,
}

impl Server {
    /// Builds all that `config` asks for and the server has not: upstreams, groups, local names, certificates, limits, the query log, and
    /// sockets to listen on. Nothing is in force before [`Prepared::apply`]. Another one that was prepared has to be applied or dropped
    /// first.
    ///
    /// What takes effect with the next start only stays as it is, and [`Prepared::changes`] names it.
    ///
    /// # Errors
    /// As [`start`](Self::start). Nothing has changed then.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn prepare(&self, config: DnsConfig) -> Result<Prepared, StartError> {
        let turn = self.shared.turn.clone().lock_owned().await;
        let (shared, addresses) = (self.shared.clone(), self.shared.addresses.clone());
        let prepare = move || prepare(shared, &addresses, config, turn);
        tokio::task::spawn_blocking(prepare).await.map_err(|error| StartError::Runtime(error.into()))?
    }
}

/// Reads files and binds addresses.
fn prepare(
    shared: Arc<Shared>,
    addresses: &[Address],
    config: DnsConfig,
    turn: OwnedMutexGuard<()>,
) -> Result<Prepared, StartError> {
    let old = shared.setup();
    let (config, needs_restart) = changes::possible(&old.config, config);
    let bound = shared.running.lock().bound.clone();
    let (mut setup, log_thread) = Setup::new(config, &shared.pools, Some(&old))?;
    let local = if old.config.local == setup.config.local && old.config.routes == setup.config.routes {
        None
    } else {
        let (local, files) = local::load(&setup.config)?;
        let number = shared.running.lock().local_number + 1;
        let watch = Watch::start(files, number, local.clone(), addresses.to_vec()).map_err(StartError::Runtime)?;
        Some((number, local, watch))
    };
    // Last, for clients may come in from here on, and wait for what has still to be built.
    let rebinding = rebind(&setup.config.listen, &bound, &shared.handles)?;
    let mut changes = changes::of(&old, &setup, &rebinding);
    changes.needs_restart.extend(needs_restart);
    let Rebinding { binding: Binding { sockets, bound }, .. } = rebinding;
    let listening: Vec<_> = bound.iter().map(|bound| bound.listen.clone()).collect();
    setup.alt_svc = https::alternative(&listening);
    drop(old);
    Ok(Prepared { shared, setup, log_thread, local, sockets, bound, changes, _turn: turn })
}

impl Prepared {
    /// What [`apply`](Self::apply) will change.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Puts it in force, and waits until each worker works by it. What is no longer wanted ends once nobody uses it any more.
    ///
    /// # Cancel safety
    /// The first poll does it all; dropping the future then only does not wait for the workers.
    pub async fn apply(self) -> Changes {
        let Prepared { shared, setup, log_thread, local, sockets, bound, changes, _turn } = self;
        let setup = Arc::new(setup);
        let old = shared.setup();
        if Pools::differ(&old.config, &setup.config) {
            shared.pools.adopt(&setup.config);
        }
        setup.upstreams.iter().for_each(|upstream| upstream.adopt(&setup.config));
        shared.put(setup.clone());
        shared.recent.set_privacy(setup.config.query_log.privacy);
        for upstream in &setup.upstreams {
            if !old.upstreams.iter().any(|old| Arc::ptr_eq(old, upstream)) {
                discovery::start(&shared, upstream, &setup, &shared.addresses);
            }
        }
        if let Some(encryption) = &setup.encryption {
            encryption.watch(&shared.handles[0]);
        }
        if old.config.query_log != setup.config.query_log {
            shared.running.lock().log_thread = log_thread;
        }
        let (cache, lasts) = (discarded(&old, &setup), old.config.timeout);
        // From here on the workers alone hold what is old, but for what takes long to free, and let go of it with their last query.
        drop(old);
        let names = local.as_ref().map(|(number, local, _)| (*number, local.clone()));
        let mut waits = Vec::new();
        for (worker, sockets) in shared.addresses.iter().zip(sockets) {
            let (done, wait) = oneshot::channel();
            let news = News { setup: setup.clone(), local: names.clone(), sockets, done };
            worker.inbox.push(Event::Reload(Box::new(news)));
            waits.push(wait);
        }
        drop(setup);
        let former = shared.running.lock().take_over(bound, local);
        if let Some(watch) = former {
            watch.leave();
        }
        if let Some(cache) = cache {
            tokio::spawn(free_later(cache, lasts));
        }
        let mut names = Vec::new();
        let all = async {
            for wait in waits {
                names.extend(wait.await.ok().flatten());
            }
        };
        // A server that has been stopped meanwhile does not answer.
        let _ = timeout(PATIENCE, all).await;
        if !names.is_empty() {
            tokio::task::spawn_blocking(move || drop(names));
        }
        changes
    }
}

/// The cache of a config that the next one does not go on with.
fn discarded(old: &Setup, new: &Setup) -> Option<Arc<Cache>> {
    let goes_on = |old: &Arc<Cache>| new.cache.as_ref().is_some_and(|new| new.shares_answers(old));
    old.cache.clone().filter(|old| !goes_on(old))
}

/// Frees a cache after the last query that began with it, which takes at most so long: a worker would stand still while it frees a
/// million answers.
async fn free_later(cache: Arc<Cache>, lasts: Duration) {
    tokio::time::sleep(lasts.saturating_add(PATIENCE)).await;
    // Nobody waits for it.
    drop(tokio::task::spawn_blocking(move || drop(cache)));
}

impl Running {
    /// Returns the watch that is no longer wanted.
    fn take_over(&mut self, bound: Vec<Bound>, local: Option<(u64, Local, Watch)>) -> Option<Watch> {
        self.bound = bound;
        let (number, _, watch) = local?;
        watch.begin();
        self.local_number = number;
        Some(std::mem::replace(&mut self.watch, watch))
    }
}

/// For how long a worker may take to hear of a config.
const PATIENCE: Duration = Duration::from_secs(5);
