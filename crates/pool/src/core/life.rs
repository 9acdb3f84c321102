//! What happens to connections: dials end, peers close, time passes, an operator flushes, pauses, resizes and drains.
//!
//! Not here: acquire and release (`core.rs`), and which dials to start (`plan.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slots::{SlotRef, State};
use super::{Effect, Effects, Failure, Gate, HostState, Kinds, Usable};
use crate::error::Side;
use crate::event::{CloseReason, EventKind};
use crate::limits::{Limits, Options};

/// What a successful dial brought.
pub(crate) struct Dialed<K: Kinds> {
    pub(crate) conn: K::Conn,
    /// `None` is an exclusive connection.
    pub(crate) capacity: Option<u32>,
    pub(crate) reusable: bool,
}

/// What a failed dial brought.
pub(crate) struct Faulted<K: Kinds> {
    pub(crate) fault: K::Fault,
    pub(crate) side: Side,
    pub(crate) kind: &'static str,
}

impl<K: Kinds> HostState<K> {
    fn indices(&self, wanted: impl Fn(&super::Slot<K>) -> bool) -> Vec<u32> {
        let found = self.slots.iter().filter(|(_, slot)| wanted(slot));
        found.map(|(index, _)| u32::try_from(index).expect("limits are far below")).collect()
    }

    // --- dials

    /// A dial succeeded. One that was cancelled meanwhile brings nothing and is not counted: `false`.
    pub(crate) fn dialed(&mut self, at: SlotRef, dialed: Dialed<K>, now: Instant, fx: &mut Effects<K>) -> bool {
        let Some(State::Dialing { dead, partner, capacity, .. }) = self.slot(at).map(|slot| slot.state) else {
            fx.trash(dialed.conn);
            return false;
        };
        self.end_partnership(at.id, partner);
        if let Some(partner) = partner {
            let other = self.indices(|slot| slot.id == partner && slot.is_dialing());
            other.into_iter().for_each(|index| self.cancel_dial(index, fx));
        }
        let old = self.health.reset();
        fx.trash_fault(old);
        let exclusive = dialed.capacity.is_none();
        let told = if exclusive { capacity.map_or(1, |n| n.min(1)) } else { capacity.or(dialed.capacity).unwrap_or(1) };
        if told > 0 {
            self.capacity_seen = Some(told);
        }
        let lifetime = self.options.max_lifetime.map(|lifetime| {
            let jitter = self.options.lifetime_jitter.clamp(0.0, 1.0) * self.jitter.fraction();
            lifetime.mul_f64(1.0 - jitter)
        });
        let (one_use, cap) = (!self.options.keep_alive || !dialed.reusable, self.limits.max_in_flight);
        let opened_at = self.account(at.index, |slot| {
            slot.state = State::Open;
            slot.conn = Some(dialed.conn);
            slot.exclusive = exclusive;
            slot.told = told;
            slot.capacity = told.min(cap);
            slot.expires_at = lifetime.map(|lifetime| slot.opened_at + lifetime);
            if one_use {
                slot.uses_max = 1;
                slot.told = slot.told.min(1);
                slot.capacity = slot.told;
            }
            slot.opened_at
        });
        fx.push(Effect::FreeDial);
        self.counters.opened += 1;
        if self.options.statistics {
            self.dial.record(now.saturating_duration_since(opened_at));
        }
        fx.event(EventKind::Ready, at.id, self.slots.len());
        self.stamp_idle(at.index, now);
        if let Some(expires_at) = self.slots[at.index as usize].expires_at {
            self.arm_cleaning(expires_at, fx);
        }
        match dead {
            Some(reason) => self.remove(at.index, reason, now, fx),
            None => self.offer(at.index, false, now, fx),
        }
        self.plan(now, fx);
        self.debug_check();
        true
    }

