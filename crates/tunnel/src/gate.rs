//! A number of permits that may change while they are out. Who waits is served in order.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many through at a time.
pub(crate) struct Gate {
    /// Fair: first come, first served.
    permits: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    max: usize,
    /// Permits that are out above `max`: the next ones that come back are not handed on.
    owed: usize,
}

/// The right to be behind a gate, given back when it is dropped.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

/// The gate was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Gate {
    pub(crate) fn new(max: usize) -> Arc<Gate> {
        let max = max.min(Semaphore::MAX_PERMITS);
        Arc::new(Gate { permits: Arc::new(Semaphore::new(max)), size: Mutex::new(Size { max, owed: 0 }) })
    }

    /// A pass, if one is free now and nobody waits for it.
    pub(crate) fn try_pass(self: &Arc<Self>) -> Option<Pass> {
        loop {
            let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
            if let Some(pass) = self.admit(permit) {
                return Some(pass);
            }
        }
    }

    /// Waits in order for a pass.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place; a pass that was granted already goes to the next.
    pub(crate) async fn pass(self: Arc<Self>) -> Result<Pass, Closed> {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Closed)?;
            if let Some(pass) = self.admit(permit) {
                return Ok(pass);
            }
        }
    }

    /// Nothing where one was owed, which is paid with this: a permit that was on its way to somebody who gave up, or when the limit
    /// became lower, has come by nobody's [`Pass`].
    fn admit(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Option<Pass> {
        let mut size = self.size.lock();
        if size.owed > 0 {
            size.owed -= 1;
            permit.forget();
            return None;
        }
        Some(Pass { gate: Arc::clone(self), permit: Some(permit) })
    }

    /// Changes how many may be through. Those that are stay; with fewer nobody follows until enough have left, with more those that wait
    /// longest follow at once.
    pub(crate) fn set_max(&self, max: usize) {
        let max = max.min(Semaphore::MAX_PERMITS);
        let mut size = self.size.lock();
        if max >= size.max {
            let more = max - size.max;
            let forgiven = more.min(size.owed);
            size.owed -= forgiven;
            self.permits.add_permits(more - forgiven);
        } else {
            let fewer = size.max - max;
            size.owed += fewer - self.permits.forget_permits(fewer);
        }
        size.max = max;
    }

    /// How many are through.
    pub(crate) fn through(&self) -> usize {
        let size = self.size.lock();
        (size.max + size.owed).saturating_sub(self.permits.available_permits())
    }

    /// Fails everyone who waits, and whoever comes.
    pub(crate) fn close(&self) {
        self.permits.close();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        // Under the lock, so that a lower limit that is set meanwhile does not miss it.
        let mut size = self.gate.size.lock();
        if size.owed > 0 {
            size.owed -= 1;
            permit.forget();
        } else {
            drop(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fewer_lets_nobody_follow_until_enough_have_left() {
        let gate = Gate::new(3);
        let mut passes: Vec<_> = (0..3).map(|_| gate.try_pass().unwrap()).collect();
        gate.set_max(1);
        assert_eq!(gate.through(), 3);
        for through in [2, 1] {
            passes.pop();
            assert!(gate.try_pass().is_none(), "{through} are through");
            assert_eq!(gate.through(), through);
        }
        passes.pop();
        let last = gate.try_pass().unwrap();
        assert!(gate.try_pass().is_none());
        drop(last);
        assert_eq!(gate.through(), 0);
    }

    #[tokio::test]
    async fn more_serves_those_that_wait_in_order() {
        let gate = Gate::new(1);
        let held = gate.try_pass().unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| tokio_task(&gate)).collect();
        tokio::task::yield_now().await;
        gate.set_max(3);
        let third = waiting.pop().unwrap();
        let mut passes = Vec::new();
        for waiter in waiting {
            passes.push(waiter.await.unwrap().unwrap());
        }
        assert!(!third.is_finished() && gate.through() == 3);
        drop(held);
        passes.push(third.await.unwrap().unwrap());
        drop(passes);
        assert_eq!(gate.through(), 0);
    }

    #[tokio::test]
    async fn more_is_first_taken_from_what_was_owed() {
        let gate = Gate::new(4);
        let mut passes: Vec<_> = (0..4).map(|_| gate.try_pass().unwrap()).collect();
        gate.set_max(1);
        gate.set_max(3);
        assert!(gate.try_pass().is_none());
        passes.truncate(2);
        assert!(gate.try_pass().is_some() && gate.through() == 2);
        gate.set_max(10);
        assert_eq!(gate.through(), 2);
    }

    #[tokio::test]
    async fn a_pass_that_was_granted_to_somebody_who_gives_up_pays_what_is_owed() {
        for is_awaited in [false, true] {
            let gate = Gate::new(2);
            let (held, goes) = (gate.try_pass().unwrap(), gate.try_pass().unwrap());
            let mut gives_up = Box::pin(Arc::clone(&gate).pass());
            assert!(futures_util::poll!(&mut gives_up).is_pending());
            drop(goes);
            gate.set_max(1);
            drop(gives_up);
            let mut next = Box::pin(Arc::clone(&gate).pass());
            if is_awaited {
                assert!(futures_util::poll!(&mut next).is_pending(), "one is through, and no more may be");
            } else {
                assert!(gate.try_pass().is_none(), "one is through, and no more may be");
            }
            assert_eq!(gate.through(), 1);
            drop(held);
            let last = next.await.unwrap();
            assert!(gate.try_pass().is_none() && gate.through() == 1);
            drop(last);
            assert_eq!(gate.through(), 0);
        }
    }

    #[tokio::test]
    async fn who_waits_at_a_gate_that_closes_is_told() {
        let gate = Gate::new(1);
        let _held = gate.try_pass().unwrap();
        let waiter = tokio_task(&gate);
        tokio::task::yield_now().await;
        gate.close();
        assert!(waiter.await.unwrap().is_err() && gate.try_pass().is_none());
    }

    fn tokio_task(gate: &Arc<Gate>) -> tokio::task::JoinHandle<Result<Pass, Closed>> {
        tokio::spawn(Arc::clone(gate).pass())
    }
}
