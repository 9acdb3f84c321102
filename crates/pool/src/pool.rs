//! The tokio shell: one mutex per host around the pure core, one lock for the limits across hosts, and the tasks.
//!
//! Not here: any decision about one host (`core.rs`).

mod acquire;
mod build;
mod global;
mod handle;
mod reaper;
mod shared;
mod tasks;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hashbrown::HashMap;
use tokio::sync::{Notify, broadcast};

pub use acquire::{AcquireOptions, Acquired, Grants, Ticket};
pub use build::{Builder, Spawn};
pub use handle::{Host, Pool};
pub(crate) use shared::{Shared, Shell};

use crate::clock::Clock;
use crate::connector::Connector;
use crate::core::{HostState, RawEvent};
use crate::event::{CloseReason, Event, EventKind};
use crate::limits::{Limits, LimitsError, Options};
use crate::phases::PhaseTimes;
use crate::stats::Stats;
use crate::sync::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock};

/// Events kept for a subscriber that is slow.
const EVENTS: usize = 1024;

/// What all hosts of a pool share.
pub(crate) struct Inner<C: Connector> {
    pub(crate) connector: C,
    options: RwLock<Arc<Options>>,
    pub(crate) clock: Clock,
    wall: Box<dyn Fn() -> SystemTime + Send + Sync>,
    spawner: Box<dyn Spawn>,
    hosts: RwLock<Hosts<C>>,
    global: global::Global<C>,
    timers: reaper::Timers<C>,
    /// Idle connections of all hosts; counted only while `max_idle` binds.
    idle: AtomicIsize,
    max_idle: AtomicIsize,
    ids: AtomicU64,
    /// Subscribers to everything, for whom each lease takes the long way.
    subscribed: AtomicBool,
    events: Mutex<Option<broadcast::Sender<Event<C::Key>>>>,
    /// Subscribers to all but leases and returns, who cost the hot path nothing.
    watched: AtomicBool,
    lifecycle: Mutex<Option<broadcast::Sender<Event<C::Key>>>>,
    /// What forgotten hosts did. Changed only while `hosts` is locked for writing, so that each host is in one of the two.
    forgotten: Mutex<Stats>,
    /// Of all hosts together: each has its dials as a whole. Nothing else is locked under it.
    phases: Mutex<PhaseTimes>,
    tasks: AtomicUsize,
    /// Told when a task ends or a connection of a closing pool is gone.
    progress: Notify,
    ended: AtomicBool,
}

struct Hosts<C: Connector> {
    by_key: HashMap<C::Key, Arc<Shared<C>>>,
    /// Found by nobody any more, and not counted as forgotten yet.
    retiring: Vec<Arc<Shared<C>>>,
    limits: Limits,
    paused: bool,
    closed: bool,
}

