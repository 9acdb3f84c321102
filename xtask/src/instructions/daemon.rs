//! The daemon of a run, under callgrind.

use std::{
    fs,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    lab::Lab,
    path::Path,
    process::{Process, Stream},
};

/// A running daemon, counted from its first instruction on.
pub(super) struct Daemon {
    process: Process,
    /// Where it takes queries, over UDP and TCP.
    pub(super) address: SocketAddr,
    counts: PathBuf,
}

impl Daemon {
    /// Starts a daemon with one worker and waits until it listens.
    ///
    /// # Errors
    /// When it does not start; with its last words.
    pub(super) fn start(program: &FilePath, path: &Path, lab: &Lab, scratch: &FilePath) -> anyhow::Result<Daemon> {
        let file = scratch.join("keepwarm.toml");
        fs::write(&file, config(path, lab)?).context("write the daemon's config")?;
        let counts = scratch.join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
        command.arg(program).args(["run", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start("keepwarm run", &mut command, &Stream::Error)?;
        let address = process.wait_for(|line| {
            let event: Event = serde_json::from_str(line).ok()?;
            event.address.filter(|_| event.message == "dns listens")
        })?;
        Ok(Daemon { process, address, counts })
    }

    /// Stops it and returns the instructions of its whole life, those of all threads.
    ///
    /// # Errors
    /// When it does not stop in order, or callgrind left no total.
    pub(super) fn stop(self) -> anyhow::Result<u64> {
        self.process.stop()?;
        let counts = fs::read_to_string(&self.counts).context("read callgrind's counts")?;
        let total = counts.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
        total.context("callgrind left no total")
    }
}

/// A line of the daemon's log.
#[derive(Deserialize)]
struct Event {
    message: String,
    address: Option<SocketAddr>,
}

/// The defaults of the product, but for what would make runs differ: one worker, one upstream, and patience with a daemon
/// that valgrind slows down fifty times.
fn config(path: &Path, lab: &Lab) -> anyhow::Result<String> {
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut config = format!(
        r#"version = 1
[log]
format = "json"
[limits]
workers = 1
[tls]
extra_roots = [{}]
[control]
listen = "127.0.0.1:0"
[dns]
listen = ["127.0.0.1:0"]
strategy = "sequential"
timeout = "30s"
[dns.cache]
size = "{}"
[dns.pool]
acquire_timeout = "30s"
[[dns.upstream]]
name = "lab"
address = {}
"#,
        text(&lab.ca.to_string_lossy()),
        if path.hot_names.is_some() { "64MiB" } else { "0" },
        text(lab.address(path.upstream)?),
    );
    if matches!(path.upstream, "tls" | "https") {
        config += "server_name = \"upstream.lab\"\n";
    }
    Ok(config)
}
