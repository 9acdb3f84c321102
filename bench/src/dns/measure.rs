//! One server under one load, and the loads that make a repetition.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    blast::{BlastArgs, Client},
    figures::{Reading, Rep},
    peers::{Cache, Peer, Setup, Task, Transport},
    plan::{Contender, Row},
    ready,
    tools::{Workshop, free_address},
};
use crate::{
    cpu,
    process::{Launch, Process},
};

/// A server under test.
pub(super) struct Server {
    process: Process,
    listen: SocketAddr,
}

impl Server {
    /// Starts it and waits until it answers.
    pub(super) fn start(workshop: &mut Workshop, peer: &Peer, task: Task) -> anyhow::Result<Server> {
        let (listening, dir, ca) = (workshop.upstream()?, workshop.server_dir()?, workshop.ca());
        let listen = free_address()?;
        let upstream = match task.transport {
            Transport::Udp | Transport::Tcp => listening.plain,
            Transport::Tls => listening.tls,
            Transport::Https => listening.https,
        };
        let setup = Setup {
            listen,
            control: free_address()?,
            upstream,
            task,
            ca: &ca,
            dir: &dir,
            is_root: nix::unistd::geteuid().is_root(),
        };
        let argv = peer.prepare(&setup)?;
        let launch = Launch { name: peer.kind.name(), argv, cores: &workshop.cores.server, dir: &dir, ca: &ca };
        let mut process = launch.server()?;
        ready::wait(&mut process, listen)?;
        Ok(Server { process, listen })
    }

    pub(super) fn rss(&self) -> u64 {
        self.process.usage().rss
    }

    /// A load on this server, of unique names over UDP and without a rate.
    pub(super) fn load(&self, length: Duration) -> BlastArgs {
        BlastArgs {
            server: self.listen,
            client: Client::Udp,
            rate: None,
            outstanding: 100,
            seconds: length.as_secs_f64(),
            hot: None,
            salt: 0,
            queries: None,
        }
    }

    /// Runs a load and reckons what it cost. Taken twice when others disturbed it, and the quieter one counts.
    pub(super) fn measure(&self, workshop: &mut Workshop, load: &BlastArgs) -> anyhow::Result<Reading> {
        let first = self.measure_once(workshop, load)?;
        if !first.is_disturbed() {
            return Ok(first);
        }
        let second = self.measure_once(workshop, load)?;
        Ok(if second.foreign_cores < first.foreign_cores { second } else { first })
    }

    fn measure_once(&self, workshop: &mut Workshop, load: &BlastArgs) -> anyhow::Result<Reading> {
        workshop.seen()?;
        let start = Instant::now();
        let (stub_before, server_before, busy_before) =
            (workshop.stub_usage()?, self.process.usage(), cpu::machine_busy());
        let outcome = workshop.blast(load.clone(), || {})?;
        let (stub_after, server_after, busy_after) =
            (workshop.stub_usage()?, self.process.usage(), cpu::machine_busy());
        // Two spans: while questions were asked, and until the last of them was answered or given up.
        let (asked, wall) = (outcome.seconds.max(1e-3), start.elapsed().as_secs_f64());
        let seen = workshop.seen()?;

        let server = server_after.cpu.saturating_sub(server_before.cpu).as_secs_f64();
        let generator = Duration::from_nanos(outcome.cpu_nanos).as_secs_f64();
        let tools = stub_after.cpu.saturating_sub(stub_before.cpu).as_secs_f64() + generator;
        let busy = busy_after.saturating_sub(busy_before).as_secs_f64();
        Ok(Reading {
            rate: outcome.rate,
            cpu: server * 1e6 / outcome.right.max(1) as f64,
            p50: outcome.p50,
            p99: outcome.p99,
            sent: outcome.sent,
            failed: outcome.failed(),
            wrong: outcome.wrong,
            upstream: seen.queries as f64 / outcome.sent.max(1) as f64,
            server_cores: server / asked,
            load_cores: tools / asked,
            foreign_cores: ((busy - server - tools) / wall).max(0.0),
            rss: server_after.rss,
        })
    }
}

/// Starts a contender, measures all that a row asks for, and ends it.
pub(super) fn repetition(
    workshop: &mut Workshop,
    peer: &Peer,
    contender: Contender,
    row: Row,
    length: Duration,
) -> anyhow::Result<Rep> {
    let cache = if row == Row::Cache { HOT_CACHE } else { Cache::Off };
    let task = Task { transport: row.upstream(), cache, threads: contender.threads, in_flight: Task::IN_FLIGHT };
    let server = Server::start(workshop, peer, task)?;
    let rss_idle = server.rss();
    let load = BlastArgs { client: row.client(), hot: (row == Row::Cache).then_some(HOT_NAMES), ..server.load(length) };
    warm_up(workshop, &load)?;

    let mut most = Reading::default();
    for outstanding in [100, 400] {
        let found = server.measure(workshop, &BlastArgs { outstanding, ..load.clone() })?;
        if (found.holds(), found.rate) > (most.holds(), most.rate) {
            most = found;
        }
    }
    let mut at_rate = |rate: u32| {
        let keeps_up = most.rate >= f64::from(rate) * 0.95;
        let load = BlastArgs { rate: Some(rate), ..load.clone() };
        keeps_up.then(|| server.measure(workshop, &load)).transpose()
    };
    let (at_5k, at_20k) = (at_rate(5_000)?, at_rate(20_000)?);
    let delayed = row.has_delay().then(|| delayed(workshop, &server, &load)).transpose()?;
    Ok(Rep { most, at_5k, at_20k, delayed, rss_idle })
}

/// Opens connections, and fills a cache: two rounds of the hot names, in case some of the first were lost.
fn warm_up(workshop: &mut Workshop, load: &BlastArgs) -> anyhow::Result<()> {
    let queries = load.hot.map_or(3_000, |names| 2 * names);
    let load = BlastArgs { queries: Some(queries), rate: Some(20_000), seconds: 3.0, ..load.clone() };
    workshop.blast(load, || {}).map(drop)
}

fn delayed(workshop: &mut Workshop, server: &Server, load: &BlastArgs) -> anyhow::Result<Reading> {
    workshop.delay(Duration::from_millis(10))?;
    let reading = server.measure(workshop, &BlastArgs { outstanding: 1_000, ..load.clone() });
    workshop.delay(Duration::ZERO)?;
    reading
}

/// Names of the cache row.
pub(super) const HOT_NAMES: u64 = 10_000;
/// Room for them all.
pub(super) const HOT_CACHE: Cache = Cache::MiB(64);
