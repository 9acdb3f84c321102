//! The servers under test as processes: started on their cores, and ended on every way out.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};

use super::{
    cpu::{self, Usage},
    wire::{self, Name, Verdict},
};

/// A running program.
pub(super) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// What to start.
pub(super) struct Launch<'a> {
    /// For messages and the log's name.
    pub(super) name: &'a str,
    pub(super) argv: Vec<OsString>,
    pub(super) cores: &'a [usize],
    /// Working directory; the log goes there too.
    pub(super) dir: &'a Path,
    /// Trusted by programs that have no setting for it.
    pub(super) ca: &'a Path,
}

impl Launch<'_> {
    /// The command, through `pin`.
    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.arg("pin");
        if !self.cores.is_empty() {
            let cores: Vec<String> = self.cores.iter().map(usize::to_string).collect();
            command.arg("--cpu").arg(cores.join(","));
        }
        command.arg("--").args(&self.argv).current_dir(self.dir).env("SSL_CERT_FILE", self.ca);
        Ok(command)
    }

    /// Starts it with its output in a log.
    pub(super) fn server(&self) -> anyhow::Result<Process> {
        let log = self.dir.join("log");
        let out = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        Process::spawn(&mut command, self.name, log)
    }

    /// Starts it with pipes to talk through.
    pub(super) fn tool(&self) -> anyhow::Result<Process> {
        let mut command = self.command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Process::spawn(&mut command, self.name, PathBuf::new())
    }
}

impl Process {
    fn spawn(command: &mut Command, name: &str, log: PathBuf) -> anyhow::Result<Process> {
        check_interrupt()?;
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Process { child, name: name.to_owned(), log })
    }

    pub(super) fn usage(&self) -> Usage {
        cpu::usage(self.child.id())
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the server answers rightly, three times.
    pub(super) fn wait_ready(&mut self, server: SocketAddr) -> anyhow::Result<()> {
        let socket = UdpSocket::bind(super::net::LOOPBACK)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let start = Instant::now();
        let (mut right, mut number) = (0, 0);
        while right < 3 {
            check_interrupt()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", self.name, self.last_words());
            }
            if start.elapsed() > START_MAX {
                bail!("{} gave no answer for {START_MAX:?}: {}", self.name, self.last_words());
            }
            number += 1;
            match asked(&socket, server, number) {
                Some(Verdict::Right) => right += 1,
                // An error at once: the server is up and its upstream is not yet.
                Some(_) => thread::sleep(Duration::from_millis(50)),
                None => {}
            }
        }
        Ok(())
    }

    /// The end of the log, on one line.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
        let words = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
        // The directory of the run means nothing to a reader of the report.
        let dir = self.log.parent().unwrap_or(Path::new("")).display().to_string();
        let words = if dir.is_empty() { words } else { words.replace(&dir, "DIR") };
        if words.is_empty() { "it said nothing".to_owned() } else { words }
    }

    /// Asks it to end, and ends it when it does not.
    fn stop(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            // A wrapper may not pass the signal on, so all below are told too.
            for pid in cpu::family(self.child.id()) {
                let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
            }
            let start = Instant::now();
            while start.elapsed() < STOP_MAX && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn asked(socket: &UdpSocket, server: SocketAddr, number: u16) -> Option<Verdict> {
    let query =
        wire::query(number, Name { number: u64::from(number) + u64::from(std::process::id()), salt: READY_SALT });
    let mut answer = [0; 1500];
    socket.send_to(&query, server).ok()?;
    let pause = Duration::from_millis(50);
    match socket.recv(&mut answer) {
        Ok(len) => Some(wire::verify(&query, &answer[..len])),
        // Nobody listens yet.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            thread::sleep(pause);
            None
        }
        Err(_) => None,
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM end the run in order: the next wait fails, and all that was started is stopped.
pub(super) fn catch_interrupts() -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("take over Ctrl-C")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

pub(super) fn check_interrupt() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted: everything that was started is stopped")
    } else {
        Ok(())
    }
}

/// Waits in steps, and fails soon after an interrupt. `each` is called at every step.
pub(super) fn pause(total: Duration, mut each: impl FnMut()) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Some(left) = total.checked_sub(start.elapsed()) {
        thread::sleep(left.min(STEP));
        each();
        check_interrupt()?;
    }
    Ok(())
}

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(15);
/// How long a server may take to end.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How often a wait looks up.
pub(super) const STEP: Duration = Duration::from_millis(20);
/// Names that no load asks for: loads count their salts from 0.
const READY_SALT: u32 = 0xf_ffff;
