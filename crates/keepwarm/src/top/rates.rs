//! What happened between two looks at the daemon, per second of the daemon's own clock.

use std::time::Duration;

use keepwarm_control::{
    events::EventRow,
    rows::{PoolRow, RecentRow, StatusRow, UpstreamRow},
};

/// A look at the daemon, with what happened since the one before.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Look {
    pub(super) status: StatusRow,
    /// Requests of clients a second; none with the first look, and none right after a restart.
    pub(super) requests: Option<f64>,
    pub(super) pools: Vec<PoolLine>,
    pub(super) upstreams: Vec<UpstreamLine>,
    pub(super) recent: Vec<RecentRow>,
}

/// A pool and what it did.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct PoolLine {
    pub(super) row: PoolRow,
    /// Acquires a second.
    pub(super) acquires: Option<f64>,
    /// Connections opened a second.
    pub(super) opened: Option<f64>,
}

/// An upstream and what it did.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct UpstreamLine {
    pub(super) row: UpstreamRow,
    /// Requests a second.
    pub(super) requests: Option<f64>,
}

impl Look {
    /// A look after `before`.
    pub(super) fn new(now: EventRow, before: Option<&EventRow>) -> Look {
        let since = before.and_then(|before| Since::new(before, &now.status));
        let rate = |now: u64, before: Option<u64>| since.as_ref()?.rate(now, before?);
        let before = since.as_ref().map(|since| since.before);
        let pools = now.pools.into_iter().map(|row| {
            let past = before.and_then(|before| before.pools.iter().find(|past| past.name == row.name));
            let acquires = rate(row.counters.acquires, past.map(|past| past.counters.acquires));
            let opened = rate(row.counters.opened, past.map(|past| past.counters.opened));
            PoolLine { acquires, opened, row }
        });
        let upstreams = now.upstreams.into_iter().map(|row| {
            let is_same =
                |past: &&UpstreamRow| (past.job, &past.name, &past.transport) == (row.job, &row.name, &row.transport);
            let past = before.and_then(|before| before.upstreams.iter().find(is_same));
            UpstreamLine { requests: rate(row.requests, past.map(|past| past.requests)), row }
        });
        let asked = |status: &StatusRow| status.requests.values().sum::<u64>();
        Look {
            requests: rate(asked(&now.status), before.map(|before| asked(&before.status))),
            pools: pools.collect(),
            upstreams: upstreams.collect(),
            recent: now.recent,
            status: now.status,
        }
    }
}

/// An earlier look at the same daemon.
struct Since<'a> {
    before: &'a EventRow,
    elapsed: Duration,
}

