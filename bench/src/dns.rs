//! The commands, and the order of a run.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

mod blast;
mod compare;
mod figures;
mod floor;
mod measure;
mod memory;
mod net;
mod peers;
mod plan;
mod ready;
mod report;
mod scaling;
mod stream;
mod stub;
mod tools;
mod wire;

use crate::{control, faults, https, pin, tunnel};

/// Measures keepwarm beside other DNS forwarders, HTTPS clients and SOCKS5 proxies.
#[derive(Parser)]
#[command(name = "dns-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare keepwarm with its peers and write docs/dns-bench.md and docs/dns-bench.svg.
    #[command(after_help = DNS_HELP)]
    Dns(DnsArgs),
    /// Put keepwarm before upstreams that misbehave, and count the failures that clients see. Takes about ten minutes.
    Faults(faults::FaultsArgs),
    /// Measure what scrapes, live views and stalled clients of the status endpoint cost a daemon under load.
    Control(control::ControlArgs),
    /// Compare keepwarm's HTTPS client with its peers and write docs/https-bench.md.
    #[command(after_help = https::HELP)]
    Https(https::HttpsArgs),
    /// Compare keepwarm's tunnels with other SOCKS5 proxies and write docs/tunnel-bench.md.
    #[command(after_help = tunnel::HELP)]
    Tunnel(tunnel::TunnelArgs),
    /// Answer DNS queries over UDP, TCP, DoT and DoH, as the upstream of a comparison.
    #[command(hide = true)]
    Stub(stub::StubArgs),
    /// Ask a server many questions, check every answer, and print what was measured as JSON.
    #[command(hide = true)]
    Blast(blast::BlastArgs),
    /// Forward datagrams and nothing else: the least that a UDP forwarder can cost.
    #[command(hide = true)]
    Relay(floor::RelayArgs),
    /// Answer datagrams and nothing else: the least that a cache hit can cost.
    #[command(hide = true)]
    Echo(floor::EchoArgs),
    /// Be keepwarm's HTTPS client, and print what it measured of itself as JSON.
    #[command(hide = true)]
    HttpsClient(https::KeepwarmArgs),
    /// Pass on TCP connections after a pause: the way to a server far away.
    #[command(hide = true)]
    Delay(https::DelayArgs),
    /// Echo, send or take bytes: where tunnels lead.
    #[command(hide = true)]
    TunnelDestination,
    /// Open tunnels through a SOCKS5 proxy, and print what was measured as JSON.
    #[command(hide = true)]
    TunnelLoad(tunnel::LoadArgs),
    /// Be a SOCKS5 proxy that only relays: the least that a tunnel can cost.
    #[command(hide = true)]
    TunnelRelay(tunnel::RelayArgs),
    /// Run a program on some cores only, and end it when this one ends.
    #[command(hide = true)]
    Pin(pin::PinArgs),
}

/// What is compared, and how long.
#[derive(Args)]
pub(crate) struct DnsArgs {
    /// Measure once and briefly, and print the tables; files are written with --out only.
    #[arg(long)]
    quick: bool,
    /// Measure each server so often; the median and the range are shown [default: 3, with --quick 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reps: Option<u32>,
    /// Length of one measurement [default: 1.5, with --quick 0.5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Threads of every server.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// Servers to measure: keepwarm, dnsdist, unbound, smartdns, oxidns, hickory, floor [default: all that are installed].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    names: Vec<peers::Kind>,
    /// Rows to measure [default: all].
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    only: Vec<plan::Row>,
    /// Peers from the Cargo registry to measure too: oxidns, hickory. Built on first use, which takes minutes.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    with: Vec<peers::Kind>,
    /// Use this program for a peer, for example dnsdist=/opt/dnsdist/bin/dnsdist.
    #[arg(long, value_name = "NAME=PROGRAM", value_parser = peers::named_program)]
    peer: Vec<(peers::Kind, PathBuf)>,
    /// Use this keepwarm [default: `cargo build --release` makes it].
    #[arg(long, value_name = "PROGRAM")]
    keepwarm: Option<PathBuf>,
    /// Directory for dns-bench.md and dns-bench.svg [default: docs].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Instead of comparing: load keepwarm for so long and show its memory every 10 s.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u32>,
}

const DNS_HELP: &str = "\
Rows: udp, tcp, dot, doh (that upstream, cache off), tcp-client (TCP client, UDP upstream), cache (10,000 hot names),
memory, scaling (one worker against two).
The figure to compare is the CPU time per query: it moves little where the rate follows the machine's other load.
Upstream and load generator share one core, the server has another. Ctrl-C stops everything.";

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, for example 1.5".to_owned())?;
    if (0.1..=60.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err("0.1 to 60".to_owned()) }
}

/// Parses the command line and runs the command.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dns(args) => compare::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Control(args) => control::run(&args),
        Command::Stub(args) => stub::run(&args),
        Command::Blast(args) => blast::run(&args),
        Command::Relay(args) => floor::relay(&args),
        Command::Echo(args) => floor::echo(&args),
        Command::Https(args) => https::run(&args),
        Command::HttpsClient(args) => https::keepwarm(&args),
        Command::Delay(args) => https::delay(&args),
        Command::Tunnel(args) => tunnel::run(&args),
        Command::TunnelDestination => tunnel::destination(),
        Command::TunnelLoad(args) => tunnel::load(&args),
        Command::TunnelRelay(args) => tunnel::relay(&args),
        Command::Pin(args) => pin::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
