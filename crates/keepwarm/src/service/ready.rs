//! Whether the daemon is fit to be sent work: the checks of `/readyz`.
//!
//! Pure: what is known goes in, a list of named checks comes out. A load balancer or Kubernetes takes a daemon that is not ready out of
//! service and leaves it running; one that is not alive is killed. So a lost network makes a daemon unready, and never dead.

use std::collections::BTreeMap;

use keepwarm_control::rows::{BreakerState, CheckRow, Job, UpstreamRow};

use super::summary::DIRECT;

/// What is known of the daemon.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The config was read and is in force.
    pub is_loaded: bool,
    /// Whether every worker of DNS answers; none where there is no DNS.
    pub workers_answer: Option<bool>,
    /// The upstreams of every job.
    pub upstreams: Vec<UpstreamRow>,
    /// The daemon was told to stop.
    pub is_stopping: bool,
}

/// Judges the facts: `config`, `workers` where there is DNS, one for each group of upstreams such as `dns-upstreams-default`, and
/// `not-stopping`, in this order; the daemon is ready when all hold.
///
/// A group is well while one of its upstreams has a closed breaker. Origins of hot HTTPS are in no group and have no check: one site that
/// is down is no reason to take the others out of service.
pub fn checks(facts: &Facts) -> Vec<CheckRow> {
    let mut checks = vec![check("config", facts.is_loaded, "in force", || "not loaded yet".into())];
    checks.extend(
        facts.workers_answer.map(|answer| check("workers", answer, "all answer", || "one does not answer".into())),
    );
    let mut groups = BTreeMap::<(Job, &str), Vec<&UpstreamRow>>::new();
    for row in facts.upstreams.iter().filter(|row| row.job != Job::Https && row.transport != DIRECT) {
        groups.entry((row.job, row.group.as_deref().unwrap_or(DEFAULT))).or_default().push(row);
    }
    checks.extend(groups.iter().map(|((job, group), rows)| of_group(*job, group, rows)));
    checks.push(check("not-stopping", !facts.is_stopping, "it runs", || "the daemon was told to stop".into()));
    checks
}

/// One upstream is enough for a group.
fn of_group(job: Job, group: &str, rows: &[&UpstreamRow]) -> CheckRow {
    let names = |which: &dyn Fn(&UpstreamRow) -> bool| {
        let mut names: Vec<&str> = rows.iter().filter(|row| which(row)).map(|row| &*row.name).collect();
        names.dedup();
        names
    };
    let (all, up) = (names(&|_| true), names(&|row| row.breaker == BreakerState::Closed));
    CheckRow {
        name: format!("{}-upstreams-{group}", job.as_str()),
        ok: !up.is_empty(),
        text: match up.is_empty() {
            false => format!("{} of {} with a closed breaker", up.len(), all.len()),
            true => format!("no breaker is closed: {}", all.join(", ")),
        },
    }
}

fn check(name: &str, ok: bool, holds: &str, fault: impl FnOnce() -> String) -> CheckRow {
    CheckRow { name: name.to_owned(), ok, text: if ok { holds.to_owned() } else { fault() } }
}

/// The group of upstreams where there are no groups.
const DEFAULT: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(job: Job, name: &str, group: Option<&str>, breaker: BreakerState) -> UpstreamRow {
        UpstreamRow { job, name: name.into(), group: group.map(str::to_owned), breaker, ..UpstreamRow::default() }
    }

    fn well() -> Facts {
        let upstreams = vec![
            row(Job::Dns, "a", Some("default"), BreakerState::Open),
            row(Job::Dns, "b", Some("default"), BreakerState::Closed),
            // Its second row is the way for truncated answers.
            row(Job::Dns, "c", Some("corp"), BreakerState::HalfOpen),
            row(Job::Dns, "c", Some("corp"), BreakerState::Closed),
            row(Job::Https, "tiles.example", None, BreakerState::Open),
            row(Job::Tunnel, "exit", Some("default"), BreakerState::Closed),
            UpstreamRow { transport: DIRECT.into(), ..row(Job::Tunnel, "direct", None, BreakerState::Open) },
        ];
        Facts { is_loaded: true, workers_answer: Some(true), upstreams, ..Facts::default() }
    }

    fn told(facts: &Facts) -> Vec<String> {
        let line = |check: &CheckRow| format!("{} {}: {}", if check.ok { '+' } else { '-' }, check.name, check.text);
        checks(facts).iter().map(line).collect()
    }

    #[test]
    fn a_daemon_that_can_serve_is_ready() {
        assert_eq!(
            told(&well()),
            [
                "+ config: in force",
                "+ workers: all answer",
                "+ dns-upstreams-corp: 1 of 1 with a closed breaker",
                "+ dns-upstreams-default: 1 of 2 with a closed breaker",
                "+ tunnel-upstreams-default: 1 of 1 with a closed breaker",
                "+ not-stopping: it runs",
            ]
        );
        let without_dns = Facts { workers_answer: None, upstreams: Vec::new(), ..well() };
        assert_eq!(told(&without_dns), ["+ config: in force", "+ not-stopping: it runs"]);
    }

    #[test]
    fn each_thing_that_is_amiss_is_named_alone() {
        type Break = (fn(&mut Facts), &'static str);
        let breaks: [Break; 5] = [
            (|facts| facts.is_loaded = false, "- config: not loaded yet"),
            (|facts| facts.workers_answer = Some(false), "- workers: one does not answer"),
            (
                |facts| facts.upstreams[1].breaker = BreakerState::HalfOpen,
                "- dns-upstreams-default: no breaker is closed: a, b",
            ),
            (
                |facts| facts.upstreams[5].breaker = BreakerState::Open,
                "- tunnel-upstreams-default: no breaker is closed: exit",
            ),
            (|facts| facts.is_stopping = true, "- not-stopping: the daemon was told to stop"),
        ];
        for (spoil, fault) in breaks {
            let mut facts = well();
            spoil(&mut facts);
            let faults: Vec<String> = told(&facts).into_iter().filter(|line| line.starts_with('-')).collect();
            assert_eq!(faults, [fault]);
        }
    }
}
