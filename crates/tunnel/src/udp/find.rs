//! Finds out how datagrams for a destination leave: asks the rules, and the resolver where this machine sends them itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use keepwarm_transport::{proxy::Target, resolve::Resolved};
use tokio::time::timeout;

use super::{
    counters::UdpDropped,
    relays::Opened,
    routes::{Addresses, Found, Route},
};
use crate::{Connector, Error, ErrorKind, connector::UdpWay};

/// What the rules say of a destination.
pub(super) enum Way {
    /// All there is to know.
    Known(Found),
    /// This machine sends, once it knows the name's address.
    LookUp,
    /// Over a relay of this upstream. A name is looked up there, and only there.
    Over(Arc<str>),
}

/// Asks the rules.
pub(super) fn way(connector: &Connector, target: &Target) -> Way {
    match (connector.udp_upstream(target), target.ip()) {
        (Ok(Some(upstream)), _) => Way::Over(upstream),
        (Ok(None), Some(ip)) => Way::Known((direct([ip], target.port()), ROUTE_HOLDS)),
        (Ok(None), None) => Way::LookUp,
        (Err(error), _) => Way::Known(failed(reason(&error))),
    }
}

/// Looks the name of `target` up, within the config's `timeout`.
pub(super) async fn look_up(connector: &Connector, target: &Target) -> Found {
    let found = timeout(connector.config().timeout, connector.resolver().lookup(&target.host())).await;
    let Ok(Ok(Resolved { addresses, ttl })) = found else { return failed(UdpDropped::Unresolved) };
    match direct(addresses, target.port()) {
        Ok(route) => (Ok(route), ttl.unwrap_or(ROUTE_HOLDS).clamp(NAME_HOLDS_MIN, NAME_HOLDS_MAX)),
        Err(reason) => failed(reason),
    }
}

/// Has `upstream` open a relay.
pub(super) async fn open(connector: &Connector, upstream: &str) -> Result<Opened, UdpDropped> {
    match connector.udp_way(Some(upstream)).await {
        Ok(UdpWay::Proxy { upstream, control, relay }) => {
            tracing::debug!(%upstream, %relay, "udp relay opened");
            Ok(Opened { control, address: relay })
        }
        Ok(UdpWay::Direct) => Err(UdpDropped::Unsupported),
        Err(error) => Err(reason(&error)),
    }
}

/// A route that holds as long as the relay does. It is not asked for anew while the relay lives: a flow that goes on over another
/// upstream comes from another address, and is none any more.
pub(super) fn over(upstream: &Arc<str>) -> Found {
    (Ok(Route::Over(upstream.clone())), RELAY_HOLDS)
}

/// What is found where nothing is, and not looked for again at once.
pub(super) fn failed(reason: UdpDropped) -> Found {
    (Err(reason), if reason == UdpDropped::Rejected { ROUTE_HOLDS } else { FAILURE_HOLDS })
}

fn direct(ips: impl IntoIterator<Item = std::net::IpAddr>, port: u16) -> Result<Route, UdpDropped> {
    let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), port));
    Addresses::new(addresses).map(Route::Direct).ok_or(UdpDropped::Unresolved)
}

/// What an error of the connector means for a datagram.
fn reason(error: &Error) -> UdpDropped {
    match error.kind() {
        ErrorKind::Rejected | ErrorKind::Forbidden => UdpDropped::Rejected,
        ErrorKind::Unsupported | ErrorKind::AddressType => UdpDropped::Unsupported,
        ErrorKind::Resolve => UdpDropped::Unresolved,
        ErrorKind::Busy => UdpDropped::Full,
        _ => UdpDropped::Failed,
    }
}

/// For how long what the rules said of a destination is not asked again, and a name whose resolver tells no time to live.
const ROUTE_HOLDS: Duration = Duration::from_secs(60);
const RELAY_HOLDS: Duration = Duration::from_secs(24 * 3600);
/// The same after a failure, which may be over soon.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
const NAME_HOLDS_MIN: Duration = Duration::from_secs(1);
const NAME_HOLDS_MAX: Duration = Duration::from_secs(300);
