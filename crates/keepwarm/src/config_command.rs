//! `keepwarm config`: the config in force, an example, the schema.

use crate::{
    cli::{ConfigCommand, Exit, ShowArgs, print},
    config::{EXAMPLE, Show, Source, schema},
    logging::LogFilter,
};

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
    let effective = Source::of_command(args.config.as_deref(), &args.set).with_log(log).load()?.effective;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&effective)?));
    }
    // Where a default is from is half of what is asked.
    print(&effective.to_toml(Show { defaults: args.defaults || args.origin, origins: args.origin }))
}
