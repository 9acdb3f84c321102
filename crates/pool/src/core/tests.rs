//! Random operations on several hosts with a model of the shell around them, the invariants checked after every step.
//!
//! Not here: single cases (`tests/cases`), which go through the public API.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::error::Side;
use crate::limits::{IdlePolicy, Policy};

struct Plain;

impl Kinds for Plain {
    type Conn = u64;
    type Fault = u32;
    /// The waiter's number.
    type Notify = u64;
    type Warm = u64;
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire { host: usize, park: bool, fresh: bool, wait: bool },
    Cancel { nth: usize },
    Claim { nth: usize },
    TimeOut { nth: usize },
    Release { nth: usize, quick: bool },
    Poison { nth: usize },
    Detach { nth: usize },
    ReuseFailed { nth: usize },
    Dialed { nth: usize, capacity: Option<u32>, reusable: bool },
    DialFailed { nth: usize, local: bool },
    Validated { nth: usize, good: bool },
    Closed { nth: usize, reason: CloseReason },
    Capacity { nth: usize, capacity: u32 },
    IdleLimit { nth: usize, limit: u64 },
    Tick,
    Pass { ms: u64 },
    Flush { host: usize },
    Pause { host: usize },
    Resume { host: usize },
    Limits { per_host: usize, idle: usize, min_idle: usize },
    Idle { host: usize, seconds: u64 },
    WarmUp { host: usize, n: usize },
    Suspend { host: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..64usize;
    let host = 0..HOSTS;
    let reason = prop_oneof![Just(CloseReason::PeerClosed), Just(CloseReason::GoAway), Just(CloseReason::StrayBytes)];
    prop_oneof![
        20 => (host.clone(), any::<bool>(), 0..8u8, 0..8u8)
            .prop_map(|(host, park, fresh, wait)| Op::Acquire { host, park, fresh: fresh == 0, wait: wait > 0 }),
        20 => (n.clone(), any::<bool>()).prop_map(|(nth, quick)| Op::Release { nth, quick }),
        12 => (n.clone(), prop_oneof![Just(None), (0..6u32).prop_map(Some)], 0..10u8)
            .prop_map(|(nth, capacity, r)| Op::Dialed { nth, capacity, reusable: r > 0 }),
        6 => n.clone().prop_map(|nth| Op::Cancel { nth }),
        10 => n.clone().prop_map(|nth| Op::Claim { nth }),
        3 => n.clone().prop_map(|nth| Op::TimeOut { nth }),
        2 => n.clone().prop_map(|nth| Op::Poison { nth }),
        1 => n.clone().prop_map(|nth| Op::Detach { nth }),
        1 => n.clone().prop_map(|nth| Op::ReuseFailed { nth }),
        3 => (n.clone(), any::<bool>()).prop_map(|(nth, local)| Op::DialFailed { nth, local }),
        8 => (n.clone(), any::<bool>()).prop_map(|(nth, good)| Op::Validated { nth, good }),
        4 => (n.clone(), reason).prop_map(|(nth, reason)| Op::Closed { nth, reason }),
        3 => (n.clone(), 0..6u32).prop_map(|(nth, capacity)| Op::Capacity { nth, capacity }),
        1 => (n, 0..20u64).prop_map(|(nth, limit)| Op::IdleLimit { nth, limit }),
        8 => Just(Op::Tick),
        8 => (0..3000u64).prop_map(|ms| Op::Pass { ms }),
        1 => host.clone().prop_map(|host| Op::Flush { host }),
        1 => host.clone().prop_map(|host| Op::Pause { host }),
        2 => host.clone().prop_map(|host| Op::Resume { host }),
        1 => (1..6usize, 0..6usize, 0..3usize)
            .prop_map(|(per_host, idle, min)| Op::Limits { per_host, idle, min_idle: min }),
        1 => (host.clone(), 1..12u64).prop_map(|(host, seconds)| Op::Idle { host, seconds }),
        1 => (host.clone(), 0..6usize).prop_map(|(host, n)| Op::WarmUp { host, n }),
        1 => host.prop_map(|host| Op::Suspend { host }),
    ]
}

const HOSTS: usize = 3;
const MAX_TOTAL: usize = 8;
const MAX_DIALS: usize = 5;

struct Held {
    host: usize,
    grant: Grant<Plain>,
}

/// The shell, without threads: it owns what the core only names.
struct Model {
    now: Instant,
    hosts: Vec<HostState<Plain>>,
    armed: Vec<Option<Instant>>,
    dials: Vec<(usize, SlotRef)>,
    checks: Vec<(usize, SlotRef)>,
    leases: Vec<Held>,
    /// Futures: host, place, number.
    parked: Vec<(usize, WaiterRef, u64)>,
    /// Callbacks: host, place, number.
    queued: Vec<(usize, WaiterRef, u64)>,
    /// Order of arrival of ordinary waiters per host, to see that nobody is overtaken.
    arrivals: Vec<Vec<u64>>,
    slots: HashMap<u64, (usize, SlotRef)>,
    stalled: Vec<usize>,
    total: usize,
    dialing: usize,
    next: u64,
    limits: Limits,
}

impl Model {
    fn new(options: &Options, seed: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; time is passed in")]
        let now = Instant::now();
        let limits = Limits { max_waiters: 20, max_total: MAX_TOTAL, max_idle: MAX_TOTAL, ..Limits::per_host(4) };
        let limits = Limits { max_total: MAX_TOTAL, max_idle: MAX_TOTAL, ..limits };
        let options = Arc::new(options.clone());
        let hosts = (0..HOSTS as u64)
            .map(|n| HostState::new(Arc::clone(&options), limits, (n == 0).then_some(1), seed + n, now))
            .collect();
        Self {
            now,
            hosts,
            armed: vec![None; HOSTS],
            dials: Vec::new(),
            checks: Vec::new(),
            leases: Vec::new(),
            parked: Vec::new(),
            queued: Vec::new(),
            arrivals: vec![Vec::new(); HOSTS],
            slots: HashMap::new(),
            stalled: Vec::new(),
            total: 0,
            dialing: 0,
            next: 1,
            limits,
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn step<R>(
        &mut self,
        host: usize,
        step: impl FnOnce(&mut HostState<Plain>, Instant, &mut Effects<Plain>) -> R,
    ) -> R {
        let mut fx = Effects::new(true);
        let result = step(&mut self.hosts[host], self.now, &mut fx);
        self.run(host, fx);
        for round in 0.. {
            assert!(round < 100, "hosts push each other out for ever");
            if self.stalled.is_empty() {
                break;
            }
            if self.total < MAX_TOTAL && self.dialing < MAX_DIALS {
                let host = self.stalled.remove(0);
                self.grant_permit(host);
            } else if self.total < MAX_TOTAL || !self.give_way() {
                break;
            }
        }
        assert!(self.total <= MAX_TOTAL && self.dialing <= MAX_DIALS, "I1 across hosts");
        let slots: usize = self.hosts.iter().map(|host| host.slots.len()).sum();
        assert_eq!(self.total, slots, "I1: every slot has its permit");
        assert_eq!(
            self.dialing,
            self.hosts.iter().map(|host| host.dialing).sum::<usize>(),
            "I1: every dial has its permit"
        );
        result
    }

    fn grant_permit(&mut self, host: usize) {
        self.total += 1;
        self.dialing += 1;
        let (id, now, mut fx) = (self.id(), self.now, Effects::new(false));
        self.hosts[host].permit(id, now, &mut fx);
        self.run(host, fx);
    }

    fn give_way(&mut self) -> bool {
        let since = |n: &usize| self.hosts[*n].longest_idle();
        let Some(host) = (0..HOSTS).filter(|n| since(n).is_some()).min_by_key(since) else { return false };
        let (now, mut fx) = (self.now, Effects::new(false));
        assert!(self.hosts[host].give_way(CloseReason::Evicted, now, &mut fx));
        self.run(host, fx);
        true
    }

    fn run(&mut self, host: usize, fx: Effects<Plain>) {
        for effect in fx.list {
            match effect {
                Effect::Wake(number) => self.arrived(host, number),
                Effect::Deliver(number, result) => {
                    let at = self.queued.iter().position(|(.., queued)| *queued == number).expect("told once");
                    self.queued.swap_remove(at);
                    self.arrived(host, number);
                    if let Ok(grant) = result {
                        self.hold(host, grant);
                    }
                }
                Effect::StartDial(at) => {
                    self.slots.insert(at.id, (host, at));
                    self.dials.push((host, at));
                }
                Effect::CancelDial(at) => {
                    let known = self.dials.iter().position(|(_, dial)| *dial == at).expect("I6: cancelled once");
                    self.dials.swap_remove(known);
                }
                Effect::StartValidate(at, _) => self.checks.push((host, at)),
                Effect::RequestPermit { may_stall } => {
                    if self.stalled.is_empty() && self.total < MAX_TOTAL && self.dialing < MAX_DIALS {
                        self.grant_permit(host);
                    } else if may_stall {
                        assert!(!self.stalled.contains(&host), "a host stands in the queue once");
                        self.stalled.push(host);
                        self.hosts[host].permit_stalled();
                    } else {
                        let (now, mut fx) = (self.now, Effects::new(false));
                        self.hosts[host].permit_refused(now, &mut fx);
                        self.run(host, fx);
                    }
                }
                Effect::FreePermit => self.total -= 1,
                Effect::FreeDial => self.dialing -= 1,
                Effect::ArmTimer(at) => {
                    let armed = &mut self.armed[host];
                    *armed = Some(armed.map_or(at, |armed| armed.min(at)));
                }
                Effect::Warm(..) | Effect::Trash(_) => {}
            }
        }
    }

    /// I4: whoever is told is the one that came first, or one of those that ended for a reason of its own.
    fn arrived(&mut self, host: usize, number: u64) {
        self.arrivals[host].retain(|&waiting| waiting != number);
    }

    fn hold(&mut self, host: usize, grant: Grant<Plain>) {
        let holders = self.leases.iter().filter(|held| held.host == host && held.grant.slot == grant.slot).count();
        let slot = self.hosts[host].slots.get(grant.slot.index as usize).filter(|slot| slot.id == grant.slot.id);
        if let Some(slot) = slot {
            assert!(!slot.exclusive || holders == 0, "I7: an exclusive connection is leased once");
        }
        self.leases.push(Held { host, grant });
    }

    fn pick<T>(list: &[T], nth: usize) -> Option<usize> {
        (!list.is_empty()).then(|| nth % list.len())
    }

    fn any_slot(&self, nth: usize) -> Option<(usize, SlotRef)> {
        let mut known: Vec<_> = self.slots.values().copied().collect();
        known.sort_by_key(|(_, at)| std::cmp::Reverse(at.id));
        // Mostly of the young ones, but stale names must do no harm either.
        known.get(nth % 24).copied()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Acquire { host, park, fresh, wait } => self.acquire(host, park, fresh, wait),
            Op::Cancel { nth } => self.cancel(nth),
            Op::Claim { nth } => self.claim(nth, false),
            Op::TimeOut { nth } => self.claim(nth, true),
            Op::Release { nth, quick } => self.release(nth, quick),
            Op::Poison { nth } => {
                if let Some(at) = Self::pick(&self.leases, nth) {
                    let (host, slot) = (self.leases[at].host, self.leases[at].grant.slot);
                    self.step(host, |core, now, fx| core.closed(slot, CloseReason::Poisoned, now, fx));
                }
            }
            Op::Detach { nth } => {
                if let Some(at) = Self::pick(&self.leases, nth) {
                    let (host, slot, leak) =
                        (self.leases[at].host, self.leases[at].grant.slot, self.leases[at].grant.leak);
                    if self.step(host, |core, now, fx| core.detach(slot, leak, now, fx)) {
                        self.leases.swap_remove(at);
                    }
                }
            }
            Op::ReuseFailed { nth } => {
                if let Some(at) = Self::pick(&self.leases, nth) {
                    let Held { host, grant } = &self.leases[at];
                    let (host, slot, idle) = (*host, grant.slot, grant.idle_for);
                    self.step(host, |core, now, fx| core.reuse_failed(slot, idle, now, fx));
                }
            }
            Op::Dialed { nth, capacity, reusable } => {
                if let Some(at) = Self::pick(&self.dials, nth) {
                    let (host, slot) = self.dials.swap_remove(at);
                    // The first host is exclusive.
                    let capacity = capacity.filter(|_| host > 0);
                    let dialed = Dialed { conn: slot.id, capacity, reusable };
                    self.step(host, |core, now, fx| core.dialed(slot, dialed, now, fx));
                }
            }
            Op::DialFailed { nth, local } => {
                if let Some(at) = Self::pick(&self.dials, nth) {
                    let (host, slot) = self.dials.swap_remove(at);
                    let side = if local { Side::Local } else { Side::Upstream };
                    let faulted = Faulted { fault: 7, side, kind: "refused" };
                    self.step(host, |core, now, fx| core.dial_failed(slot, faulted, now, fx));
                }
            }
            Op::Validated { nth, good } => {
                if let Some(at) = Self::pick(&self.checks, nth) {
                    let (host, slot) = self.checks.swap_remove(at);
                    self.step(host, |core, now, fx| core.validated(slot, good, now, fx));
                }
            }
            Op::Closed { nth, reason } => {
                if let Some((host, slot)) = self.any_slot(nth) {
                    self.step(host, |core, now, fx| core.closed(slot, reason, now, fx));
                }
            }
            Op::Capacity { nth, capacity } => {
                if let Some((host, slot)) = self.any_slot(nth) {
                    self.step(host, |core, now, fx| core.capacity_changed(slot, capacity, now, fx));
                }
            }
            Op::IdleLimit { nth, limit } => {
                if let Some((host, slot)) = self.any_slot(nth) {
                    let limit = Duration::from_secs(limit);
                    self.step(host, |core, now, fx| core.idle_limit(slot, limit, now, fx));
                }
            }
            Op::Tick => self.tick(),
            Op::Pass { ms } => self.now += Duration::from_millis(ms),
            Op::Flush { host } => self.step(host, HostState::flush),
            Op::Pause { host } => self.step(host, |core, _, fx| core.pause(fx)),
            Op::Resume { host } => self.step(host, HostState::resume),
            Op::Limits { per_host, idle, min_idle } => {
                let (idle, min_idle) = (idle.min(per_host), min_idle.min(idle).min(per_host));
                let max_in_flight = if idle % 2 == 0 { 3 } else { 65_535 };
                self.limits =
                    Limits { max_per_host: per_host, max_idle_per_host: idle, min_idle, max_in_flight, ..self.limits };
                let limits = self.limits;
                (0..HOSTS).for_each(|host| self.step(host, |core, now, fx| core.set_limits(limits, now, fx)));
            }
            Op::Idle { host, seconds } => {
                let idle_timeout = Duration::from_secs(seconds);
                self.step(host, |core, now, fx| {
                    let options = Options { idle_timeout, ..Options::clone(&core.options) };
                    core.set_options(Arc::new(options), now, fx);
                });
            }
            Op::WarmUp { host, n } => {
                self.step(host, |core, now, fx| core.warm_up(n, 0, now, fx));
            }
            Op::Suspend { host } => {
                self.step(host, |core, now, fx| core.suspended(Duration::from_secs(60), now, fx));
            }
        }
        self.hosts.iter().for_each(HostState::check);
    }

    fn acquire(&mut self, host: usize, park: bool, fresh: bool, wait: bool) {
        let location = Location::caller();
        let number = self.id();
        let opened_after = fresh.then_some(self.now);
        let ordinary_before = self.hosts[host].waiters.ordinary();
        if !fresh && let Some(grant) = self.hosts[host].hit(location, self.now) {
            assert_eq!(ordinary_before, 0, "I4: nobody is overtaken");
            self.hold(host, grant);
            return;
        }
        let deadline = (!park).then_some(self.now + Duration::from_secs(5));
        let request = Request { opened_after, deadline, notify: wait.then_some(number), park, location };
        let outcome = {
            // What is queued must be known before its effects run.
            let mut fx = Effects::new(true);
            let outcome = self.hosts[host].acquire(request, self.now, &mut fx);
            if let Outcome::Queued(at) = outcome {
                let list = if park { &mut self.parked } else { &mut self.queued };
                list.push((host, at, number));
                if !fresh {
                    self.arrivals[host].push(number);
                }
            }
            self.run(host, fx);
            outcome
        };
        if let Outcome::Granted(grant) = outcome {
            assert!(fresh || ordinary_before == 0, "I4: nobody is overtaken");
            if let Some(after) = opened_after {
                let slot = &self.hosts[host].slots[grant.slot.index as usize];
                assert!(slot.opened_at >= after, "a retry gets a fresh dial");
            }
            self.hold(host, grant);
        }
        self.step(host, |_, _, _| ());
    }

    fn cancel(&mut self, nth: usize) {
        let all = self.parked.len() + self.queued.len();
        if all == 0 {
            return;
        }
        let nth = nth % all;
        let from_parked = nth < self.parked.len();
        let (host, at, number) =
            if from_parked { self.parked.swap_remove(nth) } else { self.queued.swap_remove(nth - self.parked.len()) };
        self.arrived(host, number);
        assert!(self.step(host, |core, now, fx| core.cancel(at, now, fx)), "it was still there");
        assert!(!self.step(host, |core, now, fx| core.cancel(at, now, fx)), "and is gone");
    }

    fn claim(&mut self, nth: usize, over: bool) {
        let Some(nth) = Self::pick(&self.parked, nth) else { return };
        let (host, at, number) = self.parked[nth];
        let result = if over {
            Some(self.step(host, |core, now, fx| core.time_out(at, now, fx)))
        } else {
            self.step(host, |core, _, fx| core.claim(at, |_| None, fx))
        };
        if let Some(result) = result {
            self.parked.swap_remove(nth);
            self.arrived(host, number);
            if let Ok(grant) = result {
                self.hold(host, grant);
            }
        }
    }

    fn release(&mut self, nth: usize, quick: bool) {
        let Some(at) = Self::pick(&self.leases, nth) else { return };
        let Held { host, grant } = self.leases.swap_remove(at);
        let first = self.arrivals[host].first().copied();
        let (now, before) = (self.now, self.arrivals[host].len());
        if !(quick && self.hosts[host].release_quickly(grant.slot, grant.since, now)) {
            self.step(host, |core, now, fx| core.release(grant.slot, grant.since, grant.leak, now, fx));
        }
        if let Some(first) = first
            && self.arrivals[host].len() < before
        {
            assert!(!self.arrivals[host].contains(&first), "I4: the oldest waiter is served first");
        }
    }

    fn tick(&mut self) {
        let next = self.armed.iter().flatten().min().copied();
        if let Some(next) = next {
            self.now = self.now.max(next);
        }
        for host in 0..HOSTS {
            // A changed idle limit may ask for one more look at once; a timer that never gets past now would spin.
            for again in 0.. {
                if self.armed[host].is_none_or(|at| at > self.now) {
                    break;
                }
                assert!(again < 3, "a timer that spins");
                self.armed[host] = None;
                self.step(host, HostState::tick);
            }
        }
    }

    /// I10: after a drain everything is zero, and what is still out comes back to nothing.
    fn drain(mut self) {
        for host in 0..HOSTS {
            self.step(host, HostState::close);
            self.step(host, HostState::force);
        }
        while !self.parked.is_empty() {
            self.claim(0, false);
        }
        assert!(self.queued.is_empty() && self.dials.is_empty(), "nobody waits and nothing dials");
        while !self.leases.is_empty() {
            self.release(0, true);
        }
        for (host, slot) in std::mem::take(&mut self.checks) {
            self.step(host, |core, now, fx| core.validated(slot, true, now, fx));
        }
        self.hosts.iter().for_each(HostState::check);
        for host in &self.hosts {
            assert_eq!(host.gauges(self.now), Gauges::default(), "I10");
            assert!(host.waiters.places() == 0 && host.leaks.is_empty(), "I12: nothing is left");
            let c = &host.counters;
            assert_eq!(c.opened, c.closed_total(), "I9");
            assert_eq!(
                c.acquires,
                c.hits + c.shared_hits + c.waited + c.timeouts_total() + c.cancelled + c.errors_total()
            );
        }
        // A host that still stood in the queue gets its permit and returns it.
        assert_eq!((self.total, self.dialing), (0, 0), "all permits are back");
    }
}

fn options(variant: u8) -> Options {
    let policies = [Policy::Mru, Policy::RoundRobin, Policy::LeastLoaded, Policy::OldestWithRoom];
    let plain = Options {
        idle_timeout: Duration::from_secs(10),
        backoff_min: Duration::from_millis(50),
        backup_dial_after: (variant & 4 == 0).then_some(Duration::from_millis(250)),
        policy: policies[usize::from(variant & 3)],
        unhealthy_after: (variant & 8 == 0).then_some(3),
        check_interval: (variant & 16 == 0).then_some(Duration::from_secs(2)),
        max_lifetime: (variant & 32 == 0).then_some(Duration::from_secs(30)),
        max_uses: (variant & 64 == 0).then_some(7),
        ..Options::default()
    };
    match variant % 11 {
        9 => Options { keep_alive: false, ..plain },
        10 => Options { leak_after: Some(Duration::from_secs(3)), ..plain },
        8 => Options {
            policy: Policy::Newest,
            idle: IdlePolicy {
                start: Some(Duration::from_secs(4)),
                jitter: 0.25,
                replace: true,
                ..IdlePolicy::default()
            },
            ..plain
        },
        _ => plain,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn case_91_random_operations_keep_the_invariants(
        variant in any::<u8>(),
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..2_000),
    ) {
        let mut model = Model::new(&options(variant), seed >> 1);
        ops.into_iter().for_each(|op| model.apply(op));
        model.drain();
    }
}

#[test]
fn case_91_ten_thousand_steps_for_each_of_many_seeds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    for seed in 0..24u8 {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let strategy = op();
        let mut model = Model::new(&options(seed.wrapping_mul(37)), u64::from(seed));
        for _ in 0..10_000 {
            let op = strategy.new_tree(&mut runner).expect("no filters").current();
            model.apply(op);
            // Names of the long gone would fill the model's memory.
            let oldest = model.next.saturating_sub(500);
            model.slots.retain(|&id, _| id >= oldest);
        }
        model.drain();
    }
}
