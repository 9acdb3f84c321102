//! `keepwarm addresses`: where the addresses of an origin stand.
//!
//! The running daemon is asked; with `-c` they are found and asked once from here, over connections of this process. What the rows look
//! like is in `rows`.

mod rows;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::{
    ask::{AskArgs, Format, OutputArgs, json, unavailable},
    cli::{Exit, complain, print},
    config::words::parse_duration,
    logging::LogFilter,
    origin::parse_origin,
    run::{self, OwnClient, Validation},
};
use keepwarm_control::{
    client,
    https::{AccessChanged, AccessRequest, AddressRow, parse_net},
};

/// Arguments of `keepwarm addresses`.
#[derive(Debug, Clone, Args)]
pub struct AddressesArgs {
    /// Host, HOST:PORT or https://HOST.
    #[arg(value_name = "ORIGIN", value_parser = parse_origin)]
    pub origin: String,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Find and ask the addresses from here, once, as this config file says. Without it, the running daemon is asked.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["control", "token_file"])]
    pub config: Option<PathBuf>,
    /// With --config: how long to wait for them.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = wait, requires = "config")]
    pub wait: Duration,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Order of the rows.
    #[arg(long, value_name = "BY", default_value = "ip")]
    pub sort: Sort,
    /// Ban an address or a network in the running daemon until it is allowed again; may be repeated.
    #[arg(long, value_name = "NET", value_parser = parse_net, conflicts_with = "config")]
    pub ban: Vec<IpNet>,
    /// End bans in a network, and let it in beside what the config allows; may be repeated.
    #[arg(long, value_name = "NET", value_parser = parse_net, conflicts_with = "config")]
    pub allow: Vec<IpNet>,
}

/// What rows are sorted by; those that are equal, by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Address.
    Ip,
    /// State, the good ones first.
    State,
    /// Latency, the fastest first, unknown ones last.
    Latency,
    /// Failures, the most first.
    Failures,
    /// Requests, the most first.
    Requests,
}

/// Shows the addresses of an origin.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers; its words, or those about the config file.
pub fn main(args: &AddressesArgs, log: Option<LogFilter>) -> anyhow::Result<Exit> {
    let mut rows = match &args.config {
        None => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
            runtime.block_on(from_daemon(args))?
        }
        Some(file) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
            let rows = runtime.block_on(Box::pin(from_here(file, &args.origin, args.wait, log)));
            // A look-up of the system's resolver cannot be interrupted.
            runtime.shutdown_background();
            rows?
        }
    };
    rows::sort(&mut rows, args.sort);
    print(&match args.output.format() {
        Format::Table => rows::table(&rows),
        Format::Json => json(&rows)?,
        Format::Csv => rows::csv(&rows),
    })
}

async fn from_daemon(args: &AddressesArgs) -> anyhow::Result<Vec<AddressRow>> {
    let daemon = &args.ask.daemon()?;
    let nets = args.ban.iter().map(|net| ("ban", net)).chain(args.allow.iter().map(|net| ("allow", net)));
    for (what, net) in nets {
        let request = AccessRequest { origin: args.origin.clone(), net: net.to_string() };
        let path = format!("/api/v1/https/{what}");
        let asked = client::post(daemon, &path, &request, client::TIMEOUT);
        let AccessChanged { addresses: known } = asked.await.map_err(unavailable)?;
        let done = if what == "ban" { "banned" } else { "allowed" };
        complain(&format!("{done} {net}: {known} known {}\n", addresses(usize::try_from(known).unwrap_or(usize::MAX))));
    }
    // What an authority may hold and a query may not.
    let origin = args.origin.replace('[', "%5B").replace(']', "%5D");
    let path = format!("/api/v1/https/addresses?origin={origin}");
    client::get(daemon, &path).await.map_err(unavailable)
}

async fn from_here(
    file: &Path,
    origin: &str,
    patience: Duration,
    log: Option<LogFilter>,
) -> anyhow::Result<Vec<AddressRow>> {
    let own = OwnClient::open(file, origin, Validation::Each, log)?;
    let until = tokio::time::Instant::now() + patience;
    let found = tokio::time::timeout_at(until, own.client.find_addresses(origin)).await;
    let trouble = match found {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no addresses of {origin} were found within {patience:?}")),
    };
    let mut rows = own.client.inventory(origin)?;
    while rows.iter().any(is_open_question) && tokio::time::Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        rows = own.client.inventory(origin)?;
    }
    own.close().await;
    match trouble {
        Some(trouble) if rows.is_empty() => anyhow::bail!(trouble),
        Some(trouble) => complain(&format!("keepwarm: {trouble}\n")),
        None => {}
    }
    let open = rows.iter().filter(|row| is_open_question(row)).count();
    if open > 0 {
        complain(&format!("keepwarm: {open} {} had not answered within {patience:?}\n", addresses(open)));
    }
    Ok(rows.into_iter().map(run::address).collect())
}

/// Whether nothing is known of an address yet.
fn is_open_question(row: &keepwarm_https::inventory::AddressRow) -> bool {
    use keepwarm_https::inventory::AddressState::{Candidate, Probing};
    matches!(row.state, Candidate | Probing)
}

fn addresses(count: usize) -> &'static str {
    if count == 1 { "address" } else { "addresses" }
}

fn wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(wait) if (MIN..=MAX).contains(&wait) => Ok(wait),
        Ok(_) => Err("accepted: 1s to 1h".into()),
        Err(error) => Err(format!("{}; {}", error.problem, error.accepted)),
    }
}

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(3600);

/// How often it is looked whether every address has answered.
const LOOK: Duration = Duration::from_millis(20);
