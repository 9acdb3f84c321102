//! The part that all HTTPS clients of the bench share: what they are told, in which order they ask, and what they measure of
//! themselves. A client is a process of its own that gets a [`Task`] on its command line and prints an [`Outcome`] as JSON.
//!
//! It is a crate because clients that link another BoringSSL than the workspace cannot be programs of the workspace.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::{future::Future, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, ValueEnum};
use serde::{Deserialize, Serialize};

mod measure;
mod usage;

pub use measure::drive;

/// What a client is to do.
#[derive(Debug, Clone, Args)]
pub struct Task {
    /// What is asked for, with the port. Only the host's first label changes, where many hosts are wanted.
    #[arg(long)]
    pub url: String,
    /// Where every host is reached, whatever its name.
    #[arg(long)]
    pub address: SocketAddr,
    /// The only certificate, in PEM, that servers are trusted by.
    #[arg(long)]
    pub ca: PathBuf,
    /// Which connections are used.
    #[arg(long)]
    pub mode: Mode,
    /// Requests at a time.
    #[arg(long, default_value_t = 1)]
    pub concurrency: usize,
    /// Requests that count; with `idle` and `same`, the connections.
    #[arg(long)]
    pub requests: usize,
    /// Octets of a right answer.
    #[arg(long, default_value_t = 1024)]
    pub octets: usize,
}

/// Which connections requests go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Connections that are open already.
    Hot,
    /// Each over a new connection, which is closed after it.
    Cold,
    /// Each over a new connection to another host, which is kept.
    Idle,
    /// Each over a new connection to the same host, resumed where the server allows it, which is kept.
    Same,
}

/// An answer, its body read to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Octets of its body.
    pub octets: usize,
}

/// What a client measured of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// User and system time of the requests that count.
    pub cpu_s: f64,
    /// Time that they took together.
    pub wall_s: f64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: f64,
    /// All but one in a hundred took no longer, in microseconds.
    pub p99_us: f64,
    /// Resident octets before the first that counts.
    pub rss_before: u64,
    /// Resident octets after the last, with its connections still open.
    pub rss: u64,
    /// Requests in all, those included that only prepared.
    pub sent: usize,
    /// The library's version, where the client knows it.
    #[serde(default)]
    pub version: Option<String>,
}

/// An HTTPS client.
pub trait Client: Send + Sync + 'static {
    /// Asks for the task's URL over a connection that is kept for the next request.
    fn hot(&self) -> impl Future<Output = anyhow::Result<Answer>> + Send;

    /// Asks for the task's URL over a new connection that nobody uses again.
    fn cold(&self) -> impl Future<Output = anyhow::Result<Answer>> + Send;

    /// Asks over a new connection and keeps it: [`url_of`](Task::url_of) this number, or with [`Mode::Same`] the task's URL.
    fn hold(&self, number: usize) -> impl Future<Output = anyhow::Result<Answer>> + Send;
}

impl Task {
    /// The URL at another host: `https://x.lab.test:1/a` becomes `https://c7.lab.test:1/a`.
    ///
    /// # Errors
    /// The task's URL has no host with a dot.
    pub fn url_of(&self, number: usize) -> anyhow::Result<String> {
        let rest = self.url.split_once("://").and_then(|(_, rest)| rest.split_once('.'));
        let (_, rest) = rest.with_context(|| format!("{} has no host of several labels", self.url))?;
        Ok(format!("https://c{number}.{rest}"))
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    task: Task,
}

/// The main function of a program that is one client.
#[expect(clippy::print_stderr, reason = "a command for a terminal")]
pub fn main<C: Client>(make: impl AsyncFnOnce(&Task) -> anyhow::Result<C>) -> ExitCode {
    match run(&Cli::parse().task, make) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does the task on one thread and prints the outcome.
///
/// # Errors
/// The client could not be made, or a request failed.
#[expect(clippy::print_stdout, reason = "the bench reads it")]
pub fn run<C: Client>(task: &Task, make: impl AsyncFnOnce(&Task) -> anyhow::Result<C>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { drive(task, make(task).await?).await })?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_another_first_label() {
        let task = |url: &str| Task {
            url: url.to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            ca: PathBuf::new(),
            mode: Mode::Idle,
            concurrency: 1,
            requests: 1,
            octets: 1,
        };
        assert_eq!(task("https://hot.lab.test:1/a.b").url_of(7).unwrap(), "https://c7.lab.test:1/a.b");
        assert!(task("https://localhost:1/").url_of(7).is_err());
    }
}
