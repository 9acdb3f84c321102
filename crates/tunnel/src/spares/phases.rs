//! The phases of a dial, from the traces of connections to proxies and SSH servers.

use std::time::Duration;

use keepwarm_pool::{DialPhase, DialPhases};
use keepwarm_transport::proxy::{ChainTrace, ProxyTrace};

/// Up to where the server can be spoken to: address, TCP, TLS.
pub(crate) fn of_connection(trace: &ProxyTrace) -> DialPhases {
    DialPhases::default()
        .with_some(DialPhase::Resolve, trace.resolve)
        .with(DialPhase::Connect, trace.connect)
        .with_some(DialPhase::Tls, trace.tls)
}

/// The same through a proxy, to which the greeting and the way to the second one are owed.
pub(crate) fn of_chain(trace: &ChainTrace) -> DialPhases {
    let ChainTrace { first, tls, .. } = trace;
    through(first, first.greeting + first.tunnel).with_some(DialPhase::Tls, *tls)
}

/// A connection to a proxy that then opened a way, which took it so long.
pub(crate) fn through(trace: &ProxyTrace, way: Duration) -> DialPhases {
    of_connection(trace).with(DialPhase::Proxy, way)
}
