//! Other listeners, users and limits for a server that runs.
//!
//! A listener that stays keeps its socket, and so do those where something else is spoken at the same address. Sockets that are new are
//! bound before anything changes.

use std::{io, net::SocketAddr, sync::Arc};

use keepwarm_transport::reload::{Changes, Drained};

use super::{Server, ServerWatch, Shared, check, destination::Own, door::Door};
use crate::{Prepared, config::Listen, config::TunnelConfig, users::Users};

/// Listeners that are open, and not yet served.
pub(crate) struct Listening {
    shared: Arc<Shared>,
    config: Arc<TunnelConfig>,
    doors: Vec<Arc<Door>>,
    /// Of those that are served, the ones whose socket is not in `doors`.
    gone: Vec<Arc<Door>>,
    /// Where they differ.
    users: Option<Users>,
    own: Own,
}

impl Prepared {
    /// Opens the listeners that are new, for the server that runs. They are served, and those that are gone closed, with
    /// [`apply`](Self::apply); so are other users, for handshakes that begin from then on, and other limits. Tunnels of clients that came
    /// in by a listener that is gone live on; what such a client asks for yet is let in by the users that held last for it, and its HTTP
    /// ends with the answer that is under way.
    ///
    /// `own` is what else this process serves then, as for [`Server::bind_with`].
    ///
    /// # Errors
    /// As those of [`Server::bind_with`], but that there may be no listener; then nothing has changed. An address that overlaps with one
    /// that is given up cannot be listened on: that one is closed last.
    pub fn listen(mut self, server: &ServerWatch, own: &[SocketAddr]) -> io::Result<Prepared> {
        let shared = Arc::clone(&server.0);
        if !self.is_for(&shared.connector) {
            let text = "the config was prepared for the tunnels of another server";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let config = Arc::clone(self.config());
        check::check(&config)?;
        let served = shared.doors();
        let doors = doors(&config.listen, &served)?;
        let gone = served.iter().filter(|door| !doors.iter().any(|kept| Arc::ptr_eq(&kept.socket, &door.socket)));
        let gone = gone.cloned().collect();
        let addresses: Vec<_> = doors.iter().map(|door| door.address()).collect();
        let own = Own::new(addresses.clone(), own);
        check::check_forwards(&config, &addresses, &own, |target| self.is_direct(target))?;
        check::check_upstreams(&config, &addresses)?;
        let users = (shared.connector.config().users != config.users).then(|| Users::new(&config.users));
        self.listening = Some(Listening { shared, config, doors, gone, users, own });
        Ok(self)
    }

    /// Opens the listeners of the config, for a process that has had none. They are served once the server [runs](Server::run), which is
    /// to be after [`apply`](Self::apply).
    ///
    /// # Errors
    /// As those of [`Server::bind_with`].
    pub fn bind(&self, own: &[SocketAddr]) -> io::Result<Server> {
        Server::open(self.connector().clone(), self.config(), own, |target| self.is_direct(target))
    }
}

impl Listening {
    pub(crate) fn apply(self) -> Changes {
        let Listening { shared, config, doors, gone, users, own } = self;
        let mut changes = Changes::default();
        if !config.users.is_empty() || users.is_some() {
            let list = if users.is_some() { &mut changes.changed } else { &mut changes.kept };
            list.push("tunnel.users".to_owned());
        }
        let served = shared.doors();
        let is_same = served.len() == doors.len() && served.iter().zip(&doors).all(|(old, new)| Arc::ptr_eq(old, new));
        let list = if is_same { &mut changes.kept } else { &mut changes.changed };
        list.push("tunnel.listen".to_owned());
        if !gone.is_empty() {
            let connections = gone.iter().map(|door| door.clients()).sum();
            changes.drained.push(Drained { name: "tunnel.listen".to_owned(), connections });
        }
        // Before other users are in force, by which somebody who came in by one of these might need no password.
        gone.iter().for_each(|door| door.terms().leave_at(shared.users(door.terms())));
        // Before the doors: who comes in by a new one has to be known.
        shared.put(users, own);
        shared.places.set_max(config.max_clients);
        gone.iter().for_each(|door| door.close());
        shared.set_doors(doors);
        changes
    }
}

/// Those that are served already, as far as they are the same or at the same address, and new ones.
fn doors(wanted: &[Listen], served: &[Arc<Door>]) -> io::Result<Vec<Arc<Door>>> {
    let mut left = served.to_vec();
    let mut take = |is_meant: &dyn Fn(&Door) -> bool| {
        let at = left.iter().position(|door| is_meant(door))?;
        Some(left.remove(at))
    };
    // First what stays as it is, or another one at the same address might take its socket.
    let mut doors: Vec<_> = wanted.iter().map(|listen| take(&|door| door.listen == *listen)).collect();
    for (door, listen) in doors.iter_mut().zip(wanted) {
        if door.is_none() && listen.address.port() != 0 {
            *door = take(&|door| door.listen.address == listen.address).map(|door| door.turn_to(listen));
        }
    }
    let open = |(door, listen): (Option<Arc<Door>>, &Listen)| match door {
        Some(door) => Ok(door),
        None => Door::open(listen).map_err(|error| explain(error, listen, &left)),
    };
    doors.into_iter().zip(wanted).map(open).collect()
}

/// Says who has the port, where it is a listener of this server that is given up.
fn explain(error: io::Error, wanted: &Listen, left: &[Arc<Door>]) -> io::Error {
    let has_port = |door: &&Arc<Door>| door.address().port() == wanted.address.port();
    match left.iter().find(has_port) {
        Some(door) if error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!("{error}: this tunnel still listens on {}, restart for this change", door.address());
            io::Error::new(error.kind(), text)
        }
        _ => error,
    }
}
