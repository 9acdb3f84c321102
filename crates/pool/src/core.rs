//! The pure state machine of one host: events and `now` in, effects out. It never awaits, reads a clock, does I/O, or runs or drops
//! anything that belongs to a user: what must be dropped leaves as an effect.
//!
//! Not here: the mutex around it, the tasks and the limits across hosts (`pool/`).

mod check;
mod effects;
mod health;
mod learn;
mod life;
mod plan;
mod slots;
mod waiters;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

pub(crate) use effects::{Effect, Effects, RawEvent};
use health::{Health, Jitter};
use learn::Learner;
pub(crate) use life::{Dialed, Faulted};
pub(crate) use slots::SlotRef;
use slots::{NIL, Ready, Slot, State};
pub(crate) use waiters::WaiterRef;
use waiters::{NewWaiter, Standing, Waiters};

use crate::error::{AcquireErrorKind, Phase};
use crate::event::{CloseReason, EventKind};
use crate::limits::{Limits, Options};
use crate::stats::{Counters, Gauges, Histogram, HostStats};
use crate::steer::ConnectionView;

/// The shell's types that pass through the core without being looked at.
pub(crate) trait Kinds {
    /// A handle of a connection.
    type Conn: Clone;
    /// Why a dial failed.
    type Fault: Clone;
    /// How a waiter is told.
    type Notify;
    /// How a warm-up is told.
    type Warm;
}

/// Why an acquire failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure<F> {
    Timeout { waited: Duration, phase: Phase, last: Option<F> },
    QueueFull { waiting: usize },
    Dial(F),
    Unhealthy { retry_in: Duration, last: Option<F> },
    Paused,
    Closed,
}

/// A lease as the core sees it.
#[derive(Clone, Debug)]
pub(crate) struct Grant<K: Kinds> {
    pub(crate) conn: K::Conn,
    pub(crate) slot: SlotRef,
    pub(crate) reused: bool,
    pub(crate) idle_for: Duration,
    pub(crate) waited: Duration,
    pub(crate) since: Instant,
    /// Its record for the leak detection, or `NIL`.
    pub(crate) leak: u32,
}

/// What an acquire asks for.
pub(crate) struct Request<K: Kinds> {
    pub(crate) opened_after: Option<Instant>,
    /// When `tick` fails it; `None` when its owner does.
    pub(crate) deadline: Option<Instant>,
    /// `None` does not wait.
    pub(crate) notify: Option<K::Notify>,
    /// Whether the result is parked until its owner fetches it.
    pub(crate) park: bool,
    pub(crate) location: &'static Location<'static>,
}

/// What became of an acquire.
pub(crate) enum Outcome<K: Kinds> {
    Granted(Grant<K>),
    Failed(Failure<K::Fault>),
    Queued(WaiterRef),
}

/// Whether the host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// -> `Paused` on pause, -> `Closed` on drain.
    Open,
    /// -> `Open` on resume, -> `Closed` on drain.
    Paused,
    /// For ever.
    Closed,
}

/// How far an open slot may be leased now.
enum Usable {
    Good,
    Check,
    Expired(CloseReason),
}

struct Leak {
    since: Instant,
    location: &'static Location<'static>,
    id: u64,
    reported: bool,
}

struct Warm<K: Kinds> {
    id: u64,
    target: usize,
    notify: K::Warm,
}

pub(crate) struct HostState<K: Kinds> {
    options: Arc<Options>,
    limits: Limits,
    gate: Gate,
    slots: Slab<Slot<K>>,
    ready: Ready,
    waiters: Waiters<K>,
    warm: Vec<Warm<K>>,
    warm_id: u64,
    // Gauges, each a count of slot states that `account` keeps.
    dialing: usize,
    backups: usize,
    validating: usize,
    draining: usize,
    idle: usize,
    leases: usize,
    /// `max_per_host`, or what was open when it was lowered.
    allowance: usize,
    /// Nothing is kept open for this host while nobody asks: `min_idle` is 0 here.
    on_demand: bool,
    capacity_hint: Option<u32>,
    capacity_seen: Option<u32>,
    health: Health<K::Fault>,
    learner: Learner,
    jitter: Jitter,
    /// A permit was asked for and is neither granted nor refused yet.
    asked: bool,
    stalled: bool,
    full_said: bool,
    backup_wanted: Option<u64>,
    refill_pause: Duration,
    refill_at: Option<Instant>,
    armed: Option<Instant>,
    cleaned_at: Option<Instant>,
    leaks: Slab<Leak>,
    counters: Counters,
    wait: Histogram,
    dial: Histogram,
    lease: Histogram,
    idle_age: Histogram,
    far: Instant,
}

