//! What a lab answers: records that encode their question, and the special names. When an answer leaves, and what a fault
//! does to it, is decided in `plan`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::wire::{
    FORMERR, HEADER, NXDOMAIN, Query, Question, REFUSED, SERVFAIL, TYPE_A, TYPE_AAAA, TYPE_OPT, TYPE_SOA, TYPE_TXT,
    name_to_wire,
};

/// The address that a lab answers to `name A`: 127.x.y.z, where x.y.z are 24 bits of an FNV-1a hash over the lower-cased
/// name in wire form and the type.
///
/// Labels are taken as they stand between the dots; a final dot makes no difference.
///
/// # Panics
/// If `name` is no valid DNS name.
#[must_use]
pub fn expected_a(name: &str) -> Ipv4Addr {
    address_v4(&name_to_wire(name).expect("a valid DNS name"))
}

/// The address that a lab answers to `name AAAA`: in fd00::/8, with 120 bits of hash. See [`expected_a`].
///
/// # Panics
/// If `name` is no valid DNS name.
#[must_use]
pub fn expected_aaaa(name: &str) -> Ipv6Addr {
    address_v6(&name_to_wire(name).expect("a valid DNS name"))
}

/// What a question's first label asks for beyond an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// An ordinary name.
    None,
    /// NXDOMAIN or another code, without records.
    Rcode(u8),
    /// The name exists, the type does not.
    NoData,
    /// About 3,000 bytes of TXT.
    Big,
    /// An ordinary answer, this much later.
    Delay(Duration),
    /// No answer, ever.
    Drop,
}

impl Special {
    pub(crate) fn of(question: &Question) -> Self {
        let label = question.first_label().to_ascii_lowercase();
        match label.as_slice() {
            b"nx" => Self::Rcode(NXDOMAIN),
            b"servfail" => Self::Rcode(SERVFAIL),
            b"refused" => Self::Rcode(REFUSED),
            b"nodata" => Self::NoData,
            b"big" if question.kind == TYPE_TXT => Self::Big,
            b"drop" => Self::Drop,
            label => label.strip_prefix(b"delay-").and_then(milliseconds).map_or(Self::None, Self::Delay),
        }
    }
}

/// At most one minute: a longer delay is no delay but a loss.
fn milliseconds(digits: &[u8]) -> Option<Duration> {
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_millis(number.min(60_000)))
}

/// Everything that an answer's bytes depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) id: u16,
    /// Its flags and EDNS are answered.
    pub(crate) query: &'a Query,
    /// The question section.
    pub(crate) question: &'a Question,
    /// The question whose records are given; another than `question` in forged answers alone.
    pub(crate) subject: &'a Question,
    /// An empty answer with this code in place of the records.
    pub(crate) rcode: Option<u8>,
    pub(crate) ttl: u32,
    /// edns-tcp-keepalive, where the transport and the faults have it.
    pub(crate) keepalive: Option<Duration>,
    /// Longer answers are sent empty with TC set.
    pub(crate) size_max: usize,
}

impl Answer<'_> {
    pub(crate) fn write(&self) -> Vec<u8> {
        let (code, records, soa) = self.content();
        let mut out = self.message(code, &records, soa, false);
        if out.len() > self.size_max {
            out = self.message(code, &[], false, true);
        }
        out
    }

    fn content(&self) -> (u16, Vec<Vec<u8>>, bool) {
        if self.query.edns.is_some() && self.query.edns_version != 0 {
            return (BADVERS, Vec::new(), false);
        }
        if let Some(code) = self.rcode {
            return (u16::from(code), Vec::new(), false);
        }
        match Special::of(self.subject) {
            Special::Rcode(code) => (u16::from(code), Vec::new(), code == NXDOMAIN),
            Special::NoData => (0, Vec::new(), true),
            Special::None | Special::Big | Special::Delay(_) | Special::Drop => (0, records(self.subject), false),
        }
    }

    fn message(&self, code: u16, records: &[Vec<u8>], soa: bool, truncated: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.name.len() + 64);
        let code_bytes = code.to_be_bytes();
        let extended = u8::try_from(code >> 4).expect("extended codes have 12 bits");
        let recursion_desired = u8::from(self.query.recursion_desired);
        out.extend_from_slice(&self.id.to_be_bytes());
        out.push(0x80 | u8::from(truncated) << 1 | recursion_desired);
        // RFC 4035 section 3.2.2: CD is copied.
        out.push(0x80 | u8::from(self.query.checking_disabled) << 4 | code_bytes[1] & 0x0f);
        let answers = u16::try_from(records.len()).expect("a handful of records");
        for count in [1, answers, u16::from(soa), u16::from(self.query.edns.is_some())] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        self.question.write(&mut out);
        for data in records {
            self.record(&mut out, self.subject.kind, data);
        }
        if soa {
            self.record(&mut out, TYPE_SOA, &soa_data(self.ttl));
        }
        if self.query.edns.is_some() {
            write_opt(&mut out, extended, self.query.dnssec_ok, self.keepalive);
        }
        out
    }

    fn record(&self, out: &mut Vec<u8>, kind: u16, data: &[u8]) {
        // A pointer to the question's name, right behind the header.
        out.extend_from_slice(&[0xc0, 0x0c]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&self.question.class.to_be_bytes());
        out.extend_from_slice(&self.ttl.to_be_bytes());
        out.extend_from_slice(&u16::try_from(data.len()).expect("records are short").to_be_bytes());
        out.extend_from_slice(data);
    }
}

