//! `keepwarm status`: the daemon at a glance, what is wrong first.

use std::fmt::Write as _;

use clap::Args;

use crate::{
    ask::{AskArgs, OutputArgs, unavailable},
    cli::{Exit, print},
    pools::{UNTIL, age, share},
    runtime::block_on,
    table::{Tone, visible},
};
use keepwarm_control::{
    client,
    rows::{DaemonHealth, StatusRow},
};

/// Arguments of `keepwarm status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Asks the daemon and prints how it does.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address.
pub fn main(args: &StatusArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    let status: StatusRow = block_on(client::get(&daemon, "/api/v1/status"))?.map_err(unavailable)?;
    print(&args.output.one(&status, &["health", "version", "uptime"], || text(&status))?)
}

/// The status for people.
pub(crate) fn text(status: &StatusRow) -> String {
    let mut text =
        format!("keepwarm {}: {}, up {}\n", visible(&status.version), status.health.as_str(), age(status.uptime));
    for trouble in &status.troubles {
        for (number, line) in trouble.lines().enumerate() {
            let _ = writeln!(text, "  {} {}", if number == 0 { '!' } else { ' ' }, visible(line));
        }
    }
    let mut line = |name: &str, words: String| {
        let _ = writeln!(text, "{name:<13}{words}");
    };
    let jobs: Vec<&str> = status.jobs.iter().map(|job| job.as_str()).collect();
    line("jobs", if jobs.is_empty() { "none".into() } else { jobs.join(", ") });
    line("upstreams", format!("{} of {} up", status.upstreams_up, status.upstreams));
    line("connections", format!("{} open, {} in use, {} waiting", status.connections, status.in_use, status.waiting));
    line("reuse", share(status.reuse_ratio).text());
    let requests: Vec<String> =
        status.requests.iter().map(|(name, count)| format!("{} {count}", visible(name))).collect();
    line("asked for", if requests.is_empty() { "nothing yet".into() } else { requests.join(", ") });
    let config = &status.config;
    let file = config.file.as_deref().map_or_else(|| "the built-in default".into(), visible);
    let read = std::time::Duration::from_secs(status.now.saturating_sub(config.loaded));
    line(
        "config",
        match config.loaded {
            0 => file,
            _ => format!("{file}, generation {}, read {} ago", config.generation, age(read)),
        },
    );
    if !config.needs_restart.is_empty() {
        line("needs restart", format!(" {}", visible(&config.needs_restart.join(", "))));
    }
    if !config.changed_at_run_time.is_empty() {
        line("at run time", format!("{} changed, {UNTIL}", visible(&config.changed_at_run_time.join(", "))));
    }
    text
}

/// How well a daemon is.
pub(crate) fn tone(health: DaemonHealth) -> Tone {
    match health {
        DaemonHealth::Ok => Tone::Good,
        DaemonHealth::Degraded | DaemonHealth::Stopping => Tone::Warn,
        DaemonHealth::Failing => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use keepwarm_control::rows::{ConfigState, Job};

    #[test]
    fn what_is_wrong_comes_first() {
        let status = StatusRow {
            version: "1.2.3".into(),
            uptime: Duration::from_secs(11_600),
            now: 1_000_000_060,
            health: DaemonHealth::Degraded,
            troubles: vec![
                "pool dns is full: 3 wait,\nthe oldest for 1.2s".into(),
                "dns upstream quad9 is down".into(),
            ],
            jobs: vec![Job::Dns, Job::Https],
            upstreams_up: 2,
            upstreams: 3,
            connections: 17,
            in_use: 4,
            waiting: 3,
            reuse_ratio: Some(0.992),
            requests: [("queries".to_owned(), 12_034), ("requests".to_owned(), 33)].into(),
            config: ConfigState {
                file: Some("/etc/keepwarm.toml".into()),
                generation: 3,
                loaded: 1_000_000_000,
                needs_restart: vec!["control.listen".into()],
                last_error: None,
                changed_at_run_time: vec!["dns.max_per_host".into()],
            },
        };
        insta::assert_snapshot!(text(&status), @r"
        keepwarm 1.2.3: degraded, up 3 h 13 min
          ! pool dns is full: 3 wait,
            the oldest for 1.2s
          ! dns upstream quad9 is down
        jobs         dns, https
        upstreams    2 of 3 up
        connections  17 open, 4 in use, 3 waiting
        reuse        99.2 %
        asked for    queries 12034, requests 33
        config       /etc/keepwarm.toml, generation 3, read 1 min ago
        needs restart control.listen
        at run time  dns.max_per_host changed, until a restart, or a reload that changes the pool's section
        ");
    }

    #[test]
    fn a_daemon_that_did_nothing_yet_is_told_without_figures() {
        insta::assert_snapshot!(text(&StatusRow { version: "1.2.3".into(), ..StatusRow::default() }), @r"
        keepwarm 1.2.3: ok, up 0 s
        jobs         none
        upstreams    0 of 0 up
        connections  0 open, 0 in use, 0 waiting
        reuse        -
        asked for    nothing yet
        config       the built-in default
        ");
    }
}
