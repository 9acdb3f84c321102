//! The load: tunnels at random times, each opened, asked for its first byte and closed.

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keepwarm_transport::{proxy::Target, resolve::SystemResolver};
use keepwarm_tunnel::{Connector, UpstreamStats};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    report::{Kind, RunResult},
    subject::{Opener, Subject},
};
use crate::bench::https::report::Latency;

/// A connector of a run, warmed up as far as the run wants it.
pub(super) struct Load {
    kind: Kind,
    connector: Connector,
    opener: Opener,
    target: Target,
    asks: bool,
}

/// When tunnels arrive: so many, at random times with a mean rate. The same times for the same rate and number.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    rate: f64,
    left: u32,
    state: u64,
    at: Duration,
}

/// What one tunnel took.
struct Sample {
    ready: Duration,
    /// None where none is asked for.
    first_byte: Option<Duration>,
}

impl Load {
    /// Opens a first tunnel, and for spares waits until there are as many as are wanted.
    ///
    /// # Errors
    /// When that tunnel fails: what cannot be had once is not asked for a thousand times.
    pub(super) async fn new(subject: &Subject, kind: Kind) -> anyhow::Result<Load> {
        let connector = Connector::new(subject.config(kind), Arc::new(SystemResolver::default()))?;
        let (opener, target) = (subject.opener(), subject.target.clone());
        let load = Load { kind, connector, opener, target, asks: subject.asks() };
        if let Err(error) = one(&load.connector, &load.target, &load.opener).await {
            bail!("{error}");
        }
        if kind == Kind::Spare {
            load.spares_are_ready().await;
        }
        Ok(load)
    }

    /// Waits until the upstreams that were used have their spares, at most 10 s: what is missing then shows among the hits.
    async fn spares_are_ready(&self) {
        let wanted = self.connector.config().pool.spares;
        let by = Instant::now() + WARM_UP_MAX;
        let is_ready = |stats: &UpstreamStats| {
            let spares = stats.spares.as_ref().filter(|spares| spares.max > 0 && stats.tunnels > 0);
            spares.is_none_or(|spares| spares.pool.gauges.idle >= wanted.min(spares.max))
        };
        while !self.connector.stats().upstreams.iter().all(is_ready) && Instant::now() < by {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Opens a tunnel at each arrival, and waits for the last one.
    pub(super) async fn run(self, arrivals: Arrivals, is_quiet: bool) -> RunResult {
        let before = Figures::of(&self.connector);
        let bar = bar(u64::from(arrivals.left), is_quiet);
        bar.set_message(self.kind.as_str());
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        let mut run = Tally::default();
        for at in arrivals {
            tokio::time::sleep_until(start + at).await;
            while let Some(ended) = tasks.try_join_next() {
                run.count(ended, &bar);
            }
            if tasks.len() >= IN_FLIGHT_MAX || run.failed >= FAILURES_MAX {
                run.left_out += 1;
                continue;
            }
            let (connector, target, opener) = (self.connector.clone(), self.target.clone(), self.opener.clone());
            tasks.spawn(async move { Box::pin(one(&connector, &target, &opener)).await });
        }
        while let Some(ended) = tasks.join_next().await {
            run.count(ended, &bar);
        }
        bar.finish_and_clear();
        let after = Figures::of(&self.connector);
        self.connector.close().await;
        RunResult {
            kind: self.kind,
            tunnels: run.ready.len() as u64 + run.failed,
            left_out: run.left_out,
            failed: run.failed,
            first_failure: run.first_failure,
            hits: after.hits - before.hits,
            misses: after.misses - before.misses,
            retries: after.retries - before.retries,
            handshakes: after.opened - before.opened,
            ready: Latency::of(run.ready),
            first_byte: Latency::of(run.first_byte).filter(|_| self.asks),
        }
    }
}

/// Opens a tunnel, waits for its first byte where one is asked for, and closes it.
async fn one(connector: &Connector, target: &Target, opener: &Opener) -> Result<Sample, String> {
    let start = Instant::now();
    let mut tunnel = connector.connect(target).await.map_err(|error| error.to_string())?;
    let ready = start.elapsed();
    let is_asked = opener.first_byte(&mut tunnel).await?;
    Ok(Sample { ready, first_byte: is_asked.then(|| start.elapsed()) })
}

/// What the tunnels of a run came to.
#[derive(Default)]
struct Tally {
    ready: Vec<Duration>,
    first_byte: Vec<Duration>,
    failed: u64,
    left_out: u64,
    first_failure: Option<String>,
}

impl Tally {
    fn count(&mut self, ended: Result<Result<Sample, String>, JoinError>, bar: &ProgressBar) {
        bar.inc(1);
        match ended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(sample) => {
                self.ready.push(sample.ready);
                self.first_byte.extend(sample.first_byte);
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert(error);
            }
        }
    }
}

/// Counters of all upstreams.
struct Figures {
    hits: u64,
    misses: u64,
    retries: u64,
    /// Connections to proxies, greeted where the proxy is one of SOCKS5.
    opened: u64,
}

impl Figures {
    fn of(connector: &Connector) -> Figures {
        let upstreams = connector.stats().upstreams;
        let sum = |of: fn(&UpstreamStats) -> u64| upstreams.iter().map(of).sum();
        Figures {
            hits: sum(|upstream| upstream.hits),
            misses: sum(|upstream| upstream.misses),
            retries: sum(|upstream| upstream.retries),
            opened: sum(|upstream| upstream.spares.as_ref().map_or(0, |spares| spares.pool.counters.opened)),
        }
    }
}

impl Arrivals {
    /// `count` of them at `rate` a second.
    pub(super) fn new(rate: f64, count: u32) -> Arrivals {
        Arrivals { rate, left: count, state: 1, at: Duration::ZERO }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        // SplitMix64: enough to spread arrivals, and the same on every machine.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // In (0, 1], so that its logarithm is finite.
        let share = (((mixed ^ (mixed >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        self.at += Duration::from_secs_f64(-share.ln() / self.rate);
        Some(self.at)
    }
}

/// A bar on standard error for people only: there is none without a terminal, and none with `--json`.
fn bar(all: u64, is_quiet: bool) -> ProgressBar {
    let is_shown = io::stderr().is_terminal() && !is_quiet;
    let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:28.green} {percent:>3} %  {msg}  {elapsed:.dim}")
        .expect("the template is well-formed");
    let bar = ProgressBar::with_draw_target(Some(all), target).with_style(style);
    if is_shown {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// Tunnels under way at a time; those that arrive beyond are left out, and told.
pub(super) const IN_FLIGHT_MAX: usize = 512;

/// A run opens no more tunnels after so many failures: a proxy that is down is not asked a thousand times.
const FAILURES_MAX: u64 = 10;

/// Longest wait for the first spares.
const WARM_UP_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether they are there.
const LOOK: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_as_many_as_wanted_at_the_rate_and_at_random() {
        let times: Vec<Duration> = Arrivals::new(20.0, 10_000).collect();
        assert_eq!(times.len(), 10_000);
        assert!(times.is_sorted());
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of exponential gaps the spread is the mean.
        assert!((0.048..0.052).contains(&mean) && (0.9..1.1).contains(&(variance.sqrt() / mean)), "{mean} {variance}");
        assert_eq!(times, Arrivals::new(20.0, 10_000).collect::<Vec<_>>(), "each run has the same");
    }
}
