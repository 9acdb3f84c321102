//! The connections that a new config has no use for.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;
use keepwarm_transport::reload::Drained;

use super::{super::Pool, Becomes, Entry, Next, name};

/// What is looked for among the connections.
pub(super) struct LettingGo<'a> {
    /// Origins by host and port, with the names of what their connections belonged to.
    hosts: HashMap<(&'a str, u16), Host<'a>>,
    gone: &'a [Arc<Entry>],
}

struct Host<'a> {
    /// `None`: there is no such origin any more.
    next: Option<&'a Next>,
    name: String,
    /// Whether it is to be named whether or not there are connections.
    is_drained: bool,
}

impl<'a> LettingGo<'a> {
    /// `gone`: origins whose site has none after it, or another one.
    pub(super) fn new(next: &'a HashMap<Box<str>, Next>, gone: &'a [Arc<Entry>]) -> LettingGo<'a> {
        let mut hosts = HashMap::new();
        for next in next.values() {
            if let Becomes::Changed { old } = &next.becomes {
                let config = &next.entry.origin.config;
                let host = Host { next: Some(next), name: name(old), is_drained: !next.shares_site_with(old) };
                hosts.insert((&*config.host, config.port), host);
            }
        }
        for old in gone {
            let config = &old.origin.config;
            let host = || Host { next: None, name: name(old), is_drained: true };
            hosts.entry((&*config.host, config.port)).or_insert_with(host);
        }
        LettingGo { hosts, gone }
    }

    /// Closes the idle ones and drains the busy ones.
    pub(super) fn run(self, pool: &Pool) -> Vec<Drained> {
        self.gone.iter().for_each(|entry| entry.retire(pool));
        let mut drained: BTreeMap<String, usize> = BTreeMap::new();
        for host in self.hosts.values().filter(|host| host.is_drained) {
            drained.entry(host.name.clone()).or_default();
        }
        // A look at all connections costs something, and mostly there is nothing to look for.
        let rows = if self.hosts.is_empty() { Vec::new() } else { pool.host_stats() };
        for (key, stats) in rows {
            let Some(host) = self.hosts.get(&(key.host(), key.port())) else { continue };
            if host.next.is_some_and(|next| next.entry.origin.may_use(&key)) {
                continue;
            }
            if stats.gauges.open > 0 {
                *drained.entry(host.name.clone()).or_default() += stats.gauges.open;
            }
            pool.flush(&key);
        }
        drained.into_iter().map(|(name, connections)| Drained { name, connections }).collect()
    }
}
