//! The slots of one host and the list of those that have room, in the order in which the policy leases them.
//!
//! Not here: when a slot changes its state (`core.rs` and its other parts).

use std::time::{Duration, Instant};

use slab::Slab;

use super::Kinds;
use crate::event::CloseReason;
use crate::limits::Policy;
use crate::steer::{ConnectionState, ConnectionView};

/// Names a slot for ever: the place is used again, the id is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotRef {
    pub(crate) index: u32,
    pub(crate) id: u64,
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being dialled. -> `Open` on success, gone on failure or when cancelled.
    Dialing {
        /// What its driver said before the dial ended; it is closed as soon as it is open.
        dead: Option<CloseReason>,
        /// The other one of a first dial and its backup.
        partner: Option<u64>,
        /// Whether a backup was started, or this one is the backup.
        backed_up: bool,
        /// The capacity that its driver set before the dial ended.
        capacity: Option<u32>,
    },
    /// Usable as far as its capacity goes. -> `Validating` after `check_interval`, -> `Draining`, gone when it is closed while idle.
    Open,
    /// Being checked. -> `Open` when good, gone when not.
    Validating {
        /// What its driver said meanwhile.
        dead: Option<CloseReason>,
    },
    /// Takes no new lease; gone with the last one.
    Draining(CloseReason),
}

pub(crate) struct Slot<K: Kinds> {
    pub(crate) id: u64,
    pub(crate) state: State,
    /// `None` while dialling.
    pub(crate) conn: Option<K::Conn>,
    pub(crate) exclusive: bool,
    /// What the peer carries at once.
    pub(crate) told: u32,
    /// The part of it that is used.
    pub(crate) capacity: u32,
    pub(crate) in_flight: u32,
    pub(crate) uses: u32,
    pub(crate) uses_max: u32,
    pub(crate) opened_at: Instant,
    pub(crate) idle_since: Instant,
    /// When it is too old to be leased idle.
    pub(crate) idle_deadline: Instant,
    /// Whether `idle_deadline` stands for what the peer does rather than for our own `idle_timeout`.
    pub(crate) idle_deadline_is_peers: bool,
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) expires_at: Option<Instant>,
    /// Until when a hit needs no second look: nothing expires and no check is due before.
    pub(crate) good_until: Instant,
    pub(crate) linked: bool,
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl<K: Kinds> Slot<K> {
    /// The connection as operators see it; `None` while it is dialled.
    pub(crate) fn view(&self, now: Instant) -> Option<ConnectionView> {
        let state = match self.state {
            State::Dialing { .. } => return None,
            State::Validating { .. } => ConnectionState::Validating,
            State::Draining(_) => ConnectionState::Draining,
            State::Open if self.in_flight > 0 => ConnectionState::InUse,
            State::Open => ConnectionState::Idle,
        };
        let idle_for = (self.in_flight == 0).then(|| now.saturating_duration_since(self.idle_since));
        Some(ConnectionView {
            id: self.id,
            state,
            in_flight: self.in_flight,
            capacity: self.capacity,
            uses: self.uses,
            age: now.saturating_duration_since(self.opened_at),
            idle_for,
        })
    }

    pub(crate) fn has_room(&self) -> bool {
        self.state == State::Open && self.in_flight < self.capacity
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Open && self.in_flight == 0
    }

    pub(crate) fn is_dialing(&self) -> bool {
        matches!(self.state, State::Dialing { .. })
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining(_))
    }

    pub(crate) fn opened_since(&self, instant: Option<Instant>) -> bool {
        instant.is_none_or(|instant| self.opened_at >= instant)
    }
}

pub(crate) const NIL: u32 = u32::MAX;

/// The slots with room. The front or the back is leased next, as the policy says.
pub(crate) struct Ready {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: usize,
    policy: Policy,
}

