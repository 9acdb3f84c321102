//! Who may ask, and how many connections one client may hold.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::ClientLimits;

/// The access list and the connection counts, shared by all workers.
pub(crate) struct Access {
    allow: Vec<IpNet>,
    limits: ClientLimits,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one TCP connection; dropping it gives it back.
pub(crate) struct Permit {
    access: Arc<Access>,
    client: IpAddr,
}

impl Access {
    pub(crate) fn new(allow: Vec<IpNet>, limits: ClientLimits) -> Arc<Access> {
        Arc::new(Access { allow, limits, open: Mutex::default() })
    }

    /// Whether this address may ask. An IPv4 address that came in through an IPv6 socket counts as IPv4.
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.allow.iter().any(|net| net.contains(&client))
    }

    /// A permit for one more connection, unless the client or all clients together hold too many.
    pub(crate) fn admit(self: &Arc<Access>, client: IpAddr) -> Option<Permit> {
        let client = client.to_canonical();
        let mut open = self.open.lock();
        let total: usize = open.values().sum();
        let own = open.get(&client).copied().unwrap_or(0);
        if total >= self.limits.tcp_max || own >= self.limits.tcp_max_per_client {
            return None;
        }
        open.insert(client, own + 1);
        Some(Permit { access: self.clone(), client })
    }

    /// Client connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().values().sum()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.access.open.lock();
        if let Some(own) = open.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.client);
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
}
