//! `keepwarm pools NAME`: limits and counters of one pool, its hosts and their connections.

use std::fmt::Write as _;

use super::{counts, oldest, share, short, state};
use crate::{
    ask::{OutputArgs, unavailable},
    table::{self, Field, Value},
};
use keepwarm_control::{
    client::{self, Daemon},
    rows::{ConnectionRow, HostRow, PoolDetail, PoolRow},
};
use keepwarm_pool::DialPhase;

/// Asks for one pool.
pub(super) async fn shown(daemon: &Daemon, name: &str, output: &OutputArgs) -> anyhow::Result<String> {
    let detail: PoolDetail = client::get(daemon, &super::steer::path(name, "")).await.map_err(unavailable)?;
    match output.format() {
        crate::ask::Format::Json => crate::ask::json(&detail),
        _ => output.rows(&detail.hosts, &["name", "state"], || text(&detail, table::terminal_width())),
    }
}

/// The pool for people.
fn text(detail: &PoolDetail, width: Option<usize>) -> String {
    let mut text = head(&detail.pool);
    if detail.hosts.is_empty() {
        return text + "\nno hosts: nothing was asked of it yet\n";
    }
    let _ = write!(text, "\n{}", table::fitted(&HOSTS, &detail.hosts, width));
    let connections: Vec<Line<'_>> = detail
        .hosts
        .iter()
        .flat_map(|host| host.connections.iter().map(|connection| Line { host: &host.name, connection }))
        .collect();
    if connections.is_empty() {
        return text;
    }
    let shown = &connections[..connections.len().min(CONNECTIONS_MAX)];
    let _ = write!(text, "\n{}", table::fitted(&connection_fields(), shown, width));
    if connections.len() > shown.len() {
        let _ = writeln!(text, "and {} more: -o json has them all", connections.len() - shown.len());
    }
    text
}

/// What holds for the pool as a whole.
fn head(pool: &PoolRow) -> String {
    let (gauges, counters, limits) = (&pool.gauges, &pool.counters, &pool.limits);
    let reuse = share(pool.reuse_ratio).text();
    let mut text = format!("{} is {}\n", table::visible(&pool.name), pool.state.as_str());
    let mut line = |name: &str, words: String| {
        let _ = writeln!(text, "  {name:<9}{words}");
    };
    line(
        "now",
        format!(
            "{} open, {} idle, {} in use by {} leases, {} dialing, {} draining, {} waiting",
            gauges.open, gauges.idle, gauges.in_use, gauges.in_flight, gauges.dialing, gauges.draining, gauges.waiting
        ),
    );
    line(
        "limits",
        format!(
            "max_total {}, max_per_host {}, max_idle {}, max_idle_per_host {}, min_idle {}, max_in_flight {}, max_waiters {}",
            limits.max_total,
            limits.max_per_host,
            limits.max_idle,
            limits.max_idle_per_host,
            limits.min_idle,
            limits.max_in_flight,
            limits.max_waiters
        ),
    );
    line(
        "acquires",
        format!(
            "{}: {} hits, {} shared hits, {} waited, {} cancelled; {} reused ({reuse})",
            counters.acquires,
            counters.hits,
            counters.shared_hits,
            counters.waited,
            counters.cancelled,
            counters.reused
        ),
    );
    for (name, times) in
        [("wait", &pool.wait), ("dial", &pool.dial), ("lease", &pool.lease), ("idle age", &pool.idle_age)]
    {
        if let (Some(p50), Some(p99), Some(max)) = (times.p50, times.p99, times.max) {
            line(name, format!("p50 {}, p99 {}, max {} of {}", short(p50), short(p99), short(max), times.count));
        }
    }
    // In the order in which a dial comes to them.
    let phase = |phase: &DialPhase| {
        let times = pool.dial_phases.get(phase.as_str())?;
        Some(format!("{} {} of {}", phase.as_str(), short(times.p50?), times.count))
    };
    let phases: Vec<_> = DialPhase::ALL.iter().filter_map(phase).collect();
    if !phases.is_empty() {
        line("phases", format!("of dials, p50: {}", phases.join(", ")));
    }
    line(
        "opened",
        format!("{} by {} dials; dial errors: {}", counters.opened, counters.dials, counts(&counters.dial_errors)),
    );
    line("closed", counts(&counters.closed));
    line("failed", format!("timeouts: {}; errors: {}", counts(&counters.timeouts), counts(&counters.errors)));
    if counters.reuse_failures + counters.leaks > 0 {
        line(
            "suspect",
            format!("{} reuse failures, {} leases held for too long", counters.reuse_failures, counters.leaks),
        );
    }
    text
}

const HOSTS: [Field<HostRow>; 10] = [
    Field::words("HOST", 0, |row| (&row.name).into()),
    Field::words("STATE", 0, |row| state(row.state)),
    Field::figures("OPEN", 0, |row| row.gauges.open.into()),
    Field::figures("IN USE", 0, |row| row.gauges.in_use.into()),
    Field::figures("WAITING", 2, |row| row.gauges.waiting.into()),
    Field::figures("OLDEST", 3, |row| oldest(row.gauges.waiting, row.gauges.oldest_wait)),
    Field::figures("REUSE", 1, |row| share(row.reuse_ratio)),
    Field::figures("OPENED", 4, |row| row.counters.opened.into()),
    Field::figures("DIAL P50", 5, |row| row.dial.p50.into()),
    Field::figures("IDLE LIMIT", 6, |row| row.idle_limit.into()),
];