    /// A dial failed. Who gets the error:
    /// - nobody, while its backup (or the dial that it backs) still runs;
    /// - exclusive connections: the oldest waiter that it could have served, unless each waiter has a dial of its own left;
    /// - multiplexed or unknown: all waiters that it could have served, when no other dial or open connection is there to serve them;
    ///   else nobody.
    pub(crate) fn dial_failed(&mut self, at: SlotRef, faulted: Faulted<K>, now: Instant, fx: &mut Effects<K>) {
        let Some((State::Dialing { partner, .. }, opened_at)) = self.slot(at).map(|slot| (slot.state, slot.opened_at))
        else {
            fx.trash_fault(Some(faulted.fault));
            return;
        };
        self.end_partnership(at.id, partner);
        self.discard(at.index, fx);
        fx.push(Effect::FreeDial);
        if self.waiters.len() == 0 {
            // Nobody asks: what only keeps `min_idle` is tried less and less often.
            self.pause_refill(now);
        }
        self.counters.count_dial_error(faulted.kind, 1);
        fx.event(EventKind::DialFailed { kind: faulted.kind }, at.id, self.slots.len());
        let partner_runs = partner.is_some_and(|partner| self.slots.iter().any(|(_, slot)| slot.id == partner));
        if partner_runs {
            fx.trash_fault(Some(faulted.fault));
        } else {
            let pauses = (self.options.backoff_min, self.options.backoff_max);
            let old = self.health.fail(faulted.fault.clone(), faulted.side, pauses, &mut self.jitter, now);
            fx.trash_fault(old);
            self.fail_those_served_by(opened_at, &faulted.fault, fx);
            self.fail_warm_ups(&Failure::Dial(faulted.fault.clone()), fx);
            fx.trash_fault(Some(faulted.fault));
            if let Some(failure) = self.unhealthy(now) {
                self.fail_all(&failure, fx);
            }
        }
        self.plan(now, fx);
        self.debug_check();
    }

    fn fail_those_served_by(&mut self, opened_at: Instant, fault: &K::Fault, fx: &mut Effects<K>) {
        if self.is_exclusive() {
            if self.dialing - self.backups < self.waiters.len()
                && let Some(waiter) = self.waiters.first_for(opened_at)
            {
                self.fail(waiter, Failure::Dial(fault.clone()), fx);
            }
            return;
        }
        if self.dialing == 0 && self.live() == 0 {
            while let Some(waiter) = self.waiters.first_for(opened_at) {
                self.fail(waiter, Failure::Dial(fault.clone()), fx);
            }
            return;
        }
        // Those that wanted this fresh dial are not helped by older connections.
        let lost = |slot: &super::Slot<K>, after| slot.is_dialing() && slot.opened_at >= after;
        let failed: Vec<u32> = self
            .waiters
            .fresh_indices()
            .filter(|&index| {
                let after = self.waiters.opened_after(index).unwrap_or(opened_at);
                after <= opened_at && !self.slots.iter().any(|(_, slot)| lost(slot, after))
            })
            .collect();
        failed.into_iter().for_each(|waiter| self.fail(waiter, Failure::Dial(fault.clone()), fx));
    }

    fn end_partnership(&mut self, id: u64, partner: Option<u64>) {
        if self.backup_wanted == Some(id) {
            self.backup_wanted = None;
        }
        let Some(partner) = partner else { return };
        self.backups -= 1;
        for (_, slot) in &mut self.slots {
            if let State::Dialing { partner: other, .. } = &mut slot.state
                && (slot.id == id || slot.id == partner)
            {
                *other = None;
            }
        }
    }

    fn cancel_dial(&mut self, index: u32, fx: &mut Effects<K>) {
        let slot = &self.slots[index as usize];
        let id = slot.id;
        if let State::Dialing { partner, .. } = slot.state {
            self.end_partnership(id, partner);
        }
        self.discard(index, fx);
        self.counters.dials_cancelled += 1;
        fx.event(EventKind::DialCancelled, id, self.slots.len());
        fx.push(Effect::CancelDial(SlotRef { index, id }));
        fx.push(Effect::FreeDial);
    }

