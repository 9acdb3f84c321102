//! Counts the allocations of a hit and of a hand-off, for ours and its peers; `benches/pool` puts them into its report.
//!
//! A program of its own because the counting allocator would slow down the other bench. Everything runs on one thread: the counter
//! counts by thread.

#[path = "pool/peers.rs"]
#[expect(dead_code, reason = "no dial is slow here")]
mod peers;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use peers::{Bb8, Deadpool, Dials, HyperCache, Mobc, OursByHandle, OursByKey, Peer, warm};

fn main() -> io::Result<()> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let wait = Some(Duration::from_secs(10));
    let counts = [
        count("keepwarm, host handle", |size, dials| OursByHandle::new(size, dials, true)),
        count("keepwarm, key look-up", |size, dials| OursByKey::new(size, dials, true)),
        count("deadpool 0.13", |size, dials| Deadpool::new(size, dials, None)),
        count("deadpool 0.13, time-out 10 s", |size, dials| Deadpool::new(size, dials, wait)),
        count("bb8 0.9", Bb8::new),
        count("mobc 0.9", Mobc::new),
        count("hyper-util 0.1 pool::cache (no limit)", |_, dials| HyperCache::build(dials)),
    ];
    let mut out = io::stdout().lock();
    for row in &counts {
        writeln!(out, "{}: {} allocations a hit, {} a hand-off", row["name"], row["hit"], row["hand_off"])?;
    }
    let counts = Value::from(counts.to_vec());
    // Without `--bench` this is a test run, whose figures nobody asked for.
    if std::env::args().any(|argument| argument == "--bench") {
        std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/pool-allocations.json"), counts.to_string())?;
    }
    Ok(())
}

fn count<P: Peer>(name: &'static str, build: impl Fn(usize, Dials) -> P) -> Value {
    let hand_off = P::WAITS.then(|| hand_off(&build));
    json!({ "name": name, "hit": hit(&build), "hand_off": hand_off })
}

fn hit<P: Peer>(build: impl Fn(usize, Dials) -> P) -> f64 {
    let runtime = runtime();
    let mut peer = runtime.block_on(async {
        let peer = build(1, Dials::default());
        warm(&peer, 1).await;
        peer
    });
    per_operation(&runtime, async |operations| {
        for _ in 0..operations {
            drop(peer.acquire().await);
        }
    })
}

/// Two tasks and one connection: whoever asks must wait until the other hands over.
fn hand_off<P: Peer>(build: impl Fn(usize, Dials) -> P) -> f64 {
    let runtime = runtime();
    let done = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let peer = build(1, Dials::default());
        warm(&peer, 1).await;
        for _ in 0..2 {
            tokio::spawn(take_turns(peer.clone(), Arc::clone(&done)));
        }
    });
    per_operation(&runtime, async |operations| {
        let until = done.load(Ordering::Relaxed) + operations;
        while done.load(Ordering::Relaxed) < until {
            tokio::task::yield_now().await;
        }
    })
}

async fn take_turns<P: Peer>(mut peer: P, done: Arc<AtomicU64>) {
    loop {
        let lease = peer.acquire().await;
        tokio::task::yield_now().await;
        drop(lease);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Allocations of one operation: what 11,000 cost more than 1,000, so that entering the runtime does not count.
fn per_operation(runtime: &Runtime, mut run: impl AsyncFnMut(u64)) -> f64 {
    runtime.block_on(run(1_000));
    let few = measure(|| runtime.block_on(run(1_000))).count_total;
    let many = measure(|| runtime.block_on(run(11_000))).count_total;
    many.saturating_sub(few) as f64 / 10_000.0
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
