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
        balanced(line).map_err(error)?;
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

/// Checks that quotes and parentheses are closed, and that there is a space, a parenthesis or an end around each quoted string.
///
/// The parser must not see an open parenthesis: TXT data goes on until a line ends, no line ends within parentheses, and the
/// parser (`EntryScanner::scan_charstr_entry` of domain 0.12.3) does not look whether the text does. It writes one empty
/// string after the other behind it, and panics at the end of its buffer.
///
/// Strings that touch are refused for another reason: they are one word to some programs and two to others.
fn balanced(line: &str) -> Result<(), String> {
    let at = |place: usize| line.bytes().take(place).filter(|byte| byte & 0xc0 != 0x80).count() + 1;
    let touching = |place| format!("what touches the quote at character {} has to stand apart from it", at(place));
    let (mut open, mut quote, mut before) = (Vec::new(), None, Before::Space);
    let mut bytes = line.bytes().enumerate();
    while let Some((place, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        }
        match (byte, quote, before) {
            (b'"', Some(_), _) => (quote, before) = (None, Before::Quote(place)),
            (_, Some(_), _) => {}
            (b'"', None, Before::Word | Before::Quote(_)) => return Err(touching(place)),
            (b'"', None, Before::Space) => quote = Some(place),
            (b' ' | b'\t' | b'\r' | b'\n', ..) => before = Before::Space,
            (b'(', ..) => {
                open.push(place);
                before = Before::Space;
            }
            (b')', ..) => {
                open.pop().ok_or_else(|| format!("the parenthesis at character {} closes none", at(place)))?;
                before = Before::Space;
            }
            // A comment ends with its line.
            (b';', ..) => {
                bytes.find(|(_, byte)| *byte == b'\n');
                before = Before::Space;
            }
            (_, None, Before::Quote(place)) => return Err(touching(place)),
            // Parameters of SVCB records are written `key="value"` (RFC 9460 section 2.1).
            (b'=', ..) => before = Before::Space,
            _ => before = Before::Word,
        }
    }
    let unclosed = |what: &str, place| Err(format!("the {what} at character {} is not closed", at(place)));
    match (quote, open.last()) {
        (Some(place), _) => unclosed("quote", place),
        (None, Some(place)) => unclosed("parenthesis", *place),
        (None, None) => Ok(()),
    }
}

/// What stands before a byte outside quotes.
#[derive(Clone, Copy)]
enum Before {
    /// A space, a parenthesis, an equals sign or nothing: a quote may begin.
    Space,
    Word,
    /// A closing quote, at this place.
    Quote(usize),
}

/// The place within the line is of little help for one record.
fn explain(error: &str) -> String {
    error.splitn(3, ':').nth(2).unwrap_or(error).trim().to_owned()
}

/// RFC 2181 section 8.
const TTL_MAX: u32 = i32::MAX.unsigned_abs();

/// Bytes of one record's data; one answer holds several.
const DATA_MAX: usize = 32_768;
