//! A connector whose every dial and validation is ended by the test that owns it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keepwarm_pool::{
    AcquireError, Builder, CloseReason, Connected, Connector, DialPhase, DialPhases, Event, EventKind, Lease, Limits,
    Options, Pool, Side, Slot,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

/// A connection: counts itself open until it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) number: u64,
    pub(crate) slot: Slot<Lab>,
    open: Arc<AtomicUsize>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type Key = &'static str;
type Done = Result<(Option<u32>, bool), Refused>;

pub(crate) struct Dial {
    pub(crate) key: Key,
    pub(crate) slot: Slot<Lab>,
    done: oneshot::Sender<Done>,
}

impl Dial {
    /// Ends the dial with an exclusive connection.
    pub(crate) async fn ok(self) {
        self.end(Ok((None, true))).await;
    }

    /// Ends the dial with a multiplexed connection.
    pub(crate) async fn shared(self, capacity: u32) {
        self.end(Ok((Some(capacity), true))).await;
    }

    pub(crate) async fn once(self) {
        self.end(Ok((None, false))).await;
    }

    pub(crate) async fn fail(self) {
        self.end(Err(Refused("refused"))).await;
    }

    pub(crate) async fn fail_with(self, why: &'static str) {
        self.end(Err(Refused(why))).await;
    }

    async fn end(self, done: Done) {
        self.done.send(done).expect("the dial is still wanted");
        settle().await;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.done.is_closed()
    }
}

pub(crate) struct Check {
    done: oneshot::Sender<bool>,
}

impl Check {
    pub(crate) async fn end(self, good: bool) {
        self.done.send(good).expect("the validation is still wanted");
        settle().await;
    }
}

/// How dials behave: owned by the test, or ending by themselves.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Owned,
    At { capacity: Option<u32>, after: Duration },
}

pub(crate) struct Lab {
    dials: mpsc::UnboundedSender<Dial>,
    checks: mpsc::UnboundedSender<Check>,
    mode: Mode,
    hint: Option<u32>,
    numbers: AtomicU64,
    open: Arc<AtomicUsize>,
}

impl Connector for Lab {
    type Key = Key;
    type Connection = Wire;
    type Error = Refused;

    async fn connect(&self, key: &Key, slot: Slot<Self>) -> Result<Connected<Wire>, Refused> {
        let start = now();
        let (capacity, reusable) = match self.mode {
            Mode::At { capacity, after } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                (capacity, true)
            }
            Mode::Owned => {
                let (done, ended) = oneshot::channel();
                self.dials.send(Dial { key, slot: slot.clone(), done }).expect("the test owns the lab");
                ended.await.map_err(|_| Refused("the test dropped the dial"))??
            }
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let number = self.numbers.fetch_add(1, Ordering::SeqCst) + 1;
        let phases = DialPhases::default().with(DialPhase::Connect, now() - start);
        let connected = Connected::new(Wire { number, slot, open: Arc::clone(&self.open) });
        let connected = connected.reusable(reusable).phases(phases);
        Ok(match capacity {
            Some(capacity) => connected.capacity(capacity),
            None => connected,
        })
    }

    async fn validate(&self, _: &Key, _: &Wire) -> Result<(), Refused> {
        let (done, ended) = oneshot::channel();
        self.checks.send(Check { done }).expect("the test owns the lab");
        match ended.await {
            Ok(true) => Ok(()),
            _ => Err(Refused("stale")),
        }
    }

    fn side(&self, error: &Refused) -> Side {
        if error.0 == "emfile" { Side::Local } else { Side::Upstream }
    }

    fn kind(&self, error: &Refused) -> &'static str {
        error.0
    }

    fn capacity_hint(&self, _: &Key) -> Option<u32> {
        self.hint
    }

    fn keeps_idle(&self, key: &Key) -> bool {
        *key != "fallback"
    }
}

/// The test's side of the lab.
pub(crate) struct Bench {
    pub(crate) pool: Pool<Lab>,
    dials: mpsc::UnboundedReceiver<Dial>,
    checks: mpsc::UnboundedReceiver<Check>,
    open: Arc<AtomicUsize>,
}

pub(crate) type Acquired = Result<Lease<Lab>, AcquireError<Refused>>;

