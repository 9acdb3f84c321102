//! Whether the daemon is fit to be sent work: `/readyz`, and `/livez` beside it.
//!
//! Pure: what is known goes in, a list of named checks comes out. A load balancer or Kubernetes takes a daemon that is not ready out of
//! service and leaves it running; one that is not alive is killed. So a lost network makes a daemon unready, and never dead.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::status::{BreakerState, PoolRow, tunnel::TunnelStatus};

/// Named checks, in the order in which they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Readiness {
    /// All of them, also those that pass.
    pub checks: Vec<Check>,
}

/// One thing that has to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name of lower-case words with hyphens, such as `listeners`, or with a group, `dns-upstreams-default`.
    pub name: String,
    /// Why it is not so; none where it is.
    pub fault: Option<String>,
}

/// What is known of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The config was read and is in force.
    pub is_loaded: bool,
    /// Listeners of the config that are not bound.
    pub unbound: Vec<String>,
    /// Whether every worker of DNS answers; none where there is no DNS.
    pub workers_answer: Option<bool>,
    /// Upstreams that queries and tunnels may be sent to.
    pub upstreams: Vec<Upstream>,
    /// The daemon was told to stop.
    pub is_stopping: bool,
}

/// An upstream among others of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `dns` or `tunnel`: a group of one is not a group of the other.
    pub kind: &'static str,
    /// Its group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Whether its breaker is closed.
    pub is_up: bool,
}

impl Readiness {
    /// Judges the facts.
    pub fn new(facts: &Facts) -> Readiness {
        let mut checks = vec![
            check("config", (!facts.is_loaded).then(|| "not loaded yet".into())),
            check("listeners", (!facts.unbound.is_empty()).then(|| format!("not bound: {}", facts.unbound.join(", ")))),
        ];
        if let Some(answer) = facts.workers_answer {
            checks.push(check("workers", (!answer).then(|| "a worker of dns does not answer".into())));
        }
        let mut groups = BTreeMap::<_, Vec<&Upstream>>::new();
        for upstream in &facts.upstreams {
            groups.entry((upstream.kind, &upstream.group)).or_default().push(upstream);
        }
        checks.extend(groups.into_iter().map(|((kind, group), upstreams)| {
            check(&format!("{kind}-upstreams-{group}"), all_down(&upstreams))
        }));
        checks.push(check("not-stopping", facts.is_stopping.then(|| "the daemon was told to stop".into())));
        Readiness { checks }
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.fault.is_none())
    }

    /// The checks that do not pass.
    pub fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().filter_map(|check| Some((&*check.name, check.fault.as_deref()?)))
    }

    /// As Kubernetes writes it: `ok`, or with `is_verbose`, and whenever something fails, a line a check and the verdict.
    pub fn text(&self, is_verbose: bool) -> String {
        if self.is_ready() && !is_verbose {
            return "ok\n".into();
        }
        let mut text = String::new();
        for Check { name, fault } in &self.checks {
            // Writing to a String cannot fail.
            let _ = match fault {
                None => writeln!(text, "[+]{name} ok"),
                Some(fault) => writeln!(text, "[-]{name} failed: {fault}"),
            };
        }
        text + if self.is_ready() { "readyz check passed\n" } else { "readyz check failed\n" }
    }
}

/// The upstreams of DNS, by the rows that are shown of them. One with two transports is up while either is.
pub fn dns_upstreams(rows: &[PoolRow]) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for row in rows {
        let is_up = row.breaker == BreakerState::Closed;
        match upstreams.iter_mut().find(|upstream| upstream.name == row.upstream) {
            Some(upstream) => upstream.is_up |= is_up,
            None => upstreams.push(Upstream {
                kind: "dns",
                group: row.group.clone(),
                name: row.upstream.clone(),
                is_up,
            }),
        }
    }
    upstreams
}

