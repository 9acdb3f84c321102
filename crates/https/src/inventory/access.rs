//! Which networks may be used: the lists of the config, and what was added to them at run time.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};

/// IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.1`) count as IPv4, here and in the whole inventory, so that no list is evaded
/// by the way in which an address is written.
#[derive(Debug)]
pub(super) struct Access {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// At run time.
    allowed: Vec<IpNet>,
    /// At run time.
    banned: Vec<IpNet>,
}

/// No more networks can be banned or let in at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListFull;

impl fmt::Display for ListFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LIST_MAX} networks are listed already, which is the limit")
    }
}

impl std::error::Error for ListFull {}

impl Access {
    pub(super) fn new(allow: &[IpNet], deny: &[IpNet]) -> Access {
        let canonical = |nets: &[IpNet]| nets.iter().copied().map(canonical).collect();
        Access { allow: canonical(allow), deny: canonical(deny), allowed: Vec::new(), banned: Vec::new() }
    }

    /// Other lists of the config. What came at run time stays.
    pub(super) fn set_config(&mut self, allow: &[IpNet], deny: &[IpNet]) {
        let Access { allow, deny, .. } = Access::new(allow, deny);
        (self.allow, self.deny) = (allow, deny);
    }

    /// With what another one was told at run time.
    pub(super) fn with_additions_of(self, other: &Access) -> Access {
        Access { allowed: other.allowed.clone(), banned: other.banned.clone(), ..self }
    }

    /// Whether the lists of the config, and what was let in since, are against it. Deny wins.
    pub(super) fn refuses(&self, ip: IpAddr) -> bool {
        let is_allowed = self.allow.is_empty() || within(&self.allow, ip) || within(&self.allowed, ip);
        !is_allowed || within(&self.deny, ip)
    }

    /// Whether it was banned at run time.
    pub(super) fn bans(&self, ip: IpAddr) -> bool {
        within(&self.banned, ip)
    }

    pub(super) fn ban(&mut self, net: IpNet) -> Result<(), ListFull> {
        add(&mut self.banned, net)
    }

    pub(super) fn unban(&mut self, net: IpNet) {
        let net = canonical(net);
        self.banned.retain(|banned| !net.contains(banned));
    }

    pub(super) fn allow(&mut self, net: IpNet) -> Result<(), ListFull> {
        add(&mut self.allowed, net)
    }
}

fn within(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

fn add(nets: &mut Vec<IpNet>, net: IpNet) -> Result<(), ListFull> {
    let net = canonical(net);
    if nets.contains(&net) {
        return Ok(());
    }
    if nets.len() >= LIST_MAX {
        return Err(ListFull);
    }
    nets.push(net);
    Ok(())
}

/// Networks within `::ffff:0:0/96` are IPv4.
pub(super) fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    let IpNet::V6(six) = net else { return net };
    let mapped = six.prefix_len().checked_sub(MAPPED_PREFIX).zip(Ipv6Addr::to_ipv4_mapped(&six.network()));
    mapped.and_then(|(prefix, four)| Ipv4Net::new(four, prefix).ok()).map_or(net, IpNet::V4)
}

const LIST_MAX: usize = 1024;

const MAPPED_PREFIX: u8 = 96;
