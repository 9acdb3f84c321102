//! One host: its mutex, the steps through it, and what follows each step outside of it.
//!
//! Not here: the logic (`core.rs`) and the tasks (`tasks.rs`).

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::oneshot;

use super::global::Verdict;
use super::{Grants, Inner, tasks};
use crate::connector::Connector;
use crate::core::{Effect, Effects, Failure, Grant, HostState, Kinds, RawEvent, SlotRef, WaiterRef};
use crate::error::{AcquireError, DialError};
use crate::lease::{Conn, Lease};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The core's type parameters as the shell fills them.
pub(crate) struct Shell<C>(PhantomData<fn() -> C>);

impl<C: Connector> Kinds for Shell<C> {
    type Conn = Arc<Conn<C>>;
    type Fault = DialError<C::Error>;
    type Notify = Notify<C>;
    type Warm = oneshot::Sender<Result<usize, AcquireError<C::Error>>>;
}

/// How a waiter is told.
pub(crate) enum Notify<C: Connector> {
    Task(Waker),
    Callback(Arc<dyn Grants<C>>, u64),
}

pub(crate) type Core<C> = HostState<Shell<C>>;
pub(crate) type Fx<C> = Effects<Shell<C>>;
/// What a wait ended with.
pub(super) type Granted<C> = Result<Grant<Shell<C>>, Failure<DialError<<C as Connector>::Error>>>;

pub(crate) fn acquire_error<E>(failure: Failure<DialError<E>>) -> AcquireError<E> {
    let inner = |fault: Option<DialError<E>>| fault.and_then(|fault| fault.connector().cloned());
    match failure {
        Failure::Timeout { waited, phase, last } => {
            AcquireError::Timeout { waited, phase, last_dial_error: inner(last) }
        }
        Failure::QueueFull { waiting } => AcquireError::QueueFull { waiting },
        Failure::Dial(fault) => fault.into(),
        Failure::Unhealthy { retry_in, last } => AcquireError::Unhealthy { retry_in, last: inner(last) },
        Failure::Paused => AcquireError::Paused,
        Failure::Closed => AcquireError::Closed,
    }
}

/// Something to tell that must keep its order.
enum Notice<C: Connector> {
    Event(RawEvent),
    Grant(Arc<dyn Grants<C>>, u64, Result<Lease<C>, AcquireError<C::Error>>),
}

pub(crate) struct Locked<C: Connector> {
    pub(crate) core: Core<C>,
    /// Dropping one cancels its dial.
    pub(super) cancels: Vec<(u64, oneshot::Sender<()>)>,
    /// Whether the pool's idle limit binds, so that idle connections are counted across hosts.
    pub(super) watch_idle: bool,
    pub(super) idle_reported: usize,
    /// When the host was last seen to be of use.
    pub(super) used_at: Instant,
}

/// Events and callbacks in order: one thread at a time tells them, which also keeps a callback that releases its lease from
/// recursing into the next callback.
struct Outbox<C: Connector> {
    notices: VecDeque<Notice<C>>,
    telling: bool,
}

/// On cache lines of its own: it is read before each lock and seldom written, while the lock's line goes from core to core.
#[repr(align(128))]
struct Hint(AtomicBool);

/// One host of a pool.
pub(crate) struct Shared<C: Connector> {
    pub(crate) key: C::Key,
    pub(crate) id: u64,
    pub(crate) pool: Arc<Inner<C>>,
    state: Mutex<Locked<C>>,
    /// Whether somebody waits, as it was when the lock was last left: a hint that spares the hot path a lock that would tell it no.
    waiting: Hint,
    outbox: Mutex<Outbox<C>>,
    me: Weak<Self>,
}

