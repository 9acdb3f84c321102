//! The servers under test as processes: started on their cores, and ended on every way out.

use std::{
    ffi::OsString,
    fs::{self, File},
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

use crate::cpu::{self, Usage};

/// A running program.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// What to start.
pub(crate) struct Launch<'a> {
    /// For messages and the log's name.
    pub(crate) name: &'a str,
    pub(crate) argv: Vec<OsString>,
    pub(crate) cores: &'a [usize],
    /// Working directory; the log goes there too.
    pub(crate) dir: &'a Path,
    /// Trusted by programs that have no setting for it.
    pub(crate) ca: &'a Path,
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
    pub(crate) fn server(&self) -> anyhow::Result<Process> {
        let log = self.dir.join("log");
        let out = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        Process::spawn(&mut command, self.name, log)
    }

    /// Starts it with pipes to talk through.
    pub(crate) fn tool(&self) -> anyhow::Result<Process> {
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

    pub(crate) fn usage(&self) -> Usage {
        cpu::usage(self.child.id())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Looks until the server is ready. `ready` is called again and again, and takes its time.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let start = Instant::now();
        while !ready()? {
            check_interrupt()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", self.name, self.last_words());
            }
            if start.elapsed() > START_MAX {
                bail!("{} gave no answer for {START_MAX:?}: {}", self.name, self.last_words());
            }
        }
        Ok(())
    }

    /// The end of the log, on one line.
    pub(crate) fn last_words(&self) -> String {
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

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM end the run in order: the next wait fails, and all that was started is stopped.
pub(crate) fn catch_interrupts() -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("take over Ctrl-C")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

pub(crate) fn check_interrupt() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted: everything that was started is stopped")
    } else {
        Ok(())
    }
}

/// Waits in steps, and fails soon after an interrupt. `each` is called at every step.
pub(crate) fn pause(total: Duration, mut each: impl FnMut()) -> anyhow::Result<()> {
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
pub(crate) const STEP: Duration = Duration::from_millis(20);
