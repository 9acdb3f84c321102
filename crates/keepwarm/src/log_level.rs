//! `keepwarm log`: what the running daemon logs, and another level for a while.

use std::time::Duration;

use clap::Args;

use crate::{
    ask::{AskArgs, OutputArgs, unavailable},
    cli::{Exit, print},
    config::words::parse_duration,
    logging::LogFilter,
    pools::age,
    runtime::block_on,
    table::visible,
};
use keepwarm_control::{
    client,
    rows::{LogPatch, LogRow},
};

/// Arguments of `keepwarm log`.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Level or filter, such as "debug" or "info,keepwarm_pool=debug"; shown without.
    #[arg(value_name = "LEVEL", value_parser = level)]
    pub level: Option<String>,
    /// For how long, 1s to 1d; then the level is that of the config again.
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = duration, requires = "level")]
    pub duration: Duration,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Asks the daemon what it logs, or to log otherwise.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address; the daemon's words when it refuses.
pub fn main(args: &LogArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    let row: LogRow = block_on(async {
        match &args.level {
            None => client::get(&daemon, "/api/v1/log").await,
            Some(level) => {
                let patch = LogPatch { level: level.clone(), seconds: args.duration.as_secs() };
                client::patch(&daemon, "/api/v1/log", &patch).await
            }
        }
    })?
    .map_err(unavailable)?;
    print(&args.output.one(&row, &["level"], || text(&row))?)
}

fn text(row: &LogRow) -> String {
    let level = visible(&row.level);
    match row.reverts_in {
        Some(left) => format!("{level}, for {} more; then {}\n", age(left), visible(&row.configured)),
        None => format!("{level}\n"),
    }
}

fn level(text: &str) -> Result<String, String> {
    text.parse::<LogFilter>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if (MIN..=MAX).contains(&duration) => Ok(duration),
        Ok(_) => Err("accepted: 1s to 1d".into()),
        Err(error) => Err(format!("{}; {}", error.problem, error.accepted)),
    }
}

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_for_a_while_says_when_it_ends() {
        let row =
            LogRow { level: "debug".into(), configured: "info".into(), reverts_in: Some(Duration::from_secs(600)) };
        assert_eq!(text(&row), "debug, for 10 min more; then info\n");
        assert_eq!(text(&LogRow { reverts_in: None, ..row }), "debug\n");
    }

    #[test]
    fn a_level_and_its_time_are_checked_before_anybody_is_asked() {
        assert!(level("info,keepwarm_pool=debug").is_ok());
        assert!(level("loud").unwrap_err().contains("unknown level"));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("2d").is_err() && duration("100ms").is_err() && duration("10").is_err());
    }
}
