//! Answers that are kept and given again: one store in wire format for all workers, bounded by its memory.
//!
//! A hit copies the kept bytes and patches the client's id, its question and the TTLs; nothing is parsed and nothing is
//! allocated. What may be kept and for how long is decided by `policy`, who may share an answer by `key`, how it is laid out
//! and rendered by `entry`, who has to give way by `store`. No clock is read here: `now` comes in. Who asks upstreams, what
//! happens while they are asked, and when an answer past its end is good enough, are the server's business.

mod entry;
mod key;
mod policy;
mod store;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::key::Key;
use self::{entry::Entry, policy::Policy, store::Store};
use crate::{
    config::CacheSettings,
    message::{ClientView, Query},
};

/// Answers shared by all workers.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    policy: Policy,
    stale: Duration,
    prefetch: bool,
    seed: u64,
}

/// What was found for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The answer was written to `out`.
    Hit {
        /// The caller asks upstreams for it again, because it is popular and near its end. Said once an entry.
        prefetch: bool,
    },
    /// Nothing was written. There is an answer past its end, which [`Cache::stale`] renders when upstreams fail.
    Stale {
        /// Upstreams failed less than 30 s ago: the stale answer goes out at once and nobody is asked (RFC 8767 section 5).
        hold: bool,
    },
    /// Nothing was written and there is nothing.
    Miss,
}

/// What became of an answer that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// For how long it is fresh.
    pub lifetime: Duration,
    /// A TTL differs from the upstream's because of the limits, or of RFC 2308.
    pub clamped: bool,
}

impl Cache {
    /// An empty cache, which takes memory as answers come in; `None` when `size` is 0.
    ///
    /// `workers` is the number of threads that use it. `seed` is random a process: clients must not be able to choose names
    /// that collide.
    pub fn new(settings: &CacheSettings, workers: usize, seed: u64) -> Option<Cache> {
        Some(Cache {
            store: Arc::new(Store::new(settings.size, workers)?),
            policy: Policy::new(settings),
            stale: settings.stale,
            prefetch: settings.prefetch,
            seed,
        })
    }

    /// The same answers under other settings; those that are kept keep their time. `None` when the size is another: the memory of
    /// a store cannot be cut to a new size.
    pub fn renewed(&self, settings: &CacheSettings) -> Option<Cache> {
        self.store.is_of(settings.size).then(|| Cache {
            store: self.store.clone(),
            policy: Policy::new(settings),
            stale: settings.stale,
            prefetch: settings.prefetch,
            seed: self.seed,
        })
    }

    /// Whether both give the same answers.
    pub fn shares_answers(&self, other: &Cache) -> bool {
        Arc::ptr_eq(&self.store, &other.store)
    }

    /// What the answer to this query depends on, or `None` when it must not be shared. Allocates nothing.
    ///
    /// `message` may be as the client sent it or [normalised](crate::message::normalise): the key is the same. `query` is
    /// what [`Query::parse`] made of it.
    pub fn key<'a>(&self, message: &'a [u8], query: &Query) -> Option<Key<'a>> {
        Key::of(message, query, self.seed)
    }

    /// Looks for an answer and, if it has not come to its end, writes it to `out` as this client gets it.
    ///
    /// `out` is cleared first and then holds the whole message: with the client's id, the question as the key has it, TTLs
    /// counted down by whole seconds, OPT if and only if the client sent one, shortened or truncated to the client's size
    /// as [`prepare_answer`](crate::message::prepare_answer) does. What has gone stale for too long is removed.
    pub fn answer(&self, key: &Key<'_>, view: &ClientView, now: Instant, out: &mut Vec<u8>) -> Lookup {
        out.clear();
        let Some(entry) = self.store.find(key) else { return Lookup::Miss };
        let age = entry.age(now);
        if age < entry.lifetime() {
            entry.render(view, key.question(), age, out);
            return Lookup::Hit { prefetch: self.prefetch && entry.wants_prefetch(age) };
        }
        if entry.serves(age, self.stale) {
            return Lookup::Stale { hold: entry.holds(age) };
        }
        self.store.remove(key, &entry);
        Lookup::Miss
    }

    /// Writes an answer past its end to `out` as this client gets it (RFC 8767); `false`, and nothing in `out`, when there is
    /// none.
    ///
    /// TTLs are at most 30 s (section 4), and a client that speaks EDNS is told by an extended error: "Stale Answer" or "Stale
    /// NXDOMAIN Answer" (RFC 8914 sections 4.4 and 4.20). An answer that has come in meanwhile is rendered as a hit.
    pub fn stale(&self, key: &Key<'_>, view: &ClientView, now: Instant, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(entry) = self.store.find(key) else { return false };
        let age = entry.age(now);
        if age < entry.lifetime() {
            entry.render(view, key.question(), age, out);
        } else if entry.serves(age, self.stale) {
            entry.render_stale(view, key.question(), age, out);
        } else {
            return false;
        }
        true
    }

    /// Upstreams failed to answer this query: for 30 s its stale answer, if there is one, [holds](Lookup::Stale)
    /// (RFC 8767 section 5).
    pub fn refresh_failed(&self, key: &Key<'_>, now: Instant) {
        if let Some(entry) = self.store.find(key) {
            entry.hold(now);
        }
    }

    /// Keeps an answer, if it may be kept, in place of the one before it; `None` when it is not kept.
    ///
    /// `query` is [normalised](crate::message::normalise), or as a client sent it; `answer` is what an upstream sent, whose id
    /// does not matter. Kept are answers with data, NXDOMAIN and NODATA with a SOA (RFC 2308 section 5), and for one second
    /// SERVFAIL (RFC 9520 section 3.2), which never takes the place of an answer that may still serve. Truncated
    /// answers, those to another question, other errors, referrals, those with a TTL of 0 and those that would take more
    /// than a small share of the cache are not kept.
    pub fn insert(&self, query: &[u8], answer: &[u8], now: Instant) -> Option<Inserted> {
        let parsed = Query::parse(query).ok()?;
        let key = self.key(query, &parsed)?;
        let entry = Entry::new(&key, query, answer, &self.policy, now)?;
        let inserted = Inserted { lifetime: entry.lifetime(), clamped: entry.is_clamped() };
        let kept = if entry.is_failure() {
            self.store.insert_unless(&key, entry, |old| !old.is_failure() && old.serves(old.age(now), self.stale))
        } else {
            self.store.insert(&key, entry)
        };
        kept.then_some(inserted)
    }

    /// Forgets the answers to all questions about `name`, which is in wire form and any case, or all answers; returns how
    /// many. Waits for the locks of all shards in turn.
    pub fn flush(&self, name: Option<&[u8]>) -> usize {
        self.store.remove_all(|entry| name.is_none_or(|name| entry.is_about(name)))
    }

    /// Answers kept, those past their end included.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the answers kept, the store's own for them included, in bytes; never above the `size` of the settings.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }
}
