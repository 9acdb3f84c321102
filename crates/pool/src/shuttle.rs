//! The shell under randomised schedules: the pool's own sources, with shuttle's locks and atomics in place of the real ones.
//!
//! This is the root of a test target of its own beside `lib.rs`, so that an ordinary `cargo test` runs it and the crate's types need no
//! parameter for it. Not part of the library, and not here: time; nothing sleeps or times out in these tests.

mod clock;
mod connector;
mod core;
mod error;
mod event;
mod lease;
mod limits;
mod phases;
mod pool;
#[path = "../tests/shuttle/rt.rs"]
mod rt;
mod slot;
mod stats;
mod steer;
#[path = "../tests/shuttle/sync.rs"]
mod sync;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{future, thread};

pub use connector::{Connected, Connector};
pub use error::{AcquireError, AcquireErrorKind, DialError, Phase, Side};
pub use event::{CloseReason, Event, EventKind};
pub use lease::Lease;
pub use limits::{Limits, LimitsError, Options, Policy};
pub use phases::{DialPhase, DialPhases, PhaseTimes};
pub use pool::{AcquireOptions, Acquired, Builder, Grants, Host, Pool, Spawn, Ticket};
pub use slot::Slot;
pub use stats::{Counters, Gauges, Histogram, HostStats, Stats, tally::Tally};
pub use steer::{ConnectionState, ConnectionView, HostView, NamedPool, Steer, WarmUp, shards::Shards};

struct Tasks;

impl Spawn for Tasks {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send + 'static>>) {
        drop(future::spawn(task));
    }
}

/// Says how many may use it at once and complains when more do.
struct Wire {
    users: AtomicUsize,
    max: usize,
}

impl Wire {
    fn used(&self) {
        assert!(self.users.fetch_add(1, Ordering::SeqCst) < self.max, "more users than the connection has room for");
        thread::yield_now();
        self.users.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Lab {
    capacity: Option<u32>,
}

impl Connector for Lab {
    type Key = u8;
    type Connection = Wire;
    type Error = std::io::Error;

    async fn connect(&self, _: &u8, _: Slot<Self>) -> Result<Connected<Wire>, std::io::Error> {
        future::yield_now().await;
        let max = self.capacity.unwrap_or(1) as usize;
        let connected = Connected::new(Wire { users: AtomicUsize::new(0), max });
        Ok(match self.capacity {
            Some(capacity) => connected.capacity(capacity),
            None => connected,
        })
    }
}

fn pool(capacity: Option<u32>, limits: Limits) -> Pool<Lab> {
    let options = Options { backup_dial_after: None, statistics: false, ..Options::default() };
    Pool::builder(Lab { capacity }).limits(limits).options(options).spawner(Tasks).build()
}

fn finish(pool: &Pool<Lab>) {
    let stats = pool.stats();
    let c = &stats.counters;
    assert_eq!(c.acquires, c.hits + c.shared_hits + c.waited + c.timeouts_total() + c.cancelled + c.errors_total());
    assert_eq!((stats.gauges.in_flight, stats.gauges.waiting), (0, 0), "everything came back");
    assert_eq!(stats.gauges.open, stats.gauges.idle, "what is open is idle");
}

/// Runs a test under random schedules, the same ones each time.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    // The default is too small for the frames of a debug build.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(42, 400);
    shuttle::Runner::new(scheduler, config).run(test);
}

fn users(capacity: Option<u32>, limits: Limits, keys: u8) {
    check(move || {
        let pool = pool(capacity, limits);
        let tasks: Vec<_> = (0..4u8)
            .map(|n| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for round in 0..2 {
                        let key = (n + round) % keys;
                        let lease = future::block_on(pool.acquire(&key)).expect("a lease");
                        lease.used();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().expect("no panic"));
        finish(&pool);
    });
}

#[test]
fn hand_offs_never_share_an_exclusive_connection() {
    users(None, Limits::per_host(1), 1);
    users(None, Limits::per_host(2), 1);
}

#[test]
fn multiplexed_connections_never_exceed_their_capacity() {
    users(Some(2), Limits::per_host(1), 1);
}

#[test]
fn hosts_at_the_global_limit_all_make_progress() {
    let limits = Limits { max_total: 1, max_idle: 1, max_per_host: 1, max_idle_per_host: 1, ..Limits::default() };
    users(None, limits, 2);
}

/// Polls a future a few times and drops it, wherever it stands.
async fn poll_some<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await;
        if let std::task::Poll::Ready(output) = ready {
            return Some(output);
        }
        future::yield_now().await;
    }
    None
}

