//! The proxy: listeners, workers, pools, and their orderly end.
//!
//! A [`Server`] runs one thread a worker. Each worker has its own listeners (SO_REUSEPORT), its own upstream UDP sockets
//! and its own queries in flight; connections with a stream are shared by all workers through one pool.

mod access;
mod bind;
mod events;
mod flight;
mod inbox;
mod network;
mod pools;
mod route;
mod status;
mod tcp;
mod trace;
mod udp;
mod worker;

pub use events::{PoolEvent, PoolEvents};
pub use status::{PoolStatus, ServerStatus};
pub use trace::{AttemptTrace, DialTrace, ExchangeTrace, Trace};

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

use keepwarm_pool::Pool;
use keepwarm_transport::{
    error::{Error as TransportError, ErrorKind as TransportKind},
    resolve::{Resolve, SystemResolver},
    tls::RootsError,
};
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::LocalSet,
    time::Instant as Clock,
};

use crate::{
    cache::Cache,
    config::{DnsConfig, Listen, Transport},
    message,
    upstream::{BootstrapResolver, DnsConnector, EndpointKey, Upstream},
};
use access::Access;
use bind::{Sockets, bind};
use inbox::{Address, Event};
use pools::{datagram_pool, stream_pool};
use route::{Path, Route};
use worker::Worker;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: DnsConfig,
    pub(crate) workers: usize,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) streams: Pool<DnsConnector>,
    /// One a worker.
    pub(crate) datagrams: Vec<Pool<DnsConnector>>,
    pub(crate) access: Arc<Access>,
    pub(crate) cache: Option<Cache>,
    pub(crate) counters: Counters,
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
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) cache_stale: AtomicU64,
    pub(crate) cache_prefetches: AtomicU64,
    pub(crate) network_changes: AtomicU64,
}

/// A running DNS proxy.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<Address>,
    threads: Vec<thread::JoinHandle<()>>,
    listening: Vec<Listen>,
    in_flight: Arc<AtomicUsize>,
    events: Mutex<Option<PoolEvents>>,
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    Listen(TransportError),
    /// The trust roots cannot be loaded.
    Roots(RootsError),
    /// A limit of the pool contradicts another.
    Limits(keepwarm_pool::LimitsError),
    /// A thread or runtime cannot be had.
    Runtime(io::Error),
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
            StartError::Limits(error) => write!(f, "limits of the pool: {error}"),
            StartError::Runtime(error) => write!(f, "start a worker: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(error) => Some(error),
            StartError::Runtime(source) => Some(source),
            StartError::Roots(error) => Some(error),
            StartError::Limits(error) => Some(error),
        }
    }
}

