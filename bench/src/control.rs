//! `dns-bench control`: what scrapes and live views cost a daemon that answers queries.
//!
//! The daemon's DNS workers and the thread of its status endpoint are told apart by their names, so the price of the control plane is its
//! own thread's CPU time and no difference of two large figures. The load asks for few names: nearly all answers are from the cache.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::{machine::Machine, programs};

/// What is measured.
#[derive(Args)]
pub(crate) struct ControlArgs {
    /// Queries a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Length of each phase.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The daemon's program [default: a release build of it].
    #[arg(long, value_name = "FILE")]
    keepwarm: Option<PathBuf>,
    /// Write the table to this file, for example docs/control/cost.md.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Who asks the status endpoint meanwhile.
struct Phase {
    name: &'static str,
    /// Pause between two scrapes of `/metrics`; none: nobody scrapes.
    scrape: Option<Duration>,
    /// Listeners to events.
    streams: usize,
    /// Connections that send half a request and wait.
    stalled: usize,
}

const PHASES: [Phase; 5] = [
    Phase { name: "nobody", scrape: None, streams: 0, stalled: 0 },
    Phase { name: "a scrape every 15 s", scrape: Some(Duration::from_secs(15)), streams: 0, stalled: 0 },
    Phase { name: "a scrape a second, 4 live views", scrape: Some(Duration::from_secs(1)), streams: 4, stalled: 0 },
    Phase { name: "a scrape a second, 16 live views", scrape: Some(Duration::from_secs(1)), streams: 16, stalled: 0 },
    Phase {
        name: "scrapes without a pause, 16 live views, 40 stalled clients",
        scrape: Some(Duration::ZERO),
        streams: 16,
        stalled: 40,
    },
];

/// Measures every phase and prints the table.
pub(crate) fn run(args: &ControlArgs) -> anyhow::Result<()> {
    let machine = Machine::here();
    let keepwarm = match &args.keepwarm {
        Some(file) => programs::checked(file)?,
        None => programs::build_keepwarm()?,
    };
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start(folder.path())?;
    let daemon = Daemon::start(&keepwarm, folder.path(), upstream.udp)?;
    // Everything is in the cache, and every thread exists, before anything is measured.
    daemon.load(args.rate, 3)?;
    let mut rows = Vec::new();
    for phase in &PHASES {
        let row = measure(&daemon, phase, args)?;
        eprintln!("{}", row.line());
        rows.push(row);
    }
    let page = page(&machine, args, &rows);
    match &args.out {
        Some(file) => fs::write(file, page).with_context(|| format!("write {}", file.display())),
        None => {
            print!("{page}");
            Ok(())
        }
    }
}

/// One phase as measured.
struct Row {
    name: &'static str,
    answered: u64,
    failed: u64,
    scrapes: u64,
    seconds: f64,
    workers: Duration,
    control: Duration,
}

impl Row {
    fn line(&self) -> String {
        let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / self.seconds;
        format!(
            "| {} | {} | {} | {:.1} | {:.1} % | **{:.2} %** |",
            self.name,
            self.answered,
            self.failed,
            u32::try_from(self.scrapes).map_or(f64::MAX, f64::from) / self.seconds,
            share(self.workers),
            share(self.control)
        )
    }
}

fn measure(daemon: &Daemon, phase: &Phase, args: &ControlArgs) -> anyhow::Result<Row> {
    let (stop, scrapes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    let mut stalled = Vec::new();
    for _ in 0..phase.stalled {
        let mut stream = TcpStream::connect(daemon.control)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lo")?;
        stalled.push(stream);
    }
    for _ in 0..phase.streams {
        let (stop, control) = (Arc::clone(&stop), daemon.control);
        threads.push(thread::spawn(move || listen(control, &stop)));
    }
    if let Some(pause) = phase.scrape {
        let (stop, scrapes, control) = (Arc::clone(&stop), Arc::clone(&scrapes), daemon.control);
        threads.push(thread::spawn(move || scrape(control, pause, &stop, &scrapes)));
    }
    let before = daemon.threads();
    let started = Instant::now();
    let outcome = daemon.load(args.rate, args.seconds)?;
    let seconds = started.elapsed().as_secs_f64();
    let after = daemon.threads();
    stop.store(true, Ordering::Relaxed);
    drop(stalled);
    threads.into_iter().for_each(|thread| drop(thread.join()));
    let spent = |is_worker: bool| {
        let of = |all: &BTreeMap<String, Duration>| -> Duration {
            all.iter().filter(|(name, _)| name.starts_with("dns-") == is_worker).map(|(_, cpu)| *cpu).sum()
        };
        of(&after).saturating_sub(of(&before))
    };
    let figure = |name: &str| outcome[name].as_u64().unwrap_or_default();
    Ok(Row {
        name: phase.name,
        answered: figure("right"),
        failed: figure("sent").saturating_sub(figure("right")),
        scrapes: scrapes.load(Ordering::Relaxed),
        seconds,
        workers: spent(true),
        control: spent(false),
    })
}

/// Scrapes again and again, with a pause between.
fn scrape(control: SocketAddr, pause: Duration, stop: &AtomicBool, scrapes: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        if get(control, "/metrics").is_ok() {
            scrapes.fetch_add(1, Ordering::Relaxed);
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reads events as they come.
fn listen(control: SocketAddr, stop: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect(control) else { return };
    let head = format!("GET /api/v1/events HTTP/1.1\r\nHost: {control}\r\n\r\n");
    if stream.write_all(head.as_bytes()).is_err() || stream.set_read_timeout(Some(Duration::from_millis(200))).is_err()
    {
        return;
    }
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        if matches!(stream.read(&mut buffer), Ok(0)) {
            return;
        }
    }
}

fn get(control: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(control)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{path}: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}

/// The upstream whose answers the load knows, ended when this is dropped.
struct Upstream {
    child: Child,
    udp: SocketAddr,
}

impl Upstream {
    fn start(folder: &Path) -> anyhow::Result<Upstream> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["stub", "--ca"]).arg(folder.join("ca.pem")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the upstream")?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().context("the upstream has an output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).context("read where the upstream listens")?;
        let udp = told["plain"].as_str().and_then(|udp| udp.parse().ok()).context("the upstream has no address")?;
        Ok(Upstream { child, udp })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon, ended when this is dropped.
struct Daemon {
    child: Child,
    dns: SocketAddr,
    control: SocketAddr,
}

impl Daemon {
    fn start(keepwarm: &Path, folder: &Path, upstream: SocketAddr) -> anyhow::Result<Daemon> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let (dns, control) = (free()?, free()?);
        let config = folder.join("keepwarm.toml");
        let text = format!(
            "version = 1\n[log]\nlevel = \"warn\"\n[control]\nlisten = \"{control}\"\n[dns]\nlisten = [\"{dns}\"]\n\
             [[dns.upstream]]\nname = \"lab\"\naddress = \"udp://{upstream}\"\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new(keepwarm);
        command.args(["run", "-c"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let daemon = Daemon { child: command.spawn().context("start keepwarm")?, dns, control };
        for _ in 0..200 {
            if get(control, "/livez").is_ok() {
                return Ok(daemon);
            }
            thread::sleep(Duration::from_millis(25));
        }
        bail!("keepwarm does not answer")
    }

    /// CPU time of each thread by name and number.
    fn threads(&self) -> BTreeMap<String, Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let read = |path: PathBuf| fs::read_to_string(path).ok();
        let one = |task: fs::DirEntry| {
            let name = read(task.path().join("comm"))?;
            let nanos = read(task.path().join("schedstat"))?.split_whitespace().next()?.parse().ok()?;
            Some((format!("{}/{}", name.trim(), task.file_name().display()), Duration::from_nanos(nanos)))
        };
        tasks.filter_map(one).collect()
    }

    /// Asks at a rate, in a process of its own, and returns what it saw.
    fn load(&self, rate: u32, seconds: u64) -> anyhow::Result<Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["blast", "--server", &self.dns.to_string(), "--rate", &rate.to_string()]);
        command.args(["--seconds", &seconds.to_string(), "--hot", "1000"]);
        let output = command.stderr(Stdio::inherit()).output().context("run the load")?;
        serde_json::from_slice(&output.stdout).context("read what the load saw")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn page(machine: &Machine, args: &ControlArgs, rows: &[Row]) -> String {
    let mut page = format!(
        "# What the control plane costs\n\n\
         Measured by `cargo run --release -p keepwarm-bench -- control` on {machine}: {} queries a second for {} s a phase, of 1,000 names, \
         nearly all answered from the cache. CPU is in parts of one core: *workers* are the threads that answer queries, *control* is \
         everything else in the process, that is the thread of the status endpoint. The load, the upstream and those who ask the endpoint run \
         on the same machine.\n\n\
         | asks the endpoint | answers | failed | scrapes/s | workers | control |\n\
         |---|--:|--:|--:|--:|--:|\n",
        args.rate, args.seconds
    );
    for row in rows {
        let _ = writeln!(page, "{}", row.line());
    }
    page
}
