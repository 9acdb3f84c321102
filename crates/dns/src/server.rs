//! The proxy: listeners, workers, pools, and their orderly end.
//!
//! A [`Server`] runs one thread a worker. Each worker has its own listeners (SO_REUSEPORT), its own upstream UDP sockets
//! and its own queries in flight; connections with a stream are shared by all workers through one pool.

mod access;
mod alive;
mod bind;
mod discovery;
pub mod doh;
pub(crate) mod doq;
mod entrance;
mod era;
mod events;
mod flight;
mod h3;
mod https;
mod inbox;
mod limit;
mod local;
mod network;
mod pools;
pub(crate) mod proxy;
mod query_log;
mod quic;
mod recent;
mod reload;
mod resolver;
mod route;
mod setup;
mod status;
mod tcp;
mod tls;
mod trace;
mod udp;
mod worker;

pub use bind::ListenSocket;
pub use events::{PoolEvent, PoolEvents};
pub use local::LocalError;
pub(crate) use pools::Pools;
pub use query_log::QueryLogError;
pub use recent::RecentQuery;
pub use reload::Prepared;
pub use resolver::ServerResolver;
pub use status::{DdrStatus, PoolStatus, ServerStatus};
pub use trace::{
    AttemptTrace, CacheVerdict, CandidateTrace, ConnectionTrace, DialTrace, ExchangeTrace, Explanation, HedgeVerdict,
    NO_ANSWER, Trace, Why,
};

use std::{
    fmt, io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use keepwarm_pool::Tally;
use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind},
    tls::{CertificateError, RootsError},
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::LocalSet,
    time::Instant as Clock,
};

use crate::{
    config::{DnsConfig, Listen, Transport},
    local::Local,
    message,
    strategy::groups::GroupFault,
    upstream::EndpointKey,
};
use bind::{Binding, Bound, Sockets, bind};
use inbox::{Address, Event};
use local::Watch;
use query_log::LogThread;
use recent::Recent;
use setup::Setup;
use worker::Worker;

/// What all workers share, as long as the server runs.
pub(crate) struct Shared {
    pub(crate) workers: usize,
    pub(crate) pools: Pools,
    pub(crate) counters: Counters,
    recent: Recent,
    /// How long queries took, as each worker saw it.
    durations: Vec<Tally>,
    /// The workers' runtimes.
    handles: Vec<Handle>,
    addresses: Vec<Address>,
    /// What the config makes of it. Workers have it from their inbox, and do not look here.
    setup: RwLock<Arc<Setup>>,
    running: Mutex<Running>,
    /// Whose turn it is to change the config.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What runs beside the workers.
struct Running {
    /// Where clients come in.
    bound: Vec<Bound>,
    /// Looks for changes of hosts files.
    watch: Watch,
    /// Which of the names that were answered here these are.
    local_number: u64,
    log_thread: Option<LogThread>,
}

impl Running {
    fn end(&mut self) -> (Watch, Option<LogThread>) {
        (std::mem::take(&mut self.watch), self.log_thread.take())
    }
}

impl Shared {
    /// What the config makes of the server. To be let go of soon: connections that are no longer wanted wait for it.
    pub(crate) fn setup(&self) -> Arc<Setup> {
        self.setup.read().clone()
    }

    fn put(&self, setup: Arc<Setup>) {
        let old = std::mem::replace(&mut *self.setup.write(), setup);
        // Not under the lock.
        drop(old);
    }
}

/// Totals of the server.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) queries: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) coalesced: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) wrong_answers: AtomicU64,
    pub(crate) local_errors: AtomicU64,
    pub(crate) tcp_rejected: AtomicU64,
    pub(crate) rate_limited: AtomicU64,
    pub(crate) client_limited: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) cache_stale: AtomicU64,
    pub(crate) cache_prefetches: AtomicU64,
    pub(crate) local_answers: AtomicU64,
    pub(crate) hedges_sent: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
    pub(crate) hedges_denied: AtomicU64,
    pub(crate) network_changes: AtomicU64,
}

