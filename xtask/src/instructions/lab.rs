//! The upstream of a run: `keepwarm lab`, not under valgrind.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde::Deserialize;

use super::process::{Process, Stream};

/// A running lab.
pub(super) struct Lab {
    process: Process,
    addresses: BTreeMap<String, String>,
    /// The certificate of its CA, as a PEM file.
    pub(super) ca: PathBuf,
}

impl Lab {
    /// Starts a lab on free ports of loopback.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(program: &Path, scratch: &Path) -> anyhow::Result<Lab> {
        let mut command = Command::new(program);
        command.args(["lab", "--json", "--ttl", TTL, "--ca"]).arg(scratch.join("ca.pem"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start("keepwarm lab", &mut command, &Stream::Output)?;
        let Introduction { addresses, ca } = process.wait_for(|line| serde_json::from_str(line).ok())?;
        Ok(Lab { process, addresses, ca })
    }

    /// The URL for `udp`, `tcp`, `tls` or `https`.
    pub(super) fn address(&self, transport: &str) -> anyhow::Result<&str> {
        let address = self.addresses.get(transport).map(String::as_str);
        address.with_context(|| format!("the lab has no address for {transport}"))
    }

    /// Stops it and returns the queries that came to it over one transport.
    ///
    /// # Errors
    /// When it does not stop or does not say what it counted.
    pub(super) fn stop(self, transport: &str) -> anyhow::Result<u64> {
        let said = self.process.stop()?;
        let counters = said.iter().rev().find_map(|line| serde_json::from_str::<BTreeMap<String, Counters>>(line).ok());
        let counters = counters.as_ref().and_then(|counters| counters.get(transport));
        counters.map(|counters| counters.queries).context("the lab does not say what it counted")
    }
}

/// The first line of a lab.
#[derive(Deserialize)]
struct Introduction {
    addresses: BTreeMap<String, String>,
    ca: PathBuf,
}

/// What is needed of the last line of a lab.
#[derive(Deserialize)]
struct Counters {
    queries: u64,
}

/// TTL of the answers in seconds: no answer comes near its end in a run.
const TTL: &str = "3600";
