//! Takes clients in, gives each a task, and sees the tasks off.
//!
//! What is deliberately not here: what a client is served with (`session`), and when to stop.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    ClientInfo, Shared,
    counters::Counters,
    door::{Door, Inside},
    session,
};

type Doors = Arc<[Arc<Door>]>;

/// The listeners, and everybody who came in by them.
pub(super) struct Reception {
    shared: Arc<Shared>,
    doors: Doors,
    /// Ready when there are others. Kept between looks: to begin to wait for it costs more than a look at a client.
    changed: Pin<Box<dyn Future<Output = watch::Receiver<Doors>> + Send>>,
    /// The listener that is looked at first.
    next: usize,
    clients: JoinSet<()>,
}

impl Reception {
    pub(super) fn new(shared: Arc<Shared>) -> Reception {
        // Subscribed before they are read: what changes between the two is told.
        let changed = Box::pin(change(shared.doors_changed()));
        Reception { doors: shared.doors(), shared, changed, next: 0, clients: JoinSet::new() }
    }

    /// Takes in whoever waits, until nobody does. Ready when one could not be accepted.
    ///
    /// How many it takes at a time is bounded by tokio, whose sockets let others of the thread go on after a while.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Poll::Ready(Some(ended)) = self.clients.poll_join_next(cx) {
            note(ended);
        }
        while let Poll::Ready(receiver) = self.changed.as_mut().poll(cx) {
            self.changed = Box::pin(change(receiver));
            self.doors = self.shared.doors();
        }
        loop {
            match self.poll_accept(cx) {
                Poll::Ready(Ok((stream, client, door))) => self.serve(stream, client, door),
                // The client gave up while it waited in the backlog.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next client of any listener; each listener is looked at first in turn.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, ClientInfo, Inside)>> {
        for offset in 0..self.doors.len() {
            let listener = (self.next + offset) % self.doors.len();
            let door = &self.doors[listener];
            if let Poll::Ready(accepted) = door.poll_accept(cx) {
                self.next = listener + 1;
                return Poll::Ready(
                    accepted.map(|(stream, peer)| (stream, ClientInfo { peer, listener }, door.enter())),
                );
            }
        }
        Poll::Pending
    }

    fn serve(&mut self, stream: TcpStream, client: ClientInfo, door: Inside) {
        match self.shared.places.try_pass() {
            Some(place) => {
                // Boxed, since a task is moved some ten times until it runs, and this one takes thousands of bytes.
                self.clients.spawn(Box::pin(session::serve(stream, client, door, Arc::clone(&self.shared), place)));
            }
            None => Counters::count(&self.shared.counters.turned_away),
        }
    }

    /// Waits for clients to leave, and ends those that take longer. Returns how many of these had something left to do.
    pub(super) async fn finish(mut self, patience: Duration) -> usize {
        let all = async {
            while let Some(ended) = self.clients.join_next().await {
                note(ended);
            }
        };
        if tokio::time::timeout(patience, all).await.is_ok() {
            return 0;
        }
        let cut_off = self.shared.counters.unserved();
        self.clients.shutdown().await;
        cut_off
    }
}

async fn change(mut receiver: watch::Receiver<Doors>) -> watch::Receiver<Doors> {
    // The sender is in `shared`.
    let _ = receiver.changed().await;
    receiver
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a client's task of the tunnel ended by a panic");
    }
}
