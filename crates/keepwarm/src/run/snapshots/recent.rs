//! Slow and failed requests of every job in one form, the youngest first.

use std::time::Duration;

use keepwarm_control::rows::{Job, PhaseRow, RecentRow};
use keepwarm_tunnel::RecentTunnel;

use super::Daemon;

pub(super) fn rows(daemon: &Daemon) -> Vec<RecentRow> {
    let mut rows: Vec<RecentRow> =
        daemon.tunnels.iter().flat_map(super::tunnel::Tunnels::recent).map(|recent| tunnel(&recent)).collect();
    rows.sort_by_key(|row| row.age);
    rows
}

fn tunnel(recent: &RecentTunnel) -> RecentRow {
    let ready = recent.elapsed.saturating_sub(recent.waited);
    let why = match &recent.error {
        Some((kind, text)) => format!("{}: {text}", kind.as_str()),
        None if recent.waited > ready => {
            "it waited for a place among the live tunnels: see max_per_destination".to_owned()
        }
        None if recent.spare.is_none() => "there was no spare: the connection to the proxy was made for it".to_owned(),
        None => "the proxy took long to reach the destination".to_owned(),
    };
    RecentRow {
        job: Job::Tunnel,
        age: recent.age,
        failed: recent.error.is_some(),
        what: recent.target.to_string(),
        upstream: recent.upstream.as_deref().map(str::to_owned),
        total: recent.elapsed,
        phases: phases([("wait", Some(recent.waited)), ("connect", Some(ready))]),
        reused: recent.upstream.is_some().then_some(recent.spare.is_some()),
        tries: recent.tries,
        why,
    }
}

/// The phases that took any time.
fn phases<const N: usize>(phases: [(&str, Option<Duration>); N]) -> Vec<PhaseRow> {
    let taken = phases.into_iter().filter_map(|(phase, took)| Some((phase, took.filter(|took| !took.is_zero())?)));
    taken.map(|(phase, took)| PhaseRow { phase: phase.to_owned(), took }).collect()
}
