//! `keepwarm top`: the running daemon live in a terminal, or as plain tables where standard output is none.
//!
//! What is shown and what keys do is in `app`, which is pure; how it looks is in `draw`; figures per second are in `rates`. Here are the
//! terminal, the signals and the daemon.

mod app;
mod draw;
mod fields;
mod rates;

use std::{
    convert::Infallible,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::sync::watch;

use crate::{
    ask::{AskArgs, unavailable},
    cli::Exit,
    runtime::block_on,
    table,
};
use app::{After, App, Update};
use keepwarm_control::{
    client::{self, ClientError, Daemon},
    events::EventRow,
    rows::StatusRow,
};
use rates::Look;

/// Arguments of `keepwarm top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Print plain tables, as where standard output is no terminal.
    #[arg(long)]
    pub plain: bool,
    /// Plain: seconds between two tables.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: Option<u16>,
    /// Plain: how many tables [default: 1, without end with --interval].
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// Shows the daemon until `q`, Ctrl-C or a signal; or prints tables.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the start; one that goes later is waited for.
pub fn main(args: &TopArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    let is_plain = args.plain || args.interval.is_some() || args.count.is_some() || !io::stdout().is_terminal();
    block_on(async {
        let mut signals = Signals::new().context("listen for signals")?;
        match is_plain {
            true => tokio::select! {
                done = plain(&daemon, args) => done,
                exit = signals.next() => Ok(exit),
            },
            false => live(&daemon, &mut signals).await,
        }
    })?
}

/// The live view. The terminal is as it was however this ends.
async fn live(daemon: &Daemon, signals: &mut Signals) -> anyhow::Result<Exit> {
    // Asked before the screen is taken: an address or a token that is wrong is better told on the command line.
    let status: StatusRow = client::get(daemon, "/api/v1/status").await.map_err(unavailable)?;
    let is_colored = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut app = App::new(daemon.address, &status, is_colored);
    let (sender, mut updates) = watch::channel(None);
    let mut listening = std::pin::pin!(listen(daemon, &sender));
    let mut keys = EventStream::new();
    let mut screen = Screen::open().context("use the terminal")?;
    loop {
        screen.0.draw(|frame| draw::draw(&mut app, frame)).context("draw")?;
        let after = tokio::select! {
            never = listening.as_mut() => match never {},
            _ = updates.changed() => {
                let update = updates.borrow_and_update().clone();
                update.map_or(After::Draw, |update| app.update(update))
            }
            key = keys.next() => match key {
                Some(event) => app.event(&event.context("read the terminal")?),
                None => After::Quit,
            },
            exit = signals.next() => return Ok(exit),
        };
        if after == After::Quit {
            return Ok(Exit::Ok);
        }
    }
}

/// Listens to the daemon, and again after it has gone.
async fn listen(daemon: &Daemon, updates: &watch::Sender<Option<Update>>) -> Infallible {
    let mut tries = 0;
    loop {
        let ended = client::events(daemon, |row| {
            tries = 0;
            updates.send_replace(Some(Update::Look(row.into())));
        });
        let why = match ended.await {
            Ok(()) => "it stopped".to_owned(),
            Err(ClientError::NotRunning { cause, .. } | ClientError::Protocol { cause, .. }) => cause,
            Err(error @ (ClientError::Unauthorized { .. } | ClientError::Refused { .. })) => error.to_string(),
        };
        tries += 1;
        updates.send_replace(Some(Update::Lost { why, tries }));
        tokio::time::sleep(AGAIN).await;
    }
}

/// Tables, one after another.
async fn plain(daemon: &Daemon, args: &TopArgs) -> anyhow::Result<Exit> {
    let interval = Duration::from_secs(args.interval.unwrap_or(1).into());
    let count = args.count.or(args.interval.is_none().then_some(1));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<EventRow> = None;
    let mut shown = 0;
    loop {
        ticks.tick().await;
        let row = now(daemon).await.map_err(unavailable)?;
        let look = Look::new(row.clone(), before.as_ref());
        let text = fields::plain(&look, table::terminal_width());
        if !put(&format!("{}{text}", if shown > 0 { "\n" } else { "" }))? {
            return Ok(Exit::Ok);
        }
        (before, shown) = (Some(row), shown + 1);
        if count.is_some_and(|count| shown >= count) {
            return Ok(Exit::Ok);
        }
    }
}

/// The daemon now, in the form of an event.
async fn now(daemon: &Daemon) -> Result<EventRow, ClientError> {
    Ok(EventRow {
        status: client::get(daemon, "/api/v1/status").await?,
        pools: client::get(daemon, "/api/v1/pools").await?,
        upstreams: client::get(daemon, "/api/v1/upstreams").await?,
        recent: client::get(daemon, "/api/v1/recent").await?,
    })
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

/// The terminal while it is ours: raw, and on its other screen. It is given back on drop, and by a panic before its message.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Screen> {
        ratatui::try_init().map(Screen).inspect_err(|_| ratatui::restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
        // `restore` leaves the cursor hidden; when that cannot be helped there is nobody left to tell.
        let _ = self.0.show_cursor();
    }
}

/// The signals that end the view.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one, and says how the command ends with it: well by Ctrl-C.
    #[cfg(unix)]
    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Signal(15),
            _ = self.hang_up.recv() => Exit::Signal(1),
            _ = tokio::signal::ctrl_c() => Exit::Ok,
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Exit {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Exit::Ok,
            Err(_) => std::future::pending().await,
        }
    }
}

/// How soon a daemon that has gone is tried again: 1 s.
const AGAIN: Duration = Duration::from_secs(1);
