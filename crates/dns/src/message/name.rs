//! Names, types and rcodes as people write them (RFC 1035 section 5.1, RFC 3597 section 5).

use std::fmt::Write;

use super::wire::NAME_MAX;

/// Reads a name with escapes, with or without the final dot, to its wire form; `None` when it is no valid name.
pub fn name_from_text(text: &str) -> Option<Vec<u8>> {
    let mut wire = vec![0];
    let mut label = 0;
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return None;
    }
    let mut at = if text == "." { 1 } else { 0 };
    while at < bytes.len() {
        let mut byte = bytes[at];
        at += 1;
        if byte == b'.' {
            if wire.len() == label + 1 {
                return None;
            }
            label = wire.len();
            wire.push(0);
            continue;
        }
        if byte == b'\\' {
            byte = *bytes.get(at)?;
            at += 1;
            if byte.is_ascii_digit() {
                // Three decimal digits are one byte.
                let digits =
                    text.get(at - 1..at + 2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
                byte = digits.parse().ok()?;
                at += 2;
            }
        }
        wire.push(byte);
        if wire.len() - label > 64 {
            return None;
        }
        wire[label] += 1;
    }
    if wire[label] > 0 {
        wire.push(0);
    }
    (wire.len() <= NAME_MAX).then_some(wire)
}

/// Writes the name at `start` with escapes and the final dot; returns where it ends in the message. `None` when malformed.
pub(crate) fn name_to_text(message: &[u8], start: usize, out: &mut String) -> Option<usize> {
    let (mut at, mut end, mut size, mut limit) = (start, None, 0, start);
    loop {
        let length = usize::from(*message.get(at)?);
        match length >> 6 {
            0 if length == 0 => {
                if size == 0 {
                    out.push('.');
                }
                return Some(end.unwrap_or(at + 1));
            }
            0 => {
                size += 1 + length;
                if size >= NAME_MAX {
                    return None;
                }
                for &byte in message.get(at + 1..at + 1 + length)? {
                    push_escaped(out, byte, b".\\\"();@$");
                }
                out.push('.');
                at += 1 + length;
            }
            3 => {
                let target = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                end.get_or_insert(at + 2);
                // Each pointer leads further back, so the walk ends.
                if target >= limit {
                    return None;
                }
                (at, limit) = (target, target);
            }
            _ => return None,
        }
    }
}

/// One byte of a name or string; those in `special` get a backslash.
pub(super) fn push_escaped(out: &mut String, byte: u8, special: &[u8]) {
    if special.contains(&byte) {
        out.push('\\');
        out.push(char::from(byte));
    } else if byte.is_ascii_graphic() || byte == b' ' && special.len() == 2 {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "\\{byte:03}");
    }
}

/// The number of a record type: its mnemonic in any case, or `TYPE65`.
pub fn type_from_name(name: &str) -> Option<u16> {
    if let Some((number, _)) = TYPES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)) {
        return Some(*number);
    }
    let (prefix, number) = name.split_at_checked(4)?;
    let plain = prefix.eq_ignore_ascii_case("TYPE") && number.bytes().all(|digit| digit.is_ascii_digit());
    number.parse().ok().filter(|_| plain)
}

/// The mnemonic of a record type, or `TYPE65280`.
pub fn type_name(number: u16) -> String {
    name_of(&TYPES, number).map_or_else(|| format!("TYPE{number}"), str::to_owned)
}

/// The mnemonic of a class, or `CLASS32`.
pub fn class_name(number: u16) -> String {
    name_of(&CLASSES, number).map_or_else(|| format!("CLASS{number}"), str::to_owned)
}

/// The mnemonic of a response code, or `RCODE3841`.
pub fn rcode_name(rcode: u16) -> String {
    name_of(&RCODES, rcode).map_or_else(|| format!("RCODE{rcode}"), str::to_owned)
}

fn name_of(table: &[(u16, &'static str)], number: u16) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

const CLASSES: [(u16, &str); 5] = [(1, "IN"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY")];

/// From IANA's registry of DNS parameters.
const RCODES: [(u16, &str); 13] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (16, "BADVERS"),
    (23, "BADCOOKIE"),
];

/// From IANA's registry of DNS parameters; types that nobody asks a resolver for are left to `TYPEn`.
const TYPES: [(u16, &str); 44] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];
