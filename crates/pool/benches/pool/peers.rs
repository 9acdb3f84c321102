//! Each pool behind one trait, in the fastest configuration it documents: no check on checkout, room to keep every connection idle.
//!
//! Not here: load. The connections are dummies, so that what is timed is the pool alone.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use keepwarm_pool::{Connected, Connector, Host, Lease, Limits, Options, Pool, Slot};
use tower_service::Service;

/// A pool of at most `size` connections.
pub(crate) trait Peer: Clone + Send + 'static {
    type Lease<'a>: Send
    where
        Self: 'a;

    /// Whether the pool has a limit at which an acquire waits.
    const WAITS: bool = true;

    fn acquire(&mut self) -> impl Future<Output = Self::Lease<'_>> + Send;
}

/// What the dials of a pool do: nothing, or take their time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dials(Arc<AtomicU64>);

impl Dials {
    /// Makes the dials from now on take this long.
    pub(crate) fn take(&self, delay: Duration) {
        self.0.store(u64::try_from(delay.as_micros()).expect("a short delay"), Ordering::Relaxed);
    }

    async fn dial(&self) -> Dummy {
        let delay = Duration::from_micros(self.0.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Dummy
    }
}

/// A connection to nowhere.
#[derive(Debug)]
pub(crate) struct Dummy;

/// Opens `n` connections, all of them idle at the end.
pub(crate) async fn warm<P: Peer>(peer: &P, n: usize) {
    let mut clones = vec![peer.clone(); n];
    let mut leases = Vec::new();
    for clone in &mut clones {
        leases.push(clone.acquire().await);
    }
    drop(leases);
    // Some pools take a connection back in a task.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

// --- ours

impl Connector for Dials {
    type Key = Key;
    type Connection = Dummy;
    type Error = Infallible;

    async fn connect(&self, _: &Key, _: Slot<Self>) -> Result<Connected<Dummy>, Infallible> {
        Ok(Connected::new(self.dial().await))
    }

    fn capacity_hint(&self, _: &Key) -> Option<u32> {
        Some(1)
    }
}

/// A key as a daemon has it; the look-up hashes and compares all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    transport: &'static str,
    name: String,
    port: u16,
}

impl Key {
    fn new(n: usize) -> Self {
        Self { transport: "tls", name: format!("resolver-{n}.example.net"), port: 853 }
    }
}

/// Ours through a host handle.
#[derive(Clone)]
pub(crate) struct OursByHandle(Host<Dials>);

impl OursByHandle {
    pub(crate) fn new(size: usize, dials: Dials, statistics: bool) -> Self {
        Self(ours(size, dials, statistics).host(&Key::new(0)))
    }
}

impl Peer for OursByHandle {
    type Lease<'a> = Lease<Dials>;

    async fn acquire(&mut self) -> Lease<Dials> {
        self.0.acquire().await.expect("dials never fail")
    }
}

/// Ours with a look-up of the key, in a pool that knows 64 keys.
#[derive(Clone)]
pub(crate) struct OursByKey {
    pool: Pool<Dials>,
    key: Key,
    /// Handles keep the other hosts known.
    _others: Arc<[Host<Dials>]>,
}

impl OursByKey {
    pub(crate) fn new(size: usize, dials: Dials, statistics: bool) -> Self {
        let pool = ours(size, dials, statistics);
        let others = (1..64).map(|n| pool.host(&Key::new(n))).collect();
        Self { pool, key: Key::new(0), _others: others }
    }
}

impl Peer for OursByKey {
    type Lease<'a> = Lease<Dials>;