/// A connection and whose it is.
struct Line<'a> {
    host: &'a str,
    connection: &'a ConnectionRow,
}

fn connection_fields<'a>() -> [Field<Line<'a>>; 7] {
    [
        Field::figures("CONNECTION", 0, |line| line.connection.id.into()),
        Field::words("HOST", 0, |line| line.host.into()),
        Field::words("STATE", 0, |line| (&line.connection.state).into()),
        Field::figures("IN FLIGHT", 0, |line| {
            Value::OutOf(line.connection.in_flight.into(), line.connection.capacity.into())
        }),
        Field::figures("USES", 0, |line| u64::from(line.connection.uses).into()),
        Field::figures("AGE", 0, |line| line.connection.age.into()),
        Field::figures("IDLE FOR", 0, |line| line.connection.idle_for.into()),
    ]
}

/// Connections in the table.
const CONNECTIONS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use keepwarm_control::rows::{CountersRow, GaugesRow, LimitsRow, PoolState, TimesRow};

    fn detail(connections: u64) -> PoolDetail {
        let ms = Duration::from_millis;
        let connection = |id| ConnectionRow {
            id,
            state: if id == 1 { "in_use".into() } else { "idle".into() },
            in_flight: u32::from(id == 1),
            capacity: 128,
            uses: 40,
            age: Duration::from_secs(75),
            idle_for: (id > 1).then_some(ms(3100)),
        };
        let gauges =
            GaugesRow { open: connections, idle: connections - 1, in_use: 1, in_flight: 1, ..GaugesRow::default() };
        let counters = CountersRow {
            acquires: 80,
            hits: 70,
            waited: 10,
            reused: 78,
            dials: 3,
            opened: 2,
            closed: [("peer_closed".to_owned(), 1), ("lifetime".to_owned(), 0)].into(),
            dial_errors: [("refused".to_owned(), 1)].into(),
            ..CountersRow::default()
        };
        let dial = TimesRow { count: 2, p50: Some(ms(40)), p90: Some(ms(50)), p99: Some(ms(50)), max: Some(ms(51)) };
        let connect = TimesRow { count: 2, p50: Some(ms(15)), ..dial };
        PoolDetail {
            pool: PoolRow {
                name: "dns".into(),
                state: PoolState::Ok,
                hosts: 1,
                gauges,
                counters: counters.clone(),
                reuse_ratio: Some(0.975),
                dial,
                dial_phases: [("connect".to_owned(), connect), ("tls".to_owned(), dial)].into(),
                limits: LimitsRow { max_total: 512, max_per_host: 10, min_idle: 1, ..LimitsRow::default() },
                ..PoolRow::default()
            },
            hosts: vec![HostRow {
                name: "tls dns.quad9.net:853".into(),
                state: PoolState::Ok,
                gauges,
                counters,
                reuse_ratio: Some(0.975),
                dial,
                idle_limit: Duration::from_secs(9),
                connections: (1..=connections).map(connection).collect(),
                ..HostRow::default()
            }],
        }
    }

    #[test]
    fn a_pool_is_shown_with_its_hosts_and_their_connections() {
        insta::assert_snapshot!(text(&detail(2), None), @r"
        dns is ok
          now      2 open, 1 idle, 1 in use by 1 leases, 0 dialing, 0 draining, 0 waiting
          limits   max_total 512, max_per_host 10, max_idle 0, max_idle_per_host 0, min_idle 1, max_in_flight 0, max_waiters 0
          acquires 80: 70 hits, 0 shared hits, 10 waited, 0 cancelled; 78 reused (97.5 %)
          dial     p50 40.0 ms, p99 50.0 ms, max 51.0 ms of 2
          phases   of dials, p50: connect 15.0 ms of 2, tls 40.0 ms of 2
          opened   2 by 3 dials; dial errors: refused 1
          closed   peer_closed 1
          failed   timeouts: none; errors: none

        HOST                   STATE  OPEN  IN USE  WAITING  OLDEST   REUSE  OPENED  DIAL P50  IDLE LIMIT
        tls dns.quad9.net:853  ok        2       1        0       -  97.5 %       2   40.0 ms      9.00 s

        CONNECTION  HOST                   STATE   IN FLIGHT  USES     AGE  IDLE FOR
                 1  tls dns.quad9.net:853  in_use      1/128    40  75.0 s         -
                 2  tls dns.quad9.net:853  idle        0/128    40  75.0 s    3.10 s
        ");
        let none = PoolDetail { hosts: Vec::new(), ..detail(2) };
        assert!(text(&none, None).ends_with("no hosts: nothing was asked of it yet\n"));
    }

    #[test]
    fn many_connections_are_counted_rather_than_shown() {
        let text = text(&detail(250), None);
        assert!(text.ends_with("and 150 more: -o json has them all\n"), "{text}");
    }
}
