//! What a config changes, in the words of the config.

use std::sync::Arc;

use keepwarm_transport::reload::{Changes, Drained};

use crate::{
    config::DnsConfig,
    server::{bind::Rebinding, setup::Setup},
};

/// The config as far as it can be had without a restart, and the keys that need one.
pub(super) fn possible(old: &DnsConfig, mut new: DnsConfig) -> (DnsConfig, Vec<String>) {
    let mut needs_restart = Vec::new();
    if old.workers != new.workers {
        needs_restart.push("limits.workers".to_owned());
        new.workers = old.workers;
    }
    if old.pool.reuse != new.pool.reuse {
        needs_restart.push("dns.pool.reuse".to_owned());
        new.pool.reuse = old.pool.reuse;
    }
    (new, needs_restart)
}

/// What becomes of the parts of a server.
pub(super) fn of(old: &Setup, new: &Setup, rebinding: &Rebinding) -> Changes {
    let mut changes = Changes::default();
    upstreams(old, new, &mut changes);
    for (name, is_same) in sections(&old.config, &new.config) {
        if !is_same {
            changes.changed.push(name.to_owned());
        }
    }
    cache(old, new, &mut changes);
    let unchanged = rebinding.closed.is_empty() && rebinding.opened.is_empty();
    if !new.config.listen.is_empty() && unchanged {
        changes.kept.push("dns.listen".to_owned());
    } else if !unchanged {
        changes.changed.push("dns.listen".to_owned());
    }
    if rebinding.undone {
        changes.needs_restart.push("dns.listen".to_owned());
    }
    changes
}

fn upstreams(old: &Setup, new: &Setup, changes: &mut Changes) {
    let before: Vec<_> = old.config.upstreams.iter().zip(&old.upstreams).collect();
    for (config, upstream) in new.config.upstreams.iter().zip(&new.upstreams) {
        let name = format!("dns.upstream.{}", config.name);
        let was = before.iter().find(|(was, _)| was.name == config.name);
        let list = match was {
            Some((was, known)) if Arc::ptr_eq(known, upstream) && *was == config => &mut changes.kept,
            Some(_) => &mut changes.changed,
            None => &mut changes.added,
        };
        list.push(name);
    }
    for (config, upstream) in before {
        if !new.upstreams.iter().any(|new| Arc::ptr_eq(new, upstream)) {
            let name = format!("dns.upstream.{}", config.name);
            changes.drained.push(Drained { name, connections: upstream.open() });
        }
    }
}

/// All but the upstreams, the cache and the listeners.
fn sections(old: &DnsConfig, new: &DnsConfig) -> [(&'static str, bool); 18] {
    [
        ("dns.tls", old.tls == new.tls),
        ("dns.strategy", old.strategy == new.strategy),
        ("dns.timeout", old.timeout == new.timeout),
        ("dns.racing_delay", old.racing_delay == new.racing_delay),
        ("dns.hedge", old.hedge == new.hedge),
        ("dns.route", old.routes == new.routes),
        ("dns.fallback", old.fallback == new.fallback),
        ("dns.allow", old.allow == new.allow),
        ("dns.clients", old.clients == new.clients),
        ("dns.client_subnet", old.client_subnet == new.client_subnet),
        ("dns.local", old.local == new.local),
        ("dns.query_log", old.query_log == new.query_log),
        ("dns.bootstrap", old.bootstrap == new.bootstrap),
        ("dns.pool", old.pool == new.pool),
        ("dns.breaker", old.breaker == new.breaker),
        ("dns.slow", old.slow == new.slow),
        ("limits.max_connections", old.max_connections == new.max_connections),
        ("tls.extra_roots", old.roots == new.roots),
    ]
}

fn cache(old: &Setup, new: &Setup, changes: &mut Changes) {
    let kept = old.cache.as_ref().zip(new.cache.as_ref()).is_some_and(|(old, new)| old.shares_answers(new));
    let is_same = old.config.cache == new.config.cache;
    if kept && is_same {
        changes.kept.push("dns.cache".to_owned());
    } else if !is_same || old.cache.is_some() {
        changes.changed.push("dns.cache".to_owned());
    }
    if let Some(cache) = old.cache.as_ref().filter(|_| !kept) {
        tracing::info!(answers = cache.len(), "the cache begins empty");
    }
}
