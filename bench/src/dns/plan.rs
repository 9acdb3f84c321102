//! What a run measures, and how long that takes.

use std::time::Duration;

use clap::ValueEnum;

use super::{
    blast::Client,
    peers::{Kind, Transport},
};

/// A table of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    Udp,
    Tcp,
    Dot,
    Doh,
    TcpClient,
    Cache,
    Memory,
    Scaling,
}

impl Row {
    pub(super) const ALL: [Row; 8] =
        [Row::Udp, Row::Tcp, Row::Dot, Row::Doh, Row::TcpClient, Row::Cache, Row::Memory, Row::Scaling];

    pub(super) fn title(self) -> &'static str {
        match self {
            Row::Udp => "UDP client, UDP upstream",
            Row::Tcp => "UDP client, TCP upstream",
            Row::Dot => "UDP client, DoT upstream",
            Row::Doh => "UDP client, DoH upstream",
            Row::TcpClient => "TCP client, UDP upstream",
            Row::Cache => "Cache hits, 10,000 hot names",
            Row::Memory => "Memory",
            Row::Scaling => "One worker and two",
        }
    }

    /// How servers ask their upstream.
    pub(super) fn upstream(self) -> Transport {
        match self {
            Row::Tcp => Transport::Tcp,
            Row::Dot => Transport::Tls,
            Row::Doh => Transport::Https,
            Row::Udp | Row::TcpClient | Row::Cache | Row::Memory | Row::Scaling => Transport::Udp,
        }
    }

    pub(super) fn client(self) -> Client {
        if self == Row::TcpClient { Client::Tcp } else { Client::Udp }
    }

    /// Whether the upstream is also put 10 ms away.
    pub(super) fn has_delay(self) -> bool {
        matches!(self, Row::Udp | Row::Tcp | Row::Dot | Row::Doh)
    }

    /// Who is measured with how many threads.
    pub(super) fn contenders(self, kinds: &[Kind], threads: u32) -> Vec<Contender> {
        let mut found = Vec::new();
        for kind in kinds.iter().copied().filter(|kind| self.admits(*kind)) {
            let single = self == Row::Udp && matches!(kind, Kind::Keepwarm | Kind::Dnsdist);
            found.push(Contender { kind, threads: if kind == Kind::Floor { 1 } else { threads } });
            if single && threads != 1 {
                found.push(Contender { kind, threads: 1 });
            }
        }
        found
    }

    fn admits(self, kind: Kind) -> bool {
        match (self, kind) {
            (Row::Scaling, kind) => kind == Kind::Keepwarm,
            (row, Kind::Floor) => matches!(row, Row::Udp | Row::Cache),
            (row, kind) => kind.upstreams().contains(&row.upstream()),
        }
    }
}

/// A server of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) kind: Kind,
    pub(super) threads: u32,
}

/// What a run measures.
pub(super) struct Plan {
    pub(super) rows: Vec<Row>,
    pub(super) kinds: Vec<Kind>,
    pub(super) threads: u32,
    pub(super) reps: u32,
    /// One measurement.
    pub(super) length: Duration,
}

impl Plan {
    /// About how long it takes when nothing is disturbed.
    pub(super) fn expected(&self) -> Duration {
        self.rows.iter().map(|row| self.expected_row(*row)).sum()
    }

    fn expected_row(&self, row: Row) -> Duration {
        let contenders = u32::try_from(row.contenders(&self.kinds, self.threads).len()).unwrap_or(u32::MAX);
        match row {
            Row::Memory => contenders * Duration::from_secs(12),
            // Two loads on one core and on two.
            Row::Scaling => contenders * self.reps * 4 * (START + self.length * 2),
            row => {
                let loads = if row.has_delay() { 6 } else { 5 };
                contenders * self.reps * (START + loads * (self.length + BETWEEN))
            }
        }
    }
}

/// A server's start, warm-up and end.
const START: Duration = Duration::from_millis(1_300);
/// From one load to the next.
const BETWEEN: Duration = Duration::from_millis(80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_run_ends_within_twenty_minutes() {
        let kinds = [Kind::Keepwarm, Kind::Dnsdist, Kind::Unbound, Kind::Smartdns, Kind::Floor].to_vec();
        let plan = Plan { rows: Row::ALL.to_vec(), kinds, threads: 2, reps: 3, length: Duration::from_millis(1500) };
        assert!(plan.expected() <= Duration::from_secs(20 * 60), "{:?}", plan.expected());
    }

    #[test]
    fn a_server_is_asked_only_for_what_it_can() {
        let kinds = [Kind::Keepwarm, Kind::Unbound, Kind::Floor];
        let names = |row: Row| row.contenders(&kinds, 2).iter().map(|c| (c.kind, c.threads)).collect::<Vec<_>>();
        assert_eq!(names(Row::Doh), [(Kind::Keepwarm, 2)]);
        assert_eq!(names(Row::Udp), [(Kind::Keepwarm, 2), (Kind::Keepwarm, 1), (Kind::Unbound, 2), (Kind::Floor, 1)]);
        assert_eq!(names(Row::Scaling), [(Kind::Keepwarm, 2)]);
    }
}
