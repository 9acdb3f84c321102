//! Finds out how datagrams for a destination leave: asks the rules, and the resolver where this machine sends them itself.

use std::{net::SocketAddr, time::Duration};

use keepwarm_transport::{proxy::Target, resolve::Resolved};
use tokio::time::timeout;

use super::{
    counters::UdpDropped,
    routes::{Addresses, Found, Route},
};
use crate::{Connector, Error, ErrorKind, connector::UdpWay};

/// Finds the route to `target` within the config's `timeout`.
pub(super) async fn find(connector: Connector, target: Target) -> (Target, Found) {
    let found = timeout(connector.config().timeout, route(&connector, &target)).await;
    let found = match found.unwrap_or(Err(UdpDropped::Unresolved)) {
        Ok((route, holds)) => (Ok(route), holds),
        Err(UdpDropped::Rejected) => (Err(UdpDropped::Rejected), ROUTE_HOLDS),
        Err(reason) => (Err(reason), FAILURE_HOLDS),
    };
    (target, found)
}

async fn route(connector: &Connector, target: &Target) -> Result<(Route, Duration), UdpDropped> {
    match connector.udp_way(target).await.map_err(|error| reason(&error))? {
        UdpWay::Direct => direct(connector, target).await,
    }
}

async fn direct(connector: &Connector, target: &Target) -> Result<(Route, Duration), UdpDropped> {
    let (ips, holds) = match target.ip() {
        Some(ip) => (vec![ip], ROUTE_HOLDS),
        None => {
            let found = connector.resolver().lookup(&target.host()).await;
            let Resolved { addresses, ttl } = found.map_err(|_| UdpDropped::Unresolved)?;
            (addresses, ttl.unwrap_or(ROUTE_HOLDS).clamp(NAME_HOLDS_MIN, NAME_HOLDS_MAX))
        }
    };
    let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), target.port()));
    let addresses = Addresses::new(addresses).ok_or(UdpDropped::Unresolved)?;
    Ok((Route::Direct(addresses), holds))
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
/// The same after a failure, which may be over soon.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
const NAME_HOLDS_MIN: Duration = Duration::from_secs(1);
const NAME_HOLDS_MAX: Duration = Duration::from_secs(300);
