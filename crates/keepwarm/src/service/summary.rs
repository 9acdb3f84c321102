//! The daemon in one line, for `systemctl status`.

use std::collections::BTreeMap;

use crate::status::{
    BreakerState, PoolRow, Snapshots,
    https::{HttpsSnapshots, HttpsStatus},
    tunnel::{TunnelSnapshots, TunnelStatus},
};

/// [`summary`] of what runs now.
pub fn summary_of(snapshots: &dyn Snapshots) -> String {
    let https = snapshots.https().map(HttpsSnapshots::status);
    let tunnels = snapshots.tunnels().map(TunnelSnapshots::status);
    summary(&snapshots.pools(), https.as_ref(), tunnels.as_ref())
}

/// What runs and how it is, in one line such as `3 of 3 upstreams up, 12 connections, 4 in use`. Upstreams are those of DNS and of
/// tunnels, up while their breaker is closed; an origin of hot HTTPS is up unless all its addresses are in quarantine. Connections are
/// all that are open to them, spares and live tunnels included.
pub fn summary(pools: &[PoolRow], https: Option<&HttpsStatus>, tunnels: Option<&TunnelStatus>) -> String {
    let mut counts = Counts::default();
    let mut upstreams = BTreeMap::new();
    for row in pools {
        // A second row is the way for truncated answers.
        *upstreams.entry(&row.upstream).or_insert(false) |= row.breaker == BreakerState::Closed;
        counts.connections += row.open;
        counts.in_use += row.in_use;
    }
    counts.upstreams = upstreams.len();
    counts.up = upstreams.into_values().filter(|up| *up).count();
    https.into_iter().for_each(|https| counts.add_https(https));
    tunnels.into_iter().for_each(|tunnels| counts.add_tunnels(tunnels));
    counts.line()
}

#[derive(Debug, Default)]
struct Counts {
    upstreams: usize,
    up: usize,
    origins: usize,
    origins_up: usize,
    connections: u64,
    in_use: u64,
}

impl Counts {
    fn add_https(&mut self, https: &HttpsStatus) {
        for origin in https.origins.iter().filter(|origin| origin.configured) {
            self.origins += 1;
            // What was not looked up yet has no address, and nothing that failed either.
            let addresses = origin.addresses;
            let usable = addresses.candidate + addresses.validated + addresses.probing;
            self.origins_up += usize::from(usable > 0 || addresses.quarantined == 0);
        }
        self.connections += https.origins.iter().map(|origin| origin.open).sum::<u64>();
        self.in_use += https.origins.iter().map(|origin| origin.in_use).sum::<u64>();
    }

    fn add_tunnels(&mut self, tunnels: &TunnelStatus) {
        // This machine's own connections are no upstream that could fail.
        let proxies = tunnels.upstreams.iter().filter(|upstream| upstream.name != "direct");
        for upstream in proxies {
            self.upstreams += 1;
            self.up += usize::from(upstream.breaker == BreakerState::Closed);
        }
        let spares = tunnels.upstreams.iter().filter_map(|upstream| upstream.spares.as_ref());
        self.connections += tunnels.live + spares.map(|spares| spares.idle).sum::<u64>();
        self.in_use += tunnels.live;
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        if self.upstreams > 0 {
            parts.push(format!("{} of {} upstreams up", self.up, self.upstreams));
        }
        if self.origins > 0 {
            parts.push(format!("{} of {} origins up", self.origins_up, self.origins));
        }
        let connections = if self.connections == 1 { "connection" } else { "connections" };
        parts.push(format!("{} {connections}", self.connections));
        parts.push(format!("{} in use", self.in_use));
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        https::{AddressCounts, OriginRow},
        tunnel::{SparesRow, TunnelUpstreamRow},
    };

    fn pool(upstream: &str, transport: &str, open: u64, in_use: u64, breaker: BreakerState) -> PoolRow {
        PoolRow { upstream: upstream.into(), transport: transport.into(), open, in_use, breaker, ..PoolRow::default() }
    }

    #[test]
    fn upstreams_are_counted_once_and_are_up_while_a_breaker_of_theirs_is_closed() {
        let rows = [
            pool("a", "udp", 4, 1, BreakerState::Open),
            pool("a", "tcp", 1, 0, BreakerState::Closed),
            pool("b", "tls", 2, 2, BreakerState::HalfOpen),
        ];
        assert_eq!(summary(&rows, None, None), "1 of 2 upstreams up, 7 connections, 3 in use");
        assert_eq!(summary(&rows[1..2], None, None), "1 of 1 upstreams up, 1 connection, 0 in use");
        assert_eq!(summary(&[], None, None), "0 connections, 0 in use");
    }

    #[test]
    fn origins_and_proxies_are_counted_with_their_connections() {
        let origin = |open, quarantined, configured| OriginRow {
            addresses: AddressCounts { quarantined, ..AddressCounts::default() },
            open,
            in_use: 1,
            configured,
            ..OriginRow::default()
        };
        // The last is one that no origin names: it counts for its connections alone.
        let https = HttpsStatus { origins: vec![origin(3, 0, true), origin(2, 5, true), origin(1, 0, false)], gateway: None };
        let upstream = |name: &str, breaker, idle| TunnelUpstreamRow {
            name: name.into(),
            breaker,
            spares: Some(SparesRow { idle, ..SparesRow::default() }),
            ..TunnelUpstreamRow::default()
        };
        let tunnels = TunnelStatus {
            live: 10,
            upstreams: vec![
                upstream("exit-a", BreakerState::Closed, 8),
                upstream("exit-b", BreakerState::Open, 0),
                TunnelUpstreamRow { name: "direct".into(), ..TunnelUpstreamRow::default() },
            ],
            ..TunnelStatus::default()
        };
        let line = summary(&[], Some(&https), Some(&tunnels));
        assert_eq!(line, "1 of 2 upstreams up, 1 of 2 origins up, 24 connections, 13 in use");
    }
}
