//! Slow and failed requests of every job in one form, the youngest first.

use std::time::{Duration, SystemTime};

use keepwarm_control::rows::{Job, PhaseRow, RecentRow};
use keepwarm_dns::{message, server::RecentQuery};
use keepwarm_https::{Outcome, Phases, RecentRequest};
use keepwarm_tunnel::RecentTunnel;

use super::Daemon;

pub(super) fn rows(daemon: &Daemon) -> Vec<RecentRow> {
    let now = super::super::reload::wall();
    let queries = daemon.server().map(|server| server.recent()).unwrap_or_default();
    let mut rows: Vec<RecentRow> = queries.into_iter().map(|recent| dns(recent, now)).collect();
    rows.extend(daemon.https.iter().flat_map(super::https::Hot::recent).map(|recent| https(&recent)));
    rows.extend(daemon.tunnels.iter().flat_map(super::tunnel::Tunnels::recent).map(|recent| tunnel(&recent)));
    rows.sort_by_key(|row| row.age);
    rows
}

fn dns(recent: RecentQuery, now: SystemTime) -> RecentRow {
    let failed = recent.is_failed();
    let qtype = message::type_name(recent.qtype);
    // The name is there only where the query log has it in full.
    let what = recent.name.map_or_else(|| qtype.clone(), |name| format!("{name} {qtype}"));
    let exchange = recent.exchange.as_ref();
    let dial = exchange.filter(|exchange| !exchange.opened_ahead()).and_then(|exchange| exchange.dial);
    let upstream = exchange.map(|exchange| exchange.upstream.clone());
    RecentRow {
        job: Job::Dns,
        age: now.duration_since(recent.at).unwrap_or_default(),
        failed,
        what,
        upstream: upstream.or_else(|| recent.attempts.last().map(|attempt| attempt.upstream.clone())),
        total: recent.total,
        phases: phases([
            ("wait", exchange.map(|exchange| exchange.wait)),
            ("resolve", dial.map(|dial| dial.resolve)),
            ("connect", dial.map(|dial| dial.connect)),
            ("tls", dial.and_then(|dial| dial.tls)),
            ("exchange", exchange.map(|exchange| exchange.exchange)),
        ]),
        reused: exchange.map(|exchange| exchange.reused),
        tries: u32::try_from(recent.attempts.len()).unwrap_or(u32::MAX),
        why: recent.explanation,
    }
}

fn https(recent: &RecentRequest) -> RecentRow {
    let Phases { wait, connect, tls, head, total } = recent.phases;
    RecentRow {
        job: Job::Https,
        age: recent.age,
        failed: matches!(recent.outcome, Outcome::Failed { .. }),
        what: format!("{} {}", recent.method, recent.origin),
        upstream: Some(recent.origin.clone()),
        total,
        phases: phases([
            ("wait", Some(wait.saturating_sub(connect.unwrap_or_default()).saturating_sub(tls.unwrap_or_default()))),
            ("connect", connect),
            ("tls", tls),
            ("head", Some(head)),
        ]),
        reused: recent.reused,
        tries: recent.tries,
        why: recent.explanation(),
    }
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
