//! Which dials and validations the waiters need now, and what must give way for them.
//!
//! Never more dials than the waiters need given the capacity last seen. Not here: limits across hosts; the shell answers
//! `RequestPermit` with [`HostState::permit`].

use std::time::{Duration, Instant};

use super::slots::{Slot, SlotRef, State};
use super::{Effect, Effects, Failure, Gate, HostState, Kinds, Usable};
use crate::event::{CloseReason, EventKind};

/// First pause before a connection that ended unused is opened again, from the second time on.
const REFILL_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Why a dial is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// Waiters that take only a later dial than any in flight.
    Fresh,
    /// Waiters.
    Any,
    /// `min_idle` or a warm-up.
    Fill,
    /// A second dial beside this slow one.
    Backup(u64),
}

impl<K: Kinds> HostState<K> {
    /// Returns how many waiters one dial is expected to serve.
    fn estimate(&self) -> usize {
        if !self.options.keep_alive {
            return 1;
        }
        match self.capacity_seen.or(self.capacity_hint) {
            None => usize::MAX,
            Some(capacity) => capacity.clamp(1, self.limits.max_in_flight) as usize,
        }
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.estimate() == 1
    }

    fn demand(&self) -> Option<Demand> {
        let estimate = self.estimate();
        let dials = self.dialing - self.backups;
        if let Some(latest) = self.waiters.fresh_latest() {
            let late_enough =
                self.slots.iter().filter(|(_, slot)| slot.is_dialing() && slot.opened_at >= latest).count();
            if self.waiters.fresh() > late_enough.saturating_mul(estimate) {
                return Some(Demand::Fresh);
            }
        }
        if self.waiters.len() > (dials + self.validating).saturating_mul(estimate) {
            return Some(Demand::Any);
        }
        if self.live() + dials < self.fill_target() {
            return Some(Demand::Fill);
        }
        self.backup_wanted.filter(|_| self.waiters.len() > 0).map(Demand::Backup)
    }

    fn fill_target(&self) -> usize {
        if self.health.is_unhealthy(self.options.unhealthy_after) || !self.options.keep_alive {
            return 0;
        }
        self.warm.iter().map(|warm| warm.target).max().unwrap_or(0).max(self.min_idle())
    }

    /// Returns how many dials nobody needs.
    pub(crate) fn excess_dials(&self) -> usize {
        let dials = self.dialing - self.backups;
        let needed = self.waiters.len().div_ceil(self.estimate()).max(self.fill_target().saturating_sub(self.live()));
        dials.saturating_sub(needed)
    }

    fn max_dials(&self) -> usize {
        // Half-open: one probe decides.
        if self.health.is_unhealthy(self.options.unhealthy_after) { 1 } else { self.limits.max_dials_per_host }
    }

    /// Starts what the waiters need, as far as the limits allow. Called at the end of each step that may change either.
    pub(super) fn plan(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.finish_warm_ups(fx);
        if self.gate != Gate::Open {
            return;
        }
        self.validate_some(now, fx);
        let Some(demand) = self.demand() else {
            self.full_said &= self.slots.len() >= self.limits.max_per_host;
            return;
        };
        if self.asked {
            return;
        }
        if demand == Demand::Fill
            && let Some(at) = self.refill_at.filter(|&at| at > now)
        {
            self.arm(at, fx);
            return;
        }
        if let Some(until) = self.health.pause(now) {
            self.arm(until, fx);
            return;
        }
        if self.dialing >= self.max_dials() {
            return;
        }
        if self.slots.len() >= self.limits.max_per_host {
            match demand {
                Demand::Fresh => self.give_way_to_fresh(now, fx),
                Demand::Any if !self.full_said => {
                    self.full_said = true;
                    fx.event(EventKind::Full, 0, self.slots.len());
                }
                Demand::Backup(_) => self.backup_wanted = None,
                Demand::Any | Demand::Fill => {}
            }
            if self.slots.len() >= self.limits.max_per_host {
                return;
            }
        }
        self.asked = true;
        fx.push(Effect::RequestPermit { may_stall: matches!(demand, Demand::Fresh | Demand::Any) });
    }

