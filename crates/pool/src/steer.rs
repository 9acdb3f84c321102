//! A pool as an operator sees and steers it, whatever it connects: its figures, its connections, its limits.
//!
//! Not here: how that is shown or asked for; and acquiring, which needs to know what a connection is.

pub(crate) mod shards;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    connector::Connector,
    core::HostState,
    limits::{Limits, LimitsError},
    pool::{Pool, Shared},
    stats::{HostStats, Stats},
};

/// A pool, without the types of its connector. Hosts are named by [`Connector::label`].
pub trait Steer: Send + Sync {
    /// Returns the limits.
    fn limits(&self) -> Limits;

    /// Sets the limits, as [`Pool::set_limits`] does.
    ///
    /// # Errors
    /// When they contradict each other; then nothing has changed.
    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError>;

    /// Returns the figures of the pool, forgotten hosts included.
    fn stats(&self) -> Stats;

    /// Returns each host with its connections, in no order.
    fn hosts(&self) -> Vec<HostView>;

    /// Closes idle connections and drains busy ones, of one host or of all. Returns how many hosts that were; 0: no host has that name.
    fn flush(&self, host: Option<&str>) -> usize;

    /// Refuses acquires until [`resume`](Self::resume), of one host or of all, also those that come. Returns how many hosts that were.
    fn pause(&self, host: Option<&str>) -> usize;

    /// Ends a pause, of one host or of all. Returns how many hosts that were.
    fn resume(&self, host: Option<&str>) -> usize;

    /// Dials until `n` connections of each host that is meant are open, as [`Pool::warm_up`] does, one host after another. Returns how
    /// many connections are open in all of them.
    ///
    /// # Errors
    /// Says which host could not be connected to, and why.
    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp;
}

/// A pool and its name.
#[derive(Clone)]
pub struct NamedPool {
    /// What operators call it: `dns`, `https`, `tunnel.exit-a`. A word of the config, no secret.
    pub name: String,
    /// The pool.
    pub pool: Arc<dyn Steer>,
}

impl fmt::Debug for NamedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedPool").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What [`Steer::warm_up`] ends with.
pub type WarmUp = Pin<Box<dyn Future<Output = Result<usize, String>> + Send>>;

/// One host of a pool.
#[derive(Clone, Debug)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its figures.
    pub stats: HostStats,
    /// Its connections, those being dialled not included.
    pub connections: Vec<ConnectionView>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// Unique in its pool, for ever.
    pub id: u64,
    /// What it is doing.
    pub state: ConnectionState,
    /// Leases that it carries.
    pub in_flight: u32,
    /// Leases that it can carry at once.
    pub capacity: u32,
    /// Leases that it has carried, those of now included.
    pub uses: u32,
    /// Time since it was opened.
    pub age: Duration,
    /// Time since its last lease came back, or since it was opened; none while it has one.
    pub idle_for: Option<Duration>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It has no lease and may have one.
    Idle,
    /// It has a lease.
    InUse,
    /// It is being checked.
    Validating,
    /// It takes no new lease and ends with its last one.
    Draining,
}

impl ConnectionState {
    /// `idle`, `in_use`, `validating` or `draining`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionState::Idle => "idle",
            ConnectionState::InUse => "in_use",
            ConnectionState::Validating => "validating",
            ConnectionState::Draining => "draining",
        }
    }
}

impl<C: Connector> Steer for Pool<C> {
    fn limits(&self) -> Limits {
        Pool::limits(self)
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        Pool::set_limits(self, limits)
    }

    fn stats(&self) -> Stats {
        Pool::stats(self)
    }

    fn hosts(&self) -> Vec<HostView> {
        let view = |host: &Shared<C>| {
            let now = host.pool.clock.now();
            let (stats, connections) = host.peek(|locked| (locked.core.stats(now), locked.core.connections(now)));
            HostView { name: host.pool.connector.label(&host.key), stats, connections }
        };
        self.all().iter().map(|host| view(host)).collect()
    }

    fn flush(&self, host: Option<&str>) -> usize {
        self.each(host, |host| host.step(HostState::flush))
    }

    fn pause(&self, host: Option<&str>) -> usize {
        if host.is_none() {
            self.pause_all();
        }
        self.each(host, |host| host.step(|core, _, fx| core.pause(fx)))
    }

    fn resume(&self, host: Option<&str>) -> usize {
        if host.is_none() {
            self.resume_all();
        }
        self.each(host, |host| host.step(HostState::resume))
    }

    fn warm_up(&self, host: Option<&str>, n: usize) -> WarmUp {
        let connector = self.connector();
        let meant =
            self.all().into_iter().filter(|shared| host.is_none_or(|name| connector.label(&shared.key) == name));
        let hosts: Vec<_> = meant.map(|shared| (connector.label(&shared.key), self.host(&shared.key))).collect();
        Box::pin(async move {
            let mut open = 0;
            for (name, host) in hosts {
                open += host.warm_up(n).await.map_err(|error| format!("{name}: {error}"))?;
            }
            Ok(open)
        })
    }
}

impl<C: Connector> Pool<C> {
    /// Does it to each host that is meant. Returns how many that were.
    fn each(&self, name: Option<&str>, act: impl Fn(&Shared<C>)) -> usize {
        let hosts = self.all();
        let meant = hosts.iter().filter(|host| name.is_none_or(|name| host.pool.connector.label(&host.key) == name));
        meant.map(|host| act(host)).count()
    }
}
