//! Which destination goes where: the first rule that matches. Pure; names are never looked up to be matched.

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
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>, default: Via) -> Rules {
        Rules { rules, default }
    }

    pub(crate) fn decide(&self, target: &Target) -> Decision<'_> {
        match self.rules.iter().find(|rule| rule.matches.iter().any(|pattern| pattern.matches(target))) {
            Some(rule) => Decision { via: &rule.via, speculate: rule.speculate },
            None => Decision { via: &self.default, speculate: 0 },
        }
    }
}

impl Match {
    /// Whether a destination is in the set.
    pub fn matches(&self, target: &Target) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&target.port())) && self.host.matches(target)
    }
}

impl HostMatch {
    fn matches(&self, target: &Target) -> bool {
        let name = || match target.ip() {
            Some(_) => None,
            None => Some(target.host()),
        };
        match self {
            HostMatch::Any => true,
            // An IPv6 address that carries an IPv4 one reaches the same host.
            HostMatch::Net(net) => target.ip().is_some_and(|ip| net.contains(&ip) || net.contains(&ip.to_canonical())),
            HostMatch::Name(own) => name().is_some_and(|name| relative(&name) == own),
            HostMatch::Suffix(own) => name().is_some_and(|name| relative(&name) == own || is_below(&name, own)),
            HostMatch::Below(own) => name().is_some_and(|name| is_below(&name, own)),
        }
    }
}

/// Without the final dot: `example.com.` is the same host.
fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_below(name: &str, domain: &str) -> bool {
    relative(name).strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

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
        assert!(!matches(net(), "10.example"));
        assert!(!matches(HostMatch::Name("10.1.2.3".to_owned()), "10.1.2.3"), "an address is no name");
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
}