impl Ready {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { head: NIL, tail: NIL, len: 0, policy }
    }

    fn takes_last(&self) -> bool {
        matches!(self.policy, Policy::Mru | Policy::Newest)
    }

    /// Returns the slot to lease next.
    pub(crate) fn preferred(&self) -> Option<u32> {
        let index = if self.takes_last() { self.tail } else { self.head };
        (index != NIL).then_some(index)
    }

    /// Returns the slot to lease if `index` is not to be.
    pub(crate) fn after<K: Kinds>(&self, slots: &Slab<Slot<K>>, index: u32) -> Option<u32> {
        let slot = &slots[index as usize];
        let other = if self.takes_last() { slot.prev } else { slot.next };
        (other != NIL).then_some(other)
    }

    pub(crate) fn unlink<K: Kinds>(&mut self, slots: &mut Slab<Slot<K>>, index: u32) {
        let slot = &mut slots[index as usize];
        if !slot.linked {
            return;
        }
        slot.linked = false;
        let (prev, next) = (slot.prev, slot.next);
        if prev == NIL {
            self.head = next;
        } else {
            slots[prev as usize].next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            slots[next as usize].prev = prev;
        }
        self.len -= 1;
    }

    /// Puts a slot where the policy wants it, now that it has room or its load changed.
    pub(crate) fn link<K: Kinds>(&mut self, slots: &mut Slab<Slot<K>>, index: u32) {
        let slot = &slots[index as usize];
        if slot.linked {
            self.reposition(slots, index);
            return;
        }
        match self.policy {
            // One that was used before goes before one never used: it is known to work.
            Policy::Mru if slot.uses == 0 => self.insert_before(slots, index, self.head),
            Policy::Mru | Policy::RoundRobin => self.insert_before(slots, index, NIL),
            Policy::LeastLoaded => {
                let load = slot.in_flight;
                let mut at = self.head;
                while at != NIL && slots[at as usize].in_flight < load {
                    at = slots[at as usize].next;
                }
                self.insert_before(slots, index, at);
            }
            Policy::OldestWithRoom | Policy::Newest => {
                let id = slot.id;
                let mut at = self.head;
                while at != NIL && slots[at as usize].id < id {
                    at = slots[at as usize].next;
                }
                self.insert_before(slots, index, at);
            }
        }
    }

    /// Moves a linked slot after its load changed.
    fn reposition<K: Kinds>(&mut self, slots: &mut Slab<Slot<K>>, index: u32) {
        match self.policy {
            Policy::OldestWithRoom | Policy::Newest => {}
            Policy::Mru | Policy::RoundRobin if self.tail == index => {}
            Policy::Mru | Policy::RoundRobin => {
                self.unlink(slots, index);
                self.insert_before(slots, index, NIL);
            }
            Policy::LeastLoaded => {
                let load = slots[index as usize].in_flight;
                let (prev, next) = (slots[index as usize].prev, slots[index as usize].next);
                let mut at = next;
                while at != NIL && slots[at as usize].in_flight < load {
                    at = slots[at as usize].next;
                }
                if at != next {
                    self.unlink(slots, index);
                    self.insert_before(slots, index, at);
                    return;
                }
                let mut at = prev;
                while at != NIL && slots[at as usize].in_flight > load {
                    at = slots[at as usize].prev;
                }
                if at != prev {
                    self.unlink(slots, index);
                    let before = if at == NIL { self.head } else { slots[at as usize].next };
                    self.insert_before(slots, index, before);
                }
            }
        }
    }

    fn insert_before<K: Kinds>(&mut self, slots: &mut Slab<Slot<K>>, index: u32, at: u32) {
        let prev = if at == NIL { self.tail } else { slots[at as usize].prev };
        let slot = &mut slots[index as usize];
        slot.linked = true;
        slot.prev = prev;
        slot.next = at;
        if prev == NIL {
            self.head = index;
        } else {
            slots[prev as usize].next = index;
        }
        if at == NIL {
            self.tail = index;
        } else {
            slots[at as usize].prev = index;
        }
        self.len += 1;
    }
}
