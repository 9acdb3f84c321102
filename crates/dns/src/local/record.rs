//! One record, read from a line as in a zone file (RFC 1035 section 5.1).

use std::fmt;

use bytes::Bytes;
use domain::{
    base::{
        iana::{Class, Rtype},
        name::{Name, ToName},
        rdata::ComposeRecordData,
    },
    zonefile::inplace::{Entry, Zonefile},
};

/// A record that is answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The owner in wire form and lower case.
    pub(super) owner: Vec<u8>,
    pub(super) rtype: u16,
    /// In seconds.
    pub(super) ttl: u32,
    /// Without compression.
    pub(super) data: Vec<u8>,
}

/// Why a line is no record that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    line: String,
    why: String,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordError { line, why } = self;
        write!(f, "`{line}` is no record: {why}; write one as in a zone file: `nas.home.arpa. 300 IN A 192.168.1.10`")
    }
}

impl std::error::Error for RecordError {}

impl RecordError {
    /// What is wrong with the line, without the line.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl Record {
    /// Reads a line: owner, TTL, class, type, data. Class IN may be left out, and so may the TTL, which then is 3600 s. A
    /// name without a final dot is absolute nevertheless.
    ///
    /// # Errors
    /// When it is no record, more than one, of another class, or of a type that means more than its own name (DNAME) or is
    /// none of data.
    pub fn parse(line: &str) -> Result<Record, RecordError> {
        let error = |why: String| RecordError { line: line.to_owned(), why };
        if !quotes_stand_apart(line) {
            return Err(error("its quotes do not stand apart from other words, or are not closed".into()));
        }
        let mut zone = Zonefile::from(format!("{line}\n").as_str());
        zone.set_origin(Name::<Bytes>::root_bytes());
        zone.set_default_class(Class::IN);
        let entry = zone.next_entry().map_err(|error_| error(explain(&error_.to_string())))?;
        let Some(Entry::Record(record)) = entry else { return Err(error("there is none in it".into())) };
        // RFC 1035 has lines that begin with a space mean the owner of the line before.
        if line.starts_with(char::is_whitespace) {
            return Err(error("it begins with a space".into()));
        }
        if zone.next_entry().map_or(true, |more| more.is_some()) {
            return Err(error("there is more than one in it".into()));
        }
        let rtype = record.rtype();
        if matches!(rtype, Rtype::DNAME | Rtype::OPT) || (128..=255).contains(&rtype.to_int()) {
            return Err(error(format!("records of type {rtype} cannot be given here")));
        }
        if record.class() != Class::IN {
            return Err(error("its class is not IN".into()));
        }
        let mut owner = record.owner().to_vec().as_octets().clone();
        owner.make_ascii_lowercase();
        let mut data = Vec::new();
        let Ok(()) = record.data().compose_rdata(&mut data);
        if data.len() > DATA_MAX {
            return Err(error("its data is too long".into()));
        }
        Ok(Record { owner, rtype: rtype.to_int(), ttl: record.ttl().as_secs().min(TTL_MAX), data })
    }

    /// The name that it is of, in wire form and lower case.
    pub fn owner(&self) -> &[u8] {
        &self.owner
    }
}

/// Whether there is a space, a parenthesis, an equals sign or an end around each quoted string, and each is closed. The parser puts strings
/// together in place: those that touch can make it write beyond what it has read, and panic.
fn quotes_stand_apart(line: &str) -> bool {
    let (mut quoted, mut apart) = (false, true);
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
                apart = quoted;
            }
            b'"' if quoted => {
                quoted = false;
                if !matches!(bytes.clone().next(), None | Some(b' ' | b'\t' | b'(' | b')' | b';' | b'\r' | b'\n')) {
                    return false;
                }
            }
            b'"' if !apart => return false,
            b'"' => quoted = true,
            b';' if !quoted => return true,
            _ if quoted => {}
            // The parameters of SVCB records are written `key="value"` (RFC 9460 section 2.1).
            other => apart = matches!(other, b' ' | b'\t' | b'(' | b')' | b'\r' | b'\n' | b'='),
        }
    }
    !quoted
}

/// The place within the line is of little help for one record.
fn explain(error: &str) -> String {
    error.splitn(3, ':').nth(2).unwrap_or(error).trim().to_owned()
}

/// RFC 2181 section 8.
const TTL_MAX: u32 = i32::MAX.unsigned_abs();

/// Bytes of one record's data; one answer holds several.
const DATA_MAX: usize = 32_768;