/// The upstreams of tunnels; this machine's own connections are none, for there is nothing that could be down.
pub fn tunnel_upstreams(status: &TunnelStatus) -> Vec<Upstream> {
    let proxies = status.upstreams.iter().filter(|upstream| upstream.name != "direct");
    let upstream = |row: &crate::status::tunnel::TunnelUpstreamRow| Upstream {
        kind: "tunnel",
        group: row.group.clone(),
        name: row.name.clone(),
        is_up: row.breaker == BreakerState::Closed,
    };
    proxies.map(upstream).collect()
}

/// One upstream is enough for a group.
fn all_down(upstreams: &[&Upstream]) -> Option<String> {
    let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
    upstreams.iter().all(|upstream| !upstream.is_up).then(|| format!("no breaker is closed: {}", names.join(", ")))
}

fn check(name: &str, fault: Option<String>) -> Check {
    Check { name: name.to_owned(), fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tunnel::TunnelUpstreamRow;

    fn well() -> Facts {
        let row = |upstream: &str, group: &str, transport: &str, breaker| PoolRow {
            upstream: upstream.into(),
            group: group.into(),
            transport: transport.into(),
            breaker,
            ..PoolRow::default()
        };
        let rows = [
            row("a", "default", "udp", BreakerState::Open),
            row("b", "default", "tls", BreakerState::Closed),
            row("c", "corp", "udp", BreakerState::HalfOpen),
            row("c", "corp", "tcp", BreakerState::Closed),
        ];
        Facts { is_loaded: true, workers_answer: Some(true), upstreams: dns_upstreams(&rows), ..Facts::default() }
    }

    #[test]
    fn a_daemon_that_can_serve_is_ready() {
        let readiness = Readiness::new(&well());
        assert!(readiness.is_ready());
        assert_eq!(readiness.text(false), "ok\n");
        assert_eq!(
            readiness.text(true),
            "[+]config ok\n[+]listeners ok\n[+]workers ok\n[+]dns-upstreams-corp ok\n[+]dns-upstreams-default ok\n\
             [+]not-stopping ok\nreadyz check passed\n"
        );
    }

    #[test]
    fn each_thing_that_is_amiss_is_named_alone() {
        let breaks: [(&str, fn(&mut Facts), &str); 5] = [
            ("config", |facts| facts.is_loaded = false, "not loaded yet"),
            ("listeners", |facts| facts.unbound = vec!["udp://[::1]:53".into()], "not bound: udp://[::1]:53"),
            ("workers", |facts| facts.workers_answer = Some(false), "a worker of dns does not answer"),
            ("dns-upstreams-default", |facts| facts.upstreams[1].is_up = false, "no breaker is closed: a, b"),
            ("not-stopping", |facts| facts.is_stopping = true, "the daemon was told to stop"),
        ];
        for (name, spoil, fault) in breaks {
            let mut facts = well();
            spoil(&mut facts);
            let readiness = Readiness::new(&facts);
            assert!(!readiness.is_ready(), "{name}");
            assert_eq!(readiness.faults().collect::<Vec<_>>(), [(name, fault)]);
            let text = readiness.text(false);
            assert!(text.contains(&format!("[-]{name} failed: {fault}\n")), "{text}");
            assert!(text.ends_with("readyz check failed\n"), "{text}");
        }
    }

    #[test]
    fn groups_of_tunnels_are_apart_and_this_machine_is_no_upstream() {
        let row = |name: &str, breaker| TunnelUpstreamRow {
            name: name.into(),
            group: "default".into(),
            breaker,
            ..TunnelUpstreamRow::default()
        };
        let status = TunnelStatus {
            upstreams: vec![row("exit-a", BreakerState::Open), row("direct", BreakerState::Closed)],
            ..TunnelStatus::default()
        };
        let mut facts = well();
        facts.upstreams.extend(tunnel_upstreams(&status));
        let readiness = Readiness::new(&facts);
        let faults: Vec<_> = readiness.faults().collect();
        assert_eq!(faults, [("tunnel-upstreams-default", "no breaker is closed: exit-a")]);
    }
}
