//! What reaches a worker from outside its thread: granted connections, answers, questions of the daemon itself.

use std::sync::Arc;

use bytes::Bytes;
use keepwarm_pool::{AcquireError, Grants, Lease};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::trace::Trace;
use crate::{error::Error, exchange::Replies, upstream::DnsConnector};

/// A worker's mailbox. Bounded by the queries in flight: each of them is owed at most one grant or answer an exchange.
#[derive(Default)]
pub(crate) struct Inbox {
    events: Mutex<Vec<Event>>,
    wake: Notify,
}

pub(crate) enum Event {
    /// The pool has a connection for an exchange, or gives up.
    Granted { token: u64, result: Result<Lease<DnsConnector>, AcquireError<Error>> },
    /// A connection with a stream has an answer, or gives up.
    Replied { token: u64, result: Result<Bytes, Error> },
    /// The daemon asks for itself.
    Ask { query: Vec<u8>, answer: oneshot::Sender<Trace> },
    /// Take no more queries from clients.
    StopListening,
    /// Leave.
    Exit,
}

impl Inbox {
    pub(crate) fn push(&self, event: Event) {
        let first = {
            let mut events = self.events.lock();
            events.push(event);
            events.len() == 1
        };
        if first {
            self.wake.notify_one();
        }
    }

    /// Waits for events and takes all of them.
    pub(crate) async fn take(&self, into: &mut Vec<Event>) {
        loop {
            std::mem::swap(&mut *self.events.lock(), into);
            if !into.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
    }
}

impl Grants<DnsConnector> for Inbox {
    fn granted(&self, token: u64, result: Result<Lease<DnsConnector>, AcquireError<Error>>) {
        self.push(Event::Granted { token, result });
    }
}

impl Replies for Inbox {
    fn reply(&self, token: u64, result: Result<Bytes, Error>) {
        self.push(Event::Replied { token, result });
    }
}

/// A worker's mailbox, seen by the pool and by the connections.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) grants: Arc<dyn Grants<DnsConnector>>,
    pub(crate) replies: Arc<dyn Replies>,
}

impl Address {
    pub(crate) fn new() -> Address {
        let inbox = Arc::<Inbox>::default();
        Address { grants: inbox.clone(), replies: inbox.clone(), inbox }
    }
}
