//! What a client asks: checked, made fit to forward, and compared with what is already in flight.

use std::ops::Range;

use super::{
    Header, TYPE_OPT,
    name::name_from_text,
    wire::{OPTION_SUBNET, Options, Record, is_hop_by_hop, plain_name_end, put_u16, question_end, u16_at},
};

/// The EDNS payload size that upstreams are told, in bytes: what passes the Internet unfragmented (RFC 9715 section 3.2).
pub const PAYLOAD_SIZE: u16 = 1232;

/// A well-formed query: where its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The fixed fields.
    pub header: Header,
    /// The one question.
    pub question: Question,
    /// The OPT record, if the client speaks EDNS.
    pub edns: Option<Edns>,
    /// The message ends in TSIG (RFC 8945) or SIG(0) (RFC 2931): only its id may be changed.
    pub signed: bool,
}

/// Where the question is; it starts right behind the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// End of the name.
    pub name_end: usize,
    /// Record type asked for.
    pub qtype: u16,
    /// Class asked for; 1 is IN.
    pub qclass: u16,
    /// End of the question.
    pub end: usize,
}

/// The OPT record of a query (RFC 6891 section 6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edns {
    /// Largest datagram the client takes, in bytes, as it was sent: values below 512 mean 512.
    pub payload_size: u16,
    /// Upper 8 bits of the rcode; 0 in a query.
    pub ext_rcode: u8,
    /// 0 is the only version there is.
    pub version: u8,
    /// DO: DNSSEC records are wanted (RFC 3225).
    pub do_bit: bool,
    /// A client subnet (RFC 7871) is among the options.
    pub subnet: bool,
    /// The options.
    pub rdata: Range<usize>,
    /// The whole record.
    pub record: Range<usize>,
}

/// Why a message is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryError {
    /// Too short, or an answer: never replied to, or two servers could keep each other busy.
    Drop,
    /// Malformed.
    FormErr,
    /// An opcode other than QUERY.
    NotImp,
    /// An EDNS version above 0 (RFC 6891 section 6.1.3).
    BadVers,
    /// A zone transfer: its answer is a stream of messages, which a proxy of single answers cannot carry.
    Refused,
}

impl Query {
    /// Checks a message from a client.
    ///
    /// # Errors
    /// What to answer instead, if anything: see [`build_query_error`](super::build_query_error).
    pub fn parse(message: &[u8]) -> Result<Query, QueryError> {
        let header = Header::read(message).filter(|header| !header.is_answer()).ok_or(QueryError::Drop)?;
        if header.opcode() != 0 {
            return Err(QueryError::NotImp);
        }
        if (header.questions(), header.answers(), header.authorities()) != (1, 0, 0) {
            // IXFR has its SOA in the authority section (RFC 1995 section 3).
            let ixfr = header.questions() == 1 && question(message).is_some_and(|question| question.qtype == TYPE_IXFR);
            return Err(if ixfr { QueryError::Refused } else { QueryError::FormErr });
        }
        let question = question(message).ok_or(QueryError::FormErr)?;
        let (edns, signed) = additional(message, question.end, header.additionals()).ok_or(QueryError::FormErr)?;
        if edns.as_ref().is_some_and(|edns| edns.version > 0) {
            return Err(QueryError::BadVers);
        }
        if matches!(question.qtype, TYPE_AXFR | TYPE_IXFR) {
            return Err(QueryError::Refused);
        }
        Ok(Query { header, question, edns, signed })
    }
}

/// The question behind the header.
pub(crate) fn question(message: &[u8]) -> Option<Question> {
    let name_end = plain_name_end(message, Header::LEN)?;
    Some(Question {
        name_end,
        qtype: u16_at(message, name_end)?,
        qclass: u16_at(message, name_end + 2)?,
        end: name_end + 4,
    })
}

