//! Names that mean nothing on the Internet, or nothing good: what a resolver answers itself.
//!
//! RFC 6761 section 6 (localhost, invalid, test), RFC 6762 section 22.1 (local), RFC 7686 section 2 (onion), RFC 8375
//! section 4 (home.arpa), RFC 9462 section 6.4 (resolver.arpa), and the reverse zones of private addresses: RFC 6303 section
//! 4 and RFC 7793. Left to upstreams: `example.` (RFC 6761 section 6.5 makes nothing special of it), `ipv4only.arpa`, which
//! asks what the network's DNS64 does (RFC 8880), and `use-application-dns.net`, which belongs to the operator.

use crate::message::{TYPE_A, TYPE_AAAA};

/// What there is to be said of a special name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// One record, of this type.
    Data(u16, &'static [u8]),
    /// The name exists, without records of the type asked for.
    Empty,
    /// There is no such name.
    Missing,
    /// The top of an empty zone, with SOA and NS records.
    Apex,
}

/// In seconds (RFC 6303 section 3).
pub(super) const TTL: u32 = 10_800;

/// Whether a name may be special: how its last label ends. `name` ends with the name in wire form.
#[inline]
pub(super) fn may_be(name: &[u8]) -> bool {
    let Some((tail, [0])) = name.split_last_chunk::<1>().map(|(rest, root)| (rest, *root)) else { return false };
    let Some(tail) = tail.last_chunk::<4>() else { return false };
    // Letters to lower case; what else that does to other bytes only costs a closer look.
    let tail = u32::from_be_bytes(*tail) | 0x2020_2020;
    matches!(tail, ARPA | LOCAL | LOCALHOST | TEST | INVALID | ONION)
}

const ARPA: u32 = u32::from_be_bytes(*b"arpa");
const LOCAL: u32 = u32::from_be_bytes(*b"ocal");
const LOCALHOST: u32 = u32::from_be_bytes(*b"host");
const TEST: u32 = u32::from_be_bytes(*b"test");
const INVALID: u32 = u32::from_be_bytes(*b"alid");
const ONION: u32 = u32::from_be_bytes(*b"nion");

/// What is special about a name in wire form and lower case, and where its zone begins in it.
pub(super) fn find(name: &[u8], qtype: u16) -> Option<(Special, usize)> {
    if !may_be(name) {
        return None;
    }
    let labels = Labels::of(name)?;
    let top = labels.place(0)?;
    match labels.get(0) {
        b"localhost" => Some((loopback(qtype), top)),
        b"invalid" | b"test" | b"onion" | b"local" => Some((Special::Missing, top)),
        b"arpa" => arpa(&labels, qtype),
        _ => None,
    }
}

/// Whether a name is this suffix or below it; both in wire form and lower case.
pub(super) fn ends_with(name: &[u8], suffix: &[u8]) -> bool {
    let Some(start) = name.len().checked_sub(suffix.len()) else { return false };
    name[start..] == *suffix && (start == 0 || Labels::of(name).is_some_and(|labels| labels.begins(start)))
}

