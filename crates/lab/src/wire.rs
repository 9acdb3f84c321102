//! The little of the DNS wire format that a lab needs. It is a second implementation on purpose: a lab that shared its codec
//! with the code under test could not see the codec's mistakes. Name compression is read nowhere but in the question's
//! fixed place, where a query never has it.

pub(crate) const HEADER: usize = 12;
pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_SOA: u16 = 6;
pub(crate) const TYPE_TXT: u16 = 16;
pub(crate) const TYPE_AAAA: u16 = 28;
pub(crate) const TYPE_OPT: u16 = 41;

pub(crate) const FORMERR: u8 = 1;
pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const NOTIMP: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

/// A query, taken apart as far as an answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) question: Question,
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    /// The client's UDP payload size, when the query has an OPT record.
    pub(crate) edns: Option<u16>,
    /// The EDNS version asked for; anything but 0 is answered BADVERS.
    pub(crate) edns_version: u8,
    pub(crate) dnssec_ok: bool,
}

/// A question as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Length-prefixed labels with the final zero, case as it came.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// Why a message is no query that can be answered in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Too short for a header, or itself an answer: nothing may be sent back.
    Ignore,
    /// Answered with this id and response code.
    Answer { id: u16, rcode: u8 },
}

impl Query {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Bad> {
        let (Some(id), Some(flags)) = (u16_at(message, 0), u16_at(message, 2)) else { return Err(Bad::Ignore) };
        if message.len() < HEADER || flags & 0x8000 != 0 {
            return Err(Bad::Ignore);
        }
        if flags & 0x7800 != 0 {
            return Err(Bad::Answer { id, rcode: NOTIMP });
        }
        Self::parse_sections(id, flags, message).ok_or(Bad::Answer { id, rcode: FORMERR })
    }

    fn parse_sections(id: u16, flags: u16, message: &[u8]) -> Option<Self> {
        let counts = [u16_at(message, 4)?, u16_at(message, 6)?, u16_at(message, 8)?, u16_at(message, 10)?];
        if counts[0] != 1 || counts[1] != 0 || counts[2] != 0 {
            return None;
        }
        let (question, mut at) = Question::read(message, HEADER)?;
        let mut edns = None;
        let (mut edns_version, mut dnssec_ok) = (0, false);
        for _ in 0..counts[3] {
            let record = Record::read(message, at)?;
            at = record.end;
            if record.kind == TYPE_OPT {
                // RFC 6891 section 6.1.1: more than one OPT record is a format error.
                if edns.replace(record.class).is_some() {
                    return None;
                }
                let [_, version, flags, _] = record.ttl.to_be_bytes();
                (edns_version, dnssec_ok) = (version, flags & 0x80 != 0);
            }
        }
        (at == message.len()).then_some(Self {
            id,
            question,
            recursion_desired: flags & 0x0100 != 0,
            checking_disabled: flags & 0x0010 != 0,
            edns,
            edns_version,
            dnssec_ok,
        })
    }
}

impl Question {
    /// Reads the question at `at`, and says where it ends.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let end = name_end(message, at)?;
        let name = message.get(at..end)?.to_vec();
        // A compression pointer in a question has nothing before it to point to.
        if name.last() != Some(&0) || name.len() > 255 {
            return None;
        }
        let question = Self { name, kind: u16_at(message, end)?, class: u16_at(message, end + 2)? };
        Some((question, end + 4))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&self.class.to_be_bytes());
    }

    /// The first label; empty for the root.
    pub(crate) fn first_label(&self) -> &[u8] {
        self.labels().next().unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.name.as_slice();
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            if length == 0 || tail.len() < usize::from(length) {
                return None;
            }
            let (label, tail) = tail.split_at(usize::from(length));
            rest = tail;
            Some(label)
        })
    }

    pub(crate) fn same_ignoring_case(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(&other.name) && self.kind == other.kind && self.class == other.class
    }
}

/// A resource record, by reference into its message.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: &'a [u8],
    pub(crate) end: usize,
}

impl<'a> Record<'a> {
    pub(crate) fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let at = name_end(message, at)?;
        let length = usize::from(u16_at(message, at + 8)?);
        let end = at + 10 + length;
        Some(Self {
            kind: u16_at(message, at)?,
            class: u16_at(message, at + 2)?,
            ttl: u32::from(u16_at(message, at + 4)?) << 16 | u32::from(u16_at(message, at + 6)?),
            data: message.get(at + 10..end)?,
            end,
        })
    }
}

pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Where the name at `at` ends; a compression pointer ends it.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A name in wire form. Labels are taken as they stand between the dots: there are no escapes. `None` if it cannot be one.
pub(crate) fn name_to_wire(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.is_empty() {
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
        }
    }
    wire.push(0);
    (wire.len() <= 255).then_some(wire)
}

/// A plain query, for tests and small clients: recursion desired, class IN, and an OPT record when `edns` names a size.
///
/// Labels are taken as they stand between the dots.
///
/// # Panics
/// If `name` is no valid DNS name.
#[must_use]
pub fn build_query(id: u16, name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let name = name_to_wire(name).expect("a valid DNS name");
    let mut out = Vec::with_capacity(HEADER + name.len() + 15);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    Question { name, kind, class: 1 }.write(&mut out);
    if let Some(size) = edns {
        out.push(0);
        out.extend_from_slice(&TYPE_OPT.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&[0; 6]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let query = Query::parse(&build_query(7, "wWw.example.", TYPE_AAAA, Some(1232))).unwrap();
        assert_eq!(query.id, 7);
        assert_eq!(query.edns, Some(1232));
        assert_eq!(query.question.first_label(), b"wWw");
        assert_eq!(query.question.name, b"\x03wWw\x07example\x00");
        assert_eq!(query.question.kind, TYPE_AAAA);
        assert!(query.recursion_desired);
    }

    #[test]
    fn the_root_is_a_name() {
        let query = Query::parse(&build_query(7, ".", 2, None)).unwrap();
        assert_eq!(query.question.name, [0]);
        assert_eq!(query.question.first_label(), b"");
    }

    #[test]
    fn bad_messages_are_told_apart() {
        let good = build_query(0x0102, "a.b", TYPE_A, Some(512));
        assert_eq!(Query::parse(&good[..5]), Err(Bad::Ignore));
        for cut in HEADER..good.len() {
            assert_eq!(Query::parse(&good[..cut]), Err(Bad::Answer { id: 0x0102, rcode: FORMERR }), "cut at {cut}");
        }
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(Query::parse(&answer), Err(Bad::Ignore));
        let mut status = good.clone();
        status[2] |= 0x10;
        assert_eq!(Query::parse(&status), Err(Bad::Answer { id: 0x0102, rcode: NOTIMP }));
        let mut trailing = good;
        trailing.push(0);
        assert!(Query::parse(&trailing).is_err());
    }
}