/// Options without chance: no backup dials, no pause after a failed dial, never unhealthy.
pub(crate) fn plain() -> Options {
    Options { backup_dial_after: None, backoff_min: Duration::ZERO, unhealthy_after: None, ..Options::default() }
}

pub(crate) fn build(mode: Mode, hint: Option<u32>, limits: Limits, options: Options) -> Bench {
    build_with(mode, hint, limits, options, |builder| builder)
}

pub(crate) fn build_with(
    mode: Mode,
    hint: Option<u32>,
    limits: Limits,
    options: Options,
    more: impl FnOnce(Builder<Lab>) -> Builder<Lab>,
) -> Bench {
    let (dials, owned_dials) = mpsc::unbounded_channel();
    let (checks, owned_checks) = mpsc::unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    let lab = Lab { dials, checks, mode, hint, numbers: AtomicU64::new(0), open: Arc::clone(&open) };
    let pool = more(Pool::builder(lab).limits(limits).options(options)).build();
    Bench { pool, dials: owned_dials, checks: owned_checks, open }
}

/// Exclusive connections, dials owned by the test.
pub(crate) fn exclusive(max: usize) -> Bench {
    build(Mode::Owned, Some(1), Limits::per_host(max), plain())
}

/// Exclusive connections that dial at once.
pub(crate) fn instant(max: usize) -> Bench {
    build(Mode::At { capacity: None, after: Duration::ZERO }, Some(1), Limits::per_host(max), plain())
}

/// Multiplexed connections of unknown capacity, dials owned by the test.
pub(crate) fn multiplexed(max: usize) -> Bench {
    build(Mode::Owned, None, Limits::per_host(max), plain())
}

/// Lets all tasks do what they can without time passing.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

impl Bench {
    pub(crate) async fn want_dial(&mut self) -> Dial {
        settle().await;
        self.dials.try_recv().expect("a dial")
    }

    pub(crate) async fn want_dials(&mut self, n: usize) -> Vec<Dial> {
        let mut dials = Vec::new();
        for _ in 0..n {
            dials.push(self.want_dial().await);
        }
        self.want_no_dial().await;
        dials
    }

    pub(crate) async fn want_no_dial(&mut self) {
        settle().await;
        assert!(self.dials.try_recv().is_err(), "a dial that nobody needs");
    }

    pub(crate) async fn want_check(&mut self) -> Check {
        settle().await;
        self.checks.try_recv().expect("a validation")
    }

    pub(crate) async fn want_no_check(&mut self) {
        settle().await;
        assert!(self.checks.try_recv().is_err(), "a validation that is not due");
    }

    /// Asserts how many connections exist, in the pool and out of it.
    pub(crate) async fn want_open(&self, n: usize) {
        settle().await;
        assert_eq!(self.open.load(Ordering::SeqCst), n, "connections that exist");
    }

    pub(crate) fn acquire(&self, key: Key) -> JoinHandle<Acquired> {
        let pool = self.pool.clone();
        tokio::spawn(async move { pool.acquire(&key).await })
    }

    pub(crate) async fn queued(&self, key: Key) -> JoinHandle<Acquired> {
        let task = self.acquire(key);
        settle().await;
        task
    }

    pub(crate) async fn get(&self, key: Key) -> Lease<Lab> {
        self.pool.acquire(&key).await.expect("a lease")
    }

    /// Acquires by a dial of its own.
    pub(crate) async fn dialled(&mut self, key: Key) -> Lease<Lab> {
        let task = self.queued(key).await;
        self.want_dial().await.ok().await;
        done(task).await
    }

    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.pool.stats().counters.closed(reason)
    }
}

pub(crate) async fn done(task: JoinHandle<Acquired>) -> Lease<Lab> {
    settle().await;
    assert!(task.is_finished(), "the acquire is done");
    task.await.expect("no panic").expect("a lease")
}

pub(crate) async fn failed(task: JoinHandle<Acquired>) -> AcquireError<Refused> {
    settle().await;
    assert!(task.is_finished(), "the acquire is done");
    task.await.expect("no panic").expect_err("an error")
}

pub(crate) async fn want_waiting(task: &JoinHandle<Acquired>) {
    settle().await;
    assert!(!task.is_finished(), "the acquire waits");
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

pub(crate) fn kinds(events: &mut broadcast::Receiver<Event<Key>>) -> Vec<EventKind> {
    std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind).collect()
}
