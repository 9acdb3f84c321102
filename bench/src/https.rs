//! `dns-bench https`: keepwarm's HTTPS client beside other clients, before one nginx, on one machine and in one run.

use std::path::PathBuf;

use clap::Args;

mod clients;
mod compare;
mod delay;
mod measure;
mod nginx;
mod report;
mod row;

pub(crate) use clients::keepwarm::KeepwarmArgs;
pub(crate) use delay::DelayArgs;

/// What is compared.
#[derive(Args)]
pub(crate) struct HttpsArgs {
    /// Measure once and briefly, and print the tables; the page is written with --out only.
    #[arg(long)]
    quick: bool,
    /// Measure each client so often; the median and the range are shown [default: 3, with --quick 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    reps: Option<u32>,
    /// Clients to measure [default: all that can be had].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    names: Vec<clients::Kind>,
    /// Rows to measure [default: all].
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    only: Vec<row::Row>,
    /// Use this nginx [default: the one on the path].
    #[arg(long, value_name = "PROGRAM")]
    nginx: Option<PathBuf>,
    /// Write the page to this file [default: docs/https-bench.md].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) const HELP: &str = "\
Rows: hot, hot32 (one connection, one request and 32 at a time), cold (a new connection each), cold-tickets (the same where
the server gives tickets), far-hot, far-cold (the server 10 ms away), idle
(memory of 500 connections to a host each), one-host (of 500 to one host), resumed (of 500 resumed ones).
The peers are built, and the Python ones installed from PyPI, on first use, which takes minutes. Build with `--features browser`
to measure keepwarm's chrome profile too. Ctrl-C stops everything.";

/// Compares.
pub(crate) fn run(args: &HttpsArgs) -> anyhow::Result<()> {
    compare::run(args)
}

/// Is keepwarm's client, as one process of the comparison.
pub(crate) fn keepwarm(args: &KeepwarmArgs) -> anyhow::Result<()> {
    clients::keepwarm::run(args)
}

/// Is the way to a server far away.
pub(crate) fn delay(args: &DelayArgs) -> anyhow::Result<()> {
    delay::run(args)
}
