//! The invariants of pool-cases (I1 to I7), checked after every step of a debug build.
//!
//! Not here: I8 and I11, which are the shell's; I9, I10 and I12 over a whole run, which the property test asks for.

#[cfg(any(debug_assertions, test))]
use super::Gate;
#[cfg(any(debug_assertions, test))]
use super::slots::{NIL, State};
use super::{HostState, Kinds};

impl<K: Kinds> HostState<K> {
    #[inline]
    pub(super) fn debug_check(&self) {
        // The full check is linear; large hosts are checked for their sums by the tests that build them.
        #[cfg(debug_assertions)]
        if self.slots.len() <= 64 {
            self.check();
        }
    }

    /// Panics when an invariant does not hold.
    #[cfg(any(debug_assertions, test))]
    pub(crate) fn check(&self) {
        self.check_limits();
        self.check_lists();
        self.check_progress();
        let c = &self.counters;
        let ended = c.hits + c.shared_hits + c.waited + c.timeouts_total() + c.cancelled + c.errors_total();
        assert_eq!(c.acquires, ended + self.waiters.len() as u64, "I9: every acquire is accounted for");
        let open = (self.slots.len() - self.dialing) as u64;
        assert_eq!(c.opened, open + c.closed_total(), "I9: every opened connection is open or closed");
        assert_eq!(
            c.dials,
            self.dialing as u64 + c.opened + c.dials_cancelled + c.dial_errors_total(),
            "I6: every dial ends exactly once"
        );
        assert!(self.waiters.deadlines_len() <= 3 * self.waiters.places() + 256, "I12: deadlines are O(waiting)");
    }

    #[cfg(any(debug_assertions, test))]
    fn check_limits(&self) {
        assert!(self.slots.len() <= self.allowance, "I1: {} slots of {}", self.slots.len(), self.allowance);
        let count = |wanted: fn(&super::Slot<K>) -> bool| self.slots.iter().filter(|(_, slot)| wanted(slot)).count();
        assert_eq!(self.dialing, count(super::Slot::is_dialing), "I2: dialing");
        assert_eq!(self.draining, count(super::Slot::is_draining), "I2: draining");
        assert_eq!(self.idle, count(super::Slot::is_idle), "I2: idle");
        assert_eq!(self.validating, count(|slot| matches!(slot.state, State::Validating { .. })), "I2: validating");
        let pairs = count(|slot| matches!(slot.state, State::Dialing { partner: Some(_), .. }));
        assert_eq!(self.backups * 2, pairs, "I2: backups come in pairs");
        assert_eq!(
            self.leases,
            self.slots.iter().map(|(_, slot)| slot.in_flight as usize).sum::<usize>(),
            "I2: leases"
        );
    }

    #[cfg(any(debug_assertions, test))]
    fn check_lists(&self) {
        let (mut at, mut seen, mut prev) = (self.ready.head, 0, NIL);
        while at != NIL {
            let slot = &self.slots[at as usize];
            assert!(slot.linked && slot.prev == prev && slot.has_room(), "I2: the ready list holds slots with room");
            assert!(slot.conn.is_some(), "I2: a slot with room holds its connection");
            (prev, at, seen) = (at, slot.next, seen + 1);
        }
        assert_eq!(self.ready.tail, prev, "I2: the ready list ends at its tail");
        assert_eq!(seen, self.ready.len, "I2: the ready list's length");
        for (_, slot) in &self.slots {
            assert_eq!(slot.linked, slot.has_room(), "I2: exactly the slots with room are in the list");
            let held = slot.conn.is_some();
            match slot.state {
                State::Dialing { .. } => assert!(!held && slot.in_flight == 0, "I2: a dial has no connection"),
                State::Open => assert!(held, "I2: an open slot holds its connection"),
                State::Validating { .. } => assert!(slot.in_flight == 0, "I2: validated while leased"),
                State::Draining(_) => assert!(slot.in_flight > 0, "I7: a draining slot has leases"),
            }
            assert!(!slot.exclusive || slot.in_flight <= 1, "I7: an exclusive connection is leased once");
        }
    }

    #[cfg(any(debug_assertions, test))]
    fn check_progress(&self) {
        if self.waiters.len() == 0 {
            return;
        }
        assert_eq!(self.gate, Gate::Open, "I3: nobody waits at a closed gate");
        let progress = self.dialing > 0
            || self.validating > 0
            || self.leases > 0
            || self.asked
            // A pause after a failed dial, or a limit full of connections whose peers allow nothing until they idle out.
            || self.armed.is_some();
        assert!(progress, "I3: somebody waits and nothing will happen");
        let first = self.waiters.first().and_then(|index| self.waiters.opened_after(index));
        if self.waiters.ordinary() > 0 && first.is_none() {
            // What stays in the list needs a check first, and one is under way or a dial is.
            let unchecked = self.ready.len == 0 || self.options.check_interval.is_some();
            assert!(unchecked, "I3: a usable slot while somebody waits");
        }
    }
}
