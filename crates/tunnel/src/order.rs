//! In which order the upstreams of a group are tried. Pure.
//!
//! Upstreams that are well come before those that wait to be trusted again, and these before those that are left alone; among equals
//! the lower priority comes first, and then the strategy decides. Nobody is left out: when all are left alone, the one whose pause
//! ends first is the least bad, and better than nothing.

use std::time::{Duration, Instant};

use keepwarm_pool::health::Allowed;

use crate::config::Strategy;

/// One upstream as it is at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its place in the config.
    pub(crate) index: usize,
    pub(crate) priority: u32,
    /// What its breaker says.
    pub(crate) allowed: Allowed,
    /// When it was well again after its breaker had opened; `None`: it never failed.
    pub(crate) well_since: Option<Instant>,
    /// Its live tunnels.
    pub(crate) live: usize,
    /// How long its tunnels take of late; `None`: not known.
    pub(crate) latency: Option<Duration>,
}

/// What the order goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordering {
    pub(crate) strategy: Strategy,
    /// For how long an upstream that failed must be well; `None`: it comes first again when its stand-in fails.
    pub(crate) switch_back: Option<Duration>,
    /// Grows with each order of the group.
    pub(crate) turn: usize,
    /// The upstream that served the group last.
    pub(crate) current: Option<usize>,
}

/// How willingly an upstream is used; lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Well.
    Well,
    /// Well again, but not for long enough.
    Returning,
    /// Its breaker would let a probe through.
    Probe,
    /// Left alone until then.
    Open(Instant),
}

/// Puts upstreams, given in the order of the config, into the order in which they are tried.
pub(crate) fn sort(candidates: &mut [Candidate], by: &Ordering, now: Instant) {
    let turn = by.turn;
    // Each round of turns begins with another one; the order of the config is kept otherwise.
    let count = candidates.len().max(1);
    let place = |candidate: &Candidate, position: usize| match by.strategy {
        Strategy::Ordered => (0, Duration::ZERO, position),
        Strategy::RoundRobin => (0, Duration::ZERO, (position + count - turn % count) % count),
        Strategy::LeastLoaded => (candidate.live, Duration::ZERO, (position + count - turn % count) % count),
        Strategy::Fastest => {
            // Now and then another one goes first, or what was once slow would be so for ever.
            let explored = turn.is_multiple_of(EXPLORE) && (turn / EXPLORE) % count == position;
            let latency = if explored { Duration::ZERO } else { candidate.latency.unwrap_or_default() };
            (0, latency, position)
        }
    };
    let mut keyed: Vec<_> = candidates
        .iter()
        .enumerate()
        .map(|(position, candidate)| {
            ((standing(candidate, by, now), candidate.priority, place(candidate, position)), *candidate)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    for (to, (_, candidate)) in candidates.iter_mut().zip(keyed) {
        *to = candidate;
    }
}

fn standing(candidate: &Candidate, by: &Ordering, now: Instant) -> Standing {
    match candidate.allowed {
        Allowed::No { until } => Standing::Open(until),
        Allowed::Probe => Standing::Probe,
        Allowed::Yes => {
            let is_trusted = match (candidate.well_since, by.switch_back) {
                (None, _) => true,
                (Some(since), Some(wait)) => now.saturating_duration_since(since) >= wait,
                // The stand-in keeps the group as long as it is well. Those that share have no stand-in.
                (Some(_), None) => by.strategy != Strategy::Ordered || by.current == Some(candidate.index),
            };
            if is_trusted { Standing::Well } else { Standing::Returning }
        }
    }
}

/// One order in so many begins with an upstream that is not the fastest.
const EXPLORE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
    fn now() -> Instant {
        Instant::now()
    }

    fn upstream(index: usize) -> Candidate {
        Candidate { index, priority: 1, allowed: Allowed::Yes, well_since: None, live: 0, latency: None }
    }

    fn order(mut candidates: Vec<Candidate>, strategy: Strategy, turn: usize, now: Instant) -> Vec<usize> {
        let by = Ordering { strategy, switch_back: Some(10 * SECOND), turn, current: None };
        sort(&mut candidates, &by, now);
        candidates.iter().map(|candidate| candidate.index).collect()
    }

    #[test]
    fn backups_come_in_the_order_of_priority_and_file() {
        let candidates = vec![Candidate { priority: 2, ..upstream(0) }, upstream(1), upstream(2)];
        assert_eq!(order(candidates, Strategy::Ordered, 7, now()), [1, 2, 0]);
    }

    #[test]
    fn those_that_are_left_alone_come_last_and_the_least_bad_of_them_first() {
        let now = now();
        let open =
            |index, seconds| Candidate { allowed: Allowed::No { until: now + seconds * SECOND }, ..upstream(index) };
        let candidates =
            vec![open(0, 30), open(1, 5), Candidate { allowed: Allowed::Probe, ..upstream(2) }, upstream(3)];
        assert_eq!(order(candidates, Strategy::Ordered, 0, now), [3, 2, 1, 0]);
    }

    #[test]
    fn each_strategy_orders_equals_its_own_way() {
        let now = now();
        let all = || (0..3).map(upstream).collect::<Vec<_>>();
        let firsts: Vec<_> = (0..6).map(|turn| order(all(), Strategy::RoundRobin, turn, now)[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
        let loads = [3, 1, 2];
        let loaded = all().into_iter().map(|it| Candidate { live: loads[it.index], ..it }).collect();
        assert_eq!(order(loaded, Strategy::LeastLoaded, 0, now), [1, 2, 0]);
        let times = [Some(30 * SECOND), Some(10 * SECOND), None];
        let timed = || all().into_iter().map(|it| Candidate { latency: times[it.index], ..it }).collect();
        assert_eq!(order(timed(), Strategy::Fastest, 1, now), [2, 1, 0], "one that is not known is found out about");
        let explored: Vec<_> = (0..4).map(|round| order(timed(), Strategy::Fastest, round * EXPLORE, now)[0]).collect();
        assert_eq!(explored, [0, 1, 2, 0]);
    }

    #[test]
    fn least_loaded_shares_ties_in_turn() {
        let now = now();
        let all = || (0..2).map(upstream).collect::<Vec<_>>();
        let firsts: Vec<_> = (0..4).map(|turn| order(all(), Strategy::LeastLoaded, turn, now)[0]).collect();
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn one_that_failed_comes_first_again_after_it_was_well_for_long_enough() {
        let now = now();
        let candidates = || vec![Candidate { well_since: Some(now), ..upstream(0) }, upstream(1)];
        assert_eq!(order(candidates(), Strategy::Ordered, 0, now + 9 * SECOND), [1, 0]);
        assert_eq!(order(candidates(), Strategy::Ordered, 0, now + 10 * SECOND), [0, 1]);
        let mut kept = candidates();
        let by = Ordering { strategy: Strategy::Ordered, switch_back: None, turn: 0, current: Some(1) };
        sort(&mut kept, &by, now + 9999 * SECOND);
        assert_eq!(kept[0].index, 1, "without a time the stand-in stays until it fails");
        let mut kept = candidates();
        sort(&mut kept, &Ordering { current: Some(0), ..by }, now);
        assert_eq!(kept[0].index, 0);
    }
}
