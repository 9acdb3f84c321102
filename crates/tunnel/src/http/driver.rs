//! What drives the connections to origins of one client: futures that are polled beside its requests, in its own task. So they end with the
//! task, and whoever has waited for that has waited for them.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::Context,
};

use parking_lot::Mutex;

/// The owner's hold on what drives its connection. Dropping it closes the connection.
pub(super) struct Driver(Arc<Slot>);

/// What drives the connections of one client. A client has one connection, or two while one takes the place of the other.
#[derive(Default)]
pub(super) struct Drivers(Mutex<Vec<Weak<Slot>>>);

/// Empty once it has ended, or was taken out.
type Slot = Mutex<Option<Running>>;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Drivers {
    /// Adds a future that is polled by [`beside`](Self::beside), for the first time behind the future that asks for it.
    pub(super) fn add(&self, running: impl Future<Output = ()> + Send + 'static) -> Driver {
        let slot: Arc<Slot> = Arc::new(Mutex::new(Some(Box::pin(running))));
        self.0.lock().push(Arc::downgrade(&slot));
        Driver(slot)
    }

    /// Polls the drivers until `future` has ended. Only within it may drivers be added.
    ///
    /// # Cancel safety
    /// As that of `future`; the drivers stop until they are polled again.
    pub(super) async fn beside<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let poll = future.as_mut().poll(cx);
            if poll.is_pending() {
                self.poll(cx);
            }
            poll
        })
        .await
    }

    fn poll(&self, cx: &mut Context<'_>) {
        self.0.lock().retain(|slot| {
            let Some(slot) = slot.upgrade() else { return false };
            let mut running = slot.lock();
            let has_ended = running.as_mut().is_none_or(|running| running.as_mut().poll(cx).is_ready());
            if has_ended {
                *running = None;
            }
            !has_ended
        });
    }
}

impl Driver {
    /// Goes on by itself, outside of [`Drivers::beside`], to its end.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn ended(self) {
        let running = self.0.lock().take();
        if let Some(running) = running {
            running.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn drivers_run_while_the_task_does_something_else_and_end_with_their_owner() {
        let drivers = Drivers::default();
        let (say, heard) = oneshot::channel();
        let (mut held, gone) = oneshot::channel::<()>();
        let driver = drivers
            .beside(async {
                let driver = drivers.add(async move {
                    say.send(7).unwrap();
                    // It never ends by itself.
                    drop(gone.await);
                });
                assert_eq!(heard.await.unwrap(), 7);
                driver
            })
            .await;
        assert!(held.poll_closed(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(driver);
        assert!(held.is_closed());
        drivers.beside(tokio::task::yield_now()).await;
        assert!(drivers.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_driver_that_was_taken_out_goes_on() {
        let drivers = Drivers::default();
        let (go_on, told) = oneshot::channel();
        let driver = drivers.add(async move { told.await.unwrap() });
        drivers.beside(tokio::task::yield_now()).await;
        let mut ended = pin!(driver.ended());
        assert_eq!(futures_util::poll!(&mut ended), Poll::Pending);
        go_on.send(()).unwrap();
        ended.await;
    }
}