/// A running DNS proxy.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
    in_flight: Arc<AtomicUsize>,
    events: Mutex<Option<PoolEvents>>,
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    Listen(TransportError),
    /// A socket was passed in that no listener names: its address and protocol.
    PassedSocket(String),
    /// The trust roots cannot be loaded.
    Roots(RootsError),
    /// This listener is encrypted, and there is no certificate to show.
    NoCertificate(Listen),
    /// The certificate of the encrypted listeners cannot be used.
    Certificate(CertificateError),
    /// A limit of the pool contradicts another.
    Limits(keepwarm_pool::LimitsError),
    /// The names to answer here cannot be had.
    Local(LocalError),
    /// The query log cannot be had.
    QueryLog(QueryLogError),
    /// A thread or runtime cannot be had.
    Runtime(io::Error),
    /// A route or the fallback leads nowhere.
    Groups(GroupFault),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(error) => {
                write!(f, "{error}")?;
                f.write_str(match error.kind() {
                    TransportKind::AddressInUse => {
                        "; another program has this port: stop it, or choose another address under dns.listen"
                    }
                    TransportKind::Denied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                    TransportKind::PortsExhausted => "; this machine does not have that address",
                    _ => "",
                })
            }
            StartError::Roots(error) => write!(f, "load the trust roots: {error}"),
            StartError::PassedSocket(socket) => write!(
                f,
                "socket activation passed {socket}, which no listener is for: \
                 name it under dns.listen, or take it out of the socket unit"
            ),
            StartError::NoCertificate(listen) => {
                let scheme = listen.transport.as_str();
                write!(f, "listen on {scheme}://{}: no certificate; name its files under dns.tls", listen.address)
            }
            StartError::Certificate(error) => write!(f, "certificate of the listeners (dns.tls): {error}"),
            StartError::Limits(error) => write!(f, "limits of the pool: {error}"),
            StartError::Local(error) => error.fmt(f),
            StartError::QueryLog(error) => error.fmt(f),
            StartError::Runtime(error) => write!(f, "start a worker: {error}"),
            StartError::Groups(fault) => write!(f, "groups of upstreams: {fault}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(error) => Some(error),
            StartError::Runtime(source) => Some(source),
            StartError::Roots(error) => Some(error),
            StartError::Certificate(error) => Some(error),
            StartError::Limits(error) => Some(error),
            StartError::Local(error) => error.source(),
            StartError::QueryLog(error) => error.source(),
            StartError::PassedSocket(_) | StartError::NoCertificate(_) | StartError::Groups(_) => None,
        }
    }
}

impl Server {
    /// Binds every address, then starts the workers. Nothing runs when this fails.
    pub fn start(config: DnsConfig) -> Result<Server, StartError> {
        Server::start_with(config, Vec::new())
    }