    /// Ends what is least needed here for another host at the global limit: a dial that nobody needs, else the connection that has
    /// been idle for longest. Returns whether there was any.
    pub(crate) fn give_way(&mut self, reason: CloseReason, now: Instant, fx: &mut Effects<K>) -> bool {
        let gone = if self.excess_dials() > 0 {
            // The newest has the longest way to go; but a retry that wants a late dial is not helped by those that began before it, and
            // would ask for the cancelled one again at once.
            let retries = self.waiters.fresh() > 0;
            let dials = self.slots.iter().filter(|(_, slot)| slot.is_dialing());
            let least = dials.max_by_key(|(_, slot)| if retries { u64::MAX - slot.id } else { slot.id });
            least
                .map(|(index, _)| u32::try_from(index).expect("limits are far below"))
                .map(|index| self.cancel_dial(index, fx))
        } else {
            let oldest = self.slots.iter().filter(|(_, slot)| slot.is_idle()).min_by_key(|(_, slot)| slot.idle_since);
            let oldest = oldest.map(|(index, _)| u32::try_from(index).expect("limits are far below"));
            oldest.map(|index| self.remove(index, reason, now, fx))
        };
        self.plan(now, fx);
        self.debug_check();
        gone.is_some()
    }

    /// Returns since when the longest idle connection has been idle; a dial that nobody needs counts as idle since it began.
    pub(crate) fn longest_idle(&self) -> Option<Instant> {
        let excess = self.excess_dials() > 0;
        let since = |slot: &super::Slot<K>| match slot.state {
            State::Open if slot.in_flight == 0 => Some(slot.idle_since),
            State::Dialing { .. } if excess => Some(slot.opened_at),
            _ => None,
        };
        self.slots.iter().filter_map(|(_, slot)| since(slot)).min()
    }

    // --- validations

    /// A validation ended; one that is not good is closed.
    pub(crate) fn validated(&mut self, at: SlotRef, good: bool, now: Instant, fx: &mut Effects<K>) {
        let Some(State::Validating { dead }) = self.slot(at).map(|slot| slot.state) else { return };
        self.account(at.index, |slot| slot.state = State::Open);
        match dead.or((!good).then_some(CloseReason::Invalid)) {
            Some(reason) => self.remove(at.index, reason, now, fx),
            None => {
                // A check is a sign of life: idle time counts from here.
                self.stamp_idle(at.index, now);
                self.offer(at.index, true, now, fx);
            }
        }
        self.plan(now, fx);
        self.debug_check();
    }

    // --- what a connection's driver says

    /// The connection ended, or must end: no new leases; gone when it has none.
    pub(crate) fn closed(&mut self, at: SlotRef, reason: CloseReason, now: Instant, fx: &mut Effects<K>) {
        let Some(slot) = self.slot(at) else { return };
        match &mut slot.state {
            State::Dialing { dead, .. } | State::Validating { dead } => *dead = dead.or(Some(reason)),
            State::Draining(_) => {}
            State::Open => {
                // A peer that says something on an idle connection mostly says that it is about to close it (408 of HTTP servers).
                if slot.in_flight == 0 && (reason.is_peer() || reason == CloseReason::StrayBytes) {
                    let age = now.saturating_duration_since(slot.idle_since);
                    self.learn(age, now, fx);
                }
                self.retire(at.index, reason, now, fx);
                self.plan(now, fx);
            }
        }
        self.debug_check();
    }

    /// Counts a reused connection that failed before any byte of a response, learns from it and retires the connection.
    pub(crate) fn reuse_failed(&mut self, at: SlotRef, idle_for: Duration, now: Instant, fx: &mut Effects<K>) {
        self.counters.reuse_failures += 1;
        if !idle_for.is_zero() {
            self.learn(idle_for, now, fx);
        }
        self.closed(at, CloseReason::Poisoned, now, fx);
    }

    /// As [`reuse_failed`](Self::reuse_failed), of a connection that was taken out of the pool before it was used.
    pub(crate) fn stale(&mut self, idle_for: Duration, now: Instant, fx: &mut Effects<K>) {
        self.counters.reuse_failures += 1;
        if !idle_for.is_zero() {
            self.learn(idle_for, now, fx);
        }
        self.debug_check();
    }

