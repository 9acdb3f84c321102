//! What reaches a worker from outside its thread: granted connections, answers, questions of the daemon itself.

use std::sync::Arc;

use bytes::Bytes;
use keepwarm_pool::{AcquireError, Grants, Lease};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{alive::Pulse, reload::News, trace::Trace};
use crate::{
    error::Error,
    exchange::{Answers, Replies},
    local::Local,
    upstream::{DnsConnector, Endpoint},
};

/// A worker's mailbox. Bounded by the queries in flight: each of them is owed at most one grant or answer an exchange.
#[derive(Default)]
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    wake: Notify,
    pub(super) pulse: Pulse,
}

#[derive(Default)]
struct Mail {
    events: Vec<Event>,
    /// The buffer of answers that were read, for those that come next.
    spare: Answers,
}

pub(crate) enum Event {
    /// The pool has a connection for an exchange, or gives up.
    Granted { token: u64, result: Result<Lease<DnsConnector>, AcquireError<Error>> },
    /// Answers came in on a connection with a stream. Their buffer goes back with [`Inbox::recycle`].
    Answered(Answers),
    /// A connection with a stream has an answer, or gives up.
    Replied { token: u64, result: Result<Bytes, Error> },
    /// The daemon asks for itself.
    Ask { query: Vec<u8>, answer: oneshot::Sender<Trace> },
    /// From now on these names are answered here, if the number is still that of the settings. Seldom: hosts files changed.
    Local { number: u64, local: Local },
    /// The config changed.
    Reload(Box<News>),
    /// What is known of upstreams no longer holds.
    NetworkChanged,
    /// There is news of the encrypted face of this upstream.
    Designated { upstream: Arc<Endpoint> },
    /// Somebody wants to know whether the worker reads this.
    Ping,
    /// Take no more queries from clients.
    StopListening,
    /// Leave.
    Exit,
}

impl Inbox {
    pub(crate) fn push(&self, event: Event) {
        self.add(|mail| mail.events.push(event));
    }

    fn add(&self, add: impl FnOnce(&mut Mail)) {
        let first = {
            let mut mail = self.mail.lock();
            let first = mail.events.is_empty();
            add(&mut mail);
            first
        };
        if first {
            self.wake.notify_one();
        }
    }

    /// Waits for events and takes all of them.
    pub(crate) async fn take(&self, into: &mut Vec<Event>) {
        loop {
            std::mem::swap(&mut self.mail.lock().events, into);
            if !into.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Takes back the buffer of answers that were read.
    pub(crate) fn recycle(&self, mut answers: Answers) {
        answers.clear();
        self.mail.lock().spare = answers;
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

    /// One lock and at most one wake, however many answers there are.
    fn reply_all(&self, answers: &mut Answers) {
        self.add(|mail| match mail.events.last_mut() {
            Some(Event::Answered(waiting)) => waiting.append(answers),
            _ => {
                let spare = std::mem::take(&mut mail.spare);
                mail.events.push(Event::Answered(std::mem::replace(answers, spare)));
            }
        });
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// The tokens of one take; `None` when there was nothing to take.
    fn taken(inbox: &Inbox) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut events = Vec::new();
        inbox.take(&mut events).now_or_never()?;
        let mut tokens = Vec::new();
        for event in events {
            let Event::Answered(answers) = event else { panic!("only answers were sent") };
            tokens.extend(answers.iter().map(|(token, answer)| (token, answer.to_vec())));
            inbox.recycle(answers);
        }
        Some(tokens)
    }

    #[test]
    fn answers_that_come_together_are_taken_together() {
        let inbox = Inbox::default();
        assert_eq!(taken(&inbox), None);
        for round in 0..3 {
            let mut answers = Answers::default();
            answers.push(round, b"one");
            answers.push(round + 1, b"");
            inbox.reply_all(&mut answers);
            assert!(answers.is_empty());
            answers.push(round + 2, b"three");
            inbox.reply_all(&mut answers);
            assert!(answers.is_empty());
            let expected = [(round, b"one".to_vec()), (round + 1, Vec::new()), (round + 2, b"three".to_vec())];
            assert_eq!(taken(&inbox).unwrap(), expected);
            assert_eq!(taken(&inbox), None);
        }
    }

    #[tokio::test]
    async fn a_batch_of_answers_costs_one_wake() {
        use std::{
            sync::atomic::{AtomicUsize, Ordering},
            task::{Context, Wake, Waker},
        };

        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (inbox, count) = (Inbox::default(), Arc::<Count>::default());
        let waker = Waker::from(count.clone());
        let mut events = Vec::new();
        {
            let mut take = std::pin::pin!(inbox.take(&mut events));
            assert!(take.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let mut answers = Answers::default();
            for _ in 0..3 {
                (0..100).for_each(|token| answers.push(token, b"answer"));
                inbox.reply_all(&mut answers);
            }
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            assert!(take.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        }
        assert!(matches!(&events[..], [Event::Answered(answers)] if answers.iter().count() == 300));
    }
}
