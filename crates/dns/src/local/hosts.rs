//! Hosts files: an address and its names on each line, as in hosts(5).

use std::net::IpAddr;

use super::record::Record;
use crate::message::{TYPE_A, TYPE_AAAA, name_from_text};

/// What a hosts file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// A and AAAA records of the names, and a PTR record for each address that says what it is called.
    pub(super) records: Vec<Record>,
    /// Lines that say nothing that can be understood, counted from 1; the first few.
    pub unknown: Vec<usize>,
}

/// Reads a hosts file. Lines that are not understood are passed over and told.
///
/// A line is an address of either family, then names; `#` begins a comment. The first name of an address is what the
/// address is called (PTR), save for 0.0.0.0 and `::`, which lists of unwanted names use for them all. The zone of an IPv6
/// address (`fe80::1%eth0`) means something on this machine only: such lines are passed over.
pub fn parse(text: &[u8], ttl: u32) -> Hosts {
    let mut hosts = Hosts::default();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let understood = str::from_utf8(line).is_ok_and(|line| read(line, ttl, &mut hosts.records));
        if !understood && hosts.unknown.len() < UNKNOWN_MAX {
            hosts.unknown.push(number + 1);
        }
    }
    hosts
}

/// Whether all of a line is understood.
fn read(line: &str, ttl: u32, records: &mut Vec<Record>) -> bool {
    let mut words = line.split_whitespace();
    let Some(address) = words.next() else { return true };
    let Ok(address) = address.parse::<IpAddr>() else { return address.contains('%') };
    let (rtype, data) = match address {
        IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
        IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
    };
    let (mut understood, mut first) = (true, true);
    for word in words {
        // A wildcard is none here: hosts(5) knows no such thing.
        let Some(name) = name_from_text(word).filter(|name| name.len() > 1 && !name.starts_with(b"\x01*")) else {
            understood = false;
            continue;
        };
        if std::mem::take(&mut first) && !address.is_unspecified() {
            records.push(Record { owner: reverse(address), rtype: TYPE_PTR, ttl, data: name.clone() });
        }
        records.push(Record { owner: name.to_ascii_lowercase(), rtype, ttl, data: data.clone() });
    }
    understood && !first
}

/// The name below `in-addr.arpa` (RFC 1035 section 3.5) or `ip6.arpa` (RFC 3596 section 2.5).
fn reverse(address: IpAddr) -> Vec<u8> {
    let mut name = Vec::with_capacity(74);
    let mut label = |text: &[u8]| {
        name.push(u8::try_from(text.len()).expect("labels of addresses are short"));
        name.extend_from_slice(text);
    };
    match address {
        IpAddr::V4(address) => {
            address.octets().iter().rev().for_each(|octet| label(octet.to_string().as_bytes()));
            label(b"in-addr");
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                for nibble in [octet & 0x0f, octet >> 4] {
                    label(&[b"0123456789abcdef"[usize::from(nibble)]]);
                }
            }
            label(b"ip6");
        }
    }
    label(b"arpa");
    name.push(0);
    name
}

/// Lines that are told.
const UNKNOWN_MAX: usize = 5;

pub(super) const TYPE_PTR: u16 = 12;
