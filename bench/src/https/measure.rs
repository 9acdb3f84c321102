//! One load on one client, and what it cost.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use keepwarm_https_driver::{Mode, Outcome};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tempfile::TempDir;

use super::{
    clients::Peer,
    nginx::{Nginx, OCTETS, Seen},
    row::{Figure, Row},
};
use crate::{
    cpu,
    figures::FOREIGN_MAX,
    pin::Cores,
    process::{Launch, Process, STEP, check_interrupt},
    programs::own,
};

/// What was measured of a client in one repetition of a row.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) outcome: Outcome,
    pub(super) seen: Seen,
    /// Requests that count, or connections.
    pub(super) requests: usize,
    /// Cores that everybody else on the machine kept busy.
    pub(super) foreign_cores: f64,
}

impl Reading {
    /// CPU seconds of 10,000 requests.
    pub(super) fn cpu(&self) -> f64 {
        self.outcome.cpu_s * 1e4 / self.requests.max(1) as f64
    }

    /// KiB of a connection.
    pub(super) fn memory(&self) -> f64 {
        self.outcome.rss.saturating_sub(self.outcome.rss_before) as f64 / 1024.0 / self.requests.max(1) as f64
    }

    /// Connections that the server saw for each request, the preparing ones included.
    pub(super) fn handshakes(&self) -> f64 {
        self.seen.connections as f64 / self.outcome.sent.max(1) as f64
    }

    pub(super) fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Cpu => self.cpu(),
            Figure::Memory => self.memory(),
            Figure::Latency => self.outcome.p50_us,
        }
    }

    pub(super) fn is_disturbed(&self) -> bool {
        self.foreign_cores > FOREIGN_MAX
    }
}

/// The place where a run works: its origin, near and far.
pub(super) struct Workshop {
    nginx: Nginx,
    /// The way to the far origin, with and without tickets.
    far: Far,
    cores: Cores,
    dir: TempDir,
}

struct Far {
    _process: Process,
    address: SocketAddr,
}

impl Workshop {
    /// Starts the origin.
    pub(super) fn open(nginx: &std::path::Path, cores: Cores) -> anyhow::Result<Workshop> {
        let dir = tempfile::Builder::new().prefix("https-bench-").tempdir().context("make a working directory")?;
        let nginx = Nginx::start(nginx, dir.path(), &cores.load)?;
        let far = Far::start(&nginx, &dir, &cores)?;
        Ok(Workshop { nginx, far, cores, dir })
    }

    /// Puts a row's load on a client. Taken twice when others disturbed it, and the quieter one counts.
    pub(super) fn measure(&mut self, peer: &Peer, row: Row, requests: usize) -> anyhow::Result<Reading> {
        let first = self.measure_once(peer, row, requests)?;
        if !first.is_disturbed() {
            return Ok(first);
        }
        let second = self.measure_once(peer, row, requests)?;
        Ok(if second.foreign_cores < first.foreign_cores { second } else { first })
    }

    fn measure_once(&mut self, peer: &Peer, row: Row, requests: usize) -> anyhow::Result<Reading> {
        self.nginx.seen()?;
        let (start, busy, known) = (Instant::now(), cpu::machine_busy(), self.known()?);
        let outcome = self.client(peer, row, requests)?;
        let wall = start.elapsed().as_secs_f64().max(1e-3);
        let known = self.known()?.saturating_sub(known);
        let foreign = cpu::machine_busy().saturating_sub(busy).saturating_sub(known);
        let seen = self.nginx.seen()?;
        check(row, requests, &seen)?;
        Ok(Reading { outcome, seen, requests, foreign_cores: foreign.as_secs_f64() / wall })
    }

