//! Whether the workers' event loops run.
//!
//! A worker whose thread hangs looks healthy from outside: its sockets are open and its queue fills. So it is asked through the same
//! inbox that its answers come by. What is deliberately not asked is any upstream: a network that is down is no reason to restart.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::{
    Server,
    inbox::{Event, Inbox},
};

/// A worker's answers to pings.
#[derive(Default)]
pub(crate) struct Pulse {
    /// A ping is in the inbox: a worker that hangs gets no second one, however often it is asked.
    asked: AtomicBool,
    /// How many pings were answered.
    beats: watch::Sender<u64>,
}

impl Pulse {
    /// The worker has come to the ping.
    pub(crate) fn beat(&self) {
        // In this order: who asks in between sends a ping of its own and also hears of this one.
        self.asked.store(false, Ordering::Release);
        self.beats.send_modify(|beats| *beats = beats.wrapping_add(1));
    }
}

impl Inbox {
    /// Whether the worker comes to a ping `within` this time. The ping is sent at once, not first when the future is polled.
    fn is_read(&self, within: Duration) -> impl Future<Output = bool> + Send + 'static + use<> {
        let mut beats = self.pulse.beats.subscribe();
        if !self.pulse.asked.swap(true, Ordering::AcqRel) {
            self.push(Event::Ping);
        }
        async move { matches!(tokio::time::timeout(within, beats.changed()).await, Ok(Ok(()))) }
    }
}

impl Server {
    /// Whether every worker's event loop comes to a message `within` this time. No upstream is asked. At the server's end it is not alive.
    ///
    /// The future does not keep the server; at most one message of the kind is in a worker's inbox.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn is_alive(&self, within: Duration) -> impl Future<Output = bool> + Send + 'static + use<> {
        let workers: Vec<_> = self.shared.addresses.iter().map(|address| address.inbox.is_read(within)).collect();
        async move { join_all(workers).await.into_iter().all(|alive| alive) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::{DnsConfig, Listen, Transport, UpstreamConfig};

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_read_its_inbox_is_not_alive_and_gets_one_ping() {
        let inbox = Inbox::default();
        for _ in 0..3 {
            assert!(!inbox.is_read(Duration::from_secs(1)).await);
        }
        let mut events = Vec::new();
        inbox.take(&mut events).await;
        assert!(matches!(&events[..], [Event::Ping]));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_while_a_ping_waits_hears_of_it_and_later_ones_ask_again() {
        let inbox = Inbox::default();
        let (first, second) = (inbox.is_read(Duration::from_secs(1)), inbox.is_read(Duration::from_secs(1)));
        inbox.pulse.beat();
        assert!(first.await && second.await);
        let mut third = Box::pin(inbox.is_read(Duration::from_secs(1)));
        assert_eq!((&mut third).now_or_never(), None, "an old answer is none");
        inbox.pulse.beat();
        assert!(third.await);
    }

    #[tokio::test]
    async fn a_server_is_alive_until_it_stops() {
        let config = DnsConfig {
            listen: vec![Listen::plain(([127, 0, 0, 1], 0).into())],
            upstreams: vec![UpstreamConfig::new("nobody", Transport::Tcp, "127.0.0.1", 9)],
            workers: 2,
            ..DnsConfig::default()
        };
        let server = Server::start(config).unwrap();
        let patience = Duration::from_secs(30);
        assert!(server.is_alive(patience).await, "also when its upstream is not");
        let inboxes: Vec<_> = server.shared.addresses.iter().map(|address| address.inbox.clone()).collect();
        server.stop(Duration::ZERO).await;
        for inbox in inboxes {
            assert!(!inbox.is_read(Duration::from_millis(1)).await);
        }
    }
}
