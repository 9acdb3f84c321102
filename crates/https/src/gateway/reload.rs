//! Another config for a gateway, in two steps: new addresses are listened on, which may fail and changes nothing; then all of it is put in
//! force, which cannot fail.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use keepwarm_transport::reload::{Changes, Drained};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{GatewayWatch, Rules, Shared, guard::Guard, listener::Listener};
use crate::config::GatewayConfig;

/// A config of the gateway that is ready to be put in force by [`apply`](Self::apply). Dropped without that, nothing has changed and new
/// addresses are free again.
pub struct PreparedGateway {
    shared: Arc<Shared>,
    /// `None`: it stops listening.
    rules: Option<Rules>,
    listeners: Vec<Arc<Listener>>,
    /// No other reload meanwhile.
    _only: OwnedSemaphorePermit,
}

impl GatewayWatch {
    /// Opens listeners that another config has beside those that are open; `None` has none. Must be called in a tokio runtime. Clients of
    /// the new ones wait in the backlog.
    ///
    /// # Errors
    /// Those of [`Gateway::bind`](crate::Gateway::bind); and [`ResourceBusy`](io::ErrorKind::ResourceBusy) while another
    /// [`PreparedGateway`] is there. Nothing has changed then.
    pub fn prepare(&self, config: Option<&GatewayConfig>) -> io::Result<PreparedGateway> {
        let shared = self.0.clone();
        let busy =
            |_| io::Error::new(io::ErrorKind::ResourceBusy, "another new config is being put in force: try again");
        let only = shared.reload.clone().try_acquire_owned().map_err(busy)?;
        config.map_or(Ok(()), check)?;
        let mut open = shared.listeners.read().open.clone();
        let wanted = config.map(|config| &*config.listen).unwrap_or_default();
        // Those that stay first, so that the others are in nobody's way but theirs.
        let kept: Vec<_> = wanted.iter().map(|address| take(&mut open, *address)).collect();
        let listeners = wanted.iter().zip(kept).map(|(address, kept)| match kept {
            Some(kept) => Ok(kept),
            None => Listener::open(*address).map(Arc::new).map_err(|error| explain(error, *address, &open)),
        });
        let listeners = listeners.collect::<io::Result<_>>()?;
        Ok(PreparedGateway { shared, rules: config.map(Rules::new), listeners, _only: only })
    }
}

/// Takes out the listener that the config means by an address.
fn take(open: &mut Vec<Arc<Listener>>, address: SocketAddr) -> Option<Arc<Listener>> {
    let index = open.iter().position(|listener| listener.configured == address)?;
    Some(open.swap_remove(index))
}

/// Says so where the gateway is in its own way: on all addresses first and then on one of them, or the other way round.
fn explain(error: io::Error, address: SocketAddr, going: &[Arc<Listener>]) -> io::Error {
    let own = going.iter().map(|listener| listener.address).find(|own| own.port() == address.port());
    match own.filter(|_| error.kind() == io::ErrorKind::AddrInUse) {
        Some(own) => {
            let text = format!("{error}: the gateway itself still listens on {own}; this takes a restart");
            io::Error::new(error.kind(), text)
        }
        None => error,
    }
}

impl PreparedGateway {
    /// Where it will listen, in the order of the config; ports that the system chose are filled in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Puts the config in force: users, `upgrade` and `max_clients` for requests and clients from now on, also those of connections that
    /// are open. Listeners that are gone accept nobody; their clients get the answers under way and are closed then. Names are keys of
    /// the config, `https.gateway` for where it listens, `https.gateway.127.0.0.1:8180` for one listener.
    pub fn apply(self) -> Changes {
        let PreparedGateway { shared, rules, listeners, _only } = self;
        let mut changes = Changes::default();
        let has_listeners = !listeners.is_empty();
        let old = shared.listeners.read().open.clone();
        let is_new = |listener: &Arc<Listener>| !old.iter().any(|old| Arc::ptr_eq(old, listener));
        let is_gone = |old: &&Arc<Listener>| !listeners.iter().any(|listener| Arc::ptr_eq(old, listener));
        let gone: Vec<_> = old.iter().filter(is_gone).collect();
        let is_other = !gone.is_empty() || listeners.iter().any(is_new);
        match (old.is_empty(), has_listeners) {
            (true, false) => {}
            (true, true) => changes.added.push(KEY.to_owned()),
            (false, true) if !is_other => changes.kept.push(KEY.to_owned()),
            (false, _) => changes.changed.push(KEY.to_owned()),
        }
        // First the listeners that go, then the rules, then the listeners that come: nobody comes in by rules that are not for there.
        let before = shared.rules();
        gone.iter().for_each(|listener| listener.door.leave_at(before.clone()));
        if let Some(rules) = rules {
            if !old.is_empty() {
                changes.changed.extend(rules.differences(&before).into_iter().map(str::to_owned));
            }
            *shared.rules.write() = Arc::new(rules);
        }
        shared.open(listeners.clone());
        for listener in gone {
            let name = format!("{KEY}.{}", listener.address);
            changes.drained.push(Drained { name, connections: listener.door.clients() });
            listener.door.close();
        }
        changes
    }
}

impl Rules {
    pub(super) fn new(config: &GatewayConfig) -> Rules {
        Rules { guard: Guard::new(&config.users), upgrade: config.upgrade, max_clients: config.max_clients }
    }

    /// The keys that differ.
    fn differences(&self, other: &Rules) -> Vec<&'static str> {
        let all = [
            ("https.max_clients", self.max_clients != other.max_clients),
            ("https.upgrade", self.upgrade != other.upgrade),
            ("https.users", self.guard != other.guard),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

fn check(config: &GatewayConfig) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if config.listen.is_empty() {
        return wrong("the gateway has no address to listen on".to_owned());
    }
    if config.max_clients == 0 || config.max_clients > Semaphore::MAX_PERMITS {
        return wrong(format!("the gateway cannot serve {} clients", config.max_clients));
    }
    let is_open = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    if let Some(address) = config.listen.iter().find(is_open).filter(|_| config.users.is_empty()) {
        return wrong(format!(
            "the gateway on {address} could be used by everyone who reaches it: set users, or listen on a loopback address \
             such as 127.0.0.1:{}",
            address.port()
        ));
    }
    if let Some(user) = config.users.iter().find(|user| user.name.contains(':')) {
        return wrong(format!(
            "user {:?} of the gateway has a colon in the name, which Basic cannot express",
            user.name
        ));
    }
    Ok(())
}

impl fmt::Debug for PreparedGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedGateway").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

const KEY: &str = "https.gateway";