    /// Makes room for a fresh dial at the host's limit: an idle connection goes; where there is none, a multiplexed one drains, since
    /// traffic may never leave it idle. An exclusive one is waited for.
    fn give_way_to_fresh(&mut self, now: Instant, fx: &mut Effects<K>) {
        if self.idle == 0 && self.draining > 0 {
            return;
        }
        let idle = self.slots.iter().filter(|(_, slot)| slot.is_idle()).min_by_key(|(_, slot)| slot.idle_since);
        let oldest = || {
            let shared = |slot: &Slot<K>| slot.state == State::Open && !slot.exclusive;
            let busy = self.slots.iter().filter(|(_, slot)| shared(slot)).min_by_key(|(_, slot)| slot.opened_at);
            busy.filter(|_| self.dialing == 0)
        };
        if let Some((index, _)) = idle.or_else(oldest) {
            self.retire(u32::try_from(index).expect("limits are far below"), CloseReason::Evicted, now, fx);
        }
    }

    /// Checks as many long-idle connections as there are waiters that nothing else will serve.
    fn validate_some(&mut self, now: Instant, fx: &mut Effects<K>) {
        while self.waiters.ordinary() > (self.dialing - self.backups + self.validating).saturating_mul(self.estimate())
        {
            let Some(index) = self.ready.preferred() else { return };
            match self.judge(index, now) {
                Usable::Expired(reason) => self.retire(index, reason, now, fx),
                Usable::Check => {
                    self.ready.unlink(&mut self.slots, index);
                    let (id, conn) = self.account(index, |slot| {
                        slot.state = State::Validating { dead: None };
                        (slot.id, slot.conn.clone())
                    });
                    let conn = conn.expect("an idle slot holds its connection");
                    self.counters.validations += 1;
                    fx.push(Effect::StartValidate(SlotRef { index, id }, conn));
                }
                Usable::Good => {
                    debug_assert!(false, "a usable slot was left while somebody waited");
                    return;
                }
            }
        }
    }

    /// Answers `RequestPermit`: the host may open one more connection, with this id.
    pub(crate) fn permit(&mut self, id: u64, now: Instant, fx: &mut Effects<K>) {
        self.asked = false;
        self.stalled = false;
        let allowed = self.gate == Gate::Open
            && self.health.pause(now).is_none()
            && self.dialing < self.max_dials()
            && self.slots.len() < self.limits.max_per_host;
        match self.demand().filter(|_| allowed) {
            Some(demand) => self.start_dial(demand, id, now, fx),
            None => {
                fx.push(Effect::FreeDial);
                fx.push(Effect::FreePermit);
            }
        }
        self.plan(now, fx);
        self.debug_check();
    }

    /// Answers `RequestPermit`: not now, the host stands in the queue.
    pub(crate) fn permit_stalled(&mut self) {
        // The permit may have come in between.
        self.stalled = self.asked;
        self.debug_check();
    }

    /// Answers `RequestPermit`: no.
    pub(crate) fn permit_refused(&mut self, now: Instant, fx: &mut Effects<K>) {
        self.asked = false;
        self.backup_wanted = None;
        if self.demand() == Some(Demand::Fill) {
            self.pause_refill(now);
            self.refill_at = self.refill_at.max(Some(now + REFILL_PAUSE_MIN));
        }
        self.plan(now, fx);
        self.debug_check();
    }

