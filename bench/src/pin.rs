//! Runs a program on chosen cores. A process of its own, because the cores of a child can be set only from within.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;
use clap::Args;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::Pid,
};

/// What to run, and where.
#[derive(Args)]
pub(crate) struct PinArgs {
    /// Cores; none leaves the program where it is.
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Becomes the program. It ends with the process that started it, whatever happens to that.
pub(crate) fn run(args: &PinArgs) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("ask to end with the parent")?;
    // The parent may block signals that it waits for; its children are to hear them.
    SigSet::all().thread_unblock().context("let signals through")?;
    if !args.cpu.is_empty() {
        let mut cores = CpuSet::new();
        for cpu in &args.cpu {
            cores.set(*cpu).with_context(|| format!("core {cpu}"))?;
        }
        sched_setaffinity(Pid::from_raw(0), &cores).with_context(|| format!("stay on cores {:?}", args.cpu))?;
    }
    let (program, rest) = args.command.split_first().context("no command")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Which cores do what.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    /// Upstream and load generator. Empty: anywhere.
    pub(crate) load: Vec<usize>,
    /// The server under test. Empty: anywhere.
    pub(crate) server: Vec<usize>,
}

impl Cores {
    /// The first core for the load and the second for the server; with a single core nothing is pinned.
    pub(crate) fn split() -> Cores {
        match cores().as_slice() {
            [load, server, ..] => Cores { load: vec![*load], server: vec![*server] },
            _ => Cores { load: Vec::new(), server: Vec::new() },
        }
    }

    /// Two cores that everybody shares.
    pub(crate) fn shared() -> Cores {
        let Cores { load, server } = Cores::split();
        let both = [load, server].concat();
        Cores { load: both.clone(), server: both }
    }

    pub(crate) fn are_split(&self) -> bool {
        !self.load.is_empty() && self.load != self.server
    }
}
