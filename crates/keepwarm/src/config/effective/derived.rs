//! Defaults that depend on other keys: what they come to is told by the typed config.

use super::{Effective, Entry, Node, Origin};
use crate::config::{Config, spec, words::duration_words};

/// Puts in what such a key comes to where nobody sets it.
pub(super) fn fill(effective: &mut Effective, config: &Config) {
    for (path, value) in values(config) {
        let Some(section) = section(&mut effective.nodes, path) else { continue };
        let key = path.rsplit('.').next().unwrap_or(path);
        match section.iter_mut().find(|(known, _)| known == key) {
            Some((_, Node::Value(entry))) if entry.origin == Origin::Default => entry.value = value,
            Some(_) => {}
            None => {
                let entry = Entry { path: path.to_owned(), value, redacted: None, origin: Origin::Default };
                section.push((key.to_owned(), Node::Value(entry)));
                section.sort_by_key(|(known, _)| place(path, known));
            }
        }
    }
}

/// Where a key stands in the section of `path`.
fn place(path: &str, key: &str) -> usize {
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let keys = spec::SECTIONS.iter().find(|(known, _)| *known == section).map_or(&[][..], |(_, keys)| *keys);
    keys.iter().position(|known| *known == key).unwrap_or(keys.len())
}

fn values(config: &Config) -> Vec<(&'static str, String)> {
    let time = |time| format!("\"{}\"", duration_words(time));
    let mut values = Vec::new();
    if let Some(dns) = &config.dns {
        values.push(("dns.cache.negative_ttl", time(dns.cache.negative_ttl)));
    }
    if let Some(https) = &config.https {
        values.push(("https.pool.max_per_host", https.pool.max_per_host.to_string()));
        values.push(("https.pool.max_idle", https.pool.max_idle.to_string()));
    }
    if let Some(tunnel) = &config.tunnel {
        values.push(("tunnel.max_tunnels", tunnel.max_tunnels.to_string()));
        values.push(("tunnel.max_per_destination", tunnel.max_per_destination.to_string()));
        values.push(("tunnel.half_open_timeout", time(tunnel.half_open_timeout)));
        values.push(("tunnel.pool.spares", tunnel.pool.spares.to_string()));
        values.push(("tunnel.pool.spares_min", tunnel.pool.spares_min.to_string()));
        values.push(("tunnel.pool.spares_max", tunnel.pool.spares_max.to_string()));
    }
    values
}

/// The section that a key is in.
fn section<'n>(nodes: &'n mut Vec<(String, Node)>, path: &str) -> Option<&'n mut Vec<(String, Node)>> {
    let Some((section_key, rest)) = path.split_once('.') else { return Some(nodes) };
    match nodes.iter_mut().find(|(key, _)| key == section_key) {
        Some((_, Node::Section(nodes))) => section(nodes, rest),
        _ => None,
    }
}
