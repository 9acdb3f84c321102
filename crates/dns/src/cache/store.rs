//! Where entries are kept, and who gives way: quick_cache, told the truth about its memory.
//!
//! The weight of an entry is its allocation. What the store itself takes is not guessed per entry but read off it every so
//! many insertions, and its capacity is what remains of `size`. So the bound holds when many small answers gave way to few
//! large ones too, whose slots stay allocated.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};

use super::{entry::Entry, key::Key};

/// Entries by the hash of their key. Of two keys with one hash the later has the place.
#[derive(Debug)]
pub(super) struct Store {
    entries: Cache<u64, Entry, Allocation, Hashed>,
    /// Bytes of everything together.
    size: usize,
    /// The largest entry, in bytes.
    entry_max: usize,
    /// Insertions between two looks at the store's own memory.
    interval: usize,
    insertions: AtomicUsize,
}

impl Store {
    /// `None` when `size` is 0. `workers` threads use it at a time.
    pub(super) fn new(size: usize, workers: usize) -> Option<Store> {
        if size == 0 {
            return None;
        }
        // Four shards a thread keep waiting rare; each shall hold several of the largest answers.
        let shards = workers.clamp(1, WORKERS_MAX).next_power_of_two() * 4;
        let shards = shards.min(1 << (size / SHARD_MIN).max(1).ilog2());
        let options = OptionsBuilder::new()
            .shards(shards)
            .weight_capacity(0)
            // This sizes the memory for names that gave way, half as many as this; they take slots, which are counted.
            .estimated_items_capacity((size / GHOST_SHARE).max(shards * 32))
            .build()
            .ok()?;
        let entries = Cache::with_options(options, Allocation, Hashed, DefaultLifecycle::default());
        let interval = (size >> 12).clamp(1, 1024);
        let store = Store { entries, size, entry_max: size / 16, interval, insertions: AtomicUsize::new(0) };
        store.fit();
        Some(store)
    }

    /// Whether it was made for this size.
    pub(super) fn is_of(&self, size: usize) -> bool {
        self.size == size
    }

    /// The entry of this key. Counts as a use of it.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Entry> {
        self.entries.get(&key.hash()).filter(|entry| entry.is_of(key))
    }

    /// Whether the entry was taken; one that is too large is not.
    pub(super) fn insert(&self, key: &Key<'_>, entry: Entry) -> bool {
        let taken = allocated(entry.size()) <= self.entry_max;
        if taken {
            self.entries.insert(key.hash(), entry);
            self.inserted();
        }
        taken
    }

    /// As [`insert`](Self::insert), if `keep` does not say that the one in its place is to stay.
    pub(super) fn insert_unless(&self, key: &Key<'_>, entry: Entry, keep: impl Fn(&Entry) -> bool) -> bool {
        if allocated(entry.size()) > self.entry_max {
            return false;
        }
        let action = |_: &u64, old: &mut Entry| {
            if keep(old) { EntryAction::Retain(()) } else { EntryAction::ReplaceWithGuard }
        };
        // Should another thread be at the same place, then its entry is as good.
        let place = match self.entries.entry(&key.hash(), Some(Duration::ZERO), action) {
            EntryResult::Vacant(place) | EntryResult::Replaced(place, _) => place,
            EntryResult::Retained(()) | EntryResult::Removed(..) | EntryResult::Timeout => return false,
        };
        let taken = place.insert(entry).is_ok();
        self.inserted();
        taken
    }

    /// Removes this entry, if it is still the one in its place.
    pub(super) fn remove(&self, key: &Key<'_>, entry: &Entry) {
        drop(self.entries.remove_if(&key.hash(), |own| own.is_same(entry)));
    }

    /// Removes those that match; returns how many.
    pub(super) fn remove_all(&self, matches: impl Fn(&Entry) -> bool) -> usize {
        let removed = Cell::new(0);
        self.entries.retain(|_, entry| {
            let stays = !matches(entry);
            removed.set(removed.get() + usize::from(!stays));
            stays
        });
        removed.get()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the entries and of the store.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.entries.weight()).unwrap_or(usize::MAX).saturating_add(self.own())
    }

    /// Bytes that the store itself takes at most.
    fn own(&self) -> usize {
        let slots = self.entries.memory_used().entries;
        // The slots are a vector that doubles. Each has 5 bytes in a table that doubles and is at least 7/16 full then:
        // 12 bytes for a slot of 32.
        slots * 2 + slots / SLOT * INDEX
    }

    fn inserted(&self) {
        if self.insertions.fetch_add(1, Relaxed) % self.interval == self.interval - 1 {
            self.fit();
        }
    }

    /// Gives the entries what the store leaves of the size, until the next look.
    fn fit(&self) {
        let until_then = 2 * self.interval * (2 * SLOT + INDEX);
        let left = self.size.saturating_sub(self.own() + until_then);
        // Rounded up to a multiple of the shards by the store.
        let left = left - left % self.entries.num_shards();
        self.entries.set_capacity(left as u64);
    }
}

/// Weighs an entry by what it takes on the heap.
#[derive(Debug, Clone, Copy)]
struct Allocation;

impl Weighter<u64, Entry> for Allocation {
    fn weight(&self, _: &u64, entry: &Entry) -> u64 {
        allocated(entry.size()) as u64
    }
}

/// What an allocator takes for so many bytes: a header, and multiples of 16.
fn allocated(size: usize) -> usize {
    (size + 8).next_multiple_of(16)
}

/// Keys are hashes.
#[derive(Debug, Clone, Copy)]
struct Hashed;

impl BuildHasher for Hashed {
    type Hasher = HashedHasher;

    fn build_hasher(&self) -> HashedHasher {
        HashedHasher(0)
    }
}

struct HashedHasher(u64);

impl Hasher for HashedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Bytes of a slot of quick_cache with a key and a value of 8 bytes each, which the memory test holds it to.
const SLOT: usize = 32;

/// Bytes of the table of slots for each of them, at most.
const INDEX: usize = 12;

/// A shard holds several of the largest answers, in bytes.
const SHARD_MIN: usize = 256 << 10;

/// One remembered name for so many bytes of the size, twice.
const GHOST_SHARE: usize = 1024;

const WORKERS_MAX: usize = 1024;