    /// As [`start`](Self::start), with sockets that are bound already, as systemd passes them. One whose address and protocol
    /// a listener names is used in place of a new one; one that no listener names is an error, for its clients would wait
    /// for ever.
    pub fn start_with(config: DnsConfig, sockets: Vec<ListenSocket>) -> Result<Server, StartError> {
        let available = thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { available } else { config.workers };
        let mut runtimes = Runtimes(Vec::new());
        for _ in 0..workers {
            runtimes.0.push(Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?);
        }
        let handles: Vec<Handle> = runtimes.0.iter().map(|runtime| runtime.handle().clone()).collect();
        let pools = Pools::new(&config, &handles)?;
        let (mut setup, log_thread) = Setup::new(config, &pools, None)?;
        let (local, files) = local::load(&setup.config)?;
        let Binding { sockets, bound } = bind(&setup.config.listen, sockets, &handles)?;
        let listening: Vec<_> = bound.iter().map(|bound| bound.listen.clone()).collect();
        setup.alt_svc = https::alternative(&listening);
        let addresses: Vec<Address> = (0..workers).map(|_| Address::new()).collect();
        let watch = Watch::start(files, 0, local.clone(), addresses.clone()).map_err(StartError::Runtime)?;
        watch.begin();
        let setup = Arc::new(setup);
        let shared = Arc::new(Shared {
            workers,
            pools,
            counters: Counters::default(),
            recent: Recent::new(setup.config.query_log.privacy),
            durations: (0..workers).map(|_| Tally::default()).collect(),
            handles,
            addresses,
            setup: RwLock::new(setup.clone()),
            running: Mutex::new(Running { bound, watch, local_number: 0, log_thread }),
            turn: Arc::default(),
        });
        let events = Mutex::new(Some(PoolEvents::of(&shared)));
        setup.upstreams.iter().for_each(|upstream| discovery::start(&shared, upstream, &setup, &shared.addresses));
        if let Some(encryption) = &setup.encryption {
            encryption.watch(&shared.handles[0]);
        }
        drop(setup);
        shared.handles[0].spawn(network::watch(shared.clone(), shared.addresses.clone()));
        // One for each worker that has not said yet how many queries it has; read when stopping.
        let in_flight = Arc::new(AtomicUsize::new(workers));
        let mut threads = Vec::new();
        for (number, (runtime, sockets)) in runtimes.0.drain(..).zip(sockets).enumerate() {
            let (shared, in_flight, local) = (shared.clone(), in_flight.clone(), local.clone());
            let thread = thread::Builder::new()
                .name(format!("dns-{number}"))
                .spawn(move || run_worker(&runtime, number, shared, local, sockets, &in_flight));
            threads.push(thread.map_err(StartError::Runtime)?);
        }
        Ok(Server { shared, threads, in_flight, events })
    }

    /// Gives up what may have died with the network: to be called when addresses or routes changed and the server has not
    /// noticed by itself, as it does on Linux at once and elsewhere within a second.
    pub fn network_changed(&self) {
        self.shared.network_changed(&self.shared.addresses);
    }

    /// Where clients come in, with the ports that the system chose.
    pub fn listening(&self) -> Vec<Listen> {
        self.shared.running.lock().bound.iter().map(|bound| bound.listen.clone()).collect()
    }

    /// Asks like a client and tells how the answer came about. `None` when the name or the server is at its end.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the query to end by itself.
    pub async fn query(&self, name: &str, qtype: u16) -> Option<Trace> {
        let mut query = message::build_query(name, qtype)?;
        query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
        let (answer, receiver) = oneshot::channel();
        let asked = Clock::now();
        self.shared.addresses[0].inbox.push(Event::Ask { query, answer });
        let mut trace = receiver.await.ok()?;
        // What is answered at once takes no time on the worker's clock.
        if trace.total.is_zero() {
            trace.total = asked.elapsed();
        }
        Some(trace)
    }

    /// A resolver that asks this server, as the daemon itself. It may outlive the server: it then finds nothing.
    pub fn resolver(&self) -> ServerResolver {
        ServerResolver::new(&self.shared.addresses[0].inbox, self.shared.setup().config.timeout)
    }

    /// Forgets answers: those to every question about `name` (presentation form, any case), or all of them. Returns how
    /// many; `None` when `name` is no valid name.
    pub fn flush_cache(&self, name: Option<&str>) -> Option<usize> {
        let name = name.map(|name| message::name_from_text(name).ok_or(())).transpose().ok()?;
        Some(self.shared.setup().cache.as_ref().map_or(0, |cache| cache.flush(name.as_deref())))
    }

    /// Connects `min_idle` connections to each upstream, ahead of the first query. Failures are the log's and the status's.
    ///
    /// # Cancel safety
    /// Dials that have begun go on.
    pub async fn warm_up(&self) {
        let setup = self.shared.setup();
        let idle = setup.config.pool.min_idle;
        let mut dials = Vec::new();
        for upstream in &setup.upstreams {
            if upstream.main.transport != Transport::Udp {
                let (pool, key) = (self.shared.pools.streams.clone(), EndpointKey::new(&upstream.main, None));
                dials.push(tokio::spawn(async move { drop(pool.warm_up(&key, idle).await) }));
            }
        }
        drop(setup);
        for dial in dials {
            let _ = dial.await;
        }
    }

