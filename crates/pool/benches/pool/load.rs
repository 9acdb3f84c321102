//! The loads that are put on every pool alike, and what is read from them.
//!
//! Not here: the pools, and what is made of the readings.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use crate::peers::{Dials, Peer};

/// One load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    /// Whether each lease is held over one turn of the scheduler: with more tasks than connections the pool is then always full.
    pub(crate) saturated: bool,
}

/// What one run of a load showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Wall time divided by operations of all tasks.
    pub(crate) nanos: f64,
    /// The process's CPU time divided by operations: what a neighbour on the machine disturbs least.
    pub(crate) cpu_nanos: f64,
    /// 99th percentile of the time from asking to having; only of saturated loads.
    pub(crate) wait_p99: Duration,
    /// Operations of the task that had most, and of the one that had fewest.
    pub(crate) most: u64,
    pub(crate) fewest: u64,
}

/// Puts a load on a pool: `ramp` to come to an even pace, then `window` in which it is read.
pub(crate) async fn drive<P: Peer>(peer: &P, load: Load, ramp: Duration, window: Duration) -> Reading {
    let meter = Arc::new(Meter::new(load.tasks));
    let tasks: Vec<_> = (0..load.tasks)
        .map(|index| tokio::spawn(work(peer.clone(), Arc::clone(&meter), index, load.saturated)))
        .collect();

    tokio::time::sleep(ramp).await;
    meter.reading.store(true, Ordering::Relaxed);
    let (began, cpu, before) = (Instant::now(), cpu_time(), meter.snapshot());
    tokio::time::sleep(window).await;
    let (elapsed, cpu, after) = (began.elapsed(), cpu_time() - cpu, meter.snapshot());
    meter.reading.store(false, Ordering::Relaxed);
    meter.stop.store(true, Ordering::Relaxed);

    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.expect("no task panics"));
    }
    waits.sort_unstable();
    let done: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let operations = done.iter().sum::<u64>().max(1) as f64;
    Reading {
        nanos: elapsed.as_secs_f64() * 1e9 / operations,
        cpu_nanos: cpu.as_secs_f64() * 1e9 / operations,
        wait_p99: waits.get(waits.len() * 99 / 100).copied().unwrap_or_default(),
        most: done.iter().copied().max().unwrap_or(0),
        fewest: done.iter().copied().min().unwrap_or(0),
    }
}

async fn work<P: Peer>(mut peer: P, meter: Arc<Meter>, index: usize, saturated: bool) -> Vec<Duration> {
    let mut done = 0;
    let mut waits = Vec::new();
    while !meter.stop.load(Ordering::Relaxed) {
        if saturated {
            // Reading the clock costs a fifth of an operation, so only some are timed.
            let asked = (done % TIMED_EACH == 0).then(Instant::now);
            let lease = peer.acquire().await;
            if let Some(asked) = asked
                && meter.reading.load(Ordering::Relaxed)
                && waits.len() < WAITS_MAX
            {
                waits.push(asked.elapsed());
            }
            tokio::task::yield_now().await;
            drop(std::hint::black_box(lease));
            done += 1;
            meter.done[index].0.store(done, Ordering::Relaxed);
        } else {
            for _ in 0..BATCH {
                drop(std::hint::black_box(peer.acquire().await));
                done += 1;
                meter.done[index].0.store(done, Ordering::Relaxed);
            }
            // So that the tasks take turns although nothing makes them wait.
            tokio::task::yield_now().await;
        }
    }
    waits
}

/// Which operations of a task are timed.
const TIMED_EACH: u64 = 16;
/// Most waits that one task keeps.
const WAITS_MAX: usize = 65_536;
/// Operations between two turns of the scheduler where nothing waits.
const BATCH: u64 = 512;

struct Meter {
    reading: AtomicBool,
    stop: AtomicBool,
    done: Vec<Line>,
}

/// A counter on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Meter {
    fn new(tasks: usize) -> Self {
        Self {
            reading: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            done: (0..tasks).map(|_| Line::default()).collect(),
        }
    }

    fn snapshot(&self) -> Vec<u64> {
        self.done.iter().map(|line| line.0.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(target_os = "linux")]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}

/// Not known elsewhere; the column is zero there.
#[cfg(not(target_os = "linux"))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

/// How long a waiter waits when a connection comes back after 20 ms while a dial takes 300 ms. The pool must have room for two.
pub(crate) async fn late_binding<P: Peer>(peer: &P, dials: &Dials) -> Duration {
    let mut holder = peer.clone();
    let lease = holder.acquire().await;
    dials.take(Duration::from_millis(300));
    let began = Instant::now();
    let mut waiter = peer.clone();
    let waiting = tokio::spawn(async move {
        drop(waiter.acquire().await);
        began.elapsed()
    });
    tokio::time::sleep_until(began + Duration::from_millis(20)).await;
    drop(lease);
    waiting.await.expect("the waiter does not panic")
}

/// How long it takes to cancel one of `n` waiters, in nanoseconds, all of them cancelled in random order. The pool must have room
/// for one connection and for all the waiters.
pub(crate) async fn cancel<P: Peer>(peer: &P, n: usize) -> f64 {
    let mut holder = peer.clone();
    let lease = holder.acquire().await;
    let mut clones = vec![peer.clone(); n];
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiters: Vec<Pin<Box<dyn Future<Output = P::Lease<'_>> + Send + '_>>> = Vec::new();
    for clone in &mut clones {
        let mut waiter: Pin<Box<dyn Future<Output = P::Lease<'_>> + Send + '_>> = Box::pin(clone.acquire());
        assert!(waiter.as_mut().poll(&mut cx).is_pending(), "the only connection is leased");
        waiters.push(waiter);
    }
    waiters.shuffle(&mut StdRng::seed_from_u64(n as u64));
    let began = Instant::now();
    for waiter in waiters {
        drop(waiter);
    }
    let elapsed = began.elapsed();
    drop(lease);
    drop(peer.clone().acquire().await);
    elapsed.as_secs_f64() * 1e9 / n as f64
}
