//! From networks to addresses.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};

use super::{access::canonical, dice::Dice};

/// The addresses of networks, `max` at most (and 65,536), each once. All networks take turns, so a large one leaves room for the others.
///
/// IPv4 networks and IPv6 networks of at most 65,536 addresses are gone through one by one, first and last address included. Of larger
/// IPv6 networks the addresses are drawn. The same `random` draws the same addresses of a network, whatever else is listed: keep it for as
/// long as the inventory lives, or each refresh exchanges its addresses.
pub fn expand(nets: &[IpNet], max: usize, random: u64) -> Vec<IpAddr> {
    let max = max.min(EXPANDED_MAX);
    let (mut taken, mut listed) = (HashSet::new(), HashSet::new());
    let nets = nets.iter().copied().map(canonical).filter(|net| listed.insert(*net));
    let mut turns: Vec<Source> = nets.map(|net| Source::new(net, random)).collect();
    let mut addresses = Vec::new();
    while !turns.is_empty() && addresses.len() < max {
        turns.retain_mut(|source| {
            if addresses.len() >= max {
                return true;
            }
            let ip = source.find(|ip| taken.insert(*ip));
            addresses.extend(ip);
            ip.is_some()
        });
    }
    addresses
}

/// The addresses of one network.
enum Source {
    /// One by one: the next and the last, as numbers.
    Four { next: u64, last: u64 },
    /// One by one.
    Six { next: u128, left: u32 },
    /// Drawn.
    Drawn { net: Ipv6Net, dice: Dice, draws: u32 },
}

impl Source {
    fn new(net: IpNet, random: u64) -> Source {
        match net {
            IpNet::V4(net) => {
                Source::Four { next: u32::from(net.network()).into(), last: u32::from(net.broadcast()).into() }
            }
            IpNet::V6(net) if net.prefix_len() >= LISTED_PREFIX => {
                Source::Six { next: net.network().into(), left: 1 << (128 - net.prefix_len()) }
            }
            IpNet::V6(net) => Source::Drawn { net, dice: Dice::new(random ^ number_of(net)), draws: DRAWS_MAX },
        }
    }
}

impl Iterator for Source {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        match self {
            Source::Four { next, last } => {
                let ip = u32::try_from(*next).ok().filter(|_| *next <= *last)?;
                *next += 1;
                Some(IpAddr::from(ip.to_be_bytes()))
            }
            Source::Six { next, left } => {
                *left = left.checked_sub(1)?;
                let ip = Ipv6Addr::from(*next);
                *next = next.wrapping_add(1);
                Some(ip.into())
            }
            Source::Drawn { net, dice, draws } => {
                *draws = draws.checked_sub(1)?;
                let drawn = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
                let ip = u128::from(net.network()) | (drawn & u128::from(net.hostmask()));
                Some(Ipv6Addr::from(ip).into())
            }
        }
    }
}

/// A network as a number that it keeps, to draw each network's addresses by themselves.
fn number_of(net: Ipv6Net) -> u64 {
    let mut hasher = DefaultHasher::new();
    net.hash(&mut hasher);
    hasher.finish()
}

/// Addresses of all networks together.
const EXPANDED_MAX: usize = 65_536;

/// IPv6 networks of this prefix and longer are small: 65,536 addresses.
const LISTED_PREFIX: u8 = 112;

/// A drawn network has twice as many addresses as are ever taken, so a draw is new at least every other time; four draws for each that
/// may be taken are far more than needed.
const DRAWS_MAX: u32 = 4 * 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(' ').map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn small_networks_are_gone_through_from_the_first_to_the_last_address() {
        let ips = expand(&nets("192.0.2.252/30 2001:db8::fffe/127 255.255.255.255/32"), 100, 1);
        let mut shown: Vec<String> = ips.iter().map(ToString::to_string).collect();
        shown.sort_unstable();
        let expected = [
            "192.0.2.252",
            "192.0.2.253",
            "192.0.2.254",
            "192.0.2.255",
            "2001:db8::fffe",
            "2001:db8::ffff",
            "255.255.255.255",
        ];
        assert_eq!(shown, expected);
        assert_eq!(expand(&nets("ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/112"), usize::MAX, 1).len(), 65_536);
    }

    #[test]
    fn of_large_networks_distinct_addresses_are_drawn_and_stay_the_same() {
        let large = nets("2001:db8::/111");
        let ips = expand(&large, usize::MAX, 7);
        assert_eq!(ips.len(), 65_536);
        assert_eq!(ips.iter().collect::<HashSet<_>>().len(), 65_536);
        assert!(ips.iter().all(|ip| large[0].contains(ip)));
        let few = expand(&large, 50, 7);
        assert_eq!(few, expand(&large, 50, 7));
        assert_ne!(few, expand(&large, 50, 8));
        let beside = expand(&nets("2001:db8::/111 2001:db8:1::/48 192.0.2.0/30"), 104, 7);
        assert_eq!(few.iter().filter(|ip| beside.contains(ip)).count(), 50, "others do not change what is drawn");
    }

    #[test]
    fn networks_take_turns_and_none_is_starved() {
        let ips = expand(&nets("10.0.0.0/8 2001:db8::/32 192.0.2.7/32 198.51.100.0/31"), 12, 3);
        assert_eq!(ips.len(), 12);
        let within = |net: &str| {
            let net: IpNet = net.parse().unwrap();
            ips.iter().filter(|ip| net.contains(*ip)).count()
        };
        assert_eq!(within("192.0.2.7/32"), 1);
        assert_eq!(within("198.51.100.0/31"), 2);
        assert_eq!((within("10.0.0.0/8"), within("2001:db8::/32")), (5, 4));
    }

    #[test]
    fn an_address_that_several_networks_hold_comes_once() {
        let text = "192.0.2.0/30 192.0.2.0/31 192.0.2.1/32 ::ffff:192.0.2.2/128 192.0.2.0/30 192.0.2.3/30";
        let ips = expand(&nets(text), 100, 1);
        assert_eq!(ips.len(), 4, "{ips:?}");
        assert_eq!(expand(&nets("2001:db8::/64 2001:db8::/64"), 10, 1).len(), 10);
        assert_eq!(expand(&[], 10, 1), Vec::<IpAddr>::new());
        assert_eq!(expand(&nets("192.0.2.0/24"), 0, 1), Vec::<IpAddr>::new());
    }
}