impl<C: Connector> Shared<C> {
    pub(super) fn new(
        pool: &Arc<Inner<C>>,
        key: C::Key,
        id: u64,
        watch_idle: bool,
        core: Core<C>,
        now: Instant,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            key,
            id,
            pool: Arc::clone(pool),
            state: Mutex::new(Locked { core, cancels: Vec::new(), watch_idle, idle_reported: 0, used_at: now }),
            waiting: Hint(AtomicBool::new(false)),
            outbox: Mutex::new(Outbox { notices: VecDeque::new(), telling: false }),
            me: Weak::clone(me),
        })
    }

    fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("whoever calls holds a strong handle")
    }

    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Locked<C>) -> R) -> R {
        look(&self.state.lock())
    }

    pub(super) fn alter<R>(&self, change: impl FnOnce(&mut Locked<C>) -> R) -> R {
        change(&mut self.state.lock())
    }

    /// Takes one step and does all that follows from it, here and at other hosts.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut Core<C>, Instant, &mut Fx<C>) -> R) -> R {
        let result = self.step_alone(step);
        self.pool.settle();
        result
    }

    /// A step at an instant that the caller has just read: for the hot path, which then reads no clock under the lock.
    pub(super) fn step_at<R>(&self, now: Instant, step: impl FnOnce(&mut Core<C>, Instant, &mut Fx<C>) -> R) -> R {
        let result = self.stepped(Some(now), step);
        self.pool.settle();
        result
    }

    /// Takes one step and does what follows from it here; what it frees for other hosts is left to [`Inner::settle`].
    pub(super) fn step_alone<R>(&self, step: impl FnOnce(&mut Core<C>, Instant, &mut Fx<C>) -> R) -> R {
        self.stepped(None, step)
    }

    fn stepped<R>(&self, now: Option<Instant>, step: impl FnOnce(&mut Core<C>, Instant, &mut Fx<C>) -> R) -> R {
        let mut fx = Effects::new(self.pool.is_subscribed());
        let result = self.locked_step(&mut fx, now, step);
        if !fx.list.is_empty() {
            self.run_all(&mut fx);
        }
        if fx.tells {
            self.tell();
        }
        result
    }

    /// Effects may bring further effects: a permit starts a dial and asks for the next permit.
    fn run_all(&self, fx: &mut Fx<C>) {
        let mut following = Effects::new(self.pool.is_subscribed());
        loop {
            // Drained in place: a list is some hundred bytes, which are not worth moving for one wake.
            for effect in fx.list.drain(..) {
                self.run(effect, &mut following);
            }
            fx.tells |= following.tells;
            if following.list.is_empty() {
                break;
            }
            std::mem::swap(&mut fx.list, &mut following.list);
        }
    }

    /// Looks for a parked result. Changes nothing that another would have to hear of, so it takes neither the clock nor the outbox.
    pub(super) fn claim(
        &self,
        at: WaiterRef,
        renew: impl FnOnce(&mut Option<Notify<C>>) -> Option<Notify<C>>,
    ) -> Option<Granted<C>> {
        let mut trash = Effects::new(false);
        let result = self.state.lock().core.claim(at, renew, &mut trash);
        debug_assert!(trash.list.iter().all(|effect| matches!(effect, Effect::Trash(_))), "a claim only drops");
        result
    }

    fn locked_step<R>(
        &self,
        fx: &mut Fx<C>,
        now: Option<Instant>,
        step: impl FnOnce(&mut Core<C>, Instant, &mut Fx<C>) -> R,
    ) -> R {
        let mut locked = self.state.lock();
        let now = now.unwrap_or_else(|| self.pool.clock.now());
        locked.used_at = now;
        let result = step(&mut locked.core, now, fx);
        self.report_idle(&mut locked);
        let waiting = locked.core.is_waited_for();
        if self.waiting.0.load(Ordering::Relaxed) != waiting {
            self.waiting.0.store(waiting, Ordering::Relaxed);
        }
        let mut grants = fx.list.iter().any(|effect| matches!(effect, Effect::Deliver(..)));
        if !fx.events.is_empty() && self.pool.tells_events() {
            fx.tells = true;
            // Under the host's lock, so that the order is the core's.
            self.outbox.lock().notices.extend(fx.events.drain(..).map(Notice::Event));
        }
        fx.events.clear();
        if grants {
            fx.tells = true;
            let mut outbox = self.outbox.lock();
            let mut rest = smallvec::SmallVec::new();
            for effect in std::mem::take(&mut fx.list) {
                match effect {
                    Effect::Deliver(Notify::Callback(grants, token), result) => {
                        let result = result.map(Lease::new).map_err(acquire_error);
                        outbox.notices.push_back(Notice::Grant(grants, token, result));
                    }
                    other => rest.push(other),
                }
            }
            fx.list = rest;
            grants = false;
        }
        debug_assert!(!grants, "callbacks go through the outbox");
        result
    }

    fn report_idle(&self, locked: &mut Locked<C>) {
        if locked.watch_idle {
            let idle = locked.core.idle();
            let (new, old) = (isize::try_from(idle), isize::try_from(locked.idle_reported));
            let change = new.unwrap_or(0) - old.unwrap_or(0);
            if change != 0 {
                self.pool.idle.fetch_add(change, Ordering::SeqCst);
            }
            locked.idle_reported = idle;
        }
    }

    /// Starts or stops to count this host's idle connections for the pool's limit.
    pub(super) fn watch_idle(&self, watch: bool) {
        let mut locked = self.state.lock();
        if locked.watch_idle && !watch {
            let reported = isize::try_from(locked.idle_reported).unwrap_or(0);
            self.pool.idle.fetch_sub(reported, Ordering::SeqCst);
            locked.idle_reported = 0;
        }
        locked.watch_idle = watch;
        self.report_idle(&mut locked);
    }

    fn run(&self, effect: Effect<Shell<C>>, fx: &mut Fx<C>) {
        match effect {
            Effect::Wake(Notify::Task(waker)) => waker.wake(),
            Effect::Wake(Notify::Callback(..)) | Effect::Deliver(..) => {
                debug_assert!(false, "futures are parked and callbacks go through the outbox");
            }
            Effect::StartDial(at) => self.start_dial(at),
            Effect::CancelDial(at) => drop(self.take_cancel(at)),
            Effect::StartValidate(at, conn) => tasks::validate(self.arc(), at, conn),
            Effect::RequestPermit { may_stall } => match self.pool.global.request(&self.arc(), may_stall) {
                Verdict::Granted => {
                    let id = self.pool.next_id();
                    self.locked_step(fx, None, |core, now, fx| core.permit(id, now, fx));
                }
                Verdict::Stalled => self.alter(|locked| locked.core.permit_stalled()),
                Verdict::Refused => self.locked_step(fx, None, HostState::permit_refused),
            },
            Effect::FreePermit => self.pool.global.free_total(),
            Effect::FreeDial => self.pool.global.free_dial(),
            Effect::ArmTimer(at) => self.pool.timers.arm(self.id, at, &self.me),
            Effect::Warm(done, result) => drop(done.send(result.map_err(acquire_error))),
            Effect::Trash(trash) => drop(trash),
        }
    }

    fn start_dial(&self, at: SlotRef) {
        let (cancel, cancelled) = oneshot::channel();
        let started = self.alter(|locked| {
            // Another thread may have cancelled it between the step and now.
            let counts = locked.core.is_dialing(at);
            if counts {
                locked.cancels.push((at.id, cancel));
            }
            counts
        });
        if started {
            tasks::dial(self.arc(), at, cancelled);
        }
    }

    pub(super) fn take_cancel(&self, at: SlotRef) -> Option<oneshot::Sender<()>> {
        self.alter(|locked| {
            let found = locked.cancels.iter().position(|(id, _)| *id == at.id)?;
            Some(locked.cancels.swap_remove(found).1)
        })
    }

    /// Tells what is in the outbox, unless somebody is at it.
    fn tell(&self) {
        let mut batch = VecDeque::new();
        {
            let mut outbox = self.outbox.lock();
            if outbox.telling || outbox.notices.is_empty() {
                return;
            }
            outbox.telling = true;
            std::mem::swap(&mut batch, &mut outbox.notices);
        }
        // A callback that panics must not silence the host.
        let telling = Telling { host: self };
        loop {
            while let Some(notice) = batch.pop_front() {
                match notice {
                    Notice::Event(event) => self.pool.emit(&self.key, event),
                    Notice::Grant(grants, token, result) => grants.granted(token, result),
                }
            }
            let mut outbox = self.outbox.lock();
            if outbox.notices.is_empty() {
                // The emptied queue goes back, so that it is allocated once.
                outbox.notices = batch;
                drop(outbox);
                break;
            }
            std::mem::swap(&mut batch, &mut outbox.notices);
        }
        drop(telling);
        // What came between the last look and the flag is told by whoever put it there, or here.
        if !self.outbox.lock().notices.is_empty() {
            self.tell();
        }
    }

    // --- the hot path

    /// Leases a connection if that has no consequence.
    #[inline]
    pub(super) fn hit(&self, location: &'static Location<'static>) -> Option<Lease<C>> {
        if self.pool.is_subscribed() || self.waiting.0.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.pool.clock.coarse();
        let grant = {
            let mut locked = self.state.lock();
            let grant = locked.core.hit(location, now)?;
            self.report_idle(&mut locked);
            grant
        };
        Some(Lease::new(grant))
    }

    /// Takes a lease back.
    pub(crate) fn release(&self, at: SlotRef, since: Instant, leak: u32) {
        let quick = !self.pool.is_subscribed() && !self.waiting.0.load(Ordering::Relaxed) && {
            let now = self.pool.clock.coarse();
            let mut locked = self.state.lock();
            let quick = locked.core.release_quickly(at, since, now);
            self.report_idle(&mut locked);
            quick
        };
        if quick {
            self.pool.settle();
        } else {
            self.step_at(self.pool.clock.now(), |core, now, fx| core.release(at, since, leak, now, fx));
        }
    }
}

struct Telling<'a, C: Connector> {
    host: &'a Shared<C>,
}

impl<C: Connector> Drop for Telling<'_, C> {
    fn drop(&mut self) {
        self.host.outbox.lock().telling = false;
    }
}
