//! `keepwarm pools`: one row a pool of the running daemon, or the hosts and connections of one; and how they are steered, in `steer`.
//!
//! The figures are the daemon's; here they only become a table.

mod detail;
mod steer;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::{
    ask::{AskArgs, OutputArgs, unavailable},
    cli::{Exit, complain, print},
    runtime::block_on,
    table::{self, Field, Tone, Value},
    upstreams,
};
use keepwarm_control::{
    client::{self, Daemon},
    rows::{PoolRow, PoolState},
};

pub use steer::{ActArgs, SetArgs, WarmPoolArgs};

/// Arguments of `keepwarm pools`.
#[derive(Debug, Clone, Args)]
#[command(disable_help_subcommand = true)]
pub struct PoolsArgs {
    /// Show the hosts and connections of this pool.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Show the connections of hot HTTPS by address, as `keepwarm upstreams --https` does.
    #[arg(long, conflicts_with = "name")]
    pub https: bool,
    /// What to do to one; shown without.
    #[command(subcommand)]
    pub what: Option<PoolsCommand>,
}

/// What `keepwarm pools` can do beside showing them.
#[derive(Debug, Clone, Subcommand)]
pub enum PoolsCommand {
    /// Change limits of a pool until a restart, or a reload that changes the pool's section; no connection in use is dropped.
    Set(SetArgs),
    /// Refuse acquires; connections stay.
    Pause(ActArgs),
    /// End a pause or a drain.
    Resume(ActArgs),
    /// Refuse acquires and close connections as they become idle.
    Drain(ActArgs),
    /// Close connections as they become idle; new ones are made.
    Flush(ActArgs),
    /// Open connections ahead.
    Warm(WarmPoolArgs),
}

/// Asks the daemon for its pools and prints them, or steers one.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address; the daemon's words when it refuses.
pub fn main(args: &PoolsArgs) -> anyhow::Result<Exit> {
    if let (Some(name), Some(_)) = (&args.name, &args.what) {
        complain(&format!("keepwarm: what is done comes before the pool's name: keepwarm pools set {name} ...\n"));
        return Ok(Exit::Usage);
    }
    let daemon = args.ask.daemon()?;
    print(&block_on(async {
        match &args.what {
            Some(what) => steer::done(&daemon, what, &args.output).await,
            None => shown(args, &daemon).await,
        }
    })??)
}

async fn shown(args: &PoolsArgs, daemon: &Daemon) -> anyhow::Result<String> {
    match &args.name {
        _ if args.https => upstreams::https_rows(daemon, &args.output).await,
        Some(name) => detail::shown(daemon, name, &args.output).await,
        None => {
            let rows = all(daemon).await?;
            args.output.rows(&rows, &FIRST, || table(&rows, table::terminal_width()))
        }
    }
}

/// Every pool of the daemon.
pub(crate) async fn all(daemon: &Daemon) -> anyhow::Result<Vec<PoolRow>> {
    client::get(daemon, "/api/v1/pools").await.map_err(unavailable)
}

/// The pools as a table for people, and below it what is to be done.
pub(crate) fn table(rows: &[PoolRow], width: Option<usize>) -> String {
    if rows.is_empty() {
        return "no pools: the daemon's config has no job that needs one\n".into();
    }
    let mut text = table::fitted(&FIELDS, rows, width);
    let notes: Vec<String> = rows.iter().filter_map(note).collect();
    if !notes.is_empty() {
        text += &format!("\n{}\n", notes.join("\n"));
    }
    text
}

/// What an operator can do about a pool's state; `None` where there is nothing to do.
fn note(row: &PoolRow) -> Option<String> {
    let (name, gauges, limits) = (table::visible(&row.name), &row.gauges, &row.limits);
    match row.state {
        PoolState::Full => {
            let (limit, most) = match gauges.open + gauges.dialing >= limits.max_total {
                true => ("max_total", limits.max_total),
                false => ("max_per_host", limits.max_per_host),
            };
            let (waiting, oldest) = (gauges.waiting, short(gauges.oldest_wait));
            Some(format!(
                "{name} is full: {waiting} wait, the oldest for {oldest}; {limit} is {most}: keepwarm pools set {name} {limit}=N"
            ))
        }
        PoolState::Paused => Some(format!("{name} is paused: keepwarm pools resume {name}")),
        PoolState::Failing => {
            let errors = counts(&row.counters.dial_errors);
            Some(format!("{name} cannot connect to any of its hosts: {errors}; keepwarm upstreams says why"))
        }
        PoolState::Idle | PoolState::Ok | PoolState::Waiting => None,
    }
}