impl Server {
    /// Binds every address, then starts the workers. Nothing runs when this fails.
    pub fn start(config: DnsConfig) -> Result<Server, StartError> {
        let available = thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { available } else { config.workers };
        let resolver: Arc<dyn Resolve> = if config.bootstrap.is_empty() {
            Arc::new(SystemResolver::default())
        } else {
            Arc::new(BootstrapResolver::new(&config.bootstrap))
        };
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| Upstream::new(upstream, &config, &resolver))
            .collect::<Result<Vec<_>, _>>()
            .map_err(StartError::Roots)?;
        let mut runtimes = Runtimes(Vec::new());
        for _ in 0..workers {
            runtimes.0.push(Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?);
        }
        let (sockets, listening) = bind(&config.listen, &runtimes.0)?;
        let handles: Vec<Handle> = runtimes.0.iter().map(|runtime| runtime.handle().clone()).collect();
        let shared = Arc::new(Shared {
            streams: stream_pool(&config, handles.clone())?,
            datagrams: handles
                .iter()
                .map(|handle| datagram_pool(&config, workers, handle))
                .collect::<Result<_, _>>()?,
            cache: Cache::new(&config.cache, workers, rand::random()),
            access: Access::new(config.allow.clone(), config.clients.clone()),
            config,
            workers,
            upstreams,
            counters: Counters::default(),
        });
        let events = Mutex::new(Some(PoolEvents::of(&shared)));
        let addresses: Vec<Address> = (0..workers).map(|_| Address::new()).collect();
        // One for each worker that has not said yet how many queries it has; read when stopping.
        let in_flight = Arc::new(AtomicUsize::new(workers));
        let mut threads = Vec::new();
        for (number, (runtime, sockets)) in runtimes.0.drain(..).zip(sockets).enumerate() {
            let (shared, address, in_flight) = (shared.clone(), addresses[number].clone(), in_flight.clone());
            if number == 0 {
                runtime.spawn(network::watch(shared.clone(), addresses.clone()));
            }
            let thread = thread::Builder::new()
                .name(format!("dns-{number}"))
                .spawn(move || run_worker(&runtime, number, shared, address, sockets, &in_flight));
            threads.push(thread.map_err(StartError::Runtime)?);
        }
        Ok(Server { shared, addresses, threads, listening, in_flight, events })
    }

    /// Gives up what may have died with the network: to be called when addresses or routes changed and the server has not
    /// noticed by itself, as it does on Linux at once and elsewhere within a second.
    pub fn network_changed(&self) {
        self.shared.network_changed(&self.addresses);
    }

    /// Where clients come in, with the ports that the system chose.
    pub fn listening(&self) -> &[Listen] {
        &self.listening
    }

    /// Asks like a client and tells how the answer came about. `None` when the name or the server is at its end.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the query to end by itself.
    pub async fn query(&self, name: &str, qtype: u16) -> Option<Trace> {
        let mut query = message::build_query(name, qtype)?;
        query[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
        let (answer, receiver) = oneshot::channel();
        self.addresses[0].inbox.push(Event::Ask { query, answer });
        receiver.await.ok()
    }

    /// Forgets answers: those to every question about `name` (presentation form, any case), or all of them. Returns how
    /// many; `None` when `name` is no valid name.
    pub fn flush_cache(&self, name: Option<&str>) -> Option<usize> {
        let name = name.map(|name| message::name_from_text(name).ok_or(())).transpose().ok()?;
        Some(self.shared.cache.as_ref().map_or(0, |cache| cache.flush(name.as_deref())))
    }

    /// Connects `min_idle` connections to each upstream, ahead of the first query. Failures are the log's and the status's.
    ///
    /// # Cancel safety
    /// Dials that have begun go on.
    pub async fn warm_up(&self) {
        let idle = self.shared.config.pool.min_idle;
        let mut dials = Vec::new();
        for upstream in &self.shared.upstreams {
            if upstream.main.transport != Transport::Udp {
                let (pool, key) = (self.shared.streams.clone(), EndpointKey::new(&upstream.main, None));
                dials.push(tokio::spawn(async move { drop(pool.warm_up(&key, idle).await) }));
            }
        }
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
        for address in &self.addresses {
            address.inbox.push(Event::StopListening);
        }
        while self.in_flight.load(Ordering::Acquire) > 0 && Clock::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let cut = self.in_flight.load(Ordering::Acquire);
        let pools = self.shared.datagrams.iter().chain(std::iter::once(&self.shared.streams));
        for pool in pools {
            pool.drain(deadline.into_std()).await;
        }
        for address in &self.addresses {
            address.inbox.push(Event::Exit);
        }
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        cut
    }
}

/// A worker's life.
fn run_worker(
    runtime: &Runtime,
    number: usize,
    shared: Arc<Shared>,
    address: Address,
    sockets: Vec<Sockets>,
    in_flight: &Arc<AtomicUsize>,
) {
    let local = LocalSet::new();
    local.block_on(runtime, async {
        let routes = shared
            .upstreams
            .iter()
            .map(|upstream| {
                let path = |endpoint: &Arc<crate::upstream::Endpoint>| {
                    let udp = endpoint.transport == Transport::Udp;
                    let pool = if udp { &shared.datagrams[number] } else { &shared.streams };
                    Path::new(endpoint, pool, udp.then_some(number))
                };
                Route { main: path(&upstream.main), tcp: upstream.tcp.as_ref().map(path) }
            })
            .collect();
        let worker = Worker::new(shared, routes, address);
        for Sockets { udp, tcp } in sockets {
            if let Some(socket) = udp.and_then(|socket| tokio::net::UdpSocket::from_std(socket).ok()) {
                let listener = udp::Listener::new(socket, &worker.outbox);
                let reader = tokio::task::spawn_local(udp::read_clients(worker.clone(), listener));
                worker.readers.borrow_mut().push(reader.abort_handle());
            }
            if let Some(listener) = tcp.and_then(|listener| tokio::net::TcpListener::from_std(listener).ok()) {
                tokio::task::spawn_local(tcp::accept(worker.clone(), listener));
            }
        }
        tokio::task::spawn_local(udp::send_queued(worker.clone()));
        tokio::task::spawn_local(keep_time(worker.clone()));
        read_inbox(worker, in_flight).await;
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

/// How often the drain looks whether it is over.
const DRAIN_POLL: Duration = Duration::from_millis(5);
