//! Names that are answered here, without any upstream: records and hosts files of the operator's, special names, the AAAA
//! filter.
//!
//! Pure: what is known of names goes in as text, and a query comes out as an answer or not. Files, their changes and the
//! clients are the server's business. There are no zones here: a name that has any record here is answered here for every
//! type (an empty answer where there is none of that type), and every other name is not, but for what a wildcard covers.

mod hosts;
mod join;
mod record;
mod reply;
mod rule;
mod special;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use hosts::{Hosts, parse as parse_hosts};
pub use join::join;
pub use record::{Record, RecordError};
pub use rule::Rule;
pub use table::{Table, TableError};

use crate::{
    config::{LocalSettings, RouteConfig},
    message::{
        Header, NXDOMAIN, Query, SERVFAIL, TYPE_AAAA, TYPE_CNAME, TYPE_NS, TYPE_SOA, name_from_text, wire::NAME_MAX,
    },
};
use reply::Reply;
use special::Special;
use table::{Found, Node};

/// What is answered here. Cheap to clone; a change is a new one.
#[derive(Debug, Clone)]
pub struct Local {
    table: Arc<Table>,
    /// Whether the table holds anything.
    names: bool,
    filter_aaaa: bool,
    special: bool,
    /// Suffixes with a route, in wire form and lower case: special names below them are not special.
    routed: Arc<[Box<[u8]>]>,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is for upstreams.
    Pass,
    /// The answer is written.
    Answered,
    /// The aliases are written, as an answer. What they lead to is for upstreams.
    Alias {
        /// The name that they lead to, in wire form.
        target: Box<[u8]>,
        /// Where that name is in the answer.
        place: usize,
    },
}

impl Local {
    /// What is answered with these settings and this table. `routes` whose suffix covers a special name win over it.
    pub fn new(settings: &LocalSettings, routes: &[RouteConfig], table: Table) -> Local {
        let suffixes = routes.iter().flat_map(|route| &route.suffixes);
        let wire = suffixes.filter_map(|suffix| name_from_text(suffix)).map(|name| name.to_ascii_lowercase());
        // A route for the root means every name, and none in particular.
        let routed = wire.filter(|name| name.len() > 1).map(Vec::into_boxed_slice).collect();
        Local {
            names: !table.is_empty(),
            table: Arc::new(table),
            filter_aaaa: settings.filter_aaaa,
            special: settings.special_names,
            routed,
        }
    }

    /// The same settings with other names.
    #[must_use]
    pub fn with_table(&self, table: Table) -> Local {
        Local { names: !table.is_empty(), table: Arc::new(table), ..self.clone() }
    }

    /// Whether a query is worth a closer look; a few instructions for those that are not.
    #[inline]
    pub fn may_concern(&self, message: &[u8], query: &Query) -> bool {
        self.names
            || self.special && special::may_be(message.get(..query.question.name_end).unwrap_or_default())
            || self.filter_aaaa && query.question.qtype == TYPE_AAAA
    }

    /// Answers a query, if that is to be done here. `out` then holds the answer, without EDNS and as large as it is: it
    /// still has to be [prepared](crate::message::prepare_answer) for the client.
    ///
    /// Records of the operator come first, special names second, the AAAA filter last. Signed queries (TSIG, SIG(0)) and
    /// classes other than IN are for upstreams: a signature cannot be made here.
    pub fn answer(&self, message: &[u8], query: &Query, out: &mut Vec<u8>) -> Verdict {
        if query.signed || query.question.qclass != CLASS_IN {
            return Verdict::Pass;
        }
        let asked = message.get(Header::LEN..query.question.name_end).and_then(Name::of);
        let Some(asked) = asked.map(Name::lowercase) else { return Verdict::Pass };
        let verdict = self.look_up(&asked, message, query, out);
        if verdict != Verdict::Pass {
            return verdict;
        }
        let special = if self.special { self.special(asked.bytes(), query.question.qtype) } else { None };
        if let Some((special, apex)) = special {
            return special_reply(special, apex, message, query, out);
        }
        if self.filter_aaaa && query.question.qtype == TYPE_AAAA {
            let mut reply = Reply::start(message, query, false, out);
            reply.no_data(QUESTION, FILTER_TTL);
            return Verdict::Answered;
        }
        Verdict::Pass
    }