/// RFC 6761 section 6.3: address queries get the loopback address, all others a negative answer.
fn loopback(qtype: u16) -> Special {
    match qtype {
        TYPE_A => Special::Data(TYPE_A, &[127, 0, 0, 1]),
        TYPE_AAAA => Special::Data(TYPE_AAAA, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        _ => Special::Empty,
    }
}

fn arpa(labels: &Labels<'_>, qtype: u16) -> Option<(Special, usize)> {
    match labels.get(1) {
        b"home" => zone(labels, 2, qtype),
        // Whoever asks it wants to know about this resolver, not about the next. An answer of our own is a local record.
        b"resolver" => Some((Special::Empty, labels.place(1)?)),
        b"in-addr" => v4(labels, qtype),
        b"ip6" => v6(labels, qtype),
        _ => None,
    }
}

/// An empty zone whose top has `count` labels.
fn zone(labels: &Labels<'_>, count: usize, qtype: u16) -> Option<(Special, usize)> {
    let apex = labels.place(count - 1)?;
    match labels.count() == count {
        // The parent knows whether there is a secure delegation (RFC 8375 section 4).
        true if qtype == TYPE_DS => None,
        true => Some((Special::Apex, apex)),
        false => Some((Special::Missing, apex)),
    }
}

/// The zones of RFC 6303 sections 4.1 and 4.2, and of RFC 7793 section 4.
fn v4(labels: &Labels<'_>, qtype: u16) -> Option<(Special, usize)> {
    let octets: [Option<u8>; 4] = [2, 3, 4, 5].map(|number| octet(labels.get(number)));
    let count = match octets {
        [Some(127), ..] => return own_v4(labels, octets, qtype),
        [Some(0 | 10), ..] => 3,
        [Some(100), Some(64..=127), ..]
        | [Some(169), Some(254), ..]
        | [Some(172), Some(16..=31), ..]
        | [Some(192), Some(168), ..] => 4,
        [Some(192), Some(0), Some(2), _] | [Some(198), Some(51), Some(100), _] | [Some(203), Some(0), Some(113), _] => {
            5
        }
        [Some(255), Some(255), Some(255), Some(255)] => 6,
        _ => return None,
    };
    zone(labels, count, qtype)
}

/// 127.in-addr.arpa, which is empty but for 127.0.0.1.
fn own_v4(labels: &Labels<'_>, octets: [Option<u8>; 4], qtype: u16) -> Option<(Special, usize)> {
    let found = match (octets, labels.count()) {
        ([_, Some(0), Some(0), Some(1)], 6) if qtype == TYPE_PTR => Special::Data(TYPE_PTR, LOCALHOST_NAME),
        ([_, Some(0), Some(0), Some(1)], 6) | ([_, Some(0), Some(0), _], 5) | ([_, Some(0), _, _], 4) => Special::Empty,
        _ => return zone(labels, 3, qtype),
    };
    Some((found, labels.place(2)?))
}

/// The zones of RFC 6303 sections 4.3 to 4.6.
fn v6(labels: &Labels<'_>, qtype: u16) -> Option<(Special, usize)> {
    let mut digits = [0; 32];
    let mut count = 0;
    for (place, label) in digits.iter_mut().zip((2..labels.count()).map(|number| labels.get(number))) {
        let [digit] = *label else { break };
        *place = digit;
        count += 1;
    }
    match &digits[..count] {
        [b'f', b'd', ..] => zone(labels, 4, qtype),
        [b'f', b'e', b'8' | b'9' | b'a' | b'b', ..] => zone(labels, 5, qtype),
        [b'2', b'0', b'0', b'1', b'0', b'd', b'b', b'8', ..] => zone(labels, 10, qtype),
        [zeros @ .., b'0' | b'1'] if count == 32 && zeros.iter().all(|digit| *digit == b'0') => {
            let own = digits[31] == b'1' && labels.count() == 34 && qtype == TYPE_PTR;
            if own {
                return Some((Special::Data(TYPE_PTR, LOCALHOST_NAME), labels.place(33)?));
            }
            zone(labels, 34, qtype)
        }
        _ => None,
    }
}

/// A label of an IPv4 reverse name: a number without zeros before it.
fn octet(label: &[u8]) -> Option<u8> {
    let plain = label == b"0" || !label.starts_with(b"0") && label.iter().all(u8::is_ascii_digit);
    str::from_utf8(label).ok().filter(|_| plain)?.parse().ok()
}

/// The labels of a name, counted from its end.
struct Labels<'a> {
    name: &'a [u8],
    /// Where each begins, the last of the name at the end.
    places: [u8; 128],
    count: usize,
}

impl<'a> Labels<'a> {
    fn of(name: &'a [u8]) -> Option<Labels<'a>> {
        let mut labels = Labels { name, places: [0; 128], count: 0 };
        let mut at = 0;
        while *name.get(at)? > 0 {
            *labels.places.get_mut(labels.count)? = u8::try_from(at).ok()?;
            labels.count += 1;
            at += 1 + usize::from(name[at]);
        }
        Some(labels)
    }

    fn count(&self) -> usize {
        self.count
    }

    /// Where a label begins; 0 is the last one.
    fn place(&self, number: usize) -> Option<usize> {
        let number = self.count.checked_sub(number + 1)?;
        self.places.get(number).map(|place| usize::from(*place))
    }

    /// A label; 0 is the last one. Empty where there are not so many.
    fn get(&self, number: usize) -> &'a [u8] {
        let Some(place) = self.place(number) else { return &[] };
        self.name.get(place + 1..place + 1 + usize::from(self.name[place])).unwrap_or_default()
    }

    /// Whether a label begins there.
    fn begins(&self, at: usize) -> bool {
        self.places[..self.count].iter().any(|place| usize::from(*place) == at)
    }
}

const TYPE_PTR: u16 = 12;
const TYPE_DS: u16 = 43;

const LOCALHOST_NAME: &[u8] = b"\x09localhost\0";
