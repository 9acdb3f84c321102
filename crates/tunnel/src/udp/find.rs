//! Finds out how datagrams for a destination leave: asks the rules, and the resolver where this machine sends them itself.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keepwarm_transport::{proxy::Target, resolve::Resolved};
use tokio::time::timeout;

use super::{
    counters::UdpDropped,
    relays::Opened,
    routes::{Addresses, Found, Route},
};
use crate::{Connector, Error, ErrorKind, connector::UdpWay, server::destination::OwnNow};

/// What the rules say of a destination.
pub(super) enum Way {
    /// All there is to know.
    Known(Found),
    /// This machine sends, once it knows the name's address.
    LookUp,
    /// Over a relay of this upstream. A name is looked up there, and only there.
    Over(Arc<str>),
}

/// Who wants to know, and what he may not reach.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) connector: Connector,
    /// What is served by this process, and not to those that would come from this machine by a relay.
    pub(super) own: OwnNow,
    /// Whether the client is not known to be on this machine.
    pub(super) remote: bool,
}

/// Asks the rules.
pub(super) fn way(asker: &Asker, target: &Target) -> Way {
    match (asker.connector.udp_upstream(target), target.ip()) {
        (Ok(Some(upstream)), _) => Way::Over(upstream),
        (Ok(None), Some(ip)) => {
            Way::Known(asker.direct(target, [ip]).map_or_else(failed, |route| (Ok(route), ROUTE_HOLDS)))
        }
        (Ok(None), None) => Way::LookUp,
        (Err(error), _) => Way::Known(failed(reason(&error))),
    }
}

/// Looks the name of `target` up, within the config's `timeout`.
pub(super) async fn look_up(asker: &Asker, target: &Target) -> Found {
    let connector = &asker.connector;
    let found = timeout(connector.config().timeout, connector.resolver().lookup(&target.host())).await;
    let Ok(Ok(Resolved { addresses, ttl })) = found else { return failed(UdpDropped::Unresolved) };
    match asker.direct(target, addresses) {
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

/// A route that holds as long as the relay does. It is not asked for anew while the relay lives and the ways are in force: a flow that goes on over another
/// upstream comes from another address, and is none any more.
pub(super) fn over(upstream: &Arc<str>) -> Found {
    (Ok(Route::Over(upstream.clone())), RELAY_HOLDS)
}

/// What is found where nothing is, and not looked for again at once.
pub(super) fn failed(reason: UdpDropped) -> Found {
    (Err(reason), if reason == UdpDropped::Rejected { ROUTE_HOLDS } else { FAILURE_HOLDS })
}

impl Asker {
    /// The route to those of a destination's addresses that may be sent to from here.
    fn direct(&self, target: &Target, ips: impl IntoIterator<Item = IpAddr>) -> Result<Route, UdpDropped> {
        let (own, mut rejected) = (self.own.now(), false);
        let allowed = ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), target.port())).filter(|to| {
            let may = self.connector.allows(target, to.ip(), self.remote) && !own.serves(*to);
            rejected |= !may;
            may
        });
        let addresses = Addresses::new(allowed);
        addresses.map(Route::Direct).ok_or(if rejected { UdpDropped::Rejected } else { UdpDropped::Unresolved })
    }
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

#[cfg(test)]
mod tests {
    use keepwarm_transport::resolve::Fixed;

    use super::*;
    use crate::{
        config::{HostMatch, Match, Rule, TunnelConfig, Via},
        server::destination::Own,
    };

    /// What becomes of datagrams for `host`; every name is at `127.0.0.1` and at `192.0.2.1`.
    async fn found(host: &str, port: u16, remote: bool) -> Result<Vec<SocketAddr>, UdpDropped> {
        let rejected = Match { host: HostMatch::Net("198.51.100.0/24".parse().unwrap()), ports: None };
        let rules = vec![Rule { matches: vec![rejected], via: Via::Reject, speculate: 0 }];
        let resolver = Fixed(vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
        let connector = Connector::new(TunnelConfig { rules, ..TunnelConfig::default() }, Arc::new(resolver)).unwrap();
        let own = Own::new(Vec::new(), &["127.0.0.1:53".parse().unwrap()]);
        let asker = Asker { connector, own: OwnNow::new(own), remote };
        let target = Target::new(host, port).unwrap();
        let (route, _) = match way(&asker, &target) {
            Way::Known(found) => found,
            Way::LookUp => look_up(&asker, &target).await,
            Way::Over(upstream) => panic!("over {upstream}"),
        };
        match route? {
            Route::Direct(addresses) => Ok(addresses.all().to_vec()),
            Route::Over(upstream) => panic!("over {upstream}"),
        }
    }

    #[tokio::test]
    async fn what_is_on_loopback_or_our_own_is_not_sent_to_for_those_who_may_not() {
        let to = |addresses: &[&str]| Ok(addresses.iter().map(|address| address.parse().unwrap()).collect());
        for (host, port, remote, expected) in [
            ("127.0.0.1", 5000, false, to(&["127.0.0.1:5000"])),
            ("127.0.0.1", 5000, true, Err(UdpDropped::Rejected)),
            ("127.0.0.1", 53, false, Err(UdpDropped::Rejected)),
            ("192.0.2.1", 53, true, to(&["192.0.2.1:53"])),
            ("198.51.100.1", 53, false, Err(UdpDropped::Rejected)),
            ("name.example", 5000, false, to(&["127.0.0.1:5000", "192.0.2.1:5000"])),
            ("name.example", 5000, true, to(&["192.0.2.1:5000"])),
            ("name.example", 53, false, to(&["192.0.2.1:53"])),
        ] {
            assert_eq!(found(host, port, remote).await, expected, "{host}:{port} {remote}");
        }
    }
}
