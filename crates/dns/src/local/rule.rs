//! Which rule answers a query here, for those who ask why.

use std::fmt;

use super::{CLASS_IN, Local, Name};
use crate::message::{Header, Query, TYPE_AAAA, name_to_text};

/// What a local answer is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A record of the config has this name.
    Record,
    /// A hosts file has this name or address.
    Hosts,
    /// A wildcard record stands for this name.
    Wildcard,
    /// A wildcard's domain holds this name, in which it does not exist, or has no records (RFC 4592).
    Covered,
    /// The name is special: it is this one, or below it.
    Special(String),
    /// AAAA queries are answered with nothing.
    AaaaFilter,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Record => f.write_str("a record of dns.local.records"),
            Rule::Hosts => f.write_str("a hosts file of dns.local.hosts"),
            Rule::Wildcard => f.write_str("a wildcard of dns.local.records"),
            Rule::Covered => f.write_str("below a wildcard of dns.local.records, where there is nothing of this name"),
            Rule::Special(zone) => write!(f, "the special name `{zone}` (dns.local.special_names)"),
            Rule::AaaaFilter => f.write_str("the AAAA filter (dns.local.filter_aaaa)"),
        }
    }
}

impl Local {
    /// Which rule answers a query here; `None` when it is for upstreams.
    pub fn rule(&self, message: &[u8], query: &Query) -> Option<Rule> {
        if query.signed || query.question.qclass != CLASS_IN {
            return None;
        }
        let asked = message.get(Header::LEN..query.question.name_end).and_then(Name::of)?.lowercase();
        if let Some(rule) = self.table.rule(asked.bytes()) {
            return Some(rule);
        }
        if self.special
            && let Some((_, apex)) = self.special(asked.bytes(), query.question.qtype)
        {
            let mut zone = String::new();
            let _ = name_to_text(asked.bytes(), apex, &mut zone);
            return Some(Rule::Special(zone.trim_end_matches('.').to_owned()));
        }
        (self.filter_aaaa && query.question.qtype == TYPE_AAAA).then_some(Rule::AaaaFilter)
    }
}
