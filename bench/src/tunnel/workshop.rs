//! The place where a run works: the destination, the upstream proxy near and far, and the proxies under test in turn.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use keepwarm_lab::Ca;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tempfile::TempDir;

use super::{
    load::{LoadArgs, Outcome},
    peers::{Kind, Peer, Setup},
    reading::Held,
    row::{ROUND_TRIP, Row},
};
use crate::{
    cpu,
    pin::Cores,
    process::{Launch, Process, STEP, check_interrupt},
    programs::own,
};

/// Everything that runs beside the proxy under test.
pub(super) struct Workshop {
    cores: Cores,
    servers: u32,
    destination: Process,
    /// The destination's port.
    pub(super) port: u16,
    /// The upstream proxy that is near, which takes little from the load's core.
    near: Server,
    /// The one that is far away, and the way to it.
    beyond: Server,
    far: Process,
    far_address: SocketAddr,
    // Last, so that what works in it has ended.
    dir: TempDir,
}

/// A running proxy.
pub(super) struct Server {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Workshop {
    /// Starts what is beside the proxies. `far` is the upstream proxy that is far away.
    pub(super) fn open(far: &Peer, cores: Cores) -> anyhow::Result<Workshop> {
        let dir = tempfile::Builder::new().prefix("tunnel-bench-").tempdir().context("make a working directory")?;
        // Nothing here speaks TLS, but programs look for roots to trust.
        std::fs::write(ca(dir.path()), Ca::new().pem()).context("write a certificate")?;
        let (destination, said) = helper("tunnel-destination", &["tunnel-destination".into()], &cores, dir.path())?;
        let port = said.parse().context("the destination did not start")?;
        let upstream = |name: &str, peer: &Peer| {
            let files = dir.path().join(name);
            std::fs::create_dir(&files).with_context(|| format!("make {}", files.display()))?;
            let setup = Setup { has_user: true, ..setup(&files)? };
            Server::start(peer, &setup, &cores.load, dir.path())
        };
        let (near, beyond) = (upstream("near", &ours()?)?, upstream("far", far)?);
        let way = (ROUND_TRIP / 2).as_micros().to_string();
        let delay = ["delay", "--to", &beyond.address.to_string(), "--micros", &way, "--open-max", "512"];
        let (far, said) = helper("delay", &delay.map(OsString::from), &cores, dir.path())?;
        let far_address = said.parse().context("the delay did not start")?;
        Ok(Workshop { cores, servers: 0, destination, port, near, beyond, far, far_address, dir })
    }

    /// The upstream proxy as a row sees it.
    pub(super) fn upstream(&self, row: Row) -> SocketAddr {
        if row.is_far() { self.far_address } else { self.near.address }
    }

    /// Starts a proxy for a row. It ends when it is dropped.
    pub(super) fn start(&mut self, peer: &Peer, row: Row) -> anyhow::Result<Server> {
        self.servers += 1;
        let dir = self.dir.path().join(format!("server-{}", self.servers));
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let upstream = row.has_upstream().then(|| self.upstream(row));
        let setup = Setup { has_user: row.has_user(), upstream, ..setup(&dir)? };
        Server::start(peer, &setup, &self.cores.server, self.dir.path())
    }

    /// Puts a load on a proxy. `meanwhile` is called when the load is done and its client still there.
    pub(super) fn load<T>(&self, load: &LoadArgs, meanwhile: impl FnOnce() -> T) -> anyhow::Result<(Outcome, T)> {
        let argv = own(load.argv().into_iter().map(OsString::from))?;
        let ca = ca(self.dir.path());
        let launch = Launch { name: "load", argv, cores: &self.cores.load, dir: self.dir.path(), ca: &ca };
        let mut process = launch.tool()?;
        let input = process.child().stdin.take().context("the client's input")?;
        let said = first_line(&mut process)?;
        let found = meanwhile();
        drop(input);
        finish(&mut process)?;
        let outcome: Outcome = serde_json::from_str(&said).with_context(|| format!("the client said {said:?}"))?;
        if outcome.tunnels == 0 {
            bail!("no tunnel worked: {}", outcome.error.as_deref().unwrap_or("nobody says why"));
        }
        Ok((outcome, found))
    }

    /// CPU time of the run beside the proxy under test: this process, its helpers, and clients that have ended.
    pub(super) fn spent(&self) -> anyhow::Result<Duration> {
        let helpers = [&self.destination, &self.near.process, &self.beyond.process, &self.far];
        let mut sum: Duration = helpers.into_iter().map(|process| cpu::spent(process.id())).sum();
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who).context("read the used CPU time")?;
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            sum += Duration::from_micros(micros.unsigned_abs());
        }
        Ok(sum)
    }
}

impl Server {
    fn start(peer: &Peer, setup: &Setup<'_>, cores: &[usize], root: &Path) -> anyhow::Result<Server> {
        let argv = peer.prepare(setup)?;
        let launch = Launch { name: peer.kind.name(), argv, cores, dir: setup.dir, ca: &ca(root) };
        let mut process = launch.server()?;
        let address = setup.listen;
        process.wait_until(|| {
            thread::sleep(STEP);
            Ok(TcpStream::connect(address).is_ok())
        })?;
        Ok(Server { process, address })
    }

    /// CPU time that it used so far.
    pub(super) fn spent(&self) -> Duration {
        cpu::spent(self.process.id())
    }

    /// What it has now.
    pub(super) fn held(&self) -> Held {
        Held::by(self.process.id())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

/// The far upstream: microsocks, or this program where that is missing.
pub(super) fn far(peers: &[Peer]) -> anyhow::Result<Peer> {
    peers.iter().find(|peer| peer.kind == Kind::Microsocks).cloned().map_or_else(ours, Ok)
}

/// The relay of this program.
fn ours() -> anyhow::Result<Peer> {
    Ok(Peer { kind: Kind::Tokio, program: std::env::current_exe()?, version: String::new() })
}

/// Ports that nobody has now.
fn setup(dir: &Path) -> anyhow::Result<Setup<'_>> {
    // Together, so that they differ.
    let [listen, control] =
        [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    let (listen, control) = (listen.local_addr()?, control.local_addr()?);
    Ok(Setup { listen, control, dir, has_user: false, upstream: None })
}

fn ca(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Starts a command of this program, and returns what it says first.
fn helper(name: &str, arguments: &[OsString], cores: &Cores, dir: &Path) -> anyhow::Result<(Process, String)> {
    let argv = own(arguments.iter().cloned())?;
    let mut process = Launch { name, argv, cores: &cores.load, dir, ca: &ca(dir) }.tool()?;
    let said = first_line(&mut process)?;
    Ok((process, said))
}

fn first_line(process: &mut Process) -> anyhow::Result<String> {
    let mut line = String::new();
    let output = process.child().stdout.take().context("a helper's output")?;
    BufReader::new(output).read_line(&mut line).context("read what a helper says")?;
    if line.is_empty() {
        check_interrupt()?;
        finish(process)?;
    }
    Ok(line.trim().to_owned())
}

fn finish(process: &mut Process) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = process.child().try_wait()? {
            check_interrupt()?;
            ensure!(status.success(), "the client failed: {status}");
            return Ok(());
        }
        check_interrupt()?;
        ensure!(start.elapsed() < END_MAX, "a client did not end");
        thread::sleep(STEP);
    }
}

/// How long a client may take to end when it is told to.
const END_MAX: Duration = Duration::from_secs(10);
