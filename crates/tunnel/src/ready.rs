//! Tunnels that nobody uses yet: opened ahead for a hot destination, or given back by a caller who vouches for them.
//!
//! Each holds its permit, is watched, and is closed when it is old or its peer says anything. The next tunnel to the same destination,
//! by the same way, is one of these.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
    ids: AtomicU64,
    taken: AtomicU64,
}

struct Waiting {
    id: u64,
    parked: Parked<Stream>,
    live: Live,
    until: Instant,
}

impl Ready {
    /// The youngest tunnel that waits for this destination and came by one of these upstreams.
    pub(crate) fn take(&self, target: &Target, may: impl Fn(&str) -> bool) -> Option<(Stream, Live)> {
        let now = Instant::now();
        let mut dead = Vec::new();
        let mut map = self.waiting.lock();
        let list = map.get_mut(target)?;
        let mut found = None;
        while let Some(at) = list.iter().rposition(|waiting| may(&waiting.live.trace().upstream)) {
            let Waiting { parked, live, until, .. } = list.swap_remove(at);
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

    /// Keeps a tunnel for the next that wants one; closes it where enough wait.
    pub(crate) fn put(self: &Arc<Self>, target: &Target, stream: Stream, live: Live, keep: Duration, max: usize) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (weak, key) = (Arc::downgrade(self), target.clone());
        let parked = Parked::new(stream, move |_| {
            if let Some(ready) = weak.upgrade() {
                ready.remove(&key, id);
            }
        });
        let waiting = Waiting { id, parked, live, until: Instant::now() + keep };
        let mut map = self.waiting.lock();
        let total: usize = map.values().map(Vec::len).sum();
        let list = map.entry(target.clone()).or_default();
        let refused = if list.len() < max && total < WAITING_MAX {
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

    fn remove(&self, target: &Target, id: u64) {
        let mut map = self.waiting.lock();
        let Some(list) = map.get_mut(target) else { return };
        let gone = list.iter().position(|waiting| waiting.id == id).map(|at| list.swap_remove(at));
        if list.is_empty() {
            map.remove(target);
        }
        drop(map);
        drop(gone);
    }

    /// How many wait for a destination.
    pub(crate) fn waiting_for(&self, target: &Target) -> usize {
        self.waiting.lock().get(target).map_or(0, Vec::len)
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
