//! A listener: its socket, and what is spoken there. Both can be closed while clients that came in by it are served.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::{listen::listen, terms::Terms};
use crate::config::Listen;

/// One listener of the config.
pub(crate) struct Door {
    /// As the config has it.
    pub(super) listen: Listen,
    pub(super) socket: Arc<Socket>,
}

/// A listening socket, which may come to speak something else.
pub(super) struct Socket {
    /// `None`: closed.
    listener: Mutex<Option<TcpListener>>,
    address: SocketAddr,
    clients: AtomicUsize,
    terms: Arc<Terms>,
}

/// A client that came in by a door, counted until it is dropped.
pub(super) struct Inside(Arc<Door>);

impl Door {
    /// Listens.
    pub(super) fn open(of: &Listen) -> io::Result<Arc<Door>> {
        let listener = listen(of.address)?;
        let address = listener.local_addr()?;
        let listener = Mutex::new(Some(listener));
        let socket = Socket { listener, address, clients: AtomicUsize::new(0), terms: Arc::default() };
        Ok(Arc::new(Door { listen: of.clone(), socket: Arc::new(socket) }))
    }

    /// Something else is spoken at the same socket.
    pub(super) fn turn_to(&self, listen: &Listen) -> Arc<Door> {
        Arc::new(Door { listen: listen.clone(), socket: Arc::clone(&self.socket) })
    }

    /// Where it listens, with the port that the system chose.
    pub(super) fn address(&self) -> SocketAddr {
        self.socket.address
    }

    /// Clients that came in by its socket and are still there.
    pub(super) fn clients(&self) -> usize {
        self.socket.clients.load(Ordering::Relaxed)
    }

    /// What those clients go by.
    pub(super) fn terms(&self) -> &Arc<Terms> {
        &self.socket.terms
    }

    /// The next client. One that is closed has none.
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match &*self.socket.listener.lock() {
            Some(listener) => listener.poll_accept(cx),
            None => Poll::Pending,
        }
    }

    /// Counts a client as being inside.
    pub(super) fn enter(self: &Arc<Self>) -> Inside {
        self.socket.clients.fetch_add(1, Ordering::Relaxed);
        Inside(Arc::clone(self))
    }

    /// Closes the socket at once, and tells its clients. Those that wait in its backlog are refused.
    pub(super) fn close(&self) {
        drop(self.socket.listener.lock().take());
        self.socket.terms.close();
    }
}

impl std::ops::Deref for Inside {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.0
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.socket.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
