//! One task for the timers of all hosts, for the look at the wall clock and for forgetting hosts that nobody uses.
//!
//! Not here: what is due at a tick (`core/life.rs`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::{Inner, Shared};
use crate::connector::Connector;
use crate::core::HostState;
use crate::rt;
use crate::sync::{Mutex, Ordering};

/// How often the wall clock is looked at while connections are open.
const WALL_CHECK: Duration = Duration::from_secs(10);
/// How much further than our clock the wall clock must have gone to mean that the machine slept.
const ASLEEP_MIN: Duration = Duration::from_secs(3);

/// The next tick of each host.
pub(super) struct Timers<C: Connector> {
    due: Mutex<Due<C>>,
    pub(super) earlier: Notify,
}

struct Due<C: Connector> {
    order: BTreeSet<(Instant, u64)>,
    hosts: HashMap<u64, (Instant, Weak<Shared<C>>)>,
}

impl<C: Connector> Timers<C> {
    pub(super) fn new() -> Self {
        Self { due: Mutex::new(Due { order: BTreeSet::new(), hosts: HashMap::new() }), earlier: Notify::new() }
    }

    /// Sets a host's next tick, unless an earlier one is set: so calls may come in any order.
    pub(super) fn arm(&self, id: u64, at: Instant, host: &Weak<Shared<C>>) {
        let mut due = self.due.lock();
        match due.hosts.get(&id).map(|(old, _)| *old) {
            Some(old) if old <= at => return,
            Some(old) => drop(due.order.remove(&(old, id))),
            None => {}
        }
        due.hosts.insert(id, (at, Weak::clone(host)));
        due.order.insert((at, id));
        let first = due.order.first() == Some(&(at, id));
        drop(due);
        if first {
            self.earlier.notify_one();
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.lock().order.first().map(|(at, _)| *at)
    }

    fn pop(&self, now: Instant) -> Option<Weak<Shared<C>>> {
        let mut due = self.due.lock();
        let &(at, id) = due.order.first()?;
        if at > now {
            return None;
        }
        due.order.pop_first();
        due.hosts.remove(&id).map(|(_, host)| host)
    }
}

/// Runs until the pool has ended.
pub(super) async fn run<C: Connector>(pool: Arc<Inner<C>>) {
    let mut wall = WallWatch { mono: pool.clock.now(), wall: pool.wall_clock() };
    let mut swept_at = pool.clock.now();
    while !pool.ended.load(Ordering::SeqCst) {
        let now = pool.clock.now();
        let forget_after = pool.options().forget_after;
        let mut wake_at = swept_at + forget_after;
        if pool.global.total() > 0 {
            wake_at = wake_at.min(now + WALL_CHECK);
        }
        if let Some(next) = pool.timers.next() {
            wake_at = wake_at.min(next);
        }
        if wake_at > now {
            let _ = rt::timeout(wake_at - now, pool.timers.earlier.notified()).await;
        }
        if let Some(asleep) = wall.asleep(&pool) {
            pool.hosts_now().iter().for_each(|host| host.step(|core, now, fx| core.suspended(asleep, now, fx)));
        }
        let now = pool.clock.now();
        while let Some(host) = pool.timers.pop(now) {
            if let Some(host) = host.upgrade() {
                host.step(HostState::tick);
            }
        }
        if now >= swept_at + forget_after {
            swept_at = now;
            pool.forget_unused(now);
        }
    }
}

/// Finds out that the machine slept: the wall clock went on, ours did not.
struct WallWatch {
    mono: Instant,
    wall: SystemTime,
}

impl WallWatch {
    fn asleep<C: Connector>(&mut self, pool: &Inner<C>) -> Option<Duration> {
        let (mono, wall) = (pool.clock.now(), pool.wall_clock());
        let ours = mono.saturating_duration_since(self.mono);
        // A wall clock that was set back says nothing.
        let theirs = wall.duration_since(self.wall).unwrap_or_default();
        (self.mono, self.wall) = (mono, wall);
        theirs.checked_sub(ours).filter(|&asleep| asleep >= ASLEEP_MIN)
    }
}