    fn learn(&mut self, age: Duration, now: Instant, fx: &mut Effects<K>) {
        if self.learner.closed_at(age, now) {
            self.restamp(fx);
        }
    }

    /// Puts a changed idle limit to connections that are idle already.
    fn restamp(&mut self, fx: &mut Effects<K>) {
        for index in self.indices(super::Slot::is_idle) {
            let since = self.slots[index as usize].idle_since;
            self.stamp_idle(index, since);
            let deadline = self.slots[index as usize].idle_deadline;
            self.arm_cleaning(deadline, fx);
        }
    }

    /// The peer carries this many leases at once from now on.
    pub(crate) fn capacity_changed(&mut self, at: SlotRef, told: u32, now: Instant, fx: &mut Effects<K>) {
        let cap = self.limits.max_in_flight;
        let Some(slot) = self.slot(at) else { return };
        if let State::Dialing { capacity, .. } = &mut slot.state {
            *capacity = Some(told);
            return;
        }
        let told = if slot.exclusive || slot.uses_max == 1 { told.min(1) } else { told };
        slot.told = told;
        slot.capacity = told.min(cap);
        if told > 0 {
            self.capacity_seen = Some(told);
        }
        if self.slots[at.index as usize].state == State::Open {
            self.offer(at.index, true, now, fx);
        }
        self.plan(now, fx);
        self.debug_check();
    }

    /// The peer closes this connection when it has been idle for so long.
    pub(crate) fn idle_limit(&mut self, at: SlotRef, limit: Duration, now: Instant, fx: &mut Effects<K>) {
        let Some(slot) = self.slot(at) else { return };
        slot.idle_limit = Some(limit);
        if slot.is_idle() {
            let since = slot.idle_since;
            self.stamp_idle(at.index, since);
            self.settle_idle(at.index, now, fx);
            self.plan(now, fx);
        }
        self.debug_check();
    }

    /// Takes a leased connection out of the pool. `false` when others share it.
    pub(crate) fn detach(&mut self, at: SlotRef, leak: u32, now: Instant, fx: &mut Effects<K>) -> bool {
        match self.slot(at) {
            Some(slot) if slot.in_flight > 1 => return false,
            Some(_) => self.remove(at.index, CloseReason::Detached, now, fx),
            None => {}
        }
        self.forget_leak(leak);
        self.plan(now, fx);
        self.debug_check();
        true
    }

    // --- time

    /// Does what is due and asks for the next tick.
    pub(crate) fn tick(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.armed = None;
        while let Some(index) = self.waiters.pop_expired(now) {
            let failure = self.timeout_of(index, now);
            self.fail(index, failure, fx);
        }
        if self.cleaned_at.is_none_or(|cleaned| now >= cleaned + self.options.cleanup_interval) {
            self.clean(now, fx);
        }
        self.look_for_leaks(now, fx);
        let slow = self.look_for_slow_dials(now);
        self.plan(now, fx);
        let next = slow.into_iter().chain(self.waiters.next_deadline()).min();
        next.into_iter().for_each(|at| self.arm(at, fx));
        self.arm_for_slots(fx);
        self.debug_check();
    }

    fn arm_for_slots(&mut self, fx: &mut Effects<K>) {
        let due = |slot: &super::Slot<K>| match slot.state {
            State::Open if slot.in_flight == 0 => Some(slot.idle_deadline.min(slot.expires_at.unwrap_or(self.far))),
            State::Open => slot.expires_at,
            _ => None,
        };
        if let Some(at) = self.slots.iter().filter_map(|(_, slot)| due(slot)).min() {
            self.arm_cleaning(at, fx);
        }
        if let Some(after) = self.options.leak_after
            && let Some(at) =
                self.leaks.iter().filter(|(_, leak)| !leak.reported).map(|(_, leak)| leak.since + after).min()
        {
            self.arm(at, fx);
        }
    }

