//! Who may share an answer: queries that are equal in everything an answer may depend on.
//!
//! When in doubt there is no key, and the query passes the cache by.

use crate::message::{
    Header, Query, TYPE_OPT, hash_parts,
    wire::{OPTION_SUBNET, Options, is_hop_by_hop, u16_at},
};

/// What the answer to a query depends on: name (in any case), type, class, RD, AD, CD, the 16 flags of EDNS and the client
/// subnet option (RFC 7871), byte for byte.
///
/// It borrows from the query's message and remembers the question as it is written there.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    hash: u64,
    question: &'a [u8],
    flags: u16,
    edns_flags: u16,
    subnet: &'a [u8],
}

impl<'a> Key<'a> {
    pub(super) fn of(message: &'a [u8], query: &Query, seed: u64) -> Option<Key<'a>> {
        let flags = query.header.flags();
        let records = u16::from(query.edns.is_some());
        let shared = flags & !SHARED_FLAGS == 0
            && !query.signed
            && query.header.additionals() == records
            && is_data(query.question.qtype, query.question.qclass);
        if !shared {
            return None;
        }
        let question = message.get(Header::LEN..query.question.end)?;
        let (edns_flags, subnet) = match &query.edns {
            None => (0, &[][..]),
            Some(edns) if edns.ext_rcode == 0 => {
                (u16_at(message, edns.rdata.start - 4)?, subnet(message, Options::new(message, edns.rdata.clone()))?)
            }
            Some(_) => return None,
        };
        let (name, rest) = question.split_at_checked(query.question.name_end - Header::LEN)?;
        let [a, b, c, d] = rest.try_into().ok()?;
        let [[e, f], [g, h]] = [flags.to_be_bytes(), edns_flags.to_be_bytes()];
        let hash = hash_parts(name, u64::from_be_bytes([a, b, c, d, e, f, g, h]), subnet, seed);
        Some(Key { hash, question, flags, edns_flags, subnet })
    }

    /// The same key for another client, who wrote the question's letters in another case. A question that differs in more
    /// than that changes nothing.
    #[must_use]
    pub fn with_question(self, question: &'a [u8]) -> Key<'a> {
        if same_question(self.question, question) { Key { question, ..self } } else { self }
    }

    /// The question as the client wrote it: name, type and class in wire form.
    pub fn question(&self) -> &'a [u8] {
        self.question
    }

    /// The key of another query, were its hash the same as this one's.
    #[cfg(test)]
    pub(super) fn colliding(&self, other: &Key<'a>) -> Key<'a> {
        Key { hash: self.hash, ..*other }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn flags(&self) -> u16 {
        self.flags
    }

    pub(super) fn edns_flags(&self) -> u16 {
        self.edns_flags
    }

    pub(super) fn subnet(&self) -> &'a [u8] {
        self.subnet
    }
}

/// The same name in any case, the same type and class.
pub(super) fn same_question(a: &[u8], b: &[u8]) -> bool {
    let (Some((a, a_rest)), Some((b, b_rest))) = (a.split_last_chunk::<4>(), b.split_last_chunk::<4>()) else {
        return false;
    };
    // Lengths of labels are below 64 and no letters, so the shape of the names is compared too.
    a_rest == b_rest && a.eq_ignore_ascii_case(b)
}

/// Neither a meta type nor a question about more than one type or class (RFC 6895 sections 3.1 and 3.2).
fn is_data(qtype: u16, qclass: u16) -> bool {
    !matches!(qtype, 0 | TYPE_OPT | 128..=255) && !matches!(qclass, 0 | 254 | 255)
}

/// The one client subnet option, empty without; `None` when there is an option that an answer may depend on in another way.
/// Hop-by-hop options are not forwarded, so no answer depends on them.
fn subnet<'a>(message: &'a [u8], options: Options<'a>) -> Option<&'a [u8]> {
    let mut subnet = &[][..];
    for option in options {
        match option.ok()? {
            (OPTION_SUBNET, range) if subnet.is_empty() => subnet = message.get(range)?,
            (code, _) if is_hop_by_hop(code) => {}
            _ => return None,
        }
    }
    Some(subnet)
}

/// RD, AD and CD, which are part of the key. A query with another bit set is none that we know.
const SHARED_FLAGS: u16 = 0x0130;
