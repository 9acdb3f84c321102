//! The sockets of one worker on which clients come in: opened, given another protocol or path, and closed while the server runs.
//!
//! What is spoken inside is the business of [`udp`](super::udp), [`tcp`](super::tcp) and [`quic`](super::quic); which sockets there are to be
//! is decided by [`bind`](super::bind).

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
};

use keepwarm_transport::quic::server::QuicListener;
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    bind::{Kind, Sockets},
    quic, tcp, udp,
    worker::Worker,
};
use crate::config::Listen;

/// A socket on which clients come in, as they see it who serve them.
pub(crate) struct Entrance {
    /// What is spoken there with those who come from now on.
    listen: RefCell<Rc<Listen>>,
    open: Cell<bool>,
    closed: Notify,
}

impl Entrance {
    fn new(listen: Listen) -> Rc<Entrance> {
        Rc::new(Entrance { listen: RefCell::new(Rc::new(listen)), open: Cell::new(true), closed: Notify::new() })
    }

    pub(super) fn listen(&self) -> Rc<Listen> {
        self.listen.borrow().clone()
    }

    /// Whether clients come in and those that are there may ask.
    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Wakes when it is closed. Whether it was before shows in [`is_open`](Self::is_open).
    pub(super) fn closed(&self) -> tokio::sync::futures::Notified<'_> {
        self.closed.notified()
    }

    /// What comes of `future`, unless the entrance closes before.
    pub(super) async fn unless_closed<F: Future>(&self, future: F) -> Option<F::Output> {
        if !self.is_open() {
            return None;
        }
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.closed() => None,
        }
    }

    fn close(&self) {
        self.open.set(false);
        self.closed.notify_waiters();
    }
}

/// The entrances of a worker.
#[derive(Default)]
pub(crate) struct Entrances(RefCell<Vec<Opened>>);

struct Opened {
    address: SocketAddr,
    entrance: Rc<Entrance>,
    door: Door,
}

/// What stands behind an entrance.
enum Door {
    Udp { listener: Rc<udp::Listener>, reader: AbortHandle },
    Tcp,
    Quic(QuicListener),
}

impl Door {
    fn kind(&self) -> Kind {
        match self {
            Door::Udp { .. } => Kind::Udp,
            Door::Tcp => Kind::Tcp,
            Door::Quic(_) => Kind::Quic,
        }
    }
}

impl Worker {
    /// Has clients come in here and nowhere else. Where there is a socket it is new; where there is none, the one that is there stays.
    pub(super) fn listen(self: &Rc<Worker>, sockets: Vec<Sockets>) {
        let mut before = std::mem::take(&mut *self.entrances.0.borrow_mut());
        let mut after = Vec::new();
        for Sockets { listen, udp, tcp } in sockets {
            let mut new: Vec<Opened> = Vec::new();
            new.extend(udp.and_then(|socket| self.open_udp(&listen, socket)));
            new.extend(tcp.and_then(|socket| self.open_tcp(&listen, socket)));
            let kinds = Kind::of(listen.transport).iter().copied();
            let old: Vec<_> = kinds.filter(|kind| !new.iter().any(|new| new.door.kind() == *kind)).collect();
            for kind in old {
                let stays = |opened: &Opened| opened.address == listen.address && opened.door.kind() == kind;
                if let Some(place) = before.iter().position(stays) {
                    let opened = before.swap_remove(place);
                    self.adapt(&opened, &listen);
                    after.push(opened);
                }
            }
            after.append(&mut new);
        }
        before.iter().for_each(|opened| self.close(opened));
        *self.entrances.0.borrow_mut() = after;
    }

    /// Lets no more clients in.
    pub(super) fn stop_listening(self: &Rc<Worker>) {
        self.stopped.set(true);
        let opened = std::mem::take(&mut *self.entrances.0.borrow_mut());
        opened.iter().for_each(|opened| self.close(opened));
        // Those over QUIC are told when the worker leaves.
        *self.entrances.0.borrow_mut() = opened;
    }

    /// The listeners whose clients are to be told when the worker leaves.
    pub(super) fn quic_listeners(&self) -> Vec<QuicListener> {
        let listener = |opened: &Opened| match &opened.door {
            Door::Quic(listener) => Some(listener.clone()),
            Door::Udp { .. } | Door::Tcp => None,
        };
        self.entrances.0.borrow().iter().filter_map(listener).collect()
    }

    /// Has an entrance that stays speak what it is to speak from now on.
    fn adapt(&self, opened: &Opened, listen: &Listen) {
        *opened.entrance.listen.borrow_mut() = Rc::new(listen.clone());
        if let (Door::Quic(listener), Some(encryption)) = (&opened.door, &self.era().encryption) {
            listener.set(encryption.quic(listen.transport));
        }
    }

    fn close(self: &Rc<Worker>, opened: &Opened) {
        opened.entrance.close();
        if let Door::Udp { listener, reader } = &opened.door {
            // What has come in is answered.
            self.receive_rest(listener);
            reader.abort();
        }
    }

    fn open_udp(self: &Rc<Worker>, listen: &Listen, socket: std::net::UdpSocket) -> Option<Opened> {
        let entrance = Entrance::new(listen.clone());
        let door = if Kind::of(listen.transport).contains(&Kind::Quic) {
            Door::Quic(quic::listen(self, socket, entrance.clone())?)
        } else {
            let socket = tokio::net::UdpSocket::from_std(socket).inspect_err(|error| unheard(error, listen)).ok()?;
            let listener = udp::Listener::new(socket, &self.outbox);
            let reader = tokio::task::spawn_local(udp::read_clients(self.clone(), listener.clone())).abort_handle();
            Door::Udp { listener, reader }
        };
        Some(Opened { address: listen.address, entrance, door })
    }

    fn open_tcp(self: &Rc<Worker>, listen: &Listen, socket: std::net::TcpListener) -> Option<Opened> {
        let listener = tokio::net::TcpListener::from_std(socket).inspect_err(|error| unheard(error, listen)).ok()?;
        let entrance = Entrance::new(listen.clone());
        tokio::task::spawn_local(tcp::accept(self.clone(), listener, entrance.clone()));
        Some(Opened { address: listen.address, entrance, door: Door::Tcp })
    }
}

fn unheard(error: &std::io::Error, listen: &Listen) {
    tracing::error!(%error, address = %listen.address, "a worker cannot take clients");
}
