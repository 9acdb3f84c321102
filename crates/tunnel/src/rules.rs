//! Which destination goes where: the first rule that matches. Pure; names are never looked up to be matched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use keepwarm_transport::proxy::Target;

use crate::config::{HostMatch, Match, Rule, Via};

/// The rules, and where the rest goes.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    default: Via,
}

/// What the rules say of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    pub(crate) via: &'a Via,
    /// Tunnels that are opened ahead.
    pub(crate) speculate: usize,
    /// Whether a rule speaks of this destination, and not of all: `*` does not, nor does a network that has loopback among others.
    pub(crate) is_named: bool,
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>, default: Via) -> Rules {
        Rules { rules, default }
    }

    pub(crate) fn decide(&self, target: &Target) -> Decision<'_> {
        for rule in &self.rules {
            if let Some(pattern) = rule.matches.iter().find(|pattern| pattern.matches(target)) {
                let is_named = pattern.host.is_particular();
                return Decision { via: &rule.via, speculate: rule.speculate, is_named };
            }
        }
        Decision { via: &self.default, speculate: 0, is_named: false }
    }

    /// Whether this machine may connect to this address of `target` itself. What a rule rejects by its address is not reached by a name
    /// either, whoever owns the name, unless an earlier rule is about the name. `remote`: the client is not on this machine, and what
    /// listens on loopback is meant for those that are, unless a rule names the destination.
    pub(crate) fn allows(&self, target: &Target, ip: IpAddr, remote: bool) -> bool {
        let ip = ip.to_canonical();
        // Systems take it for this machine, past a rule for loopback.
        if ip.is_unspecified() && target.ip().is_none() {
            return false;
        }
        if remote && (ip.is_loopback() || ip.is_unspecified()) && !self.decide(target).is_named {
            return false;
        }
        let address = Target::from(SocketAddr::new(ip, target.port()));
        let is_met = |rule: &&Rule| rule.matches.iter().any(|of| of.matches(target) || of.matches(&address));
        target.ip().is_some() || self.rules.iter().find(is_met).is_none_or(|rule| rule.via != Via::Reject)
    }
}

impl Match {
    /// Whether a destination is in the set.
    pub fn matches(&self, target: &Target) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&target.port())) && self.host.matches(target)
    }
}

impl HostMatch {
    /// Hosts given by an address in this network. One of IPv4 addresses in IPv6 form (`::ffff:10.0.0.0/104`) is that of the IPv4
    /// addresses, as destinations are.
    pub fn net(net: IpNet) -> HostMatch {
        HostMatch::Net(canonical(net))
    }

    /// Whether whoever wrote it knew that it is about this machine, where it is.
    fn is_particular(&self) -> bool {
        match self {
            HostMatch::Any => false,
            HostMatch::Net(net) => {
                let net = canonical(*net);
                net.network().is_loopback() && net.broadcast().is_loopback()
            }
            HostMatch::Name(_) | HostMatch::Suffix(_) | HostMatch::Below(_) => true,
        }
    }

    fn matches(&self, target: &Target) -> bool {
        let name = || match target.ip() {
            Some(_) => None,
            None => Some(target.host()),
        };
        match self {
            HostMatch::Any => true,
            HostMatch::Net(net) => {
                let net = canonical(*net);
                match name() {
                    Some(name) => is_localhost(&name) && LOOPBACK.iter().any(|ip| net.contains(ip)),
                    // An IPv6 address that carries an IPv4 one reaches the same host.
                    None => target.ip().is_some_and(|ip| net.contains(&ip) || net.contains(&ip.to_canonical())),
                }
            }
            HostMatch::Name(own) => name().is_some_and(|name| name == *own),
            HostMatch::Suffix(own) => name().is_some_and(|name| name == *own || is_below(&name, own)),
            HostMatch::Below(own) => name().is_some_and(|name| is_below(&name, own)),
        }
    }
}

