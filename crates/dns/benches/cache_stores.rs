//! Which store carries the cache: quick_cache beside moka, the way the cache uses them.
//!
//! Keys are 64-bit hashes, values are counted pointers to answers of some 200 bytes, the bound is a weight in bytes. Ten
//! thousand hot names, in reads alone and in a mix of nine reads and one insertion, by one thread and by two.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use divan::{Bencher, black_box, counter::ItemsCount};

fn main() {
    divan::main();
}

type Value = Arc<[u8]>;

trait Store: Send + Sync {
    fn new() -> Self;
    fn get(&self, key: u64) -> Option<Value>;
    fn insert(&self, key: u64, value: Value);
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<u64, Value> for Weight {
    fn weight(&self, _: &u64, value: &Value) -> u64 {
        value.len() as u64 + OVERHEAD
    }
}

struct QuickCache(quick_cache::sync::Cache<u64, Value, Weight, Hashed>);

impl Store for QuickCache {
    fn new() -> Self {
        QuickCache(quick_cache::sync::Cache::with(65_536, SIZE, Weight, Hashed, Default::default()))
    }

    fn get(&self, key: u64) -> Option<Value> {
        self.0.get(&key)
    }

    fn insert(&self, key: u64, value: Value) {
        self.0.insert(key, value);
    }
}

struct Moka(moka::sync::Cache<u64, Value, Hashed>);

impl Store for Moka {
    fn new() -> Self {
        let weigh = |_: &u64, value: &Value| u32::try_from(value.len() as u64 + OVERHEAD).unwrap();
        Moka(moka::sync::Cache::builder().max_capacity(SIZE).weigher(weigh).build_with_hasher(Hashed))
    }

    fn get(&self, key: u64) -> Option<Value> {
        self.0.get(&key)
    }

    fn insert(&self, key: u64, value: Value) {
        self.0.insert(key, value);
    }
}

#[divan::bench(types = [QuickCache, Moka], threads = [1, 2])]
fn hot_reads<S: Store>(bencher: Bencher<'_, '_>) {
    let store = filled::<S>();
    let turn = AtomicU64::new(0);
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        let mut numbers = Numbers(turn.fetch_add(1, Relaxed));
        for _ in 0..BATCH {
            black_box(store.get(mix(numbers.next() % HOT)));
        }
    });
}

#[divan::bench(types = [QuickCache, Moka], threads = [1, 2])]
fn one_name<S: Store>(bencher: Bencher<'_, '_>) {
    let store = filled::<S>();
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        for _ in 0..BATCH {
            black_box(store.get(black_box(mix(1))));
        }
    });
}

/// Nine reads of hot names, then an insertion of a name that nobody asks for again, in a store that is full.
#[divan::bench(types = [QuickCache, Moka], threads = [1, 2])]
fn reads_and_insertions<S: Store>(bencher: Bencher<'_, '_>) {
    let store = filled::<S>();
    let turn = AtomicU64::new(1);
    for cold in 0..100_000 {
        store.insert(mix(COLD + cold), value());
    }
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        let start = turn.fetch_add(1, Relaxed);
        let mut numbers = Numbers(start);
        for number in 0..BATCH {
            if number % 10 == 9 {
                store.insert(mix(COLD * 2 + start * BATCH + number), value());
            } else {
                black_box(store.get(mix(numbers.next() % HOT)));
            }
        }
    });
}

fn filled<S: Store>() -> S {
    let store = S::new();
    for key in 0..HOT {
        store.insert(mix(key), value());
    }
    store
}

fn value() -> Value {
    Arc::from([7; 200])
}

/// Spreads small numbers over 64 bits, as a hash of a name would be (splitmix64).
fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }
}

/// Keys are hashes: both stores are spared another one.
#[derive(Clone, Copy, Default)]
struct Hashed;

impl std::hash::BuildHasher for Hashed {
    type Hasher = HashedHasher;

    fn build_hasher(&self) -> HashedHasher {
        HashedHasher(0)
    }
}

struct HashedHasher(u64);

impl std::hash::Hasher for HashedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers of 64 bits");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Names that are asked for.
const HOT: u64 = 10_000;
const COLD: u64 = 1 << 32;
/// Operations a sample.
const BATCH: u64 = 1000;
/// Room for some 60,000 answers, in bytes.
const SIZE: u64 = 16 << 20;
const OVERHEAD: u64 = 76;
