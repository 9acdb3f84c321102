//! Who may ask, and how many connections one client may hold.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::ClientLimits;

/// The access list and the connection counts, shared by all workers.
pub(crate) struct Access {
    allow: Vec<IpNet>,
    limits: ClientLimits,
    /// Those that came in under earlier settings included.
    open: Arc<Mutex<Open>>,
}

/// Connections that are open now.
#[derive(Default)]
struct Open {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// The right to one connection; dropping it gives it back.
pub(crate) struct Permit {
    access: Arc<Access>,
    /// `None` while a proxy has not said yet whose it is.
    client: Option<IpAddr>,
}

impl Access {
    pub(crate) fn new(allow: Vec<IpNet>, limits: ClientLimits) -> Arc<Access> {
        Arc::new(Access { allow, limits, open: Arc::default() })
    }

    /// Other settings for the same clients: whose connections are open stays counted.
    pub(crate) fn renewed(&self, allow: Vec<IpNet>, limits: ClientLimits) -> Arc<Access> {
        Arc::new(Access { allow, limits, open: self.open.clone() })
    }

    /// Whether this address may ask. An IPv4 address that came in through an IPv6 socket counts as IPv4.
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.allow.iter().any(|net| net.contains(&client))
    }

    /// Whether there are proxies at all.
    pub(crate) fn has_proxies(&self) -> bool {
        !self.limits.proxy_protocol.is_empty()
    }

    /// Whether this peer is a proxy, which names the client in a header of the PROXY protocol.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.limits.proxy_protocol.iter().any(|net| net.contains(&peer))
    }

    /// A permit for one more connection, unless the client or all clients together hold too many.
    pub(crate) fn admit(self: &Arc<Access>, client: IpAddr) -> Option<Permit> {
        self.admit_proxied()?.claim(client)
    }

    /// A permit for one more connection of a client that its proxy has still to name, unless all clients together hold too
    /// many.
    pub(crate) fn admit_proxied(self: &Arc<Access>) -> Option<Permit> {
        let mut open = self.open.lock();
        if open.total >= self.limits.tcp_max {
            return None;
        }
        open.total += 1;
        Some(Permit { access: self.clone(), client: None })
    }

    /// Client connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Permit {
    /// The permit of this client, unless it holds too many.
    pub(crate) fn claim(mut self, client: IpAddr) -> Option<Permit> {
        let client = client.to_canonical();
        {
            let mut open = self.access.open.lock();
            let own = open.by_client.entry(client).or_default();
            if *own >= self.access.limits.tcp_max_per_client {
                return None;
            }
            *own += 1;
        }
        self.client = Some(client);
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.access.open.lock();
        open.total -= 1;
        let Some(client) = self.client else { return };
        if let Some(own) = open.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                open.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tcp_max: usize, tcp_max_per_client: usize) -> Arc<Access> {
        let allow = vec!["127.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        Access::new(allow, ClientLimits { tcp_max, tcp_max_per_client, ..ClientLimits::default() })
    }

    #[test]
    fn only_listed_networks_may_ask() {
        let access = access(1, 1);
        for (address, allowed) in [
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("2001:db8::1", true),
            ("192.0.2.1", false),
            ("::1", false),
        ] {
            assert_eq!(access.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    #[test]
    fn connections_are_limited_per_client_and_in_all_and_given_back() {
        let access = access(3, 2);
        let [a, b] = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
        let first = access.admit(a).unwrap();
        let _second = access.admit(a).unwrap();
        assert!(access.admit(a).is_none(), "two per client");
        let _third = access.admit(b).unwrap();
        assert!(access.admit(b).is_none(), "three in all");
        drop(first);
        assert_eq!(access.open(), 2);
        assert!(access.admit(b).is_some());
    }

    #[test]
    fn other_limits_hold_for_clients_that_are_there() {
        let before = access(3, 3);
        let [a, b] = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
        let first = before.admit(a).unwrap();
        let limits = ClientLimits { tcp_max: 2, tcp_max_per_client: 1, ..ClientLimits::default() };
        let after = before.renewed(vec!["127.0.0.2/32".parse().unwrap()], limits);
        assert!(before.allows(a) && !after.allows(a) && after.allows(b));
        assert!(after.admit(a).is_none(), "it has one");
        let _second = after.admit(b).unwrap();
        drop(first);
        assert_eq!((before.open(), after.open()), (1, 1));
    }

    #[test]
    fn a_proxied_connection_counts_at_once_in_all_and_for_its_client_once_that_is_named() {
        let access = access(3, 1);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let unnamed = access.admit_proxied().unwrap();
        let first = access.admit_proxied().unwrap().claim(a).unwrap();
        assert!(access.admit_proxied().unwrap().claim(a).is_none(), "one per client");
        assert_eq!(access.open(), 2, "who was turned away gives the place back");
        let second = unnamed.claim(b).unwrap();
        let _third = access.admit_proxied().unwrap();
        assert!(access.admit_proxied().is_none(), "three in all");
        drop((first, second));
        assert_eq!(access.open(), 1);
        assert!(access.admit(a).is_some());
    }
}
