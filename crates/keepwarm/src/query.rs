//! Asking a name through the daemon or a config.

use crate::{
    cli::{Exit, QueryArgs},
    logging::LogFilter,
};

/// Asks and prints.
///
/// # Errors
/// When no answer came.
pub fn main(args: &QueryArgs, log: Option<LogFilter>) -> anyhow::Result<Exit> {
    drop(log);
    anyhow::bail!("`query` is not built yet ({})", args.name)
}
