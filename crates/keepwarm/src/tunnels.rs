//! `keepwarm tunnels`: upstreams and their spares, destinations in use and live tunnels of the running daemon, once or again and again.
//!
//! The figures are the daemon's. How they are laid out is in `layout`, how they fit a terminal in `sheet`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::{
    ask::{AskArgs, Format, OutputArgs, json, unavailable},
    cli::Exit,
    runtime::block_on,
    table::csv,
};
use keepwarm_control::{
    client,
    tunnel::{DestinationRow, LiveRow, TunnelStatus},
};

mod layout;
mod sheet;

pub(crate) use layout::spares;

/// Arguments of `keepwarm tunnels`.
#[derive(Debug, Clone, Args)]
pub struct TunnelsArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Show each live tunnel too, the oldest first, up to 1,000.
    #[arg(long)]
    pub live: bool,
    /// Show it again every so many seconds, in place on a terminal, until Ctrl-C; JSON is a line each time.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub watch: Option<u16>,
    /// How. JSON has a line each time with --watch; CSV has the upstreams, and with --live the live tunnels.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is shown at a time.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
struct View {
    tunnel: TunnelStatus,
    destinations: Vec<DestinationRow>,
    /// None without `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnels: Option<Vec<LiveRow>>,
}

/// Asks the daemon and prints what it says, again and again with `--watch`: Ctrl-C is then how it ends well.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address, also when it has gone meanwhile; the daemon's words where
/// it has no tunnels.
pub fn main(args: &TunnelsArgs) -> anyhow::Result<Exit> {
    block_on(async {
        let Some(seconds) = args.watch else { return once(args).await.map(|_| Exit::Ok) };
        tokio::select! {
            ended = watch(args, Duration::from_secs(seconds.into())) => ended,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for Ctrl-C").map(|()| Exit::Ok),
        }
    })?
}

async fn watch(args: &TunnelsArgs, every: Duration) -> anyhow::Result<Exit> {
    let is_terminal = io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        ticks.tick().await;
        let view = ask(args).await?;
        let frame = match args.output.format() {
            Format::Json => format!("{}\n", serde_json::to_string(&view).context("write json")?),
            Format::Csv => view.csv()?,
            Format::Table if is_terminal => in_place(&view.text(width())),
            Format::Table => format!("{}{}", if is_first { "" } else { "\n" }, view.text(None)),
        };
        if !put(&frame)? {
            return Ok(Exit::Ok);
        }
        is_first = false;
    }
}

async fn once(args: &TunnelsArgs) -> anyhow::Result<bool> {
    let view = ask(args).await?;
    put(&match args.output.format() {
        Format::Json => json(&view)?,
        Format::Csv => view.csv()?,
        Format::Table => view.text(width()),
    })
}

impl View {
    /// The upstreams; the live tunnels where they are shown: lines of CSV are of one kind.
    fn csv(&self) -> anyhow::Result<String> {
        match &self.tunnels {
            Some(tunnels) => csv(tunnels, &["client", "destination", "upstream"]),
            None => csv(&self.tunnel.upstreams, &["name", "address"]),
        }
    }
}

async fn ask(args: &TunnelsArgs) -> anyhow::Result<View> {
    let daemon = &args.ask.daemon()?;
    let tunnel = client::get(daemon, "/api/v1/tunnel").await.map_err(unavailable)?;
    let destinations = client::get(daemon, "/api/v1/tunnel/destinations").await.map_err(unavailable)?;
    let tunnels = match args.live {
        true => Some(client::get(daemon, "/api/v1/tunnel/tunnels").await.map_err(unavailable)?),
        false => None,
    };
    Ok(View { tunnel, destinations, tunnels })
}

/// Writes to standard output; `false` when its reader went away, which is no failure.
fn put(text: &str) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Columns of the terminal; none where standard output is not one.
fn width() -> Option<usize> {
    let columns = io::stdout().is_terminal().then(|| comfy_table::Table::new().width()).flatten();
    columns.map(usize::from)
}

/// The text in place of what was shown before: from the upper left corner on, with the screen cleared. One write, so that it does not
/// flicker; clearing behind each line would take the last letter of one that just fits.
fn in_place(text: &str) -> String {
    format!("\x1b[H\x1b[J{text}")
}
