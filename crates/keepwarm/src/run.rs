//! Starting and draining the daemon.

use crate::{cli::Exit, config::Config};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn main(config: Config) -> anyhow::Result<Exit> {
    anyhow::bail!("`run` is not built yet ({} upstreams)", config.dns.upstreams.len())
}
