//! `keepwarm lab`.

use crate::cli::Exit;

/// Arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct LabArgs {}

/// Runs the lab.
///
/// # Errors
/// When it cannot listen.
pub fn main(_args: &LabArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`lab` is not built yet")
}