/// Walks the additional section to the message's end: at most one OPT, owned by the root, and a signature only as the last.
fn additional(message: &[u8], start: usize, count: u16) -> Option<(Option<Edns>, bool)> {
    let (mut at, mut edns, mut signed) = (start, None, false);
    for _ in 0..count {
        let record = Record::read(message, at)?;
        at = record.end();
        if signed {
            return None;
        }
        match record.rtype {
            TYPE_OPT if edns.is_some() => return None,
            TYPE_OPT => edns = Some(edns_of(message, &record)?),
            // SIG(0) covers no type; a SIG record that covers one is data like any.
            TYPE_TSIG => signed = true,
            TYPE_SIG if u16_at(&message[record.rdata.clone()], 0) == Some(0) => signed = true,
            _ => {}
        }
    }
    (at == message.len()).then_some((edns, signed))
}

fn edns_of(message: &[u8], record: &Record) -> Option<Edns> {
    let [ext_rcode, version, flags, _] = record.ttl.to_be_bytes();
    let mut subnet = false;
    for option in Options::new(message, record.rdata.clone()) {
        match option {
            Ok((code, _)) => subnet |= code == OPTION_SUBNET,
            // Another version may lay its data out in another way.
            Err(_) if version > 0 => break,
            Err(_) => return None,
        }
    }
    record.is_root().then(|| Edns {
        payload_size: record.class,
        ext_rcode,
        version,
        do_bit: flags & 0x80 != 0,
        subnet,
        rdata: record.rdata.clone(),
        record: record.start..record.end(),
    })
}

/// Writes to `out` what is forwarded: `message` with id 0, without hop-by-hop options, with our own payload size.
///
/// Unknown options and client subnets pass. A query without EDNS stays without, so that its answer needs no rewriting and an
/// upstream's answer to it is one that the client could have got itself. A signed query changes in its id only, which
/// signatures do not cover (RFC 8945 section 4.3.2).
pub fn normalise(message: &[u8], parsed: &Query, out: &mut Vec<u8>) {
    out.clear();
    let Some(edns) = parsed.edns.as_ref().filter(|_| !parsed.signed) else {
        out.extend_from_slice(message);
        return put_u16(out, 0, 0);
    };
    if options_kept(message, &edns.rdata, true) == edns.rdata.len() {
        out.extend_from_slice(message);
    } else {
        out.extend_from_slice(&message[..edns.rdata.start]);
        let kept = copy_options(message, &edns.rdata, true, out);
        put_u16(out, edns.rdata.start - 2, kept);
        out.extend_from_slice(&message[edns.rdata.end..]);
    }
    put_u16(out, edns.record.start + 3, PAYLOAD_SIZE);
    put_u16(out, 0, 0);
}

/// Bytes of the options that go on to the next hop, with or without those of the client's `subnet`.
pub(super) fn options_kept(message: &[u8], rdata: &Range<usize>, subnet: bool) -> usize {
    let options = Options::new(message, rdata.clone()).flatten();
    let kept = options.filter(|(code, _)| !is_hop_by_hop(*code) && (subnet || *code != OPTION_SUBNET));
    kept.map(|(_, option)| option.len()).sum()
}

/// Appends the options that go on to the next hop, with or without those of the client's `subnet`; returns their length.
pub(crate) fn copy_options(message: &[u8], rdata: &Range<usize>, subnet: bool, out: &mut Vec<u8>) -> u16 {
    let mut skipped = 0;
    let length = kept_options(message, rdata, |option| {
        if subnet || u16_at(option, 0) != Some(OPTION_SUBNET) {
            out.extend_from_slice(option);
        } else {
            skipped += u16::try_from(option.len()).unwrap_or_default();
        }
    });
    length - skipped
}

/// Shows the options that go on to the next hop; returns their length.
pub(crate) fn kept_options(message: &[u8], rdata: &Range<usize>, mut each: impl FnMut(&[u8])) -> u16 {
    let mut length = 0;
    for (code, option) in Options::new(message, rdata.clone()).flatten() {
        if !is_hop_by_hop(code) {
            length += option.len();
            each(&message[option]);
        }
    }
    u16::try_from(length).expect("part of 16 bits of options")
}

