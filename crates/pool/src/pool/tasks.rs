//! The tasks that a pool starts: dials and validations. Each reports exactly once, also when it is dropped or panics.
//!
//! Not here: the reaper (`reaper.rs`).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;

use super::Shared;
use crate::connector::Connector;
use crate::core::{Dialed, Faulted, SlotRef};
use crate::error::{DialError, Side};
use crate::lease::Conn;
use crate::rt;
use crate::slot::Slot;

/// Starts a dial.
pub(super) fn dial<C: Connector>(host: Arc<Shared<C>>, at: SlotRef, cancelled: oneshot::Receiver<()>) {
    let pool = Arc::clone(&host.pool);
    pool.spawn(Box::pin(run_dial(host, at, cancelled)));
}

async fn run_dial<C: Connector>(host: Arc<Shared<C>>, at: SlotRef, cancelled: oneshot::Receiver<()>) {
    let mut report = DialReport { host: &host, at, done: false };
    let pool = &host.pool;
    let opened_at = pool.clock.now();
    let options = pool.options();
    let limit = options.connect_timeout;
    let slot = Slot { host: Arc::downgrade(&host), at };
    let result = {
        let mut dialing = pin!(rt::timeout(limit, pool.connector.connect(&host.key, slot)));
        let mut cancelled = pin!(cancelled);
        poll_fn(|cx| match cancelled.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => dialing.as_mut().poll(cx).map(Some),
        })
        .await
    };
    report.done = true;
    let Some(result) = result else { return };
    drop(host.take_cancel(at));
    match result {
        Some(Ok(connected)) => {
            let dial_time = pool.clock.now().saturating_duration_since(opened_at);
            let (capacity, reusable, phases) = (connected.capacity, connected.reusable, connected.phases);
            let conn =
                Arc::new(Conn { connection: connected.connection, host: Arc::clone(&host), at, opened_at, dial_time });
            host.step(|core, now, fx| {
                // In the step, so that whoever is served by it finds the dial in all figures.
                if core.dialed(at, Dialed { conn, capacity, reusable }, now, fx) && options.statistics {
                    pool.phases.lock().record(&phases);
                }
            });
        }
        Some(Err(error)) => {
            let (side, kind) = (pool.connector.side(&error), pool.connector.kind(&error));
            report.failed(DialError::Connector(Arc::new(error)), side, kind);
        }
        None => report.failed(DialError::TimedOut { after: limit }, Side::Upstream, "timeout"),
    }
}

/// Reports a dial whose task ends without a result.
struct DialReport<'a, C: Connector> {
    host: &'a Arc<Shared<C>>,
    at: SlotRef,
    done: bool,
}

impl<C: Connector> DialReport<'_, C> {
    fn failed(&self, fault: DialError<C::Error>, side: Side, kind: &'static str) {
        let at = self.at;
        self.host.step(|core, now, fx| core.dial_failed(at, Faulted { fault, side, kind }, now, fx));
    }
}

impl<C: Connector> Drop for DialReport<'_, C> {
    fn drop(&mut self) {
        if !self.done {
            drop(self.host.take_cancel(self.at));
            self.failed(DialError::Aborted, Side::Local, "aborted");
        }
    }
}

/// Starts a validation.
pub(super) fn validate<C: Connector>(host: Arc<Shared<C>>, at: SlotRef, conn: Arc<Conn<C>>) {
    let pool = Arc::clone(&host.pool);
    pool.spawn(Box::pin(run_validation(host, at, conn)));
}

async fn run_validation<C: Connector>(host: Arc<Shared<C>>, at: SlotRef, conn: Arc<Conn<C>>) {
    let mut report = ValidationReport { host: &host, at, good: false };
    let limit = host.pool.options().connect_timeout;
    let validation = host.pool.connector.validate(&host.key, &conn.connection);
    report.good = matches!(rt::timeout(limit, validation).await, Some(Ok(())));
    // Before the report: whoever is granted it may want it for itself alone.
    drop(conn);
    drop(report);
}

/// Reports a validation, at its end or when its task is dropped.
struct ValidationReport<'a, C: Connector> {
    host: &'a Arc<Shared<C>>,
    at: SlotRef,
    good: bool,
}

impl<C: Connector> Drop for ValidationReport<'_, C> {
    fn drop(&mut self) {
        let (at, good) = (self.at, self.good);
        self.host.step(|core, now, fx| core.validated(at, good, now, fx));
    }
}

/// A task with its share in the count that a drain waits for.
pub(super) async fn counted<C: Connector>(running: Running<C>, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    task.await;
    drop(running);
}

/// One running task.
pub(super) struct Running<C: Connector>(pub(super) Arc<super::Inner<C>>);

impl<C: Connector> Drop for Running<C> {
    fn drop(&mut self) {
        self.0.task_ended();
    }
}
