//! The daemon in one line, for `systemctl status`.

use std::collections::BTreeMap;

use keepwarm_control::rows::{Health, Job, UpstreamRow};

/// What runs and how it is, in one line such as `3 of 3 upstreams up, 12 connections, 4 in use`. Upstreams are those of every job, origins of
/// hot HTTPS among them, and up unless they are down; the connections are theirs.
pub fn summary(rows: &[UpstreamRow]) -> String {
    let mut upstreams = BTreeMap::<(Job, &str), bool>::new();
    // This machine's own connections are no upstream that could be down.
    for row in rows.iter().filter(|row| row.transport != DIRECT) {
        // A second row is the way for truncated answers.
        *upstreams.entry((row.job, &row.name)).or_default() |= row.health != Health::Down;
    }
    let (up, all) = (upstreams.values().filter(|up| **up).count(), upstreams.len());
    let open: u64 = rows.iter().map(|row| row.open).sum();
    let in_use: u64 = rows.iter().map(|row| row.in_use).sum();
    let (ups, opens) =
        (if all == 1 { "upstream" } else { "upstreams" }, if open == 1 { "connection" } else { "connections" });
    format!("{up} of {all} {ups} up, {open} {opens}, {in_use} in use")
}

/// The transport of this machine's own connections.
pub(super) const DIRECT: &str = "direct";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(job: Job, name: &str, health: Health, open: u64, in_use: u64) -> UpstreamRow {
        UpstreamRow { job, name: name.into(), health, open, in_use, ..UpstreamRow::default() }
    }

    #[test]
    fn upstreams_are_counted_once_with_all_their_connections() {
        let rows = [
            row(Job::Dns, "a", Health::Down, 4, 1),
            row(Job::Dns, "a", Health::Up, 1, 0),
            row(Job::Dns, "b", Health::Down, 2, 2),
            row(Job::Tunnel, "a", Health::Unknown, 8, 0),
            UpstreamRow { transport: DIRECT.into(), ..row(Job::Tunnel, "direct", Health::Up, 1, 1) },
        ];
        assert_eq!(summary(&rows), "2 of 3 upstreams up, 16 connections, 4 in use");
        assert_eq!(summary(&rows[1..2]), "1 of 1 upstream up, 1 connection, 0 in use");
        assert_eq!(summary(&[]), "0 of 0 upstreams up, 0 connections, 0 in use");
    }
}
