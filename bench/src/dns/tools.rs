//! The stub and the load generator, as the comparison uses them.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{ChildStdin, ChildStdout},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::{
    blast::{BlastArgs, Client, Outcome},
    net::LOOPBACK,
    stub::{Listening, Seen},
};
use crate::{
    cpu::Usage,
    pin::Cores,
    process::{Launch, Process, STEP, check_interrupt},
    programs::own,
};

/// The place where a run works: its upstream, its files, and its names.
pub(super) struct Workshop {
    dir: TempDir,
    pub(super) cores: Cores,
    stub: Option<Stub>,
    loads: u32,
    servers: u32,
}

struct Stub {
    process: Process,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    listening: Listening,
}

impl Workshop {
    /// Starts the upstream.
    pub(super) fn open(cores: Cores) -> anyhow::Result<Workshop> {
        let dir = tempfile::Builder::new().prefix("dns-bench-").tempdir().context("make a working directory")?;
        let mut workshop = Workshop { dir, cores, stub: None, loads: 0, servers: 0 };
        workshop.restart_stub()?;
        Ok(workshop)
    }

    /// Lets everything that starts from now on, and the upstream, run on these cores.
    pub(super) fn move_to(&mut self, cores: Cores) -> anyhow::Result<()> {
        self.cores = cores;
        self.restart_stub()
    }

    fn restart_stub(&mut self) -> anyhow::Result<()> {
        self.stub = None;
        let argv = own(["stub".into(), "--ca".into(), self.ca().into()])?;
        let launch = Launch { name: "stub", argv, cores: &self.cores.load, dir: self.dir.path(), ca: &self.ca() };
        let mut process = launch.tool()?;
        let commands = process.child().stdin.take().context("the stub's input")?;
        let mut answers = BufReader::new(process.child().stdout.take().context("the stub's output")?);
        let mut line = String::new();
        answers.read_line(&mut line).context("read where the stub listens")?;
        let listening = serde_json::from_str(&line).context("the stub did not start")?;
        self.stub = Some(Stub { process, commands, answers, listening });
        Ok(())
    }

    fn stub(&mut self) -> anyhow::Result<&mut Stub> {
        self.stub.as_mut().context("the stub is not running")
    }

    pub(super) fn upstream(&mut self) -> anyhow::Result<Listening> {
        Ok(self.stub()?.listening)
    }

    pub(super) fn stub_usage(&mut self) -> anyhow::Result<Usage> {
        Ok(self.stub()?.process.usage())
    }

    /// What the upstream saw since it was last asked.
    pub(super) fn seen(&mut self) -> anyhow::Result<Seen> {
        self.command("seen")
    }

    /// Lets the upstream take its time from now on.
    pub(super) fn delay(&mut self, delay: Duration) -> anyhow::Result<()> {
        self.command(&format!("delay {}", delay.as_micros())).map(drop)
    }

    fn command(&mut self, command: &str) -> anyhow::Result<Seen> {
        let stub = self.stub()?;
        writeln!(stub.commands, "{command}").context("tell the stub")?;
        let mut line = String::new();
        stub.answers.read_line(&mut line).context("hear from the stub")?;
        serde_json::from_str(&line).with_context(|| format!("the stub said {line:?}"))
    }

    /// The certificate that the upstream is trusted by.
    pub(super) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// An empty directory for a server.
    pub(super) fn server_dir(&mut self) -> anyhow::Result<PathBuf> {
        self.servers += 1;
        let dir = self.dir.path().join(format!("server-{}", self.servers));
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Runs a load and checks its answers. `meanwhile` is called some fifty times a second.
    pub(super) fn blast(&mut self, mut load: BlastArgs, meanwhile: impl FnMut()) -> anyhow::Result<Outcome> {
        if load.hot.is_none() {
            self.loads += 1;
            load.salt = self.loads;
        }
        let argv = own(load.argv())?;
        let launch = Launch { name: "blast", argv, cores: &self.cores.load, dir: self.dir.path(), ca: &self.ca() };
        finished(launch.tool()?, meanwhile)
    }
}

fn finished(mut process: Process, mut meanwhile: impl FnMut()) -> anyhow::Result<Outcome> {
    let status = loop {
        if let Some(status) = process.child().try_wait()? {
            break status;
        }
        check_interrupt()?;
        meanwhile();
        thread::sleep(STEP);
    };
    let mut output = String::new();
    process.child().stdout.take().context("the load generator's output")?.read_to_string(&mut output)?;
    if !status.success() {
        check_interrupt()?;
        bail!("the load generator failed: {status}");
    }
    serde_json::from_str(&output).with_context(|| format!("the load generator said {output:?}"))
}

impl BlastArgs {
    fn argv(&self) -> Vec<OsString> {
        let client = if self.client == Client::Tcp { "tcp" } else { "udp" };
        let mut argv: Vec<String> =
            ["blast", "--server", &self.server.to_string(), "--client", client].map(Into::into).into();
        let mut option =
            |name: &str, value: Option<String>| argv.extend(value.into_iter().flat_map(|v| [name.into(), v]));
        option("--rate", self.rate.map(|rate| rate.to_string()));
        option("--outstanding", Some(self.outstanding.to_string()));
        option("--seconds", Some(self.seconds.to_string()));
        option("--hot", self.hot.map(|names| names.to_string()));
        option("--salt", Some(self.salt.to_string()));
        option("--queries", self.queries.map(|queries| queries.to_string()));
        argv.into_iter().map(Into::into).collect()
    }
}

/// An address that is free for UDP and TCP now. Servers that cannot choose for themselves are told to listen there.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..20 {
        let address = UdpSocket::bind(LOOPBACK)?.local_addr()?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of 127.0.0.1 is free for both UDP and TCP")
}