    /// Retires what is too old; those that `min_idle` keeps start over.
    fn clean(&mut self, now: Instant, fx: &mut Effects<K>) {
        let mut closed = 0;
        if self.learner.relax(now) {
            self.restamp(fx);
        }
        let mut restamp = false;
        for index in self.indices(|slot| slot.state == State::Open) {
            match self.judge(index, now) {
                Usable::Expired(reason) => {
                    let idled = now.saturating_duration_since(self.slots[index as usize].idle_since);
                    self.retire(index, reason, now, fx);
                    restamp |= reason == CloseReason::IdleTimeout && self.learner.survived(idled);
                    closed += 1;
                }
                Usable::Good | Usable::Check => {
                    let timeout = self.options.idle_timeout;
                    let slot = &mut self.slots[index as usize];
                    if slot.is_idle() && now >= slot.idle_deadline {
                        slot.idle_deadline = now + timeout;
                        slot.good_until =
                            slot.good_until.max(slot.idle_deadline.min(slot.expires_at.unwrap_or(self.far)));
                        if let Some(interval) = self.options.check_interval {
                            slot.good_until = slot.good_until.min(slot.idle_since + interval);
                        }
                    }
                }
            }
        }
        if restamp {
            self.restamp(fx);
        }
        if closed > 0 {
            self.cleaned_at = Some(now);
            fx.event(EventKind::Cleaned { closed }, 0, self.slots.len());
        }
    }

    fn look_for_leaks(&mut self, now: Instant, fx: &mut Effects<K>) {
        let Some(after) = self.options.leak_after else { return };
        let open = self.slots.len();
        for (_, leak) in &mut self.leaks {
            let held = now.saturating_duration_since(leak.since);
            if !leak.reported && held >= after {
                leak.reported = true;
                self.counters.leaks += 1;
                fx.event(EventKind::Leak { location: leak.location, held }, leak.id, open);
            }
        }
    }

    /// The machine slept: peers' clocks went on while ours stood.
    pub(crate) fn suspended(&mut self, asleep: Duration, now: Instant, fx: &mut Effects<K>) {
        for (_, slot) in &mut self.slots {
            slot.idle_since = slot.idle_since.checked_sub(asleep).unwrap_or(slot.idle_since);
            slot.idle_deadline = slot.idle_deadline.checked_sub(asleep).unwrap_or(now);
            slot.expires_at = slot.expires_at.map(|at| at.checked_sub(asleep).unwrap_or(now));
            slot.good_until = slot.good_until.checked_sub(asleep).unwrap_or(now);
        }
        self.clean(now, fx);
        self.arm_for_slots(fx);
        self.plan(now, fx);
        self.debug_check();
    }

    // --- what an operator says

    /// Closes idle connections, drains busy ones, starts dials in flight anew.
    pub(crate) fn flush(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.end_all(CloseReason::Flushed, now, fx);
        self.plan(now, fx);
        self.debug_check();
    }

    /// The network is another one: flushes and forgets failures and what was learned.
    pub(crate) fn network_changed(&mut self, now: Instant, fx: &mut Effects<K>) {
        let old = self.health.reset();
        fx.trash_fault(old);
        self.learner = super::Learner::new(self.options.idle_timeout, self.options.idle);
        self.refill_pause = Duration::ZERO;
        self.refill_at = None;
        self.flush(now, fx);
    }

    fn end_all(&mut self, reason: CloseReason, now: Instant, fx: &mut Effects<K>) {
        let (pause, at) = (self.refill_pause, self.refill_at);
        for index in self.indices(|_| true) {
            match &mut self.slots[index as usize].state {
                State::Dialing { .. } => self.cancel_dial(index, fx),
                State::Validating { dead } => *dead = dead.or(Some(reason)),
                State::Open => self.retire(index, reason, now, fx),
                State::Draining(_) => {}
            }
        }
        // What an operator ends says nothing about how long unused connections live.
        (self.refill_pause, self.refill_at) = (pause, at);
    }

    /// Refuses acquires and fails waiters until `resume`; open connections stay.
    pub(crate) fn pause(&mut self, fx: &mut Effects<K>) {
        if self.gate == Gate::Open {
            self.gate = Gate::Paused;
            self.fail_all(&Failure::Paused, fx);
            self.fail_warm_ups(&Failure::Paused, fx);
        }
        self.debug_check();
    }