impl<'a> Since<'a> {
    /// None where no time has passed, or the daemon is another one since.
    fn new(before: &'a EventRow, now: &StatusRow) -> Option<Since<'a>> {
        let elapsed = now.uptime.checked_sub(before.status.uptime)?;
        (elapsed > Duration::ZERO).then_some(Since { before, elapsed })
    }

    /// None where a counter has become smaller: what it counted was replaced.
    fn rate(&self, now: u64, before: u64) -> Option<f64> {
        Some(now.checked_sub(before)? as f64 / self.elapsed.as_secs_f64())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use keepwarm_control::rows::{
        CountersRow, DaemonHealth, GaugesRow, Health, Job, LimitsRow, PhaseRow, PoolState, TimesRow,
    };

    /// A daemon with some of everything, `seconds` after its start.
    pub(in crate::top) fn row(seconds: u64) -> EventRow {
        let ms = Duration::from_millis;
        let pool = |name: &str, state, in_use, waiting| PoolRow {
            name: name.into(),
            state,
            hosts: 2,
            gauges: GaugesRow {
                open: in_use + 2,
                idle: 2,
                in_use,
                waiting,
                oldest_wait: ms(1250),
                ..GaugesRow::default()
            },
            counters: CountersRow { acquires: 40 * seconds, opened: seconds / 2, ..CountersRow::default() },
            reuse_ratio: Some(0.9875),
            wait: TimesRow { p99: Some(ms(12)), ..TimesRow::default() },
            dial: TimesRow { p50: Some(ms(41)), ..TimesRow::default() },
            limits: LimitsRow { max_total: 100, max_per_host: 10, ..LimitsRow::default() },
            ..PoolRow::default()
        };
        let upstream = |job, name: &str, transport: &str, health, reason: Option<&str>| UpstreamRow {
            job,
            name: name.into(),
            transport: transport.into(),
            health,
            reason: reason.map(Into::into),
            open: 2,
            requests: 20 * seconds,
            handshakes: 3,
            latency_p50: Some(ms(20)),
            latency_p95: Some(ms(31)),
            ..UpstreamRow::default()
        };
        let recent = |failed, what: &str, why: &str| RecentRow {
            job: Job::Dns,
            age: Duration::from_secs(3),
            failed,
            what: what.into(),
            upstream: Some("quad9".into()),
            total: ms(812),
            phases: vec![
                PhaseRow { phase: "wait".into(), took: ms(790) },
                PhaseRow { phase: "exchange".into(), took: ms(22) },
            ],
            reused: Some(true),
            tries: 1,
            why: why.into(),
        };
        EventRow {
            status: StatusRow {
                version: "1.2.3".into(),
                uptime: Duration::from_secs(seconds),
                health: DaemonHealth::Degraded,
                troubles: vec![
                    "pool dns is full: 3 wait, the oldest for 1.3s".into(),
                    "tunnel upstream exit-a is down".into(),
                ],
                upstreams_up: 2,
                upstreams: 3,
                connections: 19,
                in_use: 13,
                waiting: 3,
                reuse_ratio: Some(0.9875),
                requests: [("queries".to_owned(), 30 * seconds), ("requests".to_owned(), 10 * seconds)].into(),
                ..StatusRow::default()
            },
            pools: vec![
                pool("dns", PoolState::Full, 10, 3),
                pool("https", PoolState::Ok, 3, 0),
                PoolRow {
                    limits: LimitsRow { max_total: 64, ..LimitsRow::default() },
                    ..pool("tunnel.exit-a", PoolState::Failing, 0, 0)
                },
            ],
            upstreams: vec![
                upstream(Job::Dns, "quad9", "tls", Health::Up, None),
                upstream(Job::Https, "tiles.example.com", "https", Health::Up, None),
                upstream(
                    Job::Tunnel,
                    "exit-a",
                    "socks5",
                    Health::Down,
                    Some("connect to 192.0.2.1:1080: connection refused"),
                ),
            ],
            recent: vec![
                recent(false, "AAAA", "waited 790 ms for a connection: the pool was full"),
                recent(true, "A", "no upstream answered within 4s"),
            ],
        }
    }

    #[test]
    fn rates_are_of_the_daemons_own_time() {
        let look = Look::new(row(110), Some(&row(100)));
        assert_eq!(look.requests, Some(40.0));
        assert_eq!((look.pools[0].acquires, look.pools[0].opened), (Some(40.0), Some(0.5)));
        assert_eq!(look.upstreams[2].requests, Some(20.0));
    }

    #[test]
    fn there_is_no_rate_without_a_past_or_over_a_restart() {
        assert_eq!(Look::new(row(100), None).requests, None);
        assert_eq!(Look::new(row(100), Some(&row(100))).requests, None);
        let restarted = Look::new(row(5), Some(&row(100)));
        assert_eq!((restarted.requests, restarted.pools[0].acquires), (None, None));
        let mut replaced = row(110);
        replaced.pools[0].counters.acquires = 7;
        replaced.upstreams[0].name = "another".into();
        let look = Look::new(replaced, Some(&row(100)));
        assert_eq!((look.pools[0].acquires, look.upstreams[0].requests), (None, None));
        assert_eq!(look.pools[1].acquires, Some(40.0));
    }
}
