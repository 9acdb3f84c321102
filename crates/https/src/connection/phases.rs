//! The phases of a dial, from the traces of its parts.

use keepwarm_pool::{DialPhase, DialPhases};
use keepwarm_transport::{proxy::ProxyTrace, tcp::ConnectTrace};

/// A connection to the address itself. It was found before the dial, by the inventory.
pub(super) fn direct(trace: &ConnectTrace) -> DialPhases {
    DialPhases::default().with(DialPhase::Connect, trace.elapsed)
}

/// A connection through a proxy: what is looked up and connected to is the proxy.
pub(super) fn by_proxy(trace: &ProxyTrace) -> DialPhases {
    DialPhases::default()
        .with_some(DialPhase::Resolve, trace.resolve)
        .with(DialPhase::Connect, trace.connect)
        .with_some(DialPhase::Tls, trace.tls)
        .with(DialPhase::Proxy, trace.greeting + trace.tunnel)
}