    async fn acquire(&mut self) -> Lease<Dials> {
        self.pool.acquire(&self.key).await.expect("dials never fail")
    }
}

fn ours(size: usize, dials: Dials, statistics: bool) -> Pool<Dials> {
    Pool::builder(dials).limits(Limits::per_host(size)).options(Options { statistics, ..Options::default() }).build()
}

// --- deadpool

/// deadpool; without a time-out unless asked, as its default is.
#[derive(Clone)]
pub(crate) struct Deadpool(deadpool::managed::Pool<Dials>);

impl Deadpool {
    pub(crate) fn new(size: usize, dials: Dials, wait: Option<Duration>) -> Self {
        let builder = deadpool::managed::Pool::builder(dials).max_size(size).wait_timeout(wait);
        Self(builder.runtime(deadpool::Runtime::Tokio1).build().expect("a runtime is given"))
    }
}

impl deadpool::managed::Manager for Dials {
    type Type = Dummy;
    type Error = Infallible;

    async fn create(&self) -> Result<Dummy, Infallible> {
        Ok(self.dial().await)
    }

    async fn recycle(
        &self,
        _: &mut Dummy,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl Peer for Deadpool {
    type Lease<'a> = deadpool::managed::Object<Dials>;

    async fn acquire(&mut self) -> Self::Lease<'_> {
        self.0.get().await.expect("dials never fail")
    }
}

// --- bb8

/// bb8, borrowing the pool rather than cloning it for each lease.
#[derive(Clone)]
pub(crate) struct Bb8(bb8::Pool<Dials>);

impl Bb8 {
    pub(crate) fn new(size: usize, dials: Dials) -> Self {
        let size = u32::try_from(size).expect("a small pool");
        Self(bb8::Pool::builder().max_size(size).test_on_check_out(false).build_unchecked(dials))
    }
}

impl bb8::ManageConnection for Dials {
    type Connection = Dummy;
    type Error = Infallible;

    async fn connect(&self) -> Result<Dummy, Infallible> {
        Ok(self.dial().await)
    }

    async fn is_valid(&self, _: &mut Dummy) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Dummy) -> bool {
        false
    }
}

impl Peer for Bb8 {
    type Lease<'a> = bb8::PooledConnection<'a, Dials>;

    async fn acquire(&mut self) -> Self::Lease<'_> {
        self.0.get().await.expect("dials never fail")
    }
}

// --- mobc

/// mobc.
#[derive(Clone)]
pub(crate) struct Mobc(mobc::Pool<Dials>);

impl Mobc {
    pub(crate) fn new(size: usize, dials: Dials) -> Self {
        let size = size as u64;
        Self(mobc::Pool::builder().max_open(size).max_idle(size).test_on_check_out(false).build(dials))
    }
}

#[mobc::async_trait]
impl mobc::Manager for Dials {
    type Connection = Dummy;
    type Error = Infallible;

    async fn connect(&self) -> Result<Dummy, Infallible> {
        Ok(self.dial().await)
    }

    async fn check(&self, connection: Dummy) -> Result<Dummy, Infallible> {
        Ok(connection)
    }
}

impl Peer for Mobc {
    type Lease<'a> = mobc::Connection<Dials>;

    async fn acquire(&mut self) -> Self::Lease<'_> {
        self.0.get().await.expect("dials never fail")
    }
}

// --- hyper-util

/// hyper-util's `client::pool::cache`. It has no limit: when nothing is idle it dials.
#[derive(Clone)]
pub(crate) struct HyperCache<S>(S);

impl HyperCache<()> {
    pub(crate) fn build(dials: Dials) -> impl Peer {
        let executor = hyper_util::rt::TokioExecutor::new();
        HyperCache(hyper_util::client::pool::cache::builder().executor(executor).build(Dialler(dials)))
    }
}

impl<S> Peer for HyperCache<S>
where
    S: Service<(), Response: Send, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Lease<'a> = S::Response;

    const WAITS: bool = false;

    async fn acquire(&mut self) -> S::Response {
        let Ok(()) = std::future::poll_fn(|cx| self.0.poll_ready(cx)).await;
        let Ok(lease) = self.0.call(()).await;
        lease
    }
}

/// Dials as a tower service.
#[derive(Clone)]
struct Dialler(Dials);

impl Service<()> for Dialler {
    type Response = Dummy;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Dummy, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let dials = self.0.clone();
        Box::pin(async move { Ok(dials.dial().await) })
    }
}
