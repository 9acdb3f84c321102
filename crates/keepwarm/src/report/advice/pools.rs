//! What a pool's past says of its settings.

use std::time::Duration;

use super::{
    super::{Material, summary::Summary},
    Advice, Weight,
    keys::{is_udp, key, serves_once},
    percent, whole, with_headroom,
};
use crate::pools::{counts, short};
use keepwarm_control::rows::PoolRow;

/// Everything that a pool's past calls for.
pub(super) fn advise(material: &Material, summary: &Summary, row: &PoolRow) -> Vec<Advice> {
    let case = Case { material, summary, row };
    let full = case.full();
    let waits = if full.is_none() { case.waits() } else { None };
    let cold = if waits.is_none() { case.cold() } else { None };
    [full, case.queue(), waits, cold, case.reuse(), case.dials(), case.dead()].into_iter().flatten().collect()
}

/// A pool that wants nothing.
pub(super) fn fine(summary: &Summary, row: &PoolRow) -> Advice {
    let reuse = summary.reuse_ratio.filter(|_| !serves_once(&row.name));
    let reuse = reuse.map_or_else(String::new, |ratio| format!(", {} reused", percent(ratio)));
    let limit = row.limits.max_total.min(row.limits.max_per_host.saturating_mul(row.hosts.max(1)));
    let evidence = format!("never full, {} of {limit} in use (p99){reuse}: nothing to change", summary.in_use_p99);
    Advice::new(Weight::Fine, &row.name, evidence)
}

struct Case<'a> {
    material: &'a Material,
    summary: &'a Summary,
    row: &'a PoolRow,
}

