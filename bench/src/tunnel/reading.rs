//! What was measured of a proxy in one repetition of a row.

use std::fs;

use super::{
    load::Outcome,
    row::{Figure, Row},
};
use crate::{cpu, figures::FOREIGN_MAX};

/// One load on one proxy, and what it cost.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// What the client saw.
    pub(super) outcome: Outcome,
    /// User and system seconds of the proxy alone.
    pub(super) cpu_s: f64,
    /// Before the load, and with its tunnels open where they are held.
    pub(super) held: [Held; 2],
    /// Cores that everybody else on the machine kept busy.
    pub(super) foreign_cores: f64,
}

/// What a proxy has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Resident octets of all its processes; a page that they share counts once.
    pub(super) memory: u64,
    pub(super) sockets: u64,
    pub(super) threads: u64,
}

impl Held {
    /// By a process and all below it.
    pub(super) fn by(pid: u32) -> Held {
        let mut held = Held::default();
        for pid in cpu::family(pid) {
            held.memory += memory(pid);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            held.threads += threads(&status).unwrap_or(0);
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let is_socket = |file: &fs::DirEntry| {
                fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
            };
            held.sockets += files.filter(is_socket).count() as u64;
        }
        held
    }
}

impl Reading {
    pub(super) fn figure(&self, figure: Figure) -> f64 {
        let tunnels = self.outcome.tunnels.max(1) as f64;
        match figure {
            Figure::Setup => self.cpu_s * 1e4 / tunnels,
            Figure::Relay => self.cpu_s * 1e9 / self.outcome.bytes.max(1) as f64,
            Figure::Ready => self.outcome.ready.p50,
            Figure::Memory => self.held[1].memory.saturating_sub(self.held[0].memory) as f64 / 1024.0 / tunnels,
        }
    }

    /// Tunnels a second, or GB.
    pub(super) fn rate(&self, row: Row) -> f64 {
        let amount =
            if row.figure() == Figure::Relay { self.outcome.bytes as f64 / 1e9 } else { self.outcome.tunnels as f64 };
        amount / self.outcome.wall_s.max(1e-3)
    }

    /// The share of its core that the proxy used.
    pub(super) fn busy(&self) -> f64 {
        self.cpu_s / self.outcome.wall_s.max(1e-3)
    }

    /// The share of tunnels that were ready in one round trip.
    pub(super) fn soon(&self) -> f64 {
        self.outcome.soon as f64 / (self.outcome.tunnels + self.outcome.failed).max(1) as f64
    }

    /// Sockets for each tunnel.
    pub(super) fn sockets(&self) -> f64 {
        self.held[1].sockets.saturating_sub(self.held[0].sockets) as f64 / self.outcome.tunnels.max(1) as f64
    }

    pub(super) fn is_disturbed(&self) -> bool {
        self.foreign_cores > FOREIGN_MAX
    }
}

/// Resident octets of a process, a page divided by the number of processes that share it.
fn memory(pid: u32) -> u64 {
    let shared = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    // Not every kernel has it.
    proportional(&shared).unwrap_or_else(|| cpu::usage(pid).rss)
}

/// `Pss` of `/proc/PID/smaps_rollup`.
fn proportional(rollup: &str) -> Option<u64> {
    let kibibytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

/// `Threads` of `/proc/PID/status`.
fn threads(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_tunnel_and_per_gigabyte() {
        let outcome =
            Outcome { tunnels: 2_000, failed: 1, bytes: 4_000_000_000, wall_s: 2.0, soon: 1_500, ..Outcome::default() };
        let held =
            [Held { memory: 1 << 20, sockets: 3, threads: 1 }, Held { memory: 21 << 20, sockets: 4_003, threads: 1 }];
        let reading = Reading { outcome, cpu_s: 1.0, held, foreign_cores: 0.2 };
        let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-9, "{value} instead of {wanted}");
        near(reading.figure(Figure::Setup), 5.0);
        near(reading.figure(Figure::Relay), 0.25);
        near(reading.figure(Figure::Memory), 10.24);
        near(reading.sockets(), 2.0);
        near(reading.rate(Row::Setup), 1_000.0);
        near(reading.rate(Row::Down), 2.0);
        near(reading.busy(), 0.5);
        near(reading.soon(), 1_500.0 / 2_001.0);
        assert!(reading.is_disturbed());
    }

    #[test]
    fn this_process_holds_something() {
        let before = Held::by(std::process::id());
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = Held::by(std::process::id());
        assert!(held.memory > 0 && held.threads >= 1 && held.sockets >= 1, "{before:?} {held:?}");
        assert_eq!(proportional("Rss:     9 kB\nPss:     4 kB\nPss_Dirty: 1 kB\n"), Some(4096));
        assert_eq!(threads("Name:\tx\nThreads:\t17\n"), Some(17));
    }
}
