//! How large the demo's load is, and how much of it this machine bears. Nothing here measures or opens anything but the
//! limit on open files.

use std::time::Duration;

use keepwarm_dns::config::{PoolSettings, Strategy, Transport};

/// The load of every run: the same with reuse off and pooled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Clients, each with a socket and a source port of its own.
    pub(super) clients: usize,
    /// Queries a second of each client in the paced load.
    pub(super) rate: usize,
    /// Length of the paced load.
    pub(super) paced: Duration,
    /// The start of the paced load that the warm percentiles leave out.
    pub(super) warm_after: Duration,
    /// Seed of names and ids.
    pub(super) seed: u64,
}

impl Plan {
    /// The load of `keepwarm demo`, or of `keepwarm demo --quick`.
    pub(super) fn new(quick: bool, seed: u64) -> Plan {
        let (clients, paced, warm_after) = match quick {
            false => (1_000, Duration::from_secs(5), Duration::from_secs(1)),
            true => (200, Duration::from_secs(1), Duration::from_millis(250)),
        };
        Plan { clients, rate: 2, paced, warm_after, seed }
    }

    /// Queries of the paced load of so many clients.
    pub(super) fn paced_queries(&self, clients: usize) -> usize {
        let millis = usize::try_from(self.paced.as_millis()).unwrap_or(usize::MAX);
        clients * self.rate * millis / 1_000
    }

    /// The clients of a run when a process may have `open_files` open (none: no limit), and why they are fewer than planned.
    pub(super) fn clients_within(&self, reuse: bool, open_files: Option<u64>) -> (usize, Option<String>) {
        let Some(limit) = open_files else { return (self.clients, None) };
        // This process holds a client's socket and, as the upstream, the other end of each connection. The server holds its
        // own ends of those, which is never more.
        let (each, fixed) = match reuse {
            false => (1 + UPSTREAMS, FILES_SPARE),
            true => (1, FILES_SPARE + 2 * UPSTREAMS * PoolSettings::default().max_per_host),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let clients = (limit.saturating_sub(fixed) / each).min(self.clients);
        let note = (clients < self.clients).then(|| {
            format!(
                "only {clients} of {} clients: a process may have {limit} files open here (ulimit -Hn), and {} need {}",
                self.clients,
                self.clients,
                self.clients * each + fixed
            )
        });
        (clients, note)
    }

    /// Refuses a limit on open files that leaves too few clients to show anything.
    ///
    /// # Errors
    /// The limit, and what is needed.
    pub(super) fn check(&self, open_files: Option<u64>) -> anyhow::Result<()> {
        let enough =
            [false, true].map(|reuse| self.clients_within(reuse, open_files).0).iter().all(|&n| n >= CLIENTS_MIN);
        anyhow::ensure!(
            enough,
            "a process may have only {} files open here, and the demo needs {FILES_MIN}: raise the limit (ulimit -n)",
            open_files.unwrap_or_default()
        );
        Ok(())
    }
}

/// Two kinds of load, each on a server of its own because they need different strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// All clients ask at the same instant, and each query goes to every upstream.
    Burst,
    /// Every client asks a few times a second, and the upstreams take turns.
    Paced,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Burst => "burst",
            Phase::Paced => "paced load",
        }
    }

    pub(super) fn strategy(self) -> Strategy {
        match self {
            Phase::Burst => Strategy::Parallel,
            Phase::Paced => Strategy::RoundRobin,
        }
    }
}

/// The transport's name for people.
pub(super) fn label(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
        Transport::Tls => "DoT",
        Transport::Https => "DoH",
        Transport::H3 => "DoH3",
        Transport::Quic => "DoQ",
    }
}

/// Raises the soft limit on open files as far as it goes, for this process and the servers that it starts, and returns
/// what holds now; `None` where there is no limit.
pub(super) fn raise_open_files() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        // macOS names no hard limit, and yet refuses more than kern.maxfilesperproc, 10,240 at the least.
        for soft in [now.maximum, Some(10_240)] {
            let more = now.current.is_some_and(|current| soft.is_none_or(|soft| soft > current));
            if more && setrlimit(Resource::Nofile, Rlimit { current: soft, maximum: now.maximum }).is_ok() {
                break;
            }
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// Upstreams that the server has.
pub(super) const UPSTREAMS: usize = 3;
/// Every answer of an upstream takes this long.
pub(super) const DELAY: Duration = Duration::from_millis(20);
/// The transports, in the order of the table.
pub(super) const TRANSPORTS: [Transport; 4] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https];
/// A run with fewer clients shows nothing.
const CLIENTS_MIN: usize = 50;
/// What the naive run of so few clients needs.
const FILES_MIN: usize = CLIENTS_MIN * (1 + UPSTREAMS) + FILES_SPARE;
/// Open files of a process beside the sockets that are counted: listeners, runtimes, pipes, libraries.
const FILES_SPARE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_naive_run_shrinks_to_the_open_files_and_says_so() {
        let plan = Plan::new(false, 1);
        assert_eq!(plan.clients_within(false, None), (1_000, None));
        assert_eq!(plan.clients_within(false, Some(20_000)), (1_000, None));
        let (clients, note) = plan.clients_within(false, Some(1_024));
        assert_eq!(clients, 206);
        let note = note.unwrap();
        assert!(note.contains("206 of 1000") && note.contains("4200"), "{note}");
        assert_eq!(plan.clients_within(true, Some(1_024)).0, 764);
        assert_eq!(plan.clients_within(true, Some(4_096)), (1_000, None));
        assert_eq!(plan.clients_within(false, Some(10)).0, 0);
    }

    #[test]
    fn a_limit_that_leaves_nothing_to_show_is_refused() {
        let plan = Plan::new(true, 1);
        assert!(plan.check(None).is_ok() && plan.check(Some(1_024)).is_ok());
        assert!(plan.check(Some(FILES_MIN as u64)).is_ok());
        let error = plan.check(Some(FILES_MIN as u64 - 1)).unwrap_err().to_string();
        assert!(error.contains("399") && error.contains("400"), "{error}");
    }

    #[test]
    fn the_full_load_leaves_room_for_ten_handshakes_an_upstream() {
        let plan = Plan::new(false, 1);
        let queries = plan.clients + plan.paced_queries(plan.clients);
        assert_eq!(queries, 11_000);
        // Full pools in the burst, and in the paced load as many again as it takes to have one to each upstream and a few more.
        assert!((10 * UPSTREAMS + 4 * UPSTREAMS) * 10_000 <= 40 * queries);
    }
}