    /// Ends a pause.
    pub(crate) fn resume(&mut self, now: Instant, fx: &mut Effects<K>) {
        if self.gate == Gate::Paused {
            self.gate = Gate::Open;
            self.plan(now, fx);
        }
        self.debug_check();
    }

    /// Refuses acquires for ever, fails waiters, ends everything that is not leased. Twice is safe.
    pub(crate) fn close(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.gate = Gate::Closed;
        self.fail_all(&Failure::Closed, fx);
        self.fail_warm_ups(&Failure::Closed, fx);
        self.end_all(CloseReason::Drained, now, fx);
        self.debug_check();
    }

    /// Lets go of what is still leased or being validated. Returns how many.
    pub(crate) fn force(&mut self, now: Instant, fx: &mut Effects<K>) -> usize {
        debug_assert_eq!(self.gate, Gate::Closed, "only a closed host is forced");
        let left = self.indices(|_| true);
        left.iter().for_each(|&index| self.remove(index, CloseReason::Drained, now, fx));
        self.debug_check();
        left.len()
    }

    /// Sets the options. Idle connections are measured by them from when they began to idle.
    pub(crate) fn set_options(&mut self, options: Arc<Options>, now: Instant, fx: &mut Effects<K>) {
        if options.idle_timeout != self.options.idle_timeout || options.idle != self.options.idle {
            self.learner.set_ceiling(options.idle_timeout, options.idle);
        }
        self.options = options;
        for index in self.indices(super::Slot::is_idle) {
            self.stamp_idle(index, self.slots[index as usize].idle_since);
            self.arm_cleaning(self.slots[index as usize].idle_deadline.max(now), fx);
        }
        self.debug_check();
    }

    /// Sets the limits: closes, cancels or drains what is above, starts what is now allowed.
    pub(crate) fn set_limits(&mut self, limits: Limits, now: Instant, fx: &mut Effects<K>) {
        let cap_before = self.limits.max_in_flight;
        self.limits = limits;
        self.allowance = limits.max_per_host.max(self.slots.len());
        while self.slots.len() - self.draining > limits.max_per_host {
            let idle = self.slots.iter().filter(|(_, slot)| slot.is_idle()).min_by_key(|(_, slot)| slot.idle_since);
            let newest_where = |wanted: fn(&super::Slot<K>) -> bool| {
                self.slots.iter().filter(move |(_, slot)| wanted(slot)).max_by_key(|(_, slot)| slot.id)
            };
            let next = idle
                .or_else(|| newest_where(super::Slot::is_dialing))
                .or_else(|| newest_where(|slot| slot.state == State::Open))
                .map(|(index, slot)| (u32::try_from(index).expect("limits are far below"), slot.is_dialing()));
            match next {
                Some((index, true)) => self.cancel_dial(index, fx),
                Some((index, false)) => self.retire(index, CloseReason::Shrunk, now, fx),
                // Only validating ones are left; they are closed when they come back.
                None => break,
            }
        }
        while self.idle > limits.max_idle_per_host {
            let idle = self.slots.iter().filter(|(_, slot)| slot.is_idle()).min_by_key(|(_, slot)| slot.idle_since);
            let Some((index, _)) = idle else { break };
            self.remove(u32::try_from(index).expect("limits are far below"), CloseReason::MaxIdle, now, fx);
        }
        if cap_before != limits.max_in_flight {
            for index in self.indices(|slot| slot.state == State::Open && !slot.exclusive) {
                let slot = &mut self.slots[index as usize];
                slot.capacity = slot.told.min(limits.max_in_flight);
                self.offer(index, true, now, fx);
            }
        }
        self.plan(now, fx);
        self.debug_check();
    }

    /// Whether this dial still counts.
    pub(crate) fn is_dialing(&self, at: SlotRef) -> bool {
        self.slots.get(at.index as usize).is_some_and(|slot| slot.id == at.id && slot.is_dialing())
    }

    /// Whether nothing is left here that anybody could miss.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.waiters.places() == 0 && self.warm.is_empty() && !self.asked
    }
}
