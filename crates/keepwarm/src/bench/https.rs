//! `keepwarm bench https`: the same request cold, resumed and hot.
//!
//! Here are the flags, the limits that keep it polite, and the order of events; the load is in `load`, the figures in `report`.

use std::{
    io::{self, IsTerminal as _},
    net::IpAddr,
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    cli::{Exit, complain, print},
    probe::{
        Method, json, open,
        origin::{Origin, OriginArgs, Url},
    },
    runtime::block_on,
};

mod load;
pub(super) mod report;

use load::Load;
use report::{Kind, Report, RunResult};

/// Arguments of `keepwarm bench https`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = POLITE)]
pub struct HttpsArgs {
    /// URL to ask for, such as 127.0.0.1:8443/tile; without a scheme, https.
    #[arg(value_name = "URL")]
    pub url: Url,
    /// Requests over warm connections; by default 10,000 to this machine and 500 to others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: Option<u32>,
    /// Requests over new connections, and again as many over resumed ones; by default 200 to this machine and 20 to others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub cold: Option<u32>,
    /// Requests at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// Method of the requests.
    #[arg(long, value_name = "METHOD", default_value = "GET", ignore_case = true)]
    pub method: Method,
    /// Go beyond the limits for hosts that are not this machine: 5,000 requests, 100 cold, 8 at a time.
    #[arg(long)]
    pub yes: bool,
    /// How to connect.
    #[command(flatten)]
    pub origin: OriginArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const POLITE: &str = "\
Each cold request costs the server a full handshake. Ask a host that is not yours for no more than its owner would mind.";

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// New connections with a full handshake, and as many with a ticket.
    cold: u32,
    hot: u32,
    concurrency: u32,
}

impl Plan {
    /// The plan for a server on this machine, or elsewhere.
    ///
    /// # Errors
    /// What is more than may be asked of a host elsewhere without `--yes`.
    fn new(args: &HttpsArgs, is_local: bool) -> Result<Plan, String> {
        let (cold, hot) = if is_local { (200, 10_000) } else { (20, 500) };
        let plan =
            Plan { cold: args.cold.unwrap_or(cold), hot: args.requests.unwrap_or(hot), concurrency: args.concurrency };
        if is_local || args.yes {
            return Ok(plan);
        }
        let limits = [
            ("--requests", plan.hot, HOT_MAX),
            ("--cold", plan.cold, COLD_MAX),
            ("--concurrency", plan.concurrency, CONCURRENCY_MAX),
        ];
        match limits.into_iter().find(|(_, value, max)| value > max) {
            None => Ok(plan),
            Some((flag, value, max)) => Err(format!(
                "{flag} {value}: {} is not this machine, and is asked for {max} at most; --yes lifts that where its owner agrees",
                args.url.host()
            )),
        }
    }
}

/// Measures and shows. Ends with [`Exit::Failure`] when a request failed; any status is an answer.
///
/// # Errors
/// When the very first request failed, a file cannot be read, or the profile cannot be used here.
pub(super) fn main(args: &HttpsArgs) -> anyhow::Result<Exit> {
    let origin = match open(&args.url, &args.origin)? {
        Ok(origin) => origin,
        Err(exit) => return Ok(exit),
    };
    block_on(measure(&origin, args))?
}

async fn measure(origin: &Origin, args: &HttpsArgs) -> anyhow::Result<Exit> {
    let addresses = origin.find().await?.addresses;
    let is_local = origin.proxy().is_none() && addresses.iter().all(IpAddr::is_loopback);
    let plan = match Plan::new(args, is_local) {
        Ok(plan) => plan,
        Err(problem) => {
            complain(&format!("error: {problem}\n"));
            return Ok(Exit::Usage);
        }
    };
    let report = run(origin, args, &addresses, plan).await?;
    print(&if args.json { json(&report)? } else { report.text() })?;
    Ok(if report.ok() { Exit::Ok } else { Exit::Failure })
}

async fn run(origin: &Origin, args: &HttpsArgs, addresses: &[IpAddr], plan: Plan) -> anyhow::Result<Report> {
    let progress = Progress::new(plan, args.json);
    let load = Load::new(origin, args.method.into(), addresses, plan.concurrency, progress.0.clone());
    // What cannot be asked once is not asked a thousand times. It also reads what is read once in a process, such as the roots.
    if let Err(failed) = load.once().await? {
        bail!("{}", failed.error);
    }
    let mut runs: Vec<RunResult> = Vec::new();
    for (kind, requests) in [(Kind::Cold, plan.cold), (Kind::Resumed, plan.cold), (Kind::Hot, plan.hot)] {
        progress.0.set_message(kind.as_str());
        runs.push(load.run(kind, requests).await?);
    }
    Ok(Report::new(origin, &args.method.into(), addresses.to_vec(), plan.concurrency, runs))
}

/// A bar on standard error for people only: there is none without a terminal, and none with `--json`.
struct Progress(ProgressBar);

impl Progress {
    fn new(plan: Plan, is_quiet: bool) -> Progress {
        let is_shown = io::stderr().is_terminal() && !is_quiet;
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:28.green} {percent:>3} %  {msg}  {elapsed:.dim}")
            .expect("the template is well-formed");
        let all = u64::from(plan.cold) * 2 + u64::from(plan.hot);
        let bar = ProgressBar::with_draw_target(Some(all), target).with_style(style);
        if is_shown {
            bar.enable_steady_tick(TICK);
        }
        Progress(bar)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const TICK: Duration = Duration::from_millis(100);

/// What a host elsewhere is asked for at most, unless `--yes` is given.
const HOT_MAX: u32 = 5_000;
const COLD_MAX: u32 = 100;
const CONCURRENCY_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: HttpsArgs,
    }

    fn plan(flags: &str, is_local: bool) -> Result<Plan, String> {
        let words = ["bench", "https://a.test"].into_iter().chain(flags.split_whitespace());
        Plan::new(&Line::try_parse_from(words).unwrap().args, is_local)
    }

    #[test]
    fn hosts_elsewhere_are_asked_for_less() {
        assert_eq!(plan("", true), Ok(Plan { cold: 200, hot: 10_000, concurrency: 1 }));
        assert_eq!(plan("", false), Ok(Plan { cold: 20, hot: 500, concurrency: 1 }));
        assert_eq!(
            plan("--requests 5000 --cold 100 --concurrency 8", false),
            Ok(Plan { cold: 100, hot: 5000, concurrency: 8 })
        );
    }

    #[test]
    fn more_is_refused_without_the_owners_word() {
        for flags in ["--requests 5001", "--cold 101", "--concurrency 9"] {
            let refusal = plan(flags, false).unwrap_err();
            assert!(refusal.starts_with(flags) && refusal.contains("--yes") && refusal.contains("a.test"), "{refusal}");
            assert!(plan(flags, true).is_ok());
            assert!(plan(&format!("{flags} --yes"), false).is_ok());
        }
    }
}