impl<K: Kinds> HostState<K> {
    pub(crate) fn new(
        options: Arc<Options>,
        limits: Limits,
        capacity_hint: Option<u32>,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            gate: Gate::Open,
            slots: Slab::new(),
            ready: Ready::new(options.policy),
            waiters: Waiters::new(),
            warm: Vec::new(),
            warm_id: 0,
            dialing: 0,
            backups: 0,
            validating: 0,
            draining: 0,
            idle: 0,
            leases: 0,
            allowance: limits.max_per_host,
            on_demand: false,
            capacity_hint,
            capacity_seen: None,
            health: Health::new(),
            learner: Learner::new(options.idle_timeout, options.idle),
            jitter: Jitter::new(seed),
            asked: false,
            stalled: false,
            full_said: false,
            backup_wanted: None,
            refill_pause: Duration::ZERO,
            refill_at: None,
            armed: None,
            cleaned_at: None,
            leaks: Slab::new(),
            counters: Counters::default(),
            wait: Histogram::default(),
            dial: Histogram::default(),
            lease: Histogram::default(),
            idle_age: Histogram::default(),
            far: now + FAR,
            options,
            limits,
        }
    }

    /// Keeps nothing open for this host while nobody asks.
    pub(crate) fn on_demand(mut self) -> Self {
        self.on_demand = true;
        self
    }

    fn min_idle(&self) -> usize {
        if self.on_demand { 0 } else { self.limits.min_idle }
    }

    // --- the hot path: no effect, no second look

    /// Leases a connection that is certainly good, or says nothing.
    pub(crate) fn hit(&mut self, location: &'static Location<'static>, now: Instant) -> Option<Grant<K>> {
        if self.waiters.ordinary() > 0 || self.gate != Gate::Open || self.options.leak_after.is_some() {
            return None;
        }
        let index = self.ready.preferred()?;
        if now >= self.slots[index as usize].good_until {
            return None;
        }
        self.counters.acquires += 1;
        let grant = self.take(index, Duration::ZERO, location, now);
        self.debug_check();
        Some(grant)
    }

    /// Takes a lease back when nothing follows from it; `false` leaves it to [`release`](Self::release).
    pub(crate) fn release_quickly(&mut self, at: SlotRef, since: Instant, now: Instant) -> bool {
        let Some(slot) = self.slots.get(at.index as usize).filter(|slot| slot.id == at.id) else { return false };
        let idles = slot.in_flight == 1;
        let quick = slot.state == State::Open
            && slot.in_flight <= slot.capacity
            && self.waiters.len() == 0
            && self.slots.len() <= self.limits.max_per_host
            && self.options.leak_after.is_none()
            && self.warm.is_empty();
        if !quick || (idles && self.idle >= self.limits.max_idle_per_host) {
            return false;
        }
        if idles {
            self.stamp_idle(at.index, now);
            let slot = &self.slots[at.index as usize];
            let due = self.armed.is_none_or(|armed| armed > slot.idle_deadline) || now >= slot.idle_deadline;
            if due || slot.expires_at.is_some_and(|at| now >= at) {
                return false;
            }
            self.idle += 1;
        }
        self.slots[at.index as usize].in_flight -= 1;
        self.leases -= 1;
        self.count_release(since, now);
        self.ready.link(&mut self.slots, at.index);
        self.debug_check();
        true
    }

    fn count_release(&mut self, since: Instant, now: Instant) {
        self.counters.released += 1;
        if self.options.statistics {
            self.lease.record(now.saturating_duration_since(since));
        }
    }

    /// Leases a slot that has room.
    fn take(&mut self, index: u32, waited: Duration, location: &'static Location<'static>, now: Instant) -> Grant<K> {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.has_room(), "a slot without room was leased");
        let reused = slot.uses > 0;
        let mut idle_for = Duration::ZERO;
        if slot.in_flight == 0 {
            self.idle -= 1;
            idle_for = now.saturating_duration_since(slot.idle_since);
            slot.good_until = slot.expires_at.unwrap_or(self.far);
        }
        if waited.is_zero() {
            let counter = if slot.in_flight == 0 { &mut self.counters.hits } else { &mut self.counters.shared_hits };
            *counter += 1;
        }
        slot.in_flight += 1;
        slot.uses += 1;
        let conn = slot.conn.clone().expect("an open slot holds its connection");
        let (id, full, last) = (slot.id, slot.in_flight >= slot.capacity, slot.uses >= slot.uses_max);
        if last {
            slot.state =
                State::Draining(if self.options.keep_alive { CloseReason::MaxUses } else { CloseReason::Discarded });
            self.draining += 1;
        }
        if full || last {
            self.ready.unlink(&mut self.slots, index);
        } else {
            self.ready.link(&mut self.slots, index);
        }
        self.leases += 1;
        self.counters.reused += u64::from(reused);
        self.refill_pause = Duration::ZERO;
        if self.options.statistics && reused {
            self.idle_age.record(idle_for);
        }
        let leak = match self.options.leak_after {
            Some(_) => {
                u32::try_from(self.leaks.insert(Leak { since: now, location, id, reported: false })).unwrap_or(NIL)
            }
            None => NIL,
        };
        Grant { conn, slot: SlotRef { index, id }, reused, idle_for, waited, since: now, leak }
    }

    /// Starts what `min_idle` asks for.
    pub(crate) fn begin(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.plan(now, fx);
        self.debug_check();
    }

    // --- acquire, cancel, release

    /// Leases a connection, or queues, or says why not.
    pub(crate) fn acquire(&mut self, request: Request<K>, now: Instant, fx: &mut Effects<K>) -> Outcome<K> {
        self.counters.acquires += 1;
        // A dial begun now must satisfy it, or it would wait for ever.
        let opened_after = request.opened_after.map(|instant| instant.min(now));
        if let Some(failure) = self.refusal() {
            fx.trash_notify(request.notify);
            return self.refuse(failure);
        }
        if (opened_after.is_some() || self.waiters.ordinary() == 0)
            && let Some(index) = self.pick(opened_after, now, fx)
        {
            let grant = self.take(index, Duration::ZERO, request.location, now);
            self.arm_leak(now, fx);
            self.lease_event(grant.slot.id, fx);
            self.plan(now, fx);
            self.debug_check();
            return Outcome::Granted(grant);
        }
        self.counters.misses += 1;
        let Some(notify) = request.notify else {
            let phase = self.phase(now);
            self.counters.count_timeout(phase);
            self.plan(now, fx);
            return Outcome::Failed(Failure::Timeout { waited: Duration::ZERO, phase, last: self.health.last.clone() });
        };
        let refused = self.unhealthy(now).or_else(|| {
            let waiting = self.waiters.len();
            (waiting >= self.limits.max_waiters).then_some(Failure::QueueFull { waiting })
        });
        if let Some(failure) = refused {
            fx.trash_notify(Some(notify));
            self.plan(now, fx);
            return self.refuse(failure);
        }
        let (deadline, park, location) = (request.deadline, request.park, request.location);
        let at = self.waiters.push(NewWaiter { since: now, deadline, opened_after, park, notify, location });
        if let Some(deadline) = deadline {
            self.arm(deadline, fx);
        }
        self.plan(now, fx);
        self.debug_check();
        Outcome::Queued(at)
    }

    fn refusal(&self) -> Option<Failure<K::Fault>> {
        match self.gate {
            Gate::Open => None,
            Gate::Paused => Some(Failure::Paused),
            Gate::Closed => Some(Failure::Closed),
        }
    }

    /// Says why a dial would have to be waited for in vain: the host is unhealthy and nothing but a dial could serve.
    fn unhealthy(&self, now: Instant) -> Option<Failure<K::Fault>> {
        let until = self.health.pause(now)?;
        let alone = self.dialing == 0 && self.live() == 0 && self.health.is_unhealthy(self.options.unhealthy_after);
        alone.then(|| Failure::Unhealthy { retry_in: until - now, last: self.health.last.clone() })
    }

    fn refuse(&mut self, failure: Failure<K::Fault>) -> Outcome<K> {
        self.count_failure(&failure);
        self.debug_check();
        Outcome::Failed(failure)
    }

    fn count_failure(&mut self, failure: &Failure<K::Fault>) {
        match failure {
            Failure::Timeout { phase, .. } => self.counters.count_timeout(*phase),
            Failure::QueueFull { .. } => self.counters.count_error(AcquireErrorKind::QueueFull),
            Failure::Dial(_) => self.counters.count_error(AcquireErrorKind::Dial),
            Failure::Unhealthy { .. } => self.counters.count_error(AcquireErrorKind::Unhealthy),
            Failure::Paused => self.counters.count_error(AcquireErrorKind::Paused),
            Failure::Closed => self.counters.count_error(AcquireErrorKind::Closed),
        }
    }

    /// Returns the slot to lease next, retiring expired ones on the way.
    fn pick(&mut self, opened_after: Option<Instant>, now: Instant, fx: &mut Effects<K>) -> Option<u32> {
        let mut at = self.ready.preferred();
        while let Some(index) = at {
            let following = self.ready.after(&self.slots, index);
            match self.judge(index, now) {
                Usable::Expired(reason) => self.retire(index, reason, now, fx),
                Usable::Good if self.slots[index as usize].opened_since(opened_after) => return Some(index),
                Usable::Good | Usable::Check => {}
            }
            at = following;
        }
        None
    }

    fn judge(&self, index: u32, now: Instant) -> Usable {
        let slot = &self.slots[index as usize];
        if slot.expires_at.is_some_and(|at| now >= at) {
            return Usable::Expired(CloseReason::Lifetime);
        }
        if slot.in_flight > 0 {
            return Usable::Good;
        }
        if now >= slot.idle_deadline
            && (slot.idle_deadline_is_peers || self.options.idle.replace || self.live() > self.min_idle())
        {
            return Usable::Expired(CloseReason::IdleTimeout);
        }
        match self.options.check_interval {
            Some(interval) if now.saturating_duration_since(slot.idle_since) > interval => Usable::Check,
            _ => Usable::Good,
        }
    }

    /// Gives up a wait. `false` when its result was dispatched to a callback already; a parked lease passes on here and now.
    pub(crate) fn cancel(&mut self, at: WaiterRef, now: Instant, fx: &mut Effects<K>) -> bool {
        let Some(waiter) = self.waiters.entry(at) else { return false };
        if matches!(waiter.standing, Standing::Waiting) {
            self.waiters.unlink(at.index);
        }
        let waiter = self.waiters.remove(at.index);
        fx.trash_notify(waiter.notify);
        match waiter.standing {
            Standing::Waiting => self.counters.cancelled += 1,
            Standing::Parked(Err(failure)) => fx.trash_failure(failure),
            Standing::Parked(Ok(grant)) => {
                self.counters.waited -= 1;
                self.counters.cancelled += 1;
                fx.trash(grant.conn);
                self.release(grant.slot, grant.since, grant.leak, now, fx);
            }
        }
        self.debug_check();
        true
    }

    /// Fetches a parked result; `None` while it waits. A wait that goes on is told by `notify`, which replaces the old one.
    pub(crate) fn claim(
        &mut self,
        at: WaiterRef,
        notify: impl FnOnce(&mut Option<K::Notify>) -> Option<K::Notify>,
        fx: &mut Effects<K>,
    ) -> Option<Result<Grant<K>, Failure<K::Fault>>> {
        let waiter = self.waiters.entry(at).expect("a future keeps its place until it has claimed");
        if matches!(waiter.standing, Standing::Waiting) {
            let old = notify(&mut waiter.notify);
            fx.trash_notify(old);
            return None;
        }
        let waiter = self.waiters.remove(at.index);
        fx.trash_notify(waiter.notify);
        match waiter.standing {
            Standing::Parked(result) => Some(result),
            Standing::Waiting => None,
        }
    }

    /// Ends a wait whose time is over, unless its result is there.
    pub(crate) fn time_out(
        &mut self,
        at: WaiterRef,
        now: Instant,
        fx: &mut Effects<K>,
    ) -> Result<Grant<K>, Failure<K::Fault>> {
        let keep = |_: &mut Option<K::Notify>| None;
        if let Some(result) = self.claim(at, keep, fx) {
            return result;
        }
        let failure = self.timeout_of(at.index, now);
        self.waiters.unlink(at.index);
        let waiter = self.waiters.remove(at.index);
        fx.trash_notify(waiter.notify);
        self.count_failure(&failure);
        self.debug_check();
        Err(failure)
    }

    fn timeout_of(&self, index: u32, now: Instant) -> Failure<K::Fault> {
        let waited = now.saturating_duration_since(self.waiters.since(index));
        Failure::Timeout { waited, phase: self.phase(now), last: self.health.last.clone() }
    }

    pub(crate) fn phase(&self, now: Instant) -> Phase {
        if self.dialing > 0 {
            Phase::Dial
        } else if self.validating > 0 {
            Phase::Validate
        } else if self.health.pause(now).is_some() && self.slots.len() < self.limits.max_per_host {
            Phase::Backoff
        } else {
            Phase::Queue
        }
    }

    /// Takes a lease back.
    pub(crate) fn release(&mut self, at: SlotRef, since: Instant, leak: u32, now: Instant, fx: &mut Effects<K>) {
        self.count_release(since, now);
        self.forget_leak(leak);
        let Some(slot) = self.slot(at) else { return };
        slot.in_flight -= 1;
        let (state, free) = (slot.state, slot.in_flight == 0);
        self.leases -= 1;
        fx.lease_event(EventKind::Released, at.id, self.slots.len());
        match state {
            State::Open => {
                if free {
                    self.idle += 1;
                    self.stamp_idle(at.index, now);
                }
                self.offer(at.index, true, now, fx);
            }
            State::Draining(reason) if free => self.remove(at.index, reason, now, fx),
            State::Draining(_) => {}
            State::Dialing { .. } | State::Validating { .. } => {
                debug_assert!(false, "a lease of a slot that is not open");
            }
        }
        self.plan(now, fx);
        self.debug_check();
    }

    /// Serves waiters with a slot that may have room, and settles it: linked, closed or kept idle.
    fn offer(&mut self, index: u32, returned: bool, now: Instant, fx: &mut Effects<K>) {
        if let Usable::Expired(reason @ CloseReason::Lifetime) = self.judge(index, now) {
            self.retire(index, reason, now, fx);
            return;
        }
        if self.slots.len() > self.limits.max_per_host && self.slots[index as usize].in_flight == 0 {
            self.remove(index, CloseReason::Shrunk, now, fx);
            return;
        }
        if self.slots[index as usize].has_room() {
            self.ready.link(&mut self.slots, index);
        } else {
            self.ready.unlink(&mut self.slots, index);
        }
        let opened_at = self.slots[index as usize].opened_at;
        while self.gate == Gate::Open && self.slots[index as usize].has_room() {
            if self.slots[index as usize].is_idle()
                && self.slots.len() >= self.limits.max_per_host
                && self.waiters.fresh_is_first_and_refuses(opened_at)
                && self.dialing == 0
            {
                // The first in the line wants a fresh dial and there is no room for one: this slot makes it, or it would starve
                // behind those that take anything.
                self.remove(index, CloseReason::Evicted, now, fx);
                return;
            }
            let Some(waiter) = self.waiters.first_for(opened_at) else { break };
            let since = self.waiters.since(waiter);
            let location = self.waiters.get(waiter).location;
            // At least a nanosecond, so that it does not count as served at once.
            let waited = now.saturating_duration_since(since).max(Duration::from_nanos(1));
            self.counters.late_bound += u64::from(returned && self.dialing > 0);
            self.counters.waited += 1;
            if self.options.statistics {
                self.wait.record(waited);
            }
            let grant = self.take(index, waited, location, now);
            self.lease_event(grant.slot.id, fx);
            self.hand_over(waiter, Ok(grant), fx);
        }
        self.arm_leak(now, fx);
        self.settle_idle(index, now, fx);
    }

    /// Keeps or closes a slot that nobody took.
    fn settle_idle(&mut self, index: u32, now: Instant, fx: &mut Effects<K>) {
        let slot = &self.slots[index as usize];
        if !slot.is_idle() {
            return;
        }
        let deadline = slot.idle_deadline;
        if !self.options.keep_alive {
            self.remove(index, CloseReason::Discarded, now, fx);
        } else if self.idle > self.limits.max_idle_per_host {
            self.remove(index, CloseReason::MaxIdle, now, fx);
        } else if now >= deadline && slot.idle_deadline_is_peers {
            self.remove(index, CloseReason::IdleTimeout, now, fx);
        } else {
            self.arm_cleaning(deadline, fx);
        }
    }

    /// Gives a waiter its result: parked for a future, delivered to a callback.
    fn hand_over(&mut self, index: u32, result: Result<Grant<K>, Failure<K::Fault>>, fx: &mut Effects<K>) {
        self.waiters.unlink(index);
        let waiter = self.waiters.get(index);
        if waiter.park {
            waiter.standing = Standing::Parked(result);
            if let Some(notify) = waiter.notify.take() {
                fx.push(Effect::Wake(notify));
            }
        } else if let Some(notify) = self.waiters.remove(index).notify {
            fx.push(Effect::Deliver(notify, result));
        }
    }

    fn fail(&mut self, index: u32, failure: Failure<K::Fault>, fx: &mut Effects<K>) {
        self.count_failure(&failure);
        self.hand_over(index, Err(failure), fx);
    }

    fn fail_all(&mut self, failure: &Failure<K::Fault>, fx: &mut Effects<K>) {
        while let Some(index) = self.waiters.first() {
            self.fail(index, failure.clone(), fx);
        }
    }

    // --- slots

    fn slot(&mut self, at: SlotRef) -> Option<&mut Slot<K>> {
        self.slots.get_mut(at.index as usize).filter(|slot| slot.id == at.id)
    }

    /// Returns the connections that are open and not on their way out.
    fn live(&self) -> usize {
        self.slots.len() - self.dialing - self.draining
    }

    fn stamp_idle(&mut self, index: u32, now: Instant) {
        let (peers, own) = (self.learner.limit(), self.options.idle_timeout);
        let slot = &mut self.slots[index as usize];
        let limit = slot.idle_limit.map_or(peers, |told| peers.min(self.learner.with_margin(told)));
        let mut kept = limit.min(own);
        if self.options.idle.jitter > 0.0 {
            kept = kept.mul_f64(1.0 - self.options.idle.jitter.min(1.0) * self.jitter.fraction());
        }
        slot.idle_since = now;
        slot.idle_deadline = now + kept;
        slot.idle_deadline_is_peers = limit < own;
        let check = self.options.check_interval.map_or(self.far, |interval| now + interval);
        slot.good_until = slot.idle_deadline.min(check).min(slot.expires_at.unwrap_or(self.far));
    }

    /// Changes a slot and keeps the gauges right.
    fn account<R>(&mut self, index: u32, change: impl FnOnce(&mut Slot<K>) -> R) -> R {
        let slot = &mut self.slots[index as usize];
        let before = Self::gauges_of(slot);
        let result = change(slot);
        let after = Self::gauges_of(slot);
        for (gauge, (old, new)) in [&mut self.dialing, &mut self.validating, &mut self.draining, &mut self.idle]
            .into_iter()
            .zip(before.into_iter().zip(after))
        {
            *gauge = *gauge + usize::from(new) - usize::from(old);
        }
        result
    }

    fn gauges_of(slot: &Slot<K>) -> [bool; 4] {
        let validating = matches!(slot.state, State::Validating { .. });
        [slot.is_dialing(), validating, slot.is_draining(), slot.is_idle()]
    }

    /// Lets no new lease onto a slot: closes it when it is free, drains it otherwise.
    fn retire(&mut self, index: u32, reason: CloseReason, now: Instant, fx: &mut Effects<K>) {
        if self.slots[index as usize].in_flight == 0 {
            self.remove(index, reason, now, fx);
        } else {
            self.ready.unlink(&mut self.slots, index);
            self.account(index, |slot| slot.state = State::Draining(reason));
        }
    }

    /// Takes an opened slot out for good.
    fn remove(&mut self, index: u32, reason: CloseReason, now: Instant, fx: &mut Effects<K>) {
        let unused = self.slots[index as usize].uses == 0;
        let (id, conn) = self.discard(index, fx);
        if let Some(conn) = conn {
            fx.trash(conn);
        }
        self.counters.count_closed(reason);
        fx.event(EventKind::Closed(reason), id, self.slots.len());
        // One that is replaced in time has done what it was there for.
        if unused && !(reason == CloseReason::IdleTimeout && self.options.idle.replace) {
            self.pause_refill(now);
        }
    }

    /// Frees a slot's place and its permit.
    fn discard(&mut self, index: u32, fx: &mut Effects<K>) -> (u64, Option<K::Conn>) {
        self.ready.unlink(&mut self.slots, index);
        // A closed slot is in no gauge.
        let slot = &self.slots[index as usize];
        let in_flight = slot.in_flight as usize;
        let [dialing, validating, draining, idle] = Self::gauges_of(slot);
        self.dialing -= usize::from(dialing);
        self.validating -= usize::from(validating);
        self.draining -= usize::from(draining);
        self.idle -= usize::from(idle);
        self.leases -= in_flight;
        let slot = self.slots.remove(index as usize);
        self.allowance = self.limits.max_per_host.max(self.slots.len().min(self.allowance));
        fx.push(Effect::FreePermit);
        (slot.id, slot.conn)
    }

    // --- figures

    pub(crate) fn gauges(&self, now: Instant) -> Gauges {
        Gauges {
            open: self.slots.len() - self.dialing,
            idle: self.idle,
            in_use: self.slots.len() - self.dialing - self.idle - self.validating,
            in_flight: self.leases,
            dialing: self.dialing,
            validating: self.validating,
            draining: self.draining,
            waiting: self.waiters.len(),
            oldest_wait: self.waiters.oldest().map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        }
    }

    pub(crate) fn stats(&self, now: Instant) -> HostStats {
        let gauges = self.gauges(now);
        // A first dial takes up the place of its connection: those who wait for it wait for nothing that a larger limit would give.
        let waits_for_dials = gauges.dialing > 0 && gauges.in_use == 0;
        HostStats {
            gauges,
            counters: self.counters.clone(),
            wait: self.wait.clone(),
            dial: self.dial.clone(),
            lease: self.lease.clone(),
            idle_age: self.idle_age.clone(),
            healthy: !self.health.is_unhealthy(self.options.unhealthy_after),
            idle_limit: self
                .slots
                .iter()
                .filter_map(|(_, slot)| slot.idle_limit.map(|told| self.learner.with_margin(told)))
                .fold(self.learner.limit(), Duration::min),
            capacity: self.capacity_seen,
            stalled: self.stalled,
            paused: self.gate == Gate::Paused,
            full: self.is_waited_for()
                && !waits_for_dials
                && (self.stalled || self.slots.len() >= self.limits.max_per_host),
        }
    }

    /// Those that are open, in no order.
    pub(crate) fn connections(&self, now: Instant) -> Vec<ConnectionView> {
        self.slots.iter().filter_map(|(_, slot)| slot.view(now)).collect()
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiters.len() > 0
    }

    fn lease_event(&self, id: u64, fx: &mut Effects<K>) {
        fx.lease_event(EventKind::Leased, id, self.slots.len());
    }

    fn forget_leak(&mut self, leak: u32) {
        if leak != NIL {
            self.leaks.try_remove(leak as usize);
        }
    }

    // --- the timer

    /// Asks for a tick at an instant. Only `tick` puts it off, so that calls may be applied in any order.
    fn arm(&mut self, at: Instant, fx: &mut Effects<K>) {
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            fx.push(Effect::ArmTimer(at));
        }
    }

    fn arm_cleaning(&mut self, at: Instant, fx: &mut Effects<K>) {
        let earliest = self.cleaned_at.map_or(at, |cleaned| cleaned + self.options.cleanup_interval);
        self.arm(at.max(earliest), fx);
    }

    fn arm_leak(&mut self, now: Instant, fx: &mut Effects<K>) {
        if let Some(after) = self.options.leak_after {
            self.arm(now + after, fx);
        }
    }
}

/// Longer than anything here lasts; `Instant` has no maximum.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

#[cfg(test)]
mod tests;
