//! Walking over names, records and options with every bound checked (RFC 1035 section 4.1).
//!
//! Nothing is decoded here; positions go in and come out. Expanding compressed names is `name`'s business.

use std::ops::Range;

use super::Header;

/// A message whose bytes do not hold what its counts promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

pub(crate) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Overwrites 16 bits that the caller knows to be there.
pub(crate) fn put_u16(message: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = message.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

/// The end of the question that begins at `start`; its name must be uncompressed (nothing stands before it to point at)
/// and at most 255 bytes long.
pub(crate) fn question_end(message: &[u8], start: usize) -> Option<usize> {
    let end = plain_name_end(message, start)? + 4;
    (end <= message.len()).then_some(end)
}

/// The end of an uncompressed name.
pub(crate) fn plain_name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        // Lengths above 63 are pointers or labels of types that do not exist (RFC 6891 section 5).
        if length > 63 {
            return None;
        }
        at += 1 + usize::from(length);
        if at - start > NAME_MAX {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// The end of a name that may end in a pointer. A pointer has to lead backwards, so no chain of them is endless.
pub(crate) fn name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        match length >> 6 {
            0 => {
                at += 1 + usize::from(length);
                if at - start > NAME_MAX {
                    return None;
                }
                if length == 0 {
                    return Some(at);
                }
            }
            3 => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                return (target >= Header::LEN && target < start).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

/// Longest name on the wire, the root's zero included (RFC 1035 section 2.3.4).
pub(crate) const NAME_MAX: usize = 255;

/// Where a record's parts are.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) start: usize,
    pub(crate) name_end: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata: Range<usize>,
}

impl Record {
    /// Reads the record that begins at `start`.
    pub(crate) fn read(message: &[u8], start: usize) -> Option<Record> {
        let name_end = name_end(message, start)?;
        let rdata = name_end + 10;
        let length = usize::from(u16_at(message, name_end + 8)?);
        let end = rdata + length;
        if end > message.len() {
            return None;
        }
        Some(Record {
            start,
            name_end,
            rtype: u16_at(message, name_end)?,
            class: u16_at(message, name_end + 2)?,
            ttl: u32_at(message, name_end + 4)?,
            rdata: rdata..end,
        })
    }

    pub(crate) fn end(&self) -> usize {
        self.rdata.end
    }

    /// The owner is the root, as OPT's must be (RFC 6891 section 6.1.2).
    pub(crate) fn is_root(&self) -> bool {
        self.name_end == self.start + 1
    }
}

/// The records of a message in order, up to the first that is malformed, which comes out as an error.
pub(crate) struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Records<'a> {
    /// `count` records from `at`.
    pub(crate) fn new(message: &'a [u8], at: usize, count: usize) -> Records<'a> {
        Records { message, at, left: count }
    }

    /// All records behind the questions.
    pub(crate) fn of(message: &'a [u8]) -> Result<Records<'a>, Malformed> {
        let header = Header::read(message).ok_or(Malformed)?;
        let mut at = Header::LEN;
        for _ in 0..header.questions() {
            at = question_end(message, at).ok_or(Malformed)?;
        }
        Ok(Records::new(message, at, header.records()))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match Record::read(self.message, self.at) {
            Some(record) => {
                self.at = record.end();
                Some(Ok(record))
            }
            None => {
                self.left = 0;
                Some(Err(Malformed))
            }
        }
    }
}

/// The options in an OPT record's data (RFC 6891 section 6.1.2): code and the range of the whole option, header included.
pub(crate) struct Options<'a> {
    message: &'a [u8],
    rdata: Range<usize>,
}

impl<'a> Options<'a> {
    pub(crate) fn new(message: &'a [u8], rdata: Range<usize>) -> Options<'a> {
        Options { message, rdata }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<(u16, Range<usize>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rdata.is_empty() {
            return None;
        }
        let start = self.rdata.start;
        let header = u16_at(self.message, start).zip(u16_at(self.message, start + 2));
        match header.map(|(code, length)| (code, start + 4 + usize::from(length))) {
            Some((code, end)) if end <= self.rdata.end => {
                self.rdata.start = end;
                Some(Ok((code, start..end)))
            }
            _ => {
                self.rdata = 0..0;
                Some(Err(Malformed))
            }
        }
    }
}

/// Options that concern one hop only: COOKIE (RFC 7873), edns-tcp-keepalive (RFC 7828) and PADDING (RFC 7830).
pub(crate) fn is_hop_by_hop(code: u16) -> bool {
    matches!(code, OPTION_COOKIE | OPTION_KEEPALIVE | OPTION_PADDING)
}

/// The client's subnet (RFC 7871).
pub(crate) const OPTION_SUBNET: u16 = 8;
pub(crate) const OPTION_COOKIE: u16 = 10;
pub(crate) const OPTION_KEEPALIVE: u16 = 11;
pub(crate) const OPTION_PADDING: u16 = 12;
pub(crate) const OPTION_EDE: u16 = 15;
