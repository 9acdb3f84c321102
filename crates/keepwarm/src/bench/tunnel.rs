//! `keepwarm bench tunnel`: tunnels over fresh connections to a proxy against tunnels over spares, through the same proxy.
//!
//! Here are the flags, the limits that keep it polite, and the order of events. What is measured is in `subject`, the load in `load`, the
//! figures in `report`. Without flags the proxy and the destination are the lab's, a round trip of 50 ms away.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use clap::Args;

use crate::{
    cli::{Exit, complain, print},
    probe::json,
    runtime::block_on,
};

mod load;
mod report;
mod subject;

use load::{Arrivals, Load};
use report::{Kind, Report};
use subject::{FirstByte, Subject};

/// Arguments of `keepwarm bench tunnel`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = POLITE)]
pub struct TunnelArgs {
    /// Go through the upstreams of this config file, as the rules of its `[tunnel]` say; its listeners stay closed.
    #[arg(short, long, value_name = "FILE", conflicts_with = "proxy", requires = "target")]
    pub config: Option<PathBuf>,
    /// Go through this proxy: socks5://, http:// or https://HOST:PORT, with USER:PASSWORD@ before the host where it asks for them. Without
    /// this and --config: a proxy and a destination of the lab, 50 ms away.
    #[arg(long, value_name = "URL", requires = "target")]
    pub proxy: Option<UpstreamUrl>,
    /// Destination of the tunnels.
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Option<String>,
    /// What is waited for in each tunnel once it is ready.
    #[arg(long, value_name = "WHAT", requires = "target")]
    pub first_byte: Option<FirstByte>,
    /// Tunnels a second on average, arriving at random (Poisson); 0.1 to 1,000.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// Tunnels over fresh connections, and again as many over spares [default: 100].
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: Option<u32>,
    /// The same as a time for each of the two.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: Option<u32>,
    /// Go beyond the limits for proxies that are not on this machine: 1,000 tunnels, 50 a second.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The URL of a proxy as it was given. Not read before it is used: what refuses arguments would repeat the password.
#[derive(Clone)]
pub struct UpstreamUrl(String);

impl FromStr for UpstreamUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<UpstreamUrl, Infallible> {
        Ok(UpstreamUrl(text.to_owned()))
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamUrl(..)")
    }
}

const POLITE: &str = "\
Each tunnel over a fresh connection costs the proxy a whole handshake. Ask a proxy that is not yours for no more than its owner would mind.";

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    /// Tunnels of each run.
    count: u32,
    /// Tunnels a second.
    rate: f64,
}

impl Plan {
    /// The plan for proxies on this machine, or elsewhere.
    ///
    /// # Errors
    /// What is more than may be asked of proxies elsewhere without `--yes`, or of any.
    fn new(args: &TunnelArgs, is_local: bool) -> Result<Plan, String> {
        let in_time = |seconds: u32| f64::from(seconds) * args.rate;
        let count = args.seconds.map_or_else(|| f64::from(args.count.unwrap_or(COUNT)), in_time).ceil().max(1.0);
        let max = if is_local || args.yes { COUNT_MAX } else { COUNT_ELSEWHERE };
        if count > f64::from(max) {
            return Err(format!("{count} tunnels: {max} at most are asked for{}", lifted(max < COUNT_MAX)));
        }
        if args.rate > RATE_ELSEWHERE && !is_local && !args.yes {
            return Err(format!("--rate {}: {RATE_ELSEWHERE} a second at most{}", args.rate, lifted(true)));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to COUNT_MAX, and whole")]
        let count = count as u32;
        Ok(Plan { count, rate: args.rate })
    }
}

fn lifted(by_yes: bool) -> &'static str {
    if by_yes { " of a proxy that is not on this machine; --yes lifts that where its owner agrees" } else { "" }
}

/// Measures and shows. Ends with [`Exit::Failure`] when a tunnel failed.
///
/// # Errors
/// When the very first tunnel failed, or the config is refused.
pub(super) fn main(args: &TunnelArgs) -> anyhow::Result<Exit> {
    block_on(Box::pin(measure(args)))?
}

async fn measure(args: &TunnelArgs) -> anyhow::Result<Exit> {
    let subject = match Subject::new(args).await? {
        Ok(subject) => subject,
        Err(problem) => return Ok(misused(&problem)),
    };
    let plan = match Plan::new(args, subject.is_local()) {
        Ok(plan) => plan,
        Err(problem) => return Ok(misused(&problem)),
    };
    let mut runs = Vec::new();
    for kind in [Kind::Fresh, Kind::Spare] {
        let arrivals = Arrivals::new(plan.rate, plan.count);
        runs.push(Load::new(&subject, kind).await?.run(arrivals, args.json).await);
    }
    let report = Report::new(&subject, plan.rate, runs);
    subject.stop().await;
    print(&if args.json { json(&report)? } else { report.text() })?;
    Ok(if report.ok() { Exit::Ok } else { Exit::Failure })
}

fn misused(problem: &str) -> Exit {
    complain(&format!("error: {problem}\n\nFor more information, try '--help'.\n"));
    Exit::Usage
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=1000.0).contains(rate));
    rate.ok_or_else(|| "accepted: 0.1 to 1000, such as 20".to_owned())
}

/// Tunnels of each run unless said otherwise.
const COUNT: u32 = 100;

/// As many at most of any proxy, and of one elsewhere unless `--yes` is given.
const COUNT_MAX: u32 = 100_000;
const COUNT_ELSEWHERE: u32 = 1_000;
const RATE_ELSEWHERE: f64 = 50.0;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: TunnelArgs,
    }

    fn args(flags: &str) -> Result<TunnelArgs, clap::Error> {
        Line::try_parse_from(["bench"].into_iter().chain(flags.split_whitespace())).map(|line| line.args)
    }

    fn plan(flags: &str, is_local: bool) -> Result<Plan, String> {
        Plan::new(&args(flags).unwrap(), is_local)
    }

    #[test]
    fn a_plan_is_a_number_or_a_time_and_bounded() {
        assert_eq!(plan("", false), Ok(Plan { count: 100, rate: 20.0 }));
        assert_eq!(plan("--seconds 3 --rate 0.5", true), Ok(Plan { count: 2, rate: 0.5 }));
        assert_eq!(
            plan("--seconds 3600 --rate 1000", true),
            Err("3600000 tunnels: 100000 at most are asked for".into())
        );
        for flags in ["--count 1001", "--rate 51"] {
            let refusal = plan(flags, false).unwrap_err();
            assert!(refusal.contains("--yes"), "{refusal}");
            assert!(plan(flags, true).is_ok() && plan(&format!("{flags} --yes"), false).is_ok(), "{flags}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_or_miss_one_are_refused() {
        for flags in [
            "--proxy socks5://a:1",
            "--config a.toml",
            "--config a.toml --proxy socks5://a:1 --target b:2",
            "--count 1 --seconds 1",
            "--rate 0",
            "--rate NaN",
            "--count 0",
            "--first-byte http",
        ] {
            assert!(args(flags).is_err(), "{flags}");
        }
        assert!(args("--proxy socks5://a:1 --target b:2 --first-byte http").is_ok());
        let shown = format!("{:?}", args("--proxy socks5://ann:s3cret@a:1 --target b:2").unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
