//! Tunnels that nobody uses yet: opened ahead for a hot destination, or given back by a caller who vouches for them.
//!
//! Each holds its permit, is watched, and is closed when it is old or its peer says anything. The next tunnel to the same destination,
//! by the same way, is one of these.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use keepwarm_transport::proxy::Target;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{connector::Live, parked::Parked, stream::Stream};

/// Tunnels that wait, by destination.
#[derive(Default)]
pub(crate) struct Ready {
    waiting: Mutex<HashMap<Target, Vec<Waiting>>>,
    hot: Mutex<HashMap<Target, VecDeque<Instant>>>,
    /// How many are being opened ahead.
    opening: Mutex<HashMap<Target, usize>>,
    ids: AtomicU64,
    taken: AtomicU64,
    closed: AtomicBool,
}

/// One that is being opened ahead, counted until it is dropped.
pub(crate) struct Opening {
    ready: Arc<Ready>,
    target: Target,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut opening = self.ready.opening.lock();
        if let Some(count) = opening.get_mut(&self.target) {
            *count -= 1;
            if *count == 0 {
                opening.remove(&self.target);
            }
        }
    }
}

struct Waiting {
    id: u64,
    parked: Parked<Stream>,
    live: Live,
    until: Instant,
}

impl Ready {
    /// The youngest tunnel that waits for this destination and came by a way that may be used.
    pub(crate) fn take(&self, target: &Target, may: impl Fn(&Live) -> bool) -> Option<(Stream, Live)> {
        let now = Instant::now();
        let mut dead = Vec::new();
        let mut map = self.waiting.lock();
        let list = map.get_mut(target)?;
        let mut found = None;
        while let Some(at) = list.iter().rposition(|waiting| may(&waiting.live)) {
            let Waiting { parked, live, until, .. } = list.remove(at);
            match parked.take().filter(|_| now < until) {
                Some(stream) => {
                    found = Some((stream, live));
                    break;
                }
                // Its permit is given back outside the lock.
                None => dead.push(live),
            }
        }
        if list.is_empty() {
            map.remove(target);
        }
        drop(map);
        self.taken.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }

    /// Keeps a tunnel for the next that wants one; closes it where enough wait, or where somebody waits for its permit.
    pub(crate) fn put(self: &Arc<Self>, target: &Target, stream: Stream, live: Live, keep: Duration, max: usize) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (weak, key) = (Arc::downgrade(self), target.clone());
        // Under the lock, so that an end that comes at once finds the entry.
        let mut map = self.waiting.lock();
        let parked = Parked::new(stream, move |_| {
            if let Some(ready) = weak.upgrade() {
                ready.remove(&key, id);
            }
        });
        let waiting = Waiting { id, parked, live, until: Instant::now() + keep };
        let total: usize = map.values().map(Vec::len).sum();
        let list = map.entry(target.clone()).or_default();
        let has_room = list.len() < max && total < WAITING_MAX && !self.closed.load(Ordering::Relaxed);
        let refused = if has_room && !waiting.live.is_wanted() {
            list.push(waiting);
            None
        } else {
            Some(waiting)
        };
        if list.is_empty() {
            map.remove(target);
        }
        drop(map);
        drop(refused);
    }

    /// Closes the oldest to a destination, or of all: somebody waits for a permit. Whoever waits for a destination has found none of its
    /// tunnels that he may use; one that is there nevertheless came in that instant, or by a way that is no longer in force.
    pub(crate) fn give_way(&self, of: Option<&Target>) {
        let mut map = self.waiting.lock();
        let all = || map.iter().filter_map(|(target, list)| Some((list.first()?.id, target)));
        let Some(target) = of.or_else(|| all().min_by_key(|(id, _)| *id).map(|(_, target)| target)).cloned() else {
            return;
        };
        let gone = map.get_mut(&target).map(|list| list.remove(0));
        if map.get(&target).is_some_and(Vec::is_empty) {
            map.remove(&target);
        }
        drop(map);
        drop(gone);
    }

    /// The right to open one more ahead; `None` where so many wait or are coming already.
    pub(crate) fn opening(self: &Arc<Self>, target: &Target, max: usize) -> Option<Opening> {
        let waiting = self.waiting.lock().get(target).map_or(0, Vec::len);
        let mut opening = self.opening.lock();
        let coming = opening.get(target).copied().unwrap_or(0);
        if waiting + coming >= max {
            return None;
        }
        opening.insert(target.clone(), coming + 1);
        Some(Opening { ready: Arc::clone(self), target: target.clone() })
    }

    /// Closes all, and those that come.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.clear();
    }

    fn remove(&self, target: &Target, id: u64) {
        let mut map = self.waiting.lock();
        let Some(list) = map.get_mut(target) else { return };
        let gone = list.iter().position(|waiting| waiting.id == id).map(|at| list.remove(at));
        if list.is_empty() {
            map.remove(target);
        }
        drop(map);
        drop(gone);
    }

    /// How many wait in all, and how many were used.
    pub(crate) fn gauges(&self) -> (usize, u64) {
        (self.waiting.lock().values().map(Vec::len).sum(), self.taken.load(Ordering::Relaxed))
    }

    /// Closes those that are old.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut old = Vec::new();
        self.waiting.lock().retain(|_, list| {
            old.extend(list.extract_if(.., |waiting| waiting.until <= now));
            !list.is_empty()
        });
        self.hot.lock().retain(|_, uses| uses.back().is_some_and(|last| now - *last < HOT_WITHIN));
        drop(old);
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        drop(all);
    }

    /// A destination was used. Whether it is hot: used three times within a minute.
    pub(crate) fn used(&self, target: &Target) -> bool {
        let now = Instant::now();
        let mut hot = self.hot.lock();
        if !hot.contains_key(target) && hot.len() >= HOT_MAX {
            return false;
        }
        let uses = hot.entry(target.clone()).or_default();
        if uses.len() == HOT_USES {
            uses.pop_front();
        }
        uses.push_back(now);
        uses.len() == HOT_USES && uses.front().is_some_and(|first| now - *first < HOT_WITHIN)
    }
}

/// Tunnels that wait, of all destinations.
const WAITING_MAX: usize = 256;

/// Destinations whose use is counted.
const HOT_MAX: usize = 256;

/// So many uses ...
const HOT_USES: usize = 3;

/// ... within this make a destination hot.
const HOT_WITHIN: Duration = Duration::from_secs(60);
