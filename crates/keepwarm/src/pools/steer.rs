//! Steering a pool of the running daemon: limits, pause and resume, drain, flush, connections ahead.

use std::{str::FromStr, time::Duration};

use clap::Args;

use super::{PoolsCommand, all, short, state};
use crate::ask::{Format, OutputArgs, json, unavailable};
use keepwarm_control::{
    client::{self, Daemon},
    rows::{LimitsPatch, LimitsRow, PoolAction, PoolDone, PoolRequest},
};

/// Arguments of `keepwarm pools set`.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// The pool.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Limits, such as max_per_host=4; what follows from a lowered one is lowered along.
    #[arg(value_name = "LIMIT=N", required = true)]
    pub limits: Vec<Setting>,
}

/// Arguments of `keepwarm pools pause`, `resume`, `drain` and `flush`.
#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    /// The pool.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// This host of it alone, by its name in `keepwarm pools NAME`.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

/// Arguments of `keepwarm pools warm`.
#[derive(Debug, Clone, Args)]
pub struct WarmPoolArgs {
    /// Which.
    #[command(flatten)]
    pub of: ActArgs,
    /// Connections of each host that are to be open [default: its min_idle, at least 1].
    #[arg(short = 'n', long, value_name = "N")]
    pub connections: Option<usize>,
}

/// A limit and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    name: &'static str,
    value: u32,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        let (name, value) = text.split_once('=').ok_or("accepted: LIMIT=N, such as max_per_host=4")?;
        let Some(known) = LIMITS.iter().find(|(known, ..)| *known == name) else {
            let nearest = LIMITS
                .iter()
                .map(|(known, ..)| *known)
                .max_by(|left, right| strsim::jaro_winkler(left, name).total_cmp(&strsim::jaro_winkler(right, name)));
            let all: Vec<&str> = LIMITS.iter().map(|(known, ..)| *known).collect();
            let nearest = nearest.filter(|nearest| strsim::jaro_winkler(nearest, name) > 0.8);
            let hint = nearest.map_or_else(|| ";".to_owned(), |nearest| format!("; did you mean `{nearest}`?"));
            return Err(format!("no limit `{name}`{hint} accepted: {}", all.join(", ")));
        };
        let value = value.parse().map_err(|_| format!("`{value}` is no number; accepted: 0 to {}", u32::MAX))?;
        Ok(Setting { name: known.0, value })
    }
}

/// Does it and says how the pool stands then.
pub(super) async fn done(daemon: &Daemon, what: &PoolsCommand, output: &OutputArgs) -> anyhow::Result<String> {
    match what {
        PoolsCommand::Set(args) => set(daemon, args, output).await,
        PoolsCommand::Pause(args) => act(daemon, PoolAction::Pause, args, None, output).await,
        PoolsCommand::Resume(args) => act(daemon, PoolAction::Resume, args, None, output).await,
        PoolsCommand::Drain(args) => act(daemon, PoolAction::Drain, args, None, output).await,
        PoolsCommand::Flush(args) => act(daemon, PoolAction::Flush, args, None, output).await,
        PoolsCommand::Warm(args) => act(daemon, PoolAction::Warm, &args.of, args.connections, output).await,
    }
}

async fn set(daemon: &Daemon, args: &SetArgs, output: &OutputArgs) -> anyhow::Result<String> {
    let before = all(daemon).await?.into_iter().find(|pool| pool.name == args.name);
    let path = path(&args.name, "");
    let done: PoolDone = client::patch(daemon, &path, &patch(&args.limits)).await.map_err(unavailable)?;
    let before = before.map_or(done.pool.limits, |pool| pool.limits);
    print(output, &done, || format!("{}: {}\n", args.name, changes(&before, &done.pool.limits)))
}

async fn act(
    daemon: &Daemon,
    action: PoolAction,
    args: &ActArgs,
    connections: Option<usize>,
    output: &OutputArgs,
) -> anyhow::Result<String> {
    let request = PoolRequest { host: args.host.clone(), connections };
    let patience = if action == PoolAction::Warm { WARM_MAX } else { client::TIMEOUT };
    let path = path(&args.name, &format!("/{}", action.as_str()));
    let done: PoolDone = client::post(daemon, &path, &request, patience).await.map_err(unavailable)?;
    print(output, &done, || acted(&args.name, action, &done))
}

fn print(output: &OutputArgs, done: &PoolDone, text: impl FnOnce() -> String) -> anyhow::Result<String> {
    match output.format() {
        Format::Json => json(done),
        Format::Csv => output.one(done, &["pool.name", "count"], String::new),
        Format::Table => Ok(text()),
    }
}

/// What was done, and how the pool stands.
fn acted(name: &str, action: PoolAction, done: &PoolDone) -> String {
    let (count, gauges) = (done.count, &done.pool.gauges);
    let hosts = if count == 1 { "host" } else { "hosts" };
    let deed = match action {
        PoolAction::Pause => format!("{count} {hosts} paused"),
        PoolAction::Resume => format!("{count} {hosts} resumed"),
        PoolAction::Drain => format!("{count} {hosts} paused, connections close as they become idle"),
        PoolAction::Flush => format!("connections of {count} {hosts} close as they become idle"),
        PoolAction::Warm => format!("{count} connections are open"),
    };
    let oldest =
        if gauges.waiting > 0 { format!(", the oldest for {}", short(gauges.oldest_wait)) } else { String::new() };
    let state = state(done.pool.state).text();
    let (open, in_use, waiting) = (gauges.open, gauges.in_use, gauges.waiting);
    format!("{name}: {deed}; it is {state} now: {open} open, {in_use} in use, {waiting} waiting{oldest}\n")
}