impl<C: Connector> Inner<C> {
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    fn tells_events(&self) -> bool {
        self.is_subscribed() || self.watched.load(Ordering::Relaxed) || tracing::enabled!(tracing::Level::DEBUG)
    }

    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read())
    }

    fn wall_clock(&self) -> SystemTime {
        (self.wall)()
    }

    fn emit(&self, key: &C::Key, event: RawEvent) {
        let RawEvent { kind, id, open } = event;
        let max = self.hosts.read().limits.max_per_host;
        if !matches!(kind, EventKind::Leased | EventKind::Released) {
            let shown = Event { key, id, kind, open, max };
            tracing::debug!(pool = &*self.options().name, ?key, id, "{shown}");
        }
        let send = |flag: &AtomicBool, channel: &Mutex<Option<broadcast::Sender<Event<C::Key>>>>| {
            let channel = channel.lock();
            let gone = channel.as_ref().is_none_or(|sender| sender.receiver_count() == 0);
            if gone {
                // Under the lock, so that a new subscriber's flag is not lost.
                flag.store(false, Ordering::Relaxed);
                return;
            }
            let sender = channel.clone();
            drop(channel);
            // Outside the lock: it wakes receivers. An error means that the last one went, which the next event notices.
            if let Some(sender) = sender {
                let _ = sender.send(Event { key: key.clone(), id, kind, open, max });
            }
        };
        if self.is_subscribed() {
            send(&self.subscribed, &self.events);
        }
        if self.watched.load(Ordering::Relaxed) && !matches!(kind, EventKind::Leased | EventKind::Released) {
            send(&self.watched, &self.lifecycle);
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Event<C::Key>> {
        Self::subscribe_to(&self.subscribed, &self.events)
    }

    fn subscribe_lifecycle(&self) -> broadcast::Receiver<Event<C::Key>> {
        Self::subscribe_to(&self.watched, &self.lifecycle)
    }

    fn subscribe_to(
        flag: &AtomicBool,
        channel: &Mutex<Option<broadcast::Sender<Event<C::Key>>>>,
    ) -> broadcast::Receiver<Event<C::Key>> {
        let mut sender = channel.lock();
        let receiver = sender.get_or_insert_with(|| broadcast::channel(EVENTS).0).subscribe();
        flag.store(true, Ordering::SeqCst);
        receiver
    }

    // --- tasks

    fn spawn(self: &Arc<Self>, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        let running = tasks::Running(Arc::clone(self));
        self.spawner.spawn(Box::pin(tasks::counted(running, task)));
    }

    fn task_ended(&self) {
        self.tasks.fetch_sub(1, Ordering::SeqCst);
        self.progress.notify_waiters();
    }

    // --- hosts

    fn host(self: &Arc<Self>, key: &C::Key) -> Arc<Shared<C>> {
        if let Some(host) = self.hosts.read().by_key.get(key) {
            return Arc::clone(host);
        }
        let (hint, seed, now) = (self.connector.capacity_hint(key), rand::random(), self.clock.now());
        let keeps_idle = self.connector.keeps_idle(key);
        let mut hosts = self.hosts.write();
        if let Some(host) = hosts.by_key.get(key) {
            return Arc::clone(host);
        }
        // Under the lock: whoever changes the options looks for hosts afterwards.
        let mut core = HostState::new(self.options(), hosts.limits, hint, seed, now);
        if !keeps_idle {
            core = core.on_demand();
        }
        let watch = hosts.limits.max_idle < hosts.limits.max_total;
        let host = Shared::new(self, key.clone(), self.next_id(), watch, core, now);
        let (paused, closed) = (hosts.paused, hosts.closed);
        if !closed {
            hosts.by_key.insert(key.clone(), Arc::clone(&host));
        }
        drop(hosts);
        if closed {
            host.step(HostState::close);
        } else if paused {
            host.step(|core, _, fx| core.pause(fx));
        } else {
            host.step(HostState::begin);
        }
        host
    }

    fn known(&self, key: &C::Key) -> Option<Arc<Shared<C>>> {
        self.hosts.read().by_key.get(key).cloned()
    }

    fn hosts_now(&self) -> Vec<Arc<Shared<C>>> {
        self.hosts.read().by_key.values().cloned().collect()
    }

    /// Forgets hosts that nobody has a handle of and that have had nothing for `forget_after`.
    fn forget_unused(&self, now: Instant) {
        let forget_after = self.options().forget_after;
        let mut gone = Vec::new();
        let mut hosts = self.hosts.write();
        hosts.by_key.retain(|_, host| {
            let unused = Arc::strong_count(host) == 1
                && host.peek(|locked| {
                    locked.core.is_empty() && now.saturating_duration_since(locked.used_at) >= forget_after
                });
            if unused {
                gone.push(Arc::clone(host));
            }
            !unused
        });
        let mut forgotten = self.forgotten.lock();
        for host in &gone {
            forgotten.add(&host.peek(|locked| locked.core.stats(now)));
        }
        // Before the hosts, whose end is not for others to wait for.
        drop((forgotten, hosts));
    }

    // --- limits across hosts

    /// Hands freed permits to the hosts that wait for them and makes room where that is due. Called after each step, with no lock held.
    fn settle(&self) {
        if self.global.is_stalled() {
            self.settle_stalled();
        }
        if self.idle.load(Ordering::Relaxed) > self.max_idle.load(Ordering::Relaxed) {
            self.trim_idle();
        }
        if self.ended.load(Ordering::Relaxed) {
            self.progress.notify_waiters();
        }
    }

    fn settle_stalled(&self) {
        loop {
            while let Some(host) = self.global.next() {
                let id = self.next_id();
                host.step_alone(|core, now, fx| core.permit(id, now, fx));
            }
            // The least recently used connection of all hosts gives way. A host that waits has none of its own that would do.
            if !self.global.wants_room() || !self.give_way(CloseReason::Evicted) {
                return;
            }
        }
    }

    fn trim_idle(&self) {
        while self.idle.load(Ordering::SeqCst) > self.max_idle.load(Ordering::SeqCst) {
            if !self.give_way(CloseReason::MaxIdle) {
                return;
            }
        }
    }

    /// Ends the connection that has been idle for longest, of all hosts. Costs O(hosts) and happens at a limit across hosts only.
    fn give_way(&self, reason: CloseReason) -> bool {
        let hosts = self.hosts_now();
        let idle =
            hosts.iter().filter_map(|host| host.peek(|locked| locked.core.longest_idle()).map(|since| (since, host)));
        let Some((_, host)) = idle.min_by_key(|(since, host)| (*since, host.id)) else { return false };
        // Somebody may have taken it meanwhile; then the next look finds another or none.
        host.step_alone(|core, now, fx| core.give_way(reason, now, fx));
        true
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        limits.check()?;
        let hosts: Vec<_> = {
            let mut hosts = self.hosts.write();
            hosts.limits = limits;
            hosts.by_key.values().cloned().collect()
        };
        self.global.set_limits(&limits);
        self.max_idle.store(isize::try_from(limits.max_idle).unwrap_or(isize::MAX), Ordering::SeqCst);
        for host in &hosts {
            host.watch_idle(limits.max_idle < limits.max_total);
            host.step_alone(|core, now, fx| core.set_limits(limits, now, fx));
        }
        while self.global.over() > 0 && self.give_way(CloseReason::Shrunk) {}
        self.settle();
        Ok(())
    }

    fn set_options(&self, mut options: Options) {
        let options = {
            let mut own = self.options.write();
            (options.name, options.policy) = (Arc::clone(&own.name), own.policy);
            *own = Arc::new(options);
            Arc::clone(&own)
        };
        // A host that was made meanwhile with the old ones is among these.
        for host in &self.hosts_now() {
            host.step(|core, now, fx| core.set_options(Arc::clone(&options), now, fx));
        }
        self.timers.earlier.notify_one();
    }

    /// Ends one host and forgets it; what it did stays in the totals.
    fn retire(&self, key: &C::Key) -> usize {
        let host = {
            let mut hosts = self.hosts.write();
            let Some(host) = hosts.by_key.remove(key) else { return 0 };
            hosts.retiring.push(Arc::clone(&host));
            host
        };
        // Not under the lock: it tells events, which look at the limits.
        host.step(HostState::close);
        let cut = host.step(HostState::force);
        let mut hosts = self.hosts.write();
        hosts.retiring.retain(|retiring| !Arc::ptr_eq(retiring, &host));
        self.forgotten.lock().add(&host.peek(|locked| locked.core.stats(self.clock.now())));
        drop(hosts);
        cut
    }

    // --- the end

    fn close(&self) -> Vec<Arc<Shared<C>>> {
        let hosts: Vec<_> = {
            let mut hosts = self.hosts.write();
            hosts.closed = true;
            hosts.by_key.values().cloned().collect()
        };
        self.ended.store(true, Ordering::SeqCst);
        hosts.iter().for_each(|host| host.step(HostState::close));
        self.timers.earlier.notify_one();
        drop(self.global.clear());
        hosts
    }

    /// Ends everything now. Leases that are out stay valid.
    fn shut_down(&self) {
        let hosts = self.close();
        for host in &hosts {
            host.step(HostState::force);
        }
        let mut hosts = self.hosts.write();
        let map = std::mem::take(&mut hosts.by_key);
        let mut forgotten = self.forgotten.lock();
        for host in map.values() {
            forgotten.add(&host.peek(|locked| locked.core.stats(self.clock.now())));
        }
        drop((forgotten, hosts));
    }

    /// Closes, waits until `deadline` for leases to come back, then lets go of the rest.
    async fn drain(self: Arc<Self>, deadline: Instant) -> usize {
        let hosts = self.close();
        while self.global.total() > 0 {
            let progress = self.progress.notified();
            if self.global.total() == 0 {
                break;
            }
            let left = deadline.saturating_duration_since(self.clock.now());
            if left.is_zero() || crate::rt::timeout(left, progress).await.is_none() {
                break;
            }
        }
        let forced = hosts.iter().map(|host| host.step(HostState::force)).sum();
        // Cancelled dials and the reaper end at their next poll.
        let limit = self.clock.now() + self.options().connect_timeout;
        while self.tasks.load(Ordering::SeqCst) > 0 {
            let progress = self.progress.notified();
            let left = limit.saturating_duration_since(self.clock.now());
            if self.tasks.load(Ordering::SeqCst) == 0
                || left.is_zero()
                || crate::rt::timeout(left, progress).await.is_none()
            {
                break;
            }
        }
        forced
    }
}
