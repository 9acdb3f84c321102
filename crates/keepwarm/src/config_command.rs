//! `keepwarm config`: the config in force, an example, the schema. And how a command is told of which config it is to speak.

use std::{io, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::{
    cli::{ConfigCommand, Exit, ShowArgs, print},
    config::{EXAMPLE, Environment, Show, Source, schema},
    logging::LogFilter,
};

/// The config of a command that reads one and starts nothing with it: as its argument, or as `keepwarm run` takes it.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// Config file, else that of the variable KEEPWARM_CONFIG; "-" reads standard input. Without both, the built-in default.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The same as FILE, as `keepwarm run` takes it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl FileArgs {
    /// Where the config is from, with the environment and then `sets` over it.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn source(&self, sets: &[String]) -> anyhow::Result<Source> {
        let file = self.file.as_deref().or(self.config.as_deref());
        if file.is_some_and(|file| file.as_os_str() == "-") {
            let text = io::read_to_string(io::stdin()).context("read standard input")?;
            return Ok(Source::text("standard input", text).with_environment(Environment::capture()).with_sets(sets));
        }
        Ok(Source::of_command(file, sets))
    }
}

/// Prints what is asked for.
///
/// # Errors
/// [`ConfigError`](crate::config::ConfigError) with every fault when the config is refused.
pub fn main(what: &ConfigCommand, log: Option<&LogFilter>) -> anyhow::Result<Exit> {
    match what {
        ConfigCommand::Show(args) => show(args, log),
        ConfigCommand::Example => print(EXAMPLE),
        ConfigCommand::Schema => print(&format!("{:#}\n", schema())),
    }
}

fn show(args: &ShowArgs, log: Option<&LogFilter>) -> anyhow::Result<Exit> {
    let effective = args.config.source(&args.set)?.with_log(log).load()?.effective;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&effective)?));
    }
    // Where a default is from is half of what is asked.
    print(&effective.to_toml(Show { defaults: args.defaults || args.origin, origins: args.origin }))
}
