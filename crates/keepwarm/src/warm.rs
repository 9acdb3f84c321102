//! `keepwarm warm`: connections of an origin made ready, with a bar that says how far that has come.
//!
//! The running daemon keeps what it made ready; with `-c` it is shown that it can be done, and everything is closed again.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    ask::{AskArgs, unavailable},
    cli::{Exit, complain, print},
    logging::LogFilter,
    origin::parse_origin,
    run::{self, OwnClient, Validation},
};
use keepwarm_control::{
    client,
    https::{WarmRequest, WarmRow},
};

/// Arguments of `keepwarm warm`.
#[derive(Debug, Clone, Args)]
pub struct WarmArgs {
    /// Host, HOST:PORT or https://HOST.
    #[arg(value_name = "ORIGIN", value_parser = parse_origin)]
    pub origin: String,
    /// Connections that are to be ready; not more than the config's https.pool.max_idle.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Connect from here as this config file says, and close everything again. Without it, the running daemon connects.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["control", "token_file"])]
    pub config: Option<PathBuf>,
}

/// Makes connections ready. Ends with [`Exit::Failure`] when fewer are.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers; its words, or those about the config file.
pub fn main(args: &WarmArgs, log: Option<LogFilter>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let mut progress = Progress::new(usize::from(args.connections));
    let row = runtime.block_on(Box::pin(async {
        match &args.config {
            None => by_daemon(args, &mut progress).await,
            Some(file) => from_here(file, args, log, &mut progress).await,
        }
    }));
    // A look-up of the system's resolver cannot be interrupted.
    runtime.shutdown_background();
    progress.end();
    let row = row?;
    print(&format!("{}: {}\n", args.origin, words(&row)))?;
    if let Some(error) = &row.error {
        complain(&format!("keepwarm: {error}\n"));
    }
    Ok(if row.open >= row.wanted { Exit::Ok } else { Exit::Failure })
}

async fn by_daemon(args: &WarmArgs, progress: &mut Progress) -> anyhow::Result<WarmRow> {
    let request = WarmRequest { origin: args.origin.clone(), connections: args.connections.into() };
    let daemon = args.ask.daemon()?;
    let mut last = None;
    let each = |row: WarmRow| {
        progress.show(&row);
        last = Some(row);
    };
    let asked = client::post_lines(&daemon, "/api/v1/https/warm", &request, PATIENCE, each).await;
    asked.map_err(unavailable)?;
    last.filter(|row| row.done).context("the daemon ended before the connections were ready")
}

async fn from_here(
    file: &Path,
    args: &WarmArgs,
    log: Option<LogFilter>,
    progress: &mut Progress,
) -> anyhow::Result<WarmRow> {
    let own = OwnClient::open(file, &args.origin, Validation::AsConfigured, log)?;
    let wanted = usize::from(args.connections);
    let row = match run::warmable(wanted, own.max_idle) {
        Err(problem) => Err(anyhow::Error::msg(problem)),
        Ok(()) => {
            let mut last = WarmRow { wanted, ..WarmRow::default() };
            let each = |now: &keepwarm_https::WarmUp| {
                last = run::step(now);
                progress.show(&last);
            };
            let warmed = own.client.warm_up(&args.origin, wanted, each);
            Ok(match tokio::time::timeout(run::WARM_UP_MAX, warmed).await {
                Ok(Ok(now)) => WarmRow { done: true, ..run::step(&now) },
                Ok(Err(error)) => WarmRow { done: true, error: Some(error.to_string()), ..last },
                Err(_) => WarmRow { done: true, error: Some(run::late()), ..last },
            })
        }
    };
    own.close().await;
    row
}

/// A bar on standard error; lines where that is no terminal.
struct Progress {
    bar: Option<ProgressBar>,
    told: Option<WarmRow>,
}

impl Progress {
    fn new(wanted: usize) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:28.green} {pos} of {len}  {msg}  {elapsed:.dim}")
                .expect("the template is well-formed");
            let bar = ProgressBar::new(wanted as u64).with_style(style);
            bar.enable_steady_tick(TICK);
            bar
        });
        Progress { bar, told: None }
    }

    fn show(&mut self, row: &WarmRow) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(row.open as u64);
                bar.set_message(of_addresses(row));
            }
            None if is_worth_a_line(self.told.as_ref(), row) => {
                complain(&format!("{}\n", words(row)));
                self.told = Some(row.clone());
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a tenth more connections are open than when it was told last. The last line is told elsewhere.
fn is_worth_a_line(told: Option<&WarmRow>, row: &WarmRow) -> bool {
    let step = (row.wanted / 10).max(1);
    !row.done && told.is_none_or(|told| row.open.abs_diff(told.open) >= step)
}

fn words(row: &WarmRow) -> String {
    format!("{} of {} connections ready, {}", row.open, row.wanted, of_addresses(row))
}

fn of_addresses(row: &WarmRow) -> String {
    let plural = if row.addresses == 1 { "" } else { "es" };
    match row.failed {
        0 => format!("{} good address{plural}", row.addresses),
        failed => format!("{} good address{plural}, {failed} failed", row.addresses),
    }
}

const TICK: Duration = Duration::from_millis(100);

/// Beyond what a warm-up may take in the daemon, so that its own words come first.
const PATIENCE: Duration = Duration::from_secs(130);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_tenths_and_in_words() {
        let row = |open, failed| WarmRow { wanted: 40, open, addresses: open, failed, ..WarmRow::default() };
        assert_eq!(words(&row(1, 0)), "1 of 40 connections ready, 1 good address");
        assert_eq!(words(&row(7, 2)), "7 of 40 connections ready, 7 good addresses, 2 failed");
        assert!(is_worth_a_line(None, &row(0, 0)));
        assert!(!is_worth_a_line(Some(&row(0, 0)), &row(3, 0)));
        assert!(is_worth_a_line(Some(&row(0, 0)), &row(4, 0)));
        assert!(is_worth_a_line(Some(&row(9, 0)), &row(5, 0)), "connections may be lost again");
        assert!(!is_worth_a_line(None, &WarmRow { done: true, ..row(40, 0) }));
    }
}
