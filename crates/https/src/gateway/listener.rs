//! Where clients come in: one listening socket, and the word to its clients that it is gone.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    task::Poll,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::Rules;

/// A socket that listens until it is dropped.
pub(super) struct Listener {
    /// As the config names it, where port 0 leaves the choice to the system.
    pub(super) configured: SocketAddr,
    /// Where it is.
    pub(super) address: SocketAddr,
    socket: TcpListener,
    pub(super) door: Arc<Door>,
}

/// What the clients of one listener go by; it outlives the socket.
pub(super) struct Door {
    /// Whether they are to go. Each of them has a receiver.
    closing: watch::Sender<bool>,
    /// Once it is closed: the rules that held last. Those after them may let in everyone, since nobody comes from there any more.
    last: OnceLock<Arc<Rules>>,
}

impl Listener {
    /// # Errors
    /// What the system reports, with the address.
    pub(super) fn open(configured: SocketAddr) -> io::Result<Listener> {
        let open = || {
            let socket = Socket::new(Domain::for_address(configured), Type::STREAM, Some(Protocol::TCP))?;
            if configured.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // Without it a restart would wait for connections of the last run to leave TIME_WAIT. On Windows it would share the port.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&configured.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from_std(socket.into())?;
            let door = Arc::new(Door { closing: watch::Sender::new(false), last: OnceLock::new() });
            Ok(Listener { configured, address: socket.local_addr()?, socket, door })
        };
        open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("listen on {configured}: {error}")))
    }
}

impl Door {
    /// For a client: true once it is to go when it has its answer.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Says which rules hold to the end; to be called before others are in force.
    pub(super) fn leave_at(&self, rules: Arc<Rules>) {
        // It closes once.
        let _ = self.last.set(rules);
    }

    /// Lets the clients go.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Clients that came in here.
    pub(super) fn clients(&self) -> usize {
        self.closing.receiver_count()
    }

    /// The rules for a client; `now` are those in force, and were asked for before this.
    pub(super) fn rules(&self, now: Arc<Rules>) -> Arc<Rules> {
        self.last.get().cloned().unwrap_or(now)
    }
}

/// The next client of any listener, with where it came in; each is looked at first in turn. Without listeners nobody comes.
pub(super) async fn accept(listeners: &[Arc<Listener>], next: &mut usize) -> io::Result<(TcpStream, Arc<Door>)> {
    poll_fn(|cx| {
        for offset in 0..listeners.len() {
            let index = next.wrapping_add(offset) % listeners.len();
            if let Poll::Ready(accepted) = listeners[index].socket.poll_accept(cx) {
                *next = index + 1;
                return Poll::Ready(accepted.map(|(stream, _)| (stream, listeners[index].door.clone())));
            }
        }
        Poll::Pending
    })
    .await
}

/// Connections that wait in the system to be accepted.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GatewayConfig, User};

    #[tokio::test]
    async fn the_rules_of_a_door_that_closes_are_those_that_held_last() {
        let user = User { name: "ann".to_owned(), password: "hunter2".to_owned() };
        let rules =
            |users: &[User]| Arc::new(Rules::new(&GatewayConfig { users: users.to_vec(), ..GatewayConfig::default() }));
        let (strict, open) = (rules(&[user]), rules(&[]));
        let listener = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        assert!(Arc::ptr_eq(&listener.door.rules(open.clone()), &open));
        listener.door.leave_at(strict.clone());
        assert!(Arc::ptr_eq(&listener.door.rules(open), &strict));
    }
}