/// The answer to a message whose question could not be read.
pub(crate) fn header_only(id: u16, rcode: u8) -> Vec<u8> {
    debug_assert!(rcode == FORMERR || rcode <= 0x0f);
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[0x80, 0x80 | rcode, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

/// The RDATA of every record that answers a question.
pub(crate) fn records(question: &Question) -> Vec<Vec<u8>> {
    match question.kind {
        TYPE_A => vec![address_v4(&question.name).octets().to_vec()],
        TYPE_AAAA => vec![address_v6(&question.name).octets().to_vec()],
        TYPE_TXT if Special::of(question) == Special::Big => (0..BIG_RECORDS).map(|n| big_text(question, n)).collect(),
        TYPE_TXT => vec![strings(&text(question))],
        _ => vec![opaque(question)],
    }
}

fn address_v4(name: &[u8]) -> Ipv4Addr {
    let hash = hash(FNV_OFFSET, name, TYPE_A);
    let folded = (hash ^ hash >> 24 ^ hash >> 48).to_be_bytes();
    Ipv4Addr::new(127, folded[5], folded[6], folded[7])
}

fn address_v6(name: &[u8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&hash(!FNV_OFFSET, name, TYPE_AAAA).to_be_bytes());
    octets[8..].copy_from_slice(&hash(FNV_OFFSET, name, TYPE_AAAA).to_be_bytes());
    octets[0] = 0xfd;
    Ipv6Addr::from(octets)
}

/// The hash as a character string, then a zero byte. That reads as TXT and, for the types that hold a name, as a name;
/// types that put numbers around the name get some, so that strict clients can parse them.
fn opaque(question: &Question) -> Vec<u8> {
    let (before, after): (&[u8], &[u8]) = match question.kind {
        TYPE_MX | TYPE_SVCB | TYPE_HTTPS => (&[0, 1], &[]),
        TYPE_SRV => (&[0, 1, 0, 1, 0, 53], &[]),
        // The second name is the root; five numbers follow.
        TYPE_SOA => (&[], &[0; 21]),
        _ => (&[], &[]),
    };
    let hash = strings(&format!("{:016x}", hash(FNV_OFFSET, &question.name, question.kind)));
    [before, &hash, &[0], after].concat()
}

fn text(question: &Question) -> String {
    let mut text = String::new();
    for label in question.labels() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label.to_ascii_lowercase() {
            match byte {
                b'!'..=b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    text + " TXT"
}

fn big_text(question: &Question, number: usize) -> Vec<u8> {
    strings(&format!("{:.<240} {number}", text(question)))
}

/// Text as the character strings of a TXT record.
fn strings(text: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(text.len() + 1 + text.len() / 255);
    for part in text.as_bytes().chunks(255) {
        data.push(u8::try_from(part.len()).expect("chunks have at most 255 bytes"));
        data.extend_from_slice(part);
    }
    data
}

fn hash(start: u64, name: &[u8], kind: u16) -> u64 {
    let bytes = name.iter().map(u8::to_ascii_lowercase).chain(kind.to_be_bytes());
    bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

fn soa_data(minimum: u32) -> Vec<u8> {
    let mut data = b"\x02ns\x03lab\x00\x0ahostmaster\x03lab\x00".to_vec();
    for number in [1, 3_600, 600, 86_400, minimum] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data
}

fn write_opt(out: &mut Vec<u8>, extended: u8, dnssec_ok: bool, keepalive: Option<Duration>) {
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&UDP_SIZE.to_be_bytes());
    // RFC 3225 section 3: DO is copied.
    out.extend_from_slice(&[extended, 0, u8::from(dnssec_ok) << 7, 0]);
    let Some(keepalive) = keepalive else { return out.extend_from_slice(&[0, 0]) };
    // RFC 7828 section 3.1: option 11, two bytes, in units of 100 milliseconds.
    let units = u16::try_from(keepalive.as_millis() / 100).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0, 6, 0, 11, 0, 2]);
    out.extend_from_slice(&units.to_be_bytes());
}

/// RFC 6891 section 6.1.3.
pub(crate) const BADVERS: u16 = 16;
/// What the lab's own OPT records announce.
const UDP_SIZE: u16 = 1232;
const TYPE_MX: u16 = 15;
const TYPE_SRV: u16 = 33;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
const BIG_RECORDS: usize = 12;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build_query;

    fn plain<'a>(query: &'a Query, size_max: usize) -> Answer<'a> {
        let question = &query.question;
        Answer { id: query.id, query, question, subject: question, rcode: None, ttl: 60, keepalive: None, size_max }
    }

    #[test]
    fn addresses_depend_on_name_and_not_on_case() {
        assert_eq!(expected_a("www.Example"), expected_a("WWW.example."));
        assert_ne!(expected_a("www.example"), expected_a("www.exampld"));
        assert_eq!(expected_a("x.y").octets()[0], 127);
        assert_eq!(expected_aaaa("x.y").octets()[0], 0xfd);
        // Fixed, so that other programs may rely on the rule.
        assert_eq!(hash(FNV_OFFSET, b"", 0x6162), 0x089c_4407_b545_986a);
    }

    #[test]
    fn ten_thousand_names_hardly_collide() {
        let distinct: std::collections::HashSet<_> = (0..10_000).map(|n| expected_a(&format!("q{n}.test"))).collect();
        assert!(distinct.len() > 9_985, "{}", distinct.len());
    }

    #[test]
    fn a_big_answer_is_truncated_to_the_clients_size() {
        let query = Query::parse(&build_query(9, "big.test", TYPE_TXT, Some(1232))).unwrap();
        let full = plain(&query, 65_535).write();
        assert!((2_900..3_400).contains(&full.len()), "{}", full.len());
        let cut = plain(&query, 1232).write();
        assert!(cut.len() < 60 && cut[2] & 2 != 0);
        assert_eq!(cut[6..8], [0, 0]);
    }

    #[test]
    fn an_unknown_edns_version_is_refused() {
        let mut query = Query::parse(&build_query(9, "a.test", TYPE_A, Some(1232))).unwrap();
        query.edns_version = 1;
        let answer = plain(&query, 512).write();
        let opt = answer.len() - 11;
        assert_eq!((answer[3] & 15, answer[opt + 5]), (0, 1));
    }

    #[test]
    fn cd_and_do_are_copied_and_nothing_else() {
        let plain_query = build_query(9, "a.test", TYPE_A, Some(1232));
        let mut marked = plain_query.clone();
        marked[3] |= 0x10;
        let opt_flags = marked.len() - 4;
        marked[opt_flags] |= 0x80;
        let [bare, marked] = [plain_query, marked].map(|query| plain(&Query::parse(&query).unwrap(), 512).write());
        let differing: Vec<_> =
            (0..bare.len()).filter(|at| bare[*at] != marked[*at]).map(|at| (at, marked[at] ^ bare[at])).collect();
        assert_eq!(differing, [(3, 0x10), (bare.len() - 4, 0x80)]);
    }

    #[test]
    fn the_keepalive_is_in_tenths_of_a_second() {
        let query = Query::parse(&build_query(9, "a.test", TYPE_A, Some(1232))).unwrap();
        let answer = Answer { keepalive: Some(Duration::from_secs(4)), ..plain(&query, 512) }.write();
        assert!(answer.ends_with(&[0, 6, 0, 11, 0, 2, 0, 40]));
    }
}