/// Whether a name is this machine's, which needs no look-up to be known (RFC 6761 section 6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || is_below(name, "localhost")
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn canonical(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(MAPPED_PREFIX)) {
        (ip @ IpAddr::V4(_), Some(prefix)) if net.addr().is_ipv6() => IpNet::new(ip, prefix).unwrap_or(net),
        _ => net,
    }
}

/// What `localhost` is.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Bits before the IPv4 address in `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target::new(host, port).unwrap()
    }

    fn matches(host: HostMatch, name: &str) -> bool {
        Match { host, ports: None }.matches(&target(name, 443))
    }

    #[test]
    fn hosts_match_by_whole_labels() {
        let own = || "example.com".to_owned();
        for (name, exact, suffix, below) in [
            ("example.com", true, true, false),
            ("Example.COM.", true, true, false),
            ("a.example.com", false, true, true),
            ("a.b.example.com.", false, true, true),
            ("notexample.com", false, false, false),
            ("example.com.evil.org", false, false, false),
            ("com", false, false, false),
        ] {
            assert_eq!(matches(HostMatch::Name(own()), name), exact, "{name}");
            assert_eq!(matches(HostMatch::Suffix(own()), name), suffix, "{name}");
            assert_eq!(matches(HostMatch::Below(own()), name), below, "{name}");
            assert!(matches(HostMatch::Any, name));
        }
    }

    #[test]
    fn networks_match_addresses_and_never_names() {
        let net = || HostMatch::Net("10.0.0.0/8".parse().unwrap());
        assert!(matches(net(), "10.1.2.3"));
        assert!(matches(net(), "[::ffff:10.1.2.3]"), "the same host in other words");
        assert!(!matches(net(), "11.1.2.3"));
        for mapped in ["::ffff:10.0.0.0/104", "::ffff:10.1.2.3/128"] {
            let mapped = || mapped.parse().unwrap();
            assert!(
                matches(HostMatch::Net(mapped()), "10.1.2.3") && matches(HostMatch::net(mapped()), "::ffff:10.1.2.3")
            );
            assert!(!matches(HostMatch::Net(mapped()), "11.1.2.3"));
        }
        assert_eq!(HostMatch::net("::ffff:10.0.0.0/104".parse().unwrap()), net());
        assert_eq!(HostMatch::net("::/0".parse().unwrap()), HostMatch::Net("::/0".parse().unwrap()));
        assert!(!matches(net(), "10.example"));
        assert!(!matches(HostMatch::Name("10.1.2.3".to_owned()), "10.1.2.3"), "an address is no name");
    }

    #[test]
    fn localhost_is_a_loopback_address_and_other_names_are_none() {
        for net in ["127.0.0.0/8", "127.0.0.1/32", "::1/128", "::ffff:127.0.0.0/104"] {
            let net = || HostMatch::Net(net.parse().unwrap());
            for name in ["localhost", "LocalHost.", "db.localhost"] {
                assert!(matches(net(), name), "{name}");
            }
            for name in ["localhost.example", "notlocalhost", "tiles.example"] {
                assert!(!matches(net(), name), "{name}");
            }
        }
        assert!(!matches(HostMatch::Net("127.0.0.2/32".parse().unwrap()), "localhost"));
    }

    #[test]
    fn a_final_dot_gets_nobody_past_a_rule() {
        for host in ["blocked.test", "blocked.test.", "BLOCKED.test."] {
            assert!(matches(HostMatch::Name("blocked.test".to_owned()), host), "{host}");
            assert!(matches(HostMatch::Suffix("blocked.test".to_owned()), host), "{host}");
        }
        assert!(Target::new("blocked.test..", 443).is_err());
    }

    #[test]
    fn the_first_rule_counts_and_ports_narrow_it() {
        let rule = |host, ports, via| Rule { matches: vec![Match { host, ports }], via, speculate: 0 };
        let rules = Rules::new(
            vec![
                rule(HostMatch::Any, Some(25..=25), Via::Reject),
                rule(HostMatch::Below("example.com".to_owned()), None, Via::Direct),
                rule(HostMatch::Any, Some(1000..=2000), Via::Group("high".into())),
            ],
            Via::Upstream("exit".into()),
        );
        for (host, port, via) in [
            ("a.example.com", 25, Via::Reject),
            ("a.example.com", 1500, Via::Direct),
            ("other.org", 2000, Via::Group("high".into())),
            ("other.org", 2001, Via::Upstream("exit".into())),
        ] {
            assert_eq!(*rules.decide(&target(host, port)).via, via, "{host}:{port}");
        }
    }

    #[test]
    fn an_address_that_is_rejected_is_not_reached_by_a_name_either() {
        let net = |net: &str, via| Rule {
            matches: vec![Match { host: HostMatch::Net(net.parse().unwrap()), ports: None }],
            via,
            speculate: 0,
        };
        let rules = Rules::new(vec![net("10.0.0.0/8", Via::Reject), net("192.0.2.0/24", Via::Direct)], Via::Direct);
        let name = target("rebound.example", 80);
        for (ip, remote, allowed) in [
            ("10.1.2.3", false, false),
            ("::ffff:10.1.2.3", false, false),
            ("192.0.2.1", false, true),
            ("198.51.100.1", true, true),
            ("127.0.0.1", false, true),
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("0.0.0.0", true, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("::ffff:0.0.0.0", false, false),
        ] {
            assert_eq!(rules.allows(&name, ip.parse().unwrap(), remote), allowed, "{ip} {remote}");
        }
        let named = vec![Rule {
            matches: vec![Match { host: HostMatch::Name("db.local".to_owned()), ports: Some(5432..=5432) }],
            via: Via::Direct,
            speculate: 0,
        }];
        let rules = Rules::new(named, Via::Direct);
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(rules.allows(&target("db.local", 5432), loopback, true), "a rule means it");
        assert!(!rules.allows(&target("db.local", 5433), loopback, true));
    }

    #[test]
    fn loopback_is_open_to_those_elsewhere_by_rules_about_it_alone() {
        let loopback = ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for (net, is_allowed) in [
            ("127.0.0.1/32", [true, false]),
            ("127.0.0.0/8", [true, false]),
            ("::ffff:127.0.0.0/104", [true, false]),
            ("::1/128", [false, true]),
            ("0.0.0.0/0", [false, false]),
            ("126.0.0.0/7", [false, false]),
            ("::/0", [false, false]),
            ("::/127", [false, false]),
        ] {
            let host = HostMatch::Net(net.parse().unwrap());
            let rule = Rule { matches: vec![Match { host, ports: None }], via: Via::Direct, speculate: 0 };
            let rules = Rules::new(vec![rule], Via::Direct);
            let allows = |ip: IpAddr, remote| rules.allows(&SocketAddr::new(ip, 80).into(), ip, remote);
            assert_eq!(loopback.map(|ip| allows(ip, true)), is_allowed, "{net}");
            assert_eq!(loopback.map(|ip| allows(ip, false)), [true, true], "{net}");
        }
    }

    #[test]
    fn a_name_that_a_rule_lets_through_is_not_held_by_what_comes_after_it() {
        let rule = |host, via| Rule { matches: vec![Match { host, ports: None }], via, speculate: 0 };
        let allowed = || rule(HostMatch::Suffix("example.com".to_owned()), Via::Direct);
        let net = || rule(HostMatch::Net("10.0.0.0/8".parse().unwrap()), Via::Reject);
        let (name, ip) = (target("db.example.com", 5432), "10.1.2.3".parse().unwrap());
        for (rules, default, is_allowed) in [
            (vec![allowed()], Via::Reject, true),
            (vec![allowed(), rule(HostMatch::Any, Via::Reject)], Via::Direct, true),
            (vec![allowed(), net()], Via::Direct, true),
            (vec![net(), allowed()], Via::Direct, false),
        ] {
            let rules = Rules::new(rules, default);
            assert_eq!(rules.allows(&name, ip, false), is_allowed, "{rules:?}");
        }
    }
}
