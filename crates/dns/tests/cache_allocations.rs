//! What the cache takes from the heap: nothing on a hit, and no more than its size when full.
//!
//! A program of its own, because the counting allocator slows everything down. It counts by thread.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use allocation_counter::measure;
use keepwarm_dns::{
    cache::{Cache, Lookup},
    config::CacheSettings,
    message::{ClientView, Query, build_query},
};

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn cache(size: usize) -> Cache {
    Cache::new(&CacheSettings { size, ..CacheSettings::default() }, 2, 7).unwrap()
}

/// The answer to a query of [`build_query`]: so many addresses, each fresh for a minute.
fn answer(query: &[u8], records: u16) -> Vec<u8> {
    let mut answer = query[..query.len() - 11].to_vec();
    (answer[2], answer[3]) = (0x81, 0x80);
    answer[6..8].copy_from_slice(&records.to_be_bytes());
    answer[10..12].copy_from_slice(&[0, 0]);
    for record in 0..records {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0]);
        answer.extend_from_slice(&record.to_be_bytes());
    }
    answer
}

fn keep(cache: &Cache, owner: &str, records: u16, now: Instant) {
    let query = build_query(owner, 1).unwrap();
    assert!(cache.insert(&query, &answer(&query, records), now).is_some());
}

#[test]
fn looking_up_allocates_nothing() {
    let (cache, now) = (cache(1 << 20), now());
    let mut out = Vec::with_capacity(4096);
    keep(&cache, "small.example", 1, now);
    keep(&cache, "large.example", 100, now);
    let fresh = now + Duration::from_secs(59);
    let past = now + Duration::from_secs(61);
    let ask = |owner: &str, max, at, out: &mut Vec<u8>| {
        let message = build_query(owner, 1).unwrap();
        let mut found = None;
        let counted = measure(|| {
            for _ in 0..5 {
                let query = Query::parse(&message).unwrap();
                let key = cache.key(&message, &query).unwrap();
                let view = ClientView::new(&query, max, 1232);
                found = Some(cache.answer(&key, &view, at, out));
                if matches!(found, Some(Lookup::Stale { .. })) {
                    assert!(cache.stale(&key, &view, at, out));
                    cache.refresh_failed(&key, at);
                }
            }
        });
        assert_eq!(counted.count_total, 0, "{owner} {max}");
        found.unwrap()
    };
    assert!(matches!(ask("small.example", 1232, fresh, &mut out), Lookup::Hit { .. }));
    assert!(matches!(ask("large.example", u16::MAX, fresh, &mut out), Lookup::Hit { .. }));
    assert!(matches!(ask("large.example", 512, fresh, &mut out), Lookup::Hit { .. }));
    assert!(out[2] & 2 != 0, "that one was truncated");
    assert_eq!(ask("small.example", 1232, past, &mut out), Lookup::Stale { hold: true });
    assert_eq!(ask("none.example", 1232, fresh, &mut out), Lookup::Miss);
}

/// Bytes on the heap after a cache of this size was filled with what `fill` keeps.
fn held(size: usize, fill: impl Fn(&Cache)) -> (Cache, usize) {
    let mut filled = None;
    let counted = measure(|| {
        let cache = cache(size);
        fill(&cache);
        filled = Some(cache);
    });
    (filled.unwrap(), usize::try_from(counted.bytes_current).unwrap())
}

#[test]
fn an_empty_cache_is_small() {
    let (_cache, bytes) = held(64 << 20, |_| {});
    assert!(bytes < 16 << 10, "{bytes}");
}

#[test]
fn a_full_cache_takes_what_it_says_and_no_more_than_its_size() {
    const SIZE: usize = 4 << 20;
    let now = now();
    let small = |cache: &Cache| (0..60_000).for_each(|n| keep(cache, &format!("h{n}.example"), 1, now));
    let mixed = |cache: &Cache| {
        (0..30_000_u16).for_each(|n| keep(cache, &format!("host-{n}.some.example"), n % 37 + 1, now));
    };
    let large_after_small = |cache: &Cache| {
        small(cache);
        for n in 0..3000 {
            let owner = format!("large-{n}.example");
            keep(cache, &owner, 200, now);
            let message = build_query(&owner, 1).unwrap();
            let query = Query::parse(&message).unwrap();
            // What is asked for comes to stay.
            let key = cache.key(&message, &query).unwrap();
            cache.answer(&key, &ClientView::new(&query, 512, 1232), now, &mut Vec::new());
        }
    };
    let check = |what: &str, fill: &dyn Fn(&Cache)| {
        let (cache, bytes) = held(SIZE, fill);
        let said = cache.bytes();
        println!("{what}: {} answers, {bytes} bytes on the heap, {said} said, of {SIZE}", cache.len());
        assert!(said <= SIZE, "{what}: {said}");
        // Shards and locks take a little that is no answer's.
        assert!(bytes <= said + (16 << 10), "{what}: {bytes} bytes on the heap, {said} said");
        assert!(bytes >= SIZE / 2, "{what}: {bytes}");
        cache.flush(None);
        assert_eq!(cache.len(), 0);
        assert!(cache.bytes() < SIZE / 2, "{what}: {}", cache.bytes());
    };
    check("small", &small);
    check("mixed", &mixed);
    check("large after small", &large_after_small);
}
