//! The columns of the three tables, and the tables as plain text.

use super::rates::{Look, PoolLine, UpstreamLine};
use crate::{
    pools::{failed, oldest, share, short, state},
    status,
    table::{self, Field, Tone, Value},
    upstreams::health,
};
use keepwarm_control::rows::RecentRow;

/// Pools.
pub(super) const POOLS: [Field<PoolLine>; 13] = [
    Field::words("NAME", 0, |line| (&line.row.name).into()),
    Field::words("STATE", 0, |line| state(line.row.state)),
    Field::figures("OPEN", 0, |line| Value::OutOf(line.row.gauges.open, line.row.limits.max_total)),
    Field::figures("IN USE", 0, |line| line.row.gauges.in_use.into()),
    Field::figures("WAITING", 0, |line| line.row.gauges.waiting.into()),
    Field::figures("OLDEST", 3, |line| oldest(line.row.gauges.waiting, line.row.gauges.oldest_wait)),
    Field::figures("ACQ/S", 0, |line| rate(line.acquires)),
    Field::figures("REUSE", 0, |line| share(line.row.reuse_ratio)),
    Field::figures("OPENED/S", 1, |line| rate(line.opened)),
    Field::figures("WAIT P99", 2, |line| line.row.wait.p99.into()),
    Field::figures("DIAL P50", 4, |line| line.row.dial.p50.into()),
    Field::figures("FAILED", 5, |line| failed(&line.row).into()),
    Field::figures("HOSTS", 6, |line| line.row.hosts.into()),
];

/// Upstreams.
pub(super) const UPSTREAMS: [Field<UpstreamLine>; 12] = [
    Field::words("NAME", 0, |line| (&line.row.name).into()),
    Field::words("JOB", 5, |line| line.row.job.as_str().into()),
    Field::words("TRANSPORT", 4, |line| (&line.row.transport).into()),
    Field::words("HEALTH", 0, |line| health(line.row.health)),
    Field::figures("REQ/S", 0, |line| rate(line.requests)),
    Field::figures("P50", 0, |line| line.row.latency_p50.into()),
    Field::figures("P95", 1, |line| line.row.latency_p95.into()),
    Field::figures("REQUESTS", 3, |line| line.row.requests.into()),
    Field::figures("FAILURES", 0, |line| line.row.failures.into()),
    Field::figures("HANDSHAKES", 6, |line| (line.row.handshakes + line.row.handshakes_resumed).into()),
    Field::figures("OPEN", 2, |line| line.row.open.into()),
    Field::words("REASON", 0, |line| line.row.reason.as_ref().into()),
];

/// Requests that were slow or failed.
pub(super) const RECENT: [Field<RecentRow>; 8] = [
    Field::figures("AGE", 0, |row| Value::Age(row.age)),
    Field::words("JOB", 3, |row| row.job.as_str().into()),
    Field::words("", 0, |row| match row.failed {
        true => Value::Word("failed", Tone::Bad),
        false => Value::Word("slow", Tone::Warn),
    }),
    Field::words("WHAT", 0, |row| (&row.what).into()),
    Field::words("UPSTREAM", 2, |row| row.upstream.as_ref().into()),
    Field::figures("TOTAL", 0, |row| row.total.into()),
    Field::words("MOST OF IT", 1, |row| {
        let longest = row.phases.iter().max_by_key(|phase| phase.took);
        longest.map(|phase| format!("{} {}", phase.phase, short(phase.took))).into()
    }),
    Field::words("WHY", 0, |row| (&row.why).into()),
];

fn rate(rate: Option<f64>) -> Value {
    rate.map_or(Value::None, Value::Rate)
}

/// A look as text.
pub(super) fn plain(look: &Look, width: Option<usize>) -> String {
    let requests = look.requests.map_or_else(String::new, |rate| format!(", {} requests/s", Value::Rate(rate).text()));
    let first = status::text(&look.status);
    let (first, rest) = first.split_once('\n').unwrap_or((&first, ""));
    let troubles: String =
        rest.lines().take_while(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
    let mut text = format!("{first}{requests}\n{troubles}");
    let tables = [
        (!look.pools.is_empty()).then(|| table::fitted(&POOLS, &look.pools, width)),
        (!look.upstreams.is_empty()).then(|| table::fitted(&UPSTREAMS, &look.upstreams, width)),
        (!look.recent.is_empty()).then(|| table::fitted(&RECENT, &look.recent, width)),
    ];
    for table in tables.into_iter().flatten() {
        text += &format!("\n{table}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::rates::tests::row, *};

    #[test]
    fn a_pipe_gets_plain_tables() {
        insta::assert_snapshot!(plain(&Look::new(row(110), Some(&row(100))), None));
    }
}