impl Case<'_> {
    fn advice(&self, weight: Weight, evidence: String) -> Advice {
        Advice::new(weight, &self.row.name, evidence)
    }

    /// Advice to change a setting of this pool, where the config has it.
    fn set(&self, weight: Weight, evidence: String, setting: &str, value: &impl ToString) -> Advice {
        let advice = self.advice(weight, evidence);
        match key(&self.row.name, setting) {
            Some(key) => advice.set(self.material, &key, value),
            None => advice,
        }
    }

    /// Somebody waited and nothing more could be opened.
    fn full(&self) -> Option<Advice> {
        let (summary, row) = (self.summary, self.row);
        if summary.full < FULL_MIN || summary.full_share < FULL_SHARE {
            return None;
        }
        let limits = &row.limits;
        let is_total = summary.open_max >= limits.max_total;
        let (limit, now) =
            if is_total { ("max_total", limits.max_total) } else { ("max_per_host", limits.max_per_host) };
        // A connection carries so many leases when it is busy; the peer may allow one, or a hundred.
        let in_use = summary.in_use_p99.max(1) as f64;
        let each = (summary.demand_p99 / in_use).clamp(1.0, limits.max_in_flight.max(1) as f64);
        let needed = with_headroom(summary.demand_p99) / each;
        // Of several hosts one is full: it needs as much more as all of them together do.
        let grown = now as f64 * (needed / in_use);
        let value = whole(grown.max(now as f64 * AT_LEAST_MORE));
        let lease = summary.lease_mean.map_or_else(|| "unknown".into(), seconds);
        let failed = if summary.failed > 0 { format!(", {} acquires failed", summary.failed) } else { String::new() };
        let evidence = format!(
            "full in {} of looks ({} of {}){failed}; at {:.1} acquires/s of {lease} each {:.1} are held at a time, \
             {:.1} in the busiest steps, and {limit} is {now}",
            percent(summary.full_share),
            summary.full,
            summary.seconds,
            summary.acquires as f64 / summary.seconds.max(1) as f64,
            summary.demand,
            summary.demand_p99,
        );
        let advice = self.set(Weight::Urgent, evidence, limit, &value).was(now);
        let both = if !is_total && value > limits.max_total { format!(" max_total={value}") } else { String::new() };
        Some(advice.at_once(&row.name, &format!("{limit}={value}{both}")))
    }

    /// Acquires that found the queue full.
    fn queue(&self) -> Option<Advice> {
        let refused = self.row.counters.errors.get("queue_full").copied().unwrap_or(0);
        let now = self.row.limits.max_waiters;
        let value = now.saturating_mul(2).max(1);
        (refused > 0).then(|| {
            let evidence = format!("{refused} acquires were refused since the start because {now} waited already");
            let advice = self.set(Weight::Urgent, evidence, "max_waiters", &value).was(now);
            advice.at_once(&self.row.name, &format!("max_waiters={value}"))
        })
    }

    /// Who waits, waits for longer than a dial takes.
    fn waits(&self) -> Option<Advice> {
        let (wait, dial) = (self.summary.wait_p50?, self.summary.dial_p50?);
        let (counters, limits) = (&self.row.counters, &self.row.limits);
        let share = counters.waited as f64 / counters.acquires.max(1) as f64;
        if serves_once(&self.row.name) || counters.waited < WAITED_MIN || share < WAITED_SHARE || wait <= dial {
            return None;
        }
        let ready = whole(with_headroom(self.summary.demand)).min(limits.max_idle_per_host);
        let evidence = format!(
            "{} of acquires waited, half of them {} and more, and a dial takes {}: they come while others are dialled for",
            percent(share),
            seconds(wait),
            seconds(dial)
        );
        (ready > limits.min_idle).then(|| self.ready(Weight::Useful, evidence, ready))
    }

    /// Connections are opened anew after each pause.
    fn cold(&self) -> Option<Advice> {
        let summary = self.summary;
        let share = summary.opened_cold as f64 / summary.opened.max(1) as f64;
        if is_udp(&self.row.name)
            || serves_once(&self.row.name)
            || summary.cold_starts < COLD_MIN
            || share < COLD_SHARE
            || self.row.limits.min_idle > 0
        {
            return None;
        }
        let each = summary.opened_cold.div_ceil(summary.cold_starts);
        let evidence = format!(
            "{} times requests came after a pause and found nothing warm: {} of {} connections were opened then",
            summary.cold_starts, summary.opened_cold, summary.opened
        );
        let hosts = self.row.hosts.max(1);
        let most = self.row.limits.max_idle_per_host;
        (most > 0).then(|| self.ready(Weight::Useful, evidence, each.div_ceil(hosts).clamp(1, most)))
    }

    fn ready(&self, weight: Weight, evidence: String, value: u64) -> Advice {
        let advice = self.set(weight, evidence, "min_idle", &value).was(self.row.limits.min_idle);
        advice.at_once(&self.row.name, &format!("min_idle={value}"))
    }

    /// Too few acquires find a connection that has served before.
    fn reuse(&self) -> Option<Advice> {
        let (summary, row) = (self.summary, self.row);
        let ratio = summary.reuse_ratio?;
        if serves_once(&row.name) || is_udp(&row.name) || summary.acquires < REUSE_ACQUIRES || ratio >= REUSE_MIN {
            return None;
        }
        // Acquires that failed reuse nothing either; only new connections are a matter of what ends them.
        if (summary.opened as f64) < summary.acquires as f64 * OPENED_SHARE {
            return None;
        }
        let closed = &row.counters.closed;
        let total: u64 = closed.values().sum();
        let seen = format!("only {} of acquires reused a connection, {} were opened", percent(ratio), summary.opened);
        let Some((reason, count)) = closed.iter().filter(|(_, count)| **count > 0).max_by_key(|(_, count)| **count)
        else {
            return Some(self.advice(Weight::Look, format!("{seen}; none has ended yet: the pool is still growing")));
        };
        let why = format!("{seen}; of {total} that ended {count} did by {reason}");
        Some(self.by_reason(reason, why))
    }

    /// What to do about connections that mostly end for this reason.
    fn by_reason(&self, reason: &str, why: String) -> Advice {
        let (row, summary) = (self.row, self.summary);
        match reason {
            "idle_timeout" => self.idle(why),
            "max_idle" => {
                let per_host = row.limits.max_idle_per_host < row.limits.max_idle && row.hosts <= 1;
                let (setting, now) = match per_host {
                    true => ("max_idle_per_host", row.limits.max_idle_per_host),
                    false => ("max_idle", row.limits.max_idle),
                };
                let value =
                    summary.open_max.max(summary.in_use_p99).max(now + 1).min(row.limits.max_total.max(now + 1));
                self.set(Weight::Useful, why, setting, &value)
                    .was(now)
                    .at_once(&row.name, &format!("{setting}={value}"))
            }
            "evicted" => {
                let now = row.limits.max_total;
                let value = whole(now as f64 * AT_LEAST_MORE);
                let why = format!("{why}: other hosts needed their place");
                let advice = self.set(Weight::Useful, why, "max_total", &value).was(now);
                advice.at_once(&row.name, &format!("max_total={value}"))
            }
            "peer_closed" | "peer_reset" | "goaway" => self.closed_by_peer(&why),
            "lifetime" => self.set(
                Weight::Useful,
                format!("{why}: they grow old before they are used"),
                "max_lifetime",
                &"\"1h\"",
            ),
            "flushed" | "drained" | "shrunk" => {
                self.advice(Weight::Look, format!("{why}: an operator, a reload or a change of the network did that"))
            }
            _ => self
                .advice(Weight::Look, format!("{why}: the upstream breaks connections; keepwarm upstreams says more")),
        }
    }

    /// Connections end idle: because the config says so, or because the upstream was seen to close them then.
    fn idle(&self, why: String) -> Advice {
        match self.shortest_idle_limit() {
            Some((upstream, limit)) => self.ready(
                Weight::Useful,
                format!("{why}; {upstream} closes after {}: a longer idle_timeout does not help, one that is kept ready does", short(limit)),
                self.row.limits.min_idle + 1,
            ),
            None => {
                let longest = self.row.idle_age.max.unwrap_or_default().max(Duration::from_secs(60));
                let value = format!("\"{}m\"", (2 * longest.as_secs()).div_ceil(60).min(60));
                self.set(Weight::Useful, why, "idle_timeout", &value)
            }
        }
    }

    fn closed_by_peer(&self, why: &str) -> Advice {
        match self.shortest_idle_limit() {
            Some((upstream, limit)) => self.advice(
                Weight::Look,
                format!(
                    "{why}; {upstream} closes after {}: raise that there, no setting of keepwarm does",
                    short(limit)
                ),
            ),
            None => self.advice(Weight::Look, format!("{why}: the upstream closes them; no setting of keepwarm helps")),
        }
    }

    /// The upstream of this pool that was seen to close soonest.
    fn shortest_idle_limit(&self) -> Option<(&str, Duration)> {
        let upstreams =
            self.material.upstreams.iter().filter(|upstream| upstream.pool.as_deref() == Some(&self.row.name));
        let limits = upstreams.filter_map(|upstream| Some((upstream.name.as_str(), upstream.idle_limit?)));
        limits.min_by_key(|(_, limit)| *limit)
    }

    /// Many dials fail.
    fn dials(&self) -> Option<Advice> {
        let errors = &self.row.counters.dial_errors;
        let (failed, dials) = (errors.values().sum::<u64>(), self.row.counters.dials.max(1));
        let share = failed as f64 / dials as f64;
        if failed < DIALS_MIN || share < DIALS_SHARE {
            return None;
        }
        let (kind, _) = errors.iter().max_by_key(|(_, count)| **count)?;
        let seen = format!("{} of {dials} dials failed: {}", percent(share.min(1.0)), counts(errors));
        Some(match kind.as_str() {
            "files_exhausted" => self.advice(
                Weight::Urgent,
                format!("{seen}; this machine has no file descriptors left: raise LimitNOFILE of the unit"),
            ),
            "ports_exhausted" => self.advice(
                Weight::Urgent,
                format!("{seen}; this machine has no local ports left: widen net.ipv4.ip_local_port_range"),
            ),
            kind if kind.starts_with("timeout") => {
                let longest = self.row.dial.max.map_or_else(|| "none".into(), short);
                self.advice(
                    Weight::Look,
                    format!("{seen}; the longest that succeeded took {longest}: connect_timeout is long enough when that is well below it"),
                )
            }
            "certificate" | "tls" | "alpn" => {
                self.advice(Weight::Look, format!("{seen}; check server_name, addresses and tls.extra_roots"))
            }
            "refused" | "unreachable" | "network_unreachable" | "network_down" => {
                self.advice(Weight::Look, format!("{seen}; the upstream's address or the network is not there"))
            }
            _ => self.advice(Weight::Look, seen),
        })
    }

    /// Reused connections were dead when they were used.
    fn dead(&self) -> Option<Advice> {
        let counters = &self.row.counters;
        let share = counters.reuse_failures as f64 / counters.reused.max(1) as f64;
        if serves_once(&self.row.name) || counters.reuse_failures < DEAD_MIN || share < DEAD_SHARE {
            return None;
        }
        let evidence = format!(
            "{} of {} reused connections were dead when they were used",
            counters.reuse_failures, counters.reused
        );
        Some(self.set(Weight::Useful, evidence, "check_interval", &"\"10s\""))
    }
}

/// A time that is a number of seconds.
fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "unknown".into(), short)
}

// Less than these is chance.
const FULL_MIN: u64 = 3;
const FULL_SHARE: f64 = 0.001;
const WAITED_MIN: u64 = 20;
const WAITED_SHARE: f64 = 0.05;
const COLD_MIN: u64 = 3;
const COLD_SHARE: f64 = 0.5;
const REUSE_ACQUIRES: u64 = 100;
const REUSE_MIN: f64 = 0.8;
const OPENED_SHARE: f64 = 0.1;
const DIALS_MIN: u64 = 5;
const DIALS_SHARE: f64 = 0.05;
const DEAD_MIN: u64 = 5;
const DEAD_SHARE: f64 = 0.01;

/// A limit that was hit is raised by a quarter at least.
const AT_LEAST_MORE: f64 = 1.25;
