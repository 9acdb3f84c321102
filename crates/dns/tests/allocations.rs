//! What a query takes from the heap of the thread that serves it: nothing, once the server has warmed up.
//!
//! A program of its own, because all of it runs on the counting allocator. Counted are the threads of the server alone; lab
//! and client have others. `KEEPWARM_ALLOCATIONS=1` shows where allocations come from.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests; figures are said")]

use std::{
    alloc::System,
    backtrace::Backtrace,
    cell::Cell,
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use keepwarm_dns::{
    config::{CacheSettings, DnsConfig, Listen, ListenTransport, Strategy, Transport, UpstreamConfig},
    server::Server,
};
use keepwarm_lab::{Lab, LabSpec, answer_matches, build_query};
use tracking_allocator::{AllocationGroupId, AllocationRegistry, AllocationTracker, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// Counts while `COUNTING`, on threads named `dns-*`.
struct Counter;

static COUNTING: AtomicBool = AtomicBool::new(false);
static TRACING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static TRACES: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

thread_local! {
    /// Whether this is a thread of the server, once that is known.
    static SERVES: Cell<Option<bool>> = const { Cell::new(None) };
}

impl AllocationTracker for Counter {
    fn allocated(&self, _: usize, _: usize, _: usize, _: AllocationGroupId) {
        if !COUNTING.load(Relaxed) {
            return;
        }
        let serves = SERVES.get().unwrap_or_else(|| {
            let serves = thread::current().name().is_some_and(|name| name.starts_with("dns-"));
            SERVES.set(Some(serves));
            serves
        });
        if serves {
            ALLOCATIONS.fetch_add(1, Relaxed);
            if TRACING.load(Relaxed) {
                let trace = own_frames(&Backtrace::force_capture().to_string());
                *TRACES.lock().unwrap().get_or_insert_default().entry(trace).or_default() += 1;
            }
        }
    }

    fn deallocated(&self, _: usize, _: usize, _: usize, _: AllocationGroupId, _: AllocationGroupId) {}
}

/// The places of a backtrace that are the project's own, innermost first.
fn own_frames(trace: &str) -> String {
    let places = trace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    // Those of this package are relative to it.
    let own = places.filter_map(|place| place.strip_prefix("./").or_else(|| Some(place.split_once("/crates/")?.1)));
    own.filter(|place| place.contains("src/")).take(6).collect::<Vec<_>>().join(" < ")
}

/// Allocations of the server's threads while `work` runs. One test at a time counts.
fn allocations(work: impl FnOnce()) -> usize {
    ALLOCATIONS.store(0, Relaxed);
    COUNTING.store(true, Relaxed);
    work();
    COUNTING.store(false, Relaxed);
    ALLOCATIONS.load(Relaxed)
}

fn config(lab: &Lab, transport: Transport, cache: usize) -> DnsConfig {
    let address = if transport == Transport::Udp { lab.udp_addr() } else { lab.tcp_addr() };
    DnsConfig {
        listen: vec![Listen::new((Ipv4Addr::LOCALHOST, 0).into(), ListenTransport::Udp)],
        strategy: Strategy::Sequential,
        cache: CacheSettings { size: cache, ..CacheSettings::default() },
        upstreams: vec![UpstreamConfig::new("lab", transport, &address.ip().to_string(), address.port())],
        workers: 1,
        max_connections: 64,
        ..DnsConfig::default()
    }
}

/// Asks `count` queries, a window at a time, and checks each answer. Unique names of one length, from `first` on; or, with
/// `hot`, so many names again and again.
fn ask(server: SocketAddr, first: usize, count: usize, hot: usize) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let mut buffer = [0; 1232];
    for start in (first..first + count).step_by(WINDOW) {
        let mut waiting = HashMap::new();
        for number in start..(start + WINDOW).min(first + count) {
            let id = u16::try_from(number % 50_000).unwrap();
            let query = build_query(id, &format!("q{:08}.example", number % hot), 1, Some(1232));
            socket.send(&query).unwrap();
            waiting.insert(query[..2].to_vec(), query);
        }
        while !waiting.is_empty() {
            let length = socket.recv(&mut buffer).unwrap();
            let query = waiting.remove(&buffer[..2]).expect("an answer to one of the queries");
            assert_eq!(answer_matches(&query, &buffer[..length]), Ok(()));
        }
    }
}

/// Allocations of `COUNT` queries after as many and more to warm up.
async fn measure(what: &str, transport: Transport, cache: usize, hot: usize) -> usize {
    let lab = Lab::start(LabSpec::default()).await.unwrap();
    let server = Server::start(config(&lab, transport, cache)).unwrap();
    let address = server.listening()[0].address;
    let counted = tokio::task::spawn_blocking(move || {
        ask(address, 0, WARM_UP, hot);
        allocations(|| ask(address, WARM_UP, COUNT, hot))
    });
    let counted = counted.await.unwrap();
    println!("{what}: {counted} allocations for {COUNT} queries, {:.4} each", counted as f64 / COUNT as f64);
    let mut traces: Vec<_> = TRACES.lock().unwrap().take().unwrap_or_default().into_iter().collect();
    traces.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (trace, count) in traces.iter().take(20) {
        println!("  {count} at {trace}");
    }
    server.stop(Duration::from_secs(2)).await;
    lab.stop().await;
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_and_hits_allocate_nothing() {
    AllocationRegistry::set_global_tracker(Counter).unwrap();
    AllocationRegistry::enable_tracking();
    TRACING.store(std::env::var_os("KEEPWARM_ALLOCATIONS").is_some(), Relaxed);
    assert!(allocations(|| counts("dns-test")) >= 1000, "the counter counts");
    assert_eq!(allocations(|| counts("other")), 0, "and not what others allocate");
    TRACES.lock().unwrap().take();
    let forwarded = measure("udp to udp", Transport::Udp, 0, usize::MAX).await;
    let hits = measure("cache hits", Transport::Udp, 64 << 20, 100).await;
    let kept = measure("udp to udp, answers kept", Transport::Udp, 64 << 20, usize::MAX).await;
    measure("udp to tcp", Transport::Tcp, 0, usize::MAX).await;
    // A socket upstream serves 2,000 queries; opening the next one costs some.
    assert!(forwarded <= COUNT / 20, "{forwarded} allocations for {COUNT} queries");
    // What is kept has to be allocated.
    assert!(kept <= COUNT + COUNT / 20, "{kept} allocations for {COUNT} answers that are kept");
    // On a slow machine a socket may reach its age meanwhile.
    assert!(hits <= COUNT / 100, "{hits} allocations for {COUNT} hits");
}

/// Allocates a thousand times on a thread of this name.
fn counts(name: &str) {
    let allocate = || (0..1000).for_each(|number| drop(std::hint::black_box(Box::new(number))));
    thread::Builder::new().name(name.to_owned()).spawn(allocate).unwrap().join().unwrap();
}

const WINDOW: usize = 16;
const WARM_UP: usize = 12_000;
const COUNT: usize = 10_000;
