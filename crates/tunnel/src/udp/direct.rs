//! Datagrams that leave from sockets of ours, and whose answers are let in.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    counters::{Counters, OutletPort, UdpDropped},
    port::{Port, unspecified},
    routes::Addresses,
};

/// The sockets of one association, one for each family, opened with the first datagram of that family.
#[derive(Debug)]
pub(super) struct Direct {
    counters: Arc<Counters>,
    /// IPv4, IPv6.
    ports: [Option<(Port, OutletPort)>; 2],
    asked: Asked,
}

/// Addresses that the client has sent to, at most [`ASKED_MAX`]. The one that it did not send to for longest gives way.
///
/// A socket that is not connected takes what anybody sends to it. Answers from any port of an address that was sent to are let in
/// (protocols such as TFTP answer from another port), anything else is not: "address-dependent filtering" in the words of RFC 4787
/// section 5.
#[derive(Debug, Default)]
struct Asked {
    ips: HashMap<IpAddr, u64>,
    sends: u64,
}

impl Direct {
    pub(super) fn new(counters: Arc<Counters>) -> Direct {
        Direct { counters, ports: [None, None], asked: Asked::default() }
    }

    /// Sends to the first of `addresses` that the system takes.
    pub(super) fn send(&mut self, addresses: &mut Addresses, data: &[u8]) -> Result<(), UdpDropped> {
        addresses.send(|to| {
            self.port(to.is_ipv4())?.send(data, to)?;
            self.asked.insert(to.ip());
            Ok(())
        })
    }

    /// Takes the next datagram from `family`, an index of both: what its sender was asked for, or [`UdpDropped::Unasked`].
    pub(super) fn poll_recv(
        &self,
        family: usize,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, Result<SocketAddr, UdpDropped>)>> {
        let Some((port, _)) = &self.ports[family] else { return Poll::Pending };
        port.poll_recv(cx, buffer).map_ok(|(length, from)| {
            (length, if self.asked.ips.contains_key(&from.ip()) { Ok(from) } else { Err(UdpDropped::Unasked) })
        })
    }

    /// Sends what waits; tells how many the system did not take.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> usize {
        self.ports.iter_mut().flatten().map(|(port, _)| port.poll_flush(cx)).sum()
    }

    fn port(&mut self, ipv4: bool) -> Result<&mut Port, UdpDropped> {
        let place = &mut self.ports[usize::from(!ipv4)];
        if place.is_none() {
            let port = Port::open(unspecified(ipv4, 0)).map_err(|_| UdpDropped::Failed)?;
            let known = self.counters.outlet(port.address());
            *place = Some((port, known));
        }
        place.as_mut().map(|(port, _)| port).ok_or(UdpDropped::Failed)
    }
}

impl Asked {
    fn insert(&mut self, ip: IpAddr) {
        self.sends += 1;
        if let Some(sent) = self.ips.get_mut(&ip) {
            *sent = self.sends;
            return;
        }
        if self.ips.len() >= ASKED_MAX {
            let oldest = self.ips.iter().min_by_key(|(_, sent)| **sent).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.ips.remove(&ip));
        }
        self.ips.insert(ip, self.sends);
    }
}

/// Addresses whose answers are let in.
const ASKED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_was_not_sent_to_for_longest_is_let_in_no_more() {
        let mut asked = Asked::default();
        let ip = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for number in 0..ASKED_MAX {
            asked.insert(ip(number));
        }
        asked.insert(ip(0));
        asked.insert(ip(ASKED_MAX));
        assert_eq!(asked.ips.len(), ASKED_MAX);
        assert!(asked.ips.contains_key(&ip(0)) && asked.ips.contains_key(&ip(ASKED_MAX)));
        assert!(!asked.ips.contains_key(&ip(1)));
    }
}