    /// CPU time of the run: its origin, this process, and clients that have ended.
    fn known(&self) -> anyhow::Result<Duration> {
        let mut sum = self.nginx.usage().cpu + self.far._process.usage().cpu;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who).context("read the used CPU time")?;
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            sum += Duration::from_micros(micros.unsigned_abs());
        }
        Ok(sum)
    }

    fn client(&self, peer: &Peer, row: Row, requests: usize) -> anyhow::Result<Outcome> {
        let argv = [peer.argv.clone(), self.task(row, requests)].concat();
        let ca = self.nginx.ca();
        let launch = Launch { name: peer.kind.name(), argv, cores: &self.cores.server, dir: self.dir.path(), ca: &ca };
        finished(launch.tool()?, peer.kind.name())
    }

    fn task(&self, row: Row, requests: usize) -> Vec<OsString> {
        let origin = if row.has_tickets() { self.nginx.tickets } else { self.nginx.full };
        let address = if row.is_far() { self.far.address } else { origin };
        let mode = match row.mode() {
            Mode::Hot => "hot",
            Mode::Cold => "cold",
            Mode::Idle => "idle",
            Mode::Same => "same",
        };
        let url = format!("https://hot.lab.test:{}/1k", address.port());
        let mut argv: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| argv.extend([name.into(), value]);
        option("--url", url.into());
        option("--address", address.to_string().into());
        option("--ca", self.nginx.ca().into());
        option("--mode", mode.into());
        option("--concurrency", row.concurrency().to_string().into());
        option("--requests", requests.to_string().into());
        option("--octets", OCTETS.to_string().into());
        argv
    }
}

impl Far {
    fn start(nginx: &Nginx, dir: &TempDir, cores: &Cores) -> anyhow::Result<Far> {
        let way = WAY.as_micros().to_string();
        let argv = own(["delay", "--to", &nginx.full.to_string(), "--micros", &way].map(OsString::from))?;
        let ca = PathBuf::new();
        let mut process = Launch { name: "delay", argv, cores: &cores.load, dir: dir.path(), ca: &ca }.tool()?;
        let mut output = BufReader::new(process.child().stdout.take().context("the delay's output")?);
        let mut line = String::new();
        output.read_line(&mut line).context("read where the delay listens")?;
        Ok(Far { _process: process, address: line.trim().parse().context("the delay did not start")? })
    }
}

/// Whether the connections are what the row is about.
fn check(row: Row, requests: usize, seen: &Seen) -> anyhow::Result<()> {
    let wanted = match row.mode() {
        Mode::Hot => 1,
        Mode::Cold | Mode::Idle | Mode::Same => requests as u64,
    };
    ensure!(seen.connections >= wanted, "{} connections instead of {wanted}", seen.connections);
    if row == Row::Resumed {
        ensure!(seen.resumed >= wanted, "{} of {} connections were resumed", seen.resumed, seen.connections);
    }
    Ok(())
}

fn finished(mut process: Process, name: &str) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.child().try_wait()? {
            break status;
        }
        check_interrupt()?;
        ensure!(start.elapsed() < CLIENT_MAX, "{name} was not done after {CLIENT_MAX:?}");
        thread::sleep(STEP);
    };
    let mut output = String::new();
    process.child().stdout.take().context("the client's output")?.read_to_string(&mut output)?;
    if !status.success() {
        check_interrupt()?;
        bail!("the client failed: {status}");
    }
    serde_json::from_str(&output).with_context(|| format!("the client said {output:?}"))
}

/// The way to the far origin, in one direction.
const WAY: Duration = Duration::from_millis(5);
/// How long a client may take for its task.
const CLIENT_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        let outcome = Outcome {
            cpu_s: 0.05,
            wall_s: 1.0,
            p50_us: 40.0,
            p99_us: 90.0,
            rss_before: 1 << 20,
            rss: 3 << 20,
            sent: 1_100,
            version: None,
        };
        let seen = Seen { connections: 11, ..Seen::default() };
        Reading { outcome, seen, requests: 1_000, foreign_cores: 0.2 }
    }

    #[test]
    fn figures_are_per_request() {
        let reading = reading();
        assert!((reading.figure(Figure::Cpu) - 0.5).abs() < 1e-9);
        assert!((reading.figure(Figure::Memory) - 2.048).abs() < 1e-9);
        assert!((reading.handshakes() - 0.01).abs() < 1e-9);
        assert!(reading.is_disturbed());
    }

    #[test]
    fn connections_that_were_not_made_are_a_failure() {
        let seen = |connections, resumed| Seen { connections, resumed, ..Seen::default() };
        assert!(check(Row::Hot, 100, &seen(1, 0)).is_ok());
        assert!(check(Row::Cold, 100, &seen(99, 0)).is_err());
        assert!(check(Row::Resumed, 100, &seen(101, 99)).is_err());
        assert!(check(Row::Resumed, 100, &seen(101, 100)).is_ok());
    }
}
