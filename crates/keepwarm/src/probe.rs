//! `keepwarm probe`: what a request to a URL takes, phase by phase, when nothing is ready and when a connection is.
//!
//! Three requests: cold, over the same connection again, and over a new connection that resumes the session. Here are the flags and
//! the order of events; how an origin is reached is in `origin`, which `keepwarm bench https` shares. What is deliberately not here:
//! the daemon, whose connections `keepwarm addresses` and `keepwarm pools` show.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use keepwarm_https::{Client, RequestOptions};

use crate::{
    cli::{Exit, complain, print},
    runtime::block_on,
};

mod addresses;
pub(crate) mod ask;
pub(crate) mod origin;
pub(crate) mod report;

use ask::{Answer, Failed, ask};
use origin::{Found, Origin, OriginArgs, Url};
use report::{Kind, Report, Row};

/// Arguments of `keepwarm probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// URL to ask for, such as www.example.com/path; without a scheme, https.
    #[arg(value_name = "URL")]
    pub url: Url,
    /// Ask each address of the name once, over a connection of its own, instead of one address three times.
    #[arg(long, conflicts_with = "count")]
    pub all: bool,
    /// Rounds of three requests; what keepwarm saves is told of their medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub count: u16,
    /// Method of the requests.
    #[arg(long, value_name = "METHOD", default_value = "HEAD", ignore_case = true)]
    pub method: Method,
    /// How to connect.
    #[command(flatten)]
    pub origin: OriginArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Methods that change nothing at the server (RFC 9110 section 9.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The head alone.
    #[value(name = "HEAD")]
    Head,
    /// With the body, which is read to its end.
    #[value(name = "GET")]
    Get,
}

impl From<Method> for hyper::Method {
    fn from(method: Method) -> hyper::Method {
        match method {
            Method::Head => hyper::Method::HEAD,
            Method::Get => hyper::Method::GET,
        }
    }
}

/// Asks and shows. Ends with [`Exit::Failure`] when a request was not answered; any status is an answer.
///
/// # Errors
/// When the first request failed, a file cannot be read, or the profile cannot be used here.
pub fn main(args: &ProbeArgs) -> anyhow::Result<Exit> {
    let origin = match open(&args.url, &args.origin)? {
        Ok(origin) => origin,
        Err(exit) => return Ok(exit),
    };
    let method = args.method.into();
    if args.all {
        let report = block_on(addresses::probe(&origin, &method))??;
        let text = if args.json { json(&report)? } else { report.text() };
        print(&text)?;
        return Ok(if report.ok { Exit::Ok } else { Exit::Failure });
    }
    let report = block_on(probe(&origin, &method, args.count))??;
    if args.json {
        print(&json(&report)?)?;
    } else if let [Row { failed: Some(failed), .. }] = &*report.requests {
        complain(&format!("keepwarm: {}\n", report::explained(failed)));
    } else {
        print(&report.text())?;
    }
    Ok(if report.ok { Exit::Ok } else { Exit::Failure })
}

/// Makes an origin of a URL and how to connect; what is wrong with the proxy's URL is told here, and is a fault of the command line.
pub(crate) fn open(url: &Url, args: &OriginArgs) -> anyhow::Result<Result<Origin, Exit>> {
    match args.proxy.as_ref().map(origin::ProxyUrl::parse).transpose() {
        Ok(proxy) => Origin::new(url, args, proxy).map(Ok),
        Err(problem) => {
            complain(&format!("error: {problem}\n\nFor more information, try '--help'.\n"));
            Ok(Err(Exit::Usage))
        }
    }
}

/// Does ahead what a process pays once, so that no phase of the first request shows it: the TLS library collects randomness for some
/// 50 ms, and certificates are read.
fn get_ready(origin: &Origin) -> anyhow::Result<()> {
    // It only has to have happened; a library without randomness fails the handshake, and says so there.
    let _ = aws_lc_rs::rand::fill(&mut [0; 32]);
    origin.client(&[], 1).map(drop)
}

/// Rounds of requests, up to the first that failed.
async fn probe(origin: &Origin, method: &hyper::Method, rounds: u16) -> anyhow::Result<Report> {
    get_ready(origin)?;
    let mut report = Report::new(origin, method);
    for round in 1..=rounds {
        let found = match origin.find().await {
            Ok(found) => found,
            Err(error) => {
                report.requests.push(Row::failed(round, Kind::Cold, None, error.into()));
                break;
            }
        };
        let client = origin.client(&found.addresses, CONNECTIONS)?;
        report.addresses.clone_from(&found.addresses);
        let ended = three(origin, method, round, &found, &client, &mut report).await;
        client.close(Duration::ZERO).await;
        if ended.is_err() {
            break;
        }
    }
    report.conclude();
    Ok(report)
}

/// One round: a client that knows nothing, then its connection again, then a new connection with its ticket.
async fn three(
    origin: &Origin,
    method: &hyper::Method,
    round: u16,
    found: &Found,
    client: &Client,
    report: &mut Report,
) -> Result<(), ()> {
    // Addresses that were given are there before the clock starts, as those from DNS are.
    let known = client.find_addresses(origin.url.authority()).await;
    let cold = match known {
        Ok(()) => ask(client, &origin.url, method, RequestOptions::default()).await,
        Err(error) => Err(Failed::from(error)),
    };
    let address = cold.as_ref().ok().map(|answer| answer.served.address.ip());
    note_others(client, origin, address, report);
    note(report, round, Kind::Cold, found.dns, cold)?;
    let again = RequestOptions { address, ..RequestOptions::default() };
    let reused = ask(client, &origin.url, method, again.clone()).await;
    note(report, round, Kind::Reused, None, reused)?;
    let fresh = RequestOptions { fresh: true, ..again };
    let resumed = ask(client, &origin.url, method, fresh).await;
    note(report, round, Kind::Resumed, None, resumed)
}

fn note(
    report: &mut Report,
    round: u16,
    kind: Kind,
    dns: Option<Duration>,
    result: Result<Answer, Failed>,
) -> Result<(), ()> {
    let (row, outcome) = match result {
        Ok(answer) => (Row::answered(round, kind, dns, &answer), Ok(())),
        Err(failed) => (Row::failed(round, kind, dns, failed), Err(())),
    };
    report.requests.push(row);
    outcome
}

/// Notes the addresses that failed before another one answered.
fn note_others(client: &Client, origin: &Origin, used: Option<IpAddr>, report: &mut Report) {
    let rows = client.inventory(origin.url.authority()).unwrap_or_default();
    for row in rows.into_iter().filter(|row| used.is_some_and(|used| used != row.ip)) {
        if let Some(error) = row.last_error {
            report.note(format!("{} failed: {error}", row.ip));
        }
    }
}

pub(crate) fn json(report: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(report).context("write json")?))
}

/// The cold connection, the one that resumes, and one to another address that came too late.
const CONNECTIONS: usize = 8;
