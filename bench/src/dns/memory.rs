//! Memory: idle, with a full cache, with many queries in flight, and over time.

use std::time::{Duration, Instant};

use super::{
    blast::BlastArgs,
    measure::Server,
    peers::{Cache, Kind, Peer, Task, Transport},
    plan::Contender,
    tools::Workshop,
};
use crate::{
    figures::{Percent, mebibytes, whole},
    process::pause,
};

/// What a server holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: String,
    /// Octets, half a second after the start.
    pub(super) idle: u64,
    /// After more names than fit into the cache.
    pub(super) full: u64,
    /// At most, while clients have 10,000 queries outstanding that the upstream answers after a second.
    pub(super) in_flight: u64,
    /// Most queries that waited at the upstream.
    pub(super) reached: u64,
    /// Share of the outstanding queries that got no right answer.
    pub(super) failed: f64,
}

/// Measures a server's memory.
pub(super) fn held(workshop: &mut Workshop, peer: &Peer, contender: Contender, name: String) -> anyhow::Result<Held> {
    let server = Server::start(workshop, peer, task(contender.threads))?;
    pause(Duration::from_millis(500), || {})?;
    let idle = server.rss();
    let fill = BlastArgs { queries: Some(FILL), outstanding: 200, ..server.load(Duration::from_secs(10)) };
    workshop.blast(fill, || {})?;
    let full = server.rss();

    workshop.delay(Duration::from_secs(1))?;
    let mut in_flight = full;
    let load =
        BlastArgs { rate: Some(IN_FLIGHT), outstanding: IN_FLIGHT as usize, ..server.load(Duration::from_secs(3)) };
    let outcome = workshop.blast(load, || in_flight = in_flight.max(server.rss()));
    let reached = workshop.seen()?.in_flight_max;
    workshop.delay(Duration::ZERO)?;
    let outcome = outcome?;
    let failed = outcome.failed() as f64 / outcome.sent.max(1) as f64;
    Ok(Held { name, idle, full, in_flight, reached, failed })
}

/// Loads keepwarm for so long and prints its memory every ten seconds.
pub(super) fn soak(workshop: &mut Workshop, peers: &[Peer], threads: u32, minutes: u32) -> anyhow::Result<()> {
    let keepwarm = peers.iter().find(|peer| peer.kind == Kind::Keepwarm);
    let keepwarm = keepwarm.ok_or_else(|| anyhow::anyhow!("--soak is about keepwarm, which --names leaves out"))?;
    let server = Server::start(workshop, keepwarm, task(threads))?;
    println!("keepwarm {}, 10,000 new names a second over UDP, cache 16 MiB", keepwarm.version);
    println!("{:>8}  {:>9}  {:>12}  failed", "seconds", "RSS MiB", "queries/s");
    println!("{:>8}  {:>9}", 0, mebibytes(server.rss()));
    let (start, mut samples) = (Instant::now(), Vec::new());
    for _ in 0..minutes.max(1) * 6 {
        let load = BlastArgs {
            rate: Some(IN_FLIGHT),
            outstanding: IN_FLIGHT as usize,
            ..server.load(Duration::from_secs(10))
        };
        let outcome = workshop.blast(load, || {})?;
        let (rss, failed) = (server.rss(), Percent(outcome.failed() as f64 / outcome.sent.max(1) as f64));
        println!("{:>8}  {:>9}  {:>12}  {failed}", start.elapsed().as_secs(), mebibytes(rss), whole(outcome.rate));
        samples.push(rss);
    }
    if let [first, .., last] = samples.as_slice() {
        println!("first {} MiB, last {} MiB", mebibytes(*first), mebibytes(*last));
    }
    Ok(())
}

fn task(threads: u32) -> Task {
    Task { transport: Transport::Udp, cache: CACHE, threads, in_flight: IN_FLIGHT }
}

const IN_FLIGHT: u32 = 10_000;
/// Small enough to fill in seconds.
const CACHE: Cache = Cache::MiB(16);
/// More names than 16 MiB hold, at less than 90 octets each.
const FILL: u64 = 200_000;