/// A hash of a [normalised](normalise) query that does not depend on the case of its name.
///
/// Keyed by `seed`, which is random a process, so that clients cannot choose names that collide. Only the name is folded:
/// were the rest folded too, options that differ in case would be such names.
pub fn hash_key(normalised: &[u8], seed: u64) -> u64 {
    let name_end = plain_name_end(normalised, Header::LEN).unwrap_or(Header::LEN).min(normalised.len());
    let start = Header::LEN.min(name_end);
    let mut hash = seed ^ normalised.len() as u64;
    hash = absorb(hash, &normalised[..start], std::convert::identity);
    hash = absorb(hash, &normalised[start..name_end], lowercase);
    hash = absorb(hash, &normalised[name_end..], std::convert::identity);
    fold(hash, MIX[1])
}

/// A hash of a question and what its answer depends on besides, which does not depend on the case of the name.
///
/// `name` is in wire form, `fields` and `rest` are whatever else has to be equal. Keyed by `seed` as in [`hash_key`].
pub(crate) fn hash_parts(name: &[u8], fields: u64, rest: &[u8], seed: u64) -> u64 {
    let hash = absorb(seed ^ name.len() as u64, name, lowercase);
    let hash = fold(hash ^ fields, MIX[0]);
    // Most queries have no rest and are spared a step.
    let hash = if rest.is_empty() { hash } else { absorb(hash ^ rest.len() as u64, rest, std::convert::identity) };
    fold(hash, MIX[1])
}

fn absorb(mut hash: u64, bytes: &[u8], map: impl Fn(u64) -> u64) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = fold(hash ^ map(u64::from_le_bytes(chunk.try_into().expect("eight bytes"))), MIX[0]);
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    fold(hash ^ map(u64::from_le_bytes(rest)), MIX[0])
}

/// Both halves of the full product, as in wyhash and foldhash.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    let low = product as u64;
    low ^ (product >> 64) as u64
}

/// Eight ASCII bytes at once; others stay.
fn lowercase(word: u64) -> u64 {
    let each = |byte: u8| u64::from_ne_bytes([byte; 8]);
    let low = word & each(0x7f);
    let upper = (low + each(0x80 - b'A')) ^ (low + each(0x7f - b'Z'));
    word | (upper & !word & each(0x80)) >> 2
}

/// Digits of pi: odd numbers with bits everywhere.
const MIX: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

/// Whether two [normalised](normalise) queries may share an answer: all bytes equal but for the case of the name.
///
/// Flags, options and client subnets are part of it: when in doubt, nothing is shared.
pub fn same_key(a: &[u8], b: &[u8]) -> bool {
    let Some(name_end) = plain_name_end(a, Header::LEN) else { return a == b };
    a.len() == b.len()
        && a[..Header::LEN] == b[..Header::LEN]
        // Lengths of labels are below 64 and no letters, so the shape of the names is compared too.
        && a[Header::LEN..name_end].eq_ignore_ascii_case(&b[Header::LEN..name_end])
        && a[name_end..] == b[name_end..]
}

/// Gives each letter of the question's name a random case (0x20, draft-vixie-dnsext-dns0x20), in place. `question` is the
/// name and the 4 bytes behind it; `bits` yields random bits.
pub fn randomize_case(question: &mut [u8], mut bits: impl FnMut() -> u64) {
    let Some(name_end) = plain_name_end(question, 0) else { return };
    let (mut pool, mut left) = (0, 0);
    for byte in question[..name_end].iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
        if left == 0 {
            (pool, left) = (bits(), u64::BITS);
        }
        *byte = *byte & !0x20 | if pool & 1 == 1 { 0x20 } else { 0 };
        (pool, left) = (pool >> 1, left - 1);
    }
}

/// A query of our own with id 0, RD and EDNS. `name` is text with RFC 1035 escapes, with or without the final dot.
/// `None` when it is no valid name.
pub fn build_query(name: &str, qtype: u16) -> Option<Vec<u8>> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend_from_slice(&name_from_text(name)?);
    query.extend_from_slice(&qtype.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    debug_assert_eq!(question_end(&query, Header::LEN), Some(query.len()));
    let [high, low] = PAYLOAD_SIZE.to_be_bytes();
    query.extend_from_slice(&[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
    Some(query)
}

pub(crate) const TYPE_SIG: u16 = 24;
pub(crate) const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
