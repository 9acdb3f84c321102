//! The demo.

use crate::cli::{DemoArgs, Exit};

/// Runs the demo.
///
/// # Errors
/// When it cannot run.
pub fn main(args: &DemoArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`demo` is not built yet (seed {})", args.seed)
}