/// How well a state is.
pub(crate) fn state(state: PoolState) -> Value {
    let tone = match state {
        PoolState::Idle => Tone::Quiet,
        PoolState::Ok => Tone::Good,
        PoolState::Waiting | PoolState::Paused => Tone::Warn,
        PoolState::Full | PoolState::Failing => Tone::Bad,
    };
    Value::Word(state.as_str(), tone)
}

/// How long the oldest has waited; nothing where nobody waits.
pub(crate) fn oldest(waiting: u64, oldest: Duration) -> Value {
    if waiting > 0 { Value::Time(oldest) } else { Value::None }
}

/// A share where there is one.
pub(crate) fn share(share: Option<f64>) -> Value {
    share.map_or(Value::None, Value::Share)
}

/// What was counted, by name, without what never was: `refused 3, timeout 1`.
pub(crate) fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let some = counts.iter().filter(|(_, count)| **count > 0);
    let words: Vec<String> = some.map(|(name, count)| format!("{} {count}", table::visible(name))).collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

/// Acquires that timed out or failed.
pub(crate) fn failed(row: &PoolRow) -> u64 {
    row.counters.timeouts.values().sum::<u64>() + row.counters.errors.values().sum::<u64>()
}

/// For how long limits hold that were set at run time.
pub(crate) const UNTIL: &str = "until a restart, or a reload that changes the pool's section";

const FIRST: [&str; 3] = ["name", "state", "hosts"];

const FIELDS: [Field<PoolRow>; 14] = [
    Field::words("NAME", 0, |row| (&row.name).into()),
    Field::words("STATE", 0, |row| state(row.state)),
    Field::figures("HOSTS", 7, |row| row.hosts.into()),
    Field::figures("OPEN", 0, |row| Value::OutOf(row.gauges.open, row.limits.max_total)),
    Field::figures("IDLE", 8, |row| row.gauges.idle.into()),
    Field::figures("IN USE", 0, |row| row.gauges.in_use.into()),
    Field::figures("WAITING", 0, |row| row.gauges.waiting.into()),
    Field::figures("OLDEST", 3, |row| oldest(row.gauges.waiting, row.gauges.oldest_wait)),
    Field::figures("ACQUIRES", 5, |row| row.counters.acquires.into()),
    Field::figures("REUSE", 0, |row| share(row.reuse_ratio)),
    Field::figures("OPENED", 4, |row| row.counters.opened.into()),
    Field::figures("WAIT P99", 2, |row| row.wait.p99.into()),
    Field::figures("DIAL P50", 6, |row| row.dial.p50.into()),
    Field::figures("FAILED", 1, |row| failed(row).into()),
];

/// A measured duration with three digits: `412 us`, `20.4 ms`, `1.25 s`.
pub fn short(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..999.5 => format!("{micros:.0} us"),
        ..99_950.0 => format!("{:.1} ms", micros / 1e3),
        ..999_500.0 => format!("{:.0} ms", micros / 1e3),
        ..9_995_000.0 => format!("{:.2} s", micros / 1e6),
        ..99_950_000.0 => format!("{:.1} s", micros / 1e6),
        _ => format!("{:.0} s", micros / 1e6),
    }
}