    /// Looks the name up, and what its aliases lead to (RFC 1034 section 3.6.2).
    fn look_up(&self, asked: &Name, message: &[u8], query: &Query, out: &mut Vec<u8>) -> Verdict {
        if !self.names {
            return Verdict::Pass;
        }
        let qtype = query.question.qtype;
        let mut found = self.table.find(asked.bytes());
        if matches!(found, Found::Nothing) {
            return Verdict::Pass;
        }
        let mut reply = Reply::start(message, query, true, out);
        let (mut name, mut owner) = (*asked, QUESTION);
        for _ in 0..=ALIASES_MAX {
            match found {
                Found::Nothing => return Verdict::Alias { target: name.bytes().into(), place: owner },
                Found::Missing { apex, ttl } => {
                    reply.rcode(NXDOMAIN);
                    reply.no_data(owner + apex, ttl);
                    return Verdict::Answered;
                }
                Found::Node(node) => {
                    let Some(next) = alias(node, qtype) else {
                        records(&mut reply, owner, node, qtype);
                        return Verdict::Answered;
                    };
                    owner = reply.record(owner, TYPE_CNAME, node.ttl(), next.bytes());
                    found = self.table.find(next.lowercase().bytes());
                    name = next;
                }
            }
        }
        // Aliases in a circle.
        reply.fail(SERVFAIL);
        Verdict::Answered
    }

    /// How a name is special, and where its zone begins in it.
    fn special(&self, name: &[u8], qtype: u16) -> Option<(Special, usize)> {
        let found = special::find(name, qtype)?;
        let routed = self.routed.iter().any(|suffix| special::ends_with(name, suffix));
        (!routed).then_some(found)
    }
}

/// Where the alias leads that a query of this type has to follow.
fn alias(node: &Node, qtype: u16) -> Option<Name> {
    let follows = !matches!(qtype, TYPE_CNAME | TYPE_ANY);
    node.set(TYPE_CNAME).filter(|_| follows).and_then(|set| set.data().next()).and_then(Name::of)
}

/// The records of one type, or word that there are none. A query for ANY gets one set of records (RFC 8482 section 4.1).
fn records(reply: &mut Reply<'_>, owner: usize, node: &Node, qtype: u16) {
    let set = if qtype == TYPE_ANY { node.first() } else { node.set(qtype) };
    match set {
        Some(set) => set.data().for_each(|data| {
            reply.record(owner, set.rtype(), set.ttl(), data);
        }),
        None => reply.no_data(owner, node.ttl()),
    }
}

fn special_reply(special: Special, apex: usize, message: &[u8], query: &Query, out: &mut Vec<u8>) -> Verdict {
    let mut reply = Reply::start(message, query, true, out);
    match special {
        Special::Data(rtype, data) => {
            reply.record(QUESTION, rtype, special::TTL, data);
        }
        Special::Missing => {
            reply.rcode(NXDOMAIN);
            reply.no_data(QUESTION + apex, special::TTL);
        }
        Special::Apex if query.question.qtype == TYPE_SOA => reply.authority(QUESTION + apex, special::TTL),
        Special::Apex if query.question.qtype == TYPE_NS => reply.name_server(QUESTION + apex, special::TTL),
        Special::Empty | Special::Apex => reply.no_data(QUESTION + apex, special::TTL),
    }
    Verdict::Answered
}

/// A name in wire form, on the stack.
#[derive(Clone, Copy)]
struct Name {
    bytes: [u8; NAME_MAX],
    length: usize,
}

impl Name {
    fn of(wire: &[u8]) -> Option<Name> {
        let mut bytes = [0; NAME_MAX];
        bytes.get_mut(..wire.len())?.copy_from_slice(wire);
        Some(Name { bytes, length: wire.len() })
    }

    fn lowercase(mut self) -> Name {
        // Lengths of labels are below 64 and no letters.
        self.bytes.make_ascii_lowercase();
        self
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where the question's name is in an answer.
const QUESTION: usize = Header::LEN;

/// Aliases that are followed for one query.
const ALIASES_MAX: usize = 8;

/// For how long a client may believe that there is no AAAA record, in seconds: the filter may be turned off.
const FILTER_TTL: u32 = 60;

const CLASS_IN: u16 = 1;
const TYPE_ANY: u16 = 255;
