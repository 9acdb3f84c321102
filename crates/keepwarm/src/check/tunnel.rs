//! What `[tunnel]` comes to.

use keepwarm_tunnel::config::{Listen, ListenKind, TunnelConfig, UpstreamConfig, UpstreamKind, Via};

use super::{list, users};
use crate::config::show_pattern;

pub(super) fn lines(tunnel: &TunnelConfig) -> Vec<String> {
    let mut lines = Vec::new();
    if !tunnel.listen.is_empty() {
        let listeners = list(tunnel.listen.iter().map(listener));
        lines.push(format!("tunnel listens on {listeners}, for {}", users(tunnel.users.len(), "them")));
    }
    let groups = groups(tunnel);
    for group in &groups {
        let upstreams = tunnel.upstreams.iter().filter(|upstream| &*upstream.group == *group);
        lines.push(format!("tunnel group {group} ({}): {}", tunnel.strategy.as_str(), list(upstreams.map(upstream))));
    }
    for rule in &tunnel.rules {
        let ahead = if rule.speculate > 0 { format!(", {} opened ahead", rule.speculate) } else { String::new() };
        lines.push(format!("{} via {}{ahead}", list(rule.matches.iter().map(show_pattern)), via(&rule.via)));
    }
    lines.push(format!("other destinations via {}", via(&tunnel.default)));
    let pool = &tunnel.pool;
    let spares = match groups.is_empty() {
        true => String::new(),
        false => format!(", {} to {} spares an upstream", pool.spares_min, pool.spares_max),
    };
    lines.push(format!("tunnels: {}, {} a destination{spares}", tunnel.max_tunnels, tunnel.max_per_destination));
    lines
}

fn listener(listen: &Listen) -> String {
    let spoken = match &listen.kind {
        ListenKind::Mixed => "SOCKS and HTTP".to_owned(),
        ListenKind::Socks => "SOCKS".to_owned(),
        ListenKind::Http => "HTTP".to_owned(),
        ListenKind::Forward(target) => format!("to {target}"),
    };
    format!("{} ({spoken})", listen.address)
}

/// Name, protocol and way; never with a credential.
fn upstream(upstream: &UpstreamConfig) -> String {
    let kind = match &upstream.kind {
        UpstreamKind::Direct => "direct",
        UpstreamKind::Proxy(proxy) => proxy.protocol.as_str(),
        UpstreamKind::Ssh(_) => "ssh",
    };
    match &upstream.through {
        Some(proxy) => format!("{} ({kind}, through {}:{})", upstream.name, proxy.host, proxy.port),
        None => format!("{} ({kind})", upstream.name),
    }
}

fn groups(tunnel: &TunnelConfig) -> Vec<&str> {
    let mut groups = Vec::new();
    for upstream in &tunnel.upstreams {
        if !groups.contains(&&*upstream.group) {
            groups.push(&*upstream.group);
        }
    }
    groups
}

fn via(via: &Via) -> String {
    match via {
        Via::Upstream(name) => format!("upstream {name}"),
        Via::Group(name) => format!("group {name}"),
        Via::Direct => "direct".to_owned(),
        Via::Reject => "reject".to_owned(),
    }
}