/// The limits that are other ones, those that followed included.
fn changes(before: &LimitsRow, after: &LimitsRow) -> String {
    let changed = LIMITS.iter().filter_map(|(name, of, _)| {
        let (before, after) = (of(before), of(after));
        (before != after).then(|| format!("{name} {before} -> {after}"))
    });
    let changed: Vec<String> = changed.collect();
    if changed.is_empty() { "nothing to change: it has these limits".into() } else { changed.join(", ") }
}

fn patch(settings: &[Setting]) -> LimitsPatch {
    let mut patch = LimitsPatch::default();
    for setting in settings {
        if let Some((.., set)) = LIMITS.iter().find(|(name, ..)| *name == setting.name) {
            set(&mut patch, setting.value);
        }
    }
    patch
}

/// The path of a pool, with what a path cannot hold as it is percent-encoded (RFC 3986 section 2.1).
pub(super) fn path(name: &str, action: &str) -> String {
    let encoded = name.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("/api/v1/pools/{}{action}", encoded.collect::<String>())
}

type Limit = (&'static str, fn(&LimitsRow) -> u64, fn(&mut LimitsPatch, u32));

const LIMITS: [Limit; 9] = [
    ("max_total", |row| row.max_total, |patch, n| patch.max_total = Some(n as usize)),
    ("max_per_host", |row| row.max_per_host, |patch, n| patch.max_per_host = Some(n as usize)),
    ("max_idle", |row| row.max_idle, |patch, n| patch.max_idle = Some(n as usize)),
    ("max_idle_per_host", |row| row.max_idle_per_host, |patch, n| patch.max_idle_per_host = Some(n as usize)),
    ("min_idle", |row| row.min_idle, |patch, n| patch.min_idle = Some(n as usize)),
    ("max_in_flight", |row| row.max_in_flight, |patch, n| patch.max_in_flight = Some(n)),
    ("max_waiters", |row| row.max_waiters, |patch, n| patch.max_waiters = Some(n as usize)),
    ("max_dials_per_host", |row| row.max_dials_per_host, |patch, n| patch.max_dials_per_host = Some(n as usize)),
    ("max_dials", |row| row.max_dials, |patch, n| patch.max_dials = Some(n as usize)),
];

/// Connections that are opened ahead may take their dials' time.
const WARM_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use keepwarm_control::rows::{GaugesRow, PoolRow, PoolState};

    #[test]
    fn limits_are_named_as_in_the_config() {
        let settings: Vec<Setting> = ["max_per_host=4", "min_idle=0"].map(|text| text.parse().unwrap()).into();
        let expected = LimitsPatch { max_per_host: Some(4), min_idle: Some(0), ..LimitsPatch::default() };
        assert_eq!(patch(&settings), expected);
        for (name, ..) in LIMITS {
            let patch = patch(&[format!("{name}=7").parse().unwrap()]);
            assert_eq!(patch.names().collect::<Vec<_>>(), [name]);
        }
        for (text, problem) in [
            ("max_per_hots=4", "did you mean `max_per_host`?"),
            ("timeout=4", "accepted: max_total"),
            ("max_per_host", "accepted: LIMIT=N"),
            ("max_per_host=-1", "`-1` is no number"),
            ("max_per_host=many", "`many` is no number"),
        ] {
            let error = text.parse::<Setting>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(!"timeout=4".parse::<Setting>().unwrap_err().contains("did you mean"));
    }

    #[test]
    fn what_followed_from_a_change_is_told_too() {
        let before = LimitsRow { max_per_host: 10, max_idle_per_host: 10, min_idle: 4, ..LimitsRow::default() };
        let after = LimitsRow { max_per_host: 4, max_idle_per_host: 4, ..before };
        assert_eq!(changes(&before, &after), "max_per_host 10 -> 4, max_idle_per_host 10 -> 4");
        assert_eq!(changes(&before, &before), "nothing to change: it has these limits");
    }

    #[test]
    fn an_action_tells_how_the_pool_stands() {
        let gauges = GaugesRow { open: 3, in_use: 1, ..GaugesRow::default() };
        let pool = PoolRow { state: PoolState::Paused, gauges, ..PoolRow::default() };
        let done = PoolDone { count: 2, pool };
        assert_eq!(
            acted("dns", PoolAction::Drain, &done),
            "dns: 2 hosts paused, connections close as they become idle; it is paused now: 3 open, 1 in use, 0 waiting\n"
        );
    }

    #[test]
    fn a_name_stays_within_its_path() {
        assert_eq!(path("tunnel.exit-a", "/warm"), "/api/v1/pools/tunnel.exit-a/warm");
        assert_eq!(path("a/b?c d%", ""), "/api/v1/pools/a%2Fb%3Fc%20d%25");
        assert_eq!(path("ä\r\n", ""), "/api/v1/pools/%C3%A4%0D%0A");
    }
}
