//! Another config for a connector that is in use, in two steps: all that is new is built, which may fail, and then it is put in force.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use keepwarm_pool::NamedPool;
use keepwarm_transport::{
    proxy::Target,
    reload::{Changes, Drained},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Connector, StartError, state::State};
use crate::{
    config::{TunnelConfig, UpstreamConfig},
    server::reload::Listening,
    upstream::Upstream,
};

/// A config that is ready to be put in force. Dropping it leaves everything as it is.
///
/// # Examples
/// ```no_run
/// # async fn example(connector: keepwarm_tunnel::Connector) -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = (*connector.config()).clone();
/// config.max_per_destination = 20;
/// let changes = connector.prepare(config)?.apply();
/// println!("changed: {:?}", changes.changed);
/// # Ok(()) }
/// ```
pub struct Prepared {
    connector: Connector,
    state: Arc<State>,
    pub(crate) listening: Option<Listening>,
    /// While this is there nobody else prepares anything.
    _turn: OwnedSemaphorePermit,
}

impl Connector {
    /// Builds what is new in another config. Upstreams whose settings are the same stay what they are, with their spares and what is known
    /// of them; the others are made, and dial nothing yet. One config at a time can be prepared.
    ///
    /// Where a [`Server`](crate::Server) runs, [`Prepared::listen`] is the next step.
    ///
    /// # Errors
    /// As those of [`new`](Self::new); then nothing has changed. Also while another config is prepared and neither applied nor dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn prepare(&self, config: TunnelConfig) -> Result<Prepared, StartError> {
        let turn = Arc::clone(&self.inner.reloading).try_acquire_owned();
        let turn = turn.map_err(|_| StartError("another config of the tunnel is being put in force".to_owned()))?;
        let state = State::new(config, Some(&self.inner.state()), &self.inner.resolver).map_err(StartError)?;
        Ok(Prepared { connector: self.clone(), state: Arc::new(state), listening: None, _turn: turn })
    }

    /// The connections of every upstream that has some, as operators see and steer them, by the names `tunnel.NAME`. Limits that are set
    /// there hold until another `pool` of the config is put in force. To be asked for anew after a reload.
    pub fn pools(&self) -> Vec<NamedPool> {
        self.inner.state().upstreams.iter().filter_map(Upstream::pool).collect()
    }
}

impl Prepared {
    /// Puts the config in force. Whoever asks for a tunnel from now on gets it by the new rules, upstreams, limits and times, also those
    /// that wait for a permit; a tunnel that is on its way over an upstream is made by the old ones. Live tunnels stay, with the times
    /// that they began with, until they end.
    ///
    /// Upstreams that are gone or changed are in `drained` with their spares, which are closed, and their live tunnels.
    pub fn apply(self) -> Changes {
        let Prepared { connector: Connector { inner }, state, listening, .. } = self;
        let before = std::mem::replace(&mut *inner.state.write(), Arc::clone(&state));
        state.routes.go_on(&before.routes, |index| state.index_of(before.upstreams.get(index)?));
        let config = &state.config;
        inner.permits.set_limits(config.max_per_destination, config.max_tunnels, config.max_waiters);
        let is_kept = |state: &State, upstream: &Arc<Upstream>| state.index_of(upstream).is_some();
        let is_tuned = config.pool != before.config.pool || config.breaker != before.config.breaker;
        for upstream in &state.upstreams {
            if !is_kept(&before, upstream) {
                if !inner.closed.load(Ordering::Relaxed) {
                    upstream.begin();
                }
            } else if is_tuned {
                upstream.tune(&config.pool, config.breaker);
            }
        }
        if state.ways != before.ways {
            inner.ready.clear();
        }
        let mut changes = changes(&before, &state);
        for upstream in before.upstreams.iter().filter(|upstream| !is_kept(&state, upstream)) {
            changes.drained.push(Drained { name: name_of(upstream.name()), connections: upstream.retire() });
            inner.past.retired(Arc::clone(upstream));
        }
        if let Some(listening) = listening {
            changes.extend(listening.apply());
        }
        changes
    }

    /// The config that is prepared.
    pub(crate) fn config(&self) -> &Arc<TunnelConfig> {
        &self.state.config
    }

    /// Whether this machine will come to connect to a destination itself.
    pub(crate) fn is_direct(&self, target: &Target) -> bool {
        self.state.is_direct(target)
    }

    /// Whether it is for this connector.
    pub(crate) fn is_for(&self, connector: &Connector) -> bool {
        Arc::ptr_eq(&self.connector.inner, &connector.inner)
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }
}

impl State {
    fn index_of(&self, upstream: &Arc<Upstream>) -> Option<usize> {
        self.upstreams.iter().position(|own| Arc::ptr_eq(own, upstream))
    }
}

/// What differs, but for what is drained.
fn changes(before: &State, now: &State) -> Changes {
    let mut changes = Changes::default();
    for (index, upstream) in now.config.upstreams.iter().enumerate() {
        let old = before.config.upstreams.iter().find(|old| old.name == upstream.name);
        let is_placed_alike = |old: &UpstreamConfig| (&old.group, old.priority) == (&upstream.group, upstream.priority);
        let is_kept = before.index_of(&now.upstreams[index]).is_some();
        let list = match old {
            None => &mut changes.added,
            Some(old) if is_kept && is_placed_alike(old) => &mut changes.kept,
            Some(_) => &mut changes.changed,
        };
        list.push(name_of(&upstream.name));
    }
    if before.config.rules == now.config.rules {
        changes.kept.extend((!now.config.rules.is_empty()).then(|| "tunnel.rule".to_owned()));
    }
    let differ = keys(&before.config, &now.config).into_iter().filter(|(_, is_equal)| !is_equal);
    changes.changed.extend(differ.map(|(key, _)| key.to_owned()));
    changes
}

/// The keys of the config that stand for themselves, and whether they are as they were.
fn keys(before: &TunnelConfig, now: &TunnelConfig) -> [(&'static str, bool); 17] {
    [
        ("tunnel.rule", before.rules == now.rules),
        ("tunnel.default", before.default == now.default),
        ("tunnel.strategy", before.strategy == now.strategy),
        ("tunnel.switch_back", before.switch_back == now.switch_back),
        ("tunnel.pool", before.pool == now.pool),
        ("tunnel.breaker", before.breaker == now.breaker),
        ("tunnel.udp", before.udp == now.udp),
        ("tunnel.max_clients", before.max_clients == now.max_clients),
        ("tunnel.max_tunnels", before.max_tunnels == now.max_tunnels),
        ("tunnel.max_per_destination", before.max_per_destination == now.max_per_destination),
        ("tunnel.max_waiters", before.max_waiters == now.max_waiters),
        ("tunnel.acquire_timeout", before.acquire_timeout == now.acquire_timeout),
        ("tunnel.timeout", before.timeout == now.timeout),
        ("tunnel.handshake_timeout", before.handshake_timeout == now.handshake_timeout),
        ("tunnel.idle_timeout", before.idle_timeout == now.idle_timeout),
        ("tunnel.half_open_timeout", before.half_open_timeout == now.half_open_timeout),
        ("tunnel.slow", before.slow == now.slow),
    ]
}

fn name_of(upstream: &str) -> String {
    format!("tunnel.upstream.{upstream}")
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("upstreams", &self.state.upstreams).finish_non_exhaustive()
    }
}
