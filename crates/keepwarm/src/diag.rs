//! `keepwarm diag`: what somebody who helps needs to know, in one text that can be read before it is sent.
//!
//! The version, the system, its limits, the config without secrets, and what the running daemon says of itself. What is deliberately not
//! in it: secrets, values of environment variables, the addresses of clients, and the destinations of live tunnels.

mod system;

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use keepwarm_control::client::{self, ClientError, Daemon};
use serde_json::Value;

use crate::{
    ask::AskArgs,
    cli::{self, Exit},
    config::{ConfigError, Show, Source},
    runtime,
};

/// Arguments of `keepwarm diag`.
#[derive(Debug, Clone, Args)]
pub struct DiagArgs {
    /// Write it to this file, readable by its owner alone. Without it, it is printed.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The config file to show, else that of the variable KEEPWARM_CONFIG.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What the daemon is asked for. A page that it does not have is left out with a word.
const PAGES: [&str; 11] = [
    "/api/v1/status",
    "/api/v1/stats",
    "/api/v1/config",
    "/api/v1/pools",
    "/api/v1/upstreams",
    "/api/v1/dns/upstreams",
    "/api/v1/listeners",
    "/api/v1/cache",
    "/api/v1/https",
    "/api/v1/https/pools",
    "/api/v1/tunnel",
];

/// What may have names of hosts that somebody visited; the page is in the bundle, and the bundle says so.
const RECENT: &str = "/api/v1/recent";

/// Makes the bundle and writes it.
///
/// # Errors
/// When the file cannot be written. A config that is refused and a daemon that does not answer are in the bundle, and no errors.
pub fn main(args: &DiagArgs) -> anyhow::Result<Exit> {
    let bundle = runtime::block_on(bundle(args))?;
    let Some(file) = &args.file else { return cli::print(&bundle) };
    write(file, &bundle).with_context(|| format!("write {}", file.display()))?;
    cli::print(&format!("written to {}; read it before you send it\n", file.display()))
}

/// The whole text.
async fn bundle(args: &DiagArgs) -> String {
    let mut text = HEAD.to_owned();
    section(&mut text, "keepwarm", &system::program());
    section(&mut text, "system", &system::machine());
    section(&mut text, "environment (names alone)", &system::environment(std::env::vars_os().map(|(name, _)| name)));
    section(&mut text, "config", &config(&Source::of_command(args.config.as_deref(), &[])));
    match args.ask.daemon() {
        Ok(asked) => section(&mut text, &format!("daemon at {}", asked.address), &daemon(&asked).await),
        Err(error) => section(&mut text, "daemon", &format!("{error:#}\n")),
    }
    text
}

/// The config as it would be in force, each key with where it is from, without its secrets; or why it is refused.
fn config(source: &Source) -> String {
    let file = source.path().map_or_else(|| "none: the built-in default".to_owned(), |file| file.display().to_string());
    let text = match source.load() {
        Ok(loaded) => {
            let shown = loaded.effective.to_toml(Show { defaults: false, origins: true });
            let warnings = loaded.warnings.render(false);
            if warnings.is_empty() { shown } else { format!("{shown}\nwarnings:\n{warnings}\n") }
        }
        Err(ConfigError::Faults(faults)) => format!("refused:\n{}\n", faults.render(false)),
        Err(error) => format!("{error}\n"),
    };
    format!("file: {file}\n{text}")
}

/// Each page, or why there is none.
async fn daemon(asked: &Daemon) -> String {
    let mut text = String::new();
    for path in PAGES.into_iter().chain([RECENT]) {
        let page = match client::get::<Value>(asked.clone(), path).await {
            Ok(page) => format!("{page:#}"),
            // It would say the same for each page.
            Err(error @ ClientError::NotRunning { .. }) => return format!("{text}{error}\n"),
            Err(error) => format!("({error})"),
        };
        let _ = writeln!(text, "--- {path}\n{page}");
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = write!(text, "\n=== {title}\n{body}");
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    // One that was there before keeps its mode otherwise.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    io::Write::write_all(&mut file, text.as_bytes())
}

const HEAD: &str = "\
keepwarm diag: for whoever helps you. Read it before you send it.
Not in it: passwords, tokens, keys, values of variables, addresses of clients.
In it: names and addresses of your upstreams, origins and listeners, and names of users; names of hosts that clients visited, where
hot HTTPS serves any host, and in what was slow or failed lately (/api/v1/recent).
";

#[cfg(test)]
mod tests;