/// An age that may be days: `12 s`, `4 min`, `3 h 12 min`, `5 d 3 h`.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 if minutes % 60 == 0 => format!("{hours} h"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwarm_control::rows::{CountersRow, GaugesRow, LimitsRow, TimesRow};

    fn rows() -> Vec<PoolRow> {
        let ms = Duration::from_millis;
        let full = PoolRow {
            name: "https".into(),
            state: PoolState::Full,
            hosts: 3,
            gauges: GaugesRow { open: 100, in_use: 100, waiting: 17, oldest_wait: ms(1250), ..GaugesRow::default() },
            counters: CountersRow {
                acquires: 120_400,
                opened: 412,
                timeouts: [("queue".to_owned(), 3)].into(),
                errors: [("queue_full".to_owned(), 2)].into(),
                ..CountersRow::default()
            },
            reuse_ratio: Some(0.9966),
            wait: TimesRow { count: 900, p99: Some(ms(812)), ..TimesRow::default() },
            dial: TimesRow { count: 412, p50: Some(ms(48)), ..TimesRow::default() },
            limits: LimitsRow { max_total: 100, max_per_host: 50, ..LimitsRow::default() },
            ..PoolRow::default()
        };
        let per_host = PoolRow {
            name: "dns".into(),
            gauges: GaugesRow { open: 20, waiting: 1, ..full.gauges },
            limits: LimitsRow { max_total: 512, max_per_host: 10, ..LimitsRow::default() },
            ..full.clone()
        };
        let failing = PoolRow {
            name: "tunnel.exit-a".into(),
            state: PoolState::Failing,
            counters: CountersRow {
                dial_errors: [("refused".to_owned(), 7), ("timeout".to_owned(), 0)].into(),
                ..CountersRow::default()
            },
            limits: full.limits,
            ..PoolRow::default()
        };
        let paused =
            PoolRow { name: "dns.udp".into(), state: PoolState::Paused, limits: full.limits, ..PoolRow::default() };
        vec![full, per_host, failing, paused]
    }

    #[test]
    fn a_pool_that_is_not_well_says_what_to_do() {
        insta::assert_snapshot!(table(&rows(), None), @r"
        NAME           STATE    HOSTS     OPEN  IDLE  IN USE  WAITING  OLDEST  ACQUIRES   REUSE  OPENED  WAIT P99  DIAL P50  FAILED
        https          full         3  100/100     0     100       17  1.25 s    120400  99.7 %     412    812 ms   48.0 ms       5
        dns            full         3   20/512     0     100        1  1.25 s    120400  99.7 %     412    812 ms   48.0 ms       5
        tunnel.exit-a  failing      0    0/100     0       0        0       -         0       -       0         -         -       0
        dns.udp        paused       0    0/100     0       0        0       -         0       -       0         -         -       0

        https is full: 17 wait, the oldest for 1.25 s; max_total is 100: keepwarm pools set https max_total=N
        dns is full: 1 wait, the oldest for 1.25 s; max_per_host is 10: keepwarm pools set dns max_per_host=N
        tunnel.exit-a cannot connect to any of its hosts: refused 7; keepwarm upstreams says why
        dns.udp is paused: keepwarm pools resume dns.udp
        ");
        assert!(table(&[], None).starts_with("no pools"));
    }

    #[test]
    fn a_narrow_terminal_has_what_matters_most() {
        let text = table::fitted(&FIELDS, &rows(), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r"
        NAME           STATE       OPEN  IN USE  WAITING   REUSE  WAIT P99  FAILED
        https          full     100/100     100       17  99.7 %    812 ms       5
        dns            full      20/512     100        1  99.7 %    812 ms       5
        tunnel.exit-a  failing    0/100       0        0       -         -       0
        dns.udp        paused     0/100       0        0       -         -       0
        ");
    }

    #[test]
    fn durations_are_short() {
        for (micros, words) in [
            (0, "0 us"),
            (412, "412 us"),
            (1_000, "1.0 ms"),
            (20_440, "20.4 ms"),
            (99_960, "100 ms"),
            (999_600, "1.00 s"),
            (61_000_000, "61.0 s"),
            (298_400_000, "298 s"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)), words);
        }
        for (seconds, words) in
            [(59, "59 s"), (61, "1 min"), (3600, "1 h"), (11_600, "3 h 13 min"), (442_800, "5 d 3 h")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), words);
        }
    }
}
