//! What the shell is to do once it has unlocked the host.
//!
//! Not here: the doing (`pool/run.rs`).

use std::time::Instant;

use smallvec::SmallVec;

use super::{Failure, Grant, Kinds, SlotRef};
use crate::event::EventKind;

pub(crate) enum Effect<K: Kinds> {
    /// A future's result is parked.
    Wake(K::Notify),
    /// A callback's result.
    Deliver(K::Notify, Result<Grant<K>, Failure<K::Fault>>),
    /// Begin this dial.
    StartDial(SlotRef),
    /// Give this dial up; its result no longer counts.
    CancelDial(SlotRef),
    /// Check this connection and report.
    StartValidate(SlotRef, K::Conn),
    /// Ask for the right to one more connection and dial. May it wait for the limit across hosts?
    RequestPermit { may_stall: bool },
    /// A slot is gone, its right to exist with it.
    FreePermit,
    /// A dial ended, its right to run with it.
    FreeDial,
    /// Call `tick` at this instant, or at an earlier one asked for before.
    ArmTimer(Instant),
    /// A warm-up ended.
    Warm(K::Warm, Result<usize, Failure<K::Fault>>),
    /// To be dropped outside the lock.
    Trash(Trash<K>),
}

/// Held for nothing but to be dropped.
pub(crate) enum Trash<K: Kinds> {
    Conn(K::Conn),
    Notify(K::Notify),
    Fault(K::Fault),
    Warm(K::Warm),
    Failure(Failure<K::Fault>),
}

/// An event before the key and the limit are put to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEvent {
    pub(crate) kind: EventKind,
    pub(crate) id: u64,
    pub(crate) open: usize,
}

/// Effects and events of one step, in order.
pub(crate) struct Effects<K: Kinds> {
    pub(crate) list: SmallVec<[Effect<K>; 4]>,
    pub(crate) events: SmallVec<[RawEvent; 4]>,
    /// Whether leases and returns are told too.
    lease_events: bool,
    /// Set by the shell when it has put something into the outbox.
    pub(crate) tells: bool,
}

impl<K: Kinds> Effects<K> {
    pub(crate) fn new(lease_events: bool) -> Self {
        Self { list: SmallVec::new(), events: SmallVec::new(), lease_events, tells: false }
    }

    pub(super) fn push(&mut self, effect: Effect<K>) {
        self.list.push(effect);
    }

    pub(super) fn event(&mut self, kind: EventKind, id: u64, open: usize) {
        self.events.push(RawEvent { kind, id, open });
    }

    pub(super) fn lease_event(&mut self, kind: EventKind, id: u64, open: usize) {
        if self.lease_events {
            self.event(kind, id, open);
        }
    }

    pub(super) fn trash(&mut self, conn: K::Conn) {
        self.push(Effect::Trash(Trash::Conn(conn)));
    }

    pub(super) fn trash_notify(&mut self, notify: Option<K::Notify>) {
        if let Some(notify) = notify {
            self.push(Effect::Trash(Trash::Notify(notify)));
        }
    }

    pub(super) fn trash_fault(&mut self, fault: Option<K::Fault>) {
        if let Some(fault) = fault {
            self.push(Effect::Trash(Trash::Fault(fault)));
        }
    }

    pub(super) fn trash_warm(&mut self, warm: K::Warm) {
        self.push(Effect::Trash(Trash::Warm(warm)));
    }

    pub(super) fn trash_failure(&mut self, failure: Failure<K::Fault>) {
        self.push(Effect::Trash(Trash::Failure(failure)));
    }
}
