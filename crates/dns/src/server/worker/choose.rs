//! Who is asked for a name, and in which order: what a worker knows of the upstreams, put before the strategy.
//!
//! Servers without groups whose strategy needs no figures never come here.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::Worker;
use crate::{
    config::{DnsConfig, Strategy},
    health::Allowed,
    server::{era::Era, route::Path},
    strategy::{
        Candidate, Plan,
        estimate::Estimate,
        groups::{Chosen, Groups},
        order::{Dice, Entry, Lead, arrange},
    },
    upstream::count,
};

/// What one worker remembers for its strategy.
pub(crate) struct Chooser {
    dice: RefCell<Dice>,
    /// Queries of each group so far, for round-robin.
    turns: Vec<Cell<u32>>,
}

impl Chooser {
    /// `None` where the plain way will do: all upstreams for all names, in an order that needs no figures.
    pub(crate) fn new(config: &DnsConfig, groups: &Groups) -> Option<Chooser> {
        let plain = match config.strategy {
            Strategy::Sequential | Strategy::Parallel | Strategy::Racing | Strategy::RoundRobin => groups.is_plain(),
            Strategy::Random | Strategy::LeastLoaded | Strategy::Fastest | Strategy::Hedged => false,
        };
        (!plain).then(|| Chooser {
            dice: RefCell::new(Dice::new(rand::random())),
            turns: vec![Cell::new(0); groups.count()],
        })
    }

    fn turn(&self, group: usize) -> u32 {
        let turn = &self.turns[group];
        turn.replace(turn.get().wrapping_add(1))
    }
}

impl Era {
    /// The plan for a question in wire form.
    pub(super) fn choose(&self, chooser: &Chooser, question: &[u8], now: Instant, deadline: Instant) -> Plan {
        let (config, groups) = (&self.config, &self.groups);
        let chosen = self.chosen(question);
        let (lead, candidates) = self.arranged(chooser, &chosen, now);
        if config.strategy == Strategy::Hedged {
            self.hedges.earn();
        }
        let first = candidates.iter().find(|candidate| matches!(candidate.allowed, Allowed::Yes));
        if let Some(estimate) = first.and_then(|first| self.routes[first.index].current(now).estimate.as_ref()) {
            estimate.borrow_mut().tried(now);
        }
        let plan = Plan::start(config.strategy, &candidates, 0, now, deadline, config.racing_delay);
        let mut plan = plan.led_by(lead);
        if let Some(fallback) = groups.fallback().filter(|fallback| fallback.group != chosen.group) {
            plan.add_fallback(&self.arranged(chooser, &fallback, now).1);
        }
        plan
    }

    /// The group that a question in wire form goes to.
    pub(super) fn chosen(&self, question: &[u8]) -> Chosen<'_> {
        let (name, rest) = question.split_at(question.len().saturating_sub(4));
        let qtype = rest.first_chunk().map_or(0, |qtype| u16::from_be_bytes(*qtype));
        self.groups.route(name, qtype)
    }

    fn arranged(&self, chooser: &Chooser, group: &Chosen<'_>, now: Instant) -> (Lead, Candidates) {
        let strategy = self.config.strategy;
        let mut entries: SmallVec<[Entry; 16]> =
            group.members.iter().map(|index| self.entry(*index, strategy, now)).collect();
        let lead = arrange(strategy, &mut entries, &mut chooser.dice.borrow_mut(), chooser.turn(group.group));
        (lead, entries.iter().map(|entry| entry.candidate).collect())
    }

    fn entry(&self, index: usize, strategy: Strategy, now: Instant) -> Entry {
        let route = &self.routes[index];
        let path = route.current(now);
        let try_timeout = path.latency.borrow().try_timeout();
        let estimate = path.estimate.as_ref().map(|estimate| *estimate.borrow()).unwrap_or_default();
        let candidate = Candidate {
            index,
            allowed: path.endpoint.allowed(now),
            try_timeout,
            hedge_after: if strategy == Strategy::Hedged { hedge_after(path, try_timeout) } else { Duration::ZERO },
        };
        Entry {
            candidate,
            weight: self.config.upstreams[index].weight,
            load: route.load(),
            expected: estimate.expected(now),
            idle: estimate.idle(now),
        }
    }
}

impl Worker {
    /// A second try is due; whether there is a token for it.
    pub(super) fn may_hedge(&self, era: &Era) -> bool {
        let counters = &self.shared.counters;
        let granted = era.hedges.spend();
        count(if granted { &counters.hedges_sent } else { &counters.hedges_denied });
        granted
    }
}

/// The 95th percentile of what was measured, or while there is too little of that, longer than almost any answer took.
fn hedge_after(path: &Path, try_timeout: Duration) -> Duration {
    let percentiles = path.spread.borrow_mut().percentiles();
    percentiles.map_or(try_timeout, |percentiles| percentiles.p95.max(HEDGE_MIN))
}

/// As many as a plan takes, and more for those who have more.
type Candidates = SmallVec<[Candidate; 16]>;

/// The tick of a worker's timers when it hedges: no second try comes sooner, and each up to so much later.
pub(super) const HEDGE_MIN: Duration = Duration::from_millis(2);

/// The estimate of an upstream, where the strategy goes by it.
pub(crate) fn estimate(strategy: Strategy) -> Option<RefCell<Estimate>> {
    matches!(strategy, Strategy::Fastest | Strategy::Hedged).then(RefCell::default)
}