#[test]
fn a_cancelled_waiter_passes_its_turn_on() {
    check(|| {
        let pool = pool(None, Limits::per_host(1));
        let steady: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || future::block_on(pool.acquire(&0)).expect("a lease").used())
            })
            .collect();
        let fickle: Vec<_> = (1..3)
            .map(|times| {
                let pool = pool.clone();
                thread::spawn(move || {
                    if let Some(lease) = future::block_on(poll_some(pool.acquire(&0), times)) {
                        lease.expect("a lease").used();
                    }
                })
            })
            .collect();
        steady.into_iter().chain(fickle).for_each(|task| task.join().expect("no panic"));
        finish(&pool);
    });
}

/// Counts the calls of each token.
#[derive(Default)]
struct Receiver {
    calls: [AtomicUsize; 3],
}

impl Grants<Lab> for Receiver {
    fn granted(&self, token: u64, result: Result<Lease<Lab>, AcquireError<std::io::Error>>) {
        result.expect("a lease").used();
        self.calls[usize::try_from(token).expect("small")].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_callback_comes_exactly_once_or_its_cancel_was_true() {
    check(|| {
        let pool = pool(None, Limits::per_host(1));
        let receiver = StdArc::new(Receiver::default());
        let grants: StdArc<dyn Grants<Lab>> = receiver.clone();
        let tasks: Vec<_> = (0..3u64)
            .map(|token| {
                let (host, grants) = (pool.host(&0), StdArc::clone(&grants));
                thread::spawn(move || {
                    let options = AcquireOptions { timeout: Some(Duration::from_secs(60)), ..Default::default() };
                    match host.acquire_into(&options, &grants, token).expect("room in the queue") {
                        Acquired::Now(lease) => {
                            lease.used();
                            0
                        }
                        Acquired::Queued(ticket) if token == 2 => usize::from(!host.cancel(ticket)),
                        Acquired::Queued(_) => 1,
                    }
                })
            })
            .collect();
        let expected: Vec<usize> = tasks.into_iter().map(|task| task.join().expect("no panic")).collect();
        // Behind them in the queue, so all of them are served when this is.
        drop(future::block_on(pool.acquire(&0)).expect("a lease"));
        while pool.stats().gauges.in_flight > 0 {
            thread::yield_now();
        }
        for (token, expected) in expected.into_iter().enumerate() {
            while receiver.calls[token].load(Ordering::SeqCst) < expected {
                thread::yield_now();
            }
            assert_eq!(receiver.calls[token].load(Ordering::SeqCst), expected, "token {token}");
        }
        finish(&pool);
    });
}

#[test]
fn a_pool_may_be_dropped_while_it_dials_and_is_used() {
    check(|| {
        let pool = pool(None, Limits::per_host(2));
        let user = {
            let pool = pool.clone();
            thread::spawn(move || future::block_on(pool.acquire(&0)).map(|lease| lease.used()).is_ok())
        };
        let flusher = {
            let pool = pool.clone();
            thread::spawn(move || pool.flush(&0))
        };
        let closer = thread::spawn(move || drop(pool));
        assert!(user.join().expect("no panic"));
        flusher.join().expect("no panic");
        closer.join().expect("no panic");
    });
}