    fn start_dial(&mut self, demand: Demand, id: u64, now: Instant, fx: &mut Effects<K>) {
        let mut partner = None;
        if let Demand::Backup(first) = demand {
            self.backup_wanted = None;
            partner = Some(first);
            for (_, slot) in &mut self.slots {
                if let State::Dialing { partner, backed_up, .. } = &mut slot.state
                    && slot.id == first
                {
                    *partner = Some(id);
                    *backed_up = true;
                }
            }
            self.backups += 1;
            self.counters.backup_dials += 1;
            // One backup is started at a time; this finds the next.
            self.look_for_slow_dials(now);
        }
        let key = self.slots.insert(Slot {
            id,
            state: State::Dialing { dead: None, partner, backed_up: partner.is_some(), capacity: None },
            conn: None,
            exclusive: false,
            told: 0,
            capacity: 0,
            in_flight: 0,
            uses: 0,
            uses_max: self.options.max_uses.unwrap_or(u32::MAX).max(1),
            opened_at: now,
            idle_since: now,
            idle_deadline: self.far,
            idle_deadline_is_peers: false,
            idle_limit: None,
            expires_at: None,
            good_until: self.far,
            linked: false,
            prev: super::NIL,
            next: super::NIL,
        });
        let index = u32::try_from(key).expect("limits are far below");
        self.allowance = self.allowance.max(self.slots.len().min(self.limits.max_per_host));
        self.dialing += 1;
        self.counters.dials += 1;
        fx.event(EventKind::Created, id, self.slots.len());
        fx.push(Effect::StartDial(SlotRef { index, id }));
        if let Some(after) = self.options.backup_dial_after
            && partner.is_none()
        {
            self.arm(now + after, fx);
        }
    }

    /// Looks for a dial that is slow enough for a backup. Returns when to look again.
    pub(super) fn look_for_slow_dials(&mut self, now: Instant) -> Option<Instant> {
        let after = self.options.backup_dial_after?;
        let mut next: Option<Instant> = None;
        for (_, slot) in &self.slots {
            let State::Dialing { backed_up: false, .. } = slot.state else { continue };
            let due = slot.opened_at + after;
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if self.backup_wanted.is_none() {
                self.backup_wanted = Some(slot.id);
            }
        }
        next
    }

    pub(super) fn pause_refill(&mut self, now: Instant) {
        // What ends together is one event: a peer that restarts ends them all.
        if self.refill_at.is_some_and(|at| at > now) {
            return;
        }
        self.refill_at = Some(now + self.refill_pause);
        let ceiling = self.options.idle_timeout.max(REFILL_PAUSE_MIN);
        self.refill_pause = (self.refill_pause * 2).clamp(REFILL_PAUSE_MIN, ceiling);
    }

    // --- warm-ups

    /// Dials until `target` connections are open or being dialled; repeating it does nothing. Returns an id to give it up.
    pub(crate) fn warm_up(&mut self, target: usize, notify: K::Warm, now: Instant, fx: &mut Effects<K>) -> u64 {
        self.warm_id += 1;
        let failure = self.refusal().or_else(|| self.unhealthy(now));
        if let Some(failure) = failure {
            fx.push(Effect::Warm(notify, Err(failure)));
            return self.warm_id;
        }
        let kept = if self.options.keep_alive { self.limits.max_idle_per_host } else { 0 };
        let target = target.min(self.limits.max_per_host).min(kept);
        self.warm.push(super::Warm { id: self.warm_id, target, notify });
        self.plan(now, fx);
        self.debug_check();
        self.warm_id
    }

    /// Gives up a warm-up: dials in flight go on, no new ones begin.
    pub(crate) fn cancel_warm_up(&mut self, id: u64, fx: &mut Effects<K>) {
        if let Some(at) = self.warm.iter().position(|warm| warm.id == id) {
            let warm = self.warm.swap_remove(at);
            fx.trash_warm(warm.notify);
        }
    }

    fn finish_warm_ups(&mut self, fx: &mut Effects<K>) {
        if self.warm.is_empty() {
            return;
        }
        let open = self.live();
        while let Some(at) = self.warm.iter().position(|warm| warm.target <= open) {
            let warm = self.warm.swap_remove(at);
            fx.push(Effect::Warm(warm.notify, Ok(open)));
        }
    }

    pub(super) fn fail_warm_ups(&mut self, failure: &Failure<K::Fault>, fx: &mut Effects<K>) {
        for warm in self.warm.drain(..) {
            fx.push(Effect::Warm(warm.notify, Err(failure.clone())));
        }
    }
}
