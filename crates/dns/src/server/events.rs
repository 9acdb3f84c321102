//! What happens to the pools, one line each, for the log.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use keepwarm_pool::{Event, EventKind};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Server, Shared};
use crate::{config::Transport, upstream::EndpointKey};

/// Something happened to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEvent {
    /// The upstream's name in the config.
    pub upstream: String,
    /// `udp`, `tcp`, `tls` or `https`.
    pub transport: &'static str,
    /// What happened, with counts: `created 3/10`, `closed 2/10: idle_timeout`.
    pub text: String,
    /// The rule rather than an event: a UDP socket retired by count or age, a failed dial that was told with its reason.
    pub is_routine: bool,
    /// An operator should look.
    pub is_failure: bool,
}

/// The events of all pools of a server, as they happen.
pub struct PoolEvents(stream::SelectAll<Pin<Box<dyn Stream<Item = Event<EndpointKey>> + Send>>>);

impl PoolEvents {
    /// The next event; `None` when the server is gone. A reader that is too slow misses events, never delays the pools.
    ///
    /// # Cancel safety
    /// No event is lost by dropping the future.
    pub async fn next(&mut self) -> Option<PoolEvent> {
        let event = self.0.next().await?;
        Some(PoolEvent {
            upstream: event.key.endpoint.name.to_string(),
            transport: event.key.endpoint.transport.as_str(),
            is_routine: event.key.endpoint.transport == Transport::Udp
                || matches!(event.kind, EventKind::DialFailed { .. } | EventKind::DialCancelled),
            is_failure: matches!(event.kind, EventKind::Leak { .. }),
            text: event.to_string(),
        })
    }
}

impl PoolEvents {
    pub(super) fn of(shared: &Shared) -> PoolEvents {
        PoolEvents(stream::select_all(
            shared.pools.all().map(|pool| Box::pin(events(pool.subscribe_lifecycle())) as Pin<Box<_>>),
        ))
    }
}

impl Server {
    /// What happens to the pools: connections created, ready, closed; pools full and cleaned. The first call has them from
    /// the start on, later ones from now on.
    pub fn events(&self) -> PoolEvents {
        self.events.lock().take().unwrap_or_else(|| PoolEvents::of(&self.shared))
    }
}

fn events(receiver: Receiver<Event<EndpointKey>>) -> impl Stream<Item = Event<EndpointKey>> {
    stream::unfold(receiver, async |mut receiver| {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}
