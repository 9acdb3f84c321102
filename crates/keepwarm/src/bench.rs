//! `keepwarm bench`: what keepwarm's connections cost and save, against a server of the user's choice.
//!
//! A subcommand a kind of traffic. What is deliberately not here: other programs beside it, which the repository's `bench` measures.

use clap::{Args, Subcommand};

use crate::cli::Exit;

mod https;
mod tunnel;

pub use https::HttpsArgs;
pub use tunnel::TunnelArgs;

/// Arguments of `keepwarm bench`.
#[derive(Debug, Clone, Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub what: BenchCommand,
}

/// What `keepwarm bench` can measure.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Requests to a URL over new connections, over resumed ones and over warm ones.
    Https(HttpsArgs),
    /// Tunnels through a proxy over fresh connections and over spares; without flags through a proxy of the lab, 50 ms away.
    Tunnel(TunnelArgs),
}

/// Measures and shows.
///
/// # Errors
/// When nothing could be measured.
pub fn main(args: &BenchArgs) -> anyhow::Result<Exit> {
    match &args.what {
        BenchCommand::Https(args) => https::main(args),
        BenchCommand::Tunnel(args) => tunnel::main(args),
    }
}