    /// Stops listening, lets queries in flight end, closes every connection, and joins the workers, within `patience`.
    /// Returns the number of queries that were cut off.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped future leaves the workers running.
    pub async fn stop(self, patience: Duration) -> usize {
        let deadline = Clock::now() + patience;
        for address in &self.shared.addresses {
            address.inbox.push(Event::StopListening);
        }
        while self.in_flight.load(Ordering::Acquire) > 0 && Clock::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let cut = self.in_flight.load(Ordering::Acquire);
        // What is still out there is for nobody: clients that have gone, races that are lost.
        let deadline = deadline.min(Clock::now() + LINGER);
        for pool in self.shared.pools.all() {
            pool.drain(deadline.into_std()).await;
        }
        for address in &self.shared.addresses {
            address.inbox.push(Event::Exit);
        }
        let Server { shared, threads, .. } = self;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let _ = joined.await;
        let (watch, log_thread) = shared.running.lock().end();
        let _ = tokio::task::spawn_blocking(move || drop(watch)).await;
        let setup = shared.setup();
        if let (Some(log), Some(thread)) = (&setup.query_log, log_thread) {
            log.close();
            thread.wait(LOG_PATIENCE).await;
        }
        cut
    }
}

/// A worker's life.
fn run_worker(
    runtime: &Runtime,
    number: usize,
    shared: Arc<Shared>,
    names: Local,
    sockets: Vec<Sockets>,
    in_flight: &Arc<AtomicUsize>,
) {
    let local = LocalSet::new();
    local.block_on(runtime, async {
        let address = shared.addresses[number].clone();
        let worker = Worker::new(shared, number, names, address);
        worker.listen(sockets);
        tokio::task::spawn_local(udp::send_queued(worker.clone()));
        tokio::task::spawn_local(keep_time(worker.clone()));
        read_inbox(worker.clone(), in_flight).await;
        quic::close(&worker.quic_listeners()).await;
    });
}

/// Handles events until told to leave.
async fn read_inbox(worker: Rc<Worker>, in_flight: &AtomicUsize) {
    let inbox = worker.address.inbox.clone();
    let mut events = Vec::new();
    let mut counted = 0;
    let mut stopping = false;
    loop {
        if stopping {
            // Until the end others want to know how much there is still to wait for.
            let _ = tokio::time::timeout(DRAIN_POLL, inbox.take(&mut events)).await;
        } else {
            inbox.take(&mut events).await;
        }
        let now = Clock::now().into_std();
        for (number, event) in events.drain(..).enumerate() {
            if number % FLUSH_AFTER == FLUSH_AFTER - 1 {
                worker.flush();
            }
            if matches!(event, Event::StopListening) && !stopping {
                stopping = true;
                counted = worker.in_flight();
                in_flight.fetch_add(counted, Ordering::AcqRel);
                in_flight.fetch_sub(1, Ordering::AcqRel);
            }
            if !worker.handle(event, now) {
                worker.flush();
                return;
            }
        }
        if stopping {
            let left = worker.in_flight();
            in_flight.fetch_sub(counted - left.min(counted), Ordering::AcqRel);
            counted = left.min(counted);
        }
    }
}

/// Moves the timer wheel while anything is in flight.
async fn keep_time(worker: Rc<Worker>) {
    loop {
        match worker.tick(Clock::now().into_std()) {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(Clock::from_std(next)) => {}
                () = worker.sooner.notified() => {}
            },
            None => worker.sooner.notified().await,
        }
    }
}

/// Runtimes that were not handed to their threads. Dropping a runtime waits, which the caller's runtime forbids.
struct Runtimes(Vec<Runtime>);

impl Drop for Runtimes {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Runtime::shutdown_background);
    }
}

/// Events whose datagrams may wait for those of later ones.
const FLUSH_AFTER: usize = 256;

/// For how long the query log's disk may take when the server stops.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// For how long connections may close in order when nobody waits for them any more.
const LINGER: Duration = Duration::from_millis(100);

/// How often the drain looks whether it is over.
const DRAIN_POLL: Duration = Duration::from_millis(5);
