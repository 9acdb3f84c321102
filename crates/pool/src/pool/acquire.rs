//! The ways to a lease: a future, a look, and a callback for event loops that have no task per request.
//!
//! Not here: who is served when (`core.rs`).

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Shared;
use super::shared::{Notify, acquire_error};
use crate::connector::Connector;
use crate::core::{Outcome, Request, WaiterRef};
use crate::error::AcquireError;
use crate::lease::Lease;
use crate::rt;

/// What one acquire asks for beside its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcquireOptions {
    /// The request's absolute deadline. Default none.
    pub deadline: Option<Instant>,
    /// Longest wait. Default [`Options::acquire_timeout`](crate::Options::acquire_timeout); the earlier of this and `deadline` counts.
    /// Zero does not wait.
    pub timeout: Option<Duration>,
    /// Only a connection whose dial began at or after this instant will do: for the retry of a request that failed on a reused
    /// connection. At the host's limit an older idle connection gives way. Served in order with all other waiters. Default any.
    pub opened_after: Option<Instant>,
}

/// Receives the results of [`Host::acquire_into`](crate::Host::acquire_into).
pub trait Grants<C: Connector>: Send + Sync {
    /// Called exactly once for each queued acquire that was not cancelled in time: outside every lock, from any thread, one at a
    /// time and in order per host. A receiver that has lost interest drops the lease, which passes it on.
    fn granted(&self, token: u64, result: Result<Lease<C>, AcquireError<C::Error>>);
}

/// A place in a host's queue, to cancel it with [`Host::cancel`](crate::Host::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) WaiterRef);

/// What [`Host::acquire_into`](crate::Host::acquire_into) did.
pub enum Acquired<C: Connector> {
    /// Served at once.
    Now(Lease<C>),
    /// Queued: [`Grants::granted`] will be called, unless the ticket is cancelled in time.
    Queued(Ticket),
}

impl<C: Connector> fmt::Debug for Acquired<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(lease) => f.debug_tuple("Now").field(lease).finish(),
            Self::Queued(ticket) => f.debug_tuple("Queued").field(ticket).finish(),
        }
    }
}

pub(super) type Acquire<C> = Result<Lease<C>, AcquireError<<C as Connector>::Error>>;

impl<C: Connector> Shared<C> {
    fn deadline(&self, options: &AcquireOptions, now: Instant) -> Instant {
        let own = now + options.timeout.unwrap_or_else(|| self.pool.options().acquire_timeout);
        options.deadline.map_or(own, |deadline| deadline.min(own))
    }

    pub(super) fn try_acquire(
        &self,
        opened_after: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Acquire<C> {
        if opened_after.is_none()
            && let Some(lease) = self.hit(location)
        {
            return Ok(lease);
        }
        let request = Request { opened_after, deadline: None, notify: None, park: false, location };
        match self.step(|core, now, fx| core.acquire(request, now, fx)) {
            Outcome::Granted(grant) => Ok(Lease::new(grant)),
            Outcome::Failed(failure) => Err(acquire_error(failure)),
            Outcome::Queued(_) => unreachable!("an acquire without a way to be told does not queue"),
        }
    }

    pub(super) async fn acquire(&self, options: AcquireOptions, location: &'static Location<'static>) -> Acquire<C> {
        if options.opened_after.is_none()
            && let Some(lease) = self.hit(location)
        {
            return Ok(lease);
        }
        let now = self.pool.clock.now();
        let deadline = self.deadline(&options, now);
        if deadline <= now {
            return self.try_acquire(options.opened_after, location);
        }
        self.wait(options.opened_after, now, deadline, location).await
    }

    async fn wait(
        &self,
        opened_after: Option<Instant>,
        now: Instant,
        deadline: Instant,
        location: &'static Location<'static>,
    ) -> Acquire<C> {
        let mut waiting = Waiting { host: self, at: None };
        let first = poll_fn(|cx| Poll::Ready(waiting.enqueue(opened_after, now, location, cx.waker()))).await;
        if let Some(result) = first {
            return result;
        }
        let mut sleep = pin!(rt::sleep_until(deadline));
        // The place was taken in this very poll: whatever has been parked since has woken this task already.
        let mut just_queued = true;
        poll_fn(|cx| {
            if !std::mem::take(&mut just_queued)
                && let Poll::Ready(result) = waiting.poll(cx)
            {
                return Poll::Ready(result);
            }
            sleep.as_mut().poll(cx).map(|()| waiting.time_out())
        })
        .await
    }

    pub(super) fn acquire_into(
        &self,
        options: &AcquireOptions,
        grants: &Arc<dyn Grants<C>>,
        token: u64,
        location: &'static Location<'static>,
    ) -> Result<Acquired<C>, AcquireError<C::Error>> {
        if options.opened_after.is_none()
            && let Some(lease) = self.hit(location)
        {
            return Ok(Acquired::Now(lease));
        }
        let now = self.pool.clock.now();
        let deadline = self.deadline(options, now);
        if deadline <= now {
            return self.try_acquire(options.opened_after, location).map(Acquired::Now);
        }
        let notify = Some(Notify::Callback(Arc::clone(grants), token));
        let opened_after = options.opened_after;
        let request = Request { opened_after, deadline: Some(deadline), notify, park: false, location };
        match self.step_at(now, |core, now, fx| core.acquire(request, now, fx)) {
            Outcome::Granted(grant) => Ok(Acquired::Now(Lease::new(grant))),
            Outcome::Failed(failure) => Err(acquire_error(failure)),
            Outcome::Queued(at) => Ok(Acquired::Queued(Ticket(at))),
        }
    }
}

/// A future's place in the queue; dropped, it passes on what it may have been given.
struct Waiting<'a, C: Connector> {
    host: &'a Shared<C>,
    at: Option<WaiterRef>,
}

impl<C: Connector> Waiting<'_, C> {
    fn enqueue(
        &mut self,
        opened_after: Option<Instant>,
        now: Instant,
        location: &'static Location<'static>,
        waker: &Waker,
    ) -> Option<Acquire<C>> {
        let notify = Some(Notify::Task(waker.clone()));
        let request = Request { opened_after, deadline: None, notify, park: true, location };
        // The place must be ours before the effects run: they may run for long, or panic.
        let at = &mut self.at;
        let outcome = self.host.step_at(now, |core, now, fx| {
            let outcome = core.acquire(request, now, fx);
            if let Outcome::Queued(place) = &outcome {
                *at = Some(*place);
            }
            outcome
        });
        match outcome {
            Outcome::Granted(grant) => Some(Ok(Lease::new(grant))),
            Outcome::Failed(failure) => Some(Err(acquire_error(failure))),
            Outcome::Queued(_) => None,
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Acquire<C>> {
        let at = self.at.expect("polled while it waits");
        let renew = |known: &mut Option<Notify<C>>| match known {
            Some(Notify::Task(waker)) if waker.will_wake(cx.waker()) => None,
            known => known.replace(Notify::Task(cx.waker().clone())),
        };
        let Some(result) = self.host.claim(at, renew) else { return Poll::Pending };
        self.at = None;
        Poll::Ready(result.map(Lease::new).map_err(acquire_error))
    }

    fn time_out(&mut self) -> Acquire<C> {
        let at = self.at.take().expect("timed out while it waits");
        self.host.step(|core, now, fx| core.time_out(at, now, fx)).map(Lease::new).map_err(acquire_error)
    }
}

impl<C: Connector> Drop for Waiting<'_, C> {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            self.host.step(|core, now, fx| core.cancel(at, now, fx));
        }
    }
}
