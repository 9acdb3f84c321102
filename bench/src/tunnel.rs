//! `dns-bench tunnel`: keepwarm's tunnels beside other SOCKS5 proxies, on one machine and in one run.

use std::path::PathBuf;

use clap::Args;

mod compare;
mod destination;
mod load;
mod measure;
mod peers;
mod reading;
mod relay;
mod report;
mod row;
mod socks;
mod workshop;

pub(crate) use destination::run as destination;
pub(crate) use load::{LoadArgs, run as load};
pub(crate) use relay::{RelayArgs, run as relay};

/// What is compared.
#[derive(Args)]
pub(crate) struct TunnelArgs {
    /// Measure once and briefly, and print the tables; the page is written with --out only.
    #[arg(long)]
    quick: bool,
    /// Measure each proxy so often; the median and the range are shown [default: 3, with --quick 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    reps: Option<u32>,
    /// Proxies to measure [default: all that can be had].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    names: Vec<peers::Kind>,
    /// Rows to measure [default: all].
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    only: Vec<row::Row>,
    /// Use this keepwarm [default: `cargo build --release` makes it].
    #[arg(long, value_name = "PROGRAM")]
    keepwarm: Option<PathBuf>,
    /// Write the page to this file [default: docs/tunnel-bench.md].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) const HELP: &str = "\
Rows: setup, setup-user, setup32, setup32-user (short tunnels to loopback, one at a time and 32, without and with user and password),
upstream, upstream32 (the same through another SOCKS5 proxy), down, down8, up, up8 (CPU per GB, over 1 stream and 8), ready, ready20
(the upstream proxy 50 ms away, 1 and 20 tunnels a second), idle (memory of 1,000 tunnels).
fast-socks5 is built on first use. microsocks and danted are used where they are installed. Ctrl-C stops everything.";

/// Compares.
pub(crate) fn run(args: &TunnelArgs) -> anyhow::Result<()> {
    compare::run(args)
}

/// User and password of everything in this bench that wants one.
const USER: &str = "bench";
