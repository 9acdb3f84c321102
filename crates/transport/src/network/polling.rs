//! The network looked at once a second, where nobody tells of its changes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{Way, Woken};

pub(super) async fn next() -> Woken {
    tokio::time::sleep(INTERVAL).await;
    Woken::Network
}

/// Connecting a datagram socket sends nothing and chooses the source address.
pub(super) fn way_to(peer: IpAddr) -> Option<Way> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(peer, ANY_PORT)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    Some(Way { source: Some(source), gateway: None, interface: None })
}

const INTERVAL: Duration = Duration::from_secs(1);

/// Routes do not depend on it; zero is refused by some systems.
const ANY_PORT: u16 = 53;
