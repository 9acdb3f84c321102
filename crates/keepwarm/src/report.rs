//! `keepwarm report`: what the running daemon kept of its past, as figures, charts and advice on its settings.
//!
//! The past is the daemon's own and bounded. What it comes to is in `summary`, what follows from it in `advice`; `text` and `page` show it.

mod advice;
mod chart;
mod page;
mod summary;
mod text;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::{
    ask::{AskArgs, Format, OutputArgs, json, unavailable},
    cli::{Exit, complain, print},
    runtime::block_on,
    table::{csv, terminal_width},
};
use advice::Advice;
use keepwarm_control::{
    client::{self, ClientError, Daemon},
    rows::{ConfigRow, HistoryRow, PoolRow, RecentRow, StatusRow, UpstreamRow},
};
use summary::Summary;

/// Arguments of `keepwarm report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Write it as an HTML page with charts, which needs nothing else.
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
}

/// What a report is made of.
#[derive(Debug, Clone, PartialEq, Default)]
struct Material {
    status: StatusRow,
    history: HistoryRow,
    recent: Vec<RecentRow>,
    pools: Vec<PoolRow>,
    upstreams: Vec<UpstreamRow>,
    config: ConfigRow,
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    status: StatusRow,
    /// Seconds of the past that are known.
    seconds: u64,
    advice: Vec<Advice>,
    pools: Vec<Summary>,
    upstreams: Vec<UpstreamRow>,
    recent: Vec<RecentRow>,
    history: HistoryRow,
}

/// Asks the daemon for its past and reports on it.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address; when the page cannot be written.
pub fn main(args: &ReportArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    let report = Report::new(block_on(ask(&daemon))?.map_err(unavailable)?);
    if let Some(file) = &args.html {
        std::fs::write(file, page::page(&report)).with_context(|| format!("write {}", file.display()))?;
        complain(&format!("wrote {}\n", file.display()));
        if args.output.format() == Format::Table {
            return Ok(Exit::Ok);
        }
    }
    print(&match args.output.format() {
        Format::Table => text::text(&report, terminal_width()),
        Format::Json => json(&report)?,
        Format::Csv => csv(&report.pools, &["pool", "seconds"])?,
    })
}

async fn ask(daemon: &Daemon) -> Result<Material, ClientError> {
    Ok(Material {
        status: client::get(daemon, "/api/v1/status").await?,
        history: client::get(daemon, "/api/v1/history").await?,
        recent: client::get(daemon, "/api/v1/recent").await?,
        pools: client::get(daemon, "/api/v1/pools").await?,
        upstreams: client::get(daemon, "/api/v1/upstreams").await?,
        config: client::get(daemon, "/api/v1/config").await?,
    })
}

impl Report {
    fn new(material: Material) -> Report {
        let step = material.history.step;
        let served = |name: &str| {
            let row = material.pools.iter().find(|row| row.name == name);
            row.map_or(1.0, summary::served)
        };
        let series = material.history.pools.iter();
        let pools: Vec<Summary> = series.map(|series| Summary::of(series, step, served(&series.pool))).collect();
        let advice = advice::advise(&material, &pools);
        let Material { status, history, recent, pools: _, upstreams, config: _ } = material;
        let steps = history.pools.iter().map(|series| series.acquires.len()).max().unwrap_or(0) as u64;
        Report { seconds: steps * step, status, advice, pools, upstreams, recent, history }
    }

    /// What is reported on, in words: `the last 60 min`.
    fn span(&self) -> String {
        match self.seconds {
            0 => "nothing yet: the first step of the past has not ended".into(),
            seconds => format!("the last {}", crate::pools::age(std::time::Duration::from_secs(seconds))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{summary::tests::hour, *};
    use keepwarm_control::rows::{CountersRow, Health, LimitsRow, PhaseRow, SlowSeries, UpstreamSeries};

    /// A report on a daemon with a pool that is full, one that is well, and an upstream that is down.
    pub(super) fn report() -> Report {
        let mut full = hour("dns", 600, 595, 1, 10);
        full.leased = vec![120.0; 360];
        full.full[..11].fill(10);
        for step in 100..140 {
            (full.wait_p50[step], full.wait_p99[step], full.in_use[step]) = (0.05, 0.4, 10);
            full.acquires[step] += 10 * step as u64 % 170;
        }
        let fine = hour("https", 100, 98, 1, 2);
        let limits = LimitsRow {
            max_total: 512,
            max_per_host: 10,
            max_in_flight: 1,
            max_idle_per_host: 10,
            ..LimitsRow::default()
        };
        let pool = |name: &str| PoolRow {
            name: name.into(),
            hosts: 1,
            limits,
            counters: CountersRow::default(),
            ..PoolRow::default()
        };
        let upstream = UpstreamRow {
            name: "quad9 <b>".into(),
            transport: "tls".into(),
            health: Health::Down,
            reason: Some("connect to 9.9.9.9:853: connection refused".into()),
            requests: 4000,
            failures: 40,
            latency_p50: Some(Duration::from_millis(20)),
            ..UpstreamRow::default()
        };
        let recent = RecentRow {
            age: Duration::from_secs(70),
            what: "AAAA".into(),
            upstream: Some("quad9".into()),
            total: Duration::from_millis(812),
            phases: vec![PhaseRow { phase: "wait".into(), took: Duration::from_millis(790) }],
            why: "waited 790 ms for a connection".into(),
            ..RecentRow::default()
        };
        let mut slow = vec![0; 360];
        slow[100..140].fill(3);
        let history = HistoryRow {
            step: 10,
            end: 1_800_000_000,
            pools: vec![full, fine],
            upstreams: vec![UpstreamSeries {
                job: "dns".into(),
                name: "quad9".into(),
                transport: "tls".into(),
                address: "9.9.9.9:853".into(),
                requests: vec![10; 360],
                failures: vec![1; 360],
                handshakes: vec![1; 360],
                latency: vec![0.02; 360],
            }],
            slow: vec![SlowSeries { name: "dns.wait".into(), count: slow }],
        };
        Report::new(Material {
            status: StatusRow { version: "1.2.3".into(), ..StatusRow::default() },
            history,
            recent: vec![recent],
            pools: vec![pool("dns"), pool("https")],
            upstreams: vec![upstream],
            config: ConfigRow::default(),
        })
    }

    #[test]
    fn a_daemon_without_a_past_is_reported_on_too() {
        let report = Report::new(Material::default());
        assert!(text::text(&report, Some(80)).contains("nothing yet"));
        assert!(page::page(&report).contains("nothing yet"));
    }
}
